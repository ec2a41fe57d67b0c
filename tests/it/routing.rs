//! Which virtual service gets a request, and that requests and answers pass whole, unbuffered and over kept
//! connections.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    eventually,
    http2::{self, Http2},
    origin::{Mode, Origin, hex},
    soon,
    tls::{Profile, TlsClient},
};

#[tokio::test]
async fn the_host_chooses_the_virtual_service_exact_before_suffix_before_none() {
    let (exact, suffix, any) =
        (Origin::start("exact").await, Origin::start("suffix").await, Origin::start("any").await);
    let homing = Site::new(&[&exact])
        .pool("suffix", &[&suffix])
        .pool("any", &[&any])
        .neighbour("{name: suffix, domain_names: ['*.a.com'], pool_ref: suffix}")
        .neighbour("{name: any, pool_ref: any}")
        .start()
        .await;
    for (host, served_by) in [
        ("a.com", "exact"),
        ("A.Com", "exact"),
        ("a.com:8080", "exact"),
        ("www.a.com", "suffix"),
        ("deep.www.a.com", "suffix"),
        ("aa.com", "any"),
        ("b.org", "any"),
        ("127.0.0.1:80", "any"),
        ("[::1]:80", "any"),
    ] {
        let answer = Request::get("/").host(host).send(homing.addr).await;
        assert_eq!((answer.status, answer.server()), (200, served_by), "Host: {host}");
    }
}

#[tokio::test]
async fn an_unknown_host_is_answered_with_421_and_no_server_sees_it() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    for host in ["other.example", "a.com.example", "www.a.com", "127.0.0.1"] {
        assert_eq!(Request::get("/").host(host).send(homing.addr).await.status, 421, "Host: {host}");
    }
    assert!(app.started().is_empty());
}

#[tokio::test]
async fn a_missing_malformed_or_second_host_is_answered_with_400_even_where_any_host_is_served() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).neighbour("{name: any, pool_ref: app}").start().await;
    let missing = Request { host: None, ..Request::get("/") };
    let mut bad = vec![("missing", missing), ("second", Request::get("/").header("Host", "a.com"))];
    bad.extend(
        ["a com", "a.com/x", "", "a.com:port", "a@a.com", "a.com:80:80"]
            .map(|host| (host, Request::get("/").host(host))),
    );
    for (what, request) in bad {
        assert_eq!(request.send(homing.addr).await.status, 400, "{what}: {request:?}");
    }
    assert!(app.started().is_empty());
}

#[tokio::test]
async fn cookie_fields_of_a_request_are_joined_for_the_server_and_the_clone() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    let request = Request::get("/").cookie("a=1").cookie("SID=s; b=2").cookie("c=3");
    let h2 = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    assert_eq!(Http2::over(h2.connect(homing.addr, "a.com").await).await.ask(&request).await.status, 200);
    let h1 = TlsClient::new(Profile::TLS13);
    let mut h1 = Connection::over(h1.connect(homing.addr, "a.com").await);
    assert_eq!(h1.ask(&request).await.status, 200);
    for server in [&app, &clone] {
        for record in server.got(2).await {
            assert_eq!(
                record.headers.all("cookie"),
                ["a=1; SID=s; b=2; c=3"],
                "{} over either version",
                server.name
            );
        }
    }
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..10 {
        assert_eq!(client.ask(&Request::post(&format!("/{n}"), "body")).await.status, 200);
    }
    assert_eq!(app.requests().len(), 10);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn connection_close_of_the_client_is_honoured_and_ends_no_server_connection() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    for _ in 0..3 {
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/").header("Connection", "close")).await.status, 200);
        client.closed().await;
    }
    assert_eq!(app.connections(), 1);
    assert!(app.requests().iter().all(|record| record.header("connection") != Some("close")));
}

#[tokio::test]
async fn a_servers_answer_that_closes_its_connection_does_not_close_the_clients() {
    let app = Origin::start("app").await;
    app.set(Mode::Close);
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 1..=3 {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        assert_eq!(app.connections(), n);
    }
}

