//! What clients cost that only wait.

use crate::{
    routing::websocket,
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::Site,
        homing::Homing,
        origin::{Mode, Origin},
        tls::{Profile, TlsClient},
    },
};

/// 60 MiB for 10,000.
const PLAIN_KIB: u64 = 6;
/// 28 KiB are meant; OpenSSL keeps more of a handshake with a client as new as itself.
const TLS_KIB: u64 = 36;
/// A client with a request that is under way, and its server.
const BOTH_SIDES_KIB: u64 = 56;

#[tokio::test]
async fn an_idle_connection_costs_little() {
    let app = Origin::start("app").await;
    let homing = start(Site::new(&[&app])).await;
    assert_costs(&homing, 2000, PLAIN_KIB, async || {
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        client
    })
    .await;
}

#[tokio::test]
async fn an_idle_tls_connection_costs_little() {
    let app = Origin::start("app").await;
    let homing = start(Site::new(&[&app]).tls(&cert_for(&["a.com"]))).await;
    let client = TlsClient::new(Profile::TLS13);
    assert_costs(&homing, 300, TLS_KIB, async || {
        let mut client = Connection::over(client.connect(homing.addr, "a.com").await);
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        client
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_waited_for_costs_little() {
    let app = Origin::start("app").await;
    app.set(Mode::EchoBody);
    let homing = start(Site::new(&[&app])).await;
    assert_costs(&homing, 300, BOTH_SIDES_KIB, async || {
        let mut client = Connection::open(homing.addr).await;
        let head = Request::new("POST", "/").header("Content-Length", "100000");
        client.send(&head).await.expect("the head is read");
        client.wire.write("x").await.expect("the byte is read");
        assert_eq!(client.head().await.expect("an answer").status(), 200);
        client
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_is_silent_costs_little() {
    let app = Origin::start("app").await;
    let homing = start(Site::new(&[&app])).await;
    assert_costs(&homing, 300, BOTH_SIDES_KIB, async || {
        let mut client = Connection::open(homing.addr).await;
        client.send(&websocket()).await.expect("the request is read");
        assert_eq!(client.head().await.expect("an answer").status(), 101);
        client.wire.write("hello").await.expect("the tunnel takes bytes");
        assert_eq!(client.wire.exactly(5).await.expect("the tunnel gives bytes"), "hello");
        client
    })
    .await;
}

async fn start(site: Site) -> Homing {
    site.with(|yaml| yaml["threads"] = 1.into()).start().await
}

/// Opens as many clients twice: what the second half takes is theirs alone.
async fn assert_costs<T>(homing: &Homing, clients: u64, at_most: u64, mut open: impl AsyncFnMut() -> T) {
    let mut open_all = async || {
        let mut all = Vec::new();
        for _ in 0..clients {
            all.push(open().await);
        }
        all
    };
    let first = open_all().await;
    let before = homing.memory();
    let second = open_all().await;
    let cost = homing.memory().saturating_sub(before);
    assert!(cost < at_most * clients, "{clients} cost {cost} KiB");
    drop((first, second));
}
