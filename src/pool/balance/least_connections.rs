//! Least connections: the server with the least in flight for its ratio.
//!
//! Among servers with equal load, as all are that have nothing to do, turns are taken as in round robin. So a
//! quiet pool shares by ratio too, and a small server that is idle is preferred to a big one that is busy.
//! (Counting the coming request, `(inflight + 1) / ratio`, would starve small servers while traffic is light.)

use rand::RngCore;

use super::{Balance, Candidates, RoundRobin};
use crate::pool::Server;

/// Whose turn it is among equals.
pub(super) struct LeastConnections {
    turns: RoundRobin,
}

impl LeastConnections {
    pub(super) fn new(servers: usize) -> Self {
        Self { turns: RoundRobin::new(servers) }
    }
}

impl Balance for LeastConnections {
    fn choose(&self, candidates: Candidates<'_>, _: &mut dyn RngCore) -> Option<usize> {
        let (least, first) = candidates.iter().map(|(index, server)| (load(server), index)).min()?;
        let equals = candidates.iter().filter(|(_, server)| load(server) <= least);
        // Between the two looks all of them may have become busier.
        self.turns.next(equals).or(Some(first))
    }
}

/// What is in flight per ratio, with 32 binary places.
fn load(server: &Server) -> u64 {
    (server.inflight() << 32) / u64::from(server.config().ratio)
}
