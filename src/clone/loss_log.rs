//! Which losses a line of log is due for: at most one a minute for each server and reason, however many copies
//! are lost. It reads what is counted anyway, now and then, so that losing a copy costs the app's path nothing.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The lines of one clone section.
pub(super) struct LossLog {
    told: BTreeMap<Key, Told>,
}

/// `None`: no member is known.
type Key = (Option<SocketAddr>, &'static str);

/// What the log has been told of one server and reason.
struct Told {
    copies: u64,
    /// When the next line may be; `None`: at once.
    next: Option<Instant>,
}

/// A line that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub server: Option<SocketAddr>,
    pub reason: &'static str,
    /// Lost since the line before.
    pub copies: u64,
}

impl LossLog {
    /// `totals` are the copies that were lost so far, and of which nothing need be said.
    pub fn new(totals: impl IntoIterator<Item = (Key, u64)>) -> Self {
        let told = |(key, copies)| (key, Told { copies, next: None });
        Self { told: sums(totals).into_iter().map(told).collect() }
    }

    /// The lines that are due when `totals` are the copies lost so far; a server and reason may come several times.
    pub fn due(&mut self, totals: impl IntoIterator<Item = (Key, u64)>, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for (key @ (server, reason), total) in sums(totals) {
            let told = self.told.entry(key).or_insert(Told { copies: 0, next: None });
            let copies = total.saturating_sub(told.copies);
            if copies > 0 && told.next.is_none_or(|next| now >= next) {
                lines.push(Line { server, reason, copies });
                *told = Told { copies: total, next: Some(now + INTERVAL) };
            }
        }
        lines
    }
}

fn sums(totals: impl IntoIterator<Item = (Key, u64)>) -> BTreeMap<Key, u64> {
    let mut sums = BTreeMap::new();
    for (key, copies) in totals {
        *sums.entry(key).or_default() += copies;
    }
    sums
}

const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_at_once_and_then_once_a_minute_for_each_server_and_reason() {
        let server = |n: u8| Some(SocketAddr::from(([10, 0, 0, n], 80)));
        let begun = Instant::now();
        let mut log = LossLog::new([((server(1), "budget"), 100)]);
        let mut at = |seconds: u64, totals: &[(Key, u64)]| {
            let lines = log.due(totals.iter().copied(), begun + Duration::from_secs(seconds));
            lines.into_iter().map(|line| (line.server, line.reason, line.copies)).collect::<Vec<_>>()
        };
        let (a, b, none) = ((server(1), "budget"), (server(2), "budget"), (None, "no_server"));
        let closed = (server(1), "closed");
        assert_eq!(at(0, &[(a, 100), (b, 0)]), [], "what was lost before its time");
        assert_eq!(at(1, &[(a, 101), (b, 0)]), [(server(1), "budget", 1)]);
        assert_eq!(at(2, &[(a, 150), (b, 7)]), [(server(2), "budget", 7)], "each server for itself");
        assert_eq!(
            at(3, &[(a, 150), (closed, 2), (closed, 3)]),
            [(server(1), "closed", 5)],
            "each reason too"
        );
        assert_eq!(at(60, &[(a, 170), (b, 7), (none, 1)]), [(None, "no_server", 1)]);
        assert_eq!(at(61, &[(a, 170), (b, 7)]), [(server(1), "budget", 69)], "a minute after its last line");
        assert_eq!(at(300, &[(a, 170), (b, 7)]), [], "nothing new");
        assert_eq!(at(301, &[(a, 171), (b, 7)]), [(server(1), "budget", 1)]);
    }
}
