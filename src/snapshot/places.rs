//! The client connections of a virtual service, counted against what it may have.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// How many there are. It outlives reloads, whatever they do to the limit.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU32,
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// Takes a place, if fewer than `most` are taken.
    pub fn take(self: &Arc<Self>, most: Option<u32>) -> Option<Place> {
        let most = most.unwrap_or(u32::MAX);
        let taken = self.taken.fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.is_ok().then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_there_may_be() {
        let places = Arc::new(Places::default());
        let first = places.take(Some(2)).expect("the first");
        let _second = places.take(Some(2)).expect("the second");
        assert!(places.take(Some(2)).is_none());
        let _third = places.take(None).expect("no limit any more");
        drop(first);
        assert!(places.take(Some(2)).is_none(), "two are there");
        assert!(places.take(Some(3)).is_some());
    }
}
