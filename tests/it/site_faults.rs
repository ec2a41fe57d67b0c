//! When the home site is away, and who may say where a request came from.

use std::time::{Duration, Instant};

use crate::{
    sites::{OUTCOMES, Sites, ask_as},
    support::{
        client::Request,
        config::{APP, Federation},
        eventually,
        homing::Homing,
        origin::Origin,
        site_cookie::{A, B, Cookie, Hop, KEY, Key, now},
    },
};

#[tokio::test]
async fn a_refused_connection_home_is_enough_to_pick_a_new_server() {
    let mut sites = Sites::start(Federation::new().unmonitored().recovery("pick_new_server")).await;
    sites.b.kill().await;
    let request = Request::post("/", "the body").cookie(&format!("FOO={}", Cookie::of(B).seal()));
    let answer = request.send(sites.a.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "a"), "the first request is served here");
    assert_eq!(Cookie::open(answer.site_cookie().expect("a new home")).member, A.id());
    assert_eq!(sites.app_a.requests()[0].body_len, 8, "its body comes whole");
    assert_eq!(sites.app_a.requests()[0].cookies(), "");
    outcomes(&sites.a, [0.0, 1.0, 0.0]).await;
}

#[tokio::test]
async fn a_refused_connection_home_is_enough_to_abort() {
    let mut sites = Sites::start(Federation::new().unmonitored().recovery("abort_connection")).await;
    sites.b.kill().await;
    let answer = ask_as(B, &sites.a).await;
    assert_eq!((answer.status, answer.site_cookie()), (503, None));
    assert!(sites.app_a.requests().is_empty());
    outcomes(&sites.a, [0.0, 0.0, 1.0]).await;
}

#[tokio::test]
async fn continue_persistent_server_keeps_trying_home() {
    let fed = Federation::new().unmonitored().recovery("continue_persistent_server");
    let mut sites = Sites::start(fed.clone()).await;
    sites.b.kill().await;
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = ask_as(B, &sites.a).await;
        assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
        assert_eq!(answer.site_cookie(), None, "the session keeps its home");
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    }
    assert!(sites.app_a.requests().is_empty());
    let home = fed.site_b(&[&sites.app_b]).start().await;
    let answer = ask_as(B, &sites.a).await;
    assert_eq!((answer.status, answer.server()), (200, "b"), "at once, though no monitor has fired");
    drop(home);
}

#[tokio::test]
async fn a_home_that_monitors_know_to_be_down_is_recovered_from_as_configured() {
    for (recovery, status, server, rehomed) in
        [("pick_new_server", 200, "a", true), ("abort_connection", 503, "", false)]
    {
        let mut sites = Sites::start(Federation::new().recovery(recovery)).await;
        sites.b.kill().await;
        sites.a.sees("SP-gs-web@site_A", sites.b.addr, false).await;
        let answer = ask_as(B, &sites.a).await;
        assert_eq!((answer.status, answer.server()), (status, server), "{recovery}");
        assert_eq!(answer.site_cookie().is_some(), rehomed, "{recovery}");
        let expected = if rehomed { [0.0, 1.0, 0.0] } else { [0.0, 0.0, 1.0] };
        outcomes(&sites.a, expected).await;
    }
}

#[tokio::test]
async fn a_session_whose_home_comes_back_before_it_was_missed_stays_there() {
    let fed = Federation::new();
    let mut sites = Sites::start(fed.clone()).await;
    sites.b.kill().await;
    sites.a.sees("SP-gs-web@site_A", sites.b.addr, false).await;
    let home = fed.site_b(&[&sites.app_b]).start().await;
    sites.a.sees("SP-gs-web@site_A", home.addr, true).await;
    assert_eq!(ask_as(B, &sites.a).await.server(), "b");
}

#[tokio::test]
async fn a_home_that_says_its_app_is_down_is_recovered_from_as_configured() {
    for (recovery, status, server) in [("pick_new_server", 200, "a"), ("abort_connection", 503, "")] {
        let fed = Federation::new().recovery(recovery);
        let sites = Sites::start_with(fed, |site| site.monitored(APP, "tcp")).await;
        sites.app_b.down().await;
        sites.b.sees(APP, sites.app_b.addr, false).await;
        let answer = ask_as(B, &sites.a).await;
        assert_eq!((answer.status, answer.server()), (status, server), "{recovery}");
        assert_eq!(answer.header("homing-hop-refused"), None, "{recovery}: that is between sites");
        let expected = if status == 200 { [0.0, 1.0, 0.0] } else { [0.0, 0.0, 1.0] };
        outcomes(&sites.a, expected).await;
    }
}

