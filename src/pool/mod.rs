//! Pools: the servers of an app (or the members of a clone pool), which of them are up, and whose turn it is.
//!
//! A [`Pool`] is made from its configuration and never changes its list of servers: a reload makes a new one
//! that takes over what the old one knows of the servers that stay. What changes are the [`Server`]s, as
//! [`monitor`]s see them and as [`Lease`]s count what is in flight. Nothing here knows of requests, of sessions
//! or of sockets to servers (those of monitors apart).
//!
//! F5 and Avi say pool and member, Pingora upstream and backend, Envoy cluster and endpoint.

mod admin_state;
mod balance;
mod changes;
mod connected;
mod distrust;
mod ejection;
#[cfg(test)]
mod fixture;
mod inline;
mod known;
mod lease;
pub mod monitor;
mod names;
mod parting;
mod past;
mod places;
mod priority;
mod queue;
mod ramp;
mod response_time;
mod retry;
mod server;
mod server_cookie;
#[cfg(test)]
mod tests;

pub use admin_state::{AdminState, Order};
pub use balance::{Asking, hash_of};
pub use connected::{Connected, Counted};
pub use ejection::{Ejection, Judgement};
pub use inline::Outcome;
pub use known::Health;
pub use lease::Lease;
pub use names::ServerNames;
pub use past::Change;
pub use queue::{NotServed, Waiting, Wants};
pub use retry::{NoRetry, Retry};
pub use server::{Server, State, Status};
pub use server_cookie::{NamedServer, ServerCookie};

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use pingora::protocols::tls::SslDigest;
use rand::Rng;

use crate::{
    config::{self, HashKey, LbAlgorithm},
    metrics::{EjectionMetrics, Metrics, QueueMetrics, UpstreamMetrics},
    names::PoolName,
    tls::{PeerRefusal, PeerTls, ServerTls},
};
use balance::{Balance, Candidates};
use changes::Changes;
use priority::Priorities;
use queue::Queue;
use response_time::TypicalTime;
use retry::Retrying;

/// Servers among which a balancer chooses.
pub struct Pool {
    config: Arc<config::Pool>,
    servers: Box<[Arc<Server>]>,
    balancer: Box<dyn Balance>,
    priorities: Option<Priorities>,
    /// Shared with the pools before and after a reload.
    typical: Arc<TypicalTime>,
    /// Told when the health of a server changes, or an operator's order; shared with the pools before and after a reload.
    changes: Arc<Changes>,
    /// The same.
    queue: Arc<Queue>,
    waits: QueueMetrics,
    ejections: EjectionMetrics,
    ejecting: Mutex<()>,
    retrying: Retrying,
    /// Of its source addresses.
    turn: AtomicUsize,
    connections: UpstreamMetrics,
    peer_tls: Option<Arc<PeerTls>>,
    server_tls: Option<Arc<ServerTls>>,
}

impl Pool {
    /// A pool as configured. Servers that are monitored count as up until their first result.
    ///
    /// After a reload `previous` is the pool of the same name: a server with the same address keeps its health
    /// and what operators said of it, and what is in flight to it stays counted.
    pub fn new(
        config: &Arc<config::Pool>,
        metrics: &Metrics,
        previous: Option<&Pool>,
        now: SystemTime,
    ) -> Arc<Self> {
        let changes = previous.map_or_else(Arc::default, |pool| pool.changes.clone());
        let queue = previous.map_or_else(Arc::default, |pool| pool.queue.clone());
        let server = |server: &config::Server| {
            let before = previous.and_then(|pool| pool.server(server.addr)).map(|server| &**server);
            let made = Server::new(config, server, before, &changes, &queue, now);
            if previous.is_some() && !before.is_some_and(Server::is_enabled_in_configuration) {
                made.begin_ramp();
            }
            // On the page from now on, whatever it will have in flight.
            metrics.pool_server_inflight.with_label_values(&[config.name.as_str(), made.name()]);
            for state in ["busy", "idle"] {
                let labels = [config.name.as_str(), made.name(), state];
                metrics.pool_server_connections.with_label_values(&labels);
            }
            Arc::new(made)
        };
        let servers: Box<[_]> = config.servers.iter().map(server).collect();
        let typical = previous.map_or_else(Arc::default, |pool| pool.typical.clone());
        let retrying = previous.map_or_else(Arc::default, |pool| pool.retrying.clone());
        let balancer = balance::balancer(config.algorithm, &servers, &typical);
        let priorities = Priorities::of(&servers, config.min_servers as usize);
        let connections = UpstreamMetrics::new(metrics, config.name.as_str());
        let waits = QueueMetrics::new(metrics, config.name.as_str());
        let ejections = EjectionMetrics::new(metrics, config.name.as_str());
        let peer_tls = PeerTls::of(config).map(Arc::new);
        let (config, ejecting) = (config.clone(), Mutex::default());
        let server_tls = ServerTls::of(&config).map(Arc::new);
        Arc::new(Self {
            config,
            servers,
            balancer,
            priorities,
            typical,
            changes,
            queue,
            waits,
            ejections,
            ejecting,
            connections,
            peer_tls,
            retrying,
            turn: AtomicUsize::default(),
            server_tls,
        })
    }

