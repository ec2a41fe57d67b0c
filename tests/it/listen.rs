//! The listening side: deadlines, framing, address lists, connections that only wait.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::support::{
    after,
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    eventually,
    origin::{Mode, Origin},
    tls::{Profile, TlsClient},
};

#[tokio::test]
async fn a_request_head_that_drips_is_cut_at_the_deadline() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http("client_header_timeout: 500ms").start().await;
    let mut client = Connection::open(homing.addr).await;
    let begun = Instant::now();
    client.wire.write("GET / HTTP/1.1\r\nHost: a.com\r\nX-Slow: ").await.expect("the first bytes are read");
    eventually("the connection is cut", async || client.wire.write("x").await.is_err()).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(450), "not before the deadline: {took:?}");
    assert!(took < Duration::from_secs(4), "the deadline is for the whole head: {took:?}");
    assert!(app.started().is_empty());
}

#[tokio::test]
async fn a_request_head_that_stalls_is_cut_at_the_deadline_also_on_a_used_connection_and_over_tls() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).http("client_header_timeout: 300ms");
    let (plain, tls) = (site.start().await, Site::new(&[&app]).http("client_header_timeout: 300ms"));
    let tls = tls.tls(&cert_for(&["a.com"])).start().await;
    let over_tls = TlsClient::new(Profile::TLS13).connect(tls.addr, "a.com").await;
    for mut client in [Connection::open(plain.addr).await, Connection::over(over_tls)] {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        let begun = Instant::now();
        client.wire.write("GET / HT").await.expect("the first bytes are read");
        client.closed().await;
        assert!(begun.elapsed() >= Duration::from_millis(250), "not before the deadline");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    assert_eq!(app.started().len(), 2);
}

#[tokio::test]
async fn the_head_deadline_does_not_touch_bodies_and_answers() {
    let app = Origin::start("app").await;
    app.set(Mode::Held);
    let homing = Site::new(&[&app]).http("client_header_timeout: 200ms").start().await;
    let mut client = Connection::open(homing.addr).await;
    let head = Request::new("POST", "/").header("Content-Length", "4");
    client.send(&head).await.expect("the head is read");
    app.began(1).await;
    after(Duration::from_millis(500)).await;
    client.wire.write("body").await.expect("the body is read");
    app.got(1).await;
    after(Duration::from_millis(500)).await;
    app.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn idle_connections_are_closed_after_the_keepalive_timeout() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http("keepalive_timeout: 300ms").start().await;
    let mut used = Connection::open(homing.addr).await;
    assert_eq!(used.ask(&Request::get("/")).await.status, 200);
    let mut fresh = Connection::open(homing.addr).await;
    let begun = Instant::now();
    assert!(used.closed().await.is_empty(), "nothing is said");
    assert!(fresh.closed().await.is_empty(), "nothing is said");
    assert!(begun.elapsed() >= Duration::from_millis(200), "not at once");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_in_use_outlives_the_keepalive_timeout() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http("keepalive_timeout: 400ms").start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..4 {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        after(Duration::from_millis(150)).await;
    }
    app.set(Mode::Held);
    client.send(&Request::get("/held")).await.expect("the request is read");
    app.got(5).await;
    after(Duration::from_millis(700)).await;
    app.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn bad_chunk_framing_is_answered_with_400_and_the_server_never_sees_an_end() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let bad = [
        "\r\n\r\n",
        ";a=b\r\n\r\n",
        " \r\n\r\n",
        "zz\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
    ];
    for body in bad {
        let mut client = Connection::open(homing.addr).await;
        let head = Request::new("POST", "/bad").header("Transfer-Encoding", "chunked");
        client.send(&head).await.expect("the head is read");
        client.wire.write(body).await.ok();
        match client.answer().await {
            Ok(answer) => assert_eq!(answer.status, 400, "{body:?}"),
            Err(error) => panic!("no answer to {body:?}: {error}"),
        }
        client.closed().await;
    }
    assert_eq!(Request::get("/good").send(homing.addr).await.status, 200);
    assert_eq!(app.requests().iter().map(|it| it.target.as_str()).collect::<Vec<_>>(), ["/good"]);
}

#[tokio::test]
async fn good_chunk_framing_passes_however_it_is_cut() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "005;ext=\"a b\"\r\nhello\r\n000\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ] {
        let head = Request::new("POST", "/").header("Transfer-Encoding", "chunked");
        client.send(&head).await.expect("the head is read");
        for byte in body.bytes() {
            client.wire.write([byte]).await.expect("the body is read");
        }
        assert_eq!(client.answer().await.expect("an answer").status, 200, "{body:?}");
    }
    for record in app.got(3).await {
        assert_eq!(record.body_len, 5);
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    for garbage in ["\u{1}\u{2}\u{3}\u{4}\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"] {
        let mut client = Connection::open(homing.addr).await;
        client.wire.write(garbage).await.expect("the bytes are read");
        let said = String::from_utf8_lossy(&client.closed().await).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{garbage:?}: {said:?}");
    }
    assert!(app.started().is_empty());
}

#[tokio::test]
async fn an_http_1_0_client_is_answered_and_closed() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.wire.write("GET / HTTP/1.0\r\nHost: a.com\r\n\r\n").await.expect("the request is read");
    let said = String::from_utf8_lossy(&client.closed().await).into_owned();
    assert!(said.contains(" 200 ") && said.ends_with("hello from app\n"), "{said:?}");
}

#[tokio::test]
async fn addresses_that_are_denied_or_not_allowed_are_refused_before_tls() {
    let app = Origin::start("app").await;
    let cert = cert_for(&["a.com"]);
    let us: IpAddr = "127.0.0.1".parse().expect("an address");
    let other: IpAddr = "127.0.0.77".parse().expect("an address");
    for (allow, deny, welcome, refused) in [
        ("[]", "[127.0.0.1/32]", other, us),
        ("[127.0.0.77]", "[]", other, us),
        ("[127.0.0.0/8]", "[127.0.0.77/32]", us, other),
    ] {
        let homing = Site::new(&[&app]).vs("allow", allow).vs("deny", deny).start().await;
        let mut client = Connection::open_from(welcome, homing.addr).await.expect("the listener accepts");
        assert_eq!(client.ask(&Request::get("/")).await.status, 200, "allow {allow}, deny {deny}");
        if let Ok(mut client) = Connection::open_from(refused, homing.addr).await {
            client.send(&Request::get("/refused")).await.ok();
            assert!(client.closed().await.is_empty(), "nothing is said");
        }
        homing.counts("homing_connections_refused_total", &[], 1.0).await;
    }
    let homing = Site::new(&[&app]).tls(&cert).vs("deny", "[127.0.0.1]").start().await;
    assert!(!TlsClient::new(Profile::TLS13).can_connect(homing.addr, "a.com").await);
    assert!(app.requests().iter().all(|record| record.target != "/refused"));
}

#[tokio::test]
async fn hundreds_of_idle_connections_are_held_and_still_serve() {
    const CONNECTIONS: usize = 300;
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        clients.push(client);
    }
    homing.counts("homing_connections_open", &[("vs", "web")], CONNECTIONS as f64).await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200, "a newcomer is served");
    for client in &mut clients {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
    drop(clients);
    eventually("homing forgets closed connections", async || {
        homing.metric("homing_connections_open", &[]).await == 0.0
    })
    .await;
}
