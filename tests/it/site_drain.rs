//! Emptying a site before it is worked on.

use crate::{
    sites::{OUTCOMES, Sites, ask_as},
    support::{
        client::{Answer, Browser, Request},
        config::Federation,
        eventually,
        homing::{Homing, Output},
        origin::Origin,
        site_cookie::{A, B, Cookie},
    },
};

#[tokio::test]
async fn until_the_deadline_sessions_go_on_and_new_ones_start_elsewhere() {
    let sites = start(Federation::new()).await;
    let output = drain(&sites.b, "30m").await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    assert!(output.stdout.contains("DRAINING"), "{}", output.text());
    for at in [&sites.b, &sites.a] {
        let answer = ask_as(B, at).await;
        assert_eq!((answer.server(), answer.site_cookie()), ("b", None), "its sessions go on");
    }

    let mut browser = Browser::default();
    let first = browser.get(sites.b.addr, "/").await;
    assert_eq!((first.status, first.server(), home(&first)), (200, "a", Some(A.id())));
    assert_eq!(first.header("cache-control"), Some("private"));
    for at in [sites.b.addr, sites.a.addr] {
        let answer = browser.get(at, "/").await;
        assert_eq!((answer.server(), answer.site_cookie()), ("a", None), "and it stays there");
    }
    sites.b.settles(OUTCOMES, &[("outcome", "proxied")], 2.0).await;
    sites.b.settles(OUTCOMES, &[("outcome", "new")], 0.0).await;

    let output = sites.b.command(&["gslb", "undrain", "SITE_b"]).await;
    assert!(output.stdout.contains("IN_SERVICE"), "{}", output.text());
    let answer = Request::get("/").send(sites.b.addr).await;
    assert_eq!((answer.server(), home(&answer)), ("b", Some(B.id())));
}

#[tokio::test]
async fn after_the_deadline_sessions_begin_anew_elsewhere_whatever_the_recovery_is() {
    for recovery in ["pick_new_server", "abort_connection", "continue_persistent_server"] {
        let sites = start(Federation::new().recovery(recovery)).await;
        assert_eq!(drain(&sites.b, "0s").await.code, Some(0));
        for at in [&sites.b, &sites.a] {
            let cookie = format!("x=1; FOO={}", Cookie::of(B).seal());
            let answer = Request::post("/", "the body").cookie(&cookie).send(at.addr).await;
            assert_eq!((answer.status, answer.server()), (200, "a"), "{recovery}");
            assert_eq!(home(&answer), Some(A.id()), "{recovery}");
            assert_eq!(answer.header("homing-hop-refused"), None);
        }
        let requests = sites.app_a.requests();
        assert!(requests.iter().all(|it| (it.body_len, it.cookies().as_str()) == (8, "x=1")), "{requests:?}");
        assert!(sites.app_b.requests().is_empty(), "{recovery}");
        sites.a.settles(OUTCOMES, &[("outcome", "expired")], 1.0).await;
        sites.a.settles(OUTCOMES, &[("outcome", "from_peer")], 1.0).await;
        sites.b.settles(OUTCOMES, &[("outcome", "proxied")], 1.0).await;
    }
}

#[tokio::test]
async fn the_deadline_comes_by_itself() {
    let sites = start(Federation::new()).await;
    drain(&sites.b, "1s").await;
    eventually("the session is re-homed at its own site", async || {
        home(&ask_as(B, &sites.b).await) == Some(A.id())
    })
    .await;
    assert_eq!(home(&ask_as(B, &sites.a).await), Some(A.id()));
    let shown = sites.b.command(&["show", "gslbsite", "site_B"]).await;
    assert!(shown.stdout.contains("DRAINED"), "{}", shown.text());
}

#[tokio::test]
async fn a_drain_by_command_outlives_a_reload_and_a_raised_epoch_a_restart_too() {
    let fed = Federation::new();
    let apps = [Origin::start("a").await, Origin::start("b").await];
    let (site_a, site_b) = (fed.site_a(&[&apps[0]]), fed.site_b(&[&apps[1]]));
    let mut sites = Sites::of(&site_a, &site_b, apps).await;
    sites.b.sees("SP-gs-web@site_B", sites.a.addr, true).await;
    let output = drain(&sites.b, "30m").await;
    for part in ["Only this node knows it", "other nodes of site_B", "drain_epoch"] {
        assert!(output.stdout.contains(part), "{part}: {}", output.text());
    }
    let shown = async |homing: &Homing| {
        let site = homing.json("/api/v1/gslb/sites").await[1].clone();
        (site["drain_state"].clone(), site["drain_until"].clone())
    };
    let before = shown(&sites.b).await;
    assert_eq!(before.0, "DRAINING");
    let other_ttl = fed.clone().with(|yaml| yaml["gslb_services"][0]["ttl"] = "60s".into());
    sites.b.reloaded(&site_b.clone().in_federation(&other_ttl)).await;
    assert_eq!(shown(&sites.b).await, before, "with its deadline");
    assert_eq!(
        home(&Request::get("/").send(sites.b.addr).await),
        Some(A.id()),
        "new sessions start elsewhere"
    );

    sites.b.kill().await;
    sites.b = site_b.start().await;
    assert_eq!(shown(&sites.b).await.0, "IN_SERVICE");
    assert_eq!(home(&ask_as(B, &sites.b).await), None, "its sessions are good again");
    let raised =
        fed.with(|yaml| yaml["gslb_services"][0]["groups"][1]["members"][0]["drain_epoch"] = 1.into());
    let raised = site_b.in_federation(&raised);
    sites.b.reloaded(&raised).await;
    for _ in 0..2 {
        let answer = ask_as(B, &sites.b).await;
        assert_eq!(home(&answer), Some(B.id()), "an older cookie is void");
        sites.b.settles(OUTCOMES, &[("outcome", "expired")], 1.0).await;
        sites.b.kill().await;
        sites.b = raised.start().await;
    }
}

