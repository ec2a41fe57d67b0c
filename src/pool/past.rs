//! What has become of a server lately, for the operator who looks later.

use std::{collections::VecDeque, time::SystemTime};

use super::State;

/// A change of a server's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub state: State,
    pub reason: String,
    pub at: SystemTime,
}

/// The last changes, the oldest first.
#[derive(Default)]
pub(super) struct Past(VecDeque<Change>);

impl Past {
    pub fn note(&mut self, state: State, reason: &str, at: SystemTime) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Change { state, reason: reason.to_owned(), at });
    }

    pub fn all(&self) -> Vec<Change> {
        self.0.iter().cloned().collect()
    }
}

const KEPT: usize = 8;
