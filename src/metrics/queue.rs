//! Requests that wait for a server.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::{Metrics, series::Families};

/// The metrics of all pools' queues.
#[derive(Clone)]
pub struct QueueFamilies {
    /// Set when the page is made. `pool`.
    pub length: IntGaugeVec,
    waits: HistogramVec,
    failures: IntCounterVec,
}

impl QueueFamilies {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            length: families.gauges(
                "homing_pool_queue_length",
                "Requests that wait for a server because all are full.",
                &["pool"],
            ),
            waits: families.durations(
                "homing_pool_queue_wait_seconds",
                "What requests waited that found every server full and got one.",
                WAIT_BUCKETS,
                &["pool"],
            ),
            failures: families.counters(
                "homing_pool_queue_failures_total",
                "Requests that found every server full and got none: no_queue, queue_full, timeout, request_timeout, client_gone.",
                &["pool", "reason"],
            ),
        }
    }
}

/// What one pool counts about those who wait.
pub struct QueueMetrics {
    pool: String,
    families: QueueFamilies,
}

impl QueueMetrics {
    pub fn new(metrics: &Metrics, pool: &str) -> Self {
        Self { pool: pool.to_owned(), families: metrics.queues.clone() }
    }

    /// A request got a server after this time.
    pub fn served(&self, waited: Duration) {
        self.families.waits.with_label_values(&[&*self.pool]).observe(waited.as_secs_f64());
    }

    /// A request got none; `reason` is one of few words.
    pub fn not_served(&self, reason: &'static str) {
        self.families.failures.with_label_values(&[&*self.pool, reason]).inc();
    }
}

const WAIT_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
