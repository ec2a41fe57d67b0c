//! The live state: what the configuration has become, swapped as a whole.
//!
//! A [`Snapshot`] is built from a [`Config`] and never changes; requests hold the one that they started with.
//! What must outlive it (metrics, session table, clock, health of servers) is in [`Live`] or handed over by
//! identity.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    clone::{ClonePool, MarkKeys},
    config::{self, AddressLists, ApplicationProfile, CloneSection, Config, OnError, ServiceTls},
    filter,
    gslb::{Censuses, Drains, Membership, SpPool},
    metrics::{Metrics, RequestMetrics},
    names::{PoolName, VsName, same_name},
    pool::{Pool, monitor::Monitors},
    rule::{Chain, ChainEntry, Registry, RuleError, Services, Setup, SiteSetup, UnknownRule},
    session::SessionTable,
    site_cookie::ReplayGuard,
    tls::TicketKeys,
};

/// A running instance's state: the current snapshot, and what outlives snapshots.
pub struct Live {
    current: ArcSwap<Snapshot>,
    pub metrics: Metrics,
    pub clock: Clock,
    pub sessions: Arc<SessionTable>,
    pub ticket_keys: TicketKeys,
    pub replay: Arc<ReplayGuard>,
    pub drains: Arc<Drains>,
    pub mark_key: [u8; 16],
    /// Counters of requests that belong to no virtual service.
    pub unrouted: RequestMetrics,
}

impl Live {
    pub fn new(snapshot: Snapshot, parts: Parts) -> Self {
        let Parts { metrics, clock, sessions, ticket_keys, replay, drains, mark_key, .. } = parts;
        let unrouted = RequestMetrics::new(&metrics, "-", "-");
        let current = ArcSwap::from_pointee(snapshot);
        Self { current, metrics, clock, sessions, ticket_keys, replay, drains, mark_key, unrouted }
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whether this is the current snapshot.
    pub fn is_current(&self, snapshot: &Weak<Snapshot>) -> bool {
        std::ptr::eq(snapshot.as_ptr(), Arc::as_ptr(&self.current.load()))
    }

    /// The only virtual service of a listener, where it has one.
    pub fn only(&self, listener: &str) -> Option<Arc<VirtualService>> {
        self.current.load().listeners.get(listener)?.only().cloned()
    }
}

/// What outlives snapshots.
pub struct Parts {
    pub metrics: Metrics,
    pub clock: Clock,
    pub sessions: Arc<SessionTable>,
    /// One set for all listeners, so that a TLS session keeps its identity among them.
    pub ticket_keys: TicketKeys,
    pub replay: Arc<ReplayGuard>,
    /// Which sites are being emptied by command.
    pub drains: Arc<Drains>,
    /// The sessions of this site's members.
    pub censuses: Censuses,
    /// Random. The process knows its own copies by it, whatever secrets a configuration brings.
    pub mark_key: [u8; 16],
}

/// A configuration, at work.
pub struct Snapshot {
    pub config: Arc<Config>,
    /// The configured pools, in the order of the file, then the SP pools.
    pub pools: Vec<Arc<Pool>>,
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// By `ip:port`, as `listen` names them.
    pub listeners: BTreeMap<Arc<str>, Listener>,
    /// Ends what this snapshot runs: monitors and lanes.
    retired: CancellationToken,
}

/// Why a configuration that is right in itself cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("virtual service `{vs}`: {source}")]
    UnknownRule { vs: VsName, source: UnknownRule },
    #[error("virtual service `{vs}`: rule `{rule}`: {reason}")]
    Rule { vs: VsName, rule: String, reason: RuleError },
    #[error("openssl gives no random bytes: {0}")]
    Chance(openssl::error::ErrorStack),
    #[error("site persistence of virtual service `{vs}`: {reason}")]
    Site { vs: VsName, reason: String },
    #[error("virtual service `{vs}`: openssl refuses the TLS settings of clone pool `{pool}`: {source}")]
    CloneTls { vs: VsName, pool: PoolName, source: openssl::error::ErrorStack },
}

