//! Virtual services, as the admin API shows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApplicationProfile, OperStatus, Service, Span};

/// What clients connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VirtualService {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    pub name: String,
    pub enabled: bool,
    /// Empty: any Host.
    pub domain_names: Vec<String>,
    pub services: Vec<Service>,
    /// Absent where rules choose the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<String>,
    /// What keeps sessions at their servers: the profile of its pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_persistence_profile_ref: Option<String>,
    pub application_profile_ref: String,
    /// Redirects between ports, and rules by what they do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_rules: Vec<HttpRule>,
    /// Which pools get copies of its requests.
    pub clone: Vec<CloneSection>,
    pub rule_refs: Vec<String>,
    /// The site-persistence pools that lead from here to the other sites.
    pub sp_pool_refs: Vec<String>,
    pub oper_status: OperStatus,
    /// Absent while it is not enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<VsRuntime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_page_profile_ref: Option<String>,
    /// The only client networks; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    pub remove_listening_port_on_vs_down: bool,
    pub close_client_conn_on_config_update: bool,
    /// Absent: unlimited, as all limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_connections_per_client: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cps_per_client: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performance_limits: Option<PerformanceLimits>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests_rate_limit: Vec<RequestRate>,
    pub analytics_policy: AnalyticsPolicy,
    /// The profile of `application_profile_ref`.
    pub application_profile: ApplicationProfile,
}

/// What is going on in a virtual service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VsRuntime {
    /// Client connections, as `homing_connections_open` counts them.
    pub connections_open: u64,
}

/// What a service says of TLS and of who may speak for clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceSecurity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_key_and_certificate_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_profile: Option<super::SslProfile>,
    pub enable_proxy_protocol: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol_peers: Vec<String>,
}

/// Which of a virtual service's plain ports are redirected to which HTTPS port; or a rule that does something else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HttpRule {
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vs_port: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_port: Option<u16>,
    /// What its `match` looks at, as in YAML: `path`, `hdrs`, …; empty: it fits every request.
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<String>,
    /// Its actions, as in YAML: `switching_action`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// How a virtual service's requests are copied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloneSection {
    pub pool_ref: String,
    /// As in YAML: `cookie:SID`, `source_ip`, …
    pub tokens: Vec<String>,
    pub timeout: Span,
    /// Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Span>,
    pub refresh: String,
    pub clone_selection: String,
    /// As in YAML: `10%`.
    pub sample: String,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    pub headers_only: bool,
    /// Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite_path_prefix: Option<PathPrefix>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strip_headers: Vec<String>,
    /// The names of fields that copies have in place of the request's, `host` among them; their values are not shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_headers: Vec<String>,
    /// In bytes, as the next.
    pub max_buffered_bytes: u64,
    pub inline_body: u64,
    pub connections_per_server: u32,
    pub pipeline_depth: u32,
    pub on_overflow: String,
    pub http2: bool,
    pub retry_lost: bool,
    /// Sessions that have a clone member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
}

/// Copies of requests below `from` go below `to`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathPrefix {
    pub from: String,
    pub to: String,
}

/// Limits of a virtual service as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PerformanceLimits {
    pub max_concurrent_connections: u32,
}

/// How often requests may come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequestRate {
    /// As in YAML: `client_ip`, `header:NAME`, `virtual_service`.
    pub per: String,
    pub rate_limiter: RateLimiter,
    /// `local_response` or `close_conn`.
    pub action: String,
    /// Only with `local_response`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

/// So many requests in so much time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RateLimiter {
    pub count: u32,
    pub period: Span,
    /// At once.
    pub burst_sz: u32,
}

/// What the access log has of its requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnalyticsPolicy {
    /// As in YAML: `10%`.
    pub sample: String,
    /// 0: no limit.
    pub throttle: u32,
    pub slow_request: Span,
    pub full_client_logs: FullClientLogs,
}

/// Lines with header fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FullClientLogs {
    pub enabled: bool,
    /// 0s: no end.
    pub duration: Span,
    pub throttle: u32,
}
