//! Pools and their servers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    CaCerts, Connections, HashKey, HealthMonitor, HostHeader, InlineMonitor, Lifecycle, Patience,
    PersistenceProfile, PoolTls, Retries, SiteTls, SourceAddresses,
    app_persistence::Profiles,
    pool_tls::{self, Proofs},
    problem::{Wrong, shown},
    read::Object,
    table::Table,
    units::{self, days, hours, milliseconds, seconds},
    words,
    yaml::Node,
};
use crate::names::PoolName;

/// Servers among which a balancer chooses: of an app, or clone members.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: PoolName,
    pub enabled: bool,
    pub algorithm: LbAlgorithm,
    /// What `consistent_hash` goes by.
    pub hash_key: HashKey,
    pub servers: Vec<Server>,
    /// Each stands for the servers whose addresses its `hostname` has; its own says the port alone.
    pub named_servers: Vec<Server>,
    pub monitors: Vec<Arc<HealthMonitor>>,
    /// A server is up while so many of them pass; default: all.
    pub min_health_monitors_up: Option<u32>,
    /// What keeps sessions at their servers.
    pub persistence: Option<Arc<PersistenceProfile>>,
    /// So many servers of the highest priorities are enough.
    pub min_servers: u32,
    pub lifecycle: Lifecycle,
    /// What requests meet with has a say in who is up; `None`: it has not.
    pub inline: Option<InlineMonitor>,
    /// Connect to servers; default 5 s.
    pub connect_timeout: Duration,
    /// The longest silence of a server while its answer is awaited or flows, apart from what an upload may take;
    /// default 60 s.
    pub read_timeout: Duration,
    /// How long an unused connection to a server is kept; default 60 s. Keep it below the servers' own.
    pub idle_timeout: Duration,
    /// Where connections to servers come from, probes and copies too.
    pub sources: SourceAddresses,
    /// When a request is given up, whatever its server does.
    pub patience: Patience,
    /// How connections begin, and when they are parted with.
    pub connections: Connections,
    /// How often one is tried again.
    pub retries: Retries,
    /// Connect to servers with TLS.
    pub enable_ssl: bool,
    /// Speak HTTP/2: with TLS where a server offers it, else by prior knowledge.
    pub enable_http2: bool,
    /// The name in SNI; default: the request's host. Certificates are verified when `verify` is set.
    pub sni: Option<String>,
    /// Verify the servers' certificates; default true where `enable_ssl`.
    pub verify: bool,
    /// Whom servers are vouched for by, and what they are shown.
    pub tls: PoolTls,
    /// The `Host` that servers get.
    pub host_header: HostHeader,
    /// The authorities that are trusted in place of the system's. Only site-persistence pools have them; a
    /// certificate that one of them signed is then taken whatever its names are.
    pub ca_certs: Option<CaCerts>,
    /// How this site proves itself to the servers, which are sites: each has the name that is asked for as its
    /// `hostname`. Only site-persistence pools have it, together with `ca_certs`.
    pub site_tls: Option<Arc<SiteTls>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub addr: SocketAddr,
    pub hostname: Option<String>,
    /// Share of the traffic relative to the others; 0 means none.
    pub ratio: u16,
    /// Servers of a lower one get requests only when too few of the higher ones can.
    pub priority: u8,
    pub enabled: bool,
}

/// How a pool chooses among its servers that are up; each honours `ratio`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LbAlgorithm {
    RoundRobin,
    Random,
    /// Avi's default, and ours.
    #[default]
    LeastConnections,
    /// Requests with the same [`HashKey`] go to the same server.
    ConsistentHash,
    FastestResponse,
}

