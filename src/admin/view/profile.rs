//! Profiles that virtual services share, as the admin API shows them with each of these.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// How HTTP clients are met. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationProfile {
    pub http_to_https: bool,
    pub client_header_timeout: Span,
    pub keepalive_timeout: Span,
    pub client_max_uri_size: u64,
    pub client_max_header_size: u64,
    pub max_header_count: u64,
    pub client_max_request_size: u64,
    /// Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_max_body_size: Option<u64>,
    pub client_body_timeout: Span,
    /// In a second; 0: none.
    pub client_body_min_rate: u32,
    pub request_id: RequestIds,
    pub http2: Http2,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
    /// `x_forwarded_for` or `forwarded`.
    pub trusted_proxies_header: String,
    /// `none`, `request` or `require`.
    pub ssl_client_certificate_mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki_profile_ref: Option<String>,
}

/// What becomes of `X-Request-Id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequestIds {
    /// Networks of proxies whose ids are taken over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_peers: Vec<String>,
    pub to_server: bool,
    pub to_client: bool,
}

/// What an HTTP/2 client may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Http2 {
    pub max_concurrent_streams: u32,
    pub max_header_list_size: u32,
    pub max_control_frames: u32,
    pub prior_knowledge: bool,
}

/// How TLS is spoken with clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SslProfile {
    pub name: String,
    /// `tls1.2` or `tls1.3`, as the next.
    pub min_version: String,
    pub max_version: String,
    pub session_tickets: bool,
    pub http2: bool,
    /// Absent: Mozilla's "intermediate".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_ciphers: Option<String>,
    /// Absent: OpenSSL's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphersuites: Option<String>,
    pub handshake_timeout: Span,
}
