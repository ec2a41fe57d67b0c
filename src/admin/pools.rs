//! Pools and their servers, as the admin API shows them: the configured ones, and the SP pools that homing makes.

use std::sync::Arc;

use super::view::{self, OperState, OperStatus};
use crate::{
    config, gslb,
    pool::{Change, Pool, Server, State},
    rule::SiteSetup,
    snapshot::{Live, Snapshot},
};

/// The SP pools, then the configured ones.
pub(super) fn pools(live: &Live) -> Vec<view::Pool> {
    let snapshot = live.snapshot();
    let sites = snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref());
    let configured = snapshot.pools.iter().filter(|pool| site_of(pool, &snapshot).is_none());
    sites.map(|site| pool(&site.sp_pool, Some(site))).chain(configured.map(|own| pool(own, None))).collect()
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
        app_persistence: config.persistence.as_ref().map(|profile| view::AppPersistence {
            application_persistence_profile_ref: profile.name.clone(),
            persistence_type: profile.by.as_str().to_owned(),
            server_hm_down_recovery: profile.recovery.as_str().to_owned(),
            timeout: profile.by.timeout(),
            session_table: profile.table(pool.name()),
        }),
        site_persistence: site.map(|site| view::SpPool {
            gslb_sp_enabled: true,
            default_server_port: pool.servers().first().map(|server| server.addr().port()),
            application_persistence_profile_ref: site.membership.profile.name.clone(),
            graceful_disable_timeout: site.membership.service.graceful_disable_timeout,
            connection_ramp_duration: config.lifecycle.ramp,
            request_queue_enabled: config.lifecycle.queue.is_some(),
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
        priority: Some(config.priority)
            .filter(|priority| *priority != config::Server::at(config.addr).priority),
        oper_status: server_status(server),
        inflight: server.inflight(),
        changes: server.past().into_iter().map(change).collect(),
        ramp_percent: server.ramp().map(|thousandths| thousandths / 10),
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
