//! How often a request is tried again.

use super::{read::Object, units};

/// What a pool allows for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Retries {
    /// Of one request; default: as long as there is a server that was not tried, 15 at most.
    pub most: Option<u32>,
    /// Of all requests at once; default: unlimited.
    pub budget: Option<RetryBudget>,
}

/// A share of the requests in flight. When many servers fail at once, retries of everybody would be the end of the
/// others. Known elsewhere as: Envoy's retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    pub percent: u32,
    /// So many may be under way however few requests there are.
    pub min_concurrent: u32,
}

impl Retries {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        Self {
            most: o.field("max_retries", units::whole(0..=15)),
            budget: o.object("retry_budget", |o| RetryBudget {
                percent: o.field("percent", units::whole(0..=100)).unwrap_or(20),
                min_concurrent: o.field("min_concurrent", units::whole(0..=1_000_000)).unwrap_or(3),
            }),
        }
    }
}
