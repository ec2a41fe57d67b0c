//! Which member of a GSLB service DNS answers a client with: a pure function of the service, the client, the health
//! of the members, the time and a seed.
//!
//! A [`Directory`] is made of the federation when a configuration is loaded; it finds the [`ServiceChoice`] of a name.
//! [`ServiceChoice::choose`] takes the groups in order until enough members are eligible, ranks these by the
//! algorithm and answers with the first; [`ServiceChoice::explain`] says the same in words. Nothing here knows of
//! packets, nor of how health is found out: that is asked of a [`Health`].
//!
//! The seed stands for chance. Members are drawn by it, not counted round, because one client mostly asks for A and
//! for AAAA in turn, and because nodes of one site do not count together.
//!
//! Avi calls this the GSLB algorithms, BIG-IP the load balancing methods of a wide IP, gdnsd plugins.

mod account;
mod asker;
mod choose;
mod directory;
mod globe;
mod health;
mod networks;
mod rank;
mod service;

use std::{net::IpAddr, time::Duration};

use smallvec::SmallVec;

pub use account::{Account, GroupAccount, MemberAccount, Verdict};
pub use directory::Directory;
pub use health::{Availability, Health};
pub use service::{Member, Off, ServiceChoice};

/// Who asks, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its own or its network's.
    pub address: IpAddr,
    /// How many leading bits of it are known: all where it asks itself, fewer with an EDNS client subnet.
    pub prefix: u8,
    /// It is an EDNS client subnet (RFC 7871), so the answer has a scope.
    pub from_ecs: bool,
}

impl Client {
    /// A client, or its resolver, that asks from this address.
    pub fn at(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 }, from_ecs: false }
    }

    /// The network that a resolver says its client is in.
    pub fn subnet(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix, from_ecs: true }
    }
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

/// Addresses without a heap, mostly.
pub type Addresses = SmallVec<[IpAddr; 8]>;

/// What a client is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice<'a> {
    pub answer: ChoiceAnswer<'a>,
    pub ttl: Duration,
    /// The length of the prefix of the client's address for which the answer holds (RFC 7871 SCOPE); 0: for everyone,
    /// and where the client was not told by an EDNS client subnet.
    pub scope: u8,
    /// The member that the algorithm put first; none where no member was chosen.
    pub member: Option<&'a Member>,
    pub reason: Reason,
}

/// The meaning of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ChoiceAnswer<'a> {
    /// Never empty; in the order in which they are to be tried.
    Addresses(Addresses),
    /// Another name, whatever was asked for.
    Cname(&'a str),
    /// The name has no address of this family: NODATA.
    Empty,
    /// No answer at all: the resolver is to ask elsewhere.
    Silent,
}

/// Why an answer is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    RoundRobin,
    ConsistentHash,
    Geo,
    Topology,
    PreferenceOrder,
    /// The algorithm knew nothing of the client, and the group's `fallback_algorithm` chose.
    Fallback,
    /// Members are up, and none has an address of this family.
    NoAddress,
    /// No member is up: `down_response` `none`, `all_records`, `fallback_ip`, `empty`, `cname`.
    DownNone,
    DownAllRecords,
    DownFallbackIp,
    DownEmpty,
    DownCname,
}

impl Reason {
    pub const ALL: [Self; 12] = [
        Self::RoundRobin,
        Self::ConsistentHash,
        Self::Geo,
        Self::Topology,
        Self::PreferenceOrder,
        Self::Fallback,
        Self::NoAddress,
        Self::DownNone,
        Self::DownAllRecords,
        Self::DownFallbackIp,
        Self::DownEmpty,
        Self::DownCname,
    ];

    /// As metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::ConsistentHash => "consistent_hash",
            Self::Geo => "geo",
            Self::Topology => "topology",
            Self::PreferenceOrder => "preference_order",
            Self::Fallback => "fallback",
            Self::NoAddress => "no_address",
            Self::DownNone => "down_none",
            Self::DownAllRecords => "down_all_records",
            Self::DownFallbackIp => "down_fallback_ip",
            Self::DownEmpty => "down_empty",
            Self::DownCname => "down_cname",
        }
    }
}

#[cfg(test)]
mod tests;
