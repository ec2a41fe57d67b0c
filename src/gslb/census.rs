//! How many sessions have their home here: distinct site cookies of ours that were seen lately.
//!
//! An estimate by HyperLogLog (Flajolet and others, 2007), because an exact set would cost memory for every session:
//! 4,096 registers give a standard error of 1.6 %, and small numbers are nearly exact by linear counting. Minutes
//! have a sketch each, of which the last [`WINDOW`] are added up, so a session counts for as long as it was seen
//! within that time. Not counted are sessions whose client pauses for longer, and those whose first answer is their
//! last. A cookie that is issued anew counts once more until the window has passed. Where two threads begin a minute
//! together, what one of them writes may be lost; the session's next request counts it.
//!
//! Counting takes no lock and writes only where a register grows, so requests do not meet here.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::MemberId;

/// Counts the sessions of one member on this node.
pub struct Census {
    /// A ring: the sketch of a minute is at the minute's remainder.
    minutes: [Minute; MINUTES],
}

struct Minute {
    /// Which minute it is of, since 1970.
    number: AtomicU64,
    registers: [AtomicU8; REGISTERS],
}

impl Census {
    pub fn new() -> Self {
        let minute =
            || Minute { number: AtomicU64::new(0), registers: [const { AtomicU8::new(0) }; REGISTERS] };
        Self { minutes: std::array::from_fn(|_| minute()) }
    }

    /// Counts a session at `now`, Unix seconds. `session` is uniformly distributed: part of a MAC, for example.
    pub fn saw(&self, session: u64, now: u64) {
        let minute = &self.minutes[(now / 60) as usize % MINUTES];
        minute.begin(now / 60);
        let register = &minute.registers[(session >> (64 - REGISTER_BITS)) as usize];
        // The sentinel bit bounds the rank where the rest is all zeros.
        let rank = ((session << REGISTER_BITS | 1 << (REGISTER_BITS - 1)).leading_zeros() + 1) as u8;
        if register.load(Relaxed) < rank {
            register.fetch_max(rank, Relaxed);
        }
    }

    /// About how many sessions were seen within [`WINDOW`] before `now`, Unix seconds.
    pub fn sessions(&self, now: u64) -> u64 {
        let this = now / 60;
        let recent = |minute: &&Minute| {
            let number = minute.number.load(Relaxed);
            number <= this && this - number < MINUTES as u64
        };
        let recent: Vec<_> = self.minutes.iter().filter(recent).collect();
        let ranks = (0..REGISTERS).map(|register| {
            recent.iter().map(|minute| minute.registers[register].load(Relaxed)).max().unwrap_or(0)
        });
        estimate(ranks)
    }
}

impl Default for Census {
    fn default() -> Self {
        Self::new()
    }
}

impl Minute {
    /// Makes this the sketch of a minute, if it is still that of an earlier one.
    fn begin(&self, number: u64) {
        let known = self.number.load(Relaxed);
        if known == number || self.number.compare_exchange(known, number, Relaxed, Relaxed).is_err() {
            return;
        }
        for register in &self.registers {
            register.store(0, Relaxed);
        }
    }
}

/// The number of distinct values behind the registers.
fn estimate(ranks: impl Iterator<Item = u8>) -> u64 {
    let (mut sum, mut empty) = (0.0, 0);
    for rank in ranks {
        sum += 0.5_f64.powi(rank.into());
        empty += u32::from(rank == 0);
    }
    let registers = REGISTERS as f64;
    let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
    let estimate = match empty {
        1.. if raw <= 2.5 * registers => registers * (registers / f64::from(empty)).ln(),
        _ => raw,
    };
    estimate.round() as u64
}

/// The censuses of a process, by member; they outlive reloads.
#[derive(Default)]
pub struct Censuses(Mutex<HashMap<MemberId, Arc<Census>>>);

impl Censuses {
    /// The census of a member, which is made if it is the first time.
    pub fn of(&self, member: MemberId) -> Arc<Census> {
        self.0.lock().entry(member).or_default().clone()
    }
}

/// How long a session counts after its last request, to the minute.
pub const WINDOW: Duration = Duration::from_secs(60 * MINUTES as u64);

const MINUTES: usize = 10;

const REGISTER_BITS: u32 = 12;
const REGISTERS: usize = 1 << REGISTER_BITS;

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    const NOW: u64 = 1_517_875_922;

    #[test]
    fn the_estimate_is_close_for_few_and_for_many() {
        let mut rng = StdRng::seed_from_u64(1);
        for (sessions, off) in [(0, 0), (1, 0), (10, 0), (100, 3), (2_000, 100), (100_000, 5_000)] {
            let census = Census::new();
            for _ in 0..sessions {
                census.saw(rng.random(), NOW);
            }
            let counted = census.sessions(NOW);
            assert!(counted.abs_diff(sessions) <= off, "{counted} of {sessions}");
        }
    }

    #[test]
    fn a_session_counts_once_however_often_it_is_seen() {
        let census = Census::new();
        for minute in 0..8 {
            for session in [1 << 60, 2 << 60, u64::MAX, 0] {
                census.saw(session, NOW + 60 * minute);
                census.saw(session, NOW + 60 * minute);
            }
        }
        assert_eq!(census.sessions(NOW + 60 * 8), 4);
    }

    #[test]
    fn a_session_that_was_not_seen_for_the_window_is_gone() {
        let census = Census::new();
        census.saw(1 << 63, NOW);
        census.saw(1 << 62, NOW + 300);
        for (later, counted) in [(300, 2), (539, 2), (600, 1), (839, 1), (900, 0), (100_000, 0)] {
            assert_eq!(census.sessions(NOW + later), counted, "after {later} s");
        }
        census.saw(1 << 61, NOW + 600);
        assert_eq!(census.sessions(NOW + 600), 2, "the minute that is begun again is empty");
    }

    #[test]
    fn a_member_keeps_its_census() {
        let (censuses, a, b) = (Censuses::default(), MemberId::from([1; 32]), MemberId::from([2; 32]));
        censuses.of(a).saw(7, NOW);
        assert_eq!((censuses.of(a).sessions(NOW), censuses.of(b).sessions(NOW)), (1, 0));
    }
}
