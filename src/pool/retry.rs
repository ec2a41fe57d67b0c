//! Retries of requests to a pool: who may have one more.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::Pool;

/// The retries that are under way, before and after reloads.
pub(super) type Retrying = Arc<AtomicU32>;

/// A request that is tried again, of a pool that counts them; until it is dropped.
#[derive(Debug)]
pub struct Retry(Retrying);

impl Drop for Retry {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Why a request is not tried again that otherwise would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRetry {
    /// It has had its share.
    Most,
    /// Others have used up the pool's budget.
    Budget,
}

impl NoRetry {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Most => "max_retries",
            Self::Budget => "retry_budget",
        }
    }
}

impl Pool {
    /// Allows for one more retry of a request that has `made` some, and counts it where the pool has a budget.
    ///
    /// # Errors
    /// There are enough.
    pub fn retry(&self, made: u32) -> Result<Option<Retry>, NoRetry> {
        let retries = &self.config.retries;
        if retries.most.is_some_and(|most| made >= most) {
            return Err(NoRetry::Most);
        }
        let Some(room) = self.retry_room() else { return Ok(None) };
        let taken = self
            .retrying
            .fetch_update(Relaxed, Relaxed, |under_way| (u64::from(under_way) < room).then(|| under_way + 1));
        taken.map(|_| Some(Retry(self.retrying.clone()))).map_err(|_| NoRetry::Budget)
    }

    /// How many requests may be tried again at once now; `None`: any number.
    pub fn retry_room(&self) -> Option<u64> {
        let budget = self.config.retries.budget?;
        let share = self.inflight().saturating_mul(budget.percent.into()) / 100;
        Some(share.max(budget.min_concurrent.into()))
    }

    /// How many requests of its budget are being tried again.
    pub fn retries_under_way(&self) -> u32 {
        self.retrying.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{
        config::{self, LbAlgorithm, Retries, RetryBudget},
        metrics::Metrics,
        pool::fixture,
    };

    fn with(retries: Retries) -> Arc<Pool> {
        fixture::build(config::Pool { retries, ..fixture::config(LbAlgorithm::RoundRobin, &[1, 1]) })
    }

    fn budget(percent: u32, min_concurrent: u32) -> Retries {
        Retries { most: None, budget: Some(RetryBudget { percent, min_concurrent }) }
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_in_flight_and_a_few_in_any_case() {
        for (percent, min, in_flight, allowed) in
            [(20, 3, 0, 3), (20, 3, 10, 3), (20, 3, 50, 10), (20, 0, 4, 0), (100, 0, 7, 7), (0, 0, 50, 0)]
        {
            let pool = with(budget(percent, min));
            let _leases: Vec<_> = (0..in_flight).map(|n| pool.servers()[n % 2].lease()).collect();
            let retries: Vec<_> = std::iter::from_fn(|| pool.retry(0).ok().flatten()).take(100).collect();
            assert_eq!(retries.len(), allowed, "{percent} % of {in_flight}, at least {min}");
            assert_eq!(pool.retry(0).err(), Some(NoRetry::Budget));
        }
    }

    #[test]
    fn a_retry_that_is_over_makes_room_also_after_a_reload() {
        let old = with(budget(0, 1));
        let retry = old.retry(0).expect("there is room for one");
        let config = Arc::new(config::Pool::clone(old.config()));
        let new = Pool::new(&config, &Metrics::new(), Some(&old), UNIX_EPOCH);
        assert_eq!(new.retry(0).err(), Some(NoRetry::Budget));
        drop(retry);
        assert!(new.retry(0).is_ok());
    }

    #[test]
    fn a_request_has_as_many_retries_as_its_pool_allows_for() {
        let pool = with(Retries { most: Some(2), budget: None });
        let allowed = (0..4).map(|made| pool.retry(made).map(|retry| retry.is_some()));
        assert_eq!(
            allowed.collect::<Vec<_>>(),
            [Ok(false), Ok(false), Err(NoRetry::Most), Err(NoRetry::Most)]
        );
        assert!(with(Retries::default()).retry(1000).is_ok());
    }
}
