//! Requests that are too large: each part has a bound, a status of its own, and an answer that arrives.

use bytes::Bytes;

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::{Site, parse},
    eventually,
    http2::{Http2, finish, send_all},
    origin::Origin,
    tls::{Profile, TlsClient},
};

const LIMITS: &str = "client_max_uri_size: 200B, client_max_header_size: 300B, max_header_count: 10, \
                      client_max_request_size: 1KiB, client_max_body_size: 1000B";

fn target(length: usize) -> String {
    format!("/{}", "u".repeat(length - 1))
}

/// A field whose line, with its end, is so long.
fn line(length: usize) -> (String, String) {
    ("X-Line".to_owned(), "v".repeat(length - "X-Line: \r\n".len()))
}

fn with(fields: impl IntoIterator<Item = (String, String)>) -> Request {
    Request { headers: fields.into_iter().collect(), ..Request::get("/") }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_by_what_is_too_large_about_it() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).http(LIMITS);
    let site = site.with(|yaml| yaml["access_log"] = parse("{path: access.log}"));
    let homing = site.start().await;
    let fields = |n| (0..n).map(|n| (format!("X-{n}"), "v".to_owned()));
    for (request, status) in [
        (Request::get(&target(200)), 200),
        (Request::get(&target(201)), 414),
        (Request::get(&target(9000)), 414),
        (with([line(300)]), 200),
        (with([line(301)]), 431),
        (with([line(20_000)]), 431),
        (with(fields(9)), 200),
        (with(fields(10)), 431),
        (with([line(290), line(290), line(290)]), 200),
        (with([line(290), line(290), line(290), line(290)]), 431),
    ] {
        // Alone, and behind a request that is well.
        for before in [0, 1] {
            let mut client = Connection::open(homing.addr).await;
            let mut bytes = Request::get("/before").bytes().repeat(before);
            bytes.extend(request.bytes());
            client.wire.write(bytes).await.expect("the bytes are read");
            for _ in 0..before {
                assert_eq!(client.answer().await.expect("an answer").status, 200);
            }
            let answer = client.answer().await.unwrap_or_else(|error| panic!("{status}: {error}"));
            assert_eq!(answer.status, status, "{} {:?}", request.target, request.headers);
            if status != 200 {
                assert_eq!(answer.header("connection"), Some("close"));
                assert!(client.closed().await.is_empty(), "nothing follows");
            }
        }
    }
    assert_eq!(app.requests().len(), 10 + 2 * 4, "what came before, and what is not too large");
    let refused = async |reason| homing.metric("homing_requests_refused_total", &[("reason", reason)]).await;
    assert_eq!((refused("uri_too_long").await, refused("head_too_large").await), (4.0, 8.0));
    let lines = async || std::fs::read_to_string(homing.dir().join("access.log")).unwrap_or_default();
    eventually("12 lines of refusals", async || lines().await.matches("too_l").count() == 12).await;
    let lines = lines().await;
    let refused = lines.lines().find(|line| line.contains("\"status\":414")).expect("a line");
    assert!(
        refused.contains("\"path\":\"/uuu") && refused.contains("\"reason\":\"uri_too_long\""),
        "{refused}"
    );
    assert!(lines.lines().all(|line| line.len() < 2048), "no line is as long as what was refused");
}

#[tokio::test]
async fn http2_requests_have_the_same_bounds() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http(LIMITS).tls(&cert_for(&["a.com"])).start().await;
    let client =
        TlsClient::new(Profile { http2: true, ..Profile::TLS13 }).connect(homing.addr, "a.com").await;
    let client = Http2::over(client).await;
    let crumbs = |n| (0..n).map(|n| ("cookie".to_owned(), format!("c{n}=v")));
    for (request, status) in [
        (Request::get(&target(200)), 200),
        (Request::get(&target(201)), 414),
        (with([line(300)]), 200),
        (with([line(301)]), 431),
        (with(crumbs(15)), 200),
        (with((0..11).map(|n| (format!("x-{n}"), "v".to_owned()))), 431),
        (Request::post("/", vec![0; 1000]), 200),
        (Request::post("/", vec![0; 1001]).header("content-length", "1001"), 413),
    ] {
        let (answer, mut body) = client.begin(&request, request.body.is_none()).await;
        if let (Some(bytes), 200) = (&request.body, status) {
            send_all(&mut body, bytes.clone()).await;
        }
        let answer = finish(answer.await.expect("the stream is answered")).await;
        assert_eq!(answer.status, status, "{} {:?}", request.target, request.headers);
    }
    // Of no announced length.
    let (answer, mut body) = client.begin(&Request::new("POST", "/"), false).await;
    body.send_data(Bytes::from(vec![0; 1001]), false).expect("the window is larger");
    assert_eq!(finish(answer.await.expect("the stream is answered")).await.status, 413);
    assert_eq!(client.ask(&Request::get("/")).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_body_that_is_too_large_gets_413_and_no_server_gets_it_whole() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http(LIMITS).start().await;
    let chunked = |length: usize| {
        let request = Request::new("POST", "/chunked").header("Transfer-Encoding", "chunked");
        [request.bytes(), format!("{length:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(length)).into_bytes()].concat()
    };
    for (bytes, status) in [
        (Request::post("/", vec![b'b'; 1000]).bytes(), 200),
        (chunked(1000), 200),
        (Request::post("/large", vec![b'b'; 1001]).bytes(), 413),
        (Request::post("/large", vec![b'b'; 500_000]).bytes(), 413),
        (
            Request::new("POST", "/large")
                .header("Content-Length", "1001")
                .header("Expect", "100-continue")
                .bytes(),
            413,
        ),
        (chunked(1001), 413),
        (chunked(500_000), 413),
    ] {
        let mut client = Connection::open(homing.addr).await;
        client.wire.write(bytes).await.expect("homing reads on, so that its answer arrives");
        let answer = client.answer().await.unwrap_or_else(|error| panic!("{status}: {error}"));
        assert_eq!(answer.status, status);
        if status == 413 {
            assert!(client.closed().await.is_empty(), "nothing follows");
        }
    }
    assert!(app.started().iter().all(|request| request.target != "/large"), "refused by what it announces");
    assert_eq!(app.requests().len(), 2, "no other one is whole");
    homing
        .settles("homing_requests_refused_total", &[("reason", "body_too_large"), ("vs", "web")], 5.0)
        .await;
}

#[tokio::test]
async fn what_is_no_http_is_told_so_at_once() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.wire.write(b"\x16\x03\x01\x02\x00\x01").await.expect("the bytes are read");
    let said = String::from_utf8(client.closed().await).expect("text");
    assert!(said.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{said}");
}
