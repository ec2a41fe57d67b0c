//! The live state, seen through the views of the admin API.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Peer, ServerError, SessionError, Source,
    explain::explain,
    servers, sessions,
    sessions::Wanted,
    sites,
    view::{self, OperState, OperStatus},
};
use crate::{
    config,
    gslb::{self, MemberId, Outcome},
    names::ClusterUuid,
    pool::{AdminState, Pool, Server, State},
    rule::SiteSetup,
    site_cookie::KeyConcern,
    snapshot::{Live, Snapshot, VirtualService},
};

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
        let up = &self.live.metrics.pool_server_up;
        for (pool, server) in
            snapshot.pools.iter().flat_map(|pool| pool.servers().iter().map(move |server| (pool, server)))
        {
            up.with_label_values(&[pool.name().as_str(), server.name()]).set(server.is_up().into());
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
        let snapshot = self.live.snapshot();
        snapshot.config.virtual_services.iter().map(|config| virtual_service(config, &snapshot)).collect()
    }

    fn pools(&self) -> Vec<view::Pool> {
        let snapshot = self.live.snapshot();
        let sites = snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref());
        let configured = snapshot.pools.iter().filter(|pool| site_of(pool, &snapshot).is_none());
        sites
            .map(|site| pool(&site.sp_pool, Some(site)))
            .chain(configured.map(|own| pool(own, None)))
            .collect()
    }

    fn gslb_services(&self) -> Vec<view::GslbRuntime> {
        let snapshot = self.live.snapshot();
        let Some(gslb) = &snapshot.config.gslb else { return Vec::new() };
        gslb.services.iter().map(|service| self.gslb_service(service, gslb, &snapshot)).collect()
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

impl<C> LiveSource<C> {
    fn gslb_service(
        &self,
        service: &config::GslbService,
        gslb: &config::Gslb,
        snapshot: &Snapshot,
    ) -> view::GslbRuntime {
        let own: Vec<&Arc<VirtualService>> = snapshot
            .virtual_services
            .iter()
            .filter(|vs| vs.site.as_ref().is_some_and(|site| site.membership.service.uuid == service.uuid))
            .collect();
        let mut requests = BTreeMap::new();
        for vs in &own {
            for outcome in Outcome::ALL {
                let labels = [service.name.as_str(), vs.name().as_str(), outcome.as_str()];
                let count = self.live.metrics.sp_requests.with_label_values(&labels).get();
                *requests.entry(outcome.as_str().to_owned()).or_default() += count;
            }
        }
        view::GslbRuntime {
            uuid: service.uuid.to_string(),
            name: service.name.to_string(),
            configured: Some(view::GslbConfigured {
                domain_names: service.domain_names.clone(),
                enabled: service.enabled,
                site_persistence_enabled: service.site_persistence.is_some(),
                application_persistence_profile_ref: service
                    .site_persistence
                    .as_ref()
                    .map(|p| p.name.clone()),
                health_monitor_refs: monitor_names(&service.monitors),
                ttl: service.ttl,
            }),
            groups: service
                .groups
                .iter()
                .map(|group| gslb_group(group, gslb, snapshot, &own, self.live.clock.unix_seconds()))
                .collect(),
            checksum: Some(gslb.checksum.clone()),
            services_state: None,
            sp_oper_status: sp_oper_status(&own),
            fraction_proxied: view::GslbRuntime::fraction_proxied(&requests),
            requests,
            advice: None,
            sites: Vec::new(),
        }
    }
}

fn virtual_service(config: &config::VirtualService, snapshot: &Snapshot) -> view::VirtualService {
    let live = snapshot.virtual_services.iter().find(|vs| vs.name() == &config.name);
    let oper_status = match live {
        None => OperStatus::new(OperState::OperDisabled),
        Some(vs) => vs.pool.as_ref().map_or_else(|| OperStatus::new(OperState::OperUp), pool_status),
    };
    view::VirtualService {
        uuid: config.uuid.as_ref().map(|uuid| uuid.to_string()),
        name: config.name.to_string(),
        enabled: config.enabled,
        domain_names: config.domain_names.clone(),
        services: config
            .services
            .iter()
            .map(|service| view::Service {
                address: Some(service.addr.ip()),
                port: service.addr.port(),
                enable_ssl: service.tls.is_some(),
            })
            .collect(),
        pool_ref: config.pool.as_ref().map(|pool| pool.to_string()),
        application_profile_ref: config.profile.name.clone(),
        http_rules: config.http_rules.iter().map(http_rule).collect(),
        clone: config
            .clones
            .iter()
            .map(|section| view::CloneSection {
                pool_ref: section.pool.to_string(),
                tokens: section.tokens.iter().map(|token| token.to_string()).collect(),
                timeout: section.timeout,
                clone_selection: section.selection.as_str().to_owned(),
            })
            .collect(),
        rule_refs: config.rules.iter().map(|rule| rule.name.to_string()).collect(),
        sp_pool_refs: live
            .and_then(|vs| vs.site.as_ref())
            .map(|site| site.sp_pool.name().to_string())
            .into_iter()
            .collect(),
        oper_status,
    }
}

fn http_rule(rule: &config::HttpRule) -> view::HttpRule {
    let config::HttpRule { name, ports, https_port } = rule.clone();
    view::HttpRule { name, vs_port: ports, redirect_port: https_port }
}

fn site_of<'a>(pool: &Arc<Pool>, snapshot: &'a Snapshot) -> Option<&'a SiteSetup> {
    let sites = snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref());
    sites.into_iter().find(|site| Arc::ptr_eq(&site.sp_pool, pool))
}

