//! Pools: the servers of an app (or the members of a clone pool), which of them are up, and whose turn it is.
//!
//! A [`Pool`] is made from its configuration and never changes its list of servers: a reload makes a new one
//! that takes over what the old one knows of the servers that stay. What changes are the [`Server`]s, as
//! [`monitor`]s see them and as [`Lease`]s count what is in flight. Nothing here knows of requests, of sessions
//! or of sockets to servers (those of monitors apart).
//!
//! F5 and Avi say pool and member, Pingora upstream and backend, Envoy cluster and endpoint.

mod balance;
mod lease;
pub mod monitor;
mod server;

pub use lease::Lease;
pub use server::{Health, Server, State, Status};

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use rand::Rng;
use tokio::sync::Notify;

use crate::{config, metrics::Metrics, names::PoolName};
use balance::{Balance, Candidates};

/// Servers among which a balancer chooses.
pub struct Pool {
    config: Arc<config::Pool>,
    servers: Box<[Arc<Server>]>,
    balancer: Box<dyn Balance>,
    /// Told when the health of a server changes; shared with the pools before and after a reload.
    changes: Arc<Notify>,
}

impl Pool {
    /// A pool as configured. Servers that are monitored count as up until their first result.
    ///
    /// After a reload `previous` is the pool of the same name: a server with the same address keeps its health,
    /// and what is in flight to it stays counted. Whoever puts the new pool in the place of the old one calls
    /// [`Pool::retire`] on the old.
    pub fn new(
        config: &Arc<config::Pool>,
        metrics: &Metrics,
        previous: Option<&Pool>,
        now: SystemTime,
    ) -> Arc<Self> {
        let changes = previous.map_or_else(Arc::default, |pool| pool.changes.clone());
        let server = |server: &config::Server| {
            let before = previous.and_then(|pool| pool.server(server.addr));
            Arc::new(Server::new(config, server, metrics, before.map(|server| &**server), &changes, now))
        };
        let servers: Box<[_]> = config.servers.iter().map(server).collect();
        let balancer = balance::balancer(config.algorithm, servers.len());
        Arc::new(Self { config: config.clone(), servers, balancer, changes })
    }

    pub fn name(&self) -> &PoolName {
        &self.config.name
    }

    /// What the pool was made from.
    pub fn config(&self) -> &Arc<config::Pool> {
        &self.config
    }

    /// All servers, in the order of the configuration.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// The server with an address, whatever its state.
    pub fn server(&self, addr: SocketAddr) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.addr() == addr)
    }

    /// The servers that are enabled and up, in the order of the configuration.
    #[doc(alias = "active_members")]
    pub fn active_servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter().filter(|server| server.is_up())
    }

    /// How many servers are enabled and up.
    pub fn up_count(&self) -> usize {
        self.active_servers().count()
    }

    /// Chooses a server by the pool's algorithm among those that are up, have a ratio above 0 and are not in
    /// `tried`, and counts a request in flight to it. `None` when there is no such server.
    pub fn pick(&self, rng: &mut impl Rng, tried: &[SocketAddr]) -> Option<Lease> {
        let chosen = self.balancer.choose(Candidates::new(&self.servers, tried), rng)?;
        Some(self.servers[chosen].lease())
    }

    /// Whether every server that is enabled and monitored has had its first result.
    pub fn checked(&self) -> bool {
        self.servers
            .iter()
            .filter(|server| server.is_watched())
            .all(|server| server.health() != Health::Unchecked)
    }

    /// Completes at the next change of a server's health (the first result is one) after this call: call it,
    /// look at the pool, then await it, and no change is missed.
    pub fn changed(&self) -> impl Future<Output = ()> {
        self.changes.notified()
    }

    /// Takes the servers that `successor` does not have off the metrics page; all of them without a successor.
    ///
    /// Leases that are still held go on counting, unseen. A pool that was made for a reload that then failed is
    /// retired in favour of the one that stays.
    pub fn retire(&self, metrics: &Metrics, successor: Option<&Pool>) {
        for server in &self.servers {
            if successor.and_then(|pool| pool.server(server.addr())).is_none() {
                server.leave(metrics);
            }
        }
    }
}
