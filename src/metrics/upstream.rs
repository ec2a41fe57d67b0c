//! Connections to servers, and what goes wrong with them.

use std::{net::SocketAddr, time::Duration};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::{Metrics, series::Families};

/// The metrics of all pools' connections.
#[derive(Clone)]
pub struct UpstreamFamilies {
    retries: IntCounterVec,
    no_retries: IntCounterVec,
    connects: HistogramVec,
    connect_failures: IntCounterVec,
    failures: IntCounterVec,
}

impl UpstreamFamilies {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            retries: families.counters(
                "homing_pool_retries_total",
                "Attempts that failed and were made again, on another server or on another connection.",
                &["pool"],
            ),
            no_retries: families.counters(
                "homing_pool_retries_refused_total",
                "Attempts that failed and were not made again because there were enough of them, by reason: max_retries \
                 of the request, retry_budget of the pool.",
                &["pool", "reason"],
            ),
            connects: families.durations(
                "homing_upstream_connect_duration_seconds",
                "What it took to make a new connection to a server, with TLS where the pool has it.",
                CONNECT_BUCKETS,
                &["pool"],
            ),
            connect_failures: families.counters(
                "homing_upstream_connect_failures_total",
                "Connections to servers that were not made, by reason.",
                &["pool", "server", "reason"],
            ),
            failures: families.counters(
                "homing_upstream_request_failures_total",
                "Requests that a server took and did not answer whole, by reason.",
                &["pool", "server", "reason"],
            ),
        }
    }
}

/// What one pool counts about the connections to its servers.
pub struct UpstreamMetrics {
    pool: String,
    families: UpstreamFamilies,
    retries: IntCounter,
    connects: Histogram,
}

impl UpstreamMetrics {
    pub fn new(metrics: &Metrics, pool: &str) -> Self {
        let families = metrics.upstream.clone();
        Self {
            retries: families.retries.with_label_values(&[pool]),
            connects: families.connects.with_label_values(&[pool]),
            pool: pool.to_owned(),
            families,
        }
    }

    /// An attempt failed and is made again.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// An attempt failed and is not made again; `reason` is one of few words.
    pub fn not_retried(&self, reason: &'static str) {
        self.families.no_retries.with_label_values(&[&*self.pool, reason]).inc();
    }

    /// A new connection was made.
    pub fn connected(&self, took: Duration) {
        self.connects.observe(took.as_secs_f64());
    }

    /// A connection could not be made; `reason` is one of few words.
    pub fn not_connected(&self, server: SocketAddr, reason: &'static str) {
        let server = server.to_string();
        self.families.connect_failures.with_label_values(&[&*self.pool, &server, reason]).inc();
    }

    /// A request failed after it was given to a server; `reason` is one of few words.
    pub fn failed(&self, server: SocketAddr, reason: &'static str) {
        let server = server.to_string();
        self.families.failures.with_label_values(&[&*self.pool, &server, reason]).inc();
    }
}

/// A server in the next rack answers in a fraction of a millisecond, one behind TLS on another continent in some
/// hundreds.
const CONNECT_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
