//! When results become a change of state: so many successes in a row bring a server up, so many failures take
//! it down, and the very first result decides alone, in both directions. What a server says itself, that it is in
//! maintenance, needs no repeating.

use crate::pool::Health;

/// What a probe finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Up,
    Down,
    Maintenance,
}

/// What one monitor thinks of one server.
pub(super) struct Threshold {
    successful_checks: u32,
    failed_checks: u32,
    /// Unknown before the first result.
    state: Option<Found>,
    /// What the last results in a row say against it, and how many they are.
    against: (Found, u32),
}

impl Threshold {
    /// Starts from what is known already, as after a reload.
    pub(super) fn new(successful_checks: u32, failed_checks: u32, known: &Health) -> Self {
        let state = match known {
            Health::Unchecked => None,
            Health::Up => Some(Found::Up),
            Health::Down { .. } => Some(Found::Down),
            Health::Maintenance { .. } => Some(Found::Maintenance),
        };
        Self { successful_checks, failed_checks, state, against: (Found::Up, 0) }
    }

    /// Takes one result into account: whether it changes the state, or makes it known, to what it says.
    pub(super) fn observe(&mut self, found: Found) -> bool {
        if self.state == Some(found) {
            self.against.1 = 0;
            return false;
        }
        if self.against.0 != found {
            self.against = (found, 0);
        }
        self.against.1 += 1;
        let needed = match found {
            Found::Up => self.successful_checks,
            Found::Down => self.failed_checks,
            Found::Maintenance => 1,
        };
        if self.state.is_some() && self.against.1 < needed {
            return false;
        }
        self.state = Some(found);
        self.against.1 = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `results` (`+` success, `-` failure, `m` maintenance) to a threshold and writes what came of each: `U`p,
    /// `D`own, `M`aintenance or nothing.
    fn changes(successful_checks: u32, failed_checks: u32, known: &Health, results: &str) -> String {
        let mut threshold = Threshold::new(successful_checks, failed_checks, known);
        let change = |result| {
            let (found, becomes) = match result {
                '+' => (Found::Up, 'U'),
                '-' => (Found::Down, 'D'),
                _ => (Found::Maintenance, 'M'),
            };
            if threshold.observe(found) { becomes } else { '.' }
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

    #[test]
    fn maintenance_holds_from_the_first_answer_until_the_server_is_well_or_gone() {
        assert_eq!(changes(2, 3, &Health::Up, "mm++"), "M..U");
        assert_eq!(changes(2, 3, &Health::Up, "m--m---m"), "M.....DM");
        assert_eq!(changes(2, 3, &Health::Unchecked, "m+-++"), "M...U");
    }
}
