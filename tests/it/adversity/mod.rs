//! When things go wrong around homing: it serves on, says so once, and recovers.

mod admin_flood;
mod certificates;
mod clock_jumps;
mod limits;
mod logs;
mod monitors;
mod open_files;
mod process;
mod startup;
