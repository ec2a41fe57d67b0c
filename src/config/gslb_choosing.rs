//! What of the federation tells DNS which member to answer with: the keys beside the algorithms themselves.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    GeoDatabase, GslbAlgorithm, PoolAlgorithm, gslb::PlacedService, problem::shown, read::Object,
    table::Table, units, words, yaml::Node,
};
use crate::names::SiteName;

/// What DNS answers while no member of a service is up.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DownResponse {
    /// Nothing: clients time out, and resolvers ask another server.
    #[default]
    None,
    /// Every enabled member, up or not.
    AllRecords,
    /// An address that says sorry.
    FallbackIp { v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr> },
    /// That there is no address.
    Empty,
    /// Another name.
    Cname(String),
}

/// How a group chooses among its members, beside its algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupChoosing {
    /// Where `geo` or `topology` knows nothing of a client.
    pub fallback_algorithm: GslbAlgorithm,
    /// How many leading bits of a client's address count for `consistent_hash`.
    pub consistent_hash_mask: u8,
    pub consistent_hash_mask6: u8,
    /// A member that went down gets no new clients until an operator says so.
    pub manual_resume: bool,
    /// How many monitors have to pass; absent: all.
    pub min_health_monitors_up: Option<u32>,
}

/// The sites that are best for the clients of some networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyRule {
    pub networks: Vec<IpNet>,
    /// The best first.
    pub sites: Vec<SiteName>,
}

/// Where clients come from, to a company whose network is its own.
pub const PRIVATE_NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
    "::1/128",
];

/// The federation's part.
pub(super) struct Choosing {
    pub(super) private_networks: Vec<IpNet>,
    pub(super) topology: Vec<TopologyRule>,
    pub(super) geo_database: Option<GeoDatabase>,
}

/// The addresses of a member; one of a CNAME has none.
pub(super) struct MemberAddresses {
    pub(super) ip: Option<IpAddr>,
    pub(super) public_ip: Option<IpAddr>,
}

impl DownResponse {
    /// As it is written in YAML.
    pub fn as_str(&self) -> &'static str {
        let kind = match self {
            Self::None => Kind::None,
            Self::AllRecords => Kind::AllRecords,
            Self::FallbackIp { .. } => Kind::FallbackIp,
            Self::Empty => Kind::Empty,
            Self::Cname(_) => Kind::Cname,
        };
        words::word(&DOWN_RESPONSES, kind)
    }

    /// One word, or an object with what goes with it.
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        enum Written {
            Word(Kind),
            Object(DownResponse),
        }
        let word = |node: &Node| words::choice(&DOWN_RESPONSES)(node).map(Written::Word);
        let object = |o: &mut Object<'_>| Written::Object(Self::read_object(o));
        let kind = match o.field_or_object("down_response", word, object) {
            Some(Written::Object(response)) => return response,
            Some(Written::Word(kind)) => Some(kind),
            None => None,
        };
        match kind {
            Some(Kind::FallbackIp) => {
                o.wrong(
                    "down_response",
                    "no address to fall back to",
                    "write `{type: fallback_ip, fallback_ip: …}`",
                );
                Self::default()
            }
            Some(Kind::Cname) => {
                o.wrong(
                    "down_response",
                    "no name to send clients to",
                    "write `{type: cname, fallback_cname: …}`",
                );
                Self::default()
            }
            Some(Kind::AllRecords) => Self::AllRecords,
            Some(Kind::Empty) => Self::Empty,
            Some(Kind::None) | None => Self::None,
        }
    }

    fn read_object(o: &mut Object<'_>) -> Self {
        let kind = o.required("type", words::choice(&DOWN_RESPONSES)).unwrap_or(Kind::None);
        let v4 = o.field("fallback_ip", words::ip);
        let v6 = o.field("fallback_ip6", words::ip);
        let cname = o.field("fallback_cname", words::host);
        for key in ["fallback_ip", "fallback_ip6"] {
            if kind != Kind::FallbackIp && o.has(key) {
                o.wrong(key, "no effect with this `type`", "write `type: fallback_ip`, or leave it out");
            }
        }
        if kind != Kind::Cname && o.has("fallback_cname") {
            o.wrong("fallback_cname", "no effect with this `type`", "write `type: cname`, or leave it out");
        }
        match kind {
            Kind::None => Self::None,
            Kind::AllRecords => Self::AllRecords,
            Kind::Empty => Self::Empty,
            Kind::Cname => {
                if !o.has("fallback_cname") {
                    o.wrong("type", "no name to send clients to", "add `fallback_cname: …`");
                }
                cname.map_or(Self::None, Self::Cname)
            }
            Kind::FallbackIp => {
                if !o.has("fallback_ip") && !o.has("fallback_ip6") {
                    let help = "add `fallback_ip: …`, `fallback_ip6: …` or both";
                    o.wrong("type", "no address to fall back to", help);
                }
                Self::FallbackIp {
                    v4: of_family(o, "fallback_ip", v4),
                    v6: of_family6(o, "fallback_ip6", v6),
                }
            }
        }
    }
}

