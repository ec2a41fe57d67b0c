//! Keys of the table: keyed hashes, so that the table holds no token, and no client can choose where it falls.

use std::{fmt, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

/// A key in a named table: a keyed hash of both, whose last 16 bits are the table's number instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey {
    high: u64,
    low: u64,
}

/// What the keys of one table are hashed with, so that the same key is another one in each.
#[derive(Clone, Copy)]
pub(super) struct TableSeed([u8; 16]);

impl TableSeed {
    /// `seed` is random, and the same where sessions are handed over.
    pub fn new(seed: &[u8; 16], table: &str) -> Self {
        let mut hasher = SipHasher13::new_with_key(seed);
        hasher.write(table.as_bytes());
        Self(hasher.finish128().as_bytes())
    }
}

impl SessionKey {
    /// `number` is the table's, which is not hashed: another process may number its tables otherwise.
    pub(super) fn new(seed: &TableSeed, number: u16, key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(&seed.0);
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

    /// Both halves, for another process with the same seed.
    pub(super) fn halves(&self) -> (u64, u64) {
        (self.high, self.low)
    }

    /// The key of these halves in a table that has another number here.
    pub(super) fn numbered(halves: (u64, u64), number: u16) -> Self {
        Self { high: halves.0, low: halves.1 & !TABLE | u64::from(number) }
    }

    /// The number of its table.
    pub(super) fn table(&self) -> u16 {
        Self::table_of(self.halves())
    }

    /// The number of the table of a key with these halves.
    pub(super) fn table_of(halves: (u64, u64)) -> u16 {
        (halves.1 & TABLE) as u16
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
            ([1; 16], "v", 0, "key"),
            ([1; 16], "w", 0, "key"),
            ([1; 16], "vk", 0, "ey"),
        ]
        .map(|(seed, table, number, key)| {
            SessionKey::new(&TableSeed::new(&seed, table), number, key.as_bytes())
        });
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(SessionKey::parse(&key.to_string()), Some(*key));
            assert!(keys[..n].iter().all(|other| other.hash() != key.hash()), "{keys:?}");
        }
        assert_eq!([keys[0].table(), keys[2].table()], [7, 8]);
        let renumbered = SessionKey::numbered(keys[0].halves(), 9);
        assert_eq!((renumbered.table(), SessionKey::numbered(renumbered.halves(), 7)), (9, keys[0]));
    }

    #[test]
    fn what_is_no_key_is_not_parsed() {
        for text in ["", "7", "+0000000000000000000000000000007", &"0".repeat(33), &"ü".repeat(16)] {
            assert_eq!(SessionKey::parse(text), None, "{text}");
        }
    }
}