#[tokio::test]
async fn an_answer_reaches_the_client_piece_by_piece() {
    let app = Origin::start("app").await;
    app.set(Mode::Steps(3));
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("homing reads the request");
    let head = client.head().await.expect("the head comes before any step");
    assert_eq!(head.status(), 200);
    let mut framing = client.framing(&head);
    for step in 1..=3 {
        app.release(1);
        let piece = soon("a step", client.wire.piece(&mut framing)).await.expect("the answer goes on");
        assert_eq!(piece, Some(format!("step {step}").into()), "before the next step is released");
    }
    assert_eq!(soon("the end", client.wire.piece(&mut framing)).await.expect("the answer ends"), None);
}

#[tokio::test]
async fn an_answer_of_known_length_reaches_the_client_as_it_comes() {
    let app = Origin::start("app").await;
    app.set(Mode::RawCut(Bytes::from_static(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe first bytes",
    )));
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("homing reads the request");
    assert_eq!(client.head().await.expect("the head comes before the rest").status(), 200);
    let first = soon("the first bytes", client.wire.exactly(15)).await.expect("they come before the rest");
    assert_eq!(first, "the first bytes");
    app.release(1);
    assert!(client.closed().await.is_empty(), "the cut is not hidden");
}

#[tokio::test]
async fn a_request_body_reaches_the_server_piece_by_piece_and_its_answer_may_begin_before_the_end() {
    let app = Origin::start("app").await;
    app.set(Mode::EchoBody);
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    let head = Request::new("POST", "/").header("Transfer-Encoding", "chunked");
    client.send(&head).await.expect("homing reads the head");
    client.wire.write("5\r\nfirst\r\n").await.expect("homing reads the first piece");
    let head = client.head().await.expect("the answer begins");
    let mut framing = client.framing(&head);
    for piece in ["first", "second"] {
        let echoed = soon("an echo", client.wire.piece(&mut framing)).await.expect("the answer goes on");
        assert_eq!(echoed, Some(piece.into()));
        if piece == "first" {
            client.wire.write("6\r\nsecond\r\n").await.expect("homing reads the second piece");
        }
    }
    client.wire.write("0\r\n\r\n").await.expect("homing reads the end");
    assert_eq!(soon("the end", client.wire.piece(&mut framing)).await.expect("the answer ends"), None);
    assert_eq!(app.got(1).await[0].body_len, 11);
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let body = large_body();
    let sha = hex(&Sha256::digest(&body));

    assert_eq!(Request::post("/with-length", body.clone()).send(homing.addr).await.status, 200);

    let mut client = Connection::open(homing.addr).await;
    let head = Request::new("PUT", "/chunked").header("Transfer-Encoding", "chunked");
    client.send(&head).await.expect("homing reads the head");
    for piece in body.chunks(50_000) {
        client.wire.write(format!("{:x}\r\n", piece.len())).await.expect("homing reads a size");
        client.wire.write([piece, b"\r\n"].concat()).await.expect("homing reads a chunk");
    }
    client.wire.write("0\r\n\r\n").await.expect("homing reads the end");
    assert_eq!(client.answer().await.expect("an answer").status, 200);

    for record in app.got(2).await {
        assert_eq!((record.body_len, &record.body_sha), (body.len() as u64, &sha), "{}", record.target);
    }

    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    app.set(Mode::Raw([head.as_bytes(), &body].concat().into()));
    let answer = Request::get("/down").send(homing.addr).await;
    assert_eq!(hex(&Sha256::digest(&answer.body)), sha);
}

#[tokio::test]
async fn a_websocket_is_tunnelled_both_ways() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("homing reads the request");
    let head = client.head().await.expect("the server switches");
    assert_eq!((head.status(), head.headers.get("upgrade")), (101, Some("websocket")));
    for message in ["hello", "\u{0}\u{1}binary", "again"] {
        client.wire.write(message).await.expect("the tunnel takes bytes");
        let echoed =
            soon("an echo", client.wire.exactly(message.len())).await.expect("the tunnel gives bytes");
        assert_eq!(echoed, message);
    }
    drop(client);
    eventually("the server's side of the tunnel is closed", async || app.open() == 0).await;
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404), ("DELETE", 204)] {
        app.set(Mode::Status(status));
        let answer = client.ask(&Request::new(method, "/")).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{method}");
    }
    app.set(Mode::Ok);
    assert_eq!(client.ask(&Request::get("/")).await.body, "hello from app\n");
}

