//! A server of a pool: its address, its share, its health, and how much is in flight to it.
//!
//! What the configuration says is fixed for the life of a [`Server`]; what is learnt of the machine behind it
//! outlives a reload. Reading either takes no lock that is ever held for long, and choosing a server takes none.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use prometheus::IntGauge;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    Lease,
    admin_state::{AdminState, Order, Orders},
    changes::Changes,
    response_time::ResponseTime,
};
use crate::{config, metrics::Metrics, names::PoolName};

/// One server of one pool.
#[doc(alias("member", "backend", "endpoint"))]
pub struct Server {
    pool: PoolName,
    /// `ip:port`, as metrics and tables show it.
    name: String,
    config: config::Server,
    /// Enabled, and its pool too.
    enabled: bool,
    /// Its pool has monitors.
    monitored: bool,
    known: Arc<Known>,
    orders: Arc<Orders>,
    changes: Arc<Changes>,
    response_time: Arc<ResponseTime>,
    /// The count itself: the gauge of a pool's server is one and the same before and after a reload.
    inflight: IntGauge,
}

/// What monitors have found out, kept over reloads.
struct Known {
    /// What `pick` reads: whether the health below counts as up.
    up: AtomicBool,
    health: Mutex<(Health, SystemTime)>,
}

/// What is known of a server's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// No result yet, or no monitor: counts as up, as with HAProxy and Pingora.
    Unchecked,
    /// All monitors passed.
    Up,
    /// With the reason that an operator reads.
    Down { reason: String },
}

/// A server as tables show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// Why it is in this state.
    pub reason: String,
    /// Since when.
    pub last_changed: SystemTime,
}

/// The operational state, in Avi's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Enabled, and not known to be down.
    Up,
    /// Enabled, and a monitor failed.
    Down,
    /// Not enabled, or its pool is not, or an operator has disabled it; its health does not count.
    Disabled,
}

impl State {
    /// `OPER_UP`, `OPER_DOWN`, `OPER_DISABLED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "OPER_UP",
            Self::Down => "OPER_DOWN",
            Self::Disabled => "OPER_DISABLED",
        }
    }
}

impl Server {
    /// A server of `pool`; with `previous`, the same address before a reload, operators' orders stand, and its
    /// health stays known unless nobody looked after it then, or nobody will.
    pub(super) fn new(
        pool: &config::Pool,
        config: &config::Server,
        metrics: &Metrics,
        previous: Option<&Self>,
        changes: &Arc<Changes>,
        now: SystemTime,
    ) -> Self {
        let name = config.addr.to_string();
        let inflight = metrics.pool_server_inflight.with_label_values(&[pool.name.as_str(), &name]);
        let enabled = pool.enabled && config.enabled;
        let monitored = !pool.monitors.is_empty();
        let known = match previous {
            Some(before) if (before.enabled, before.monitored) == (enabled, monitored) => {
                before.known.clone()
            }
            _ => Arc::new(Known { up: AtomicBool::new(true), health: Mutex::new((Health::Unchecked, now)) }),
        };
        let response_time = previous.map(|before| before.response_time.clone()).unwrap_or_default();
        let orders = previous.map(|before| before.orders.clone()).unwrap_or_default();
        Self {
            pool: pool.name.clone(),
            name,
            config: config.clone(),
            enabled,
            monitored,
            known,
            orders,
            changes: changes.clone(),
            response_time,
            inflight,
        }
    }

    /// Where requests go; what tells it from the pool's other servers, and a reload recognises it by.
    pub fn addr(&self) -> SocketAddr {
        self.config.addr
    }

    /// `ip:port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the configuration says of it.
    pub fn config(&self) -> &config::Server {
        &self.config
    }

    /// Enabled and, as far as is known, healthy: may get requests of the sessions that it has.
    pub fn is_up(&self) -> bool {
        self.enabled && self.known.up.load(Relaxed) && self.admin_state() != AdminState::Disabled
    }

    /// Up, and not draining: may get new sessions too.
    pub fn takes_new(&self) -> bool {
        self.is_up() && self.admin_state() == AdminState::Enabled
    }

    /// Whether the configuration enables it, and its pool.
    pub fn is_enabled_in_configuration(&self) -> bool {
        self.enabled
    }

