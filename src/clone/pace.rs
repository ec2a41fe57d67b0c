//! How many copies may be under way on one HTTP/1.1 connection, and what a lane learns of its member for the next.
//!
//! The window begins at one copy and grows by one with each answer, so that a member that closes after an answer
//! loses none. A slow answer halves it: behind a slow member a deep queue wins no time, and more is lost with the
//! connection. A connection that the member closed after n answers makes the next one stop for a moment after n.
//!
//! Copies that were lost behind others raise a doubt: perhaps the member does not pipeline, for it closed or fell
//! silent when more than one came. Then they go one by one. The doubt ends when the number of answers turns out to
//! be the reason, or wears off with answers, the more slowly the more often it was justified.

use std::time::Duration;

use super::count::Loss;

/// What a lane has learned of its member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Habits {
    /// Answers after which the member closed its last connection.
    closes_after: Option<u64>,
    doubt: Option<Doubt>,
}

/// The member may not pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Doubt {
    /// Copies that may be under way.
    depth: usize,
    /// At this depth.
    answers: u64,
    /// How often it was justified since it arose.
    justified: u32,
}

/// The pace of one connection.
pub(super) struct Pace {
    /// As configured.
    deepest: usize,
    window: usize,
    answers: u64,
    /// Answers after which to see whether the member closes.
    stop: Option<u64>,
    habits: Habits,
}

impl Pace {
    pub fn new(habits: Habits, deepest: usize) -> Self {
        Self { deepest, window: 1, answers: 0, stop: habits.closes_after, habits }
    }

    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// How many more copies may be sent, if so many are under way.
    pub fn allowed(&self, under_way: usize) -> usize {
        let depth = self.habits.doubt.as_ref().map_or(self.window, |doubt| self.window.min(doubt.depth));
        let free = depth.saturating_sub(under_way);
        match self.stop {
            Some(stop) => {
                let begun = self.answers + under_way as u64;
                free.min(usize::try_from(stop.saturating_sub(begun)).unwrap_or(usize::MAX))
            }
            None => free,
        }
    }

    /// An answer came, which was awaited for so long.
    pub fn answered(&mut self, awaited: Duration) {
        self.answers += 1;
        self.window = match awaited >= SLOW_ANSWER {
            true => (self.window / 2).max(1),
            false => (self.window + 1).min(self.deepest),
        };
        if self.stop.is_some_and(|stop| self.answers >= stop) {
            self.stop = None;
        }
        if let Some(doubt) = &mut self.habits.doubt {
            doubt.answers += 1;
            if doubt.answers >= doubt.proof() {
                (doubt.depth, doubt.answers) = (doubt.depth * 2, 0);
            }
            if doubt.depth >= self.deepest {
                self.habits.doubt = None;
            }
        }
    }

    /// What the next connection should know, if this one ends with this loss and so many copies under way.
    pub fn habits_after(&self, loss: Option<Loss>, under_way: usize) -> Habits {
        let (answers, mut habits) = (self.answers, self.habits.clone());
        let behind_others = match loss {
            // Answered, and yet closed: what is under way was behind an answer.
            Some(Loss::Closed) => answers > 0 && under_way > 0,
            Some(Loss::AnswerTimeout) => under_way > 1,
            _ => false,
        };
        if behind_others {
            let justified = habits.doubt.map_or(0, |doubt| doubt.justified + 1);
            habits.doubt = Some(Doubt { depth: 1, answers: 0, justified });
        } else if loss == Some(Loss::Closed) && habits.closes_after == Some(answers) {
            // It closes after so many answers however they are asked for.
            habits.doubt = None;
        }
        habits.closes_after =
            if loss == Some(Loss::Closed) && answers > 0 { Some(answers) } else { self.stop };
        habits
    }
}

impl Doubt {
    /// Answers that make it smaller.
    fn proof(&self) -> u64 {
        FIRST_PROOF << (2 * self.justified.min(7))
    }
}

/// An answer that is awaited for so long is slow.
const SLOW_ANSWER: Duration = Duration::from_secs(1);

/// Answers that make a doubt smaller which was justified only once.
const FIRST_PROOF: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(1);

    fn after(habits: &Habits, answers: u64) -> Pace {
        let mut pace = Pace::new(habits.clone(), 64);
        (0..answers).for_each(|_| pace.answered(FAST));
        pace
    }

    #[test]
    fn the_window_grows_with_answers_and_halves_with_slow_ones() {
        let mut pace = after(&Habits::default(), 0);
        for (awaited, window) in
            [(FAST, 2), (FAST, 3), (FAST, 4), (SLOW_ANSWER, 2), (SLOW_ANSWER, 1), (SLOW_ANSWER, 1)]
        {
            pace.answered(awaited);
            assert_eq!((pace.allowed(0), pace.allowed(window)), (window, 0));
        }
        assert_eq!(after(&Habits::default(), 1000).allowed(0), 64, "as deep as configured");
    }

    #[test]
    fn the_next_connection_stops_where_the_last_one_was_closed() {
        let habits = after(&Habits::default(), 20).habits_after(Some(Loss::Closed), 0);
        for (answers, under_way, allowed) in
            [(0, 0, 1), (9, 0, 10), (15, 0, 5), (15, 3, 2), (15, 5, 0), (20, 0, 21)]
        {
            assert_eq!(
                after(&habits, answers).allowed(under_way),
                allowed,
                "{answers} answers, {under_way} under way"
            );
        }
    }

    #[test]
    fn copies_that_are_lost_behind_others_make_them_go_one_by_one() {
        for (loss, answers, under_way, depth) in [
            (Some(Loss::Closed), 30, 5, 1),
            (Some(Loss::Closed), 30, 0, 64),
            (Some(Loss::Closed), 0, 1, 64),
            (Some(Loss::AnswerTimeout), 30, 5, 1),
            (Some(Loss::AnswerTimeout), 30, 1, 64),
            (Some(Loss::WriteTimeout), 30, 5, 64),
            (None, 30, 0, 64),
        ] {
            let habits = after(&Habits::default(), answers).habits_after(loss, under_way);
            assert_eq!(after(&habits, 100).allowed(0), depth, "{loss:?} after {answers} with {under_way}");
        }
    }

    #[test]
    fn a_doubt_ends_when_the_number_of_answers_is_the_reason() {
        let habits = after(&Habits::default(), 20).habits_after(Some(Loss::Closed), 15);
        assert_eq!(after(&habits, 10).allowed(0), 1);
        let habits = after(&habits, 20).habits_after(Some(Loss::Closed), 0);
        assert_eq!(after(&habits, 10).allowed(0), 10, "as many as fit before the member closes");
    }

    #[test]
    fn a_doubt_wears_off_more_slowly_each_time_it_is_justified() {
        let mut habits = after(&Habits::default(), 9).habits_after(Some(Loss::AnswerTimeout), 2);
        for proof in [256, 1024, 4096] {
            assert_eq!(after(&habits, proof - 1).allowed(0), 1);
            assert_eq!(after(&habits, proof).allowed(0), 2);
            assert_eq!(after(&habits, 6 * proof).allowed(0), 64);
            habits = after(&habits, proof).habits_after(Some(Loss::AnswerTimeout), 2);
        }
        habits = after(&habits, 6 << 14).habits_after(Some(Loss::AnswerTimeout), 2);
        assert_eq!(after(&habits, 256).allowed(0), 2, "what had worn off begins anew");
    }
}
