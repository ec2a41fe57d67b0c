//! The tables of the policy, cell by cell.

use HmDownRecovery::{AbortConnection, ContinuePersistentServer, PickNewServer};
use Standing::{Down, InService, Leaving, Left};

use super::*;

const RECOVERIES: [HmDownRecovery; 3] = [PickNewServer, AbortConnection, ContinuePersistentServer];
const REFUSALS: [Refusal; 5] =
    [Refusal::Undecryptable, Refusal::UnknownKey, Refusal::Future, Refusal::Expired, Refusal::WrongService];
const FRESH: Cookie = Cookie::Ours { stale: false };
const STALE: Cookie = Cookie::Ours { stale: true };

/// A federation in which everything is well, but for what a test says.
#[derive(Clone, Copy)]
struct World {
    home: Standing,
    own: Standing,
    serves: bool,
    elsewhere: Option<MemberId>,
}

const WELL: World = World { home: InService, own: InService, serves: true, elsewhere: None };

impl Sites for World {
    fn peer(&self, peer: &MemberId) -> Standing {
        assert_eq!(*peer, home());
        self.home
    }

    fn own(&self) -> Standing {
        self.own
    }

    fn serves_here(&self) -> bool {
        self.serves
    }

    fn elsewhere(&self) -> Option<MemberId> {
        self.elsewhere
    }
}

fn home() -> MemberId {
    MemberId::from([9; 32])
}

fn third() -> MemberId {
    MemberId::from([3; 32])
}

fn local(outcome: Outcome, issue: bool) -> Decision {
    Decision::Local { outcome, issue }
}

fn proxy(recovery: HmDownRecovery) -> Decision {
    Decision::Proxy { to: home(), on_failure: recovery.into() }
}

