//! The federation: sites, GSLB services and their members.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{GslbSitePersistence, HealthMonitor};
use crate::names::{ClusterUuid, GslbServiceName, GslbServiceUuid, SiteName, VsUuid};

/// Objects that are the same on every site.
#[derive(Clone, Debug)]
pub struct Gslb {
    pub federation_id: String,
    pub sites: Vec<SiteRef>,
    pub services: Vec<Arc<GslbService>>,
    /// PEM files of the federated PKI profile.
    pub ca_certs: Vec<std::path::PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRef {
    pub name: SiteName,
    pub cluster_uuid: ClusterUuid,
    pub mode: SiteMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SiteMode {
    #[default]
    Active,
    Passive,
}

/// One application served by virtual services on several sites.
#[derive(Clone, Debug)]
pub struct GslbService {
    pub name: GslbServiceName,
    pub uuid: GslbServiceUuid,
    pub domain_names: Vec<String>,
    pub enabled: bool,
    /// Present where `site_persistence_enabled`.
    pub site_persistence: Option<Arc<GslbSitePersistence>>,
    pub monitors: Vec<Arc<HealthMonitor>>,
    pub monitor_scope: HmScope,
    pub controller_health_status_enabled: bool,
    pub use_edns_client_subnet: bool,
    pub wildcard_match: bool,
    pub pool_algorithm: PoolAlgorithm,
    pub min_members: u32,
    pub ttl: Duration,
    /// The highest priority first.
    pub groups: Vec<GslbGroup>,
}

#[derive(Clone, Debug)]
pub struct GslbGroup {
    pub name: String,
    pub priority: u32,
    pub algorithm: GslbAlgorithm,
    pub members: Vec<GslbMember>,
}

/// A virtual service of a GSLB service.
#[derive(Clone, Debug)]
pub struct GslbMember {
    pub cluster_uuid: ClusterUuid,
    pub vs_uuid: VsUuid,
    pub ip: IpAddr,
    /// Never empty.
    pub services: Vec<MemberPort>,
    pub ratio: u16,
    pub enabled: bool,
    /// Raising it makes older cookies of this member expired.
    pub drain_epoch: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPort {
    pub port: u16,
    pub enable_ssl: bool,
}

/// What happens to a session whose home site is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HmDownRecovery {
    /// Serve here and issue a new cookie.
    #[default]
    PickNewServer,
    /// Answer 503.
    AbortConnection,
    /// Keep trying home.
    ContinuePersistentServer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HmScope {
    #[default]
    AllMembers,
    OnlyNonAviMembers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PoolAlgorithm {
    #[default]
    Priority,
    Geo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GslbAlgorithm {
    #[default]
    RoundRobin,
    ConsistentHash,
    Geo,
    Topology,
    PreferenceOrder,
}
