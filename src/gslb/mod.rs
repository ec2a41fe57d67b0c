//! GSLB site persistence: who the members of a service are, which of them is a client's home, and what
//! follows.
//!
//! Everything here is a description or a pure decision. The SP pool is described here and built with the
//! other pools; cookies and hops are opened by `site_cookie`; requests are sent by the proxy.
//!
//! What happens when a home is away: the tables of [`policy`].
//!
//! Words are Avi's: a GSLB service has members, which are virtual services of sites; a virtual service of a
//! site-persistent service has a site-persistence (SP) pool, whose "servers" are its peers on other sites;
//! the identity of a member is Avi's `prst_hdr_val`. F5 would call the whole cookie persistence of a wide IP.

mod census;
pub mod choice;
mod cookie_header;
mod key_watch;
mod member;
mod memory;
mod outcome;
pub mod policy;
mod probe_pool;
mod service;
mod set_cookie;
mod site_word;
mod sp_pool;
mod standing;

pub use census::{Census, Censuses, WINDOW as CENSUS_WINDOW};
pub use cookie_header::{cookie_values, without_cookie};
pub use key_watch::KeyWatch;
pub use member::MemberId;
pub use memory::{Change, Memories, Memory, MemoryKey};
pub use outcome::{Ending, Outcome, OutcomeCounters};
pub use policy::{Arrival, Cookie, Decision, OnFailure, Sites, decide};
pub use probe_pool::probe_pool;
pub use service::{Membership, MembershipError, PeerMember, PublicName, ReadCookie, carries_loop_token};
pub use set_cookie::{SetCookie, private_cache_control};
pub use site_word::{Said, SiteWord, SiteWords, Word};
pub use sp_pool::{DESCRIPTION, SERVER_DESCRIPTION, SpPool};
pub use standing::{Drains, Facts, Standing};

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod trust_tests;
