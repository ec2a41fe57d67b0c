//! Clone pools with persistence as a rule: every request of a session is copied to one clone member.
//!
//! One rule for each clone section of a virtual service. It names the session by the section's token chain, asks
//! the session table for its member, and orders the copy; taps and lanes do the rest. F5's article does the same
//! with an iRule, `session` and `clone pool`.

use std::{borrow::Cow, sync::Arc};

use crate::prelude::*;

/// The rule of one clone section.
pub struct ClonePools {
    section: CloneSection,
    /// Name of the section's session table.
    table: String,
    /// Seeds choices that must be the same on every node: samples and rendezvous.
    seed: [u8; 16],
    turns: AtomicUsize,
    sampled_out: IntCounter,
    loops: IntCounter,
    no_member: IntCounter,
}

/// The sessions of one request or connection, in use as long as it lives: one for each section.
#[derive(Clone, Default)]
struct InUse(Vec<(PoolName, Arc<Assigned>)>);

impl ClonePools {
    /// A rule for each clone section.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Vec<Arc<dyn Rule>> {
        let vs = setup.virtual_service;
        let rule = |section: &CloneSection| {
            let labels = |reason| [vs.name.as_str(), section.pool.as_str(), reason];
            let skipped = |reason| setup.metrics.clone_skipped.with_label_values(&labels(reason));
            Self {
                section: section.clone(),
                table: format!("clone:{}:{}", vs.name, section.pool),
                seed: node_independent_seed(vs.uuid.as_ref().map_or(vs.name.as_str(), |uuid| uuid.as_str())),
                turns: AtomicUsize::new(0),
                sampled_out: skipped("sampled_out"),
                loops: skipped("loop"),
                no_member: setup.metrics.clone_dropped.with_label_values(&labels("no_member_up")),
            }
            .into_rule()
        };
        vs.clones.iter().map(rule).collect()
    }
}
