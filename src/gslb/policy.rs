//! What becomes of a request of a site-persistent virtual service: a pure function of its cookie, of how it
//! came, of the health of its home, and of the configured recovery.
//!
//! | cookie | came from | home | what happens | outcome |
//! |---|---|---|---|---|
//! | none, or refused | client | – | serve here, issue a cookie | `new`, or the reason |
//! | ours | client | here | serve here; issue if stale | `local` |
//! | a peer's | client | up | proxy | `proxied` |
//! | a peer's | client | down | recovery: serve here and issue; 503; keep trying home | `rehomed`, `aborted`, `proxied` |
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
//! A home that refuses the first connection is as good as down: [`Decision::after_failure`] says what
//! follows. A request that came from a peer is never sent to a peer.
//!
//! The recoveries are Avi's `server_hm_down_recovery`; BIG-IP's counterpart is "action on service down".

use prometheus::IntCounter;

use super::MemberId;
use crate::{
    config::HmDownRecovery,
    metrics::Metrics,
    names::{GslbServiceName, VsName},
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

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Serve it here; with `issue`, the answer brings a cookie that makes this site the client's home.
    Local { outcome: Outcome, issue: bool },
    /// Send it to its home.
    Proxy { to: MemberId, on_failure: OnFailure },
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

/// Decides. `home_up` is asked about the home only where that matters.
pub fn decide(
    cookie: Cookie,
    arrival: Arrival,
    home_up: impl FnOnce(&MemberId) -> bool,
    recovery: HmDownRecovery,
) -> Decision {
    let issue = match cookie {
        Cookie::None | Cookie::Refused(_) => true,
        Cookie::Ours { stale } => stale,
        Cookie::Peers(_) => false,
    };
    let local = |outcome| Decision::Local { outcome, issue };
    match (arrival, cookie) {
        (Arrival::Misdirected, _) => Decision::Refuse(HomeRefusal::WrongSite),
        (Arrival::Looped, _) | (Arrival::Peer, Cookie::Peers(_)) => local(Outcome::Loop),
        (Arrival::Peer, _) => local(Outcome::FromPeer),
        (Arrival::Client, Cookie::None) => local(Outcome::New),
        (Arrival::Client, Cookie::Refused(refusal)) => local(refusal.into()),
        (Arrival::Client, Cookie::Ours { .. }) => local(Outcome::Local),
        (Arrival::Client, Cookie::Peers(home)) => {
            let proxy = Decision::Proxy { to: home, on_failure: recovery.into() };
            if home_up(&home) { proxy } else { proxy.after_failure() }
        }
    }
}

impl Decision {
    /// The decision that takes this one's place when home is down, refuses the connection, or refuses the
    /// hop.
    pub fn after_failure(self) -> Self {
        match self {
            Self::Proxy { on_failure: OnFailure::ServeHere, .. } => {
                Self::Local { outcome: Outcome::Rehomed, issue: true }
            }
            Self::Proxy { on_failure: OnFailure::Abort, .. } => Self::Abort,
            other => other,
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
            Self::Proxy { .. } => Outcome::Proxied,
            Self::Redirect { .. } => Outcome::Redirected,
            Self::Abort => Outcome::Aborted,
            Self::Refuse(_) => Outcome::FromPeer,
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

macro_rules! outcomes {
    ($($(#[$doc:meta])* $outcome:ident = $word:literal,)*) => {
        /// What became of a request. Every request of a site-persistent virtual service has exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $outcome,)*
        }

        impl Outcome {
            /// Every outcome, in the order of the variants.
            pub const ALL: &[Self] = &[$(Self::$outcome,)*];

            /// The word in metrics, logs and `show`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$outcome => $word,)*
                }
            }
        }
    };
}

outcomes! {
    /// No cookie: served here, which is the client's home from now on.
    New = "new",
    /// Our cookie: served here.
    Local = "local",
    /// A peer's cookie: sent home.
    Proxied = "proxied",
    /// A peer's cookie: the client was told to go home by itself.
    Redirected = "redirected",
    /// Home was away: served here, which is the client's home from now on.
    Rehomed = "rehomed",
    /// Home was away: answered 503.
    Aborted = "aborted",
    /// It had crossed the federation before, or home's own name led here: served here.
    Loop = "loop",
    /// Cookie refused: past its lifetime or its member's drain epoch.
    Expired = "expired",
    /// Cookie refused: sealed in the future.
    Future = "future",
    /// Cookie refused: sealed with a key that is not ours.
    UnknownKey = "unknown_key",
    /// Cookie refused: not a cookie that was ever sealed.
    Undecryptable = "undecryptable",
    /// Cookie refused: of a member that the service does not have.
    WrongService = "wrong_service",
    /// Proxied here by a peer, which counted it where it entered.
    FromPeer = "from_peer",
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Undecryptable => Self::Undecryptable,
            Refusal::UnknownKey => Self::UnknownKey,
            Refusal::Future => Self::Future,
            Refusal::Expired => Self::Expired,
            Refusal::WrongService => Self::WrongService,
        }
    }
}

/// The counters of one virtual service, resolved once.
#[derive(Clone)]
pub struct OutcomeCounters(Vec<IntCounter>);

impl OutcomeCounters {
    pub fn new(metrics: &Metrics, service: &GslbServiceName, vs: &VsName) -> Self {
        let counter = |outcome: &Outcome| {
            metrics.sp_requests.with_label_values(&[service.as_str(), vs.as_str(), outcome.as_str()])
        };
        Self(Outcome::ALL.iter().map(counter).collect())
    }

    /// Counts one request.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }

    /// How many requests had this outcome.
    pub fn value(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use HmDownRecovery::{AbortConnection, ContinuePersistentServer, PickNewServer};

    use super::*;

    const RECOVERIES: [HmDownRecovery; 3] = [PickNewServer, AbortConnection, ContinuePersistentServer];
    const REFUSALS: [Refusal; 5] = [
        Refusal::Undecryptable,
        Refusal::UnknownKey,
        Refusal::Future,
        Refusal::Expired,
        Refusal::WrongService,
    ];

    fn home() -> MemberId {
        MemberId::from([9; 32])
    }

    fn never_asked(_: &MemberId) -> bool {
        panic!("no home is asked about")
    }

    fn local(outcome: Outcome, issue: bool) -> Decision {
        Decision::Local { outcome, issue }
    }

    #[test]
    fn every_cell_of_the_table_holds() {
        let fresh = Cookie::Ours { stale: false };
        let stale = Cookie::Ours { stale: true };
        let peers = Cookie::Peers(home());
        for recovery in RECOVERIES {
            let check = |cookie, arrival, expected| {
                let decision = decide(cookie, arrival, never_asked, recovery);
                assert_eq!(decision, expected, "{cookie:?} {arrival:?} {recovery:?}");
            };
            check(Cookie::None, Arrival::Client, local(Outcome::New, true));
            check(fresh, Arrival::Client, local(Outcome::Local, false));
            check(stale, Arrival::Client, local(Outcome::Local, true));

            check(Cookie::None, Arrival::Peer, local(Outcome::FromPeer, true));
            check(fresh, Arrival::Peer, local(Outcome::FromPeer, false));
            check(stale, Arrival::Peer, local(Outcome::FromPeer, true));
            check(peers, Arrival::Peer, local(Outcome::Loop, false));

            check(Cookie::None, Arrival::Looped, local(Outcome::Loop, true));
            check(fresh, Arrival::Looped, local(Outcome::Loop, false));
            check(stale, Arrival::Looped, local(Outcome::Loop, true));
            check(peers, Arrival::Looped, local(Outcome::Loop, false));

            for cookie in [Cookie::None, fresh, stale, peers, Cookie::Refused(Refusal::Expired)] {
                check(cookie, Arrival::Misdirected, Decision::Refuse(HomeRefusal::WrongSite));
            }
            for refusal in REFUSALS {
                let refused = Cookie::Refused(refusal);
                check(refused, Arrival::Client, local(refusal.into(), true));
                check(refused, Arrival::Peer, local(Outcome::FromPeer, true));
                check(refused, Arrival::Looped, local(Outcome::Loop, true));
            }
        }
    }

    #[test]
    fn a_peers_cookie_follows_the_health_of_home_and_the_recovery() {
        let rehomed = local(Outcome::Rehomed, true);
        for (recovery, on_failure, away) in [
            (PickNewServer, OnFailure::ServeHere, Some(rehomed)),
            (AbortConnection, OnFailure::Abort, Some(Decision::Abort)),
            (ContinuePersistentServer, OnFailure::KeepTrying, None),
        ] {
            let proxy = Decision::Proxy { to: home(), on_failure };
            let away = away.unwrap_or(proxy);
            let decided = |up| {
                let home_up = |asked: &MemberId| {
                    assert_eq!(*asked, home());
                    up
                };
                decide(Cookie::Peers(home()), Arrival::Client, home_up, recovery)
            };
            assert_eq!(decided(true), proxy, "{recovery:?}, home up");
            assert_eq!(decided(false), away, "{recovery:?}, home down");
            assert_eq!(proxy.after_failure(), away, "{recovery:?}, home refuses");
        }
    }

    #[test]
    fn a_redirect_takes_the_place_of_proxying_and_of_nothing_else() {
        let to = home();
        let proxy = Decision::Proxy { to, on_failure: OnFailure::KeepTrying };
        assert_eq!(proxy.redirecting(|_| false), Decision::Redirect { to });
        assert_eq!(proxy.redirecting(|asked| *asked == to), local(Outcome::Loop, false));
        for other in [
            Decision::Abort,
            Decision::Refuse(HomeRefusal::PoolDown),
            local(Outcome::New, true),
            local(Outcome::Rehomed, true),
        ] {
            assert_eq!(other.redirecting(never_asked), other);
        }
    }

    #[test]
    fn every_decision_is_counted_once_and_by_its_end() {
        let to = home();
        for (decision, before, after) in [
            (Decision::Proxy { to, on_failure: OnFailure::ServeHere }, Outcome::Proxied, Outcome::Rehomed),
            (Decision::Proxy { to, on_failure: OnFailure::Abort }, Outcome::Proxied, Outcome::Aborted),
            (Decision::Proxy { to, on_failure: OnFailure::KeepTrying }, Outcome::Proxied, Outcome::Proxied),
            (Decision::Redirect { to }, Outcome::Redirected, Outcome::Redirected),
            (Decision::Abort, Outcome::Aborted, Outcome::Aborted),
            (Decision::Refuse(HomeRefusal::WrongSite), Outcome::FromPeer, Outcome::FromPeer),
            (local(Outcome::New, true), Outcome::New, Outcome::New),
        ] {
            assert_eq!(
                (decision.outcome(), decision.after_failure().outcome()),
                (before, after),
                "{decision:?}"
            );
        }
    }

    #[test]
    fn a_refusal_is_counted_under_its_own_word() {
        for refusal in REFUSALS {
            assert_eq!(Outcome::from(refusal).as_str(), refusal.to_string());
        }
    }

    #[test]
    fn counters_are_kept_apart_by_outcome() {
        let metrics = Metrics::new();
        let counters = OutcomeCounters::new(&metrics, &"gs-1".into(), &"pay@site_A".into());
        for (times, outcome) in Outcome::ALL.iter().enumerate() {
            (0..times).for_each(|_| counters.count(*outcome));
        }
        let page = metrics.page();
        for (times, outcome) in Outcome::ALL.iter().enumerate() {
            let labels = format!(r#"outcome="{}",service="gs-1",vs="pay@site_A""#, outcome.as_str());
            assert!(page.contains(&format!("homing_sp_requests_total{{{labels}}} {times}\n")), "{labels}");
            assert_eq!(counters.value(*outcome), times as u64);
        }
    }
}
