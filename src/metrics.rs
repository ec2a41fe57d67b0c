//! Every metric: name, unit, help, labels. One [`Metrics`] belongs to one running instance.
//!
//! Labels have bounded values: names from the configuration and words from this code base, never a token, a
//! client's address or a path. Hot paths resolve their children once, when the snapshot is built.

mod configuration;
mod dns;
mod ejection;
mod listener;
mod queue;
mod request;
mod series;
mod upstream;

use prometheus::{Encoder, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder};

pub use configuration::ConfigMetrics;
pub use dns::DnsMetrics;
pub use ejection::{EjectionFamilies, EjectionMetrics};
pub use listener::{ListenerFamilies, ListenerMetrics};
pub use queue::{QueueFamilies, QueueMetrics};
pub use request::{Answered, ByClass, RequestMetrics, code_class};
use series::Families;
pub use series::{Description, Labels};
pub use upstream::{UpstreamFamilies, UpstreamMetrics};

/// The metrics of one instance. Clones share the values.
#[derive(Clone)]
pub struct Metrics {
    registry: Families,
    /// Requests answered. `vs`, `pool`, `code_class`.
    pub requests: IntCounterVec,
    /// From the request head to the end of the answer. `vs`.
    pub request_duration: HistogramVec,
    /// Requests answered. `vs`, `protocol`.
    pub requests_by_protocol: IntCounterVec,
    /// Requests that were refused for what their client did. `vs`, `reason`.
    pub requests_refused: IntCounterVec,
    /// Bytes of requests' bodies. `vs`.
    pub request_body_bytes: IntCounterVec,
    /// Bytes of answers' bodies. `vs`.
    pub response_body_bytes: IntCounterVec,
    /// Client connections open. `vs`.
    pub connections_open: IntGaugeVec,
    pub listeners: ListenerFamilies,
    /// 1 while the server is up; set when the page is made. `pool`, `server`.
    pub pool_server_up: IntGaugeVec,
    /// What a server is to do; set when the page is made. `pool`, `server`.
    pub pool_server_admin_state: IntGaugeVec,
    /// Requests and tunnels in flight; set when the page is made. `pool`, `server`.
    pub pool_server_inflight: IntGaugeVec,
    /// HTTP/1 connections; set when the page is made. `pool`, `server`, `state`.
    pub pool_server_connections: IntGaugeVec,
    /// Answers and failures of DNS. `result`.
    pub server_name_lookups: IntCounterVec,
    pub queues: QueueFamilies,
    pub ejections: EjectionFamilies,
    pub upstream: UpstreamFamilies,
    /// Requests to pools with a persistence profile. `pool`, `outcome`.
    pub persistence: IntCounterVec,
    /// Cookies that were to name a server and were not believed. `pool`, `reason`.
    pub persistence_cookies_refused: IntCounterVec,
    /// Copies that left. `vs`, `pool`, `server`, `outcome`, `reason`.
    pub clone_copies: IntCounterVec,
    /// Copies that never left. `vs`, `pool`, `reason`.
    pub clone_dropped: IntCounterVec,
    /// Requests not meant to be copied. `vs`, `pool`, `reason`.
    pub clone_skipped: IntCounterVec,
    /// Answers to copies that left whole or cut. `vs`, `pool`, `server`, `code_class`.
    pub clone_answers: IntCounterVec,
    /// From a copy's last byte to the end of its answer. `vs`, `pool`.
    pub clone_answer_duration: HistogramVec,
    /// Bytes of copies held in memory. `pool`.
    pub clone_buffered_bytes: IntGaugeVec,
    /// Entries in the session table. `table`.
    pub session_entries: IntGaugeVec,
    /// Entries that left a full session table. `table`.
    pub session_evictions: IntCounterVec,
    /// Requests of site-persistent virtual services. `service`, `vs`, `outcome`.
    pub sp_requests: IntCounterVec,
    /// Site cookies sealed. `key` (the key's id).
    pub site_cookie_seals: IntCounterVec,
    /// 1 while a site cookie key wants attention. `key`, `concern`.
    pub site_cookie_key_concerns: IntGaugeVec,
    /// Hop headers that were no proof. `service`, `vs`, `reason`.
    pub sp_hops_refused: IntCounterVec,
    /// Servers of SP pools. `pool`, `state`.
    pub sp_pool_servers: IntGaugeVec,
    pub dns: DnsMetrics,
    /// 1 while a source says that a member is up; set when the page is made. `service`, `member`, `source`.
    pub gslb_member_up: IntGaugeVec,
    /// Errors and panics of rules. `rule`, `event`.
    pub rule_errors: IntCounterVec,
    pub http_rule_hits: IntCounterVec,
    /// Lines of the access log that were written.
    pub access_log_written: IntCounter,
    /// Lines of the access log that found no room.
    pub access_log_dropped: IntCounter,
    pub config: ConfigMetrics,
}

