//! What is said of a server, and who said it.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::{
    config::{LbAlgorithm, MonitorType},
    metrics::Metrics,
    pool::{
        Pool,
        fixture::{self, build, config, down, monitor},
    },
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_status_says_why_and_since_when() {
    let mut config = config(LbAlgorithm::RoundRobin, &[1, 1]);
    config.monitors.push(monitor(MonitorType::Tcp));
    config.servers[1].enabled = false;
    let pool = build(config);
    let server = &pool.servers()[0];
    let status = |state, reason: &str, last_changed| Status { state, reason: reason.into(), last_changed };
    assert_eq!(server.status(), status(State::Up, "not checked yet", at(0)));
    server.set_health(Health::Up, at(1));
    assert_eq!(server.status(), status(State::Up, "monitors passed", at(1)));
    server.set_health(down(), at(2));
    server.set_health(Health::Down { reason: "hm: connection refused".into() }, at(3));
    assert_eq!(server.status(), status(State::Down, "hm: answered 500", at(2)), "the first reason stands");
    let disabled = &pool.servers()[1];
    disabled.set_health(Health::Up, at(4));
    assert_eq!(disabled.status(), status(State::Disabled, "disabled in the configuration", at(4)));
    assert!(!disabled.is_up());
    let unmonitored = fixture::pool(LbAlgorithm::RoundRobin, &[1]);
    assert_eq!(unmonitored.servers()[0].status(), status(State::Up, "not monitored", at(0)));
}

#[test]
fn an_operators_order_stands_beside_the_health_and_names_its_author() {
    use AdminState::{Disabled, Draining, Enabled};
    let mut config = config(LbAlgorithm::RoundRobin, &[1]);
    config.monitors.push(monitor(MonitorType::Tcp));
    let pool = Pool::new(&Arc::new(config), &Metrics::new(), None, at(0));
    let server = &pool.servers()[0];
    assert_eq!(server.last_order(), None);
    for (health, ordered, up, takes_new, state, reason) in [
        (Health::Up, Enabled, true, true, State::Up, "monitors passed"),
        (Health::Up, Draining, true, false, State::Up, "draining: it keeps"),
        (Health::Up, Disabled, false, false, State::Disabled, "disabled by an operator"),
        (down(), Draining, false, false, State::Down, "hm: answered 500"),
        (down(), Disabled, false, false, State::Disabled, "disabled by an operator"),
        (down(), Enabled, false, false, State::Down, "hm: answered 500"),
    ] {
        server.set_health(health, at(1));
        server.order(ordered, "uid 7", at(2));
        assert_eq!((server.is_up(), server.takes_new()), (up, takes_new), "{ordered} {reason}");
        let status = server.status();
        assert_eq!((status.state, status.last_changed), (state, at(2)));
        assert!(status.reason.starts_with(reason), "{}", status.reason);
        assert_eq!(server.last_order(), Some(Order { state: ordered, by: "uid 7".into(), at: at(2) }));
    }
}
