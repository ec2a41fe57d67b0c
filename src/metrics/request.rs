//! What is counted for every request, resolved once: a few additions to numbers that are at hand.

use std::time::Duration;

use http::Version;
use prometheus::{Histogram, IntCounter};

use super::Metrics;

/// A request that ended.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// What the client got; 0: nothing.
    pub status: u16,
    pub took: Duration,
    /// The client's.
    pub version: Version,
    /// Of the request's body.
    pub bytes_received: u64,
    /// Of the answer's body.
    pub bytes_sent: u64,
}

/// What a virtual service counts for every request, resolved once.
pub struct RequestMetrics {
    by_class: ByClass,
    by_protocol: [IntCounter; PROTOCOLS.len()],
    duration: Histogram,
    bytes_received: IntCounter,
    bytes_sent: IntCounter,
}

impl RequestMetrics {
    /// Resolves the children for a virtual service and a pool (`-` where no pool was chosen).
    pub fn new(metrics: &Metrics, vs: &str, pool: &str) -> Self {
        Self {
            by_class: ByClass::new(|class| metrics.requests.with_label_values(&[vs, pool, class])),
            by_protocol: PROTOCOLS
                .map(|protocol| metrics.requests_by_protocol.with_label_values(&[vs, protocol])),
            duration: metrics.request_duration.with_label_values(&[vs]),
            bytes_received: metrics.request_body_bytes.with_label_values(&[vs]),
            bytes_sent: metrics.response_body_bytes.with_label_values(&[vs]),
        }
    }

    /// Counts one answered request.
    pub fn count(&self, request: &Answered) {
        self.by_class.count(request.status);
        self.by_protocol[protocol(request.version)].inc();
        self.duration.observe(request.took.as_secs_f64());
        // Most requests have no body, and what is not touched costs the other threads nothing.
        if request.bytes_received > 0 {
            self.bytes_received.inc_by(request.bytes_received);
        }
        if request.bytes_sent > 0 {
            self.bytes_sent.inc_by(request.bytes_sent);
        }
    }
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

/// `code_class` of a status: `2xx`, …; `other` beyond 5xx.
pub fn code_class(status: u16) -> &'static str {
    CODE_CLASSES[class(status)]
}

fn class(status: u16) -> usize {
    usize::from(status / 100).min(CODE_CLASSES.len() - 1)
}

/// Which of [`PROTOCOLS`].
fn protocol(version: Version) -> usize {
    match version {
        Version::HTTP_11 => 1,
        Version::HTTP_2 => 2,
        _ => 0,
    }
}

const CODE_CLASSES: [&str; 7] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

const PROTOCOLS: [&str; 3] = ["HTTP/1.0", "HTTP/1.1", "HTTP/2"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_bounded_classes() {
        for (status, class) in
            [(100, "1xx"), (204, "2xx"), (599, "5xx"), (600, "other"), (999, "other"), (0, "other")]
        {
            assert_eq!(code_class(status), class, "{status}");
        }
    }

    #[test]
    fn a_request_counts_by_status_and_protocol_with_its_time_and_bytes() {
        let metrics = Metrics::new();
        let requests = RequestMetrics::new(&metrics, "web", "app");
        let request = Answered {
            status: 200,
            took: Duration::from_millis(3),
            version: Version::HTTP_11,
            bytes_received: 7,
            bytes_sent: 11,
        };
        for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            requests.count(&Answered { version, ..request });
        }
        let page = metrics.page();
        for series in [
            r#"homing_requests_total{code_class="2xx",pool="app",vs="web"} 4"#,
            r#"homing_requests_by_protocol_total{protocol="HTTP/1.0",vs="web"} 2"#,
            r#"homing_requests_by_protocol_total{protocol="HTTP/1.1",vs="web"} 1"#,
            r#"homing_requests_by_protocol_total{protocol="HTTP/2",vs="web"} 1"#,
            r#"homing_request_duration_seconds_bucket{vs="web",le="0.005"} 4"#,
            r#"homing_request_body_bytes_total{vs="web"} 28"#,
            r#"homing_response_body_bytes_total{vs="web"} 44"#,
        ] {
            assert!(page.contains(series), "{series}: {page}");
        }
    }
}
