//! The DNS responder: queries, who clients were sent to, and what was held back.

use prometheus::{IntCounterVec, IntGauge};

use super::series::Families;

#[derive(Clone)]
pub struct DnsMetrics {
    /// `rcode` is `none` where there was no answer. `service`, `type`, `rcode`.
    pub queries: IntCounterVec,
    /// `service`, `member`, `reason`.
    pub answers: IntCounterVec,
    /// `action`.
    pub rate_limited: IntCounterVec,
    pub tcp_connections_open: IntGauge,
    /// `reason`.
    pub tcp_connections_refused: IntCounterVec,
}

impl DnsMetrics {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            queries: families.counters(
                "homing_gslb_dns_queries_total",
                "DNS queries, by rcode; none where there was no answer.",
                &["service", "type", "rcode"],
            ),
            answers: families.counters(
                "homing_gslb_dns_answers_total",
                "Answers to queries for addresses, by the member that they send clients to and why.",
                &["service", "member", "reason"],
            ),
            rate_limited: families.counters(
                "homing_gslb_dns_rate_limited_total",
                "DNS answers over the rate limit: dropped, truncated.",
                &["action"],
            ),
            tcp_connections_open: families.gauge(
                "homing_gslb_dns_tcp_connections_open",
                "Connections of DNS clients over TCP that are open.",
            ),
            tcp_connections_refused: families.counters(
                "homing_gslb_dns_tcp_connections_refused_total",
                "Connections of DNS clients over TCP that were too many, by the limit that they were over.",
                &["reason"],
            ),
        }
    }
}