#[tokio::test]
async fn a_site_without_a_peer_in_service_takes_sessions_still() {
    let mut sites = start(Federation::new()).await;
    sites.a.kill().await;
    sites.b.sees("SP-gs-web@site_B", sites.a.addr, false).await;
    drain(&sites.b, "0s").await;
    for answer in [Request::get("/").send(sites.b.addr).await, ask_as(B, &sites.b).await] {
        assert_eq!((answer.status, answer.server(), home(&answer)), (200, "b", Some(B.id())));
    }
}

#[tokio::test]
async fn a_session_begins_here_if_the_peer_that_should_have_it_is_gone() {
    let mut sites = Sites::start(Federation::new().unmonitored()).await;
    drain(&sites.b, "30m").await;
    sites.a.kill().await;
    let answer = Request::post("/", "the body").send(sites.b.addr).await;
    assert_eq!((answer.status, answer.server(), home(&answer)), (200, "b", Some(B.id())));
    sites.b.settles(OUTCOMES, &[("outcome", "new")], 1.0).await;
}

#[tokio::test]
async fn a_node_of_another_site_re_homes_by_itself_and_says_what_is_left_to_do() {
    let sites = start(Federation::new()).await;
    let output = drain(&sites.a, "0s").await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    assert!(output.stdout.contains("Tell the nodes of site_B"), "{}", output.text());
    let answer = ask_as(B, &sites.a).await;
    assert_eq!((answer.server(), home(&answer)), ("a", Some(A.id())));
    sites.b.settles(OUTCOMES, &[], 0.0).await;
    assert_eq!(ask_as(B, &sites.b).await.server(), "b", "it has not been told");
}

#[tokio::test]
async fn a_disabled_member_keeps_its_sessions_for_its_graceful_disable_timeout() {
    let fed = Federation::new()
        .with(|yaml| yaml["gslb_services"][0]["groups"][1]["members"][0]["enabled"] = false.into());
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let (a, b) = (fed.site_a(&[&app_a]).start().await, fed.site_b(&[&app_b]).start().await);
    b.sees("SP-gs-web@site_B", a.addr, true).await;
    for at in [&b, &a] {
        let answer = ask_as(B, at).await;
        assert_eq!((answer.server(), answer.site_cookie()), ("b", None), "a minute has not gone by");
    }
    let answer = Request::get("/").send(b.addr).await;
    assert_eq!((answer.server(), home(&answer)), ("a", Some(A.id())), "new sessions start elsewhere");
    let runtime = b.json("/api/v1/gslbservices/gs/runtime").await;
    assert_eq!(runtime["groups"][1]["members"][0]["drain_state"], "DRAINING");
    assert_eq!(runtime["groups"][0]["members"][0]["drain_state"], serde_json::Value::Null);
}

#[tokio::test]
async fn the_sessions_that_are_left_are_counted() {
    let sites = start(Federation::new()).await;
    let mut browsers = [(); 5].map(|()| Browser::default());
    for browser in &mut browsers {
        browser.get(sites.b.addr, "/").await;
        browser.get(sites.a.addr, "/").await;
        browser.get(sites.b.addr, "/").await;
    }
    Request::get("/").send(sites.b.addr).await;
    let output = drain(&sites.b, "30m").await;
    assert!(output.stdout.contains("| pinned_sessions | 5 "), "{}", output.text());
    let member = |runtime: &serde_json::Value, n: usize| runtime["groups"][n]["members"][0].clone();
    let runtime = sites.b.json("/api/v1/gslbservices/gs/runtime").await;
    let (a, b) = (member(&runtime, 0), member(&runtime, 1));
    assert_eq!((&b["pinned_sessions"], &b["drain_state"]), (&5.into(), &"DRAINING".into()));
    assert!(a.get("pinned_sessions").is_none() && a.get("drain_state").is_none(), "{a}");
    let shown = sites.b.command(&["show", "gslbsite"]).await;
    for part in ["site_A", "IN_SERVICE", "site_B", "DRAINING", " 5 "] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.text());
    }
}

#[tokio::test]
async fn what_cannot_be_drained_is_said() {
    let sites = Sites::start(Federation::new()).await;
    let output = sites.b.command(&["gslb", "drain", "site_C"]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("site site_C is not known; known: site_A, site_B"), "{}", output.text());
    let output = sites.b.command(&["gslb", "drain", "site_B", "--for", "soon"]).await;
    assert_eq!(output.code, Some(2), "{}", output.text());
    assert!(sites.b.log().lines().all(|line| !line.contains("is being drained")));
    drain(&sites.b, "30m").await;
    eventually("the change is logged", async || {
        sites.b.log().lines().any(|line| line.contains("is being drained") && line.contains("site_B"))
    })
    .await;
}

/// Two sites that both know the other to be up.
async fn start(fed: Federation) -> Sites {
    let sites = Sites::start(fed).await;
    sites.b.sees("SP-gs-web@site_B", sites.a.addr, true).await;
    sites
}

/// Tells a node to empty site_B.
async fn drain(at: &Homing, how_long: &str) -> Output {
    at.command(&["gslb", "drain", "site_B", "--for", how_long]).await
}

/// The member that an answer makes the client's home.
fn home(answer: &Answer) -> Option<[u8; 32]> {
    answer.site_cookie().map(|value| Cookie::open(value).member)
}
