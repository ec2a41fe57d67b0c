//! The live state: what the configuration has become, swapped as a whole.
//!
//! A [`Snapshot`] is built from a [`Config`] and never changes; requests hold the one that they started with.
//! What must outlive it (metrics, session table, clock, keys) is in [`Parts`]. The rest is handed over by identity
//! when a configuration is loaded again: what has the same name and is configured as before *is* the object that
//! it was, and of a pool that changed, servers with the same address keep their health and what is in flight. Rules
//! of a virtual service are made anew when it, or a pool, which they might hold, has changed.

mod gslb_choice;
mod listener;
mod places;
mod request_rates;
mod virtual_service;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Deref,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use gslb_choice::{GslbChoice, Member, Opinion, Source};
pub use listener::Listener;
pub use places::{Place, Places};
pub use request_rates::{OverRate, RequestLimiter};
pub use virtual_service::VirtualService;

use crate::{
    access_log::CurrentLog,
    clock::Clock,
    clone::MarkKeys,
    config::{self, Config},
    gslb::{Censuses, Drains, Membership, Memories, SiteWords, SpPool},
    metrics::{Labels, Metrics, RequestMetrics},
    names::{PoolName, VsName, same_name},
    pool::{Pool, ServerNames},
    rule::{Registry, RuleError, Services, SiteSetup, UnknownRule},
    session::SessionTable,
    site_cookie::ReplayGuard,
    tls::TicketKeys,
};
use virtual_service::Builder;

/// A running instance's state: the current snapshot, and the [`Parts`] that outlive snapshots.
pub struct Live {
    current: ArcSwap<Snapshot>,
    parts: Parts,
    /// Listeners that a reload removed, for the connections that they have left.
    departed: Mutex<BTreeMap<Arc<str>, Arc<Listener>>>,
    /// Counters of requests that belong to no virtual service.
    pub unrouted: RequestMetrics,
    /// What is written about requests, once it is open.
    pub access_log: CurrentLog,
}

impl Live {
    pub fn new(snapshot: Snapshot, parts: Parts) -> Self {
        let unrouted = RequestMetrics::new(&parts.metrics, "-", "-");
        let (departed, access_log) = Default::default();
        Self { current: ArcSwap::from_pointee(snapshot), parts, departed, unrouted, access_log }
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
        match self.current.load().listeners.get(listener) {
            Some(listener) => listener.only().cloned(),
            None => self.departed(listener)?.only().cloned(),
        }
    }

    /// Where a request to this listener with this host belongs.
    pub fn route(&self, snapshot: &Snapshot, listener: &str, host: &str) -> Option<Arc<VirtualService>> {
        match snapshot.listeners.get(listener) {
            Some(listener) => listener.route(host).cloned(),
            None => self.departed(listener)?.route(host).cloned(),
        }
    }

    /// A listener that is no more, as long as connections that it accepted may be there.
    fn departed(&self, listener: &str) -> Option<Arc<Listener>> {
        self.departed.lock().get(listener).cloned()
    }

    /// Puts a snapshot in the place of the current one, for requests that begin from now on. Says which listeners
    /// it does not have: their connections are still served as they were, until [`Live::forget`].
    pub fn replace(&self, snapshot: Snapshot) -> Vec<Arc<Listener>> {
        let before = self.snapshot();
        let gone = before.listeners.iter().filter(|(name, _)| !snapshot.listeners.contains_key(*name));
        let gone: BTreeMap<_, _> = gone.map(|(name, listener)| (name.clone(), listener.clone())).collect();
        let listeners = gone.values().cloned().collect();
        self.departed.lock().extend(gone);
        self.current.store(Arc::new(snapshot));
        listeners
    }

    /// The last connection of a listener that departed is gone.
    pub fn forget(&self, listener: &Arc<Listener>) {
        self.departed.lock().retain(|_, departed| !Arc::ptr_eq(departed, listener));
    }

