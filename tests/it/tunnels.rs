//! Tunnels (WebSockets): they open however fast the server answers, and on connections of their own.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    routing::websocket,
    support::{
        after,
        certs::cert_for,
        client::{Connection, Request},
        config::{APP, Site, parse},
        eventually,
        homing::Homing,
        lines::{self, logged},
        net,
        origin::{Mode, Origin},
        soon, tls,
        wire::Wire,
    },
};

#[tokio::test]
async fn a_server_may_switch_before_it_has_read_the_request() {
    let app = Origin::start("app").await;
    app.set(Mode::SwitchAtOnce);
    let homing = Site::new(&[&app]).start().await;
    assert_eq!(dead_of_60(&homing).await, 0);
    eventually("the server's sides of the tunnels are closed", async || app.open() == 0).await;
}

#[tokio::test]
async fn a_server_with_tls_may_switch_before_it_has_read_the_request() {
    let app = Origin::start_tls("app", &cert_for(&["app"])).await;
    app.set(Mode::SwitchAtOnce);
    let homing = with_tls(Site::new(&[&app])).start().await;
    assert_eq!(dead_of_60(&homing).await, 0);
    eventually("the server's sides of the tunnels are closed", async || app.open() == 0).await;
}

#[tokio::test]
async fn a_server_may_switch_as_soon_as_it_has_read_the_request() {
    let (plain, tls) = (Origin::start("plain").await, Origin::start_tls("tls", &cert_for(&["tls"])).await);
    for site in [Site::new(&[&plain]), with_tls(Site::new(&[&tls]))] {
        assert_eq!(dead_of_60(&site.start().await).await, 0);
    }
}

#[tokio::test]
async fn a_tunnel_carries_much() {
    let (plain, tls) = (Origin::start("plain").await, Origin::start_tls("tls", &cert_for(&["tls"])).await);
    for site in [Site::new(&[&plain]), with_tls(Site::new(&[&tls]))] {
        let homing = site.start().await;
        let mut client = Connection::open(homing.addr).await;
        client.send(&websocket()).await.expect("the request is read");
        assert_eq!(client.head().await.expect("an answer").status(), 101);
        for round in 0..64 {
            let message = [round; 60_000];
            client.wire.write(message).await.expect("the tunnel takes bytes");
            let echoed = soon("an echo", client.wire.exactly(message.len())).await;
            assert_eq!(echoed.expect("the tunnel gives bytes"), &message[..]);
        }
    }
}

#[tokio::test]
async fn a_tunnel_lives_while_its_server_speaks_and_ends_when_that_is_silent_for_too_long() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| yaml["pools"][0]["read_timeout"] = "1s".into());
    let homing = logged(site, "").start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("the request is read");
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    for _ in 0..6 {
        after(Duration::from_millis(250)).await;
        client.wire.write("hello").await.expect("the tunnel takes bytes");
        assert_eq!(soon("an echo", client.wire.exactly(5)).await.expect("the tunnel gives bytes"), "hello");
    }
    assert!(client.closed().await.is_empty(), "nothing more comes");
    let line = lines::line(&homing).await;
    assert_eq!((&line["status"], &line["bytes_sent"]), (&json!(101), &json!(30)), "{line:#}");
    eventually("the server's side is closed", async || app.open() == 0).await;
}

#[tokio::test]
async fn connections_of_tunnels_and_kept_ones_do_not_mix() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let (mut kept, mut own) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..5 {
        for (request, status, connections) in
            [(Request::get("/"), 200, &mut kept), (websocket(), 400, &mut own)]
        {
            app.set(Mode::Status(status));
            assert_eq!(request.send(homing.addr).await.status, status);
            connections.insert(app.take().remove(0).connection);
        }
    }
    assert_eq!(own.len(), 5, "each has one of its own");
    assert!(own.is_disjoint(&kept), "{own:?} {kept:?}");
    let left = "the connections of declined tunnels are closed, the others are not";
    eventually(left, async || app.open() == kept.len() as u64).await;
}

