//! Who is asked for the addresses of servers that are configured by name.

use std::{net::SocketAddr, time::Duration};

use super::{
    read::Object,
    units::{self, hours, milliseconds, seconds},
    words,
};

/// The resolver of this node. Answers are asked for again when their time is over, within bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsResolver {
    /// Empty: those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// For one answer, with all attempts.
    pub timeout: Duration,
    pub min_ttl: Duration,
    pub max_ttl: Duration,
}

impl DnsResolver {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let times = || units::duration(milliseconds(100)..=hours(24));
        let this = Self {
            name_servers: o
                .list("name_servers", |node| words::socket_address(&words::text(node)?))
                .unwrap_or_default(),
            timeout: o.field("timeout", times()).unwrap_or(default.timeout),
            min_ttl: o.field("min_ttl", times()).unwrap_or(default.min_ttl),
            max_ttl: o.field("max_ttl", times()).unwrap_or(default.max_ttl),
        };
        if this.max_ttl < this.min_ttl {
            let help = format!("write at least `{}`", units::written_duration(this.min_ttl));
            o.wrong("max_ttl", "shorter than `min_ttl`", help);
        }
        this
    }
}

impl Default for DnsResolver {
    fn default() -> Self {
        Self { name_servers: Vec::new(), timeout: seconds(5), min_ttl: seconds(1), max_ttl: seconds(300) }
    }
}
