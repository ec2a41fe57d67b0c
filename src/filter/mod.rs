//! homing's own features, written as rules against the public [`prelude`](crate::prelude) alone: what they
//! need, users get. A test compiles both files outside the crate.

mod clone_pool;
mod site_persistence;

pub use clone_pool::ClonePools;
pub use site_persistence::SitePersistence;
