//! The form that the readers take: which keys an object has, and what the values look like. The readers tell it
//! themselves, so that what describes them cannot differ from them.
//!
//! A parser that refuses a value says what it takes instead ([`Wrong::expecting`]); one that is shown nothing
//! refuses that, and so tells. An object whose reader finds no key has asked for every key that it knows.

use std::collections::BTreeSet;

use serde_yaml::Value;

use super::{
    problem::Wrong,
    yaml::{Data, Node},
};

/// What a value looks like.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Anything,
    /// A text that is not empty; its parser knows more than a schema could say.
    Text,
    /// A text of this regular expression (ECMA 262).
    Matching(&'static str),
    Flag,
    Whole {
        least: u64,
        most: u64,
    },
    Number {
        least: f64,
        most: f64,
    },
    /// One of these words.
    Words(Vec<String>),
    Either(Box<(Shape, Shape)>),
    List(Box<Shape>),
    Object(Outline),
    /// A mapping with keys of the user's choice.
    Map(Box<Shape>),
}

/// The keys of an object, in the order in which its reader asks for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outline {
    pub(super) keys: Vec<(&'static str, Shape)>,
    pub(super) required: BTreeSet<&'static str>,
    /// Lists that have to have items.
    pub(super) not_empty: BTreeSet<&'static str>,
}

impl Shape {
    pub(super) fn list(of: Shape) -> Self {
        Self::List(Box::new(of))
    }

    pub(super) fn either(one: Shape, other: Shape) -> Self {
        Self::Either(Box::new((one, other)))
    }

    /// What a parser takes.
    pub(super) fn taken_by<T>(parse: impl FnOnce(&Node) -> Result<T, Wrong>) -> Self {
        let nothing = Node { line: 0, data: Data::Scalar(Value::Null) };
        parse(&nothing).err().and_then(|wrong| wrong.expected).map_or(Self::Anything, |shape| *shape)
    }
}

impl Outline {
    /// A key that a reader asks for, once more or for the first time.
    pub(super) fn add(&mut self, key: &'static str, shape: Shape) {
        if self.keys.iter().all(|(known, _)| *known != key) {
            self.keys.push((key, shape));
        }
    }
}
