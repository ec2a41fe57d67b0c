//! A virtual service, at work: its rules, its pool, its part in site persistence, the lanes of its copies.

use std::{collections::HashMap, sync::Arc, time::Instant};

use openssl::error::ErrorStack;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{BuildError, places::Places, request_rates::RequestLimiter};
use crate::{
    access_log::Analytics,
    clone::{ClonePool, MarkKeys},
    config::{self, CloneSection, OnError},
    filter,
    listen::ClientCaps,
    metrics::{Answered, Metrics, RequestMetrics},
    names::{PoolName, VsName},
    pool::Pool,
    rule::{Chain, ChainEntry, Registry, Services, Setup, SiteSetup},
};

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
    /// Its client connections, against what it may have.
    pub places: Arc<Places>,
    /// What one client may have, where that is limited.
    pub client_caps: Option<Arc<ClientCaps>>,
    /// How often requests may come; empty: as often as they like.
    pub request_limiters: Vec<Arc<RequestLimiter>>,
    /// Which of its requests the access log has.
    pub analytics: Arc<Analytics>,
    /// Of the sections, then of rules' orders for other pools.
    lanes: Mutex<Vec<Lanes>>,
    /// Tells copies that come back from what clients mark as such.
    pub marks: Arc<MarkKeys>,
    pub metrics: Metrics,
}

impl VirtualService {
    pub fn name(&self) -> &VsName {
        &self.config.name
    }

    /// The lanes to a pool: those of the section that names it, else lanes with default settings, for a rule
    /// that orders copies to it. `None`: there is no such pool.
    pub fn clone_pool(&self, pool: &PoolName) -> Option<Arc<ClonePool>> {
        let mut all = self.lanes.lock();
        if let Some(lanes) = all.iter().find(|lanes| lanes.section.pool == *pool) {
            return Some(lanes.pool.clone());
        }
        let members = self.services.pools().named(pool.as_str()).ok()?;
        let section = CloneSection::of(pool.clone());
        let lanes = Lanes::new(&section, members.config(), self.name(), &self.marks, &self.metrics);
        let lanes = lanes
            .inspect_err(
                |error| tracing::error!(%pool, %error, "no copies: openssl refuses the pool's TLS settings"),
            )
            .ok()?;
        let clone_pool = lanes.pool.clone();
        all.push(lanes);
        Some(clone_pool)
    }

    /// The cookies that are homing's own: of the site, and of the app's server.
    pub fn own_cookies(&self) -> [Option<&str>; 2] {
        let profile = self.pool.as_ref().and_then(|pool| pool.config().persistence.as_deref());
        let site = self.site.as_ref().map(|site| site.membership.cookie_name());
        [site, profile.and_then(|profile| profile.cookie_name())]
    }

    /// Tells the log of copies that were lost; call it now and then.
    pub fn log_clone_losses(&self, now: Instant) {
        let all = self.lanes.lock().clone();
        all.iter().for_each(|lanes| lanes.pool.log_losses(now));
    }

    /// Counts a request that ended; `None`: no pool was chosen.
    pub fn count(&self, pool: Option<&PoolName>, request: &Answered) {
        match (pool, &self.pool) {
            (Some(pool), Some(own)) if pool == own.name() => self.requests.count(request),
            (pool, _) => {
                let pool = pool.map_or("-", PoolName::as_str);
                let mut elsewhere = self.elsewhere.lock();
                let requests = elsewhere.entry(pool.into()).or_insert_with(|| {
                    Arc::new(RequestMetrics::new(&self.metrics, self.name().as_str(), pool))
                });
                let requests = requests.clone();
                drop(elsewhere);
                requests.count(request);
            }
        }
    }
}

/// The lanes of one clone section, with what they were made from. A virtual service that is built anew takes over
/// those of which nothing changed, with all that is queued; the others end when their last copy is answered.
#[derive(Clone)]
struct Lanes {
    section: CloneSection,
    members: Arc<config::Pool>,
    pool: Arc<ClonePool>,
    /// Ends idle lanes when no virtual service has them any more.
    _retire: Arc<DropGuard>,
}

impl Lanes {
    fn new(
        section: &CloneSection,
        members: &Arc<config::Pool>,
        vs: &VsName,
        marks: &MarkKeys,
        metrics: &Metrics,
    ) -> Result<Self, ErrorStack> {
        let retired = CancellationToken::new();
        let pool = ClonePool::new(section, members, vs, marks, metrics, retired.clone())?;
        let _retire = Arc::new(retired.drop_guard());
        Ok(Self { section: section.clone(), members: members.clone(), pool, _retire })
    }
}

/// Puts one virtual service to work.
pub(super) struct Builder<'a> {
    pub vs: &'a Arc<config::VirtualService>,
    pub site: Option<SiteSetup>,
    pub services: &'a Arc<Services>,
    pub marks: &'a Arc<MarkKeys>,
    pub metrics: &'a Metrics,
    pub now: Instant,
    /// The virtual service of that name before a reload.
    pub previous: Option<&'a VirtualService>,
}