#[tokio::test]
async fn a_tunnel_goes_to_another_server_when_the_first_cannot_be_reached() {
    let (a, b) = (Origin::absent("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    for _ in 0..4 {
        assert!(echoes(&homing).await);
    }
    homing.settles("homing_pool_server_inflight", &[("pool", APP)], 0.0).await;
}

#[tokio::test]
async fn a_tunnels_connect_timeout_is_that_of_its_pool() {
    let (full, _queued) = full_listener().await;
    let silent = Origin::start("silent").await;
    silent.set(Mode::NeverRead);
    let full_site = Site::new(&[&silent]).with(|yaml| {
        let server = &mut yaml["pools"][0]["servers"][0];
        let addr = full.local_addr().expect("a bound socket has an address");
        server["ip"] = addr.ip().to_string().into();
        server["port"] = addr.port().into();
    });
    for site in [full_site, with_tls(Site::new(&[&silent]))] {
        let homing = site.with(|yaml| yaml["pools"][0]["connect_timeout"] = "300ms".into()).start().await;
        let began = Instant::now();
        assert_eq!(websocket().send(homing.addr).await.status, 504);
        let took = began.elapsed();
        assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "{took:?}");
    }
}

#[tokio::test]
async fn a_client_that_has_said_everything_hears_the_server_out() {
    for tls in [false, true] {
        let mut tunnel = Tunnel::open(tls, SWITCHED).await;
        tunnel.client.write("ping").await.expect("the tunnel takes bytes");
        tunnel.client.shutdown().await.expect("the client ends its direction");
        assert_eq!(rest(&mut tunnel.server).await, b"ping", "TLS: {tls}");
        let much = vec![7; 1 << 20];
        let (said, heard) = tokio::join!(
            async {
                tunnel.server.write(&much).await?;
                tunnel.server.shutdown().await
            },
            rest(&mut tunnel.client),
        );
        said.expect("the tunnel takes bytes");
        assert!(heard == much, "TLS: {tls}: {} bytes", heard.len());
    }
}

#[tokio::test]
async fn a_server_that_has_said_everything_hears_the_client_out() {
    for tls in [false, true] {
        let mut tunnel = Tunnel::open(tls, SWITCHED).await;
        tunnel.server.write("bye").await.expect("the tunnel takes bytes");
        tunnel.server.shutdown().await.expect("the server ends its direction");
        assert_eq!(rest(&mut tunnel.client).await, b"bye", "TLS: {tls}");
        let much = vec![7; 1 << 20];
        let (said, heard) = tokio::join!(
            async {
                tunnel.client.write(&much).await?;
                tunnel.client.shutdown().await
            },
            rest(&mut tunnel.server),
        );
        said.expect("the tunnel takes bytes");
        assert!(heard == much, "TLS: {tls}: {} bytes", heard.len());
    }
}

#[tokio::test]
async fn what_is_said_right_behind_the_heads_is_the_tunnels() {
    let (listener, site) = in_front_of_one().await;
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    client.wire.write([&websocket().bytes()[..], b"early"].concat()).await.expect("homing reads");
    let mut server = accepted(&listener).await;
    let after = timeout(Duration::from_millis(200), server.bytes()).await;
    assert!(after.is_err(), "a server that may decline hears nothing yet: {after:?}");
    server.write(format!("HTTP/1.1 103 Early Hints\r\n\r\n{SWITCHED}behind")).await.expect("homing reads");
    assert_eq!(soon("the client's words", server.exactly(5)).await.expect("they come"), "early");
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    assert_eq!(soon("the server's words", client.wire.exactly(6)).await.expect("they come"), "behind");
}

#[tokio::test]
async fn a_tunnel_that_is_declined_leaves_the_connection_for_other_requests() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for status in [426, 200, 403] {
        app.set(Mode::Status(status));
        assert_eq!(client.ask(&websocket()).await.status, status);
        app.set(Mode::Ok);
        assert_eq!(client.ask(&Request::get("/")).await.status, 200, "after {status}");
    }
    assert_eq!(client.ask(&websocket()).await.status, 101, "and for a tunnel");
}

