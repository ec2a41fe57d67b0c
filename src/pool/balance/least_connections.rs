//! Least connections: the server with the least in flight for its ratio.
//!
//! Among servers with equal load, as all are that have nothing to do, turns are taken as in round robin. So a
//! quiet pool shares by ratio too, and a small server that is idle is preferred to a big one that is busy.
//! (Counting the coming request, `(inflight + 1) / ratio`, would starve small servers while traffic is light.)

use rand::RngCore;

use super::{Balance, Candidates, RoundRobin};

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
        let (least, first) = candidates.iter().map(|(index, server)| (server.load(), index)).min()?;
        let equals = candidates.iter().filter(|(_, server)| server.load() <= least);
        // Between the two looks all of them may have become busier.
        self.turns.next(equals).or(Some(first))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use crate::{
        config::LbAlgorithm,
        pool::{Health, Lease, Pool, fixture},
    };

    fn inflight(pool: &Pool) -> Vec<u64> {
        pool.servers().iter().map(|server| server.inflight()).collect()
    }

    #[test]
    fn what_is_in_flight_is_in_proportion_to_the_ratios() {
        let pool = fixture::pool(LbAlgorithm::LeastConnections, &[1, 2, 3, 0]);
        let mut rng = rand::rng();
        let leases: Vec<_> = (0..600).map(|_| pool.pick(&mut rng, &[]).unwrap()).collect();
        assert_eq!(inflight(&pool), [100, 200, 300, 0]);
        drop(leases);
        assert_eq!(inflight(&pool), [0, 0, 0, 0]);
    }

    #[test]
    fn the_idle_server_is_picked_whoever_has_the_turn() {
        let pool = fixture::pool(LbAlgorithm::LeastConnections, &[100, 1, 100]);
        let _busy = (pool.servers()[0].lease(), pool.servers()[2].lease());
        for _ in 0..10 {
            assert_eq!(pool.pick(&mut rand::rng(), &[]).unwrap().addr(), fixture::addr(2));
        }
    }

    #[test]
    fn requests_that_end_in_any_order_are_shared_evenly() {
        let pool = fixture::pool(LbAlgorithm::LeastConnections, &[1, 1, 1]);
        let mut rng = StdRng::seed_from_u64(1);
        let mut in_flight: Vec<Lease> = Vec::new();
        let mut counts = [0_usize; 3];
        for _ in 0..100_000 {
            if in_flight.len() == 50 {
                let ended = rng.random_range(0..in_flight.len());
                drop(in_flight.swap_remove(ended));
            }
            let lease = pool.pick(&mut rng, &[]).unwrap();
            counts[pool.servers().iter().position(|server| server.addr() == lease.addr()).unwrap()] += 1;
            in_flight.push(lease);
        }
        assert!(counts.iter().all(|count| count.abs_diff(33_333) < 500), "{counts:?}");
    }

    #[test]
    fn a_server_that_returns_gets_no_more_in_flight_than_its_share() {
        let pool = fixture::pool(LbAlgorithm::LeastConnections, &[1, 1, 2]);
        pool.servers()[0].set_health(fixture::down(), UNIX_EPOCH);
        let mut rng = StdRng::seed_from_u64(1);
        let mut in_flight: Vec<_> = (0..80).map(|_| pool.pick(&mut rng, &[]).unwrap()).collect();
        pool.servers()[0].set_health(Health::Up, UNIX_EPOCH);
        for _ in 0..100_000 {
            drop(in_flight.swap_remove(rng.random_range(0..in_flight.len())));
            in_flight.push(pool.pick(&mut rng, &[]).unwrap());
            let now = inflight(&pool);
            assert!(now[0] <= 21, "a quarter of 80, and one: {now:?}");
        }
    }
}
