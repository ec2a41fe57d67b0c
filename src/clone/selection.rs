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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::config::CloneSelection::{LeastSessions, Random, Rendezvous, RoundRobin};

    fn candidates(of: &[(u16, u64)]) -> Vec<Candidate> {
        let candidate = |(n, (ratio, sessions)): (u8, &(u16, u64))| Candidate {
            addr: SocketAddr::from(([10, 0, 0, n], 80)),
            ratio: *ratio,
            sessions: *sessions,
        };
        (1..).zip(of).map(candidate).collect()
    }

    /// How often each candidate is chosen in so many turns.
    fn shares(selection: CloneSelection, of: &[(u16, u64)], turns: u64) -> Vec<usize> {
        let (candidates, mut rng) = (candidates(of), StdRng::seed_from_u64(1));
        let hash = StableHash::new("vs");
        let mut chosen: HashMap<SocketAddr, usize> = HashMap::new();
        for turn in 0..turns {
            let server = choose(selection, &candidates, turn, hash.of(&turn.to_be_bytes()), &mut rng);
            *chosen.entry(server.expect("there are candidates")).or_default() += 1;
        }
        candidates.iter().map(|candidate| chosen.get(&candidate.addr).copied().unwrap_or(0)).collect()
    }

    #[test]
    fn every_selection_honours_ratios_and_never_takes_ratio_0() {
        assert_eq!(shares(RoundRobin, &[(1, 0), (0, 0), (2, 0)], 300), [100, 0, 200]);
        for selection in [Random, Rendezvous] {
            let shares = shares(selection, &[(1, 0), (0, 0), (2, 0), (3, 0)], 6000);
            for (share, expected) in shares.iter().zip([1000, 0, 2000, 3000]) {
                assert!(share.abs_diff(expected) < 150, "{selection:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn least_sessions_takes_the_emptiest_for_its_ratio_and_chance_among_equals() {
        assert_eq!(shares(LeastSessions, &[(1, 5), (0, 0), (1, 4), (1, 9)], 10), [0, 0, 10, 0]);
        assert_eq!(shares(LeastSessions, &[(1, 5), (4, 16)], 10), [0, 10], "4 for each is less than 5");
        let equals = shares(LeastSessions, &[(1, 0), (1, 0), (1, 1)], 1000);
        assert!(equals[0] > 400 && equals[1] > 400 && equals[2] == 0, "{equals:?}");
    }

    #[test]
    fn under_least_sessions_members_fill_by_their_ratios_whatever_they_begin_with() {
        let (mut candidates, mut rng) =
            (candidates(&[(1, 0), (2, 90), (0, 0), (3, 10)]), StdRng::seed_from_u64(1));
        for _ in 0..500 {
            let chosen = choose(LeastSessions, &candidates, 0, 0, &mut rng).expect("a candidate");
            let chosen = candidates.iter_mut().find(|candidate| candidate.addr == chosen);
            chosen.expect("it is one of them").sessions += 1;
        }
        let sessions: Vec<_> = candidates.iter().map(|candidate| candidate.sessions).collect();
        assert_eq!(sessions, [100, 200, 0, 300]);
    }

    #[test]
    fn of_sessions_in_any_number_a_sample_takes_its_share() {
        let hash = StableHash::new("web");
        for permille in [1, 5, 100, 500, 999] {
            let sampled = |n: &u32| hash.is_sampled(format!("cookie:SID={n:08x}").as_bytes(), permille);
            let taken = (0..200_000).filter(sampled).count();
            let expected = 200 * usize::from(permille);
            // Five times the deviation that chance allows.
            let bound = 5.0 * (expected as f64 * (1.0 - f64::from(permille) / 1000.0)).sqrt();
            assert!((taken.abs_diff(expected) as f64) < bound, "{permille}: {taken}");
        }
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        for selection in [Random, RoundRobin, LeastSessions, Rendezvous] {
            for none in [candidates(&[]), candidates(&[(0, 0), (0, 0)])] {
                assert_eq!(choose(selection, &none, 3, 4, &mut StdRng::seed_from_u64(1)), None);
            }
        }
    }

    #[test]
    fn under_rendezvous_a_member_that_goes_moves_only_its_own_sessions() {
        let (all, mut rng) = (candidates(&[(1, 0), (1, 0), (1, 0)]), StdRng::seed_from_u64(1));
        let hash = StableHash::new("vs");
        for session in 0..1000_u32 {
            let session = hash.of(&session.to_be_bytes());
            let before = choose(Rendezvous, &all, 0, session, &mut rng).expect("a candidate");
            let after = choose(Rendezvous, &all[1..], 0, session, &mut rng).expect("a candidate");
            assert!(before == all[0].addr || before == after);
        }
    }

    #[test]
    fn a_sample_is_whole_sessions_and_the_same_everywhere() {
        let hash = StableHash::new("virtualservice-dc871051");
        let sampled = |permille| {
            let session = |n: &u32| hash.is_sampled(&n.to_be_bytes(), permille);
            (0..10_000).filter(session).collect::<Vec<_>>()
        };
        assert_eq!((sampled(0).len(), sampled(1000).len()), (0, 10_000));
        let tenth = sampled(100);
        assert!(tenth.len().abs_diff(1000) < 100, "{}", tenth.len());
        assert!(
            tenth.iter().all(|session| sampled(200).contains(session)),
            "a larger sample has the smaller"
        );
        // Other nodes, and other versions, must agree on this.
        assert_eq!(hash.of(b"cookie:SID=1"), 9_734_633_093_532_450_350);
    }
}
