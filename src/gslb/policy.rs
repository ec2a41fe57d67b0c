//! What becomes of a request of a site-persistent virtual service: a pure function of its cookie, of how it
//! came, of how sites stand, and of the configured recovery.
//!
//! | cookie | came from | home | what happens | outcome |
//! |---|---|---|---|---|
//! | none, or refused | client | – | begin: serve here, issue a cookie | `new`, or the reason |
//! | ours | client | here | serve here; issue if stale | `local` |
//! | a peer's | client | up | proxy | `proxied` |
//! | a peer's | client | away | see below | |
//! | a peer's | a peer | – | serve here | `loop` |
//! | any other | a peer | – | serve here; issue if none, refused or stale | `from_peer` |
//! | any | us, without proof | – | serve here; issue if none, refused or stale | `loop` |
//! | any | a peer, for another site | – | refuse: 421 | `from_peer` |
//!
//! A service with `site_persistence_mode: redirect` does with what would be proxied what [`Decision::redirecting`]
//! says:
//!
//! | the request asks for | what happens | outcome |
//! |---|---|---|
//! | anything else | answer 307 to home's own name | `redirected` |
//! | home's own name, which led here | serve here | `loop` |
//!
//! # When the home site is away
//!
//! By `server_hm_down_recovery`. "Serve here" issues a cookie that makes this site the new home; the other answers
//! leave the client its cookie.
//!
//! | home is | `pick_new_server` | `abort_connection` | `continue_persistent_server` |
//! |---|---|---|---|
//! | down: its monitors say so | serve here | 503 | ask home, at most three times, else 503 |
//! | down: refuses the connection, or its TLS fails | serve here ¹ | 503 | ask home, at most three times, else 503 |
//! | dead in mid-request: closes, is silent for `home_read_timeout`, or answers what is no HTTP | serve here ² | 503 ² | ask home, at most three times, else 503 ² |
//! | up, its app down (`pool_down`), or another's by now (421) | serve here ¹ | 503 | its own answer: 503, 421 |
//! | draining or disabled, before the deadline | proxy | proxy | proxy |
//! | draining or disabled, after the deadline | begin anew ¹ | begin anew ¹ | begin anew ¹ |
//! | removed, or of an older drain epoch | begin anew | begin anew | begin anew |
//! | down, and the app here too | 503 | 503 | ask home, at most three times, else 503 |
//!
//! ¹ Home has not touched the request, so any method is repeated, as long as its body has not begun to leave or is
//! still whole in the retry buffer (64 KiB); else 503.
//! An app that answers 421 says so of itself, and is taken at its word.
//! ² Nobody knows whether home acted on the request. An idempotent method (RFC 9110, 9.2.2) whose body is whole is
//! repeated; any other gets 502, or 504 after silence, under every recovery. An answer that has begun is cut.
//!
//! An operator's decision (draining, disabled, removed) is not a failure, so no recovery is asked: its sessions begin
//! anew, as clients without a cookie do. Where this site itself is being emptied, a session begins at a peer that is
//! in service, by way of a hop without the void cookie, and the peer issues its own; with no such peer it begins
//! here. Home itself refuses a hop with a cookie of its own after the deadline (`drained`), so it is enough that the
//! site that is drained knows of it.
//!
//! A request that came from a peer is never sent to a peer.
//!
//! The recoveries are Avi's `server_hm_down_recovery`; BIG-IP's counterpart is "action on service down".

use super::{MemberId, Outcome, Standing};
use crate::{
    config::HmDownRecovery,
    site_cookie::{HomeRefusal, Refusal},
};

/// What the site cookies of a request amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    None,
    /// Home is here. `stale`: a fresh one is due.
    Ours {
        stale: bool,
    },
    /// Home is a peer.
    Peers(MemberId),
    /// As good as none.
    Refused(Refusal),
}

/// How a request came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// From a client, or from who cannot prove to be a peer.
    Client,
    /// With a proven hop.
    Peer,
    /// With a proven hop that is meant for another site.
    Misdirected,
    /// With the federation's own `CDN-Loop` token and without a proven hop.
    Looped,
}

/// How this site and its peers stand; each is asked only where it matters.
pub trait Sites {
    /// How a peer stands.
    fn peer(&self, peer: &MemberId) -> Standing;

    /// How this site stands; it does not ask its own monitors.
    fn own(&self) -> Standing;

    /// Whether the app here can serve.
    fn serves_here(&self) -> bool;

    /// A peer in service, where a session may begin that this site does not take.
    fn elsewhere(&self) -> Option<MemberId>;
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve it here; with `issue`, the answer brings a cookie that makes this site the client's home.
    Local { outcome: Outcome, issue: bool },
    /// Send it to its home.
    Proxy { to: MemberId, on_failure: OnFailure },
    /// Send it, without the site cookie, to a peer that becomes its home. `outcome` is what it is counted as if the
    /// peer cannot have it and it begins here after all.
    Begin { at: MemberId, outcome: Outcome },
    /// Answer 307: the client goes to its home by itself.
    Redirect { to: MemberId },
    /// Answer 503.
    Abort,
    /// Send it back to the peer that it came from.
    Refuse(HomeRefusal),
}

/// What follows when home cannot be reached, or says that it cannot serve, before anything was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    ServeHere,
    Abort,
    /// Try home again; there is no other place for the request.
    KeepTrying,
}