fn pool(pool: &Arc<Pool>, site: Option<&SiteSetup>) -> view::Pool {
    let config = pool.config();
    view::Pool {
        uuid: site.map(|site| site.sp_pool_uuid.to_string()),
        name: pool.name().to_string(),
        lb_algorithm: config.algorithm.as_str().to_owned(),
        enabled: config.enabled,
        health_monitor_refs: monitor_names(&config.monitors),
        servers: pool.servers().iter().map(|own| server(own, site)).collect(),
        num_servers: pool.servers().len() as u32,
        num_servers_up: pool.up_count() as u32,
        oper_status: pool_status(pool),
        site_persistence: site.map(|site| view::SpPool {
            gslb_sp_enabled: true,
            default_server_port: pool.servers().first().map(|server| server.addr().port()),
            application_persistence_profile_ref: site.membership.profile.name.clone(),
            graceful_disable_timeout: gslb::GRACEFUL_DISABLE_TIMEOUT,
            connection_ramp_duration: gslb::CONNECTION_RAMP_DURATION,
            request_queue_enabled: false,
            request_queue_depth: gslb::REQUEST_QUEUE_DEPTH,
            inline_health_monitor: true,
            sni_enabled: true,
            description: gslb::DESCRIPTION.to_owned(),
        }),
    }
}

pub(super) fn server(server: &Server, site: Option<&SiteSetup>) -> view::Server {
    let config = server.config();
    let peer = site.and_then(|site| site.membership.peers.iter().find(|peer| peer.addr == server.addr()));
    view::Server {
        ip: server.addr().ip(),
        port: server.addr().port(),
        // Avi shows the address of a virtual service in this place, too.
        hostname: config.hostname.clone().or_else(|| peer.map(|peer| peer.addr.ip().to_string())),
        enabled: config.enabled,
        ratio: config.ratio,
        oper_status: server_status(server),
        inflight: server.inflight(),
        admin_state: server.last_order().map(|order| view::AdminState {
            state: order.state.to_string(),
            by: order.by,
            since: order.at.into(),
        }),
        prst_hdr_val: peer.map(|peer| peer.id.to_string()),
        description: peer.map(|_| gslb::SERVER_DESCRIPTION.to_owned()),
    }
}

pub(super) fn server_status(server: &Server) -> OperStatus {
    let status = server.status();
    OperStatus {
        state: match status.state {
            State::Up => OperState::OperUp,
            State::Down => OperState::OperDown,
            State::Disabled => OperState::OperDisabled,
        },
        reason: Some(status.reason),
        last_changed_time: Some(status.last_changed.into()),
    }
}

/// A pool is up while one server is that takes what is new; its last change is the latest of its servers'.
pub(super) fn pool_status(pool: &Arc<Pool>) -> OperStatus {
    let last_changed = pool.servers().iter().map(|server| server.status().last_changed).max();
    let (state, reason) = match (pool.config().enabled, pool.up_count()) {
        (false, _) => (OperState::OperDisabled, Some("the pool is disabled")),
        (true, 0) => (OperState::OperDown, Some("no server is up")),
        (true, _) if pool.active_servers().next().is_none() => {
            (OperState::OperDown, Some("every server that is up drains"))
        }
        (true, _) => (OperState::OperUp, None),
    };
    OperStatus { state, reason: reason.map(str::to_owned), last_changed_time: last_changed.map(Into::into) }
}

