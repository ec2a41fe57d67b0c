//! Health monitors: how a server's health is probed.

use std::time::Duration;

use crate::names::MonitorName;

/// An active probe. Defaults are Avi's: every 10 s, 4 s to answer, 2 successes or 2 failures to change state.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthMonitor {
    pub name: MonitorName,
    pub is_federated: bool,
    pub kind: MonitorType,
    pub send_interval: Duration,
    pub receive_timeout: Duration,
    /// Successes in a row that bring a server up.
    pub successful_checks: u32,
    /// Failures in a row that take a server down.
    pub failed_checks: u32,
    /// Probe this port instead of the server's.
    pub monitor_port: Option<u16>,
}

/// What is probed.
#[derive(Clone, Debug, PartialEq)]
pub enum MonitorType {
    /// A connection is accepted.
    Tcp,
    /// A request is answered with one of the codes.
    Http { request: HttpRequest, codes: ResponseCodes },
    /// The same over TLS; the certificate is not verified, as probes of Avi and HAProxy do not by default.
    Https { request: HttpRequest, codes: ResponseCodes },
}

/// `http_request: GET /healthz [HTTP/1.1]`, header lines may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: http::Method,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
}

/// Accepted status classes (`http_2xx`, …; `http_any`) as bits, bit `n` for class `n`, and single codes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ResponseCodes {
    pub classes: u8,
    pub codes: Vec<u16>,
}

impl ResponseCodes {
    pub fn contains(&self, code: u16) -> bool {
        self.classes & (1 << (code / 100).min(7)) != 0 || self.codes.contains(&code)
    }
}