    /// What operators want of it.
    pub fn admin_state(&self) -> AdminState {
        self.orders.state()
    }

    /// The last order of an operator, if there was one.
    pub fn last_order(&self) -> Option<Order> {
        self.orders.last()
    }

    /// Enabled, and its pool has monitors.
    pub fn is_watched(&self) -> bool {
        self.enabled && self.monitored
    }

    /// What is known of its health, enabled or not.
    pub fn health(&self) -> Health {
        self.known.health.lock().0.clone()
    }

    /// What is known of its health, and since when.
    pub fn known_health(&self) -> (Health, SystemTime) {
        self.known.health.lock().clone()
    }

    /// State, reason and time of the last change, for tables.
    pub fn status(&self) -> Status {
        let (health, checked) = self.known.health.lock().clone();
        let order = self.last_order();
        let ordered = order.as_ref().map_or(AdminState::Enabled, |order| order.state);
        let last_changed = order.map_or(checked, |order| order.at.max(checked));
        let (state, reason) = match health {
            _ if !self.enabled => (State::Disabled, "disabled in the configuration".to_owned()),
            _ if ordered == AdminState::Disabled => (State::Disabled, "disabled by an operator".to_owned()),
            Health::Down { reason } => (State::Down, reason),
            _ if ordered == AdminState::Draining => {
                (State::Up, "draining: it keeps its sessions and gets no new ones".to_owned())
            }
            Health::Unchecked if self.monitored => (State::Up, "not checked yet".to_owned()),
            Health::Unchecked => (State::Up, "not monitored".to_owned()),
            Health::Up => (State::Up, "monitors passed".to_owned()),
        };
        Status { state, reason, last_changed }
    }

    /// Requests and tunnels in flight.
    pub fn inflight(&self) -> u64 {
        self.inflight.get().try_into().unwrap_or_default()
    }

    /// Counts a request in flight for as long as the lease is held, whether the server is up or not: a
    /// persistent session may go on where no new one starts.
    pub fn lease(self: &Arc<Self>) -> Lease {
        Lease::new(self)
    }

    /// Records what a monitor found. Only a change of state is kept, logged and told to who awaits
    /// [`Pool::changed`](super::Pool::changed).
    pub fn set_health(&self, health: Health, now: SystemTime) {
        let mut current = self.known.health.lock();
        if std::mem::discriminant(&current.0) == std::mem::discriminant(&health) {
            return;
        }
        let (pool, server) = (self.pool.as_str(), self.name.as_str());
        match (&current.0, &health) {
            (_, Health::Down { reason }) => self.changes.log_down(pool, server, reason),
            (Health::Down { .. }, _) => self.changes.log_up(pool, server),
            // It counted as up before.
            _ => {}
        }
        self.known.up.store(!matches!(health, Health::Down { .. }), Relaxed);
        *current = (health, now);
        drop(current);
        self.changes.notify();
    }

    /// Does what an operator says. The same order given again takes note of who said so last.
    pub fn order(&self, state: AdminState, by: &str, now: SystemTime) {
        let before = self.orders.give(Order { state, by: by.to_owned(), at: now });
        if before != state {
            let (pool, server) = (self.pool.as_str(), self.name.as_str());
            info!(pool, server, by, "server is {state} by an operator");
            self.changes.notify();
        }
    }

    pub(super) fn response_time(&self) -> &ResponseTime {
        &self.response_time
    }

    pub(super) fn inflight_gauge(&self) -> &IntGauge {
        &self.inflight
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        config::{LbAlgorithm, MonitorType},
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
        let status =
            |state, reason: &str, last_changed| Status { state, reason: reason.into(), last_changed };
        assert_eq!(server.status(), status(State::Up, "not checked yet", at(0)));
        server.set_health(Health::Up, at(1));
        assert_eq!(server.status(), status(State::Up, "monitors passed", at(1)));
        server.set_health(down(), at(2));
        server.set_health(Health::Down { reason: "hm: connection refused".into() }, at(3));
        assert_eq!(
            server.status(),
            status(State::Down, "hm: answered 500", at(2)),
            "the first reason stands"
        );
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
        let metrics = Metrics::new();
        let pool = Pool::new(&Arc::new(config), &metrics, None, at(0));
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
}
