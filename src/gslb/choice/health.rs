//! What the choice wants to know of a member's health.

use std::time::Instant;

use super::Member;

/// Who may get new clients.
pub trait Health {
    /// How a member stands at `now`. Asked for every member of every answer, so it must be quick.
    fn of(&self, member: &Member, now: Instant) -> Availability;
}

/// How a member stands, as far as is known; whether it is enabled is the configuration's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Nothing speaks against it.
    Up,
    /// Its monitors or its site say so.
    Down,
    /// Its site is being emptied: it keeps the clients that it has.
    Leaving,
    /// It is up again after it was down, and its group waits for an operator (`manual_resume`).
    Held,
}
