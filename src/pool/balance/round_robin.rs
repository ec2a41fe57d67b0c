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
            let ratio = i64::from(server.config().ratio);
            credits[index] += ratio;
            earned += ratio;
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
