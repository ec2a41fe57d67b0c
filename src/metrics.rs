//! Every metric: name, unit, help, labels. One [`Metrics`] belongs to one running instance.
//!
//! Labels have bounded values: names from the configuration and words from this code base, never a token, a
//! client's address or a path. Hot paths resolve their children once, when the snapshot is built.

mod series;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, TextEncoder, core::Collector,
};

use series::Families;
pub use series::Labels;

/// The metrics of one instance. Clones share the values.
#[derive(Clone)]
pub struct Metrics {
    registry: Families,
    /// Requests answered. `vs`, `pool`, `code_class`.
    pub requests: IntCounterVec,
    /// From the request head to the end of the answer. `vs`.
    pub request_duration: HistogramVec,
    /// Client connections open. `vs`.
    pub connections_open: IntGaugeVec,
    /// Connections refused or lost before a request. `listener`, `reason`.
    pub connections_refused: IntCounterVec,
    /// 1 while the server is up; set when the page is made. `pool`, `server`.
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
    /// Errors and panics of rules. `rule`, `event`.
    pub rule_errors: IntCounterVec,
    /// Reloads. `result`.
    pub config_reloads: IntCounterVec,
    /// 1 if the last reload, or the start, was a success.
    pub config_last_reload_successful: IntGauge,
    /// When the configuration in force was loaded.
    pub config_last_reload_success_timestamp: Gauge,
    /// What the last reload took.
    pub config_last_reload_duration: Gauge,
}

impl Metrics {
    /// A fresh registry in which every metric is 0.
    pub fn new() -> Self {
        let registry = Families::default();
        let build_info = gauges(&registry, "homing_build_info", "The running version.", &["version"]);
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: counters(
                &registry,
                "homing_requests_total",
                "Requests answered.",
                &["vs", "pool", "code_class"],
            ),
            request_duration: durations(
                &registry,
                "homing_request_duration_seconds",
                "From the request's head to the end of its answer.",
                DURATION_BUCKETS,
                &["vs"],
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
                "1 while the server is up, draining or not, else 0.",
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
            clone_answers: counters(
                &registry,
                "homing_clone_answers_total",
                "Answers of clone members, by status.",
                &["vs", "pool", "server", "code_class"],
            ),
            clone_answer_duration: durations(
                &registry,
                "homing_clone_answer_seconds",
                "From a copy's last byte to the end of its answer.",
                CLONE_ANSWER_BUCKETS,
                &["vs", "pool"],
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
            session_evictions: counters(
                &registry,
                "homing_session_evictions_total",
                "Entries that left because the session table was full.",
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
            config_last_reload_successful: register(
                &registry,
                IntGauge::new(
                    "homing_config_last_reload_successful",
                    "1 if the last reload, or the start, was a success, else 0.",
                ),
            ),
            config_last_reload_success_timestamp: register(
                &registry,
                Gauge::new(
                    "homing_config_last_reload_success_timestamp_seconds",
                    "When the configuration in force was loaded, in seconds since 1970.",
                ),
            ),
            config_last_reload_duration: register(
                &registry,
                Gauge::new("homing_config_last_reload_duration_seconds", "What the last reload took."),
            ),
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

/// `code_class` of a status: `2xx`, …; `other` beyond 5xx.
pub fn code_class(status: u16) -> &'static str {
    CODE_CLASSES[class(status)]
}

fn class(status: u16) -> usize {
    usize::from(status / 100).min(CODE_CLASSES.len() - 1)
}

/// Counters of answers, one for each `code_class`, resolved once.
pub struct ByClass([IntCounter; CODE_CLASSES.len()]);

impl ByClass {
    /// `counter` resolves the one of a class.
    pub fn new(counter: impl FnMut(&'static str) -> IntCounter) -> Self {
        Self(CODE_CLASSES.map(counter))
    }

    /// Counts an answer.
    pub fn count(&self, status: u16) {
        self.0[class(status)].inc();
    }
}

/// What a virtual service counts for every request, resolved once.
pub struct RequestMetrics {
    by_class: ByClass,
    duration: Histogram,
}

impl RequestMetrics {
    /// Resolves the children for a virtual service and a pool (`-` where no pool was chosen).
    pub fn new(metrics: &Metrics, vs: &str, pool: &str) -> Self {
        Self {
            by_class: ByClass::new(|class| metrics.requests.with_label_values(&[vs, pool, class])),
            duration: metrics.request_duration.with_label_values(&[vs]),
        }
    }

    /// Counts one answered request.
    pub fn count(&self, status: u16, took: std::time::Duration) {
        self.by_class.count(status);
        self.duration.observe(took.as_secs_f64());
    }
}

fn counters(families: &Families, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    families.labelled(IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(families: &Families, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    families.labelled(IntGaugeVec::new(Opts::new(name, help), labels))
}

fn durations(families: &Families, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    families.labelled(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
}

fn register<C: Collector + Clone + 'static>(families: &Families, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("metric names and labels of this file are valid");
    let registered = families.registry().register(Box::new(metric.clone()));
    registered.expect("metric names of this file are distinct");
    metric
}

const CODE_CLASSES: [&str; 7] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

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
    fn series_of_objects_that_are_gone_leave_the_page() {
        let metrics = Metrics::new();
        for pool in ["old", "new"] {
            metrics.requests.with_label_values(&["vs", pool, "2xx"]).inc();
            metrics.pool_server_inflight.with_label_values(&[pool, "10.0.0.1:80"]).set(1);
        }
        metrics.request_duration.with_label_values(&["old"]).observe(1.0);
        metrics.config_reloads.with_label_values(&["success"]).inc();
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

    #[test]
    fn statuses_have_bounded_classes() {
        for (status, class) in
            [(100, "1xx"), (204, "2xx"), (599, "5xx"), (600, "other"), (999, "other"), (0, "other")]
        {
            assert_eq!(code_class(status), class, "{status}");
        }
    }
}
