//! Fastest response: of two servers drawn by ratio, the one that is likely to answer sooner.
//!
//! What an answer will take is what the server's answers take, times what it has in flight for its ratio. Two are
//! drawn rather than all compared, so that news of one fast server does not bring it every request at once: of `n`
//! equal servers none gets more than about `2 / n` of the requests, nor does one that has just returned.
//!
//! Linkerd and Finagle call this P2C with peak EWMA.

use std::sync::Arc;

use rand::RngCore;

use super::{Balance, Candidates, random::better_of_two};
use crate::pool::response_time::TypicalTime;

/// Knows what the pool's answers typically take, which is what is thought of a server that is not known yet.
pub(super) struct FastestResponse {
    typical: Arc<TypicalTime>,
}

impl FastestResponse {
    pub(super) fn new(typical: &Arc<TypicalTime>) -> Self {
        Self { typical: typical.clone() }
    }
}

impl Balance for FastestResponse {
    fn choose(&self, candidates: Candidates<'_>, rng: &mut dyn RngCore) -> Option<usize> {
        let (typical, now) = (self.typical.seconds(), candidates.asking.now);
        better_of_two(candidates, rng, |server| {
            // While nothing is known of any, what they have in flight tells them apart.
            let seconds = server.response_time().estimate(typical, now).max(SHORTEST);
            seconds * (1.0 + 1000.0 * server.inflight() as f64 / server.weight() as f64)
        })
    }
}

/// In seconds.
const SHORTEST: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::Arc,
        time::{Duration, Instant, UNIX_EPOCH},
    };

    use rand::{SeedableRng, rngs::StdRng};

    use crate::{
        config::LbAlgorithm,
        pool::{Asking, Health, Lease, Pool, fixture},
    };

    /// Servers that answer after so long, and a request in every millisecond of virtual time.
    struct Traffic {
        pool: Arc<Pool>,
        answers_after: [u64; 3],
        now: Instant,
        rng: StdRng,
        /// By the time of the answer and a number.
        in_flight: BTreeMap<(Instant, u64), (Lease, Instant)>,
        requests: u64,
    }

    impl Traffic {
        fn new(answers_after: [u64; 3]) -> Self {
            let pool = fixture::pool(LbAlgorithm::FastestResponse, &[1, 1, 1]);
            let (now, rng) = (Instant::now(), StdRng::seed_from_u64(1));
            Self { pool, answers_after, now, rng, in_flight: BTreeMap::new(), requests: 0 }
        }

        /// How many of so many requests each server got.
        fn run(&mut self, requests: u64) -> [u64; 3] {
            let mut got = [0; 3];
            for _ in 0..requests {
                self.now += Duration::from_millis(1);
                while let Some(first) = self.in_flight.first_entry().filter(|next| next.key().0 <= self.now) {
                    let ((ends, _), (lease, begun)) = first.remove_entry();
                    self.pool.answered(lease.server(), ends - begun, ends);
                }
                let asking = Asking { now: Some(self.now), ..Asking::default() };
                let lease = self.pool.pick_for(&mut self.rng, &asking).expect("a server is up");
                let index = self.pool.servers().iter().position(|server| server.addr() == lease.addr());
                let index = index.expect("it is of the pool");
                got[index] += 1;
                self.requests += 1;
                let ends = self.now + Duration::from_millis(self.answers_after[index]);
                self.in_flight.insert((ends, self.requests), (lease, self.now));
            }
            got
        }
    }

    #[test]
    fn servers_that_answer_alike_get_alike() {
        let got = Traffic::new([10, 10, 10]).run(100_000);
        assert!(got.iter().all(|got| got.abs_diff(33_333) < 1_000), "{got:?}");
    }

    #[test]
    fn a_slow_server_gets_less_until_it_is_fast_again() {
        let mut traffic = Traffic::new([10, 10, 200]);
        traffic.run(2_000);
        let slow = traffic.run(100_000);
        assert!(slow[2] > 1_000 && slow[2] < 15_000, "some, so that it is known to be slow: {slow:?}");
        assert!(slow[0].abs_diff(slow[1]) < 3_000, "{slow:?}");
        traffic.answers_after = [10; 3];
        traffic.run(60_000);
        let alike = traffic.run(100_000);
        assert!(alike.iter().all(|got| got.abs_diff(33_333) < 5_000), "{alike:?}");
    }

    #[test]
    fn one_slow_answer_counts_at_once() {
        let mut traffic = Traffic::new([10, 10, 10]);
        traffic.run(1_000);
        let server = &traffic.pool.servers()[0];
        traffic.pool.answered(server, Duration::from_secs(2), traffic.now);
        let got = traffic.run(1_000);
        assert!(got[0] < 180, "drawn twice, a ninth: {got:?}");
    }

    #[test]
    fn a_server_that_returns_is_not_flooded() {
        let mut traffic = Traffic::new([10, 10, 10]);
        traffic.run(10_000);
        let returning = traffic.pool.servers()[0].clone();
        returning.set_health(fixture::down(), UNIX_EPOCH);
        assert_eq!(traffic.run(60_000)[0], 0);
        returning.set_health(Health::Up, UNIX_EPOCH);
        let first = traffic.run(300);
        assert!(first[0] > 50 && first[0] < 170, "5/9 at most: {first:?}");
        let then = traffic.run(100_000);
        assert!(then.iter().all(|got| got.abs_diff(33_333) < 1_500), "{then:?}");
    }
}
