//! The federation: sites, GSLB services and their members.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    CaCerts, DownResponse, GeoDatabase, GroupChoosing, GslbMember, GslbSitePersistence, HealthMonitor,
    Location, PeerAdmin, SiteTls, TopologyRule,
    problem::{Place, Report, shown},
    read::{Object, Reference},
    site_redirect::{self, Persistent, SitePersistenceMode},
    table::Table,
    units::{self, days, seconds},
    words,
};
use crate::{
    names::{ClusterUuid, GslbServiceName, GslbServiceUuid, SiteName, VsUuid},
    site_cookie::Key,
};

/// Objects that are the same on every site.
#[derive(Clone, Debug, PartialEq)]
pub struct Gslb {
    pub federation_id: String,
    pub sites: Vec<SiteRef>,
    pub services: Vec<Arc<GslbService>>,
    /// The authorities of the federated PKI profile: sites with TLS are verified against them.
    pub ca_certs: Option<CaCerts>,
    /// How this site proves itself to the others over TLS, where it can.
    pub site_tls: Option<Arc<SiteTls>>,
    /// Clients in these are inside: they get a member's `ip`, those elsewhere its `public_ip`.
    pub private_networks: Vec<IpNet>,
    /// Which sites are best for which clients, for the algorithm `topology`.
    pub topology: Vec<TopologyRule>,
    /// Where clients are, for the algorithm `geo`.
    pub geo_database: Option<GeoDatabase>,
    /// SHA-256 of what the federation's file says, as hex digits: the same where sites have the same file.
    pub checksum: String,
}