#[test]
fn every_cell_of_the_first_table_holds() {
    let peers = Cookie::Peers(home());
    for recovery in RECOVERIES {
        let check = |cookie, arrival, expected| {
            let decision = decide(cookie, arrival, &WELL, recovery);
            assert_eq!(decision, expected, "{cookie:?} {arrival:?} {recovery:?}");
        };
        check(Cookie::None, Arrival::Client, local(Outcome::New, true));
        check(FRESH, Arrival::Client, local(Outcome::Local, false));
        check(STALE, Arrival::Client, local(Outcome::Local, true));
        check(peers, Arrival::Client, proxy(recovery));

        check(Cookie::None, Arrival::Peer, local(Outcome::FromPeer, true));
        check(FRESH, Arrival::Peer, local(Outcome::FromPeer, false));
        check(STALE, Arrival::Peer, local(Outcome::FromPeer, true));
        check(peers, Arrival::Peer, local(Outcome::Loop, false));

        check(Cookie::None, Arrival::Looped, local(Outcome::Loop, true));
        check(FRESH, Arrival::Looped, local(Outcome::Loop, false));
        check(STALE, Arrival::Looped, local(Outcome::Loop, true));
        check(peers, Arrival::Looped, local(Outcome::Loop, false));

        for cookie in [Cookie::None, FRESH, STALE, peers, Cookie::Refused(Refusal::Expired)] {
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

/// A row of the second table: what the three recoveries lead to.
fn check_row(row: &str, expected: [Decision; 3], decided: impl Fn(HmDownRecovery) -> Decision) {
    for (recovery, expected) in RECOVERIES.into_iter().zip(expected) {
        assert_eq!(decided(recovery), expected, "{row}, {recovery:?}");
    }
}

#[test]
fn every_cell_of_the_table_of_homes_that_are_away_holds() {
    let with_home =
        |world: World| move |recovery| decide(Cookie::Peers(home()), Arrival::Client, &world, recovery);
    let rehomed = local(Outcome::Rehomed, true);
    let anew = [local(Outcome::Expired, true); 3];
    let keep = proxy(ContinuePersistentServer);
    let proxied = RECOVERIES.map(proxy);
    let away = World { home: Down, ..WELL };
    check_row("down", [rehomed, Decision::Abort, keep], with_home(away));
    check_row("refuses, breaks off, or says pool_down", [rehomed, Decision::Abort, keep], |recovery| {
        let decision = proxy(recovery);
        assert_eq!(decision.after_refusal(HomeRefusal::PoolDown, &WELL), decision.after_failure(&WELL));
        assert_eq!(decision.after_refusal(HomeRefusal::WrongSite, &WELL), decision.after_failure(&WELL));
        decision.after_failure(&WELL)
    });
    check_row("before the deadline", proxied, with_home(World { home: Leaving, ..WELL }));
    check_row("after the deadline", anew, with_home(World { home: Left, ..WELL }));
    check_row("after the deadline, as home says", anew, |recovery| {
        proxy(recovery).after_refusal(HomeRefusal::Drained, &WELL)
    });
    for (gone, outcome) in
        [(Refusal::WrongService, Outcome::WrongService), (Refusal::Expired, Outcome::Expired)]
    {
        check_row("removed, or of an older epoch", [local(outcome, true); 3], |recovery| {
            decide(Cookie::Refused(gone), Arrival::Client, &WELL, recovery)
        });
    }
    let both = World { home: Down, serves: false, ..WELL };
    check_row("both down", [Decision::Abort, Decision::Abort, keep], with_home(both));
}

#[test]
fn a_site_that_is_being_emptied_lets_sessions_begin_at_a_peer() {
    let at = third();
    for own in [Leaving, Left] {
        let world = World { own, elsewhere: Some(at), ..WELL };
        let alone = World { own, ..WELL };
        for recovery in RECOVERIES {
            for (cookie, outcome) in
                [(Cookie::None, Outcome::New), (Cookie::Refused(Refusal::Expired), Outcome::Expired)]
            {
                let decided = |world| decide(cookie, Arrival::Client, world, recovery);
                assert_eq!(decided(&world), Decision::Begin { at, outcome });
                assert_eq!(decided(&world).after_failure(&world), local(outcome, true));
                assert_eq!(decided(&alone), local(outcome, true), "there is no other place");
                let from_peer = decide(cookie, Arrival::Peer, &world, recovery);
                assert_eq!(from_peer, local(Outcome::FromPeer, true), "never two hops");
            }
            let peers = decide(Cookie::Peers(home()), Arrival::Client, &world, recovery);
            assert_eq!(peers, proxy(recovery), "who has another home goes there");
        }
    }
}

#[test]
fn a_site_keeps_its_sessions_until_the_deadline() {
    let at = third();
    let world = |own| World { own, elsewhere: Some(at), ..WELL };
    let decided = |arrival, own| decide(FRESH, arrival, &world(own), PickNewServer);
    assert_eq!(decided(Arrival::Client, Leaving), local(Outcome::Local, false));
    assert_eq!(decided(Arrival::Peer, Leaving), local(Outcome::FromPeer, false));
    assert_eq!(decided(Arrival::Client, Left), Decision::Begin { at, outcome: Outcome::Expired });
    assert_eq!(decided(Arrival::Peer, Left), Decision::Refuse(HomeRefusal::Drained));
}

#[test]
fn a_hop_is_refused_where_the_app_is_down() {
    let world = World { serves: false, ..WELL };
    for cookie in [Cookie::None, FRESH, STALE, Cookie::Peers(home())] {
        let decision = decide(cookie, Arrival::Peer, &world, PickNewServer);
        assert_eq!(decision, Decision::Refuse(HomeRefusal::PoolDown), "{cookie:?}");
    }
    let gone = World { own: Left, ..world };
    assert_eq!(decide(FRESH, Arrival::Peer, &gone, PickNewServer), Decision::Refuse(HomeRefusal::Drained));
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
        Decision::Begin { at: to, outcome: Outcome::New },
        local(Outcome::New, true),
        local(Outcome::Rehomed, true),
    ] {
        assert_eq!(other.redirecting(|_| panic!("nobody asks")), other);
    }
}

#[test]
fn every_decision_is_counted_once_and_by_its_end() {
    let to = home();
    for (decision, before, after) in [
        (Decision::Proxy { to, on_failure: OnFailure::ServeHere }, Outcome::Proxied, Outcome::Rehomed),
        (Decision::Proxy { to, on_failure: OnFailure::Abort }, Outcome::Proxied, Outcome::Aborted),
        (Decision::Proxy { to, on_failure: OnFailure::KeepTrying }, Outcome::Proxied, Outcome::Proxied),
        (Decision::Begin { at: to, outcome: Outcome::New }, Outcome::Proxied, Outcome::New),
        (Decision::Redirect { to }, Outcome::Redirected, Outcome::Redirected),
        (Decision::Abort, Outcome::Aborted, Outcome::Aborted),
        (Decision::Refuse(HomeRefusal::WrongSite), Outcome::FromPeer, Outcome::FromPeer),
        (local(Outcome::New, true), Outcome::New, Outcome::New),
    ] {
        let ended = decision.after_failure(&WELL);
        assert_eq!((decision.outcome(), ended.outcome()), (before, after), "{decision:?}");
    }
}
