//! When a key wants an operator's attention: it is old, it is worn, or others can read it.
//!
//! A concern stops nothing. Sealing goes on past the limits, because stopping would hand a switch to anyone who
//! can send requests; what is told here is meant for logs, metrics and `homing keys list`.

use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{Key, KeyState};

/// What the file system says of the file that a key came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// When it was written; a key's age counts from here, for the file itself holds no date. Copies for other
    /// sites keep the date with `cp -p` or `rsync -t`. `None`: not known, as of a file in memory.
    pub modified: Option<SystemTime>,
    /// Others than its owner may use it.
    pub used_by_others: bool,
}

/// Why a key should be looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum KeyConcern {
    #[error(
        "it is active and its file is older than 7 days; rotate it: `homing keys new` makes the next one"
    )]
    Old,
    #[error(
        "this process has sealed more than 2^31 cookies with it; rotate it: `homing keys new` makes the next one"
    )]
    Worn,
    #[error("its file can be used by others than its owner; chmod 600 it")]
    Exposed,
}

impl KeyConcern {
    /// Every concern.
    pub const ALL: [Self; 3] = [Self::Old, Self::Worn, Self::Exposed];

    /// The word in metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Old => "age",
            Self::Worn => "seals",
            Self::Exposed => "file_mode",
        }
    }
}

impl Key {
    /// How long ago its file was written; none at all where the clock was set back behind that.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        Some(now.duration_since(self.file.modified?).unwrap_or_default())
    }

    /// Whether there is a concern, after `seals` cookies that this process sealed with the key.
    pub fn causes(&self, concern: KeyConcern, seals: u64, now: SystemTime) -> bool {
        let active = self.state == KeyState::Active;
        match concern {
            KeyConcern::Old => active && self.age(now).is_some_and(|age| age > OLDEST),
            KeyConcern::Worn => active && seals > MOST_SEALS,
            KeyConcern::Exposed => self.file.used_by_others,
        }
    }
}

const OLDEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Half of what random nonces of 12 bytes allow before two agree with a probability of 2^-32 (NIST SP 800-38D, 8.3).
const MOST_SEALS: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::site_cookie::Secret;

    const DAY: u64 = 24 * 3600;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn key(state: KeyState, modified: Option<SystemTime>, used_by_others: bool) -> Key {
        let file = KeyFile { modified, used_by_others };
        Key { uuid: "509CEEBD-0913-4a6f-8b1e-2f0d3c4b5a69".into(), state, secret: Secret::new([7; 32]), file }
    }

    fn concerns(key: &Key, seals: u64, now: u64) -> Vec<&'static str> {
        let caused = KeyConcern::ALL.into_iter().filter(|concern| key.causes(*concern, seals, at(now)));
        caused.map(KeyConcern::as_str).collect()
    }

    #[test]
    fn a_key_is_of_concern_when_it_is_old_worn_or_exposed() {
        use KeyState::{Active, Next, Retiring};
        let made = 1_000 * DAY;
        for (state, exposed, seals, now, expected) in [
            (Active, false, 0, made, &[][..]),
            (Active, false, 1 << 31, made + 7 * DAY, &[]),
            (Active, false, 0, made + 7 * DAY + 1, &["age"]),
            (Active, false, (1 << 31) + 1, made, &["seals"]),
            (Active, true, u64::MAX, made + 90 * DAY, &["age", "seals", "file_mode"]),
            (Next, false, u64::MAX, made + 90 * DAY, &[]),
            (Retiring, true, u64::MAX, made + 90 * DAY, &["file_mode"]),
        ] {
            let key = key(state, Some(at(made)), exposed);
            assert_eq!(concerns(&key, seals, now), expected, "{state:?} {exposed} {seals} {now}");
        }
    }

    #[test]
    fn a_clock_that_jumps_makes_no_key_younger_than_new_and_a_key_without_date_never_old() {
        let young = key(KeyState::Active, Some(at(1_000 * DAY)), false);
        assert_eq!(young.age(at(10 * DAY)), Some(Duration::ZERO));
        assert_eq!(concerns(&young, 0, 10 * DAY), [""; 0]);
        assert_eq!(concerns(&young, 0, 9_000 * DAY), ["age"], "forward, and it is as old as the clock says");
        let undated = key(KeyState::Active, None, false);
        assert_eq!((undated.age(at(DAY)), concerns(&undated, 0, 9_000 * DAY)), (None, vec![]));
    }

    #[test]
    fn a_key_is_called_by_what_stands_in_cookies() {
        assert_eq!(key(KeyState::Next, None, false).kid(), "509ceebd-0913-4a");
    }
}
