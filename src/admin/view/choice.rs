//! The shapes of GSLB services as they are configured, of how DNS chooses among their members, and of what sites tell
//! one another of their health.

use std::{net::IpAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DrainState, OperStatus, duration};

/// A GSLB service as it is configured, in the order and with the words of Avi's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbServiceConfig {
    pub uuid: String,
    pub name: String,
    pub domain_names: Vec<String>,
    pub groups: Vec<GslbGroupConfig>,
    pub health_monitor_refs: Vec<String>,
    pub controller_health_status_enabled: bool,
    pub health_monitor_scope: String,
    pub enabled: bool,
    pub use_edns_client_subnet: bool,
    pub wildcard_match: bool,
    pub site_persistence_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_persistence_profile_ref: Option<String>,
    pub pool_algorithm: String,
    pub min_members: u32,
    pub num_dns_ip: u8,
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub ttl: Duration,
    pub down_response: DownResponse,
    pub is_federated: bool,
    pub tenant_ref: String,
}

/// What is answered while no member is up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DownResponse {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_ip6: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_cname: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbGroupConfig {
    pub name: String,
    pub priority: u32,
    pub enabled: bool,
    pub algorithm: String,
    /// Of `geo` and `topology`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_algorithm: Option<String>,
    pub manual_resume: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_health_monitors_up: Option<u32>,
    pub members: Vec<GslbMemberConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbMemberConfig {
    /// Absent of a third party's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vs_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_ip: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    pub ratio: u16,
    pub enabled: bool,
}

/// How a client is answered, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceExplanation {
    pub gslb_service: String,
    pub name: String,
    /// `A` or `AAAA`.
    #[serde(rename = "type")]
    pub record_type: String,
    pub client: String,
    /// It gets public addresses, where members have them.
    pub is_outside: bool,
    /// Where it is, if the database knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What it is told, in words.
    pub answer: String,
    /// As metrics have it: the algorithm, or the `down_response`.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub ttl: Duration,
    /// The prefix of the client's address for which the answer holds.
    pub scope: u8,
    /// In the order in which they were looked at.
    pub groups: Vec<ExplainedGroup>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedGroup {
    pub name: String,
    pub priority: u32,
    pub algorithm: String,
    /// Whether its members were looked at, and its algorithm chose.
    pub role: String,
    pub members: Vec<ExplainedMember>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedMember {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What was made of it, and why.
    pub verdict: String,
    /// What monitors here found, if it is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitors: Option<String>,
    /// What its own site says, if that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kilometres: Option<u32>,
}

/// What was done for members that waited for an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    pub gslb_service: String,
    /// Those that had waited.
    pub resumed: Vec<String>,
}

/// What a site tells others of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteHealth {
    pub site_name: String,
    pub cluster_uuid: String,
    pub drain_state: DrainState,
    /// Those that are members of a GSLB service.
    pub virtual_services: Vec<VsHealth>,
}

/// Whether a virtual service can take new clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VsHealth {
    pub vs_uuid: String,
    pub vs_name: String,
    /// Of its app pool.
    pub oper_status: OperStatus,
    /// Of its SP pool, where it has one: whether its sessions of other sites can go on there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sp_pool_status: Option<OperStatus>,
}
