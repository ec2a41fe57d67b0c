//! Tunnels (WebSockets): they open however fast the server answers, and on connections of their own.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    routing::websocket,
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::{APP, Site},
        eventually,
        homing::Homing,
        net,
        origin::{Mode, Origin},
        soon,
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
        assert_eq!(websocket().send(homing.addr).await.status, 503);
        let took = began.elapsed();
        assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "{took:?}");
    }
}

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
async fn full_listener() -> (TcpListener, Vec<TcpStream>) {
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
