//! homing from outside: the real program, real sockets, servers and clients that remember and misbehave.

mod access_log;
mod admin;
mod adversity;
mod clone_accounts;
mod clone_faults;
mod clone_rules;
mod clones;
mod commands;
mod config;
mod container;
mod copied;
mod demo;
mod dns;
mod explain;
mod fuzz;
mod gslb_choice;
mod keys;
mod large_bodies;
mod layers;
mod listen;
mod metrics;
mod operate;
mod pools;
mod redirects;
mod reload;
mod reload_storm;
mod restrictions;
mod rotation;
mod routing;
mod rules;
mod sessions_kept;
mod show_sites;
mod shutdown;
mod site_away;
mod site_cookies;
mod site_drain;
mod site_faults;
mod site_loops;
mod site_matrix;
mod site_redirect;
mod site_tls;
mod site_trust;
mod sites;
mod strict_requests;
mod strict_servers;
mod support;
mod systemd;
mod through;
mod tls;
mod tunnels;
mod upgrade;

/// homing's own features, compiled here, outside the crate, where they find the public prelude and nothing else.
#[path = "../../src/filter/mod.rs"]
mod filter;
use homing::prelude;
