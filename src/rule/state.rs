//! Values that rules keep with a request or a connection, one of a type. A rule keeps one or two, which are found
//! sooner by looking at each than by hashing.

use std::any::{Any, TypeId};

/// Values by their type.
#[derive(Default)]
pub(crate) struct State(Vec<(TypeId, Box<dyn Any + Send + Sync>)>);

impl State {
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.iter().find(|(of, _)| *of == TypeId::of::<T>()).map(|(_, value)| known(&**value))
    }

    pub fn get_mut<T: Any>(&mut self) -> Option<&mut T> {
        let (_, value) = self.0.iter_mut().find(|(of, _)| *of == TypeId::of::<T>())?;
        Some(value.downcast_mut().expect(OF_ITS_TYPE))
    }

    /// Keeps a value, in the place of what there was.
    pub fn insert<T: Any + Send + Sync>(&mut self, value: T) {
        match self.get_mut() {
            Some(kept) => *kept = value,
            None => self.0.push((TypeId::of::<T>(), Box::new(value))),
        }
    }

    pub fn get_or_insert<T: Any + Send + Sync>(&mut self, value: T) -> &mut T {
        if self.get::<T>().is_none() {
            self.insert(value);
        }
        self.get_mut().expect("it was there or was inserted")
    }
}

fn known<T: Any>(value: &(dyn Any + Send + Sync)) -> &T {
    value.downcast_ref().expect(OF_ITS_TYPE)
}

const OF_ITS_TYPE: &str = "a value is kept under its own type";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_value_of_a_type() {
        let mut state = State::default();
        assert_eq!(state.get::<u8>(), None);
        state.insert(1_u8);
        state.insert("text");
        state.insert(2_u8);
        assert_eq!((state.get(), state.get(), state.get::<u16>()), (Some(&2_u8), Some(&"text"), None));
        *state.get_or_insert(9_u8) += 1;
        *state.get_or_insert(9_u16) += 1;
        assert_eq!((state.get(), state.get()), (Some(&3_u8), Some(&10_u16)));
        *state.get_mut::<u8>().expect("it was inserted") = 4;
        assert_eq!((state.get(), state.0.len()), (Some(&4_u8), 3));
    }
}