impl Gslb {
    /// The keys of the site cookies, each once, with the profile that has it.
    pub fn site_cookie_keys(&self) -> Vec<(&GslbSitePersistence, &Key)> {
        let mut keys: Vec<(&GslbSitePersistence, &Key)> = Vec::new();
        for profile in self.services.iter().filter_map(|service| service.site_persistence.as_deref()) {
            for key in &profile.cookie.keys {
                if keys.iter().all(|(_, known)| known.kid() != key.kid()) {
                    keys.push((profile, key));
                }
            }
        }
        keys
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct SiteRef {
    pub name: SiteName,
    pub cluster_uuid: ClusterUuid,
    pub mode: SiteMode,
    /// DNS sends new clients there; those that are there stay.
    pub enabled: bool,
    pub location: Option<Location>,
    /// How other sites ask it what it knows.
    pub admin: Option<PeerAdmin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SiteMode {
    #[default]
    Active,
    Passive,
}

/// One application served by virtual services on several sites.
#[derive(Clone, Debug, PartialEq)]
pub struct GslbService {
    pub name: GslbServiceName,
    pub uuid: GslbServiceUuid,
    pub domain_names: Vec<String>,
    pub enabled: bool,
    /// Present where `site_persistence_enabled`.
    pub site_persistence: Option<Arc<GslbSitePersistence>>,
    pub site_persistence_mode: SitePersistenceMode,
    pub monitors: Vec<Arc<HealthMonitor>>,
    pub monitor_scope: HmScope,
    pub controller_health_status_enabled: bool,
    pub use_edns_client_subnet: bool,
    pub wildcard_match: bool,
    pub pool_algorithm: PoolAlgorithm,
    pub min_members: u32,
    pub ttl: Duration,
    /// How long a member goes on serving its sessions after it was disabled.
    pub graceful_disable_timeout: Duration,
    /// How many addresses an answer has; 0: all.
    pub num_dns_ip: u8,
    /// What is answered while no member is up.
    pub down_response: DownResponse,
    /// The highest priority first.
    pub groups: Vec<GslbGroup>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GslbGroup {
    pub name: String,
    pub priority: u32,
    pub enabled: bool,
    pub algorithm: GslbAlgorithm,
    pub choosing: GroupChoosing,
    pub members: Vec<GslbMember>,
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

/// A service and where its members stand, for the checks of members against sites and virtual services.
pub(super) struct PlacedService {
    pub(super) service: Arc<GslbService>,
    /// In the order of the file.
    pub(super) members: Vec<PlacedMember>,
}

/// What the site's own file defines, by name: nothing federated may refer to it.
pub(super) struct Unfederated<'a> {
    pub(super) monitors: Vec<&'a str>,
    pub(super) profiles: Vec<&'a str>,
}

/// What services may refer to.
pub(super) struct Referable<'a> {
    pub(super) monitors: &'a Table<Arc<HealthMonitor>>,
    pub(super) profiles: &'a Table<Arc<GslbSitePersistence>>,
    pub(super) unfederated: &'a Unfederated<'a>,
}

/// The names and uuids of the services so far.
pub(super) struct Defined {
    names: Table<()>,
    uuids: Table<()>,
}

impl Default for Defined {
    fn default() -> Self {
        Self { names: Table::new("GSLB service"), uuids: Table::new("GSLB service with uuid") }
    }
}

pub(super) struct PlacedMember {
    pub(super) cluster_uuid: ClusterUuid,
    pub(super) vs_uuid: VsUuid,
    /// Whether one of its services has TLS; `None`: it has no service, which is reported.
    pub(super) tls: Option<bool>,
    /// Where clients are redirected to.
    pub(super) redirected_to: Option<String>,
    pub(super) place: Place,
}

impl SiteRef {
    pub(super) fn read(
        o: &mut Object<'_>,
        sites: &mut Table<SiteRef>,
        names: &mut Table<()>,
    ) -> Option<Self> {
        let modes = [
            ("active", "GSLB_ACTIVE_MEMBER", SiteMode::Active),
            ("passive", "GSLB_PASSIVE_MEMBER", SiteMode::Passive),
        ];
        let name = o.name();
        let cluster_uuid = o.required("cluster_uuid", words::identifier);
        let mode = o.field("mode", words::choice(&modes)).unwrap_or_default();
        let enabled = o.field("enabled", units::flag).unwrap_or(true);
        let location = o.object("location", Location::read).flatten();
        let admin = PeerAdmin::read(o);
        let (name, cluster_uuid) = (name?.into(), cluster_uuid?.into());
        let site = Self { name, cluster_uuid, mode, enabled, location, admin };
        names.define(o, "name", site.name.as_str(), ());
        sites.define(o, "cluster_uuid", site.cluster_uuid.as_str(), site.clone());
        Some(site)
    }
}

impl GslbService {
    pub(super) fn read(
        o: &mut Object<'_>,
        known: &Referable<'_>,
        defined: &mut Defined,
    ) -> Option<PlacedService> {
        let name = o.name();
        let uuid = o.required("uuid", words::identifier);
        let report = o.source.report;
        let refer = Refer { service: name.as_deref().unwrap_or_default(), report };
        let profile = o.reference("application_persistence_profile_ref");
        let profile =
            profile.and_then(|profile| refer.to(&profile, known.profiles, &known.unfederated.profiles));
        let monitors = o.references("health_monitor_refs");
        let monitors = monitors
            .iter()
            .filter_map(|it| refer.to(it, known.monitors, &known.unfederated.monitors))
            .collect();
        let is_persistent = o.field("site_persistence_enabled", units::flag).unwrap_or(false);
        if is_persistent && !o.has("application_persistence_profile_ref") {
            let help = "add `application_persistence_profile_ref: …` with a profile of type gslb_site";
            o.wrong("site_persistence_enabled", "site persistence without a profile", help);
        }
        let mode = SitePersistenceMode::read(o, is_persistent, profile.as_deref());
        let domain_names = o.required_list("domain_names", words::host_pattern);
        let persistent = name.as_deref().filter(|_| is_persistent).map(|service| Persistent {
            service,
            mode,
            profile: profile.as_deref(),
            domain_names: &domain_names,
        });
        let mut members = Vec::new();
        let mut groups = o.required_objects("groups", |o| GslbGroup::read(o, persistent, &mut members));
        site_redirect::check_names(o, mode, &groups);
        groups.sort_by_key(|group| std::cmp::Reverse(group.priority));
        let service = Self {
            name: name.as_deref().unwrap_or_default().into(),
            uuid: uuid.unwrap_or_default().into(),
            domain_names,
            enabled: o.field("enabled", units::flag).unwrap_or(true),
            site_persistence: profile.filter(|_| is_persistent),
            site_persistence_mode: mode,
            monitors,
            monitor_scope: o.field("health_monitor_scope", words::choice(&SCOPES)).unwrap_or_default(),
            controller_health_status_enabled: o
                .field("controller_health_status_enabled", units::flag)
                .unwrap_or(true),
            use_edns_client_subnet: o.field("use_edns_client_subnet", units::flag).unwrap_or(true),
            wildcard_match: o.field("wildcard_match", units::flag).unwrap_or(false),
            pool_algorithm: o.field("pool_algorithm", words::choice(&POOL_ALGORITHMS)).unwrap_or_default(),
            min_members: o.field("min_members", units::whole(0..=1000)).unwrap_or(0),
            ttl: o.field("ttl", units::duration(seconds(0)..=days(1))).unwrap_or(seconds(30)),
            graceful_disable_timeout: o
                .field("graceful_disable_timeout", units::duration(seconds(0)..=days(5)))
                .unwrap_or(seconds(60)),
            num_dns_ip: o.field("num_dns_ip", units::whole(0..=20)).unwrap_or(1),
            down_response: DownResponse::read(o),
            groups,
        };
        if service.ttl.subsec_nanos() != 0 {
            o.wrong("ttl", "DNS counts whole seconds", "write it as in `30s`");
        }
        defined.uuids.define(o, "uuid", service.uuid.as_str(), ());
        defined.names.define(o, "name", &name?, ());
        Some(PlacedService { service: Arc::new(service), members })
    }
}

/// Follows the references of one service.
struct Refer<'a> {
    service: &'a str,
    report: &'a Report,
}

impl Refer<'_> {
    /// `unfederated`: the names of such objects in the site's own file.
    fn to<T: Clone>(&self, reference: &Reference, table: &Table<T>, unfederated: &[&str]) -> Option<T> {
        let name = reference.name.as_str();
        if table.find(name).is_none() && unfederated.contains(&name) {
            let what = format!(
                "GSLB service {} is federated, and {} {} is not, for it stands in the site's own file",
                shown(self.service),
                table.kind(),
                shown(name)
            );
            let help = "name one of this file, or move that one here with `is_federated: true`";
            self.report.problem(reference.place.clone(), what, help);
            return None;
        }
        table.resolve(reference, self.report).cloned()
    }
}

impl GslbGroup {
    /// `persistent`: the service's site persistence, if it has one.
    fn read(
        o: &mut Object<'_>,
        persistent: Option<Persistent<'_>>,
        placed: &mut Vec<PlacedMember>,
    ) -> Option<Self> {
        let name = o.name();
        let priority = o.field("priority", units::whole(0..=100)).unwrap_or(10);
        let enabled = o.field("enabled", units::flag).unwrap_or(true);
        let algorithm = o.field("algorithm", words::choice(&ALGORITHMS)).unwrap_or_default();
        let choosing = GroupChoosing::read(o, algorithm);
        let members = o.required_objects("members", |o| GslbMember::read(o, persistent, placed));
        Some(Self { name: name?, priority, enabled, algorithm, choosing, members })
    }
}

const SCOPES: [(&str, &str, HmScope); 2] = [
    ("all_members", "GSLB_SERVICE_HEALTH_MONITOR_ALL_MEMBERS", HmScope::AllMembers),
    ("only_non_avi_members", "GSLB_SERVICE_HEALTH_MONITOR_ONLY_NON_AVI_MEMBERS", HmScope::OnlyNonAviMembers),
];

const POOL_ALGORITHMS: [(&str, &str, PoolAlgorithm); 2] = [
    ("priority", "GSLB_SERVICE_ALGORITHM_PRIORITY", PoolAlgorithm::Priority),
    ("geo", "GSLB_SERVICE_ALGORITHM_GEO", PoolAlgorithm::Geo),
];

impl HmScope {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&SCOPES, self)
    }
}

impl PoolAlgorithm {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&POOL_ALGORITHMS, self)
    }
}

impl GslbAlgorithm {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&ALGORITHMS, self)
    }
}

const ALGORITHMS: [(&str, &str, GslbAlgorithm); 5] = [
    ("round_robin", "GSLB_ALGORITHM_ROUND_ROBIN", GslbAlgorithm::RoundRobin),
    ("consistent_hash", "GSLB_ALGORITHM_CONSISTENT_HASH", GslbAlgorithm::ConsistentHash),
    ("geo", "GSLB_ALGORITHM_GEO", GslbAlgorithm::Geo),
    ("topology", "GSLB_ALGORITHM_TOPOLOGY", GslbAlgorithm::Topology),
    ("preference_order", "GSLB_ALGORITHM_PREFERENCE_ORDER", GslbAlgorithm::PreferenceOrder),
];
