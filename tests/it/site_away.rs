//! A home that misbehaves: garbage, silence, 421, death in the middle of a request; under each recovery.

use std::time::Duration;

use bytes::Bytes;
use homing::{
    prelude::{RequestSend, Rule, RuleError, RuleResult, async_trait},
    server,
};
use tokio::net::TcpListener;

use crate::{
    rules::run_here,
    sites::{OUTCOMES, Sites, ask_as},
    support::{
        certs::cert_for,
        client::{Answer, Connection, Request},
        config::{APP, Federation},
        homing::Homing,
        net,
        origin::{Mode, Origin},
        site_cookie::{A, B, Cookie},
    },
};

const RECOVERIES: [&str; 3] = ["pick_new_server", "abort_connection", "continue_persistent_server"];

#[tokio::test]
async fn a_home_that_answers_garbage_is_away() {
    let home = Origin::start("not a site").await;
    home.set(Mode::RawClose("SSH-2.0-OpenSSH_9.9\r\n".into()));
    for recovery in RECOVERIES {
        check_broken_home(&home, recovery, 502).await;
    }
}

#[tokio::test]
async fn a_home_that_closes_without_an_answer_is_away() {
    let home = Origin::start("not a site").await;
    home.set(Mode::RawClose(Bytes::new()));
    for recovery in RECOVERIES {
        check_broken_home(&home, recovery, 502).await;
    }
}

#[tokio::test]
async fn a_home_that_is_silent_is_away() {
    let home = Origin::start("not a site").await;
    home.set(Mode::NeverAnswer);
    for recovery in RECOVERIES {
        check_broken_home(&home, recovery, 504).await;
    }
}

#[tokio::test]
async fn a_home_that_speaks_tls_where_plain_is_expected_is_away() {
    let home = Origin::start_tls("not a site", &cert_for(&["b.com"])).await;
    for recovery in RECOVERIES {
        check_broken_home(&home, recovery, 502).await;
    }
}

#[tokio::test]
async fn a_home_that_closes_every_connection_at_once_is_away() {
    let listener = TcpListener::bind(net::free_addr()).await.expect("a free address");
    let home = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let app = Origin::start("a").await;
    let a = Federation::new().unmonitored().home_b_at(home).site_a(&[&app]).start().await;
    a.sees("SP-gs-web@site_A", home, true).await;
    let answer = ask_as(B, &a).await;
    assert_eq!((answer.status, answer.server()), (200, "a"));
    assert_eq!(new_home(&answer), Some(A.id()));
}

/// What a GET, and what a POST, of a session gets whose home takes requests and answers none; nobody knows what
/// became of the POST, so it is not sent again.
async fn check_broken_home(home: &Origin, recovery: &str, post_status: u16) {
    let app = Origin::start("a").await;
    let fed = Federation::new().unmonitored().recovery(recovery).home_b_at(home.addr);
    let fed = match post_status {
        504 => fed.home_read_timeout("300ms"),
        _ => fed,
    };
    let a = fed.site_a(&[&app]).start().await;
    a.sees("SP-gs-web@site_A", home.addr, true).await;
    let before = home.started().len();

    let answer = ask_as(B, &a).await;
    let rehomed = recovery == "pick_new_server";
    let expected = if rehomed { (200, "a", Some(A.id())) } else { (503, "", None) };
    assert_eq!((answer.status, answer.server(), new_home(&answer)), expected, "{} {recovery}", home.name);
    let counts = if rehomed { [0.0, 1.0, 0.0] } else { [0.0, 0.0, 1.0] };
    outcomes(&a, counts).await;
    let asked = home.started().len() - before;
    assert!(asked <= if recovery == "continue_persistent_server" { 3 } else { 1 }, "{asked} {recovery}");

    let before = (home.started().len(), app.requests().len());
    let answer = post(&a, "the body").await;
    assert_eq!((answer.status, new_home(&answer)), (post_status, None), "{} {recovery}", home.name);
    assert!(home.started().len() - before.0 <= 1, "{recovery}: it may have been acted on");
    assert_eq!(app.requests().len(), before.1, "{recovery}: it may have been acted on");
}

#[tokio::test]
async fn a_home_that_has_this_host_no_more_sends_any_request_back() {
    let home = Origin::start("not a site").await;
    home.set(Mode::Status(421));
    for recovery in RECOVERIES {
        let app = Origin::start("a").await;
        let fed = Federation::new().unmonitored().recovery(recovery).home_b_at(home.addr);
        let a = fed.site_a(&[&app]).start().await;
        a.sees("SP-gs-web@site_A", home.addr, true).await;
        for answer in [ask_as(B, &a).await, post(&a, "the body").await] {
            let expected = match recovery {
                "pick_new_server" => (200, Some(A.id())),
                "abort_connection" => (503, None),
                _ => (421, None),
            };
            assert_eq!((answer.status, new_home(&answer)), expected, "{recovery}");
        }
        let bodies: Vec<_> = app.requests().iter().map(|request| request.body_len).collect();
        assert_eq!(bodies, if recovery == "pick_new_server" { vec![0, 8] } else { vec![] }, "{recovery}");
    }
}

