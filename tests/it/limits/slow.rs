//! Requests that take too long, one and a thousand.

use std::time::Duration;

use crate::support::{
    after,
    client::{Connection, Request},
    config::Site,
    origin::Origin,
};

#[tokio::test]
async fn a_thousand_slow_heads_are_closed_at_their_deadline_and_cost_little() {
    const HEADS: usize = 1000;
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).http("client_header_timeout: 3s").with(|yaml| yaml["threads"] = 1.into());
    let homing = site.start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    let before = homing.memory();
    let mut slow = Vec::new();
    for _ in 0..HEADS {
        let mut client = Connection::open(homing.addr).await;
        client.wire.write("GET / HTTP/1.1\r\nHost: a.com\r\nX-Slow: ").await.expect("the kernel takes it");
        slow.push(client);
    }
    homing.counts("homing_listener_connections_open", &[], HEADS as f64).await;
    let cost = homing.memory().saturating_sub(before);
    assert!(cost < 8 << 10, "1,000 slow heads cost {cost} KiB");
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200, "others are served");
    for mut client in slow {
        let said = String::from_utf8(client.closed().await).expect("text");
        assert!(said.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{said:?}");
    }
    homing.settles("homing_requests_refused_total", &[("reason", "client_timeout")], HEADS as f64).await;
    homing.settles("homing_listener_connections_open", &[], 0.0).await;
    let peak = homing.peak_memory() / 1024;
    assert!(peak - before < 12 << 10, "closing them cost {} KiB", peak - before);
    assert_eq!(app.started().len(), 2);
}

#[tokio::test]
async fn a_body_that_stops_or_drips_gets_408() {
    let app = Origin::start("app").await;
    let limits = "client_body_timeout: 400ms, client_body_min_rate: 100B";
    let homing = Site::new(&[&app]).http(limits).start().await;
    let mut silent = open_body(homing.addr).await;
    assert_eq!(silent.answer().await.expect("an answer").status, 408);
    let mut dripping = open_body(homing.addr).await;
    let answer = loop {
        tokio::select! {
            answer = dripping.answer() => break answer,
            () = after(Duration::from_millis(100)) => dripping.wire.write("x").await.expect("it is open"),
        }
    };
    assert_eq!(answer.expect("an answer").status, 408);
    homing
        .settles("homing_requests_refused_total", &[("reason", "client_timeout"), ("vs", "web")], 2.0)
        .await;
    assert!(app.requests().is_empty(), "no server gets it whole");
}

#[tokio::test]
async fn a_server_that_takes_a_body_slowly_is_not_the_clients_fault() {
    let app = Origin::start("app").await;
    app.set(crate::support::origin::Mode::Held);
    let limits = "client_body_timeout: 200ms, client_body_min_rate: 1MiB";
    let homing = Site::new(&[&app]).http(limits).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::post("/", vec![b'b'; 100_000])).await.expect("it is read");
    app.got(1).await;
    after(Duration::from_millis(600)).await;
    app.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200);
}

/// A request whose body is to have 1,000 bytes and has one.
async fn open_body(at: std::net::SocketAddr) -> Connection {
    let mut client = Connection::open(at).await;
    let head = Request::new("POST", "/slow").header("Content-Length", "1000");
    client.send(&head).await.expect("the head is read");
    client.wire.write("x").await.expect("the byte is read");
    client
}
