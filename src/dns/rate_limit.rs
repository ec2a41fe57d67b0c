//! Response rate limiting: who asks under a false address makes us flood whom it belongs to; so no network gets more
//! than some answers of one kind in a second. Of those over the limit, some go out empty and truncated, so that a
//! true client comes again by TCP.
//!
//! The memory is fixed, see [`crate::buckets`].

use std::{hash::Hasher, net::IpAddr, time::Instant};

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::{
    buckets::{Buckets, Over, Rate, write_address},
    config::DnsRateLimit,
};

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
    accounts: Buckets,
}

impl RateLimit {
    /// `key`: random, so that nobody can choose who shares a place with whom.
    pub fn new(config: DnsRateLimit, key: [u8; 16], begun: Instant) -> Self {
        let rate = Rate::per_second(config.responses_per_second);
        Self { config, accounts: Buckets::new(rate, ACCOUNTS, key, begun) }
    }

    pub fn config(&self) -> &DnsRateLimit {
        &self.config
    }

    /// Counts an answer.
    pub(super) fn pass(&self, client: IpAddr, kind: Kind<'_>, now: Instant) -> Pass {
        match self.accounts.take(|name| self.write(name, client, kind), now) {
            Ok(()) => Pass::Whole,
            Err(Over { times, .. }) => match self.config.slip {
                0 => Pass::Dropped,
                slip if times.is_multiple_of(slip) => Pass::Truncated,
                _ => Pass::Dropped,
            },
        }
    }

    fn write(&self, name: &mut SipHasher13, client: IpAddr, kind: Kind<'_>) {
        let prefix = match client {
            IpAddr::V4(_) => self.config.ipv4_prefix,
            IpAddr::V6(_) => self.config.ipv6_prefix,
        };
        let network = IpNet::new(client, prefix).map_or(client, |network| network.network());
        write_address(name, network);
        match kind {
            Kind::Answer(of, kind) => {
                name.write_u16(kind);
                name.write(of.as_bytes());
            }
            Kind::Negative(zone) => {
                name.write_u32(1);
                name.write(zone.as_bytes());
            }
            Kind::Error => name.write_u32(2),
        }
    }
}

/// With 24 bytes for an account, 1.5 MiB, beside the locks.
const ACCOUNTS: usize = 1 << 16;

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