fn of_family(o: &Object<'_>, key: &str, ip: Option<IpAddr>) -> Option<Ipv4Addr> {
    match ip? {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(ip) => {
            o.wrong(key, format!("`{ip}` is not an IPv4 address"), "write it as `fallback_ip6`");
            None
        }
    }
}

fn of_family6(o: &Object<'_>, key: &str, ip: Option<IpAddr>) -> Option<Ipv6Addr> {
    match ip? {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(ip) => {
            o.wrong(key, format!("`{ip}` is not an IPv6 address"), "write it as `fallback_ip`");
            None
        }
    }
}

impl GroupChoosing {
    pub(super) fn read(o: &mut Object<'_>, algorithm: GslbAlgorithm) -> Self {
        let fallback = o.field("fallback_algorithm", words::choice(&FALLBACKS));
        if fallback.is_some() && !matches!(algorithm, GslbAlgorithm::Geo | GslbAlgorithm::Topology) {
            let what = format!("no effect with `algorithm: {}`", algorithm.as_str());
            o.wrong("fallback_algorithm", what, "it is for geo and topology; leave it out");
        }
        Self {
            fallback_algorithm: fallback.unwrap_or(GslbAlgorithm::ConsistentHash),
            consistent_hash_mask: o.field("consistent_hash_mask", units::whole(1..=31)).unwrap_or(31),
            consistent_hash_mask6: o.field("consistent_hash_mask6", units::whole(1..=127)).unwrap_or(64),
            manual_resume: o.field("manual_resume", units::flag).unwrap_or(false),
            min_health_monitors_up: o.field("min_health_monitors_up", units::whole(1..=50)),
        }
    }
}

impl Default for GroupChoosing {
    fn default() -> Self {
        Self {
            fallback_algorithm: GslbAlgorithm::ConsistentHash,
            consistent_hash_mask: 31,
            consistent_hash_mask6: 64,
            manual_resume: false,
            min_health_monitors_up: None,
        }
    }
}

impl MemberAddresses {
    /// `named`: it has an `fqdn`, which DNS can answer with.
    pub(super) fn read(o: &mut Object<'_>, persistent: bool, named: bool) -> Option<Self> {
        let needs_ip = persistent || !named;
        if needs_ip {
            o.is_missed("ip");
        }
        let ip = o.field("ip", words::ip);
        let ip = (needs_ip || o.has("ip")).then_some(ip);
        let public_ip = o.field("public_ip", words::ip);
        if let (Some(Some(ip)), Some(public_ip)) = (ip, public_ip)
            && ip.is_ipv4() != public_ip.is_ipv4()
        {
            let what = format!("`{public_ip}` and the member's `ip` are not of one family");
            o.wrong("public_ip", what, "write two IPv4 addresses, or two IPv6 addresses");
        }
        if o.has("public_ip") && !o.has("ip") && !needs_ip {
            o.wrong("public_ip", "a public address of a member without an `ip`", "write it as `ip`");
        }
        match ip {
            None => Some(Self { ip: None, public_ip }),
            Some(ip) => Some(Self { ip: Some(ip?), public_ip }),
        }
    }
}

