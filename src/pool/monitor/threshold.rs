//! When results become a change of state: so many successes in a row bring a server up, so many failures take
//! it down, and the very first result decides alone, in both directions.

use crate::pool::Health;

/// What one monitor thinks of one server.
pub(super) struct Threshold {
    successful_checks: u32,
    failed_checks: u32,
    /// Unknown before the first result.
    up: Option<bool>,
    /// Results in a row that contradict the state.
    against: u32,
}

impl Threshold {
    /// Starts from what is known already, as after a reload.
    pub(super) fn new(successful_checks: u32, failed_checks: u32, known: &Health) -> Self {
        let up = match known {
            Health::Unchecked => None,
            Health::Up => Some(true),
            Health::Down { .. } => Some(false),
        };
        Self { successful_checks, failed_checks, up, against: 0 }
    }

    /// Takes one result into account: whether it changes the state, or makes it known, to what it says.
    pub(super) fn observe(&mut self, success: bool) -> bool {
        if self.up == Some(success) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if success { self.successful_checks } else { self.failed_checks };
        if self.up.is_some() && self.against < needed {
            return false;
        }
        self.up = Some(success);
        self.against = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `results` (`+` success, `-` failure) to a threshold and writes what came of each: `U`p, `D`own or
    /// nothing.
    fn changes(successful_checks: u32, failed_checks: u32, known: &Health, results: &str) -> String {
        let mut threshold = Threshold::new(successful_checks, failed_checks, known);
        let change = |result| match (threshold.observe(result == '+'), result) {
            (true, '+') => 'U',
            (true, _) => 'D',
            (false, _) => '.',
        };
        results.chars().map(change).collect()
    }

    #[test]
    fn the_first_result_decides_at_once_and_thresholds_hold_from_then_on() {
        let down = &Health::Down { reason: String::new() };
        for (known, results, expected) in [
            (&Health::Unchecked, "+", "U"),
            (&Health::Unchecked, "-", "D"),
            (&Health::Unchecked, "+--", "U.."),
            (&Health::Unchecked, "+---", "U..D"),
            (&Health::Unchecked, "-+-++", "D...U"),
            (&Health::Unchecked, "+--+--+---", "U........D"),
            (&Health::Unchecked, "-++---++", "D.U..D.U"),
            (&Health::Up, "--+---", ".....D"),
            (&Health::Up, "+++", "..."),
            (down, "+-++", "...U"),
            (down, "-----", "....."),
        ] {
            assert_eq!(changes(2, 3, known, results), expected, "{known:?} {results}");
        }
    }

    #[test]
    fn thresholds_of_one_change_with_every_result() {
        assert_eq!(changes(1, 1, &Health::Up, "-+-"), "DUD");
    }
}
