//! Balancing: which of the servers that may take a request gets it. One algorithm per file.
//!
//! An algorithm sees [`Candidates`] and what is [known](Asking) of the request, and returns the index of one; it knows
//! no health, takes chance and time as arguments and allocates nothing. Avi calls this the load balancing algorithm, Pingora selection.

mod consistent_hash;
mod fastest_response;
mod least_connections;
#[cfg(test)]
mod ramp_tests;
mod random;
mod round_robin;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rand::RngCore;

use super::{Server, response_time::TypicalTime};
use crate::config::LbAlgorithm;
use consistent_hash::ConsistentHash;
pub use consistent_hash::hash_of;
use fastest_response::FastestResponse;
use least_connections::LeastConnections;
use random::Random;
use round_robin::RoundRobin;

/// An algorithm and what it remembers of the choices it made.
pub(super) trait Balance: Send + Sync {
    /// The index of a candidate; `None` when there is none.
    fn choose(&self, candidates: Candidates<'_>, rng: &mut dyn RngCore) -> Option<usize>;
}

/// What is known of a request that asks for a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asking<'a> {
    /// Servers that it shall not get.
    pub tried: &'a [SocketAddr],
    /// What [`hash_of`] makes of what `consistent_hash` goes by; `None`: the request does not have it.
    pub hash: Option<u64>,
    /// The time, for `fastest_response`; `None`: what is known of the servers counts as if it were new.
    pub now: Option<Instant>,
}

/// The balancer of a pool with these servers, whose answers take what is `typical`.
pub(super) fn balancer(
    algorithm: LbAlgorithm,
    servers: &[Arc<Server>],
    typical: &Arc<TypicalTime>,
) -> Box<dyn Balance> {
    match algorithm {
        LbAlgorithm::RoundRobin => Box::new(RoundRobin::new(servers.len())),
        LbAlgorithm::Random => Box::new(Random),
        LbAlgorithm::LeastConnections => Box::new(LeastConnections::new(servers.len())),
        LbAlgorithm::ConsistentHash => Box::new(ConsistentHash::new(servers)),
        LbAlgorithm::FastestResponse => Box::new(FastestResponse::new(typical)),
    }
}

