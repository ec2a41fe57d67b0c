//! Pools and their servers, as the admin API shows them: the configured ones, and the SP pools that homing makes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    pool_settings::{monitor, persistence, settings},
    view::{self, OperState, OperStatus, Span},
};
use crate::{
    config, gslb,
    pool::{Change, Pool, Server, State},
    rule::SiteSetup,
    snapshot::{Live, Snapshot},
};

/// The SP pools, then the configured ones.
pub(super) fn pools(live: &Live) -> Vec<view::Pool> {
    let snapshot = live.snapshot();
    let sessions = live.sessions.tables().into_iter().collect();
    let shown = |pool, site| Shown { pool, site, live, sessions: &sessions }.view();
    let sites = snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref());
    let configured = snapshot.pools.iter().filter(|pool| site_of(pool, &snapshot).is_none());
    sites.map(|site| shown(&site.sp_pool, Some(site))).chain(configured.map(|own| shown(own, None))).collect()
}

fn site_of<'a>(pool: &Arc<Pool>, snapshot: &'a Snapshot) -> Option<&'a SiteSetup> {
    let sites = snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref());
    sites.into_iter().find(|site| Arc::ptr_eq(&site.sp_pool, pool))
}

/// A pool that is to be shown.
struct Shown<'a> {
    pool: &'a Arc<Pool>,
    site: Option<&'a SiteSetup>,
    live: &'a Live,
    /// How many each session table has.
    sessions: &'a HashMap<String, u64>,
}

impl Shown<'_> {
    fn view(&self) -> view::Pool {
        let (pool, site, config) = (self.pool, self.site, self.pool.config());
        view::Pool {
            uuid: site.map(|site| site.sp_pool_uuid.to_string()),
            name: pool.name().to_string(),
            lb_algorithm: config.algorithm.as_str().to_owned(),
            enabled: config.enabled,
            health_monitor_refs: monitor_names(&config.monitors),
            servers: pool.servers().iter().map(|own| server(pool, own, site)).collect(),
            num_servers: pool.servers().len() as u32,
            num_servers_up: pool.up_count() as u32,
            oper_status: pool_status(pool),
            runtime: self.runtime(),
            resolve_server_by_dns: self.named_servers(),
            app_persistence: config.persistence.as_ref().map(|profile| persistence(profile, pool.name())),
            site_persistence: site.map(|site| view::SpPool {
                gslb_sp_enabled: true,
                default_server_port: pool.servers().first().map(|server| server.addr().port()),
                application_persistence_profile_ref: site.membership.profile.name.clone(),
                description: gslb::DESCRIPTION.to_owned(),
            }),
            settings: self.settings(),
            health_monitors: config.monitors.iter().map(monitor).collect(),
        }
    }

    fn settings(&self) -> view::PoolSettings {
        let settings = settings(self.pool.config());
        match self.site {
            None => settings,
            // Its servers are homes: they part and are judged as the GSLB service says.
            Some(site) => view::PoolSettings {
                graceful_disable_timeout: site.membership.service.graceful_disable_timeout.into(),
                inline_health_monitor: view::InlineMonitor::Is(true),
                ..settings
            },
        }
    }

    fn runtime(&self) -> view::PoolRuntime {
        let (pool, config) = (self.pool, self.pool.config());
        let queue = config.lifecycle.queue.as_ref();
        let retries = config.retries.budget.map(|_| pool.retries_under_way());
        let table = config.persistence.as_ref().and_then(|profile| profile.table(pool.name()));
        let ejected = || pool.servers().iter().filter(|server| server.ejection().is_some()).count() as u32;
        view::PoolRuntime {
            inflight: pool.inflight(),
            request_queue_length: queue.map(|_| pool.queue_length() as u64),
            retries,
            max_retries_now: pool.retry_room(),
            priority: pool.priority_in_use(),
            num_servers_ejected: config.inline.as_ref().map(|_| ejected()),
            persistent_sessions: table.map(|name| self.sessions.get(&name).copied().unwrap_or(0)),
        }
    }

    fn named_servers(&self) -> Vec<view::NamedServer> {
        let named = self.pool.config().named_servers.iter();
        let known = named.filter_map(|server| Some((server.hostname.clone()?, server.addr.port())));
        let shown = known.map(|(hostname, port)| view::NamedServer {
            num_servers: self.live.server_names.count(&hostname) as u32,
            hostname,
            port,
        });
        shown.collect()
    }
}

pub(super) fn server(pool: &Pool, server: &Server, site: Option<&SiteSetup>) -> view::Server {
    let config = server.config();
    let peer = site.and_then(|site| site.membership.peers.iter().find(|peer| peer.addr == server.addr()));
    let counts = pool.config().inline.is_some();
    view::Server {
        ip: server.addr().ip(),
        port: server.addr().port(),
        // Avi shows the address of a virtual service in this place, too.
        hostname: config.hostname.clone().or_else(|| peer.map(|peer| peer.addr.ip().to_string())),
        enabled: config.enabled,
        ratio: config.ratio,
        ratio_now: server.ramp().map(|_| server.weight() as f64 / 1000.0),
        priority: Some(config.priority)
            .filter(|priority| *priority != config::Server::at(config.addr).priority),
        oper_status: server_status(server),
        inflight: server.inflight(),
        connections: server.connected().open(),
        idle_connections: server.connected().idle(),
        max_inflight: server.room(),
        ramp_percent: server.ramp().map(|thousandths| thousandths / 10),
        ejection: server.ejection().map(|ejection| view::Ejection {
            reason: ejection.reason,
            time: ejection.time.into(),
            until: ejection.ends.into(),
            times: ejection.times,
        }),
        consecutive_failures: counts.then(|| server.failures_in_a_row()),
        response_time: pool.response_time(server).map(|time| Span(in_microseconds(time))),
        changes: server.past().into_iter().map(change).collect(),
        admin_state: server.last_order().map(|order| view::AdminState {
            state: order.state.to_string(),
            by: order.by,
            since: order.at.into(),
        }),
        prst_hdr_val: peer.map(|peer| peer.id.to_string()),
        description: peer.map(|_| gslb::SERVER_DESCRIPTION.to_owned()),
    }
}

/// Without what is too fine for anybody.
fn in_microseconds(time: Duration) -> Duration {
    Duration::from_micros(time.as_micros() as u64)
}

pub(super) fn server_status(server: &Server) -> OperStatus {
    let status = server.status();
    OperStatus {
        state: oper_state(status.state),
        reason: Some(status.reason),
        last_changed_time: Some(status.last_changed.into()),
    }
}

fn oper_state(state: State) -> OperState {
    match state {
        State::Up => OperState::OperUp,
        State::Down => OperState::OperDown,
        State::Disabled => OperState::OperDisabled,
    }
}

fn change(change: Change) -> view::ServerChange {
    view::ServerChange { state: oper_state(change.state), reason: change.reason, time: change.at.into() }
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

pub(super) fn monitor_names(monitors: &[Arc<config::HealthMonitor>]) -> Vec<String> {
    monitors.iter().map(|monitor| monitor.name.to_string()).collect()
}
