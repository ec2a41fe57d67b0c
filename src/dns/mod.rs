//! The authoritative DNS responder: answers for the domain names of the GSLB services with the members that
//! [`crate::gslb::choice`] recommends to each client.
//!
//! ```text
//! packet ──▶ udp | tcp ──▶ responder ──▶ request ──▶ lookup ──▶ zones, gslb::choice
//!                              │ cookie, rate_limit, counts        │
//!                              └──────────── reply ◀───────────────┘
//! ```
//!
//! The way from a packet to its answer ([`Responder::answer`]) is a function that waits for nothing. `hickory-proto`
//! carries the wire format; the serving is ours, for `hickory-server` has no response rate limiting and no cap on
//! connections. It does not recurse and has no zone transfers. Where there are keys for it, answers are signed
//! while they are made (DNSSEC): `dnssec`, `denial`.
//!
//! Known elsewhere as: Avi's DNS virtual service, BIG-IP DNS (GTM), gdnsd.

mod cookie;
mod counts;
mod denial;
mod dnssec;
mod edns;
mod lookup;
mod name;
mod ports;
mod rate_limit;
mod reply;
mod request;
mod responder;
mod socket;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod zones;

pub use dnssec::delegation_signers;
pub use ports::{Ports, Prepared};
pub use rate_limit::RateLimit;
pub use responder::{Asker, Kept, Over, Responder};
pub use socket::BindError;
