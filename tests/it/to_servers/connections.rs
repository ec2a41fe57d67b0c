//! How connections to servers begin, whom they are for, and when they are parted with.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    routing::websocket,
    support::{
        after,
        certs::cert_for,
        client::{Connection, Request},
        config::{Site, parse},
        eventually, net,
        origin::{Mode, Origin},
        rpc::RpcServer,
        soon,
    },
};

/// A site in front of one server.
fn in_front_of(server: SocketAddr, keys: &str) -> Site {
    Site::new(&[]).with(|yaml| {
        yaml["threads"] = 1.into();
        let pool = &mut yaml["pools"][0];
        pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", server.ip(), server.port()));
        for (key, value) in parse(keys).as_mapping().expect("keys and values") {
            pool[key] = value.clone();
        }
    })
}

/// Stands before a server, takes the PROXY header off each connection, and passes on what follows.
struct Relay {
    addr: SocketAddr,
    headers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let headers = Arc::new(Mutex::new(Vec::new()));
        let seen = headers.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let header = proxy_header(&mut stream).await;
                    seen.lock().push(header);
                    let mut server = TcpStream::connect(server).await.expect("the server listens");
                    copy_bidirectional(&mut stream, &mut server).await.ok();
                });
            }
        });
        Self { addr, headers }
    }

    fn headers(&self) -> Vec<Vec<u8>> {
        self.headers.lock().clone()
    }
}

/// Reads exactly a header of either version, and nothing behind it.
async fn proxy_header(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await.expect("either version is longer");
    if header.starts_with(b"PROXY") {
        while !header.ends_with(b"\r\n") {
            header.push(stream.read_u8().await.expect("the line goes on"));
        }
    } else {
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.resize(16 + rest, 0);
        stream.read_exact(&mut header[16..]).await.expect("the addresses follow");
    }
    header
}

/// Whether a header tells of a client at `from` that is connected to `to`.
fn tells(header: &[u8], from: IpAddr, to: SocketAddr) -> bool {
    let (IpAddr::V4(client), SocketAddr::V4(local)) = (from, to) else { return false };
    match std::str::from_utf8(header).ok().and_then(|line| line.strip_prefix("PROXY TCP4 ")) {
        Some(line) => {
            let words: Vec<_> = line.trim_end().split(' ').collect();
            let port_is_one = words[2].parse::<u16>().is_ok_and(|port| port > 0);
            words[..2] == [client.to_string(), local.ip().to_string()]
                && port_is_one
                && words[3] == local.port().to_string()
        }
        None => {
            let start = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &client.octets(), &local.ip().octets()];
            header.starts_with(&start.concat()) && header.ends_with(&local.port().to_be_bytes())
        }
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
    for (mode, request) in [
        (Mode::Ok, Request::get("/")),
        (Mode::Ok, Request::new("HEAD", "/")),
        (Mode::Status(204), Request::get("/")),
        (Mode::Ok, Request::post("/", "body")),
        (Mode::Raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()), Request::get("/")),
    ] {
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
