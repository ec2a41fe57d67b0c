//! How often the requests of a virtual service may come.

use std::{
    hash::Hasher,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;

use crate::{
    buckets::{Buckets, one_client, write_address},
    config::{RateAction, RatePer, RequestRate},
};

/// One rate, and who has used it up.
pub struct RequestLimiter {
    config: RequestRate,
    buckets: Buckets,
}

/// A request is over a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverRate {
    pub action: RateAction,
    /// Until the next one passes.
    pub wait: Duration,
}

impl RequestLimiter {
    fn new(config: &RequestRate, key: [u8; 16], now: Instant) -> Self {
        Self { config: config.clone(), buckets: Buckets::new(config.rate, BUCKETS, key, now) }
    }

    /// Limiters for these rates: those that were, where a rate has not changed.
    pub(super) fn all(rates: &[RequestRate], previous: &[Arc<Self>], now: Instant) -> Vec<Arc<Self>> {
        let limiter = |rate: &RequestRate| {
            let known = previous.iter().find(|limiter| limiter.config == *rate).cloned();
            known.unwrap_or_else(|| Arc::new(Self::new(rate, rand::random(), now)))
        };
        rates.iter().map(limiter).collect()
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is one too many.
    pub fn count(&self, client: IpAddr, headers: &HeaderMap, now: Instant) -> Result<(), OverRate> {
        let taken = self.buckets.take(
            |name| match &self.config.per {
                RatePer::VirtualService => {}
                RatePer::Header(field) if headers.contains_key(field) => {
                    for value in headers.get_all(field) {
                        name.write_u8(1);
                        name.write(value.as_bytes());
                    }
                }
                RatePer::Client | RatePer::Header(_) => write_address(name, one_client(client)),
            },
            now,
        );
        taken.map_err(|over| OverRate { action: self.config.action, wait: over.wait })
    }
}

/// With 24 bytes for each, 0.8 MiB.
const BUCKETS: usize = 1 << 15;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::buckets::Rate;

    const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

    fn rate(per: RatePer) -> RequestRate {
        RequestRate { per, rate: Rate::per_second(3), action: RateAction::Close }
    }

    #[test]
    fn requests_count_together_by_what_the_rate_says() {
        let now = Instant::now();
        // For each rate, how many requests pass of ten: of a client, of another, of the first with a key, and so on.
        for (per, expected) in [
            (RatePer::Client, [3, 3, 0, 0, 0]),
            (RatePer::Header(API_KEY), [3, 3, 3, 3, 0]),
            (RatePer::VirtualService, [3, 0, 0, 0, 0]),
        ] {
            let limiter = RequestLimiter::new(&rate(per.clone()), [1; 16], now);
            let of_10 = |client: &str, keys: &[&'static str]| {
                let client = client.parse().expect("an address");
                let mut headers = HeaderMap::new();
                for key in keys {
                    headers.append(API_KEY, http::HeaderValue::from_static(key));
                }
                (0..10).filter(|_| limiter.count(client, &headers, now).is_ok()).count()
            };
            let passed = [
                of_10("192.0.2.1", &[]),
                of_10("192.0.2.2", &[]),
                of_10("192.0.2.1", &["a"]),
                of_10("192.0.2.1", &["b", "a"]),
                of_10("192.0.2.2", &["a"]),
            ];
            assert_eq!(passed, expected, "{per:?}");
        }
    }

    #[test]
    fn a_rate_that_has_not_changed_goes_on() {
        let now = Instant::now();
        let rates = [rate(RatePer::Client), rate(RatePer::VirtualService)];
        let before = RequestLimiter::all(&rates[..1], &[], now);
        let after = RequestLimiter::all(&rates, &before, now);
        assert!(Arc::ptr_eq(&before[0], &after[0]));
    }
}
