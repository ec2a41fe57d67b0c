//! A server of a pool: its address, its share, its health, and how much is in flight to it.
//!
//! What the configuration says is fixed for the life of a [`Server`]; what is learnt of the machine behind it
//! outlives a reload. Reading either takes no lock that is ever held for long, and choosing a server takes none.

use std::{
    net::SocketAddr,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tracing::info;

use super::{
    Connected, Health, Lease,
    admin_state::{AdminState, Order, Orders},
    changes::Changes,
    inline::Record,
    known::{Known, Standing},
    parting::Parting,
    past::Change,
    places::Places,
    queue::Queue,
    ramp::Ramp,
    response_time::ResponseTime,
};
use crate::{config, names::PoolName};

/// One server of one pool.
#[doc(alias("member", "backend", "endpoint"))]
pub struct Server {
    pub(super) pool: PoolName,
    /// `ip:port`, as metrics and tables show it.
    pub(super) name: String,
    config: config::Server,
    /// Enabled, and its pool too.
    enabled: bool,
    /// Its pool has monitors.
    pub(super) monitored: bool,
    pub(super) known: Arc<Known>,
    orders: Arc<Orders>,
    pub(super) changes: Arc<Changes>,
    response_time: Arc<ResponseTime>,
    places: Arc<Places>,
    /// How many requests and tunnels it may have in flight.
    most: Option<u64>,
    connected: Arc<Connected>,
    pub(super) record: Arc<Record>,
    ramp: Arc<Ramp>,
    /// How long it takes to its full share.
    ramp_duration: Duration,
    parting: Arc<Parting>,
    /// How long it keeps its sessions when a reload disables it.
    parting_duration: Duration,
    /// Who waits for a place.
    queue: Arc<Queue>,
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
        previous: Option<&Self>,
        changes: &Arc<Changes>,
        queue: &Arc<Queue>,
        now: SystemTime,
    ) -> Self {
        let enabled = pool.enabled && config.enabled;
        let monitored = !pool.monitors.is_empty();
        let known = match previous {
            Some(before) if (before.enabled, before.monitored) == (enabled, monitored) => {
                before.known.clone()
            }
            _ => Arc::new(Known::new(now)),
        };
        let response_time = previous.map(|before| before.response_time.clone()).unwrap_or_default();
        let orders = previous.map(|before| before.orders.clone()).unwrap_or_default();
        let places = previous.map(|before| before.places.clone()).unwrap_or_default();
        let connected = previous.map(|before| before.connected.clone()).unwrap_or_default();
        connected.allow_idle(pool.connections.most_idle);
        let record = previous.map(|before| before.record.clone()).unwrap_or_default();
        let ramp_duration = pool.lifecycle.ramp;
        let ramping = previous.filter(|before| before.enabled && !ramp_duration.is_zero());
        let ramp = ramping.map(|before| before.ramp.clone()).unwrap_or_default();
        let parting_duration = pool.lifecycle.graceful_disable;
        let parting = match previous {
            Some(before) if !enabled && before.enabled && !parting_duration.is_zero() => {
                Arc::new(Parting::begin())
            }
            Some(before) if !enabled && !before.enabled => before.parting.clone(),
            _ => Arc::default(),
        };
        Self {
            pool: pool.name.clone(),
            name: config.addr.to_string(),
            config: config.clone(),
            enabled,
            monitored,
            known,
            orders,
            changes: changes.clone(),
            response_time,
            places,
            most: pool.lifecycle.most_per_server.map(NonZeroU64::get),
            connected,
            record,
            ramp,
            ramp_duration,
            parting,
            parting_duration,
            queue: queue.clone(),
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

    /// Enabled, or disabled so recently that it keeps its sessions, and, as far as is known, healthy: may get requests of
    /// the sessions that it has.
    pub fn is_up(&self) -> bool {
        let is_there = self.enabled || self.parting.lasts();
        is_there && !self.known.stands(Standing::None) && self.admin_state() != AdminState::Disabled
    }

    /// Up, and neither draining nor in maintenance: may get new sessions too.
    pub fn takes_new(&self) -> bool {
        self.enabled && self.known.stands(Standing::All) && self.admin_state() == AdminState::Enabled
    }

    /// Whether it may get a request that has no server yet.
    pub(super) fn may_serve(&self, tried: &[SocketAddr]) -> bool {
        self.takes_new() && self.config.ratio > 0 && !tried.contains(&self.addr())
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
        self.known.facts.lock().health.clone()
    }

    /// What is known of its health, and since when.
    pub fn known_health(&self) -> (Health, SystemTime) {
        let facts = self.known.facts.lock();
        (facts.health.clone(), facts.changed)
    }

    /// State, reason and time of the last change, for tables.
    pub fn status(&self) -> Status {
        let (known, checked) = {
            let facts = self.known.facts.lock();
            (facts.verdict(self.monitored), facts.changed)
        };
        let order = self.last_order();
        let ordered = order.as_ref().map_or(AdminState::Enabled, |order| order.state);
        let last_changed = order.map_or(checked, |order| order.at.max(checked));
        let (state, reason) = match known {
            _ if self.parting.lasts() => {
                let reason = "disabled in the configuration: it keeps its sessions for a while";
                (State::Disabled, reason.to_owned())
            }
            _ if !self.enabled => (State::Disabled, "disabled in the configuration".to_owned()),
            _ if ordered == AdminState::Disabled => (State::Disabled, "disabled by an operator".to_owned()),
            (State::Up, _) if ordered == AdminState::Draining => {
                (State::Up, "draining: it keeps its sessions and gets no new ones".to_owned())
            }
            known => known,
        };
        Status { state, reason, last_changed }
    }

    /// The last changes of its state, the oldest first: what monitors, requests and operators have done.
    pub fn past(&self) -> Vec<Change> {
        self.known.facts.lock().past.all()
    }

    /// Requests and tunnels in flight.
    pub fn inflight(&self) -> u64 {
        self.places.taken()
    }

    /// The HTTP/1 connections to it.
    pub fn connected(&self) -> &Arc<Connected> {
        &self.connected
    }

    /// Counts a request in flight for as long as the lease is held, whether the server is up or not: a
    /// persistent session may go on where no new one starts.
    pub fn lease(self: &Arc<Self>) -> Lease {
        Lease::new(self)
    }

    /// The same, unless it is full.
    pub fn try_lease(self: &Arc<Self>) -> Option<Lease> {
        match self.room() {
            None => Some(self.lease()),
            Some(room) => self.places.try_take(room).then(|| Lease::of_place_taken(self)),
        }
    }

    /// Whether it has a place for one more.
    pub fn has_place(&self) -> bool {
        self.room().is_none_or(|room| self.places.taken() < room)
    }

    /// How much it may have in flight now, which grows with its share; `None`: any number.
    pub fn room(&self) -> Option<u64> {
        self.most.map(|most| (most * self.ramp.share() / RATIO).max(1))
    }

    /// Its part of what its pool gets, in thousandths of its ratio.
    pub fn weight(&self) -> u64 {
        u64::from(self.config.ratio) * self.ramp.share()
    }

    /// What it has in flight for its part, with 32 binary places.
    pub fn load(&self) -> u64 {
        (self.inflight() << 32) / self.weight().max(1)
    }

    /// How much of its share it has, in thousandths, where that grows by and by.
    pub fn ramp(&self) -> Option<u64> {
        (!self.ramp_duration.is_zero()).then(|| self.ramp.share())
    }

    /// It is back, or new among others: its share grows from now on.
    pub(super) fn begin_ramp(&self) {
        if !self.ramp_duration.is_zero() {
            self.ramp.begin();
        }
    }

    /// Time has passed.
    pub(super) fn advance(&self, now: Instant, wall: SystemTime) {
        if self.known.stands(Standing::None) {
            self.end_ejection(now, wall);
        }
        if self.parting.advance(self.parting_duration, now) {
            info!(
                pool = self.pool.as_str(),
                server = self.name,
                "a disabled server has no sessions any more"
            );
            self.came_or_went(false);
        }
        if self.ramp.advance(self.ramp_duration, now) {
            self.queue.offer_all(self.addr());
        }
    }

    /// Whether requests go to it changes, or did: it is back, or gone.
    pub(super) fn came_or_went(&self, was_there: bool) {
        match (was_there, self.takes_new()) {
            (false, true) => {
                self.begin_ramp();
                self.queue.offer_all(self.addr());
            }
            _ if !self.is_up() => self.queue.dismiss(self.addr()),
            _ => {}
        }
        self.changes.notify();
    }

    /// Records what a monitor found. Only a change of state is kept, logged and told to who awaits
    /// [`Pool::changed`](super::Pool::changed).
    pub fn set_health(&self, health: Health, now: SystemTime) {
        let mut facts = self.known.facts.lock();
        if std::mem::discriminant(&facts.health) == std::mem::discriminant(&health) {
            return;
        }
        let was_there = self.takes_new();
        let (pool, server) = (self.pool.as_str(), self.name.as_str());
        match (&facts.health, &health) {
            (_, Health::Down { reason }) => self.changes.log_down(pool, server, reason),
            (_, Health::Maintenance { reason }) => self.changes.log_maintenance(pool, server, reason),
            (Health::Down { .. } | Health::Maintenance { .. }, _) => self.changes.log_up(pool, server),
            // It counted as up before.
            _ => {}
        }
        (facts.health, facts.said) = (health, None);
        self.known.changed(&mut facts, self.monitored, now);
        drop(facts);
        self.came_or_went(was_there);
    }

    /// It did not agree to HTTP/2.
    pub fn declined_http2(&self, now: Instant) {
        self.known.declined_http2(now);
    }

    /// Whether it would not agree to HTTP/2, as far as is known.
    pub fn declines_http2(&self, now: Instant) -> bool {
        self.known.declines_http2(now)
    }

    /// Does what an operator says. The same order given again takes note of who said so last.
    pub fn order(&self, state: AdminState, by: &str, now: SystemTime) {
        let was_there = self.takes_new();
        let before = self.orders.give(Order { state, by: by.to_owned(), at: now });
        if before != state {
            let (pool, server) = (self.pool.as_str(), self.name.as_str());
            info!(pool, server, by, "server is {state} by an operator");
            let after = self.status().state;
            self.known.facts.lock().past.note(after, &format!("{state} by an operator, {by}"), now);
            self.came_or_went(was_there);
        }
    }

    pub(super) fn response_time(&self) -> &ResponseTime {
        &self.response_time
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }
}

/// What a weight has for a ratio of 1.
const RATIO: u64 = 1000;

#[cfg(test)]
mod tests;