    /// Takes the series of objects that are no more off the metrics page, and forgets what was known of them.
    pub fn forget_series(&self) {
        let snapshot = self.snapshot();
        let vs: HashSet<_> = snapshot.virtual_services.iter().map(|vs| vs.name().as_str()).collect();
        let services = snapshot.config.gslb.iter().flat_map(|gslb| &gslb.services);
        let services: HashSet<_> = services.map(|service| service.name.as_str()).collect();
        let pools: HashMap<_, _> = snapshot.pools.iter().map(|pool| (pool.name().as_str(), pool)).collect();
        let members = snapshot.gslb.iter().flat_map(|gslb| gslb.directory().members());
        let members: HashSet<_> =
            members.map(|(service, member)| (service.config().name.as_str(), &*member.name)).collect();
        let known = |labels: &Labels<'_>| {
            let vs = labels.get("vs").is_none_or(|name| name == "-" || vs.contains(name));
            let listener = labels.get("listener").is_none_or(|name| snapshot.listeners.contains_key(name));
            let pool = match labels.get("pool") {
                None | Some("-") => true,
                Some(name) => pools.get(name).is_some_and(|pool| {
                    let server = labels.get("server");
                    server.is_none_or(|name| pool.servers().iter().any(|server| server.name() == name))
                }),
            };
            let service = labels.get("service").is_none_or(|name| name == "-" || services.contains(name));
            let member = match (labels.get("service"), labels.get("member")) {
                (Some(service), Some(member)) if member != "-" => members.contains(&(service, member)),
                _ => true,
            };
            vs && listener && pool && service && member
        };
        self.metrics.retain(known);
        let remembered = snapshot.gslb.iter().flat_map(|gslb| gslb.remembered());
        self.memories.keep(&remembered.map(|(member, _)| member).collect());
    }
}

impl Deref for Live {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
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
    /// What other sites say of themselves.
    pub words: SiteWords,
    /// What is remembered of the members of GSLB services.
    pub memories: Memories,
    /// The addresses of servers that are configured by name.
    pub server_names: ServerNames,
    /// Of pools that are only probed: nobody wants to see them.
    pub unseen: Metrics,
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
    pub listeners: BTreeMap<Arc<str>, Arc<Listener>>,
    /// Which members DNS answers with, where there is a federation.
    pub gslb: Option<Arc<GslbChoice>>,
    services: Arc<Services>,
    marks: Arc<MarkKeys>,
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
    /// Builds everything that `config` describes; nothing listens or probes yet. After a reload `previous` is the
    /// snapshot whose place the new one takes.
    ///
    /// # Errors
    /// A rule is not registered or refuses its configuration.
    pub fn build(
        config: Arc<Config>,
        registry: &Registry,
        parts: &Parts,
        previous: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let before = Before::of(previous);
        let mut pools: Vec<_> =
            config.pools.iter().map(|pool| before.pool(&parts.server_names.resolved(pool), parts)).collect();
        let services = before.services(&pools).unwrap_or_else(|| {
            let by_name = pools.iter().map(|pool| (pool.name().clone(), pool.clone())).collect();
            Arc::new(Services::new(by_name, parts.sessions.clone(), parts.clock.clone(), None))
        });
        let marks = before
            .marks(&config)
            .unwrap_or_else(|| Arc::new(MarkKeys::new(config.clone_mark_secrets(), &parts.mark_key)));
        let mut virtual_services = Vec::new();
        for vs in config.virtual_services.iter().filter(|vs| vs.enabled) {
            let same = before.virtual_service(vs, &config, &services, &marks);
            let vs = match same {
                Some(same) => same.clone(),
                None => {
                    let site = site_setup(vs, &config, parts, &before)?;
                    let previous = before.virtual_services.get(&vs.name).map(|vs| &***vs);
                    let (services, marks, metrics) = (&services, &marks, &parts.metrics);
                    let now = parts.clock.now();
                    let builder = Builder { vs, site, services, marks, metrics, now, previous };
                    Arc::new(builder.build(registry)?)
                }
            };
            pools.extend(vs.site.as_ref().map(|site| site.sp_pool.clone()));
            virtual_services.push(vs);
        }
        let listeners = listener::listeners(&virtual_services);
        let gslb = config
            .gslb
            .as_ref()
            .map(|gslb| Arc::new(GslbChoice::build(gslb, &config, &virtual_services, &before, parts)));
        Ok(Self { config, pools, virtual_services, listeners, gslb, services, marks })
    }

    /// Every pool that is probed.
    pub fn probed_pools(&self) -> Vec<Arc<Pool>> {
        let members = self.gslb.iter().flat_map(|gslb| gslb.probe_pools());
        self.pools.iter().chain(members).cloned().collect()
    }

