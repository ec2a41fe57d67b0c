//! How connections to servers begin, whom they are for, and when they are parted with.

use std::{net::SocketAddr, time::Duration};

use serde_yaml::Value;

use super::answered_whole;
use crate::{
    routing::websocket,
    support::{
        after,
        certs::cert_for,
        client::{Connection, Request},
        config::{Site, parse},
        eventually, net,
        origin::Origin,
        relay::{Relay, tells},
        rpc::RpcServer,
        soon,
    },
};

/// A site in front of one server.
pub fn in_front_of(server: SocketAddr, keys: &str) -> Site {
    Site::new(&[]).with(|yaml| {
        yaml["threads"] = 1.into();
        pool_of(&mut yaml["pools"][0], server, keys);
    })
}

/// Gives a pool one server and further keys.
fn pool_of(pool: &mut Value, server: SocketAddr, keys: &str) {
    pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", server.ip(), server.port()));
    for (key, value) in parse(keys).as_mapping().expect("keys and values") {
        pool[key] = value.clone();
    }
}

#[tokio::test]
async fn servers_are_told_of_each_client_on_connections_of_its_own() {
    let plain = Origin::start("plain").await;
    let tls = Origin::start_tls("tls", &cert_for(&["tls.test"])).await;
    let rpc = RpcServer::start().await;
    for version in ["v1", "v2"] {
        for (server, keys) in [
            (plain.addr, String::new()),
            (plain.addr, ", request_timeout: 1h".to_owned()),
            (tls.addr, ", enable_ssl: true, verify: false".to_owned()),
            (rpc.addr, ", enable_http2: true".to_owned()),
        ] {
            let relay = Relay::to(server).await;
            let homing =
                in_front_of(relay.addr, &format!("{{proxy_protocol: {version}{keys}}}")).start().await;
            let what = format!("{version}{keys}");
            for (n, from) in [net::own_ip(), net::own_ip()].into_iter().enumerate() {
                let mut client = Connection::open_from(from, homing.addr).await.expect("homing listens");
                for _ in 0..3 {
                    assert_eq!(client.ask(&Request::post("/", "body")).await.status, 200, "{what}");
                }
                let headers = relay.headers();
                assert_eq!(headers.len(), n + 1, "{what}: a connection for each client");
                assert!(tells(&headers[n], from, homing.addr), "{what}: {}", headers[n].escape_ascii());
            }
        }
    }
}

#[tokio::test]
async fn clone_members_are_told_of_each_client_on_connections_of_its_own() {
    let (app, plain) = (Origin::start("app").await, Origin::start("plain").await);
    let tls = Origin::start_tls("tls", &cert_for(&["tls.test"])).await;
    for (member, version, keys) in [(&plain, "v1", ""), (&tls, "v2", ", enable_ssl: true, verify: false")] {
        let relay = Relay::to(member.addr).await;
        let homing =
            copied_to(&app, relay.addr, &format!("{{proxy_protocol: {version}{keys}}}")).start().await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let from = net::own_ip();
            clients.push((from, Connection::open_from(from, homing.addr).await.expect("homing listens")));
        }
        let mut sent = 0;
        for body in [10, 10, 10, 1_000_000] {
            for (_, client) in &mut clients {
                for path in ["/one", "/two"] {
                    assert_eq!(client.ask(&Request::post(path, vec![b'x'; body])).await.status, 200);
                    sent += 1;
                }
            }
            // A large body has a connection of its own, which may be made at the same time as others.
            homing.settles("homing_clone_copies_total", &[("outcome", "answered")], f64::from(sent)).await;
        }
        let (headers, copies) = (relay.headers(), member.take());
        let base = copies.iter().map(|copy| copy.connection).min().expect("there are copies");
        for copy in &copies {
            let from = copy.header("x-forwarded-for").and_then(|from| from.parse().ok()).expect("an address");
            if copy.body_len == 10 {
                let header = &headers[usize::try_from(copy.connection - base).expect("few")];
                assert!(tells(header, from, homing.addr), "{}: {}", copy.target, header.escape_ascii());
            }
        }
        assert_eq!(copies.len(), 16);
        for (from, _) in &clients {
            let told = headers.iter().filter(|header| tells(header, *from, homing.addr)).count();
            assert!((3..=8).contains(&told), "{told} of {} connections are of {from}", headers.len());
        }
    }
}