impl Snapshot {
    /// Builds everything that `config` describes; nothing listens or probes yet.
    ///
    /// # Errors
    /// A rule is not registered or refuses its configuration.
    pub fn build(config: Arc<Config>, registry: &Registry, parts: &Parts) -> Result<Self, BuildError> {
        let retired = CancellationToken::new();
        let mut pools: Vec<Arc<Pool>> = config
            .pools
            .iter()
            .map(|pool| Pool::new(pool, &parts.metrics, None, parts.clock.wall()))
            .collect();
        let by_name = pools.iter().map(|pool| (pool.name().clone(), pool.clone())).collect();
        let services = Arc::new(Services::new(by_name, parts.sessions.clone(), parts.clock.clone(), None));

        let marks = Arc::new(MarkKeys::new(config.clone_mark_secrets(), &parts.mark_key));

        let mut virtual_services = Vec::new();
        for vs in config.virtual_services.iter().filter(|vs| vs.enabled) {
            let site = site_setup(vs, &config, parts)?;
            pools.extend(site.as_ref().map(|site| site.sp_pool.clone()));
            let builder = Builder { vs, site, services: &services, marks: &marks, parts, retired: &retired };
            virtual_services.push(Arc::new(builder.build(registry)?));
        }
        let listeners = listeners(&virtual_services);
        Ok(Self { config, pools, virtual_services, listeners, retired })
    }

    /// Starts the monitors of all pools, on the runtime that is current.
    pub fn start_monitors(&self, clock: &Clock) {
        let monitors = Monitors::new(clock.clone());
        for pool in &self.pools {
            monitors.spawn(pool, &mut rand::rng(), &self.retired);
        }
    }

    /// The pools whose first health results are not in.
    pub fn unchecked_pools(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.iter().filter(|pool| !pool.checked()).map(|pool| pool.name())
    }

    /// Where a request to this listener with this host belongs.
    pub fn route(&self, listener: &str, host: &str) -> Option<&Arc<VirtualService>> {
        self.listeners.get(listener)?.route(host)
    }

    /// A pool by name, as an operator types it.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| same_name(pool.name().as_str(), name))
    }

    /// A virtual service by name, as an operator types it.
    pub fn virtual_service(&self, name: &str) -> Option<&Arc<VirtualService>> {
        self.virtual_services.iter().find(|vs| same_name(vs.name().as_str(), name))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.retired.cancel();
    }
}

/// A virtual service, at work.
pub struct VirtualService {
    pub config: Arc<config::VirtualService>,
    pub pool: Option<Arc<Pool>>,
    pub chain: Chain,
    pub services: Arc<Services>,
    /// Its part in site persistence, where it has one.
    pub site: Option<SiteSetup>,
    /// Counters of its own pool.
    pub requests: RequestMetrics,
    /// Counters of the other pools that rules chose.
    elsewhere: Mutex<HashMap<PoolName, Arc<RequestMetrics>>>,
    pub connections_open: IntGauge,
    /// Of the sections, then of rules' orders for other pools.
    clone_pools: Mutex<Vec<Arc<ClonePool>>>,
    /// Tells copies that come back from what clients mark as such.
    pub marks: Arc<MarkKeys>,
    pub metrics: Metrics,
    /// Ends the lanes that are opened later.
    retired: CancellationToken,
}

impl VirtualService {
    pub fn name(&self) -> &VsName {
        &self.config.name
    }

    /// The lanes to a pool: those of the section that names it, else lanes with default settings, for a rule
    /// that orders copies to it. `None`: there is no such pool.
    pub fn clone_pool(&self, pool: &PoolName) -> Option<Arc<ClonePool>> {
        let mut clone_pools = self.clone_pools.lock();
        if let Some(lanes) = clone_pools.iter().find(|lanes| lanes.pool() == pool) {
            return Some(lanes.clone());
        }
        let members = self.services.pools().named(pool.as_str()).ok()?;
        let section = CloneSection::of(pool.clone());
        let lanes = ClonePool::new(
            &section,
            members.config(),
            self.name(),
            &self.marks,
            &self.metrics,
            self.retired.child_token(),
        );
        let lanes = lanes
            .inspect_err(
                |error| tracing::error!(%pool, %error, "no copies: openssl refuses the pool's TLS settings"),
            )
            .ok()?;
        clone_pools.push(lanes.clone());
        Some(lanes)
    }