/// Decides.
pub fn decide(cookie: Cookie, arrival: Arrival, sites: &impl Sites, recovery: HmDownRecovery) -> Decision {
    let issue = match cookie {
        Cookie::None | Cookie::Refused(_) => true,
        Cookie::Ours { stale } => stale,
        Cookie::Peers(_) => false,
    };
    let local = |outcome| Decision::Local { outcome, issue };
    match (arrival, cookie) {
        (Arrival::Misdirected, _) => Decision::Refuse(HomeRefusal::WrongSite),
        (Arrival::Peer, Cookie::Ours { .. }) if sites.own() == Standing::Left => {
            Decision::Refuse(HomeRefusal::Drained)
        }
        (Arrival::Peer, _) if !sites.serves_here() => Decision::Refuse(HomeRefusal::PoolDown),
        (Arrival::Looped, _) | (Arrival::Peer, Cookie::Peers(_)) => local(Outcome::Loop),
        (Arrival::Peer, _) => local(Outcome::FromPeer),
        (Arrival::Client, Cookie::None) => begin(Outcome::New, sites),
        (Arrival::Client, Cookie::Refused(refusal)) => begin(refusal.into(), sites),
        (Arrival::Client, Cookie::Ours { .. }) if sites.own() == Standing::Left => {
            begin(Outcome::Expired, sites)
        }
        (Arrival::Client, Cookie::Ours { .. }) => local(Outcome::Local),
        (Arrival::Client, Cookie::Peers(home)) => {
            let proxy = Decision::Proxy { to: home, on_failure: recovery.into() };
            match sites.peer(&home) {
                Standing::InService | Standing::Leaving => proxy,
                Standing::Down => proxy.after_failure(sites),
                Standing::Left => begin(Outcome::Expired, sites),
            }
        }
    }
}

/// Where a session begins that has no home yet.
fn begin(outcome: Outcome, sites: &impl Sites) -> Decision {
    let elsewhere = match sites.own() {
        Standing::InService | Standing::Down => None,
        Standing::Leaving | Standing::Left => sites.elsewhere(),
    };
    match elsewhere {
        Some(at) => Decision::Begin { at, outcome },
        None => Decision::Local { outcome, issue: true },
    }
}

impl Decision {
    /// The decision that takes this one's place when the other site is down, refuses the connection, breaks off, or
    /// refuses the hop.
    pub fn after_failure(self, sites: &impl Sites) -> Self {
        match self {
            Self::Begin { outcome, .. } => Self::Local { outcome, issue: true },
            Self::Proxy { on_failure: OnFailure::ServeHere, .. } if sites.serves_here() => {
                Self::Local { outcome: Outcome::Rehomed, issue: true }
            }
            // A session is not re-homed to where it cannot be served either.
            Self::Proxy { on_failure: OnFailure::ServeHere | OnFailure::Abort, .. } => Self::Abort,
            other => other,
        }
    }

    /// The decision that takes this one's place when the other site refuses the hop and says why.
    pub fn after_refusal(self, why: HomeRefusal, sites: &impl Sites) -> Self {
        match (self, why) {
            (Self::Proxy { .. }, HomeRefusal::Drained) => {
                Self::Local { outcome: Outcome::Expired, issue: true }
            }
            _ => self.after_failure(sites),
        }
    }

    /// The peer that the request is to be sent to.
    pub fn peer(&self) -> Option<&MemberId> {
        match self {
            Self::Proxy { to: peer, .. } | Self::Begin { at: peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// The word for it in the access log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Local { issue: true, .. } => "serve_here_and_issue",
            Self::Local { issue: false, .. } => "serve_here",
            Self::Proxy { .. } => "proxy",
            Self::Begin { .. } => "begin_elsewhere",
            Self::Redirect { .. } => "redirect",
            Self::Abort => "abort",
            Self::Refuse(refusal) => refusal.as_str(),
        }
    }

    /// The decision of a service that redirects clients instead of proxying them. `asks_for`: whether the request
    /// asks for this member by its own name. To redirect it there again would only bring it back.
    pub fn redirecting(self, asks_for: impl FnOnce(&MemberId) -> bool) -> Self {
        match self {
            Self::Proxy { to, .. } if asks_for(&to) => Self::Local { outcome: Outcome::Loop, issue: false },
            Self::Proxy { to, .. } => Self::Redirect { to },
            other => other,
        }
    }

    /// What a request is counted as when this is what became of it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Local { outcome, .. } => *outcome,
            Self::Proxy { .. } | Self::Begin { .. } => Outcome::Proxied,
            Self::Redirect { .. } => Outcome::Redirected,
            Self::Abort => Outcome::Aborted,
            Self::Refuse(_) => Outcome::FromPeer,
        }
    }

    /// What a request is counted as that was not sent to a peer after all: a rule answered it, or chose another pool.
    pub fn outcome_here(&self) -> Outcome {
        match self {
            Self::Proxy { .. } => Outcome::Local,
            Self::Begin { outcome, .. } => *outcome,
            other => other.outcome(),
        }
    }
}

impl From<HmDownRecovery> for OnFailure {
    fn from(recovery: HmDownRecovery) -> Self {
        match recovery {
            HmDownRecovery::PickNewServer => Self::ServeHere,
            HmDownRecovery::AbortConnection => Self::Abort,
            HmDownRecovery::ContinuePersistentServer => Self::KeepTrying,
        }
    }
}

#[cfg(test)]
mod tests;
