//! When things go wrong around homing: it serves on, says so once, and recovers.

mod admin_flood;
mod limits;
mod logs;
mod monitors;
mod open_files;
mod process;
mod startup;
