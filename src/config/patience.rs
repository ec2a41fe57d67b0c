//! How long a pool's servers are waited for, beyond the silences that are allowed.

use std::time::Duration;

use super::{
    read::Object,
    units::{self, days, milliseconds},
};

/// Deadlines of requests; by default there are none. Where there is one, each connection to a server is held by two
/// file descriptors, so that it can be ended from outside.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Patience {
    /// From the end of a request to the beginning of its answer.
    pub response_timeout: Option<Duration>,
    /// From the end of a request's head to the end of its answer, with all attempts.
    pub request_timeout: Option<Duration>,
}

impl Patience {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let mut timeout = |key| o.field(key, units::duration(milliseconds(1)..=days(1)));
        Self {
            response_timeout: timeout("server_response_timeout"),
            request_timeout: timeout("request_timeout"),
        }
    }

    /// Whether there is any.
    pub fn ends(&self) -> bool {
        self.response_timeout.is_some() || self.request_timeout.is_some()
    }
}
