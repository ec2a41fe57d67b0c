//! Named objects of one kind: each defined once, and found by those that refer to them.

use std::collections::BTreeMap;

use super::{
    problem::{Place, Report, listed, shown},
    read::{Object, Reference},
};

/// The objects of one kind, by name.
pub(super) struct Table<T> {
    /// `pool`, as messages call it.
    kind: &'static str,
    rows: BTreeMap<String, (Place, T)>,
}

impl<T> Table<T> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, rows: BTreeMap::new() }
    }

    /// Adds an object by the value of its key, mostly `name`; the first of two stays.
    pub(super) fn define(&mut self, object: &Object<'_>, key: &str, name: &str, value: T) {
        let place = object.place_of(key);
        if let Some((first, _)) = self.rows.get(name) {
            let elsewhere = if first.file == place.file {
                format!("line {}", first.line)
            } else {
                format!("{}:{}", first.file.display(), first.line)
            };
            let what = format!("{} {} is defined twice, first in {elsewhere}", self.kind, shown(name));
            object.source.report.problem(place, what, "choose another name, or leave one of them out");
        } else {
            self.rows.insert(name.to_string(), (place, value));
        }
    }

    /// What messages call an object of these.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn find(&self, name: &str) -> Option<&T> {
        self.rows.get(name).map(|(_, value)| value)
    }

    /// The object that is referred to. `None`: that it is not there is reported.
    pub(super) fn resolve(&self, reference: &Reference, report: &Report) -> Option<&T> {
        let found = self.find(&reference.name);
        if found.is_none() {
            let what = format!("{} {} is not defined", self.kind, shown(&reference.name));
            report.problem(reference.place.clone(), what, format!("known: {}", listed(self.names())));
        }
        found
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }
}
