//! Every metric: name, unit, help, labels. One [`Metrics`] belongs to one running instance.
//!
//! Labels have bounded values: names from the configuration and words from this code base, never a token, a
//! client's address or a path. Hot paths resolve their children once, when the snapshot is built.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// The metrics of one instance. Clones share the values.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered. `vs`, `pool`, `code_class`.
    pub requests: IntCounterVec,
    /// From the request head to the end of the answer. `vs`.
    pub request_duration: HistogramVec,
    /// Client connections open. `vs`.
    pub connections_open: IntGaugeVec,
    /// Connections refused or lost before a request. `listener`, `reason`.
    pub connections_refused: IntCounterVec,
    /// 1 while the server is up. `pool`, `server`.
    pub pool_server_up: IntGaugeVec,
    /// Requests and tunnels in flight. `pool`, `server`.
    pub pool_server_inflight: IntGaugeVec,
    /// Attempts that failed and were tried elsewhere. `pool`.
    pub pool_retries: IntCounterVec,
    /// Copies that left. `vs`, `pool`, `server`, `outcome`, `reason`.
    pub clone_copies: IntCounterVec,
    /// Copies that never left. `vs`, `pool`, `reason`.
    pub clone_dropped: IntCounterVec,
    /// Requests not meant to be copied. `vs`, `pool`, `reason`.
    pub clone_skipped: IntCounterVec,
    /// Bytes of copies held in memory. `pool`.
    pub clone_buffered_bytes: IntGaugeVec,
    /// Entries in the session table. `table`.
    pub session_entries: IntGaugeVec,
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
    /// Errors and panics of rules. `rule`, `event`.
    pub rule_errors: IntCounterVec,
    /// Reloads. `result`.
    pub config_reloads: IntCounterVec,
}

impl Metrics {
    /// A fresh registry in which every metric is 0.
    pub fn new() -> Self {
        let registry = Registry::new();
        let build_info = gauges(&registry, "homing_build_info", "The running version.", &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: counters(
                &registry,
                "homing_requests_total",
                "Requests answered.",
                &["vs", "pool", "code_class"],
            ),
            request_duration: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "homing_request_duration_seconds",
                        "From the request's head to the end of its answer.",
                    )
                    .buckets(DURATION_BUCKETS.to_vec()),
                    &["vs"],
                ),
            ),
            connections_open: gauges(
                &registry,
                "homing_connections_open",
                "Client connections open.",
                &["vs"],
            ),
            connections_refused: counters(
                &registry,
                "homing_connections_refused_total",
                "Client connections refused or lost before a request.",
                &["listener", "reason"],
            ),
            pool_server_up: gauges(
                &registry,
                "homing_pool_server_up",
                "1 while the server is up, else 0.",
                &["pool", "server"],
            ),
            pool_server_inflight: gauges(
                &registry,
                "homing_pool_server_inflight",
                "Requests and tunnels in flight to the server.",
                &["pool", "server"],
            ),
            pool_retries: counters(
                &registry,
                "homing_pool_retries_total",
                "Attempts that failed and were tried on another server.",
                &["pool"],
            ),
            clone_copies: counters(
                &registry,
                "homing_clone_copies_total",
                "Copies that left for a clone member, by how they ended.",
                &["vs", "pool", "server", "outcome", "reason"],
            ),
            clone_dropped: counters(
                &registry,
                "homing_clone_dropped_total",
                "Copies that never left.",
                &["vs", "pool", "reason"],
            ),
            clone_skipped: counters(
                &registry,
                "homing_clone_skipped_total",
                "Requests that were not meant to be copied.",
                &["vs", "pool", "reason"],
            ),
            clone_buffered_bytes: gauges(
                &registry,
                "homing_clone_buffered_bytes",
                "Bytes of copies held in memory.",
                &["pool"],
            ),
            session_entries: gauges(
                &registry,
                "homing_session_entries",
                "Entries in the session table.",
                &["table"],
            ),
            sp_requests: counters(
                &registry,
                "homing_sp_requests_total",
                "Requests of site-persistent virtual services, by what became of them.",
                &["service", "vs", "outcome"],
            ),
            site_cookie_seals: counters(
                &registry,
                "homing_site_cookie_seals_total",
                "Site cookies that this process sealed, by the id of the key.",
                &["key"],
            ),
            site_cookie_key_concerns: gauges(
                &registry,
                "homing_site_cookie_key_concerns",
                "1 while a site cookie key wants attention, else 0: age, seals, file_mode.",
                &["key", "concern"],
            ),
            sp_hops_refused: counters(
                &registry,
                "homing_sp_hops_refused_total",
                "Hop headers that were no proof, by reason.",
                &["service", "vs", "reason"],
            ),
            sp_pool_servers: gauges(
                &registry,
                "homing_sp_pool_servers",
                "Servers of site-persistence pools.",
                &["pool", "state"],
            ),
            rule_errors: counters(
                &registry,
                "homing_rule_errors_total",
                "Errors and panics of rules.",
                &["rule", "event"],
            ),
            config_reloads: counters(
                &registry,
                "homing_config_reloads_total",
                "Configurations loaded, by result.",
                &["result"],
            ),
            registry,
        }
    }

    /// The page that Prometheus scrapes, text format 0.0.4.
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page).expect("a Vec takes every write");
        String::from_utf8(page).expect("the text format is UTF-8")
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

/// `code_class` of a status: `2xx`, …; `other` beyond 5xx.
pub fn code_class(status: u16) -> &'static str {
    CODE_CLASSES[usize::from(status / 100).min(CODE_CLASSES.len() - 1)]
}

/// What a virtual service counts for every request, resolved once.
pub struct RequestMetrics {
    by_class: [prometheus::IntCounter; CODE_CLASSES.len()],
    duration: Histogram,
}

impl RequestMetrics {
    /// Resolves the children for a virtual service and a pool (`-` where no pool was chosen).
    pub fn new(metrics: &Metrics, vs: &str, pool: &str) -> Self {
        Self {
            by_class: CODE_CLASSES.map(|class| metrics.requests.with_label_values(&[vs, pool, class])),
            duration: metrics.request_duration.with_label_values(&[vs]),
        }
    }

    /// Counts one answered request.
    pub fn count(&self, status: u16, took: std::time::Duration) {
        self.by_class[usize::from(status / 100).min(CODE_CLASSES.len() - 1)].inc();
        self.duration.observe(took.as_secs_f64());
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("metric names and labels of this file are valid");
    registry.register(Box::new(metric.clone())).expect("metric names of this file are distinct");
    metric
}

const CODE_CLASSES: [&str; 7] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

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
    fn statuses_have_bounded_classes() {
        for (status, class) in
            [(100, "1xx"), (204, "2xx"), (599, "5xx"), (600, "other"), (999, "other"), (0, "other")]
        {
            assert_eq!(code_class(status), class, "{status}");
        }
    }
}