impl Builder<'_> {
    pub fn build(self, registry: &Registry) -> Result<VirtualService, BuildError> {
        let name = self.vs.name.as_str();
        let pool = self.vs.pool.as_ref().map(|pool| self.pool(pool));
        let own = pool.as_ref().map_or("-", |pool| pool.name().as_str());
        Ok(VirtualService {
            requests: RequestMetrics::new(self.metrics, name, own),
            elsewhere: Mutex::default(),
            connections_open: self.metrics.connections_open.with_label_values(&[name]),
            places: self.previous.map(|previous| previous.places.clone()).unwrap_or_default(),
            client_caps: self.client_caps(),
            request_limiters: self.request_limiters(),
            analytics: self.analytics(),
            lanes: Mutex::new(self.lanes()?),
            chain: self.chain(registry)?,
            pool,
            config: self.vs.clone(),
            services: self.services.clone(),
            site: self.site,
            marks: self.marks.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// What knows who is connected goes on to know it.
    fn client_caps(&self) -> Option<Arc<ClientCaps>> {
        let limits = self.vs.client_limits;
        let known = self.previous.and_then(|previous| previous.client_caps.as_ref());
        if limits.is_unlimited() {
            return None;
        }
        let same = known.filter(|known| known.limits() == limits).cloned();
        let connected = known.map(|known| known.connected()).unwrap_or_default();
        let new = || Arc::new(ClientCaps::new(limits, connected, rand::random(), self.now));
        Some(same.unwrap_or_else(new))
    }

    fn request_limiters(&self) -> Vec<Arc<RequestLimiter>> {
        let previous = self.previous.map(|previous| &*previous.request_limiters).unwrap_or_default();
        RequestLimiter::all(&self.vs.request_rates, previous, self.now)
    }

    /// The one that was, where nothing about it changed, with its time and its counts.
    fn analytics(&self) -> Arc<Analytics> {
        let policy = &self.vs.analytics;
        let known =
            self.previous.map(|previous| &previous.analytics).filter(|known| known.policy() == policy);
        known.cloned().unwrap_or_else(|| Arc::new(Analytics::new(policy, self.now)))
    }

    /// The lanes of each section, and those that rules' orders opened before.
    fn lanes(&self) -> Result<Vec<Lanes>, BuildError> {
        let kept = self.previous.filter(|previous| Arc::ptr_eq(&previous.marks, self.marks));
        let mut kept = kept.map(|previous| previous.lanes.lock().clone()).unwrap_or_default();
        kept.retain(|lanes| {
            let members = self.services.pools().named(lanes.section.pool.as_str());
            members.is_ok_and(|members| **members.config() == *lanes.members)
        });
        let mut lanes = Vec::new();
        for section in &self.vs.clones {
            let known = kept.iter().find(|lanes| lanes.section == *section).cloned();
            let new = || {
                let members = self.pool(&section.pool);
                Lanes::new(section, members.config(), &self.vs.name, self.marks, self.metrics)
            };
            lanes.push(known.map_or_else(new, Ok).map_err(|source| BuildError::CloneTls {
                vs: self.vs.name.clone(),
                pool: section.pool.clone(),
                source,
            })?);
        }
        let by_order = |lanes: &Lanes| lanes.section == CloneSection::of(lanes.section.pool.clone());
        let unnamed = |lanes: &Lanes| self.vs.clones.iter().all(|section| section.pool != lanes.section.pool);
        lanes.extend(kept.into_iter().filter(|lanes| by_order(lanes) && unnamed(lanes)));
        Ok(lanes)
    }

    fn pool(&self, name: &PoolName) -> Arc<Pool> {
        self.services.pools().named(name.as_str()).expect("a checked configuration names known pools").clone()
    }

    /// Site persistence decides first, app persistence and clone pools last, so that users' rules see who the client
    /// is and may still choose the pool and what is copied.
    fn chain(&self, registry: &Registry) -> Result<Chain, BuildError> {
        let null = serde_yaml::Value::Null;
        let setup = |config| Setup {
            config,
            virtual_service: self.vs,
            services: self.services,
            metrics: self.metrics,
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
        if let Some(rule) = filter::HttpRules::for_virtual_service(&setup(&null)) {
            add("http_rules", OnError::FailClosed, rule);
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
        if let Some(rule) = filter::AppPersistence::for_virtual_service(&setup(&null)) {
            add("app_persistence", OnError::FailOpen, rule);
        }
        if let Some(rule) = filter::ErrorPages::for_virtual_service(&setup(&null)) {
            add("error_pages", OnError::FailOpen, rule);
        }
        for rule in filter::ClonePools::for_virtual_service(&setup(&null)) {
            add("clone_pool", OnError::FailOpen, rule);
        }
        Ok(Chain::new(entries, self.metrics))
    }
}