    /// Tells the log of copies that were lost; call it now and then.
    pub fn log_clone_losses(&self, now: Instant) {
        let clone_pools = self.clone_pools.lock().clone();
        clone_pools.iter().for_each(|lanes| lanes.log_losses(now));
    }

    /// Counts a request that ended; `None`: no pool was chosen.
    pub fn count(&self, pool: Option<&PoolName>, status: u16, took: Duration) {
        match (pool, &self.pool) {
            (Some(pool), Some(own)) if pool == own.name() => self.requests.count(status, took),
            (pool, _) => {
                let pool = pool.map_or("-", PoolName::as_str);
                let mut elsewhere = self.elsewhere.lock();
                let requests = elsewhere.entry(pool.into()).or_insert_with(|| {
                    Arc::new(RequestMetrics::new(&self.metrics, self.name().as_str(), pool))
                });
                let requests = requests.clone();
                drop(elsewhere);
                requests.count(status, took);
            }
        }
    }
}

/// One address, and the virtual services that share it.
pub struct Listener {
    pub addr: SocketAddr,
    pub profile: Arc<ApplicationProfile>,
    pub address_lists: AddressLists,
    /// One for each virtual service, with the names that it serves; empty: plain.
    pub tls: Vec<(ServiceTls, Vec<String>)>,
    exact: HashMap<String, Arc<VirtualService>>,
    /// Suffixes with their dot, the longest first.
    suffixes: Vec<(String, Arc<VirtualService>)>,
    any: Option<Arc<VirtualService>>,
    virtual_services: Vec<Arc<VirtualService>>,
}

