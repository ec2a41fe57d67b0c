//! Which member a new session gets, and whether it gets one at all. Pure: chance and turn are arguments.
//!
//! Sampling and rendezvous choose by a hash that every node computes alike, seeded by the virtual service.

use std::{hash::Hasher, net::SocketAddr};

use rand::{Rng, RngCore};
use siphasher::sip::SipHasher24;

use crate::config::CloneSelection;

/// A member that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub addr: SocketAddr,
    /// Its part relative to the others'; 0: none.
    pub ratio: u16,
    /// The sessions that it has; asked for by [`CloneSelection::LeastSessions`] only.
    pub sessions: u64,
}

/// Chooses a member for a new session. `turn` counts the choices that were made, `session` is of
/// [`StableHash`]. `None`: no candidate has a ratio above 0.
pub fn choose(
    selection: CloneSelection,
    candidates: &[Candidate],
    turn: u64,
    session: u64,
    rng: &mut dyn RngCore,
) -> Option<SocketAddr> {
    let chosen = match selection {
        CloneSelection::Random => {
            let total = total(candidates)?;
            at(candidates, rng.random_range(0..total))
        }
        CloneSelection::RoundRobin => at(candidates, turn % total(candidates)?),
        CloneSelection::LeastSessions => least_sessions(candidates, rng),
        CloneSelection::Rendezvous => rendezvous(candidates, session),
    };
    chosen.map(|candidate| candidate.addr)
}

/// A hash that is the same on every node and in every run.
#[derive(Clone, Copy, Debug)]
pub struct StableHash {
    seed: (u64, u64),
}

impl StableHash {
    /// Seeded by the virtual service: its uuid, or its name where it has none.
    pub fn new(virtual_service: &str) -> Self {
        let half = |n| hash((n, 0), virtual_service.as_bytes());
        Self { seed: (half(0), half(1)) }
    }

    /// The hash of a session's token.
    pub fn of(&self, token: &[u8]) -> u64 {
        hash(self.seed, token)
    }

    /// Whether a session belongs to the sample, of so many sessions in a thousand.
    pub fn is_sampled(&self, token: &[u8], permille: u16) -> bool {
        permille >= 1000 || (permille > 0 && self.of(token) % 1000 < u64::from(permille))
    }
}

fn hash((a, b): (u64, u64), bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(a, b);
    hasher.write(bytes);
    hasher.finish()
}

/// The sum of the ratios, if it is above 0.
fn total(candidates: &[Candidate]) -> Option<u64> {
    Some(candidates.iter().map(|candidate| u64::from(candidate.ratio)).sum()).filter(|total| *total > 0)
}

/// The candidate in whose part of the sum of ratios a point lies.
fn at(candidates: &[Candidate], mut point: u64) -> Option<&Candidate> {
    candidates.iter().find(|candidate| {
        let ratio = u64::from(candidate.ratio);
        let here = point < ratio;
        point = point.saturating_sub(ratio);
        here
    })
}

/// The one with the fewest sessions for its ratio; chance decides between equals.
fn least_sessions<'a>(candidates: &'a [Candidate], rng: &mut dyn RngCore) -> Option<&'a Candidate> {
    let mut best: Option<&Candidate> = None;
    let mut equals = 0;
    for candidate in candidates.iter().filter(|candidate| candidate.ratio > 0) {
        let load = |c: &Candidate, other: &Candidate| u128::from(c.sessions) * u128::from(other.ratio);
        match best.map(|best| load(candidate, best).cmp(&load(best, candidate))) {
            None | Some(std::cmp::Ordering::Less) => {
                best = Some(candidate);
                equals = 1;
            }
            Some(std::cmp::Ordering::Equal) => {
                equals += 1;
                if rng.random_range(0..equals) == 0 {
                    best = Some(candidate);
                }
            }
            Some(std::cmp::Ordering::Greater) => {}
        }
    }
    best
}

/// Highest random weight, with ratios as weights: a member that goes moves only its own sessions.
fn rendezvous(candidates: &[Candidate], session: u64) -> Option<&Candidate> {
    let score = |candidate: &Candidate| {
        let point = hash((session, 0), candidate.addr.to_string().as_bytes());
        // Between 0 and 1, both excluded.
        let point = ((point >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(candidate.ratio) / -point.ln()
    };
    let candidates = candidates.iter().filter(|candidate| candidate.ratio > 0);
    candidates.max_by(|a, b| score(a).total_cmp(&score(b)))
}
