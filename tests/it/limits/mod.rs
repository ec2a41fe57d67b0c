//! What one client may take of homing, and what it is told beyond that.

mod sizes;
mod slow;
