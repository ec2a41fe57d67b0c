//! Keys of the table: keyed hashes, so that the table holds no token, and no client can choose where it falls.

use std::{fmt, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::tables::SHARED;

/// A key in a named table: a keyed hash of both, whose last 16 bits are the table's number instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey {
    high: u64,
    low: u64,
}

impl SessionKey {
    /// `seed` is random for every process; tables that share a number are told apart by their name.
    pub(super) fn new(seed: &[u8; 16], table: &str, number: u16, key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(seed);
        hasher.write_u16(number);
        if number == SHARED {
            hasher.write_usize(table.len());
            hasher.write(table.as_bytes());
        }
        hasher.write(key);
        let hash = hasher.finish128();
        Self { high: hash.h1, low: hash.h2 & !TABLE | u64::from(number) }
    }

    /// A key as it is displayed. Nothing says that its table is there.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_key = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let half = |of| u64::from_str_radix(of, 16).ok();
        if is_key { Some(Self { high: half(&text[..16])?, low: half(&text[16..])? }) } else { None }
    }

    /// The number of its table.
    pub(super) fn table(&self) -> u16 {
        (self.low & TABLE) as u16
    }

    /// The part of the hash that places it, and that names a session by its first key.
    pub(super) fn hash(&self) -> u64 {
        self.high
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

const TABLE: u64 = u16::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_the_seed_the_table_and_the_key_and_reads_back() {
        let keys = [
            ([1; 16], "t", 7, "key"),
            ([2; 16], "t", 7, "key"),
            ([1; 16], "u", 8, "key"),
            ([1; 16], "t", 7, "kez"),
            ([1; 16], "v", SHARED, "key"),
            ([1; 16], "w", SHARED, "key"),
            ([1; 16], "vk", SHARED, "ey"),
        ]
        .map(|(seed, table, number, key)| SessionKey::new(&seed, table, number, key.as_bytes()));
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(SessionKey::parse(&key.to_string()), Some(*key));
            assert!(keys[..n].iter().all(|other| other.hash() != key.hash()), "{keys:?}");
        }
        assert_eq!([keys[0].table(), keys[2].table()], [7, 8]);
    }

    #[test]
    fn what_is_no_key_is_not_parsed() {
        for text in ["", "7", "+0000000000000000000000000000007", &"0".repeat(33), &"ü".repeat(16)] {
            assert_eq!(SessionKey::parse(text), None, "{text}");
        }
    }
}
