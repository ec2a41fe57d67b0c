//! homing from outside: the real program, real sockets, servers and clients that remember and misbehave.

mod admin;
mod clone_faults;
mod clone_rules;
mod clones;
mod config;
mod copied;
mod demo;
mod fuzz;
mod keys;
mod layers;
mod listen;
mod pools;
mod routing;
mod rules;
mod shutdown;
mod site_faults;
mod site_loops;
mod site_tls;
mod site_trust;
mod sites;
mod support;
mod tls;
mod tunnels;

/// homing's own features, compiled here, outside the crate, where they find the public prelude and nothing else.
#[path = "../../src/filter/mod.rs"]
mod filter;
use homing::prelude;
