//! Lists of plain values and of mappings. Each item is read, whatever is wrong with those before it.

use super::{Object, Shape};
use crate::config::{
    problem::{Place, Wrong},
    yaml::{Data, Entry, Node, joined},
};

impl<'a> Object<'a> {
    /// A list of plain values; `None` if it is left out.
    pub(in crate::config) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let mut values: Vec<_> = self.placed_list(key, parse)?.into_iter().map(|(value, _)| value).collect();
        values.shrink_to_fit();
        Some(values)
    }

    /// A list of plain values that has to be there and not be empty.
    pub(in crate::config) fn required_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Vec<T> {
        self.demand_items(key);
        self.list(key, parse).unwrap_or_default()
    }

    /// A list of plain values, each with its place; `None` if it is left out.
    pub(in crate::config) fn placed_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Option<Vec<(T, Place)>> {
        if self.tells(key, |_| Shape::list(Shape::taken_by(&parse))) {
            return None;
        }
        let items = self.items(key)?;
        let mut values = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let place = Place {
                line: item.line,
                path: format!("{}[{n}]", self.place_of(key).path),
                ..self.place.clone()
            };
            match parse(item) {
                Ok(value) => values.push((value, place)),
                Err(Wrong { what, help, .. }) => self.source.report.problem(place, what, help),
            }
        }
        Some(values)
    }

    fn items(&mut self, key: &'static str) -> Option<&'a [Node]> {
        let node = self.value(key)?;
        if let Data::List(items) = &node.data {
            return Some(items);
        }
        self.wrong(
            key,
            format!("{} where a list is meant", node.described()),
            "write `[a, b]` or `- ` lines",
        );
        Some(&[])
    }

    /// A list of mappings. An item of which `read` makes nothing is left out; it has reported why.
    pub(in crate::config) fn objects<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Object<'a>) -> Option<T>,
    ) -> Vec<T> {
        if self.tells(key, |source| Shape::list(Shape::Object(Self::outline(source, &mut read)))) {
            return Vec::new();
        }
        let items = self.items(key).unwrap_or_default();
        self.read_items(key, items, read)
    }

    /// A list of mappings of which the reader keeps what it wants.
    pub(in crate::config) fn each(&mut self, key: &'static str, mut read: impl FnMut(&mut Object<'a>)) {
        self.objects::<()>(key, |o| {
            read(o);
            None
        });
    }

    pub(in crate::config) fn required_objects<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(&mut Object<'a>) -> Option<T>,
    ) -> Vec<T> {
        self.demand_items(key);
        self.objects(key, read)
    }

    pub(in crate::config) fn demand_items(&mut self, key: &'static str) {
        self.demand(key);
        self.not_empty(key, "write at least one");
    }

    /// Reports a list that is there and has no items.
    pub(in crate::config) fn not_empty(&mut self, key: &'static str, help: &str) {
        if let Some(outline) = &mut self.outline {
            outline.not_empty.insert(key);
        }
        if let Some(Entry { value: Node { data: Data::List(items), .. }, .. }) = self.entry(key)
            && items.is_empty()
        {
            self.wrong(key, "the list is empty", help);
        }
    }

    /// One mapping, or a list of them.
    pub(in crate::config) fn object_or_objects<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Object<'a>) -> Option<T>,
    ) -> Vec<T> {
        let shape = |source| {
            let one = Shape::Object(Self::outline(source, &mut read));
            Shape::either(one.clone(), Shape::list(one))
        };
        if self.tells(key, shape) {
            return Vec::new();
        }
        match self.entry(key).map(|entry| &entry.value.data) {
            Some(Data::Map(_)) => self.object(key, read).flatten().into_iter().collect(),
            _ => self.objects(key, read),
        }
    }

    fn read_items<T>(
        &self,
        key: &str,
        items: &'a [Node],
        mut read: impl FnMut(&mut Object<'a>) -> Option<T>,
    ) -> Vec<T> {
        let path = |n, item: &Node| format!("{}[{}]", joined(&self.place.path, key), item.label(n));
        let read = |(n, item)| Self::read(self.source, item, path(n, item), &mut read).flatten();
        let mut all: Vec<_> = items.iter().enumerate().filter_map(read).collect();
        // There may be very many short lists.
        all.shrink_to_fit();
        all
    }
}