impl Metrics {
    /// A fresh registry in which every metric is 0.
    pub fn new() -> Self {
        let registry = Families::default();
        let build_info = registry.gauges(
            "homing_build_info",
            "The running version, and OpenSSL's.",
            &["version", "openssl"],
        );
        let openssl = openssl::version::version();
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), openssl]).set(1);
        #[cfg(target_os = "linux")]
        registry.collector(prometheus::process_collector::ProcessCollector::for_self());
        Self {
            requests: registry.counters(
                "homing_requests_total",
                "Requests answered.",
                &["vs", "pool", "code_class"],
            ),
            request_duration: registry.durations(
                "homing_request_duration_seconds",
                "From the request's head to the end of its answer.",
                DURATION_BUCKETS,
                &["vs"],
            ),
            requests_by_protocol: registry.counters(
                "homing_requests_by_protocol_total",
                "Requests answered, by the protocol that the client spoke.",
                &["vs", "protocol"],
            ),
            requests_refused: registry.counters(
                "homing_requests_refused_total",
                "Requests that were refused for what their client did, by the reason of the access log.",
                &["vs", "reason"],
            ),
            request_body_bytes: registry.counters(
                "homing_request_body_bytes_total",
                "Bytes of requests' bodies, and of what clients said in tunnels.",
                &["vs"],
            ),
            response_body_bytes: registry.counters(
                "homing_response_body_bytes_total",
                "Bytes of answers' bodies, and of what servers said in tunnels.",
                &["vs"],
            ),
            connections_open: registry.gauges("homing_connections_open", "Client connections open.", &["vs"]),
            listeners: ListenerFamilies::new(&registry),
            pool_server_up: registry.gauges(
                "homing_pool_server_up",
                "1 while the server is up, draining or not, else 0.",
                &["pool", "server"],
            ),
            pool_server_admin_state: registry.gauges(
                "homing_pool_server_admin_state",
                "What the server is to do: 0 serve, 1 drain, 2 rest, by an operator's order or the configuration.",
                &["pool", "server"],
            ),
            pool_server_inflight: registry.gauges(
                "homing_pool_server_inflight",
                "Requests and tunnels in flight to the server.",
                &["pool", "server"],
            ),
            pool_server_connections: registry.gauges(
                "homing_pool_server_connections",
                "HTTP/1 connections to the server by state: busy with a request or a tunnel, idle.",
                &["pool", "server", "state"],
            ),
            server_name_lookups: registry.counters(
                "homing_server_name_lookups_total",
                "Questions to DNS for the addresses of servers, by result.",
                &["result"],
            ),
            queues: QueueFamilies::new(&registry),
            ejections: EjectionFamilies::new(&registry),
            upstream: UpstreamFamilies::new(&registry),
            persistence: registry.counters(
                "homing_pool_persistence_total",
                "Requests to pools with a persistence profile, by what became of their sessions: kept, moved, new, \
                 none (nothing names one), aborted (its server is down).",
                &["pool", "outcome"],
            ),
            persistence_cookies_refused: registry.counters(
                "homing_pool_persistence_cookies_refused_total",
                "Cookies that were to name a server of the pool and were not believed, by reason.",
                &["pool", "reason"],
            ),
            clone_copies: registry.counters(
                "homing_clone_copies_total",
                "Copies that left for a clone member, by how they ended.",
                &["vs", "pool", "server", "outcome", "reason"],
            ),
            clone_dropped: registry.counters(
                "homing_clone_dropped_total",
                "Copies that never left.",
                &["vs", "pool", "reason"],
            ),
            clone_skipped: registry.counters(
                "homing_clone_skipped_total",
                "Requests that were not meant to be copied.",
                &["vs", "pool", "reason"],
            ),
            clone_answers: registry.counters(
                "homing_clone_answers_total",
                "Answers of clone members, by status.",
                &["vs", "pool", "server", "code_class"],
            ),
            clone_answer_duration: registry.durations(
                "homing_clone_answer_seconds",
                "From a copy's last byte to the end of its answer.",
                CLONE_ANSWER_BUCKETS,
                &["vs", "pool"],
            ),
            clone_buffered_bytes: registry.gauges(
                "homing_clone_buffered_bytes",
                "Bytes of copies held in memory.",
                &["pool"],
            ),
            session_entries: registry.gauges(
                "homing_session_entries",
                "Entries in the session table.",
                &["table"],
            ),
            session_evictions: registry.counters(
                "homing_session_evictions_total",
                "Entries that left because the session table was full.",
                &["table"],
            ),
            sp_requests: registry.counters(
                "homing_sp_requests_total",
                "Requests of site-persistent virtual services, by what became of them.",
                &["service", "vs", "outcome"],
            ),
            site_cookie_seals: registry.counters(
                "homing_site_cookie_seals_total",
                "Site cookies that this process sealed, by the id of the key.",
                &["key"],
            ),
            site_cookie_key_concerns: registry.gauges(
                "homing_site_cookie_key_concerns",
                "1 while a site cookie key wants attention, else 0: age, seals, file_mode.",
                &["key", "concern"],
            ),
            sp_hops_refused: registry.counters(
                "homing_sp_hops_refused_total",
                "Hop headers that were no proof, by reason.",
                &["service", "vs", "reason"],
            ),
            sp_pool_servers: registry.gauges(
                "homing_sp_pool_servers",
                "Servers of site-persistence pools.",
                &["pool", "state"],
            ),
            dns: DnsMetrics::new(&registry),
            gslb_member_up: registry.gauges(
                "homing_gslb_member_up",
                "1 while a source, monitors or site, says that a member of a GSLB service is up, else 0.",
                &["service", "member", "source"],
            ),
            http_rule_hits: registry.counters(
                "homing_http_rule_hits_total",
                "Requests that an HTTP rule of the configuration fitted.",
                &["vs", "rule"],
            ),
            rule_errors: registry.counters(
                "homing_rule_errors_total",
                "Errors and panics of rules.",
                &["rule", "event"],
            ),
            access_log_written: registry.counter(
                "homing_access_log_lines_written_total",
                "Lines of the access log that were written.",
            ),
            access_log_dropped: registry.counter(
                "homing_access_log_lines_dropped_total",
                "Lines of the access log that were dropped, because too many waited to be written.",
            ),
            config: ConfigMetrics::new(&registry),
            registry,
        }
    }

    /// The page that Prometheus scrapes, text format 0.0.4.
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.registry().gather(), &mut page)
            .expect("a Vec takes every write");
        String::from_utf8(page).expect("the text format is UTF-8")
    }

    /// Every metric, in the order of their names: also those that have nothing to show yet.
    pub fn descriptions(&self) -> Vec<Description> {
        self.registry.descriptions()
    }

    /// Takes the series off the page whose labels `keep` refuses: those of objects that are no more. Who still
    /// holds one goes on counting, unseen.
    pub fn retain(&self, keep: impl Fn(&Labels<'_>) -> bool) {
        self.registry.retain(&keep);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts something for as long as it lives: connections, requests in flight.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A member of one's own network answers within a millisecond; one that takes seconds is behind.
const CLONE_ANSWER_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_instances_share_nothing() {
        let (a, b) = (Metrics::new(), Metrics::new());
        a.requests.with_label_values(&["vs", "pool", "2xx"]).inc();
        assert!(a.page().contains(r#"homing_requests_total{code_class="2xx",pool="pool",vs="vs"} 1"#));
        assert!(!b.page().contains("homing_requests_total{"));
    }

    #[test]
    fn every_metric_is_on_record() {
        let metrics = Metrics::new();
        let lines = metrics.descriptions().into_iter().map(|Description { name, kind, labels, help }| {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("{name}{labels} {kind}: {help}\n")
        });
        let record: String = lines.collect();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metrics.txt");
        if std::env::var_os("HOMING_BLESS").is_some() {
            std::fs::write(file, &record).expect("the golden file can be written");
        }
        let golden = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(record, golden, "metrics.txt differs; HOMING_BLESS=1 accepts\n{record}");
    }

    #[test]
    fn series_of_objects_that_are_gone_leave_the_page() {
        let metrics = Metrics::new();
        for pool in ["old", "new"] {
            metrics.requests.with_label_values(&["vs", pool, "2xx"]).inc();
            metrics.pool_server_inflight.with_label_values(&[pool, "10.0.0.1:80"]).set(1);
        }
        metrics.request_duration.with_label_values(&["old"]).observe(1.0);
        metrics.config.reloads.with_label_values(&["success"]).inc();
        let held = metrics.requests.with_label_values(&["vs", "old", "2xx"]);
        metrics.retain(|labels| labels.get("pool") != Some("old") && labels.get("vs") != Some("old"));
        held.inc();
        let page = metrics.page();
        assert!(!page.contains("old"), "{page}");
        for kept in [
            r#"homing_requests_total{code_class="2xx",pool="new",vs="vs"} 1"#,
            r#"homing_pool_server_inflight{pool="new",server="10.0.0.1:80"} 1"#,
            r#"homing_config_reloads_total{result="success"} 1"#,
        ] {
            assert!(page.contains(kept), "{kept}: {page}");
        }
    }
}
