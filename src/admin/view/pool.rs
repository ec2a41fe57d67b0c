//! Pools and their servers, as the admin API shows them: what is configured under the names of the configuration, and
//! what becomes of it.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OperState, OperStatus, Span, Timestamp};

/// A pool: of an app, of clone members, or the site-persistence pool of a GSLB member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    pub name: String,
    pub lb_algorithm: String,
    pub enabled: bool,
    pub health_monitor_refs: Vec<String>,
    pub servers: Vec<Server>,
    pub num_servers: u32,
    pub num_servers_up: u32,
    pub oper_status: OperStatus,
    /// What is going on in it.
    pub runtime: PoolRuntime,
    /// Those that stand for servers by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolve_server_by_dns: Vec<NamedServer>,
    /// What keeps sessions at their servers, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_persistence: Option<AppPersistence>,
    /// What only a site-persistence pool has.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub site_persistence: Option<SpPool>,
    #[serde(flatten)]
    pub settings: PoolSettings,
    /// How its servers are probed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_monitors: Vec<HealthMonitor>,
}

/// What is going on in a pool. What it is not configured for is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRuntime {
    /// Requests and tunnels in flight to its servers.
    pub inflight: u64,
    /// Requests that wait for a server, of `request_queue_depth` at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_queue_length: Option<u64>,
    /// Requests of its `retry_budget` that are being tried again,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// and how many may be now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries_now: Option<u64>,
    /// The lowest priority whose servers get requests now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Servers that requests have taken out, by `inline_health_monitor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_servers_ejected: Option<u32>,
    /// Sessions that it keeps at their servers, apart from those in cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_sessions: Option<u64>,
}

/// A name that stands for the servers whose addresses it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NamedServer {
    pub hostname: String,
    pub port: u16,
    /// So many it has now.
    pub num_servers: u32,
}

/// How a pool keeps sessions at their servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppPersistence {
    pub application_persistence_profile_ref: String,
    /// As in YAML: `client_ip`, `http_cookie`, …
    pub persistence_type: String,
    /// As in YAML: `pick_new_server`, …
    pub server_hm_down_recovery: String,
    /// A session's idle time, or a cookie's lifetime; absent: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Where its sessions are; absent: in cookies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_table: Option<String>,
    /// The cookie or header of the app that names a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prst_hdr_name: Option<String>,
    /// Bits of an IPv4 address that tell clients apart, only of `client_ip`;
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_mask: Option<u8>,
    /// the same of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_mask: Option<u8>,
    /// Only of `http_cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_cookie: Option<ServerCookie>,
}

/// The cookie that names a session's server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerCookie {
    pub cookie_name: String,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    pub same_site: String,
    pub partitioned: bool,
    pub http_only: bool,
    pub persistent: bool,
    pub avi_compatible: bool,
    pub always_send_cookie: bool,
    /// How many; 0: it is not sealed.
    pub keys: u32,
}

/// The fields of a pool that homing made for a member of a site-persistent GSLB service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpPool {
    /// Always true: such a pool cannot be configured.
    pub gslb_sp_enabled: bool,
    /// Of the servers, which are virtual services; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_server_port: Option<u16>,
    pub application_persistence_profile_ref: String,
    pub description: String,
}

/// What a pool is configured to do; what is absent is not in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolSettings {
    /// Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_health_monitors_up: Option<u32>,
    /// What `consistent_hash` goes by,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lb_algorithm_hash: Option<String>,
    /// and the name of the header
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lb_algorithm_consistent_hash_hdr: Option<String>,
    /// or cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lb_algorithm_consistent_hash_cookie: Option<String>,
    pub min_servers: u32,
    /// 0: no limit.
    pub max_concurrent_connections_per_server: u64,
    pub request_queue_enabled: bool,
    /// In force, as the timeout, where `request_queue_enabled` is true.
    pub request_queue_depth: u32,
    pub request_queue_timeout: Span,
    pub graceful_disable_timeout: Span,
    pub connection_ramp_duration: Span,
    pub inline_health_monitor: InlineMonitor,
    pub connect_timeout: Span,
    pub read_timeout: Span,
    pub idle_timeout: Span,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_response_timeout: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Span>,
    /// Absent: each server once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    pub enable_ssl: bool,
    /// What goes with `enable_ssl`.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PoolTls>,
    pub enable_http2: bool,
    /// Only with `enable_http2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2_max_concurrent_streams: Option<u32>,
    /// Where connections to servers come from; empty: the system chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snat_ip: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_idle_connections_per_server: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    pub rewrite_host_header_to_sni: bool,
    pub rewrite_host_header_to_server_name: bool,
}