#[tokio::test]
async fn an_app_cannot_speak_for_its_site() {
    let sites = Sites::start(Federation::new().recovery("pick_new_server")).await;
    let refusal = "HTTP/1.1 503 No\r\nHoming-Hop-Refused: pool_down\r\nContent-Length: 0\r\n\r\n";
    sites.app_b.set(crate::support::origin::Mode::Raw(refusal.into()));
    let answer = ask_as(B, &sites.a).await;
    assert_eq!(
        (answer.status, answer.header("homing-hop-refused")),
        (503, None),
        "the app's own answer, cleaned"
    );
    assert!(sites.app_a.requests().is_empty());
    let answer = ask_as(B, &sites.b).await;
    assert_eq!((answer.status, answer.header("homing-hop-refused")), (503, None));
}

#[tokio::test]
async fn a_request_from_a_peer_is_never_sent_to_a_peer() {
    let sites = Sites::start(Federation::new()).await;
    let hop = Hop::to_b("rid-1", "203.0.113.7").sign("GET", "a.com", "/");
    let request =
        Request::get("/").header("Homing-Hop", &hop).cookie(&format!("FOO={}", Cookie::of(A).seal()));
    let answer = request.send(sites.b.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "b"), "served here, though the cookie names a peer");
    let forwarded = sites.app_b.requests()[0].headers.all("x-forwarded-for").join(", ");
    assert!(forwarded.starts_with("203.0.113.7"), "a proven hop's client is believed: {forwarded}");
    assert_eq!(sites.app_b.requests()[0].header("homing-hop"), None);
    assert!(sites.app_a.requests().is_empty());
    sites.b.settles(OUTCOMES, &[("outcome", "loop")], 1.0).await;
    sites.b.settles(OUTCOMES, &[], 1.0).await;
}

#[tokio::test]
async fn a_hop_for_another_site_is_refused() {
    let sites = Sites::start(Federation::new()).await;
    let hop = Hop { dst: "cluster-other".to_owned(), ..Hop::to_b("rid-2", "203.0.113.7") };
    let hop = hop.sign("GET", "a.com", "/");
    let answer = Request::get("/").header("Homing-Hop", &hop).send(sites.b.addr).await;
    assert_eq!((answer.status, answer.header("homing-hop-refused")), (421, Some("wrong_site")));
    assert!(sites.app_b.requests().is_empty());
}

#[tokio::test]
async fn a_forged_replayed_or_stale_hop_is_not_believed() {
    const OTHER: Key = Key { uuid: KEY.uuid, secret: [9; 32] };
    let sites = Sites::start(Federation::new()).await;
    sites.b.sees("SP-gs-web@site_B", sites.a.addr, true).await;
    let hop = |rid: &str| Hop::to_b(rid, "203.0.113.7");
    let good = hop("good").sign("GET", "a.com", "/");
    assert_eq!(sent_home(&sites, &good).await, "b", "a good one is believed");
    let flipped = hop("flipped").sign("GET", "a.com", "/").replacen("rid=flipped", "rid=flippee", 1);
    let bare =
        good.split(";mac=").next().expect("a hop begins somewhere").replacen("rid=good", "rid=bare", 1);
    for (what, hop) in [
        ("replayed", good.clone()),
        ("another secret", Hop { key: OTHER, ..hop("secret") }.sign("GET", "a.com", "/")),
        ("a flipped character", flipped),
        ("another method", hop("method").sign("POST", "a.com", "/")),
        ("another authority", hop("authority").sign("GET", "b.com", "/")),
        ("another path", hop("path").sign("GET", "a.com", "/other")),
        ("stale", Hop { ts: now() - 60, ..hop("stale") }.sign("GET", "a.com", "/")),
        ("of the future", Hop { ts: now() + 60, ..hop("future") }.sign("GET", "a.com", "/")),
        (
            "an unknown site",
            Hop { src: "cluster-unknown".to_owned(), ..hop("site") }.sign("GET", "a.com", "/"),
        ),
        ("no mac", bare),
        ("garbage", "v=1;kid".to_owned()),
        ("nothing", String::new()),
    ] {
        assert_eq!(sent_home(&sites, &hop).await, "a", "{what}: a client's request, which goes home");
    }
    let records = [sites.app_a.requests(), sites.app_b.requests()].concat();
    assert!(
        records.iter().all(|record| record.header("homing-hop").is_none()),
        "it is removed, believed or not"
    );
    let believed = |field: &&str| field.contains("203.0.113.7");
    let believed = records.iter().filter(|it| it.headers.all("x-forwarded-for").iter().any(believed));
    assert_eq!(believed.count(), 1);
}

