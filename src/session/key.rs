//! Keys of the table: keyed hashes, so that the table holds no token, and no client can choose where it falls.

use std::{fmt, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

/// A key in a named table: a keyed hash of both, whose last 16 bits are the table's number instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey {
    high: u64,
    low: u64,
}

impl SessionKey {
    /// `seed` is random for every process. The table's name is hashed too, for some tables share a number.
    pub(super) fn new(seed: &[u8; 16], table: &str, number: u16, key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(seed);
        hasher.write_usize(table.len());
        hasher.write(table.as_bytes());
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
        let keys =
            [([1; 16], "t", b"key"), ([2; 16], "t", b"key"), ([1; 16], "u", b"key"), ([1; 16], "t", b"kez")]
                .map(|(seed, table, key)| SessionKey::new(&seed, table, 7, key));
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(key.table(), 7);
            assert_eq!(SessionKey::parse(&key.to_string()), Some(*key));
            assert!(keys[..n].iter().all(|other| other.hash() != key.hash()), "{keys:?}");
        }
        let apart = SessionKey::new(&[1; 16], "tk", 7, b"ey");
        assert_ne!(apart.hash(), keys[0].hash(), "where the name ends counts");
    }

    #[test]
    fn what_is_no_key_is_not_parsed() {
        for text in ["", "7", "+0000000000000000000000000000007", &"0".repeat(33), &"ü".repeat(16)] {
            assert_eq!(SessionKey::parse(text), None, "{text}");
        }
    }
}
