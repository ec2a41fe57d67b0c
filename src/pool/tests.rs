//! Pools over health, orders and reloads.

use std::time::{Duration, UNIX_EPOCH};

use super::{fixture::*, *};
use crate::config::MonitorType;

/// A reload: `change` is what the new configuration has different.
fn reloaded(pool: &Pool, metrics: &Metrics, change: impl FnOnce(&mut config::Pool)) -> Arc<Pool> {
    let mut config = config::Pool::clone(pool.config());
    change(&mut config);
    Pool::new(&Arc::new(config), metrics, Some(pool), UNIX_EPOCH + Duration::from_secs(9))
}

fn monitored(metrics: &Metrics, ratios: &[u16]) -> Arc<Pool> {
    let mut config = config(LbAlgorithm::RoundRobin, ratios);
    config.monitors.push(monitor(MonitorType::Tcp));
    Pool::new(&Arc::new(config), metrics, None, UNIX_EPOCH)
}

#[test]
fn active_servers_are_enabled_and_up() {
    let mut config = config(LbAlgorithm::RoundRobin, &[1, 1, 1]);
    config.servers[0].enabled = false;
    let pool = build(config);
    pool.servers()[1].set_health(down(), UNIX_EPOCH);
    let active: Vec<_> = pool.active_servers().map(|server| server.name()).collect();
    assert_eq!(active, ["10.0.0.3:80"]);
    assert_eq!(pool.up_count(), 1);
    assert!(pool.server(addr(1)).is_some_and(|server| !server.is_up()));
    assert!(pool.server(addr(4)).is_none());
}

#[test]
fn a_server_that_drains_is_up_and_gets_nothing_new_also_after_a_reload() {
    let metrics = Metrics::new();
    let pool = monitored(&metrics, &[1, 1]);
    let now = UNIX_EPOCH + Duration::from_secs(4);
    pool.servers()[0].order(AdminState::Draining, "uid 0", now);
    for pool in [&pool, &reloaded(&pool, &metrics, |config| config.monitors.clear())] {
        for _ in 0..20 {
            let picked = pool.pick(&mut rand::rng(), &[]).expect("a server");
            assert_eq!(picked.addr(), addr(2));
        }
        let active: Vec<_> = pool.active_servers().map(|server| server.name()).collect();
        assert_eq!((active, pool.up_count()), (vec!["10.0.0.2:80"], 2));
        let order = Order { state: AdminState::Draining, by: "uid 0".into(), at: now };
        assert_eq!(pool.servers()[0].last_order(), Some(order));
    }
    let without = reloaded(&pool, &metrics, |config| drop(config.servers.remove(0)));
    let again =
        reloaded(&without, &metrics, |config| config.servers.push(pool.servers()[0].config().clone()));
    assert!(again.server(addr(1)).is_some_and(|server| server.takes_new()), "it left and came anew");
}

#[test]
fn a_disabled_pool_has_no_server() {
    let mut config = config(LbAlgorithm::RoundRobin, &[1, 1]);
    config.enabled = false;
    let pool = build(config);
    assert!(pool.pick(&mut rand::rng(), &[]).is_none());
    assert_eq!(pool.servers()[0].status().state, State::Disabled);
}

#[test]
fn a_pool_is_checked_when_each_watched_server_has_a_result() {
    let metrics = Metrics::new();
    let pool = monitored(&metrics, &[1, 1, 1]);
    let pool = reloaded(&pool, &metrics, |config| config.servers[2].enabled = false);
    assert!(!pool.checked());
    pool.servers()[0].set_health(Health::Up, UNIX_EPOCH);
    assert!(!pool.checked());
    pool.servers()[1].set_health(down(), UNIX_EPOCH);
    assert!(pool.checked());
    assert!(fixture::pool(LbAlgorithm::Random, &[1]).checked(), "nothing to wait for without monitors");
}

#[tokio::test]
async fn a_change_between_looking_and_awaiting_is_not_missed() {
    let pool = pool(LbAlgorithm::RoundRobin, &[1]);
    let changed = pool.changed();
    assert_eq!(pool.up_count(), 1);
    pool.servers()[0].set_health(down(), UNIX_EPOCH);
    changed.await;
}

#[test]
fn a_reload_keeps_health_and_what_is_in_flight() {
    let metrics = Metrics::new();
    let old = monitored(&metrics, &[1, 1]);
    old.servers()[0].set_health(down(), UNIX_EPOCH + Duration::from_secs(5));
    let lease = old.servers()[0].lease();
    let new = reloaded(&old, &metrics, |config| config.servers[0].ratio = 7);
    let server = &new.servers()[0];
    assert_eq!((server.config().ratio, server.inflight()), (7, 1));
    let status = server.status();
    assert_eq!(status.state, State::Down);
    assert_eq!(status.last_changed, UNIX_EPOCH + Duration::from_secs(5));
    drop(lease);
    assert_eq!(server.inflight(), 0);
    server.set_health(Health::Up, UNIX_EPOCH);
    assert!(old.servers()[0].is_up(), "requests that still hold the old pool see the change");
}

#[test]
fn a_reload_keeps_what_is_known_of_response_times() {
    let metrics = Metrics::new();
    let old = monitored(&metrics, &[1, 1]);
    let now = Instant::now();
    old.answered(&old.servers()[0], Duration::from_secs(3), now);
    let new = reloaded(&old, &metrics, |config| config.algorithm = LbAlgorithm::FastestResponse);
    let known = |n: usize| new.servers()[n].response_time().estimate(new.typical.seconds(), Some(now));
    assert_eq!([known(0), known(1)], [3.0, 3.0], "its own, and the pool's");
}

#[test]
fn a_reload_forgets_health_that_nobody_looked_after_or_will() {
    let metrics = Metrics::new();
    let watched = monitored(&metrics, &[1]);
    watched.servers()[0].set_health(down(), UNIX_EPOCH);
    let without_monitors = reloaded(&watched, &metrics, |config| config.monitors.clear());
    assert!(without_monitors.servers()[0].is_up());
    let disabled = reloaded(&watched, &metrics, |config| config.servers[0].enabled = false);
    let enabled = reloaded(&disabled, &metrics, |config| config.servers[0].enabled = true);
    assert_eq!(enabled.servers()[0].health(), Health::Unchecked);
}
