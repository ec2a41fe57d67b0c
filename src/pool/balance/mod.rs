//! Balancing: which of the servers that may take a request gets it. One algorithm per file.
//!
//! An algorithm sees [`Candidates`] and returns the index of one; it knows neither requests nor health, takes
//! chance as an argument and allocates nothing. Avi calls this the load balancing algorithm, Pingora selection.

mod least_connections;
mod random;
mod round_robin;

use std::{net::SocketAddr, sync::Arc};

use rand::RngCore;

use super::Server;
use crate::config::LbAlgorithm;
use least_connections::LeastConnections;
use random::Random;
use round_robin::RoundRobin;

/// An algorithm and what it remembers of the choices it made.
pub(super) trait Balance: Send + Sync {
    /// The index of a candidate; `None` when there is none.
    fn choose(&self, candidates: Candidates<'_>, rng: &mut dyn RngCore) -> Option<usize>;
}

/// The balancer of a pool with this many servers.
pub(super) fn balancer(algorithm: LbAlgorithm, servers: usize) -> Box<dyn Balance> {
    match algorithm {
        LbAlgorithm::RoundRobin => Box::new(RoundRobin::new(servers)),
        LbAlgorithm::Random => Box::new(Random),
        LbAlgorithm::LeastConnections => Box::new(LeastConnections::new(servers)),
    }
}

/// The servers of a pool, of which those may be chosen that are up, have a share, and were not tried yet.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    servers: &'a [Arc<Server>],
    tried: &'a [SocketAddr],
}

impl<'a> Candidates<'a> {
    pub(super) fn new(servers: &'a [Arc<Server>], tried: &'a [SocketAddr]) -> Self {
        Self { servers, tried }
    }

    /// Each server that may be chosen now, with its index in the pool. Health changes at any time: a second
    /// look may see others.
    fn iter(self) -> impl Iterator<Item = (usize, &'a Server)> {
        self.servers.iter().map(|server| &**server).enumerate().filter(move |(_, server)| {
            server.is_up() && server.config().ratio > 0 && !self.tried.contains(&server.addr())
        })
    }
}