/// The servers of a pool, of which those may be chosen that take new sessions, have a share and the priority, and were not tried
/// yet.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    servers: &'a [Arc<Server>],
    least_priority: u8,
    asking: Asking<'a>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(servers: &'a [Arc<Server>], least_priority: u8, asking: Asking<'a>) -> Self {
        Self { servers, least_priority, asking }
    }

    /// Each server that may be chosen now, with its index in the pool. Health changes at any time: a second
    /// look may see others.
    fn iter(self) -> impl Iterator<Item = (usize, &'a Server)> {
        self.servers.iter().map(|server| &**server).enumerate().filter(move |(_, server)| {
            server.config().priority >= self.least_priority
                && server.may_serve(self.asking.tried)
                && server.has_place()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::pool::{
        Health, Pool,
        fixture::{addr, down, pool},
    };

    const ALGORITHMS: [LbAlgorithm; 5] = [
        LbAlgorithm::RoundRobin,
        LbAlgorithm::Random,
        LbAlgorithm::LeastConnections,
        LbAlgorithm::ConsistentHash,
        LbAlgorithm::FastestResponse,
    ];

    /// How often each server was picked, by requests that come one after the other, each with a key of its own.
    fn picks(pool: &Pool, picks: usize, tried: &[SocketAddr]) -> Vec<usize> {
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = vec![0; pool.servers().len()];
        for key in 0..picks {
            let asking = Asking { tried, hash: Some(hash_of(&key.to_be_bytes())), now: None };
            let lease = pool.pick_for(&mut rng, &asking).expect("a server is up");
            counts[pool.servers().iter().position(|server| server.addr() == lease.addr()).unwrap()] += 1;
        }
        counts
    }

    /// 100,000 picks fall to the servers by these shares: to within one where turns are taken, to within 1 % of
    /// all where chance decides.
    fn assert_fair(algorithm: LbAlgorithm, pool: &Pool, tried: &[SocketAddr], shares: &[usize]) {
        const PICKS: usize = 100_000;
        let all: usize = shares.iter().sum();
        let counts = picks(pool, PICKS, tried);
        for (count, share) in counts.iter().zip(shares) {
            let expected = PICKS * share / all;
            let tolerance = match algorithm {
                _ if *share == 0 => 0,
                LbAlgorithm::RoundRobin | LbAlgorithm::LeastConnections => 1 + shares.len(),
                _ => PICKS / 100,
            };
            assert!(count.abs_diff(expected) <= tolerance, "{algorithm:?} {shares:?}: {counts:?}");
        }
    }

    #[test]
    fn every_algorithm_shares_by_ratio() {
        for algorithm in ALGORITHMS {
            for ratios in [&[1, 1, 1][..], &[5, 1, 1], &[3, 0, 2], &[u16::MAX, 1], &[10, 20, 30, 40]] {
                let shares: Vec<_> = ratios.iter().map(|&ratio| usize::from(ratio)).collect();
                assert_fair(algorithm, &pool(algorithm, ratios), &[], &shares);
            }
        }
    }

    #[test]
    fn the_share_of_a_server_that_is_down_falls_to_the_others_until_it_returns() {
        for algorithm in ALGORITHMS {
            let pool = pool(algorithm, &[1, 1, 2]);
            assert_fair(algorithm, &pool, &[], &[1, 1, 2]);
            pool.servers()[1].set_health(down(), UNIX_EPOCH);
            assert_fair(algorithm, &pool, &[], &[1, 0, 2]);
            pool.servers()[1].set_health(Health::Up, UNIX_EPOCH);
            assert_fair(algorithm, &pool, &[], &[1, 1, 2]);
        }
    }

    #[test]
    fn a_server_that_returns_has_no_arrears_to_catch_up_with() {
        for algorithm in [LbAlgorithm::RoundRobin, LbAlgorithm::LeastConnections] {
            let pool = pool(algorithm, &[1, 1, 1]);
            pool.servers()[0].set_health(down(), UNIX_EPOCH);
            picks(&pool, 1_000, &[]);
            pool.servers()[0].set_health(Health::Up, UNIX_EPOCH);
            assert!(picks(&pool, 9, &[])[0] <= 4, "{algorithm:?}");
        }
    }

    #[test]
    fn tried_servers_are_not_picked_again() {
        for algorithm in ALGORITHMS {
            let pool = pool(algorithm, &[1, 1, 2]);
            assert_fair(algorithm, &pool, &[addr(3)], &[1, 1, 0]);
            assert_fair(algorithm, &pool, &[addr(1), addr(2)], &[0, 0, 1]);
            assert!(pool.pick(&mut rand::rng(), &[addr(2), addr(1), addr(3)]).is_none());
        }
    }

    #[test]
    fn there_is_nothing_to_pick_where_none_is_up_or_none_has_a_share() {
        for algorithm in ALGORITHMS {
            let rng = &mut rand::rng();
            let all_down = pool(algorithm, &[1, 1]);
            for server in all_down.servers() {
                server.set_health(down(), UNIX_EPOCH);
            }
            assert!(all_down.pick(rng, &[]).is_none());
            assert!(pool(algorithm, &[0, 0]).pick(rng, &[]).is_none());
            assert!(pool(algorithm, &[]).pick(rng, &[]).is_none());
        }
    }

    #[test]
    fn a_server_that_is_up_is_always_found_while_the_others_flap() {
        for algorithm in ALGORITHMS {
            let pool = pool(algorithm, &[1, 1, 1]);
            std::thread::scope(|scope| {
                let flapping = scope.spawn(|| {
                    for _ in 0..2_000 {
                        pool.servers()[0].set_health(down(), UNIX_EPOCH);
                        pool.servers()[2].set_health(down(), UNIX_EPOCH);
                        pool.servers()[0].set_health(Health::Up, UNIX_EPOCH);
                        pool.servers()[2].set_health(Health::Up, UNIX_EPOCH);
                    }
                });
                while !flapping.is_finished() {
                    assert!(pool.pick(&mut rand::rng(), &[]).is_some(), "{algorithm:?}");
                }
            });
        }
    }
}
