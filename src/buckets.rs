//! Token buckets for many at once, in a memory that is fixed: how often each may do something in a time.
//!
//! Where more come than there are places, those that were quiet for the longest time are forgotten, and start anew.
//!
//! Known elsewhere as: nginx's `limit_req`, HAProxy's stick table with rates, Avi's rate limiters.

use std::{
    hash::Hasher,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So often
    pub count: u32,
    /// in so much time, whole milliseconds,
    pub period: Duration,
    /// and so often at once.
    pub burst: u32,
}

impl Rate {
    /// So often in a second, and at once.
    pub fn per_second(count: u32) -> Self {
        Self { count, period: Duration::from_secs(1), burst: count }
    }
}

/// The buckets of all who are told apart.
pub struct Buckets {
    rate: Rate,
    /// The period in milliseconds: what one token costs. A bucket gets `count` of it in a millisecond.
    price: u64,
    key: [u8; 16],
    begun: Instant,
    sets: Box<[Mutex<Set>]>,
}

/// Somebody has no token left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Until there is one.
    pub wait: Duration,
    /// How often in a row there was none.
    pub times: u32,
}

type Set = [Bucket; BUCKETS_PER_SET];

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Tells it from others in the set; 0: free.
    mark: u32,
    /// When it was last paid into, in milliseconds.
    at: u32,
    credit: u64,
    /// Refusals since a token was there.
    over: u32,
}

impl Buckets {
    /// So many buckets, rounded up; `key`: random, so that nobody can choose who shares a place with whom.
    pub fn new(rate: Rate, buckets: usize, key: [u8; 16], begun: Instant) -> Self {
        let price = u64::try_from(rate.period.as_millis()).unwrap_or(u64::MAX).max(1);
        let sets = (0..buckets.div_ceil(BUCKETS_PER_SET)).map(|_| Mutex::default()).collect();
        Self { rate, price, key, begun, sets }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token of whoever `name` writes down.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, name: impl FnOnce(&mut SipHasher13), now: Instant) -> Result<(), Over> {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        name(&mut hasher);
        let hash = hasher.finish();
        let mark = (hash >> 32) as u32 | 1;
        let now = now.saturating_duration_since(self.begun).as_millis() as u32;
        let mut set = self.sets[hash as u32 as usize % self.sets.len()].lock();
        let bucket = match set.iter().position(|bucket| bucket.mark == mark) {
            Some(n) => &mut set[n],
            None => {
                let idle = |bucket: &Bucket| match bucket.mark {
                    0 => u32::MAX,
                    _ => now.wrapping_sub(bucket.at),
                };
                let quietest = set.iter_mut().max_by_key(|bucket| idle(bucket));
                let bucket = quietest.expect("a set has buckets");
                *bucket = Bucket { mark, at: now, credit: self.most(), over: 0 };
                bucket
            }
        };
        bucket.pay_in(u64::from(self.rate.count), self.most(), now);
        match bucket.credit.checked_sub(self.price) {
            Some(credit) => {
                (bucket.credit, bucket.over) = (credit, 0);
                Ok(())
            }
            None => {
                bucket.over = bucket.over.wrapping_add(1);
                let missing = self.price - bucket.credit;
                let wait = Duration::from_millis(missing.div_ceil(self.rate.count.max(1).into()));
                Err(Over { wait, times: bucket.over })
            }
        }
    }

    fn most(&self) -> u64 {
        u64::from(self.rate.burst).saturating_mul(self.price)
    }
}

impl Bucket {
    fn pay_in(&mut self, count: u64, most: u64, now: u32) {
        // Clocks of threads that read them a moment apart do not pay in twice.
        let passed = now.wrapping_sub(self.at);
        if passed > u32::MAX / 2 {
            return;
        }
        self.at = now;
        self.credit = self.credit.saturating_add(u64::from(passed).saturating_mul(count)).min(most);
    }
}

/// Whom a limit takes for one client: an IPv4 address, or the /64 of an IPv6 address, of which a household has all.
pub fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

/// Writes an address down.
pub fn write_address(hasher: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

const BUCKETS_PER_SET: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(count: u32, period: Duration, burst: u32) -> (Buckets, Instant) {
        let now = Instant::now();
        (Buckets::new(Rate { count, period, burst }, 1 << 16, [1; 16], now), now)
    }

    /// How many of 100 get a token at once.
    fn of_100(buckets: &Buckets, who: u8, now: Instant) -> usize {
        (0..100).filter(|_| buckets.take(|name| name.write_u8(who), now).is_ok()).count()
    }

    #[test]
    fn everyone_has_a_burst_and_then_the_rate() {
        let (buckets, now) = buckets(10, Duration::from_secs(60), 5);
        assert_eq!(of_100(&buckets, 1, now), 5);
        assert_eq!(of_100(&buckets, 1, now), 0);
        assert_eq!(of_100(&buckets, 2, now), 5, "another one");
        assert_eq!(of_100(&buckets, 1, now + Duration::from_millis(5_999)), 0);
        assert_eq!(of_100(&buckets, 1, now + Duration::from_secs(6)), 1, "one in six seconds");
        assert_eq!(of_100(&buckets, 1, now), 0, "a clock that went back");
        assert_eq!(of_100(&buckets, 1, now + Duration::from_secs(24)), 3);
        assert_eq!(of_100(&buckets, 1, now + Duration::from_secs(3600)), 5, "no more than a burst");
    }

    #[test]
    fn who_has_none_is_told_when_there_will_be_one() {
        let (buckets, now) = buckets(10, Duration::from_secs(60), 1);
        let take = |now| buckets.take(|name| name.write_u8(1), now);
        let over = |seconds, times| Err(Over { wait: Duration::from_secs(seconds), times });
        assert_eq!(take(now), Ok(()));
        assert_eq!(take(now), over(6, 1));
        assert_eq!(take(now + Duration::from_secs(4)), over(2, 2));
        assert_eq!(take(now + Duration::from_secs(6)), Ok(()));
        assert_eq!(take(now + Duration::from_secs(6)), over(6, 1));
    }

    #[test]
    fn who_keeps_asking_is_not_forgotten_for_those_that_asked_once() {
        let (buckets, now) = buckets(10, Duration::from_secs(1), 10);
        let mut passed = 0;
        for n in 0..200_000_u32 {
            let now = now + Duration::from_micros(n.into());
            let _ = buckets.take(|name| name.write_u32(n + 1), now);
            passed += usize::from(n % 10 == 0 && buckets.take(|name| name.write_u32(0), now).is_ok());
        }
        // 0.2 s: ten at once and two more, of 20,000.
        assert!((10..=20).contains(&passed), "{passed}");
    }

    #[test]
    fn a_client_is_an_address_or_the_network_of_a_household() {
        for (address, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let of = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(one_client(of(address)), of(client));
        }
    }
}