impl Pool {
    pub(super) fn read(
        o: &mut Object<'_>,
        monitors: &Table<Arc<HealthMonitor>>,
        profiles: &Profiles<'_>,
        proofs: &Proofs<'_>,
        pools: &mut Table<Arc<Pool>>,
    ) -> Option<Arc<Pool>> {
        let name = o.required("name", pool_name);
        refuse_sp_keys(o);
        let default_port = o.field("default_server_port", units::port).unwrap_or(80);
        let timeouts = || units::duration(milliseconds(1)..=hours(1));
        let enable_ssl = o.field("enable_ssl", units::flag).unwrap_or(false);
        let default = Self::of(name.as_deref().unwrap_or_default().into(), []);
        let algorithm = o.field("lb_algorithm", words::choice(&ALGORITHMS)).unwrap_or(default.algorithm);
        let (named_servers, servers): (Vec<_>, Vec<_>) = Server::read_all(o, default_port)
            .into_iter()
            .partition(|server| server.addr.ip().is_unspecified());
        let sources = SourceAddresses::read(o, &servers);
        let patience = Patience::read(o);
        let sni = pool_tls::read_sni(o);
        let verify = o.field("verify", units::flag).unwrap_or(true);
        let pool = Arc::new(Self {
            name: default.name,
            enabled: o.field("enabled", units::flag).unwrap_or(default.enabled),
            algorithm,
            hash_key: HashKey::read(o, algorithm),
            servers,
            named_servers,
            monitors: own_monitors(o, name.as_deref().unwrap_or_default(), monitors),
            min_health_monitors_up: o.field("min_health_monitors_up", units::whole(1..=50)),
            persistence: profiles.of_pool(o, name.as_deref().unwrap_or_default()),
            min_servers: o.field("min_servers", units::whole(1..=10_000)).unwrap_or(default.min_servers),
            lifecycle: Lifecycle::read(o),
            inline: o.object("inline_health_monitor", InlineMonitor::read),
            connect_timeout: o.field("connect_timeout", timeouts()).unwrap_or(default.connect_timeout),
            read_timeout: o
                .field("read_timeout", units::duration(milliseconds(1)..=days(1)))
                .unwrap_or(default.read_timeout),
            idle_timeout: o.field("idle_timeout", timeouts()).unwrap_or(default.idle_timeout),
            sources,
            connections: Connections::read(o, &patience),
            patience,
            retries: Retries::read(o),
            enable_ssl,
            enable_http2: o.field("enable_http2", units::flag).unwrap_or(default.enable_http2),
            tls: PoolTls::read(o, proofs),
            host_header: HostHeader::read(o, sni.as_ref()),
            sni,
            verify: verify && enable_ssl,
            ca_certs: None,
            site_tls: None,
        });
        pool_tls::check(o, enable_ssl, verify);
        pools.define(o, "name", &name?, pool.clone());
        Some(pool)
    }
}

impl Pool {
    /// A pool of servers without monitors, everything else by default.
    pub fn of(name: PoolName, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            name,
            enabled: true,
            algorithm: LbAlgorithm::default(),
            hash_key: HashKey::default(),
            servers: servers.into_iter().map(Server::at).collect(),
            named_servers: Vec::new(),
            monitors: Vec::new(),
            min_health_monitors_up: None,
            persistence: None,
            min_servers: 1,
            lifecycle: Lifecycle::default(),
            inline: None,
            connect_timeout: seconds(5),
            read_timeout: seconds(60),
            idle_timeout: seconds(60),
            sources: SourceAddresses::default(),
            patience: Patience::default(),
            connections: Connections::default(),
            retries: Retries::default(),
            enable_ssl: false,
            enable_http2: false,
            sni: None,
            verify: false,
            tls: PoolTls::default(),
            host_header: HostHeader::default(),
            ca_certs: None,
            site_tls: None,
        }
    }
}

/// `SP-…` pools are made by homing, from GSLB services; a configured one would be mistaken for them.
fn pool_name(node: &Node) -> Result<String, Wrong> {
    let name = words::name(node)?;
    if is_sp_pool(&name) {
        let what = format!("{} is a name kept for site-persistence pools, which homing makes", shown(&name));
        return Err(Wrong::new(what, "choose a name that does not begin with `SP-`"));
    }
    Ok(name)
}

/// Whether this is a name of a pool of a GSLB member's peers.
pub(super) fn is_sp_pool(name: &str) -> bool {
    name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("SP-"))
}

/// What belongs to site-persistence pools alone.
fn refuse_sp_keys(o: &mut Object<'_>) {
    let help = "leave it out; a pool of a site-persistent GSLB service is made by homing";
    o.misplaced(
        "gslb_sp_enabled",
        "only site-persistence pools have it, and they cannot be configured",
        help,
    );
}

