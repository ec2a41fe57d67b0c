//! When things go wrong around homing: it serves on, says so once, and recovers.

mod limits;
mod open_files;
