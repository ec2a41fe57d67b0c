//! Profiles that virtual services share.

use std::time::Duration;

/// HTTP settings of virtual services. Those that share a listener must agree on the two timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationProfile {
    pub name: String,
    /// Redirect plain requests to HTTPS.
    pub http_to_https: bool,
    /// From the first byte of a request to the end of its head; default 10 s.
    pub client_header_timeout: Duration,
    /// An idle connection between requests; default 60 s.
    pub keepalive_timeout: Duration,
}

/// TLS settings of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SslProfile {
    pub name: String,
    /// Default: 1.2 and 1.3.
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// Stateless session tickets; without them sessions are kept in a server cache. Default true.
    pub session_tickets: bool,
    /// Offer HTTP/2 by ALPN; default true.
    pub http2: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
