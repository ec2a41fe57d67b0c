//! Servers that requests took out.

use prometheus::IntCounterVec;

use super::{Metrics, series::Families};

/// The metrics of all pools' inline monitoring.
#[derive(Clone)]
pub struct EjectionFamilies {
    ejections: IntCounterVec,
    prevented: IntCounterVec,
}

impl EjectionFamilies {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            ejections: families.counters(
                "homing_pool_ejections_total",
                "Servers that failed too many requests and were taken out for a time, by reason.",
                &["pool", "server", "reason"],
            ),
            prevented: families.counters(
                "homing_pool_ejections_prevented_total",
                "Servers that failed too many requests and stayed, because too few others are left.",
                &["pool"],
            ),
        }
    }
}

/// What one pool counts of it.
pub struct EjectionMetrics {
    pool: String,
    families: EjectionFamilies,
}

impl EjectionMetrics {
    pub fn new(metrics: &Metrics, pool: &str) -> Self {
        Self { pool: pool.to_owned(), families: metrics.ejections.clone() }
    }

    /// A server was taken out; `reason` is one of few words.
    pub fn ejected(&self, server: &str, reason: &'static str) {
        self.families.ejections.with_label_values(&[&*self.pool, server, reason]).inc();
    }

    /// One was not.
    pub fn prevented(&self) {
        self.families.prevented.with_label_values(&[&*self.pool]).inc();
    }
}
