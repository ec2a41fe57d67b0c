//! App pools: whom the balancer chooses, who is up, what becomes of a request when a server fails.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    routing::websocket,
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::{APP, Site},
        eventually,
        homing::Homing,
        origin::{HALF_AN_ANSWER, Mode, Origin},
        wire::Framing,
    },
};

#[tokio::test]
async fn round_robin_takes_turns_and_honours_ratio() {
    for (ratios, expected) in [([1, 1], [20, 20]), ([3, 1], [30, 10]), ([1, 0], [40, 0])] {
        let (a, b) = (Origin::start("a").await, Origin::start("b").await);
        let homing = with_ratios("round_robin", &a, &b, ratios).start().await;
        ask(&homing, 40).await;
        assert_eq!([a.requests().len(), b.requests().len()], expected, "ratios {ratios:?}");
    }
}

#[tokio::test]
async fn random_honours_ratio() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = with_ratios("random", &a, &b, [3, 1]).start().await;
    ask(&homing, 400).await;
    let got = a.requests().len();
    assert!((255..=345).contains(&got), "300 of 400 are expected, five standard deviations allowed: {got}");
}

#[tokio::test]
async fn least_connections_prefers_the_idle_server_and_honours_ratio() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    a.set(Mode::Held);
    b.set(Mode::Held);
    let homing = with_ratios("least_connections", &a, &b, [3, 1]).start().await;
    let mut held = Vec::new();
    for n in 1..=8 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/")).await.expect("the request is read");
        eventually("a server gets it", async || a.requests().len() + b.requests().len() == n).await;
        held.push(client);
    }
    assert_eq!([a.requests().len(), b.requests().len()], [6, 2]);
    b.release(2);
    eventually("b is idle", async || inflight(&homing, &b).await == 0.0).await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    b.got(3).await;
    assert_eq!(a.requests().len(), 6);
}

#[tokio::test]
async fn a_disabled_server_gets_nothing_and_a_disabled_pool_answers_503() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let site = Site::new(&[&a, &b]).with(|yaml| yaml["pools"][0]["servers"][1]["enabled"] = false.into());
    let homing = site.start().await;
    ask(&homing, 10).await;
    assert_eq!([a.requests().len(), b.requests().len()], [10, 0]);

    homing.stop().await;
    let homing = site.with(|yaml| yaml["pools"][0]["servers"][0]["enabled"] = false.into()).start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503);
}

#[tokio::test]
async fn a_tcp_monitor_takes_a_server_down_and_brings_it_up_again() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).monitored(APP, "tcp").start().await;
    homing.sees(APP, a.addr, true).await;
    a.down().await;
    homing.sees(APP, a.addr, false).await;
    let retries = homing.metric("homing_pool_retries_total", &[]).await;
    ask(&homing, 10).await;
    assert_eq!(b.requests().len(), 10);
    assert_eq!(
        homing.metric("homing_pool_retries_total", &[]).await,
        retries,
        "a server that is down is not tried"
    );
    a.up().await;
    homing.sees(APP, a.addr, true).await;
    ask(&homing, 10).await;
    assert_eq!([a.requests().len(), b.requests().len()], [5, 15]);
}

#[tokio::test]
async fn an_http_monitor_reads_the_status() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    b.healthy(false);
    let homing = Site::new(&[&a, &b]).monitored(APP, "http").start().await;
    homing.sees(APP, a.addr, true).await;
    homing.sees(APP, b.addr, false).await;
    ask(&homing, 6).await;
    assert_eq!([a.requests().len(), b.requests().len()], [6, 0]);
    a.healthy(false);
    b.healthy(true);
    homing.sees(APP, a.addr, false).await;
    homing.sees(APP, b.addr, true).await;
    ask(&homing, 6).await;
    assert_eq!([a.requests().len(), b.requests().len()], [6, 6]);
}

#[tokio::test]
async fn an_http_monitor_gives_up_on_a_server_that_does_not_answer() {
    let app = Origin::start("app").await;
    app.set(Mode::NeverRead);
    let site = Site::new(&[&app]).monitored(APP, "http");
    let homing =
        site.with(|yaml| yaml["health_monitors"][0]["receive_timeout"] = "300ms".into()).start().await;
    homing.sees(APP, app.addr, false).await;
    app.set(Mode::Ok);
    homing.sees(APP, app.addr, true).await;
}

#[tokio::test]
async fn an_https_monitor_speaks_tls() {
    let app = Origin::start_tls("app", &cert_for(&["app"])).await;
    let plain = Origin::start("plain").await;
    let homing = Site::new(&[&app, &plain]).monitored(APP, "https").start().await;
    homing.sees(APP, app.addr, true).await;
    homing.sees(APP, plain.addr, false).await;
    app.healthy(false);
    homing.sees(APP, app.addr, false).await;
}