#[tokio::test]
async fn clone_members_that_speak_http_2_are_told_of_each_client_too() {
    let (app, rpc) = (Origin::start("app").await, RpcServer::start().await);
    let relay = Relay::to(rpc.addr).await;
    let site = copied_to(&app, relay.addr, "{proxy_protocol: v2}").clone_section("http2", "true");
    let homing = site.start().await;
    for n in 1..=4_usize {
        let from = net::own_ip();
        let mut client = Connection::open_from(from, homing.addr).await.expect("homing listens");
        for _ in 0..2 {
            assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        }
        let answered = 2.0 * n as f64;
        homing.settles("homing_clone_copies_total", &[("outcome", "answered")], answered).await;
        let headers = relay.headers();
        assert_eq!(headers.len(), n, "a connection for each client");
        assert!(tells(&headers[n - 1], from, homing.addr));
    }
}

/// A site in front of `app` that copies to one member by one lane.
fn copied_to(app: &Origin, member: SocketAddr, keys: &str) -> Site {
    let site = Site::new(&[app]).clone_to(&[]).clone_section("connections_per_server", "1");
    site.clone_section("tokens", "[source_ip]").with(|yaml| pool_of(&mut yaml["pools"][1], member, keys))
}

#[tokio::test]
async fn a_websockets_server_is_told_of_its_client() {
    let app = Origin::start("app").await;
    let relay = Relay::to(app.addr).await;
    let homing = in_front_of(relay.addr, "{proxy_protocol: v2}").start().await;
    let from = net::own_ip();
    let mut client = Connection::open_from(from, homing.addr).await.expect("homing listens");
    client.send(&websocket()).await.expect("the request is read");
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    client.wire.write("hello").await.expect("the tunnel takes bytes");
    assert_eq!(soon("an echo", client.wire.exactly(5)).await.expect("the tunnel gives bytes"), "hello");
    assert!(tells(&relay.headers()[0], from, homing.addr));
}

#[tokio::test]
async fn a_connection_serves_as_many_requests_as_its_pool_says() {
    let app = Origin::start("app").await;
    let homing = in_front_of(app.addr, "{max_requests_per_connection: 2}").start().await;
    let mut client = Connection::open(homing.addr).await;
    for (mode, request) in answered_whole() {
        app.set(mode);
        assert!(client.ask(&request).await.status < 300);
    }
    let served: Vec<_> = app.requests().iter().map(|request| request.connection).collect();
    assert_eq!(served, [1, 1, 2, 2, 3]);
    eventually("those that have served are closed", async || app.open() == 1).await;
}

#[tokio::test]
async fn a_connection_is_not_used_for_longer_than_its_pool_says() {
    let app = Origin::start("app").await;
    let homing = in_front_of(app.addr, "{max_connection_age: 1s}").start().await;
    let mut client = Connection::open(homing.addr).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    after(Duration::from_millis(1100)).await;
    for connections in [1, 2] {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        assert_eq!(app.connections(), connections, "the one that has become too old served one more");
    }
}

#[tokio::test]
async fn an_http_2_connection_has_as_many_requests_at_once_as_its_pool_says() {
    for (keys, connections) in
        [("{enable_http2: true}", 4), ("{enable_http2: true, http2_max_concurrent_streams: 3}", 2)]
    {
        let server = RpcServer::start().await;
        let homing = in_front_of(server.addr, keys).start().await;
        let mut calls = Vec::new();
        for _ in 0..4 {
            let mut call = Connection::open(homing.addr).await;
            call.send(&Request::new("POST", "/").header("Content-Length", "4")).await.expect("it is read");
            call.wire.write("ha").await.expect("the body is read");
            let head = call.head().await.expect("the server answers at once");
            calls.push((call, head));
        }
        assert_eq!(server.connections(), connections, "{keys}");
        for (mut call, head) in calls {
            call.wire.write("lf").await.expect("the body is read");
            let body = soon("the rest", call.wire.body(call.framing(&head))).await;
            assert_eq!(body.expect("the answer ends"), "half", "{keys}");
        }
    }
}
