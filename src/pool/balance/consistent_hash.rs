//! Consistent hash: requests with the same key go to the same server, on every node and after every restart.
//!
//! Weighted rendezvous: every candidate draws a number from the key and its own address, and the best draw for its
//! ratio wins. So a server that comes or goes moves only the keys that it wins or had won, a change of its ratio
//! moves only the difference, and the keys of a server that is down or was tried are spread over the others by
//! their ratios. A ring of virtual nodes (ketama) finds its server without a look at each, but wants hundreds of
//! points for a server to be fair, memory by ratio, and a walk past the servers that are down; here it is eight
//! bytes for a server and some nanoseconds for each at a pick.
//!
//! A request without the key, as one without the header, takes turns as in round robin.

use std::{
    hash::Hasher,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rand::RngCore;
use siphasher::sip::SipHasher13;

use super::{Balance, Candidates, RoundRobin};
use crate::pool::Server;

/// The hash of what a request is balanced by, the same on every node.
pub fn hash_of(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.finish()
}

/// What each server draws from, and the turns of requests without a key.
pub(super) struct ConsistentHash {
    /// By index of the server.
    seeds: Box<[u64]>,
    turns: RoundRobin,
}

impl ConsistentHash {
    pub(super) fn new(servers: &[Arc<Server>]) -> Self {
        let seeds = servers.iter().map(|server| seed(server.addr())).collect();
        Self { seeds, turns: RoundRobin::new(servers.len()) }
    }
}

impl Balance for ConsistentHash {
    fn choose(&self, candidates: Candidates<'_>, _: &mut dyn RngCore) -> Option<usize> {
        let Some(key) = candidates.asking.hash else { return self.turns.next(candidates.iter()) };
        let score = |(index, server): (usize, &Server)| {
            (server.weight() as f64 / -draw(key ^ self.seeds[index]).ln(), index)
        };
        candidates.iter().map(score).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, index)| index)
    }
}

/// By address, so that a server keeps its keys wherever it stands in the list.
fn seed(addr: SocketAddr) -> u64 {
    let mut hasher = SipHasher13::new();
    match addr.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(&addr.port().to_be_bytes());
    hasher.finish()
}

/// A number between 0 and 1, both excluded, that follows from `seed` alone. The mixing is that of SplitMix64.
fn draw(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    ((z >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use super::*;
    use crate::{
        config::{self, LbAlgorithm},
        pool::{Asking, Health, Pool, fixture},
    };

    const KEYS: u64 = 100_000;

    fn pool(ratios: &[u16]) -> Arc<Pool> {
        fixture::pool(LbAlgorithm::ConsistentHash, ratios)
    }

    /// The server of each key.
    fn places(pool: &Pool) -> Vec<SocketAddr> {
        let place = |key: u64| {
            let asking = Asking { hash: Some(hash_of(&key.to_be_bytes())), ..Asking::default() };
            pool.pick_for(&mut rand::rng(), &asking).expect("a server is up").addr()
        };
        (0..KEYS).map(place).collect()
    }

    /// How many keys moved, all of which were on `server` or are now.
    fn moved(before: &[SocketAddr], after: &[SocketAddr], server: SocketAddr) -> usize {
        let moved: Vec<_> = before.iter().zip(after).filter(|(before, after)| before != after).collect();
        let others = moved.iter().filter(|(before, after)| **before != server && **after != server).count();
        assert_eq!(others, 0, "{server} came or went, and others' keys moved");
        moved.len()
    }

    #[test]
    fn a_server_that_is_down_moves_its_own_keys_and_gets_the_same_back() {
        let pool = pool(&[1; 10]);
        let before = places(&pool);
        let first = &pool.servers()[0];
        first.set_health(fixture::down(), UNIX_EPOCH);
        let without = places(&pool);
        let moved = moved(&before, &without, first.addr());
        assert!(moved.abs_diff(10_000) < 500, "a tenth moves: {moved}");
        for server in &pool.servers()[1..] {
            let keys = without.iter().filter(|place| **place == server.addr()).count();
            assert!(keys.abs_diff(11_111) < 500, "what moved is spread: {keys}");
        }
        first.set_health(Health::Up, UNIX_EPOCH);
        assert_eq!(places(&pool), before);
    }

    #[test]
    fn a_server_more_takes_its_share_and_no_other_key_moves() {
        let moved = moved(&places(&pool(&[1; 9])), &places(&pool(&[1; 10])), fixture::addr(10));
        assert!(moved.abs_diff(10_000) < 500, "a tenth moves: {moved}");
    }

    #[test]
    fn a_greater_ratio_moves_the_difference() {
        let moved = moved(&places(&pool(&[1, 1])), &places(&pool(&[3, 1])), fixture::addr(1));
        assert!(moved.abs_diff(25_000) < 1_000, "from a half to three quarters: {moved}");
    }

    #[test]
    fn the_order_of_the_configuration_does_not_matter() {
        let mut config = fixture::config(LbAlgorithm::ConsistentHash, &[1, 2, 3, 4]);
        let ordered = fixture::build(config.clone());
        config.servers.reverse();
        assert_eq!(places(&ordered), places(&fixture::build(config)));
    }

    #[test]
    fn nodes_and_versions_agree() {
        let keys = ["alice", "bob", "carol", "dave"];
        let config = config::Pool {
            algorithm: LbAlgorithm::ConsistentHash,
            ..config::Pool::of("app".into(), (1..=4).map(fixture::addr))
        };
        let pool = fixture::build(config);
        let place = |key: &str| {
            let asking = Asking { hash: Some(hash_of(key.as_bytes())), ..Asking::default() };
            pool.servers().iter().position(|server| {
                server.addr() == pool.pick_for(&mut rand::rng(), &asking).expect("a server is up").addr()
            })
        };
        assert_eq!(keys.map(place), [Some(1), Some(3), Some(3), Some(0)]);
    }

    #[test]
    fn a_request_without_the_key_takes_its_turn() {
        let pool = pool(&[1, 2, 1]);
        let mut picks = [0; 3];
        for _ in 0..100_000 {
            let picked = pool.pick(&mut rand::rng(), &[]).expect("a server is up").addr();
            picks[pool.servers().iter().position(|server| server.addr() == picked).unwrap()] += 1;
        }
        assert_eq!(picks, [25_000, 50_000, 25_000]);
    }
}
