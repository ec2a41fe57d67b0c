//! Servers that are full, those who wait for a place at them, and servers that take their share by and by.

use std::time::Duration;

use crate::{
    pools::{ask, inflight},
    routing::websocket,
    support::{
        after,
        certs::cert_for,
        client::{Connection, Request},
        config::{APP, Site, parse},
        eventually,
        homing::Homing,
        http2::Http2,
        lines::{lines, logged},
        origin::{Mode, Origin},
        soon,
        tls::{Profile, TlsClient},
    },
};

#[tokio::test]
async fn requests_wait_for_a_place_and_get_it_in_the_order_in_which_they_came() {
    let app = held().await;
    let homing = logged(queued(&app, 1, 10), "").start().await;
    let first = sent(&homing, &Request::get("/0")).await;
    app.got(1).await;
    let mut clients = vec![first];
    for n in 1..=5 {
        clients.push(sent(&homing, &Request::get(&format!("/{n}"))).await);
        waiting(&homing, n).await;
    }
    assert_eq!(inflight(&homing, &app).await, 1.0);
    after(Duration::from_millis(50)).await;
    for (n, client) in clients.iter_mut().enumerate() {
        app.release(1);
        assert_eq!(client.answer().await.expect("an answer").status, 200);
        let got: Vec<_> =
            app.got((n + 2).min(6)).await.iter().map(|request| request.target.clone()).collect();
        assert_eq!(got, (0..(n + 2).min(6)).map(|n| format!("/{n}")).collect::<Vec<_>>());
    }
    homing.settles("homing_pool_queue_length", &[("pool", APP)], 0.0).await;
    homing.counts("homing_pool_queue_wait_seconds_count", &[("pool", APP)], 5.0).await;
    let lines = lines(&homing, 6).await;
    let waited = |line: &serde_json::Value| line["queue_ms"].as_f64().expect("it is told");
    assert!(lines[1..].iter().all(|line| waited(line) >= 50.0), "{lines:#?}");
}

#[tokio::test]
async fn a_pool_tells_how_much_it_has_and_how_much_it_takes() {
    let (app, spare) = (held().await, Origin::start("spare").await);
    let site = Site::new(&[&app, &spare]).with(|yaml| {
        let pool = &mut yaml["pools"][0];
        pool["max_concurrent_connections_per_server"] = 2.into();
        pool["request_queue_enabled"] = true.into();
        pool["retry_budget"] = parse("{ percent: 50, min_concurrent: 1 }");
        pool["servers"][1]["priority"] = 1.into();
    });
    let homing = site.start().await;
    let mut clients = Vec::new();
    for n in 0..3 {
        clients.push(sent(&homing, &Request::get(&format!("/{n}"))).await);
    }
    waiting(&homing, 1).await;
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    let runtime = serde_json::json!({
        "inflight": 2, "request_queue_length": 1, "retries": 0, "max_retries_now": 1, "priority": 10
    });
    assert_eq!(pool["runtime"], runtime);
    let server = |n: usize| [&pool["servers"][n]["inflight"], &pool["servers"][n]["max_inflight"]];
    assert_eq!([server(0), server(1)], [[2, 2], [0, 2]]);
    app.set(Mode::Ok);
    app.release(2);
    app.got(3).await;
}

#[tokio::test]
async fn with_the_queue_full_the_answer_is_503_and_says_when_to_come_again() {
    let app = held().await;
    let homing = logged(queued(&app, 1, 1), "").start().await;
    let mut served = sent(&homing, &Request::get("/served")).await;
    app.got(1).await;
    let mut waits = sent(&homing, &Request::get("/waits")).await;
    waiting(&homing, 1).await;
    let refused = Request::get("/refused").send(homing.addr).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("30")));
    homing.settles("homing_pool_queue_failures_total", &[("reason", "queue_full")], 1.0).await;
    app.release(2);
    for client in [&mut served, &mut waits] {
        assert_eq!(client.answer().await.expect("an answer").status, 200);
    }
    let reasons: Vec<_> = lines(&homing, 3).await.into_iter().map(|line| line["reason"].clone()).collect();
    assert!(reasons.contains(&"queue_full".into()), "{reasons:?}");
}

#[tokio::test]
async fn a_wait_has_an_end_and_without_a_queue_there_is_none() {
    let app = held().await;
    let site = queued(&app, 1, 10).with(|yaml| yaml["pools"][0]["request_queue_timeout"] = "200ms".into());
    let homing = logged(site, "").start().await;
    let _served = sent(&homing, &Request::get("/served")).await;
    app.got(1).await;
    let late = Request::get("/late").send(homing.addr).await;
    assert_eq!((late.status, late.header("retry-after")), (503, Some("1")));
    assert_eq!(lines(&homing, 1).await[0]["reason"], "queue_timeout");
    homing.settles("homing_pool_queue_failures_total", &[("reason", "timeout")], 1.0).await;

    let site =
        Site::new(&[&app]).with(|yaml| yaml["pools"][0]["max_concurrent_connections_per_server"] = 1.into());
    let homing = logged(site, "").start().await;
    let _served = sent(&homing, &Request::get("/served")).await;
    app.got(2).await;
    assert_eq!(Request::get("/refused").send(homing.addr).await.status, 503);
    assert_eq!(lines(&homing, 1).await[0]["reason"], "servers_full");
}

