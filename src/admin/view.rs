//! The shapes of the admin API's answers: plain data that the server fills in and the commands read back.
//!
//! Objects and fields carry Avi's names, so that an operator finds `sp_pools` and `oper_status` where Avi's CLI
//! shows them; values that can be configured are spelt as in our YAML, durations with their unit. A field that
//! has nothing to say is left out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod choice;
#[cfg(test)]
pub(crate) mod example;
mod explanation;
mod pool;
mod profile;
mod reload;
mod session;
mod site;
mod sites;
mod span;
mod virtual_service;

pub use choice::{
    ChoiceExplanation, DownResponse, ExplainedGroup, ExplainedMember, GslbGroupConfig, GslbMemberConfig,
    GslbServiceConfig, Resumed, SiteHealth, VsHealth,
};
pub use explanation::{Explanation, Home, Recovery, SiteCookie};
pub use pool::{
    AdminState, AppPersistence, Ejection, HealthMonitor, InlineDetails, InlineMonitor, NamedServer, Pool,
    PoolRuntime, PoolSettings, PoolTls, RetryBudget, Server, ServerChange, ServerCookie, SpPool,
};
pub use profile::{ApplicationProfile, Http2, RequestIds, SslProfile};
pub use reload::{Changes, Configuration, Reload, ReloadResult};
pub use session::{Explained, SessionEntry, SessionTable, Sessions};
pub use site::{DrainState, Site};
pub use sites::{Answer, SitePart};
pub use span::Span;
pub use virtual_service::{
    AnalyticsPolicy, CloneSection, FullClientLogs, HttpRule, PathPrefix, PerformanceLimits, RateLimiter,
    RequestRate, ServiceSecurity, VirtualService, VsRuntime,
};

/// An address and port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// Absent for a GSLB member, whose address is its `ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    pub port: u16,
    pub enable_ssl: bool,
    /// Absent for a GSLB member.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub security: Option<ServiceSecurity>,
}

/// Whether something works, why not, and since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperStatus {
    pub state: OperState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Absent while nothing has changed since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_changed_time: Option<Timestamp>,
}

/// Avi's words for an object's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperState {
    OperUp,
    OperDown,
    OperDisabled,
    /// No health result yet, or another site's business.
    OperUnknown,
}

/// A point in time, as Avi writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub secs: u64,
    pub usecs: u32,
}

/// A GSLB service as this site sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbRuntime {
    pub uuid: String,
    pub name: String,
    /// What the federation's file says about it; left out where only `sp_status` is asked for.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub configured: Option<GslbConfigured>,
    /// The highest priority first.
    pub groups: Vec<GslbGroup>,
    /// Of what the federation's file says, here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Whether the sites agree on the federated objects, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services_state: Option<String>,
    pub sp_oper_status: OperStatus,
    /// Requests that entered at this site, by what became of them; with `sites`, at all that told theirs.
    pub requests: BTreeMap<String, u64>,
    /// The share of them that was proxied to another site, 0 to 1; absent before the first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction_proxied: Option<f64>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What each site told, this one first, and who told nothing; empty in a site's answer to another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SitePart>,
}

/// The configured fields of a GSLB service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbConfigured {
    pub domain_names: Vec<String>,
    pub enabled: bool,
    pub site_persistence_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_persistence_profile_ref: Option<String>,
    pub health_monitor_refs: Vec<String>,
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbGroup {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    pub members: Vec<GslbMember>,
}

/// A virtual service of a GSLB service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GslbMember {
    pub cluster_uuid: String,
    pub site_name: String,
    pub vs_uuid: String,
    /// Known for this site's own member; other sites' names are theirs to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vs_name: Option<String>,
    /// Absent where clients are sent to its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The addresses at which it is reached.
    pub oper_ips: Vec<IpAddr>,
    /// `AVI_VIP`: a virtual service of a site; `NON_AVI_VIP`: any other address.
    pub vip_type: String,
    pub services: Vec<Service>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Absent while it is in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_state: Option<DrainState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Timestamp>,
    /// As of a site, for this member alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_sessions: Option<u64>,
    /// The pools that lead from this member to its peers, as far as this site has them.
    pub sp_pools: Vec<SpPoolStatus>,
    pub controller_status: OperStatus,
}

/// A site-persistence pool in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpPoolStatus {
    pub uuid: String,
    pub name: String,
    pub num_servers: u32,
    pub num_servers_up: u32,
}

/// A key of the site cookies; its secret is never shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SiteCookieKey {
    /// What stands in cookies and hop headers, and in metrics.
    pub key_id: String,
    pub uuid: String,
    pub application_persistence_profile_ref: String,
    /// `next`, `active`, `retiring`.
    pub state: String,
    /// Since its file was written, in whole seconds; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Cookies that this process has sealed with it.
    pub seals: u64,
    /// `age`, `seals`, `file_mode`.
    pub concerns: Vec<String>,
}

/// Every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    pub error: String,
}

impl GslbRuntime {
    /// `filter sp_status`: what concerns site persistence, without what the configuration says anyway.
    pub fn sp_status(mut self) -> Self {
        self.configured = None;
        for group in &mut self.groups {
            (group.priority, group.algorithm) = (None, None);
            for member in &mut group.members {
                (member.ratio, member.enabled) = (None, None);
            }
        }
        self
    }
}

impl OperStatus {
    /// A state without a history.
    pub fn new(state: OperState) -> Self {
        Self { state, reason: None, last_changed_time: None }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { secs: since.as_secs(), usecs: since.subsec_micros() }
    }
}

/// Durations as in YAML: `300s`, `1m`.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        fn check<T>(view: T)
        where
            T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug,
        {
            let text = serde_json::to_string(&view).expect("views serialise");
            assert_eq!(serde_json::from_str::<T>(&text).expect(&text), view);
        }
        example::virtual_services().into_iter().for_each(check);
        example::pools().into_iter().for_each(check);
        check(example::gslb_runtime());
        check(example::gslb_runtime().sp_status());
        check(example::gslb_service());
        check(example::explanation());
        check(example::sessions());
        example::sites().into_iter().for_each(check);
        check(example::configuration());
        check(example::refused_reload());
        check(example::explained());
        example::site_cookie_keys().into_iter().for_each(check);
    }

    #[test]
    fn states_are_spelt_as_avi_spells_them() {
        let json = serde_json::to_value(OperStatus::new(OperState::OperUp)).expect("views serialise");
        assert_eq!(json, serde_json::json!({ "state": "OPER_UP" }));
    }
}
