//! homing: a programmable load balancer that brings every session home.
pub mod clock;
pub mod clone;
pub mod config;
pub mod metrics;
pub mod names;
pub mod session;