#[tokio::test]
async fn a_request_waits_for_a_place_no_longer_than_it_may_last() {
    let app = Origin::start("app").await;
    let site = queued(&app, 1, 10).with(|yaml| yaml["pools"][0]["request_timeout"] = "300ms".into());
    let homing = logged(site, "").start().await;
    // A tunnel has no deadline, and keeps its place.
    let mut tunnel = sent(&homing, &websocket()).await;
    assert_eq!(tunnel.head().await.expect("an answer").status(), 101);
    assert_eq!(Request::get("/late").send(homing.addr).await.status, 504);
    assert_eq!(lines(&homing, 1).await[0]["reason"], "request_timeout");
    homing.settles("homing_pool_queue_failures_total", &[("reason", "request_timeout")], 1.0).await;
    assert_eq!(app.started().len(), 1, "no server hears of it");
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue_at_once_and_no_server_hears_of_him() {
    let app = held().await;
    let homing = queued(&app, 1, 10).tls(&cert_for(&["a.com"])).start().await;
    let tls = TlsClient::new(Profile::TLS13);
    let mut served = Connection::over(tls.connect(homing.addr, "a.com").await);
    served.send(&Request::get("/served")).await.expect("the request is read");
    app.got(1).await;
    for request in [Request::get("/gone"), Request::post("/gone", vec![b'x'; 1000])] {
        let mut client = Connection::over(tls.connect(homing.addr, "a.com").await);
        client.send(&request).await.expect("the request is read");
        waiting(&homing, 1).await;
        drop(client);
        waiting(&homing, 0).await;
    }
    let http2 = TlsClient::new(Profile { http2: true, ..Profile::TLS12 }).connect(homing.addr, "a.com").await;
    let http2 = Http2::over(http2).await;
    let (answer, stream) = http2.begin(&Request::post("/gone", "body"), false).await;
    waiting(&homing, 1).await;
    drop((answer, stream));
    waiting(&homing, 0).await;
    homing.settles("homing_pool_queue_failures_total", &[("reason", "client_gone")], 3.0).await;
    app.release(1);
    assert_eq!(served.answer().await.expect("an answer").status, 200);
    assert_eq!(app.started().len(), 1);
}

#[tokio::test]
async fn a_reload_that_adds_a_server_serves_who_comes_then() {
    let (app, more) = (held().await, Origin::start("more").await);
    let site = queued(&app, 1, 10);
    let homing = site.start().await;
    let mut served = sent(&homing, &Request::get("/served")).await;
    app.got(1).await;
    let mut waits = sent(&homing, &Request::get("/waits")).await;
    waiting(&homing, 1).await;
    let servers = [&app, &more].map(|it| format!("{{ip: {}, port: {}}}", it.addr.ip(), it.addr.port()));
    let servers = crate::support::config::parse(&format!("[{}]", servers.join(", ")));
    homing.reloaded(&site.with(|yaml| yaml["pools"][0]["servers"] = servers)).await;
    assert_eq!(inflight(&homing, &app).await, 1.0, "what is in flight stays counted");
    let answer = Request::get("/new").send(homing.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "more"));
    app.release(2);
    for client in [&mut served, &mut waits] {
        assert_eq!(client.answer().await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn a_server_that_returns_takes_its_share_by_and_by() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let site = Site::new(&[&a, &b])
        .monitored(APP, "http")
        .with(|yaml| yaml["pools"][0]["connection_ramp_duration"] = "1h".into());
    let homing = site.start().await;
    for server in [&a, &b] {
        homing.sees(APP, server.addr, true).await;
    }
    ask(&homing, 20).await;
    assert_eq!([a.take().len(), b.take().len()], [10, 10], "all are new at the start");
    a.healthy(false);
    homing.sees(APP, a.addr, false).await;
    a.healthy(true);
    homing.sees(APP, a.addr, true).await;
    ask(&homing, 150).await;
    assert!((1..=3).contains(&a.requests().len()), "a hundredth of the other's: {}", a.requests().len());
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!([&pool["servers"][0]["ramp_percent"], &pool["servers"][1]["ramp_percent"]], [1, 100]);
}

/// An origin that holds its answers.
async fn held() -> Origin {
    let app = Origin::start("app").await;
    app.set(Mode::Held);
    app
}

/// So many places at the server, and so many in the queue.
fn queued(app: &Origin, places: u64, depth: u64) -> Site {
    Site::new(&[app]).with(|yaml| {
        let pool = &mut yaml["pools"][0];
        pool["max_concurrent_connections_per_server"] = places.into();
        pool["request_queue_enabled"] = true.into();
        pool["request_queue_depth"] = depth.into();
        pool["request_queue_timeout"] = "30s".into();
    })
}

async fn sent(homing: &Homing, request: &Request) -> Connection {
    let mut client = soon("a connection", Connection::open(homing.addr)).await;
    client.send(request).await.expect("the request is read");
    client
}

async fn waiting(homing: &Homing, n: usize) {
    let what = format!("{n} requests wait");
    let length = async || homing.metric("homing_pool_queue_length", &[("pool", APP)]).await;
    eventually(&what, async || length().await == n as f64).await;
}