#[tokio::test]
async fn a_head_answer_keeps_its_content_length() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let answer = Request::new("HEAD", "/").send(homing.addr).await;
    assert_eq!(answer.header("content-length"), Some("15"));
}

#[tokio::test]
async fn a_client_that_asks_before_sending_its_body_is_told_to_go_on() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    let head = Request::new("POST", "/").header("Expect", "100-continue").header("Content-Length", "4");
    client.send(&head).await.expect("homing reads the head");
    let go_on = soon("100 Continue", client.wire.head()).await.expect("an answer").expect("a head");
    assert_eq!(go_on.status(), 100);
    client.wire.write("body").await.expect("homing reads the body");
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    assert_eq!(app.requests()[0].body_len, 4);
}

#[tokio::test]
async fn headers_pass_in_both_directions_and_hop_by_hop_ones_do_not() {
    let app = Origin::start("app").await;
    app.set(Mode::Raw(Bytes::from_static(
        b"HTTP/1.1 200 OK\r\nX-Many: 1\r\nX-Many: 2\r\nContent-Length: 0\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n",
    )));
    let homing = Site::new(&[&app]).start().await;
    let request = Request::get("/p?q=%20&r=/")
        .header("X-Case", "Kept")
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .header("Connection", "keep-alive, X-Private")
        .header("X-Private", "1")
        .header("Keep-Alive", "timeout=5");
    let answer = request.send(homing.addr).await;
    assert_eq!(answer.headers.all("x-many"), ["1", "2"]);
    assert_eq!(answer.header("x-hop"), None);
    let record = app.got(1).await.remove(0);
    assert_eq!(record.target, "/p?q=%20&r=/");
    assert_eq!(record.headers.all("x-twice"), ["1", "2"]);
    assert_eq!((record.header("x-private"), record.header("keep-alive")), (None, None));
    assert_eq!(record.header("host"), Some("a.com"));
}

#[tokio::test]
async fn the_server_learns_the_clients_address_and_scheme() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut request = Request::get("/").header("X-Forwarded-For", "203.0.113.9");
    for forged in ["X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded"] {
        request = request.header(forged, "forged").header(forged, "forged");
    }
    request.send(homing.addr).await;
    let record = app.got(1).await.remove(0);
    assert_eq!(record.headers.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(record.headers.all("x-forwarded-proto"), ["http"]);
    assert_eq!(record.headers.all("forwarded"), ["for=127.0.0.1;proto=http"]);
    let forged: Vec<_> = record.headers.0.iter().filter(|(_, value)| value == "forged").collect();
    assert!(forged.is_empty(), "what the client says of it is not passed on: {forged:?}");
}