/// How a pool's servers are spoken to over TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolTls {
    /// Absent: the request's host, or what the pool's servers are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    pub sni_enabled: bool,
    pub verify: bool,
    /// Absent: the system's authorities, or those of the federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki_profile_ref: Option<String>,
    pub host_check_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_key_and_certificate_ref: Option<String>,
}

/// What requests say of servers: true or false in a site-persistence pool, where it cannot be configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum InlineMonitor {
    Is(bool),
    By(InlineDetails),
}

/// When requests that fail take a server out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InlineDetails {
    pub consecutive_failures: u32,
    /// As in YAML: `30%`.
    pub max_failure_percent: String,
    pub minimum_requests: u32,
    pub interval: Span,
    pub ejection_time: Span,
    pub max_ejection_time: Span,
    /// As in YAML.
    pub max_ejection_percent: String,
    /// The same.
    pub failed_response_code: Vec<String>,
}

/// How many requests may be tried again at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetryBudget {
    /// Of the requests in flight.
    pub percent: u32,
    pub min_concurrent: u32,
}

/// How servers are probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthMonitor {
    pub name: String,
    /// `tcp`, `http` or `https`.
    #[serde(rename = "type")]
    pub kind: String,
    pub send_interval: Span,
    pub receive_timeout: Span,
    pub successful_checks: u32,
    pub failed_checks: u32,
    /// Absent: the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_port: Option<u16>,
    /// Method and path; what header fields it has is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_request: Option<String>,
    /// As in YAML.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_response_code: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maintenance_code: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_response: Option<String>,
    /// Only of `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
}

/// A server of a pool; in an SP pool, a virtual service on another site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    pub ip: IpAddr,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    pub enabled: bool,
    pub ratio: u16,
    /// Its ratio as far as its share has grown since it came back, where that takes a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_now: Option<f64>,
    /// Absent where it is the default, 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    pub oper_status: OperStatus,
    /// Requests and tunnels that it is serving,
    pub inflight: u64,
    /// and how many it may be now; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_inflight: Option<u64>,
    /// Of HTTP/1, to it,
    #[serde(default)]
    pub connections: u64,
    /// and how many of them wait for a request.
    #[serde(default)]
    pub idle_connections: u64,
    /// How far its share has grown since it came back, where it has not all of it at once; 100: it has its whole share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp_percent: Option<u64>,
    /// Requests have taken it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// Of its requests, where `inline_health_monitor` counts them; so many have not taken it out yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// What its answers take, where `fastest_response` chooses by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_time: Option<Span>,
    /// Its last changes of state, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ServerChange>,
    /// Absent until an operator says something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
    /// The member identity that a site cookie carries: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prst_hdr_val: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Requests have taken a server out for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ejection {
    pub reason: String,
    /// How long it is out in all.
    pub time: Span,
    pub until: Timestamp,
    /// How often it was taken out in short order, this time included: each is twice as long.
    pub times: u32,
}

/// What a server's state became, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerChange {
    pub state: OperState,
    pub reason: String,
    pub time: Timestamp,
}

/// What an operator last said of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdminState {
    /// `enabled`, `draining` or `disabled`.
    pub state: String,
    /// The operator's address, or a local user.
    pub by: String,
    pub since: Timestamp,
}
