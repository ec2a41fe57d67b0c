//! What one client may take of homing, and what it is told beyond that.

mod caps;
mod floods;
mod memory;
mod ports;
mod rates;
mod sizes;
mod slow;
mod slow_streams;
