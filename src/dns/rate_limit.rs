//! Response rate limiting: who asks under a false address makes us flood whom it belongs to; so no network gets more
//! than some answers of one kind in a second. Of those over the limit, some go out empty and truncated, so that a
//! true client comes again by TCP.
//!
//! The memory is fixed. Where more networks ask than there are places, those that were quiet for the longest time
//! are forgotten, and start anew.

use std::{hash::Hasher, net::IpAddr, time::Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::config::DnsRateLimit;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Whole,
    /// Empty, so that the client asks again over TCP.
    Truncated,
    Dropped,
}

/// Answers that count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'q> {
    /// Of a service, or a name of a zone, and a type.
    Answer(&'q str, u16),
    /// Of whatever names that do not exist in a zone.
    Negative(&'q str),
    Error,
}

/// The accounts of all networks.
pub struct RateLimit {
    config: DnsRateLimit,
    key: [u8; 16],
    begun: Instant,
    sets: Box<[Mutex<Set>]>,
}

type Set = [Account; ACCOUNTS_PER_SET];

/// How many answers one network may still get of one kind.
#[derive(Clone, Copy, Default)]
struct Account {
    /// Tells it from others in the set; 0: free.
    mark: u32,
    /// When it was last paid into, in milliseconds.
    at: u32,
    /// Thousandths of answers.
    credit: u32,
    /// Answers over the limit.
    over: u32,
}

impl RateLimit {
    /// `key`: random, so that nobody can choose who shares a place with whom.
    pub fn new(config: DnsRateLimit, key: [u8; 16], begun: Instant) -> Self {
        Self { config, key, begun, sets: (0..SETS).map(|_| Mutex::default()).collect() }
    }

    pub fn config(&self) -> &DnsRateLimit {
        &self.config
    }

    /// Counts an answer.
    pub(super) fn pass(&self, client: IpAddr, kind: Kind<'_>, now: Instant) -> Pass {
        let hash = self.hash(client, kind);
        let mark = (hash >> 32) as u32 | 1;
        let now = now.saturating_duration_since(self.begun).as_millis() as u32;
        let mut set = self.sets[hash as usize % SETS].lock();
        let found = set.iter().position(|account| account.mark == mark);
        let account = match found {
            Some(n) => &mut set[n],
            None => {
                let idle = |account: &Account| match account.mark {
                    0 => u32::MAX,
                    _ => now.wrapping_sub(account.at),
                };
                let quietest = set.iter_mut().max_by_key(|account| idle(account));
                let account = quietest.expect("a set has accounts");
                *account = Account { mark, at: now, credit: self.most(), over: 0 };
                account
            }
        };
        account.pay_in(self.config.responses_per_second, self.most(), now);
        match account.credit.checked_sub(ONE) {
            Some(credit) => {
                account.credit = credit;
                account.over = 0;
                Pass::Whole
            }
            None => {
                account.over = account.over.wrapping_add(1);
                match self.config.slip {
                    0 => Pass::Dropped,
                    slip if account.over.is_multiple_of(slip) => Pass::Truncated,
                    _ => Pass::Dropped,
                }
            }
        }
    }

    /// A second's worth may be spent at once.
    fn most(&self) -> u32 {
        self.config.responses_per_second * ONE
    }

    fn hash(&self, client: IpAddr, kind: Kind<'_>) -> u64 {
        let prefix = match client {
            IpAddr::V4(_) => self.config.ipv4_prefix,
            IpAddr::V6(_) => self.config.ipv6_prefix,
        };
        let network = IpNet::new(client, prefix).map_or(client, |network| network.network());
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match network {
            IpAddr::V4(network) => hasher.write(&network.octets()),
            IpAddr::V6(network) => hasher.write(&network.octets()),
        }
        match kind {
            Kind::Answer(name, kind) => {
                hasher.write_u16(kind);
                hasher.write(name.as_bytes());
            }
            Kind::Negative(zone) => {
                hasher.write_u32(1);
                hasher.write(zone.as_bytes());
            }
            Kind::Error => hasher.write_u32(2),
        }
        hasher.finish()
    }
}

impl Account {
    fn pay_in(&mut self, per_second: u32, most: u32, now: u32) {
        // Clocks of threads that read them a moment apart do not pay in twice.
        let passed = now.wrapping_sub(self.at);
        if passed > u32::MAX / 2 {
            return;
        }
        self.at = now;
        // Answers in a second are thousandths in a millisecond.
        self.credit = self.credit.saturating_add(passed.saturating_mul(per_second)).min(most);
    }
}

const ONE: u32 = 1000;

/// With 16 bytes for an account, 1 MiB, beside the locks.
const SETS: usize = 1 << 14;
const ACCOUNTS_PER_SET: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(slip: u32) -> (RateLimit, Instant) {
        let config = DnsRateLimit { responses_per_second: 10, slip, ipv4_prefix: 24, ipv6_prefix: 56 };
        let now = Instant::now();
        (RateLimit::new(config, [1; 16], now), now)
    }

    /// How many of 100 answers at once go out whole, and how many truncated.
    fn of_100(limit: &RateLimit, client: &str, kind: Kind<'_>, now: Instant) -> (usize, usize) {
        let client = client.parse().unwrap();
        let passes: Vec<_> = (0..100).map(|_| limit.pass(client, kind, now)).collect();
        let count = |pass| passes.iter().filter(|it| **it == pass).count();
        (count(Pass::Whole), count(Pass::Truncated))
    }

    #[test]
    fn a_network_gets_so_many_answers_of_one_kind_in_a_second() {
        let (limit, now) = limit(2);
        let kind = Kind::Answer("a.com", 1);
        assert_eq!(of_100(&limit, "192.0.2.1", kind, now), (10, 45));
        assert_eq!(of_100(&limit, "192.0.2.9", kind, now), (0, 50), "the same network");
        assert_eq!(of_100(&limit, "192.0.3.1", kind, now), (10, 45), "another one");
        for other in
            [Kind::Answer("a.com", 28), Kind::Answer("b.com", 1), Kind::Negative("a.com"), Kind::Error]
        {
            assert_eq!(of_100(&limit, "192.0.2.1", other, now), (10, 45), "{other:?}");
        }
        assert_eq!(of_100(&limit, "2001:db8::1", kind, now), (10, 45));
        assert_eq!(of_100(&limit, "2001:db8:0:ff:1::", kind, now).0, 0, "the same /56");
        assert_eq!(of_100(&limit, "2001:db8:0:100::", kind, now).0, 10, "another one");
        let later = now + Duration::from_millis(500);
        assert_eq!(of_100(&limit, "192.0.2.1", kind, later).0, 5);
        assert_eq!(of_100(&limit, "192.0.2.1", kind, now).0, 0, "a clock that went back");
        assert_eq!(of_100(&limit, "192.0.2.1", kind, later + Duration::from_secs(100)).0, 10);
    }

    #[test]
    fn slip_says_how_many_of_those_over_the_limit_are_truncated() {
        for (slip, expected) in [(0, 0), (1, 90), (3, 30)] {
            let (limit, now) = limit(slip);
            assert_eq!(of_100(&limit, "192.0.2.1", Kind::Error, now), (10, expected), "{slip}");
        }
    }

    #[test]
    fn a_network_that_keeps_asking_is_not_forgotten_for_those_that_asked_once() {
        let (limit, now) = limit(0);
        let flooded = "192.0.2.1".parse().unwrap();
        let mut whole = 0;
        for n in 0..200_000_u32 {
            let now = now + Duration::from_micros(n.into());
            let other = IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes());
            limit.pass(other, Kind::Error, now);
            whole += usize::from(n % 10 == 0 && limit.pass(flooded, Kind::Error, now) == Pass::Whole);
        }
        // 0.2 s: ten at once and two more, of 20,000.
        assert!((10..=20).contains(&whole), "{whole}");
    }
}