fn gslb_group(
    group: &config::GslbGroup,
    gslb: &config::Gslb,
    snapshot: &Snapshot,
    own: &[&Arc<VirtualService>],
    now: u64,
) -> view::GslbGroup {
    view::GslbGroup {
        name: group.name.clone(),
        priority: Some(group.priority),
        algorithm: Some(group.algorithm.as_str().to_owned()),
        members: group.members.iter().map(|member| gslb_member(member, gslb, snapshot, own, now)).collect(),
    }
}

fn gslb_member(
    member: &config::GslbMember,
    gslb: &config::Gslb,
    snapshot: &Snapshot,
    own: &[&Arc<VirtualService>],
    now: u64,
) -> view::GslbMember {
    let site_name = |uuid: &ClusterUuid| gslb.sites.iter().find(|site| &site.cluster_uuid == uuid);
    let is_own = snapshot.config.site.cluster_uuid.as_ref() == Some(&member.cluster_uuid);
    let vs = own.iter().find(|vs| is_own && vs.config.uuid.as_ref() == Some(&member.vs_uuid));
    let id = MemberId::of(&member.cluster_uuid, &member.vs_uuid);
    // A peer is as up as the SP pool that leads there has found it.
    let peer = own.iter().find_map(|vs| {
        let site = vs.site.as_ref()?;
        site.sp_pool.server(site.membership.peer(&id)?.addr)
    });
    let site = vs.and_then(|vs| vs.site.as_ref());
    let until = site.map(|site| site.membership.own_until(&site.drains)).or_else(|| {
        let site = own.iter().find_map(|vs| vs.site.as_ref())?;
        Some(site.membership.peer_until(site.membership.peer(&id)?, &site.drains))
    });
    let progress = sites::progress(until.flatten(), now);
    view::GslbMember {
        cluster_uuid: member.cluster_uuid.to_string(),
        site_name: site_name(&member.cluster_uuid).map(|site| site.name.to_string()).unwrap_or_default(),
        vs_uuid: member.vs_uuid.to_string(),
        vs_name: vs.map(|vs| vs.name().to_string()),
        ip: member.ip,
        oper_ips: vec![member.ip],
        vip_type: if member.is_third_party() { "NON_AVI_VIP" } else { "AVI_VIP" }.to_owned(),
        services: member
            .services
            .iter()
            .map(|port| view::Service { address: None, port: port.port, enable_ssl: port.enable_ssl })
            .collect(),
        ratio: Some(member.ratio),
        enabled: Some(member.enabled),
        drain_state: progress.map(|(state, _)| state),
        drain_until: progress.map(|(_, until)| until),
        pinned_sessions: site.map(|site| site.census.sessions(now)),
        sp_pools: vs.and_then(|vs| vs.site.as_ref()).map(sp_pool_status).into_iter().collect(),
        controller_status: match (vs, peer) {
            (Some(vs), _) => vs.pool.as_ref().map_or_else(|| OperStatus::new(OperState::OperUp), pool_status),
            (None, Some(peer)) => server(peer, None).oper_status,
            (None, None) => OperStatus::new(OperState::OperUnknown),
        },
    }
}

fn sp_pool_status(site: &SiteSetup) -> view::SpPoolStatus {
    view::SpPoolStatus {
        uuid: site.sp_pool_uuid.to_string(),
        name: site.sp_pool.name().to_string(),
        num_servers: site.sp_pool.servers().len() as u32,
        num_servers_up: site.sp_pool.up_count() as u32,
    }
}

/// Up while every SP pool of this site has a server up.
fn sp_oper_status(own: &[&Arc<VirtualService>]) -> OperStatus {
    let statuses: Vec<OperStatus> =
        own.iter().filter_map(|vs| vs.site.as_ref()).map(|site| pool_status(&site.sp_pool)).collect();
    let last_changed_time = statuses.iter().filter_map(|status| status.last_changed_time).max();
    let (state, reason) = match statuses.iter().all(|status| status.state == OperState::OperUp) {
        _ if statuses.is_empty() => (OperState::OperUnknown, Some("NO_MEMBER_ON_THIS_SITE")),
        true => (OperState::OperUp, None),
        false => (OperState::OperDown, Some("SP_ALL_SERVERS_DOWN")),
    };
    OperStatus { state, reason: reason.map(str::to_owned), last_changed_time }
}

fn monitor_names(monitors: &[Arc<config::HealthMonitor>]) -> Vec<String> {
    monitors.iter().map(|monitor| monitor.name.to_string()).collect()
}
