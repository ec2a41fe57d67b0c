//! Clients' connections, by listener: what is known of them before there is a request.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Held, Metrics, series::Families};

/// The metrics of all listeners.
#[derive(Clone)]
pub struct ListenerFamilies {
    accepted: IntCounterVec,
    not_accepted: IntCounterVec,
    open: IntGaugeVec,
    /// How many there is room for, on all listeners together.
    pub limit: IntGauge,
    refused: IntCounterVec,
    http2_ended: IntCounterVec,
    handshakes: IntCounterVec,
    handshake_failures: IntCounterVec,
}

impl ListenerFamilies {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            accepted: families.counters(
                "homing_connections_accepted_total",
                "Client connections accepted by the kernel and taken from it, also those refused after that.",
                &["listener"],
            ),
            not_accepted: families.counters(
                "homing_accept_failures_total",
                "Times that the system gave an error instead of a connection, as when all open files are used.",
                &["listener"],
            ),
            limit: families.gauge(
                "homing_connections_limit",
                "How many client connections there is room for, on all listeners together.",
            ),
            open: families.gauges(
                "homing_listener_connections_open",
                "Client connections open, from before the TLS handshake, whether they had a request or not.",
                &["listener"],
            ),
            refused: families.counters(
                "homing_connections_refused_total",
                "Client connections refused or lost before a request.",
                &["listener", "reason"],
            ),
            http2_ended: families.counters(
                "homing_http2_connections_ended_total",
                "Clients' HTTP/2 connections that homing ended, by reason.",
                &["listener", "reason"],
            ),
            handshakes: families.counters(
                "homing_tls_handshakes_total",
                "TLS handshakes with clients that were completed.",
                &["listener", "version", "resumed"],
            ),
            handshake_failures: families.counters(
                "homing_tls_handshake_failures_total",
                "TLS handshakes with clients that failed, by reason.",
                &["listener", "reason"],
            ),
        }
    }
}

/// What one listener counts.
pub struct ListenerMetrics {
    name: String,
    families: ListenerFamilies,
    accepted: IntCounter,
    not_accepted: IntCounter,
    open: IntGauge,
}

impl ListenerMetrics {
    pub fn new(metrics: &Metrics, listener: &str) -> Self {
        let families = metrics.listeners.clone();
        Self {
            accepted: families.accepted.with_label_values(&[listener]),
            not_accepted: families.not_accepted.with_label_values(&[listener]),
            open: families.open.with_label_values(&[listener]),
            name: listener.to_owned(),
            families,
        }
    }

    /// A connection came.
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// The system gave an error instead of a connection.
    pub fn not_accepted(&self) {
        self.not_accepted.inc();
    }

    /// A connection counts as open while this is held.
    pub fn open(&self) -> Held {
        Held::new(self.open.clone())
    }

    /// A connection was refused; `reason` is one of few words.
    pub fn refused(&self, reason: &'static str) {
        self.families.refused.with_label_values(&[&*self.name, reason]).inc();
    }

    /// An HTTP/2 connection was ended by us; `reason` is one of few words.
    pub fn http2_ended(&self, reason: &'static str) {
        self.families.http2_ended.with_label_values(&[&*self.name, reason]).inc();
    }

    /// A handshake was completed; `version` is OpenSSL's name of it.
    pub fn shaken(&self, version: &'static str, resumed: bool) {
        let resumed = if resumed { "true" } else { "false" };
        self.families.handshakes.with_label_values(&[&*self.name, version, resumed]).inc();
    }

    /// A handshake failed; `reason` is one of few words.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.families.handshake_failures.with_label_values(&[&*self.name, reason]).inc();
    }
}
