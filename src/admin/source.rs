//! The live state, seen through the views of the admin API.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    ChoiceQuestion, Peer, ServerError, SessionError, Source, choice, explain::explain, gslb_services, pools,
    servers, sessions, sessions::Wanted, sites, view, virtual_services,
};
use crate::{pool::AdminState, site_cookie::KeyConcern, snapshot::Live};

/// What the admin API shows of a running instance.
pub struct LiveSource<C> {
    live: Arc<Live>,
    control: Arc<C>,
    /// Every pool has been checked once. A pool that a reload adds is not waited for: the node has served without
    /// it, and its servers count as up until their first result.
    checked: AtomicBool,
}

/// What the admin API asks of the instance that it is part of.
pub trait Control: Send + Sync + 'static {
    /// What is missing before it may get traffic, beside health results, each as a sentence.
    fn missing(&self) -> Vec<String>;

    /// Which configuration is in force.
    fn configuration(&self) -> view::Configuration;

    /// Loads the configuration again.
    fn reload(self: &Arc<Self>) -> impl Future<Output = view::Reload> + Send;
}

impl<C: Control> LiveSource<C> {
    pub fn new(live: Arc<Live>, control: Arc<C>) -> Self {
        Self { live, control, checked: AtomicBool::new(false) }
    }
}