#[tokio::test]
async fn a_home_that_dies_in_the_middle_of_a_request_is_recovered_from_as_configured() {
    for (recovery, method, status, server) in [
        ("pick_new_server", "GET", 200, "a"),
        ("abort_connection", "GET", 503, ""),
        ("continue_persistent_server", "GET", 503, ""),
        ("pick_new_server", "POST", 502, ""),
        ("abort_connection", "POST", 502, ""),
        ("continue_persistent_server", "POST", 502, ""),
    ] {
        let mut sites = Sites::start(Federation::new().unmonitored().recovery(recovery)).await;
        sites.app_b.set(Mode::Held);
        let mut client = Connection::open(sites.a.addr).await;
        let request = Request::new(method, "/").cookie(&format!("FOO={}", Cookie::of(B).seal()));
        let request =
            if method == "POST" { Request { body: Some("the body".into()), ..request } } else { request };
        client.send(&request).await.expect("the request is read");
        sites.app_b.got(1).await;
        sites.b.kill().await;
        let answer = client.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.server()), (status, server), "{recovery} {method}");
        assert_eq!(answer.site_cookie().is_some(), status == 200, "{recovery} {method}");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_cut_when_home_dies() {
    let mut sites = Sites::start(Federation::new().unmonitored().recovery("pick_new_server")).await;
    sites.app_b.set(Mode::Steps(2));
    let mut client = Connection::open(sites.a.addr).await;
    let request = Request::get("/").cookie(&format!("FOO={}", Cookie::of(B).seal()));
    client.send(&request).await.expect("the request is read");
    let head = client.head().await.expect("the head comes before any step");
    assert_eq!(head.status(), 200);
    sites.b.kill().await;
    client.closed().await;
    assert!(sites.app_a.requests().is_empty(), "nobody is answered twice");
}

#[tokio::test]
async fn a_session_keeps_its_home_when_no_site_can_serve_it() {
    for recovery in RECOVERIES {
        let fed = Federation::new().unmonitored().recovery(recovery);
        let mut sites = Sites::start_with(fed, |site| site.monitored(APP, "tcp")).await;
        sites.app_a.down().await;
        sites.a.sees(APP, sites.app_a.addr, false).await;
        sites.b.kill().await;
        let answer = ask_as(B, &sites.a).await;
        assert_eq!((answer.status, answer.site_cookie()), (503, None), "{recovery}");
        outcomes(&sites.a, [0.0, 0.0, 1.0]).await;
    }
}

#[tokio::test]
async fn a_slow_app_is_not_a_home_that_is_away() {
    let fed = Federation::new().unmonitored().recovery("pick_new_server");
    let sites =
        Sites::start_with(fed, |site| site.with(|yaml| yaml["pools"][0]["read_timeout"] = "300ms".into()))
            .await;
    sites.app_b.set(Mode::NeverAnswer);
    let answer = ask_as(B, &sites.a).await;
    assert_eq!((answer.status, answer.site_cookie()), (504, None), "home's own word");
    assert!(sites.app_a.requests().is_empty());
    outcomes(&sites.a, [1.0, 0.0, 0.0]).await;
}

/// Fails when a request is about to be sent to another site.
struct Failing;

#[async_trait]
impl Rule for Failing {
    fn http_request_send(&self, send: &mut RequestSend<'_>) -> RuleResult {
        match send.goes_elsewhere() {
            true => Err(RuleError::new("it cannot be sent")),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_rule_that_fails_is_no_home_that_is_away() {
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new().recovery("pick_new_server");
    let _b = fed.site_b(&[&app_b]).start().await;
    let site = fed
        .site_a(&[&app_a])
        .push("rules", "{name: failing, on_error: fail_closed}")
        .vs("rule_refs", "[failing]");
    let running = run_here(&site, server::Homing::builder().rule("failing", Failing)).await;
    let request = Request::get("/").cookie(&format!("FOO={}", Cookie::of(B).seal()));
    let answer = request.send(site.addr).await;
    assert_eq!((answer.status, new_home(&answer)), (500, None));
    assert!(app_a.requests().is_empty() && app_b.requests().is_empty());
    running.shutdown(Duration::from_secs(1)).await;
}

/// A POST of a session of site_B.
async fn post(at: &Homing, body: &'static str) -> Answer {
    Request::post("/", body).cookie(&format!("FOO={}", Cookie::of(B).seal())).send(at.addr).await
}

/// The member that an answer makes the client's home.
fn new_home(answer: &Answer) -> Option<[u8; 32]> {
    answer.site_cookie().map(|value| Cookie::open(value).member)
}

/// Waits for the numbers of requests proxied, re-homed, aborted.
async fn outcomes(homing: &Homing, expected: [f64; 3]) {
    for (count, outcome) in expected.into_iter().zip(["proxied", "rehomed", "aborted"]) {
        homing.settles(OUTCOMES, &[("outcome", outcome)], count).await;
    }
}
