//! What the rules of a chain decided about a request, for its line in the access log.

use std::borrow::Cow;

/// Decisions in their order, each with the place of its rule in the chain.
#[derive(Default)]
pub(crate) struct Decisions {
    running: usize,
    made: Vec<(usize, Cow<'static, str>)>,
}

impl Decisions {
    pub(super) fn runs(&mut self, rule: usize) {
        self.running = rule;
    }

    pub(super) fn add(&mut self, decision: impl Into<Cow<'static, str>>) {
        self.made.push((self.running, decision.into()));
    }

    pub(super) fn made(&self) -> &[(usize, Cow<'static, str>)] {
        &self.made
    }
}