#[tokio::test]
async fn a_switch_to_something_else_is_no_tunnel() {
    for answer in [
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nevil",
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n\r\nevil",
        "HTTP/1.1 101 Switching\r\n\r\nevil",
    ] {
        let (listener, site) = in_front_of_one().await;
        let homing = site.start().await;
        let mut client = Connection::open(homing.addr).await;
        client.send(&websocket()).await.expect("homing reads");
        accepted(&listener).await.write(answer).await.expect("homing reads");
        let said = String::from_utf8_lossy(&client.closed().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 502 ") && !said.contains("evil"), "{answer:?}: {said}");
    }
}

#[tokio::test]
async fn both_ends_of_a_tunnel_say_much_at_once() {
    let (listener, site) = in_front_of_one().await;
    let homing = site.start().await;
    let mut client = TcpStream::connect(homing.addr).await.expect("homing listens");
    client.write_all(&websocket().bytes()).await.expect("homing reads");
    let (mut server, _) = soon("homing connects", listener.accept()).await.expect("it can be accepted");
    server.write_all(SWITCHED.as_bytes()).await.expect("homing reads");
    const MUCH: usize = 8 << 20;
    let mut halves = tokio::task::JoinSet::new();
    for mut end in [client, server] {
        halves.spawn(async move {
            let (mut read, mut write) = end.split();
            let said = async {
                write.write_all(&vec![b'~'; MUCH]).await?;
                write.shutdown().await
            };
            let mut heard = Vec::new();
            let (said, read) = tokio::join!(said, read.read_to_end(&mut heard));
            said.and(read).map(|_| heard.iter().filter(|byte| **byte == b'~').count())
        });
    }
    let heard = soon("both have heard each other", halves.join_all()).await;
    for heard in heard {
        assert_eq!(heard.expect("the tunnel does not break"), MUCH);
    }
}

/// A tunnel with its two ends.
struct Tunnel {
    client: Wire,
    server: Wire,
    _homing: Homing,
}

impl Tunnel {
    /// Opens one with this answer.
    async fn open(tls: bool, answer: &str) -> Self {
        let (listener, site) = in_front_of_one().await;
        let homing = if tls { site.tls(&cert_for(&["a.com"])) } else { site }.start().await;
        let mut client = match tls {
            true => tls::open(homing.addr).await,
            false => Connection::open(homing.addr).await,
        };
        client.send(&websocket()).await.expect("homing reads");
        let mut server = accepted(&listener).await;
        server.write(answer).await.expect("homing reads");
        assert_eq!(client.head().await.expect("an answer").status(), 101);
        Self { client: client.wire, server, _homing: homing }
    }
}

/// A server that is played by the test, and the site in front of it.
async fn in_front_of_one() -> (TcpListener, Site) {
    let listener = TcpListener::bind((net::own_ip(), 0)).await.expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    let site = Site::new(&[]).with(|yaml| {
        yaml["pools"][0]["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", addr.ip(), addr.port()));
    });
    (listener, site)
}

/// The server's side of homing's next connection, its request's head read.
async fn accepted(listener: &TcpListener) -> Wire {
    let (stream, _) = soon("homing connects", listener.accept()).await.expect("it can be accepted");
    let mut server = Wire::new(stream);
    soon("a head", server.head()).await.expect("homing speaks HTTP").expect("a request");
    server
}

/// What one end still hears, to its end.
async fn rest(end: &mut Wire) -> Vec<u8> {
    let mut rest = Vec::new();
    loop {
        let bytes = soon("bytes, or the end", end.bytes()).await.expect("the tunnel does not break");
        if bytes.is_empty() {
            return rest;
        }
        rest.extend_from_slice(&bytes);
    }
}

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Opens 60 tunnels in a row; returns how many did not echo.
async fn dead_of_60(homing: &Homing) -> usize {
    let mut dead = 0;
    for _ in 0..60 {
        dead += usize::from(!echoes(homing).await);
    }
    dead
}

/// Opens a tunnel; returns whether it echoes.
async fn echoes(homing: &Homing) -> bool {
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("the request is read");
    let Ok(head) = client.head().await else { return false };
    assert_eq!(head.status(), 101);
    client.wire.write("hello").await.is_ok()
        && soon("an echo or the end", client.wire.exactly(5)).await.is_ok_and(|echoed| echoed == "hello")
}

fn with_tls(site: Site) -> Site {
    site.with(|yaml| {
        yaml["pools"][0]["enable_ssl"] = true.into();
        yaml["pools"][0]["verify"] = false.into();
    })
}

/// A listener that accepts nothing, with a full queue: who connects to it waits.
pub async fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind((net::own_ip(), 0).into()).expect("a loopback address has a free port");
    let listener = socket.listen(0).expect("a bound socket listens");
    let addr = listener.local_addr().expect("a bound socket has an address");
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(addr)).await {
        queued.push(stream);
    }
    (listener, queued)
}