    /// The pools whose first health results are not in.
    pub fn unchecked_pools(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.iter().filter(|pool| !pool.checked()).map(|pool| pool.name())
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

/// What there was before a reload; nothing at the start.
struct Before<'a> {
    snapshot: Option<&'a Snapshot>,
    pools: HashMap<&'a PoolName, &'a Arc<Pool>>,
    virtual_services: HashMap<&'a VsName, &'a Arc<VirtualService>>,
}

impl<'a> Before<'a> {
    fn of(snapshot: Option<&'a Snapshot>) -> Self {
        let probed = snapshot.into_iter().flat_map(|snapshot| &snapshot.gslb);
        let probed = probed.flat_map(|gslb| gslb.probe_pools());
        let pools = snapshot.into_iter().flat_map(|snapshot| &snapshot.pools).chain(probed);
        let virtual_services = snapshot.into_iter().flat_map(|snapshot| &snapshot.virtual_services);
        Self {
            snapshot,
            pools: pools.map(|pool| (pool.name(), pool)).collect(),
            virtual_services: virtual_services.map(|vs| (vs.name(), vs)).collect(),
        }
    }

    /// The pool that was, where nothing about it changed; else a new one that knows what it knew.
    fn pool(&self, config: &Arc<config::Pool>, parts: &Parts) -> Arc<Pool> {
        self.pool_counted_by(config, &parts.metrics, parts)
    }

    /// The same of a pool that is only probed.
    fn probe_pool(&self, config: &Arc<config::Pool>, parts: &Parts) -> Arc<Pool> {
        self.pool_counted_by(config, &parts.unseen, parts)
    }

    fn pool_counted_by(&self, config: &Arc<config::Pool>, metrics: &Metrics, parts: &Parts) -> Arc<Pool> {
        match self.pools.get(&config.name) {
            Some(&same) if **same.config() == **config => same.clone(),
            changed => Pool::new(config, metrics, changed.map(|pool| &***pool), parts.clock.wall()),
        }
    }

    /// What a virtual service was in its GSLB service.
    fn membership(&self, vs: &VsName) -> Option<&'a Membership> {
        Some(&self.virtual_services.get(vs)?.site.as_ref()?.membership)
    }

    /// The services that were, where all configured pools are those that were.
    fn services(&self, pools: &[Arc<Pool>]) -> Option<Arc<Services>> {
        let before = self.snapshot?;
        let configured = &before.pools[..before.config.pools.len()];
        let same = |(a, b): (&Arc<Pool>, &Arc<Pool>)| Arc::ptr_eq(a, b);
        (configured.len() == pools.len() && configured.iter().zip(pools).all(same))
            .then(|| before.services.clone())
    }

    /// The mark keys that were, where they come of the same secrets.
    fn marks(&self, config: &Config) -> Option<Arc<MarkKeys>> {
        let before = self.snapshot?;
        (before.config.clone_mark_secrets() == config.clone_mark_secrets()).then(|| before.marks.clone())
    }

    /// The virtual service that was, where nothing that it or its rules could see changed.
    fn virtual_service(
        &self,
        vs: &config::VirtualService,
        config: &Config,
        services: &Arc<Services>,
        marks: &Arc<MarkKeys>,
    ) -> Option<&'a Arc<VirtualService>> {
        let before = self.snapshot?;
        let same_site = before.config.site == config.site && before.config.gslb == config.gslb;
        let same = self.virtual_services.get(&vs.name)?;
        (same_site
            && *same.config == *vs
            && Arc::ptr_eq(&same.services, services)
            && Arc::ptr_eq(&same.marks, marks))
        .then_some(*same)
    }
}

fn site_setup(
    vs: &config::VirtualService,
    config: &Config,
    parts: &Parts,
    before: &Before<'_>,
) -> Result<Option<SiteSetup>, BuildError> {
    let Some(gslb) = &config.gslb else { return Ok(None) };
    let pool = config.pools.iter().find(|pool| vs.pool.as_ref() == Some(&pool.name));
    let servers: Vec<_> = pool.iter().flat_map(|pool| &pool.servers).map(|server| server.addr).collect();
    let membership = Membership::of(vs, &servers, &config.site, gslb, parts.clock.unix_seconds())
        .map_err(|error| BuildError::Site { vs: vs.name.clone(), reason: error.to_string() })?;
    Ok(membership.map(|membership| {
        let membership = match before.membership(&vs.name) {
            Some(before) => membership.following(before),
            None => membership,
        };
        let SpPool { uuid, pool } = SpPool::of(vs, &membership, gslb);
        let sp_pool = before.pool(&pool, parts);
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

#[cfg(test)]
mod tests;
