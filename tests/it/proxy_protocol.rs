//! The PROXY protocol on listeners: who the client is comes from a balancer in front.

use std::net::IpAddr;

use tokio::net::TcpStream;

use crate::support::{
    certs::cert_for,
    client::{Answer, Connection, Request},
    config::{CLONES, Site, parse},
    copies::{Mark, copies},
    homing::Homing,
    lines::{lines, logged},
    origin::Origin,
    soon,
    tls::{Profile, TlsClient},
};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 50000 443\r\n";

/// `203.0.113.8`, with a TLV.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10\xcb\x00\x71\x08\xc6\x33\x64\x01\xc3\x50\x01\xbb\x04\x00\x01\x00";

const V2_IPV6: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xc3\x50\x01\xbb";

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// Balancers of this machine's first address may speak for clients.
fn behind_a_balancer(app: &Origin) -> Site {
    Site::new(&[app]).with(|yaml| {
        let service = &mut yaml["virtual_services"][0]["services"][0];
        service["enable_proxy_protocol"] = true.into();
        service["proxy_protocol_peers"] = parse("[127.0.0.1]");
    })
}

async fn introduced(homing: &Homing, header: &[u8]) -> Connection {
    let mut connection = Connection::open(homing.addr).await;
    connection.wire.write(header).await.expect("homing reads");
    connection
}

async fn ask(homing: &Homing, header: &[u8]) -> Answer {
    introduced(homing, header).await.ask(&Request::get("/")).await
}

#[tokio::test]
async fn the_client_is_who_the_balancer_says_it_is() {
    let app = Origin::start("app").await;
    let homing = logged(behind_a_balancer(&app), "").start().await;
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8"[..], &[b'/'; 216]].concat();
    for (header, client) in [
        (V1, "203.0.113.7"),
        (V2, "203.0.113.8"),
        (V2_IPV6, "2001:db8::9"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (&unix, "127.0.0.1"),
    ] {
        let forged = Request::get("/").header("X-Forwarded-For", "192.0.2.66");
        assert_eq!(introduced(&homing, header).await.ask(&forged).await.server(), "app");
        let got = app.take().remove(0);
        assert_eq!(got.headers.all("x-forwarded-for"), [client]);
    }
    let logged = lines(&homing, 6).await;
    let is_logged = |client: &str| logged.iter().any(|line| line["client"] == client);
    assert!(is_logged("203.0.113.7:50000") && is_logged("[2001:db8::9]:50000"), "{logged:#?}");
    let mut connection = introduced(&homing, V1).await;
    for _ in 0..2 {
        connection.ask(&Request::get("/")).await;
        assert_eq!(
            app.take().remove(0).header("x-forwarded-for"),
            Some("203.0.113.7"),
            "once for a connection"
        );
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_together_with_what_follows() {
    let app = Origin::start("app").await;
    let homing = behind_a_balancer(&app).start().await;
    for header in [V1, V2] {
        let mut connection = Connection::open(homing.addr).await;
        for piece in header.chunks(3) {
            connection.wire.write(piece).await.expect("homing reads");
            tokio::task::yield_now().await;
        }
        assert_eq!(connection.ask(&Request::get("/")).await.server(), "app");
        let mut connection = Connection::open(homing.addr).await;
        let request = Request::get("/").header("Connection", "close").bytes();
        connection.wire.write([header, &request].concat()).await.expect("homing reads");
        assert_eq!(connection.answer().await.expect("an answer").server(), "app");
    }
}

#[tokio::test]
async fn it_comes_before_tls() {
    let app = Origin::start("app").await;
    let homing = behind_a_balancer(&app).tls(&cert_for(&["a.com"])).start().await;
    for (header, client) in [(V1, "203.0.113.7"), (V2, "203.0.113.8")] {
        let tcp = TcpStream::connect(homing.addr).await.expect("it listens");
        tcp.writable().await.expect("it is open");
        assert_eq!(tcp.try_write(header).expect("there is room"), header.len());
        let stream = TlsClient::new(Profile::TLS13).over(tcp, "a.com").await;
        assert_eq!(Connection::over(stream).ask(&Request::get("/")).await.server(), "app");
        assert_eq!(app.take().remove(0).header("x-forwarded-for"), Some(client));
    }
    assert!(!TlsClient::new(Profile::TLS13).can_connect(homing.addr, "a.com").await, "nobody introduced it");
}

#[tokio::test]
async fn nobody_else_may_say_who_a_client_is() {
    let app = Origin::start("app").await;
    let homing = behind_a_balancer(&app).start().await;
    let stranger: IpAddr = [127, 0, 0, 2].into();
    for bytes in [V1.to_vec(), Request::get("/").bytes()] {
        let mut connection = Connection::open_from(stranger, homing.addr).await.expect("it listens");
        let _ = connection.wire.write(bytes).await;
        assert!(is_closed(&mut connection).await);
    }
    homing.settles("homing_connections_refused_total", &[("reason", "proxy_peer")], 2.0).await;
    assert!(app.started().is_empty());
}

#[tokio::test]
async fn what_does_not_begin_with_a_whole_header_gets_no_answer() {
    let app = Origin::start("app").await;
    let site = behind_a_balancer(&app).http("client_header_timeout: 2s");
    let homing = site.start().await;
    let get = Request::get("/").bytes();
    let bad = [
        get.clone(),
        [b"PROXY TCP4 203.0.113.7 198.51.100.1 1 2\n", &get[..]].concat(),
        [b"PROXY TCP4 203.0.113.7\r\n", &get[..]].concat(),
        [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c", &[0; 12][..], &get].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(),
    ];
    for bytes in &bad {
        let mut connection = introduced(&homing, bytes).await;
        assert!(is_closed(&mut connection).await, "{}", bytes.escape_ascii());
    }
    let mut half = introduced(&homing, &V2[..20]).await;
    half.wire.shutdown().await.expect("it is open");
    assert!(is_closed(&mut half).await);
    let refused = "homing_connections_refused_total";
    homing.settles(refused, &[("reason", "proxy_header")], bad.len() as f64 + 1.0).await;

    let mut slow = introduced(&homing, &V1[..10]).await;
    assert!(is_closed(&mut slow).await, "at the deadline of heads");
    homing.settles(refused, &[("reason", "proxy_timeout")], 1.0).await;
    assert!(app.started().is_empty());
    assert_eq!(ask(&homing, V1).await.server(), "app");
}

#[tokio::test]
async fn address_lists_and_sessions_go_by_the_client_who_was_introduced() {
    let (app, one, two) = (Origin::start("app").await, Origin::start("c1").await, Origin::start("c2").await);
    let site = behind_a_balancer(&app).vs("deny", "[203.0.113.66]").clone_to(&[&one, &two]);
    let homing = site.start().await;
    let denied = b"PROXY TCP4 203.0.113.66 198.51.100.1 50000 443\r\n";
    assert!(is_closed(&mut introduced(&homing, denied).await).await);
    homing.settles("homing_connections_refused_total", &[("reason", "address")], 1.0).await;
    for header in [V1, V2, V1] {
        assert_eq!(ask(&homing, header).await.server(), "app");
    }
    let copies = copies(&[&one, &two], 3).await;
    let mut sessions: Vec<_> = copies.iter().map(|(_, copy)| Mark::of(copy).session).collect();
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 2, "two clients behind one balancer: {CLONES}");
}

/// Whether homing ends the connection and says nothing.
async fn is_closed(connection: &mut Connection) -> bool {
    // An end with bytes that nobody has read is a reset.
    soon("the end", connection.wire.bytes()).await.map_or(true, |bytes| bytes.is_empty())
}