#[tokio::test]
async fn a_server_that_fails_after_an_interim_answer_is_a_502() {
    let app = Origin::start("app").await;
    app.set(Mode::RawClose(Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")));
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::post("/", "body")).await.expect("homing reads the request");
    let hints = soon("early hints", client.wire.head()).await.expect("an answer").expect("a head");
    assert_eq!(hints.status(), 103);
    assert_eq!(client.answer().await.expect("a final answer").status, 502);
    homing.counts("homing_requests_total", &[("vs", "web"), ("code_class", "5xx")], 1.0).await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_answer() {
    let app = Origin::start("app").await;
    app.set(Mode::Raw(Bytes::from_static(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )));
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.wire.write("GET / HTTP/1.0\r\nHost: a.com\r\n\r\n").await.expect("homing reads the request");
    let head = soon("an answer", client.wire.head()).await.expect("an answer").expect("a head");
    assert_eq!(head.status(), 200);
    assert_eq!(client.closed().await, b"ok");
}

#[tokio::test]
async fn http2_clients_are_served_over_many_streams_of_one_connection() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let client = Http2::over(client.connect(homing.addr, "a.com").await).await;
    let asks = (0..20).map(|n| client.ask_owned(Request::post(&format!("/{n}"), vec![b'x'; n * 1000])));
    let mut answers = tokio::task::JoinSet::from_iter(asks);
    while let Some(answer) = answers.join_next().await {
        let answer = answer.expect("the stream does not panic");
        assert_eq!((answer.status, answer.server()), (200, "app"));
    }

    assert_eq!(app.requests().len(), 20);
    let unknown = client.ask(&Request::get("/").host("other.example")).await;
    assert_eq!(unknown.status, 421, "Host decides on every stream");
}

#[tokio::test]
async fn homings_own_answers_without_a_body_end_their_http2_stream() {
    let app = Origin::absent("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let client = Http2::over(client.connect(homing.addr, "a.com").await).await;
    for (method, host, status) in [
        ("HEAD", "other.example", 421),
        ("GET", "other.example", 421),
        ("HEAD", "a.com", 503),
        ("GET", "a.com", 503),
    ] {
        let answer = client.ask(&Request::new(method, "/").host(host)).await;
        assert_eq!((answer.status, answer.body.is_empty()), (status, method == "HEAD"), "{method} {host}");
    }
}

#[tokio::test]
async fn the_end_of_an_http2_body_leaves_nothing_behind_on_the_servers_connection() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let client = Http2::over(client.connect(homing.addr, "a.com").await).await;
    for frames in [&["body", ""][..], &["", "body"], &["bo", "", "dy"], &[""], &["body"]] {
        let (response, mut body) = client.begin(&Request::new("POST", "/"), false).await;
        for (n, frame) in frames.iter().enumerate() {
            body.send_data(Bytes::from_static(frame.as_bytes()), n + 1 == frames.len())
                .expect("the stream takes it");
        }
        let answer = http2::finish(soon("an answer", response).await.expect("the stream is answered")).await;
        assert_eq!((answer.status, answer.server()), (200, "app"), "{frames:?}");
        let got = app.take();
        let (methods, lens) =
            got.iter().map(|it| (it.method.as_str(), it.body_len)).unzip::<_, _, Vec<_>, Vec<_>>();
        assert_eq!((methods, lens), (vec!["POST"], vec![frames.concat().len() as u64]), "{frames:?}");
        assert_eq!(client.ask(&Request::get("/next")).await.status, 200);
        let got = app.take().into_iter().map(|it| format!("{} {}", it.method, it.target)).collect::<Vec<_>>();
        assert_eq!(got, ["GET /next"], "after {frames:?}");
    }
}

#[tokio::test]
async fn http2_bodies_stream_both_ways() {
    let app = Origin::start("app").await;
    app.set(Mode::EchoBody);
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let client = Http2::over(client.connect(homing.addr, "a.com").await).await;
    let (response, mut body) = client.begin(&Request::new("POST", "/"), false).await;
    body.send_data(Bytes::from_static(b"first"), false).expect("the stream takes bytes");
    let response = soon("the head", response).await.expect("the answer begins before the body ended");
    let (head, mut answer) = response.into_parts();
    assert_eq!(head.status, 200);
    let echoed = soon("an echo", answer.data()).await.expect("a piece").expect("the body flows");
    assert_eq!(echoed, "first");
    body.send_data(Bytes::from_static(b"second"), true).expect("the stream ends");
    let rest = http2::finish(http::Response::from_parts(head, answer)).await;
    assert_eq!(rest.body, "second");

    app.set(Mode::Ok);
    let body = large_body();
    assert_eq!(client.ask(&Request::post("/large", body.clone())).await.status, 200);
    assert_eq!(app.got(2).await[1].body_sha, hex(&Sha256::digest(&body)));
}

/// The request that opens a WebSocket.
pub fn websocket() -> Request {
    Request::get("/socket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn large_body() -> Bytes {
    (0u32..4 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}
