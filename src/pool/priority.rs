//! Failover groups: servers of lower priority get requests only when too few of the higher ones can.
//!
//! The servers of the highest priority count first, then those of the next, and so on until there are enough; those
//! that count get requests, by the pool's algorithm. A server that is full counts: requests wait for it rather than
//! run over to those that are for emergencies. HAProxy says backup servers, F5 priority group activation, Envoy
//! priority levels.

use std::sync::Arc;

use super::Server;

/// The priorities of a pool that has several.
pub(super) struct Priorities {
    /// The highest first.
    levels: Box<[u8]>,
    /// How many servers are enough.
    enough: usize,
}

impl Priorities {
    /// `None`: all servers have the same.
    pub fn of(servers: &[Arc<Server>], enough: usize) -> Option<Self> {
        let mut levels: Vec<_> = servers.iter().map(|server| server.config().priority).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        (levels.len() > 1).then(|| Self { levels: levels.into(), enough })
    }

    /// The lowest priority that gets requests, where these count.
    pub fn least(&self, servers: &[Arc<Server>], counts: impl Fn(&Server) -> bool) -> u8 {
        let is_enough = |level: &&u8| {
            let high = servers.iter().filter(|server| server.config().priority >= **level);
            high.filter(|server| counts(server)).take(self.enough).count() == self.enough
        };
        self.levels.iter().find(is_enough).or(self.levels.last()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc, time::UNIX_EPOCH};

    use crate::{
        config::LbAlgorithm,
        pool::{
            Health, Pool,
            fixture::{addr, build, config, down},
        },
    };

    fn pool(priorities: &[u8], enough: u32) -> Arc<Pool> {
        let mut config = config(LbAlgorithm::RoundRobin, &vec![1; priorities.len()]);
        config.min_servers = enough;
        for (server, priority) in config.servers.iter_mut().zip(priorities) {
            server.priority = *priority;
        }
        build(config)
    }

    /// How many of 60 requests each server gets.
    fn shares(pool: &Pool, tried: &[SocketAddr]) -> Vec<usize> {
        let mut shares = vec![0; pool.servers().len()];
        for _ in 0..60 {
            let lease = pool.pick(&mut rand::rng(), tried).expect("a server is up");
            shares[pool.servers().iter().position(|server| server.addr() == lease.addr()).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn the_highest_priority_that_has_enough_servers_gets_all_and_gets_it_back() {
        let pool = pool(&[5, 10, 10, 0], 1);
        let health = |server: usize, health: Health| pool.servers()[server].set_health(health, UNIX_EPOCH);
        assert_eq!(shares(&pool, &[]), [0, 30, 30, 0]);
        health(1, down());
        assert_eq!(shares(&pool, &[]), [0, 0, 60, 0]);
        health(2, down());
        assert_eq!(shares(&pool, &[]), [60, 0, 0, 0]);
        health(0, down());
        assert_eq!(shares(&pool, &[]), [0, 0, 0, 60]);
        health(2, Health::Up);
        assert_eq!(shares(&pool, &[]), [0, 0, 60, 0]);
    }

    #[test]
    fn the_next_priority_helps_where_too_few_are_left() {
        let pool = pool(&[10, 10, 5, 5, 1], 2);
        assert_eq!(shares(&pool, &[]), [30, 30, 0, 0, 0]);
        pool.servers()[0].set_health(down(), UNIX_EPOCH);
        assert_eq!(shares(&pool, &[]), [0, 20, 20, 20, 0]);
        for server in &pool.servers()[1..4] {
            server.set_health(down(), UNIX_EPOCH);
        }
        assert_eq!(shares(&pool, &[]), [0, 0, 0, 0, 60], "fewer than enough is all there is");
    }

    #[test]
    fn a_request_that_has_tried_the_high_ones_in_vain_gets_a_lower_one() {
        let pool = pool(&[10, 10, 5], 1);
        assert_eq!(shares(&pool, &[addr(1), addr(2)]), [0, 0, 60]);
    }
}
