//! What a pool learns of its servers from the requests that they get.

use std::time::Duration;

use super::{
    ResponseCodes,
    read::Object,
    units::{self, hours, milliseconds, seconds},
};

/// When requests that go wrong take a server out, and for how long.
///
/// Avi calls this the inline health monitor, Envoy outlier detection, HAProxy `observe`, nginx `max_fails`.
#[derive(Clone, Debug, PartialEq)]
pub struct InlineMonitor {
    /// So many failures in a row; 0: not by these.
    pub consecutive_failures: u32,
    /// More than this share of the requests of an interval, in thousandths; 0: not by it.
    pub failure_permille: u16,
    /// With fewer requests in the interval the share says nothing.
    pub minimum_requests: u32,
    pub interval: Duration,
    /// How long a server is out the first time; each further time in short order twice as long,
    pub ejection_time: Duration,
    /// but no longer than this.
    pub max_ejection_time: Duration,
    /// The share of the pool's servers that may be out at a time, in thousandths.
    pub max_ejection_permille: u16,
    /// Answers that are failures, beside no answer.
    pub failed_codes: ResponseCodes,
}

impl InlineMonitor {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let times = || units::duration(milliseconds(100)..=hours(24));
        let this = Self {
            consecutive_failures: o
                .field("consecutive_failures", units::whole(0..=10_000_u32))
                .unwrap_or(default.consecutive_failures),
            failure_permille: o
                .field("max_failure_percent", units::permille)
                .unwrap_or(default.failure_permille),
            minimum_requests: o
                .field("minimum_requests", units::whole(1..=1_000_000_u32))
                .unwrap_or(default.minimum_requests),
            interval: o.field("interval", times()).unwrap_or(default.interval),
            ejection_time: o.field("ejection_time", times()).unwrap_or(default.ejection_time),
            max_ejection_time: o.field("max_ejection_time", times()).unwrap_or(default.max_ejection_time),
            max_ejection_permille: o
                .field("max_ejection_percent", units::permille)
                .unwrap_or(default.max_ejection_permille),
            failed_codes: ResponseCodes::read(o, "failed_response_code").unwrap_or(default.failed_codes),
        };
        if this.max_ejection_time < this.ejection_time {
            o.wrong(
                "max_ejection_time",
                "shorter than `ejection_time`",
                format!("write at least `{}`", units::written_duration(this.ejection_time)),
            );
        }
        if this.consecutive_failures == 0 && this.failure_permille == 0 {
            o.wrong(
                "consecutive_failures",
                "with neither failures in a row nor a share of failures no server is ever taken out",
                "raise it, or `max_failure_percent`, or leave `inline_health_monitor` out",
            );
        }
        this
    }
}

impl Default for InlineMonitor {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_permille: 0,
            minimum_requests: 20,
            interval: seconds(10),
            ejection_time: seconds(30),
            max_ejection_time: seconds(300),
            max_ejection_permille: 500,
            failed_codes: ResponseCodes { classes: 1 << 5, codes: Vec::new() },
        }
    }
}