#[tokio::test]
async fn a_site_that_dies_under_load_costs_no_request_that_can_be_served_here() {
    let mut sites = Sites::start(Federation::new().recovery("pick_new_server")).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    let ask = |n: usize| {
        let request = Request::get(&format!("/{n}")).cookie(&cookie);
        let at = sites.a.addr;
        async move { request.send(at).await }
    };
    for n in 0..20 {
        assert_eq!(ask(n).await.server(), "b");
    }
    let later = (20..60).map(ask).collect::<Vec<_>>();
    sites.b.kill().await;
    for answer in later {
        let answer = answer.await;
        assert_eq!((answer.status, answer.server()), (200, "a"));
    }
    eventually("nothing is in flight", async || {
        sites.a.metric("homing_pool_server_inflight", &[]).await == 0.0
    })
    .await;
}

/// Who serves a request that came to site_B with a cookie of site_A and this hop header.
async fn sent_home(sites: &Sites, hop: &str) -> String {
    let request =
        Request::get("/").header("Homing-Hop", hop).cookie(&format!("FOO={}", Cookie::of(A).seal()));
    request.send(sites.b.addr).await.server().to_owned()
}

/// Waits for the numbers of requests proxied, re-homed, aborted.
async fn outcomes(homing: &Homing, expected: [f64; 3]) {
    for (count, outcome) in expected.into_iter().zip(["proxied", "rehomed", "aborted"]) {
        homing.settles(OUTCOMES, &[("outcome", outcome)], count).await;
    }
}

#[tokio::test]
async fn a_request_that_home_refuses_is_served_and_copied_here() {
    let clone = Origin::start("clone").await;
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new().recovery("pick_new_server");
    let b = fed.site_b(&[&app_b]).monitored(APP, "tcp").start().await;
    let a = fed.site_a(&[&app_a]).clone_to(&[&clone]).start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    assert_eq!(ask_as(B, &a).await.server(), "b");
    a.counts("homing_clone_skipped_total", &[("reason", "proxied")], 1.0).await;

    app_b.down().await;
    b.sees(APP, app_b.addr, false).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    let answer = Request::post("/here", "the body").cookie(&cookie).send(a.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "a"));
    let copies = clone.got(1).await;
    assert_eq!(
        (copies.len(), copies[0].body_len),
        (1, 8),
        "one copy, whole, and only of what was served here"
    );
}

#[tokio::test]
async fn a_request_that_neither_home_nor_this_site_serves_has_one_outcome_of_its_copy() {
    let clone = Origin::start("clone").await;
    let (app_a, app_b) = (Origin::absent("a").await, Origin::start("b").await);
    let fed = Federation::new().recovery("pick_new_server");
    let b = fed.site_b(&[&app_b]).monitored(APP, "tcp").start().await;
    let a = fed.site_a(&[&app_a]).clone_to(&[&clone]).start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    app_b.down().await;
    b.sees(APP, app_b.addr, false).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    for request in [Request::get("/"), Request::post("/", "the body")] {
        let answer = request.cookie(&cookie).send(a.addr).await;
        assert!((500..600).contains(&answer.status), "{answer:?}");
    }
    eventually("both are accounted for", async || {
        let mut outcomes = 0.0;
        for name in ["copies", "dropped", "skipped"] {
            outcomes += a.metric(&format!("homing_clone_{name}_total"), &[]).await;
        }
        outcomes == 2.0
    })
    .await;
}

#[tokio::test]
async fn a_request_too_large_to_be_sent_again_is_counted_as_aborted() {
    let (app_a, app_b) = (Origin::start("a").await, Origin::absent("b").await);
    let fed = Federation::new().recovery("pick_new_server");
    let b = fed.site_b(&[&app_b]).monitored(APP, "tcp").start().await;
    b.sees(APP, app_b.addr, false).await;
    let a = fed.site_a(&[&app_a]).start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    let answer = Request::post("/", vec![b'x'; 1 << 20]).cookie(&cookie).send(a.addr).await;
    assert_eq!((answer.status, answer.site_cookie()), (503, None));
    a.counts(OUTCOMES, &[("outcome", "aborted")], 1.0).await;
    assert_eq!(a.metric(OUTCOMES, &[("outcome", "rehomed")]).await, 0.0);
}