impl Listener {
    /// Those that share the address, in the order of the file.
    pub fn virtual_services(&self) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.virtual_services.iter()
    }

    /// The virtual service of a host, which is lower case and without port: exact names first, then the
    /// longest `*.suffix`, then the virtual service without names.
    pub fn route(&self, host: &str) -> Option<&Arc<VirtualService>> {
        self.exact
            .get(host)
            .or_else(|| self.suffixes.iter().find(|(suffix, _)| is_below(host, suffix)).map(|(_, vs)| vs))
            .or(self.any.as_ref())
    }

    /// The virtual service, if there is only one.
    fn only(&self) -> Option<&Arc<VirtualService>> {
        match &*self.virtual_services {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// `a.b.com` is below `.b.com`; `.b.com` itself and `b.com` are not.
fn is_below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

fn listeners(virtual_services: &[Arc<VirtualService>]) -> BTreeMap<Arc<str>, Listener> {
    let mut listeners: BTreeMap<Arc<str>, Listener> = BTreeMap::new();
    for vs in virtual_services {
        for service in &vs.config.services {
            let listener = listeners.entry(service.addr.to_string().into()).or_insert_with(|| Listener {
                addr: service.addr,
                profile: vs.config.profile.clone(),
                address_lists: vs.config.address_lists.clone(),
                tls: Vec::new(),
                exact: HashMap::new(),
                suffixes: Vec::new(),
                any: None,
                virtual_services: Vec::new(),
            });
            listener.virtual_services.push(vs.clone());
            listener.tls.extend(service.tls.clone().map(|tls| (tls, vs.config.domain_names.clone())));
            for name in &vs.config.domain_names {
                match name.strip_prefix('*') {
                    Some(suffix) => listener.suffixes.push((suffix.to_owned(), vs.clone())),
                    None => drop(listener.exact.insert(name.clone(), vs.clone())),
                }
            }
            if vs.config.domain_names.is_empty() {
                listener.any = Some(vs.clone());
            }
        }
    }
    for listener in listeners.values_mut() {
        listener.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    }
    listeners
}

fn site_setup(
    vs: &config::VirtualService,
    config: &Config,
    parts: &Parts,
) -> Result<Option<SiteSetup>, BuildError> {
    let Some(gslb) = &config.gslb else { return Ok(None) };
    let pool = config.pools.iter().find(|pool| vs.pool.as_ref() == Some(&pool.name));
    let servers: Vec<_> = pool.iter().flat_map(|pool| &pool.servers).map(|server| server.addr).collect();
    let membership = Membership::of(vs, &servers, &config.site, gslb, parts.clock.unix_seconds())
        .map_err(|error| BuildError::Site { vs: vs.name.clone(), reason: error.to_string() })?;
    Ok(membership.map(|membership| {
        let SpPool { uuid, pool } = SpPool::of(vs, &membership, gslb);
        let sp_pool = Pool::new(&pool, &parts.metrics, None, parts.clock.wall());
        SiteSetup {
            census: parts.censuses.of(membership.own),
            membership: Arc::new(membership),
            sp_pool,
            sp_pool_uuid: uuid.into(),
            replay: parts.replay.clone(),
            drains: parts.drains.clone(),
        }
    }))
}

/// Puts one virtual service to work.
struct Builder<'a> {
    vs: &'a Arc<config::VirtualService>,
    site: Option<SiteSetup>,
    services: &'a Arc<Services>,
    marks: &'a Arc<MarkKeys>,
    parts: &'a Parts,
    retired: &'a CancellationToken,
}

impl Builder<'_> {
    fn build(self, registry: &Registry) -> Result<VirtualService, BuildError> {
        let metrics = &self.parts.metrics;
        let name = self.vs.name.as_str();
        let pool = self.vs.pool.as_ref().map(|pool| self.pool(pool));
        let clone_pools = self.vs.clones.iter().map(|section| {
            let members = self.pool(&section.pool);
            let retired = self.retired.child_token();
            ClonePool::new(section, members.config(), &self.vs.name, self.marks, metrics, retired).map_err(
                |source| BuildError::CloneTls {
                    vs: self.vs.name.clone(),
                    pool: section.pool.clone(),
                    source,
                },
            )
        });
        let clone_pools = clone_pools.collect::<Result<_, _>>()?;
        let own = pool.as_ref().map_or("-", |pool| pool.name().as_str());
        Ok(VirtualService {
            requests: RequestMetrics::new(metrics, name, own),
            elsewhere: Mutex::default(),
            connections_open: metrics.connections_open.with_label_values(&[name]),
            clone_pools: Mutex::new(clone_pools),
            chain: self.chain(registry)?,
            pool,
            config: self.vs.clone(),
            services: self.services.clone(),
            site: self.site,
            marks: self.marks.clone(),
            metrics: metrics.clone(),
            retired: self.retired.clone(),
        })
    }

    fn pool(&self, name: &PoolName) -> Arc<Pool> {
        self.services.pools().named(name.as_str()).expect("a checked configuration names known pools").clone()
    }

    /// Site persistence decides first and clone pools last, so that users' rules see who the client is and may
    /// still choose what is copied.
    fn chain(&self, registry: &Registry) -> Result<Chain, BuildError> {
        let null = serde_yaml::Value::Null;
        let setup = |config| Setup {
            config,
            virtual_service: self.vs,
            services: self.services,
            metrics: &self.parts.metrics,
            site: self.site.as_ref(),
        };
        let mut entries = Vec::new();
        let mut add =
            |name: &str, on_error, rule| entries.push(ChainEntry { name: name.into(), rule, on_error });
        if let Some(rule) = filter::SitePersistence::for_virtual_service(&setup(&null)) {
            add("site_persistence", OnError::FailClosed, rule);
        }
        if let Some(rule) = filter::HttpsRedirect::for_virtual_service(&setup(&null)) {
            add("http_to_https", OnError::FailClosed, rule);
        }
        for spec in &self.vs.rules {
            let factory = registry
                .named(&spec.rule)
                .map_err(|source| BuildError::UnknownRule { vs: self.vs.name.clone(), source })?;
            let rule = factory(&setup(&spec.config)).map_err(|reason| BuildError::Rule {
                vs: self.vs.name.clone(),
                rule: spec.name.to_string(),
                reason,
            })?;
            add(spec.name.as_str(), spec.on_error, rule);
        }
        for rule in filter::ClonePools::for_virtual_service(&setup(&null)) {
            add("clone_pool", OnError::FailOpen, rule);
        }
        Ok(Chain::new(entries, &self.parts.metrics))
    }
}