    /// Its name, as virtual services refer to it.
    pub fn name(&self) -> &PoolName {
        &self.config.name
    }

    /// What the pool was made from.
    pub fn config(&self) -> &Arc<config::Pool> {
        &self.config
    }

    /// How its servers are connected to where they are sites; only site-persistence pools have it.
    pub fn peer_tls(&self) -> Option<&Arc<PeerTls>> {
        self.peer_tls.as_ref()
    }

    /// How its servers prove themselves, where the pool says more than that they have to.
    pub fn server_tls(&self) -> Option<&Arc<ServerTls>> {
        self.server_tls.as_ref()
    }

    /// Whether a server that a new connection leads to may be believed, as far as OpenSSL was not asked.
    ///
    /// # Errors
    /// Its certificate, or an issuer's, is revoked, or it cannot be known.
    pub fn believes(&self, digest: Option<&SslDigest>, now: SystemTime) -> Result<(), PeerRefusal> {
        match (&self.peer_tls, &self.server_tls) {
            (Some(peer_tls), _) => peer_tls.check(digest, now),
            (None, Some(server_tls)) => server_tls.check(digest, now),
            (None, None) => Ok(()),
        }
    }

    /// All servers, in the order of the configuration.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// The server with an address, whatever its state.
    pub fn server(&self, addr: SocketAddr) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.addr() == addr)
    }

    /// The servers that may get new sessions, in the order of the configuration: enabled, up, and not draining.
    #[doc(alias = "active_members")]
    pub fn active_servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter().filter(|server| server.takes_new())
    }

    /// How many servers are enabled and up; those that drain are.
    pub fn up_count(&self) -> usize {
        self.servers.iter().filter(|server| server.is_up()).count()
    }

    /// Chooses a server by the pool's algorithm among those that take new sessions, have a ratio above 0 and are not in
    /// `tried`, and counts a request in flight to it. `None` when there is no such server.
    pub fn pick(&self, rng: &mut impl Rng, tried: &[SocketAddr]) -> Option<Lease> {
        self.pick_for(rng, &Asking { tried, ..Asking::default() })
    }

    /// The same, by what is known of the request.
    pub fn pick_for(&self, rng: &mut impl Rng, asking: &Asking<'_>) -> Option<Lease> {
        let mut choose = || {
            self.balancer
                .choose(Candidates::new(&self.servers, self.least_priority(asking.tried), *asking), rng)
        };
        if self.config.lifecycle.most_per_server.is_none() {
            return Some(self.servers[choose()?].lease());
        }
        if !self.queue.is_empty() {
            return None;
        }
        loop {
            // Between the look and the grasp another may have taken the last place.
            if let Some(lease) = self.servers[choose()?].try_lease() {
                return Some(lease);
            }
        }
    }

    /// The lowest priority that gets requests which have tried these.
    fn least_priority(&self, tried: &[SocketAddr]) -> u8 {
        let least = |all: &Priorities| all.least(&self.servers, |server| server.may_serve(tried));
        self.priorities.as_ref().map_or(0, least)
    }

    /// The lowest priority that gets requests now; `None`: all servers have the same.
    pub fn priority_in_use(&self) -> Option<u8> {
        self.priorities.as_ref().map(|_| self.least_priority(&[]))
    }

    /// Whether a server may get a request which has tried these, as soon as it has a place.
    fn may_get(&self, server: &Server, tried: &[SocketAddr]) -> bool {
        server.may_serve(tried) && server.config().priority >= self.least_priority(tried)
    }

    /// Whether there are servers that would take a request which has tried these, and all are full, or others wait
    /// for them.
    pub fn is_full(&self, tried: &[SocketAddr]) -> bool {
        self.config.lifecycle.most_per_server.is_some()
            && self.servers.iter().any(|server| server.may_serve(tried))
    }

    /// Gets in line for a server.
    ///
    /// # Errors
    /// There is no queue, or it is full.
    pub fn join_queue(self: &Arc<Self>, wants: Wants) -> Result<Waiting, NotServed> {
        self.queue.join(self, wants)
    }

    /// How many requests wait for a server.
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// Requests and tunnels in flight to all of its servers.
    pub fn inflight(&self) -> u64 {
        self.servers.iter().map(|server| server.inflight()).sum()
    }

    /// What answers of a server take, as `fastest_response` sees it; `None`: there was none, or nobody wants to know.
    pub fn response_time(&self, server: &Server) -> Option<Duration> {
        server.response_time().last().filter(|_| self.times_answers())
    }

    /// Time has passed: what grows by and by grows, and who was out for a time is back. To be called several times a
    /// second.
    pub fn advance(&self, now: Instant, wall: SystemTime) {
        for server in &self.servers {
            server.advance(now, wall);
            // Others' health may have made it one of those that get requests.
            self.queue.offer_all(server.addr());
        }
    }

    /// A request met with this at a server, which may take it out for a time.
    pub fn observed(&self, server: &Arc<Server>, outcome: Outcome, now: Instant, wall: SystemTime) {
        let Some(monitor) = &self.config.inline else { return };
        let cause = server.record().observe(outcome.is_failure(monitor), monitor, now);
        let Some(cause) = cause.filter(|_| server.is_up()) else { return };
        // Two at a time might take out more than may be.
        let _one_at_a_time = self.ejecting.lock();
        if server.is_ejected() {
            return;
        }
        let out = self.servers.iter().filter(|server| server.is_ejected()).count();
        let may_be_out = match monitor.max_ejection_permille {
            0 => 0,
            permille => (self.servers.len() * usize::from(permille) / 1000).max(1),
        };
        let others = || self.servers.iter().any(|other| other.may_serve(&[server.addr()]));
        if out >= may_be_out || !others() {
            self.ejections.prevented();
            return;
        }
        let (time, times) = server.record().out(monitor, now);
        self.ejections.ejected(server.name(), cause.as_str());
        let reason = format!("{cause}, the last: {outcome}");
        server.eject(Ejection { reason, time, until: now + time, ends: wall + time, times }, wall);
    }

    /// What of a request the algorithm goes by; `None`: by nothing.
    pub fn hash_key(&self) -> Option<&HashKey> {
        (self.config.algorithm == LbAlgorithm::ConsistentHash).then_some(&self.config.hash_key)
    }

    /// Whether the algorithm wants to know when servers answer, and what time it is.
    pub fn times_answers(&self) -> bool {
        self.config.algorithm == LbAlgorithm::FastestResponse
    }

    /// A server began to answer, so long after it was asked.
    pub fn answered(&self, server: &Server, took: Duration, now: Instant) {
        server.response_time().observe(took, now);
        self.typical.observe(took, now);
    }

    fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What is counted about those who wait.
    pub fn waits(&self) -> &QueueMetrics {
        &self.waits
    }

    /// The address that a connection to a server is to come from, another each time where there are several; `None`:
    /// the system chooses.
    pub fn source_of(&self, server: IpAddr) -> Option<IpAddr> {
        if self.config.sources.is_empty() {
            return None;
        }
        self.config.sources.of(server, self.turn.fetch_add(1, Relaxed))
    }

    /// What is counted about the connections to its servers.
    pub fn connections(&self) -> &UpstreamMetrics {
        &self.connections
    }

    /// Whether every server that is enabled and monitored has had its first result.
    pub fn checked(&self) -> bool {
        self.servers
            .iter()
            .filter(|server| server.is_watched())
            .all(|server| server.health() != Health::Unchecked)
    }

    /// Logs, in one line, what has happened to more servers than there are lines for. To be called once in a while.
    pub fn log_changes(&self) {
        self.changes.log_rest(self.name().as_str(), || self.up_count(), self.servers.len());
    }

    /// Logs, once in a while, that an answer of a server was refused or cut because of how it is written.
    pub fn log_malformed_answer(&self, server: SocketAddr, reason: &str, now: Instant) {
        self.changes.log_malformed_answer(self.name().as_str(), server, reason, now);
    }

    /// Logs, once in a while, that no connection to its servers can begin at this machine.
    pub fn log_shortage(&self, reason: &str, help: &str, now: Instant) {
        self.changes.log_shortage(self.name().as_str(), reason, help, now);
    }

    /// Completes at the next change of a server's health (the first result is one) or orders after this call: call it,
    /// look at the pool, then await it, and no change is missed.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.changes.notified()
    }
}
