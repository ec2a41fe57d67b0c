//! Slow start in virtual time: what servers get while one of them comes back.

use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use rand::{SeedableRng, rngs::StdRng};

use super::{Asking, hash_of};
use crate::{
    config::LbAlgorithm,
    metrics::Metrics,
    pool::{
        AdminState, Health, Pool,
        fixture::{build, config, down},
    },
};

const RAMP: Duration = Duration::from_secs(600);

fn ramping(algorithm: LbAlgorithm, servers: usize) -> Arc<Pool> {
    let mut config = config(algorithm, &vec![1; servers]);
    config.lifecycle.ramp = RAMP;
    build(config)
}

/// How many of 30,000 picks the first server gets.
fn first_of(pool: &Pool, key: &mut u64) -> usize {
    let mut rng = StdRng::seed_from_u64(1);
    let mut pick = || {
        *key += 1;
        let asking = Asking { hash: Some(hash_of(&key.to_be_bytes())), ..Asking::default() };
        pool.pick_for(&mut rng, &asking).expect("a server is up").addr() == pool.servers()[0].addr()
    };
    (0..30_000).filter(|_| pick()).count()
}

#[test]
fn a_server_that_returns_comes_to_its_share_in_a_straight_line() {
    for algorithm in [
        LbAlgorithm::RoundRobin,
        LbAlgorithm::Random,
        LbAlgorithm::LeastConnections,
        LbAlgorithm::ConsistentHash,
        LbAlgorithm::FastestResponse,
    ] {
        let (pool, start, mut key) = (ramping(algorithm, 3), Instant::now(), 0);
        pool.servers()[0].set_health(down(), UNIX_EPOCH);
        pool.servers()[0].set_health(Health::Up, UNIX_EPOCH);
        for percent in [0, 25, 50, 75, 100_u32] {
            pool.advance(start + RAMP * percent / 100, UNIX_EPOCH);
            let share = f64::from(percent.max(1)) / 100.0;
            let expected = (30_000.0 * share / (2.0 + share)) as usize;
            let got = first_of(&pool, &mut key);
            assert!(got.abs_diff(expected) < 450, "{algorithm:?} at {percent} %: {got}, not {expected}");
        }
    }
}

#[test]
fn servers_that_are_new_or_enabled_again_ramp_and_those_of_the_start_do_not() {
    let metrics = Metrics::new();
    let pool = ramping(LbAlgorithm::RoundRobin, 2);
    let ramps =
        |pool: &Pool| pool.servers().iter().map(|server| server.ramp().unwrap_or(1000)).collect::<Vec<_>>();
    assert_eq!(ramps(&pool), [1000, 1000]);
    let with = |before: &Pool, change: &dyn Fn(&mut crate::config::Pool)| {
        let mut config = crate::config::Pool::clone(before.config());
        change(&mut config);
        Pool::new(&Arc::new(config), &metrics, Some(before), UNIX_EPOCH)
    };
    let added =
        with(&pool, &|pool| pool.servers.push(config(LbAlgorithm::Random, &[1; 3]).servers[2].clone()));
    assert_eq!(ramps(&added), [1000, 1000, 10]);
    let start = Instant::now();
    added.advance(start, UNIX_EPOCH);
    added.advance(start + RAMP / 2, UNIX_EPOCH);
    assert_eq!(
        ramps(&with(&added, &|pool| pool.servers[0].ratio = 2)),
        [1000, 1000, 500],
        "kept by a reload"
    );
    assert_eq!(ramps(&with(&added, &|pool| pool.lifecycle.ramp = Duration::ZERO)), [1000; 3]);
    let disabled = with(&pool, &|pool| pool.servers[0].enabled = false);
    assert_eq!(ramps(&with(&disabled, &|pool| pool.servers[0].enabled = true)), [10, 1000]);
    for away in [AdminState::Draining, AdminState::Disabled] {
        let server = &pool.servers()[1];
        server.order(away, "uid 0", UNIX_EPOCH);
        server.order(AdminState::Enabled, "uid 0", UNIX_EPOCH);
        assert_eq!(server.ramp().unwrap_or(1000), 10);
        pool.advance(start, UNIX_EPOCH);
        pool.advance(start + RAMP, UNIX_EPOCH);
        assert_eq!(server.ramp().unwrap_or(1000), 1000);
    }
}

#[test]
fn a_server_has_places_by_its_share() {
    let mut config = config(LbAlgorithm::RoundRobin, &[1]);
    config.lifecycle.ramp = RAMP;
    config.lifecycle.most_per_server = std::num::NonZeroU64::new(40);
    let (pool, start) = (build(config), Instant::now());
    pool.servers()[0].set_health(down(), UNIX_EPOCH);
    pool.servers()[0].set_health(Health::Up, UNIX_EPOCH);
    let mut held = Vec::new();
    for (percent, places) in [(0, 1), (50, 20), (100, 40)] {
        pool.advance(start + RAMP * percent / 100, UNIX_EPOCH);
        held.extend(std::iter::from_fn(|| pool.pick(&mut rand::rng(), &[])));
        assert_eq!(held.len(), places, "at {percent} %");
    }
}