impl<C: Control> Source for LiveSource<C> {
    fn metrics(&self) -> String {
        let snapshot = self.live.snapshot();
        let metrics = &self.live.metrics;
        for (pool, server) in
            snapshot.pools.iter().flat_map(|pool| pool.servers().iter().map(move |server| (pool, server)))
        {
            let labels = &[pool.name().as_str(), server.name()];
            metrics.pool_server_up.with_label_values(labels).set(server.is_up().into());
            let inflight = server.inflight().try_into().unwrap_or(i64::MAX);
            metrics.pool_server_inflight.with_label_values(labels).set(inflight);
            let (open, idle) = (server.connected().open(), server.connected().idle());
            for (state, count) in [("busy", open.saturating_sub(idle)), ("idle", idle)] {
                let labels = &[pool.name().as_str(), server.name(), state];
                let count = count.try_into().unwrap_or(i64::MAX);
                metrics.pool_server_connections.with_label_values(labels).set(count);
            }
            metrics.pool_server_admin_state.with_label_values(labels).set(match server.admin_state() {
                _ if !server.is_enabled_in_configuration() => 2,
                AdminState::Enabled => 0,
                AdminState::Draining => 1,
                AdminState::Disabled => 2,
            });
        }
        for pool in snapshot.pools.iter().filter(|pool| pool.config().lifecycle.queue.is_some()) {
            let length = metrics.queues.length.with_label_values(&[pool.name().as_str()]);
            length.set(pool.queue_length().try_into().unwrap_or(i64::MAX));
        }
        for site in snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref()) {
            let pool = &site.sp_pool;
            let up = pool.up_count();
            for (state, count) in [("up", up), ("down", pool.servers().len() - up)] {
                self.live
                    .metrics
                    .sp_pool_servers
                    .with_label_values(&[pool.name().as_str(), state])
                    .set(count as i64);
            }
        }
        choice::set_gauges(&self.live);
        self.live.metrics.page()
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = self.control.missing();
        if !self.checked.load(Relaxed) {
            let snapshot = self.live.snapshot();
            let before = missing.len();
            let unchecked = snapshot.unchecked_pools();
            missing.extend(unchecked.map(|pool| format!("pool {pool} has no health result yet")));
            self.checked.store(missing.len() == before, Relaxed);
        }
        missing
    }

    fn configuration(&self) -> view::Configuration {
        self.control.configuration()
    }

    async fn reload(&self) -> view::Reload {
        self.control.reload().await
    }

    fn virtual_services(&self) -> Vec<view::VirtualService> {
        virtual_services::virtual_services(&self.live)
    }

    fn pools(&self) -> Vec<view::Pool> {
        pools::pools(&self.live)
    }

    fn gslb_services(&self) -> Vec<view::GslbRuntime> {
        gslb_services::gslb_services(&self.live)
    }

    fn gslb_service_configs(&self) -> Vec<view::GslbServiceConfig> {
        choice::configured(&self.live)
    }

    fn explain_choice(&self, question: &ChoiceQuestion) -> Option<view::ChoiceExplanation> {
        choice::explain(&self.live, question)
    }

    fn resume_members(&self, service: &str, member: Option<&str>, by: &str) -> Option<view::Resumed> {
        choice::resume(&self.live, service, member, by)
    }

    fn site_health(&self) -> view::SiteHealth {
        choice::site_health(&self.live)
    }

    fn sites(&self) -> Vec<view::Site> {
        sites::sites(&self.live)
    }

    fn drain(&self, site: &str, how_long: Duration) -> Option<view::Site> {
        sites::drain(&self.live, site, how_long)
    }

    fn undrain(&self, site: &str) -> Option<view::Site> {
        sites::undrain(&self.live, site)
    }

    fn site_name(&self) -> String {
        self.live.snapshot().config.site.name.to_string()
    }

    fn peers(&self, service: &str) -> Vec<Peer> {
        let snapshot = self.live.snapshot();
        let Some(gslb) = &snapshot.config.gslb else { return Vec::new() };
        let services = gslb.services.iter().filter(|known| known.name.as_str() == service);
        let members: Vec<_> =
            services.flat_map(|service| &service.groups).flat_map(|group| &group.members).collect();
        let own = snapshot.config.site.cluster_uuid.as_ref();
        let others = gslb.sites.iter().filter(|site| Some(&site.cluster_uuid) != own);
        let with_member =
            others.filter(|site| members.iter().any(|member| member.cluster_uuid == site.cluster_uuid));
        with_member
            .map(|site| Peer {
                site_name: site.name.to_string(),
                cluster_uuid: site.cluster_uuid.to_string(),
                admin: site.admin.clone(),
            })
            .collect()
    }

    fn explain(&self, vs: &str, cookie: &str) -> Option<view::Explanation> {
        explain(&self.live, vs, cookie)
    }

    fn site_cookie_keys(&self) -> Vec<view::SiteCookieKey> {
        let snapshot = self.live.snapshot();
        let now = self.live.clock.wall();
        let keys = snapshot.config.gslb.iter().flat_map(|gslb| gslb.site_cookie_keys());
        keys.map(|(profile, key)| {
            let key_id = key.kid();
            let seals = self.live.metrics.site_cookie_seals.with_label_values(&[&key_id]).get();
            let concerns = KeyConcern::ALL.into_iter().filter(|concern| key.causes(*concern, seals, now));
            view::SiteCookieKey {
                uuid: key.uuid.clone(),
                application_persistence_profile_ref: profile.name.clone(),
                state: key.state.as_str().to_owned(),
                age_seconds: key.age(now).map(|age| age.as_secs()),
                concerns: concerns.map(|concern| concern.as_str().to_owned()).collect(),
                seals,
                key_id,
            }
        })
        .collect()
    }

    fn session_tables(&self) -> Vec<view::SessionTable> {
        let tables = self.live.sessions.tables();
        tables.into_iter().map(|(name, entries)| view::SessionTable { name, entries }).collect()
    }

    fn session_entries(&self, table: &str, key: Option<&str>) -> Vec<view::SessionEntry> {
        let now = self.live.clock.now();
        let wall = self.live.clock.wall();
        let entries = self.live.sessions.view(Some(table), key, view::Sessions::MOST + 1, now);
        entries.into_iter().map(|entry| sessions::entry(entry, wall)).collect()
    }

    fn explain_sessions(&self, wanted: &Wanted) -> Result<Vec<view::Explained>, SessionError> {
        sessions::explain(&self.live, wanted)
    }

    fn move_session(
        &self,
        wanted: &Wanted,
        server: SocketAddr,
        force: bool,
        by: &str,
    ) -> Result<view::Explained, SessionError> {
        sessions::move_to(&self.live, wanted, server, force, by)
    }

    fn delete_session(&self, wanted: &Wanted, by: &str) -> Result<view::Explained, SessionError> {
        sessions::delete(&self.live, wanted, by)
    }

    fn order_server(
        &self,
        pool: &str,
        server: &str,
        state: AdminState,
        by: &str,
    ) -> Result<view::Server, ServerError> {
        servers::order(&self.live, pool, server, state, by)
    }
}