/// Refuses pool groups, above all of site-persistence pools.
pub(super) fn refuse_groups(o: &mut Object<'_>) {
    if !o.has("pool_groups") {
        return;
    }
    o.each("pool_groups", |o| {
        let group = o.name().unwrap_or_default();
        let members = o.anything("members");
        let pools =
            members.as_sequence().into_iter().flatten().filter_map(|member| member["pool_ref"].as_str());
        let (what, help) = match pools.into_iter().find(|pool| is_sp_pool(pool)) {
            Some(pool) => (
                format!("pool group {} has the site-persistence pool {}", shown(&group), shown(pool)),
                "leave the group out; homing alone decides what a site-persistence pool is for",
            ),
            None => (
                format!("pool group {}: pool groups are not supported", shown(&group)),
                "leave it out, and let a rule choose among pools",
            ),
        };
        o.source.report.problem(o.place.clone(), what, help);
    });
}

/// The monitors of a pool of the site's own, none of them federated.
fn own_monitors(
    o: &mut Object<'_>,
    pool: &str,
    monitors: &Table<Arc<HealthMonitor>>,
) -> Vec<Arc<HealthMonitor>> {
    let report = o.source.report;
    let references = o.references("health_monitor_refs");
    let resolved = references.iter().filter_map(|reference| {
        let monitor = monitors.resolve(reference, report)?;
        if monitor.is_federated {
            let what = format!(
                "pool {} is not federated, and health monitor {} is",
                shown(pool),
                shown(&reference.name)
            );
            report.problem(reference.place.clone(), what, "name a monitor of this file");
        }
        Some(monitor.clone())
    });
    resolved.collect()
}

impl Server {
    /// The server at an address, everything else by default.
    pub fn at(addr: SocketAddr) -> Self {
        Self { addr, hostname: None, ratio: 1, priority: DEFAULT_PRIORITY, enabled: true }
    }

    fn read_all(o: &mut Object<'_>, default_port: u16) -> Vec<Self> {
        let mut servers: Vec<Self> = Vec::new();
        o.objects("servers", |o| {
            let hostname = o.field("hostname", words::host);
            let by_dns = o.field("resolve_server_by_dns", units::flag).unwrap_or(false);
            let ip = o.field("ip", words::ip);
            let ip = match (by_dns, ip) {
                (true, None) => Some(IpAddr::from([0, 0, 0, 0])),
                (true, Some(_)) => {
                    let help = "leave it out, or leave `resolve_server_by_dns` out";
                    o.wrong("ip", "the server has its addresses from DNS", help);
                    None
                }
                (false, ip) => {
                    o.is_missed("ip");
                    ip
                }
            };
            if by_dns && hostname.as_ref().is_none_or(|name| name.parse::<IpAddr>().is_ok()) {
                let help = "add the name under `hostname`";
                o.wrong("resolve_server_by_dns", "there is no name to ask DNS for", help);
            }
            let port = o.field("port", units::port).unwrap_or(default_port);
            let ratio = o.field("ratio", units::whole(0..=1000)).unwrap_or(1);
            let priority = o.field("priority", units::whole(0..=100)).unwrap_or(DEFAULT_PRIORITY);
            let enabled = o.field("enabled", units::flag).unwrap_or(true);
            let server = Self { addr: SocketAddr::new(ip?, port), hostname, ratio, priority, enabled };
            if servers
                .iter()
                .any(|other| other.addr == server.addr && (!by_dns || other.hostname == server.hostname))
            {
                o.wrong(
                    "ip",
                    format!("server {} is in this pool twice", server.addr),
                    "raise its `ratio` instead",
                );
            }
            servers.push(server);
            Some(())
        });
        servers
    }
}

/// In the middle of what people write, so that there is room on both sides.
const DEFAULT_PRIORITY: u8 = 10;

impl LbAlgorithm {
    /// As it is written in YAML.
    pub fn as_str(self) -> &'static str {
        words::word(&ALGORITHMS, self)
    }
}

const ALGORITHMS: [(&str, &str, LbAlgorithm); 5] = [
    ("round_robin", "LB_ALGORITHM_ROUND_ROBIN", LbAlgorithm::RoundRobin),
    ("random", "LB_ALGORITHM_RANDOM", LbAlgorithm::Random),
    ("least_connections", "LB_ALGORITHM_LEAST_CONNECTIONS", LbAlgorithm::LeastConnections),
    ("consistent_hash", "LB_ALGORITHM_CONSISTENT_HASH", LbAlgorithm::ConsistentHash),
    ("fastest_response", "LB_ALGORITHM_FASTEST_RESPONSE", LbAlgorithm::FastestResponse),
];