impl Choosing {
    /// `sites`: those of the federation.
    pub(super) fn read(o: &mut Object<'_>, sites: &Table<()>) -> Self {
        let private_networks = o.list("private_client_networks", words::network).unwrap_or_else(|| {
            PRIVATE_NETWORKS.iter().map(|network| network.parse().expect("it is a network")).collect()
        });
        let mut topology: Vec<TopologyRule> = Vec::new();
        o.each("topology", |o| {
            let networks = o.required_list("networks", words::network);
            o.demand_items("sites");
            let names = o.references("sites");
            let names = names.iter().filter(|name| sites.resolve(name, o.source.report).is_some());
            let names = names.map(|name| SiteName::from(name.name.as_str())).collect();
            let known = topology.iter().flat_map(|rule| &rule.networks);
            if let Some(twice) = known.into_iter().find(|known| networks.contains(known)) {
                o.wrong("networks", format!("`{twice}` is in two rules"), "keep it in one");
            }
            topology.push(TopologyRule { networks, sites: names });
        });
        Self { private_networks, topology, geo_database: GeoDatabase::read(o, "geo_database") }
    }
}

/// What DNS cannot choose by, or among, is said.
pub(super) fn check(o: &Object<'_>, services: &[PlacedService], choosing: &Choosing) {
    let mut names: HashMap<&str, &str> = HashMap::new();
    for service in services.iter().map(|placed| &placed.service) {
        let name = shown(service.name.as_str());
        let members: usize = service.groups.iter().map(|group| group.members.len()).sum();
        if members > MOST_MEMBERS {
            let what = format!("GSLB service {name} has {members} members");
            o.wrong("gslb_services", what, format!("write at most {MOST_MEMBERS}"));
        }
        for domain in service.domain_names.iter().filter(|_| service.enabled) {
            let first = *names.entry(domain).or_insert(service.name.as_str());
            if first != service.name.as_str() {
                let what = format!(
                    "{} is a name of two GSLB services, and DNS answers with the members of {}",
                    shown(domain),
                    shown(first)
                );
                o.dubious("gslb_services", what, format!("take it out of {name}, unless DNS is not ours"));
            }
        }
        let uses = |algorithm| service.groups.iter().any(|group| group.algorithm == algorithm);
        let by_place = uses(GslbAlgorithm::Geo) || service.pool_algorithm == PoolAlgorithm::Geo;
        if by_place && choosing.geo_database.is_none() {
            let what = format!("GSLB service {name} chooses by `geo`, and where clients are is not known");
            o.wrong("gslb_services", what, "name a MaxMind-format file with `geo_database` in `gslb`");
        }
        if uses(GslbAlgorithm::Topology) && choosing.topology.is_empty() {
            let what = format!("GSLB service {name} chooses by `topology`, and `gslb` has none");
            o.wrong("gslb_services", what, "add `topology` with `networks` and `sites` to `gslb`");
        }
    }
}

/// Of one service. Each is looked at for every answer.
const MOST_MEMBERS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    AllRecords,
    FallbackIp,
    Empty,
    Cname,
}

const DOWN_RESPONSES: [(&str, &str, Kind); 5] = [
    ("none", "GSLB_SERVICE_DOWN_RESPONSE_NONE", Kind::None),
    ("all_records", "GSLB_SERVICE_DOWN_RESPONSE_ALL_RECORDS", Kind::AllRecords),
    ("fallback_ip", "GSLB_SERVICE_DOWN_RESPONSE_FALLBACK_IP", Kind::FallbackIp),
    ("empty", "GSLB_SERVICE_DOWN_RESPONSE_EMPTY", Kind::Empty),
    ("cname", "GSLB_SERVICE_DOWN_RESPONSE_CNAME", Kind::Cname),
];

const FALLBACKS: [(&str, &str, GslbAlgorithm); 3] = [
    ("round_robin", "GSLB_ALGORITHM_ROUND_ROBIN", GslbAlgorithm::RoundRobin),
    ("consistent_hash", "GSLB_ALGORITHM_CONSISTENT_HASH", GslbAlgorithm::ConsistentHash),
    ("preference_order", "GSLB_ALGORITHM_PREFERENCE_ORDER", GslbAlgorithm::PreferenceOrder),
];