#[tokio::test]
async fn a_refused_connection_is_tried_on_another_server() {
    let (a, b) = (Origin::absent("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..10 {
        let answer = client.ask(&Request::post("/", vec![b'x'; n * 10_000])).await;
        assert_eq!((answer.status, answer.server()), (200, "b"));
    }
    let sizes = b.requests().iter().map(|record| record.body_len).collect::<Vec<_>>();
    assert_eq!(sizes, (0..10).map(|n| n * 10_000).collect::<Vec<_>>(), "bodies come whole, once");
    homing.counts("homing_pool_retries_total", &[("pool", APP)], 5.0).await;
}

#[tokio::test]
async fn with_no_server_up_the_answer_is_503_at_once() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).monitored(APP, "tcp").start().await;
    homing.sees(APP, app.addr, true).await;
    app.down().await;
    homing.sees(APP, app.addr, false).await;
    let begun = Instant::now();
    let mut client = Connection::open(homing.addr).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 503);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    homing.counts("homing_requests_total", &[("vs", "web"), ("code_class", "5xx")], 1.0).await;
}

#[tokio::test]
async fn with_every_server_refusing_the_answer_comes_at_once() {
    let (a, b) = (Origin::absent("a").await, Origin::absent("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    let begun = Instant::now();
    let status = Request::get("/").send(homing.addr).await.status;
    assert!(matches!(status, 502 | 503), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_meanwhile_costs_no_request() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..5 {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        app.down().await;
        app.up().await;
    }
}

#[tokio::test]
async fn requests_in_flight_are_counted_until_they_end() {
    let app = Origin::start("app").await;
    app.set(Mode::Held);
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    app.got(1).await;
    assert_eq!(inflight(&homing, &app).await, 1.0);
    app.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    eventually("nothing is in flight", async || inflight(&homing, &app).await == 0.0).await;
}

#[tokio::test]
async fn requests_of_clients_that_left_are_not_counted_for_ever() {
    let app = Origin::start("app").await;
    app.set(Mode::Steps(1000));
    let homing = Site::new(&[&app]).start().await;
    for n in 1..=5 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/")).await.expect("the request is read");
        app.got(n).await;
    }
    let mut midway = Connection::open(homing.addr).await;
    let head = Request::new("POST", "/").header("Content-Length", "1000");
    midway.send(&head).await.expect("the head is read");
    midway.wire.write("half a body").await.expect("the body is read");
    app.began(6).await;
    drop(midway);
    app.release(1000);
    eventually("nothing is in flight", async || inflight(&homing, &app).await == 0.0).await;
}

#[tokio::test]
async fn tunnels_are_in_flight_until_they_close() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("the request is read");
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    assert_eq!(inflight(&homing, &app).await, 1.0);
    drop(client);
    eventually("nothing is in flight", async || inflight(&homing, &app).await == 0.0).await;
}

#[tokio::test]
async fn a_server_that_dies_in_mid_answer_costs_that_answer_alone() {
    let app = Origin::start("app").await;
    app.set(Mode::RawCut(HALF_AN_ANSWER));
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    assert_eq!(client.head().await.expect("the head has come").status(), 200);
    let piece = client.wire.piece(&mut Framing::Chunked).await.expect("what came is passed on");
    assert_eq!(piece, Some("half an ans".into()));
    app.release(1);
    assert!(client.closed().await.is_empty(), "and the cut is not hidden");
    eventually("nothing is in flight", async || inflight(&homing, &app).await == 0.0).await;
    assert_eq!(app.started().len(), 1, "what the client has begun to read is not asked for again");
    app.set(Mode::Ok);
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}

#[tokio::test]
async fn a_server_that_closes_or_babbles_instead_of_answering_is_a_502() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    for answer in ["", "HTTP/1.1 2", "SSH-2.0-OpenSSH_9.2\r\n\r\n"] {
        app.set(Mode::RawClose(Bytes::from_static(answer.as_bytes())));
        assert_eq!(Request::post("/", "body").send(homing.addr).await.status, 502, "{answer:?}");
    }
    app.set(Mode::Ok);
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_the_read_timeout() {
    let app = Origin::start("app").await;
    app.set(Mode::NeverAnswer);
    let site = Site::new(&[&app]).with(|yaml| yaml["pools"][0]["read_timeout"] = "300ms".into());
    let homing = site.start().await;
    let status = Request::post("/", "body").send(homing.addr).await.status;
    assert_eq!(status, 504);
    eventually("nothing is in flight", async || inflight(&homing, &app).await == 0.0).await;
}

fn with_ratios(algorithm: &str, a: &Origin, b: &Origin, ratios: [u64; 2]) -> Site {
    Site::new(&[a, b]).with(|yaml| {
        let pool = &mut yaml["pools"][0];
        pool["lb_algorithm"] = algorithm.into();
        pool["servers"][0]["ratio"] = ratios[0].into();
        pool["servers"][1]["ratio"] = ratios[1].into();
    })
}

/// So many requests, each answered with 200.
pub async fn ask(homing: &Homing, n: usize) {
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..n {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
}

pub async fn inflight(homing: &Homing, server: &Origin) -> f64 {
    let labels = [("pool", APP), ("server", &server.addr.to_string())];
    homing.metric("homing_pool_server_inflight", &labels).await
}
