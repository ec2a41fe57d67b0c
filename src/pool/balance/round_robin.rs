//! Round robin, weighted and smooth: servers of ratio 5, 1 and 1 take turns as `a a b a c a a`, not `a a a a a b c`.
//!
//! Every candidate earns its ratio at each turn; the richest is chosen and pays what all have earned. This is
//! nginx's smooth weighted round robin. The credits are behind one mutex that is held for as long as it takes to
//! walk the servers: turns are exact whatever number of threads take them, and a server that is down or was
//! tried already neither earns nor pays, so its turns fall to the others by their ratios, and it has no arrears
//! to catch up with when it returns. A sequence worked out beforehand with an atomic cursor would spare the lock,
//! but would have to skip over such servers for as long as they are away.

use parking_lot::Mutex;
use rand::RngCore;

use super::{Balance, Candidates};
use crate::pool::Server;

/// Whose turn it is.
pub(super) struct RoundRobin {
    /// By index of the server. Their sum is always 0.
    credits: Mutex<Box<[i64]>>,
}

impl RoundRobin {
    pub(super) fn new(servers: usize) -> Self {
        Self { credits: Mutex::new(vec![0; servers].into()) }
    }

    /// The server whose turn it is among these.
    pub(super) fn next<'a>(&self, servers: impl Iterator<Item = (usize, &'a Server)>) -> Option<usize> {
        let mut credits = self.credits.lock();
        let mut earned = 0;
        let mut richest: Option<usize> = None;
        for (index, server) in servers {
            let weight = server.weight() as i64;
            credits[index] += weight;
            earned += weight;
            if richest.is_none_or(|richest| credits[index] > credits[richest]) {
                richest = Some(index);
            }
        }
        let richest = richest?;
        credits[richest] -= earned;
        Some(richest)
    }
}

impl Balance for RoundRobin {
    fn choose(&self, candidates: Candidates<'_>, _: &mut dyn RngCore) -> Option<usize> {
        self.next(candidates.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use crate::{config::LbAlgorithm, pool::fixture};

    #[test]
    fn a_heavy_server_does_not_get_its_turns_in_a_row() {
        let pool = fixture::pool(LbAlgorithm::RoundRobin, &[5, 1, 1]);
        let mut rng = rand::rng();
        let turns: Vec<_> = (0..14).map(|_| pool.pick(&mut rng, &[]).unwrap().addr()).collect();
        let expected = [1, 1, 2, 1, 3, 1, 1, 1, 1, 2, 1, 3, 1, 1].map(fixture::addr);
        assert_eq!(turns, expected);
    }

    #[test]
    fn turns_are_exact_when_many_threads_take_them() {
        let pool = fixture::pool(LbAlgorithm::RoundRobin, &[1, 2, 1]);
        let counts = [const { AtomicUsize::new(0) }; 3];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..12_500 {
                        let lease = pool.pick(&mut rand::rng(), &[]).unwrap();
                        let index = pool.servers().iter().position(|s| s.addr() == lease.addr()).unwrap();
                        counts[index].fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(counts.map(AtomicUsize::into_inner), [25_000, 50_000, 25_000]);
    }
}
