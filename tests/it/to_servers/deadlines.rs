//! Requests are given up when their pool says so, and never later.

use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::answered_whole;
use crate::{
    routing::websocket,
    support::{
        after,
        client::{Connection, Request},
        config::{APP, Site, parse},
        eventually,
        lines::{self, logged},
        origin::{Mode, Origin},
        rpc::RpcServer,
        soon,
    },
};

/// A site whose pool has these keys.
fn patient(servers: &[&Origin], keys: &[(&str, &str)]) -> Site {
    logged(Site::new(servers), "").with(|yaml| {
        yaml["threads"] = 1.into();
        for (key, value) in keys {
            yaml["pools"][0][*key] = parse(value);
        }
    })
}

const SILENT: &str = "first_byte_timeout";
const LATE: &str = "request_timeout";

#[tokio::test]
async fn a_request_without_the_beginning_of_an_answer_in_time_is_a_504_that_says_what_was_late() {
    let app = Origin::start("app").await;
    app.set(Mode::NeverAnswer);
    let (first, whole) = ("server_response_timeout", "request_timeout");
    for (keys, reason) in [
        (vec![(first, "200ms")], SILENT),
        (vec![(first, "200ms"), (whole, "1h")], SILENT),
        (vec![(whole, "200ms")], LATE),
        (vec![(whole, "200ms"), (first, "1h"), ("read_timeout", "1h")], LATE),
    ] {
        let homing = patient(&[&app], &keys).start().await;
        for (n, request) in [Request::get("/"), Request::post("/", "body")].into_iter().enumerate() {
            assert_eq!(request.send(homing.addr).await.status, 504, "{keys:?}");
            let line = lines::lines(&homing, n + 1).await.remove(n);
            assert_eq!((&line["status"], &line["reason"]), (&json!(504), &json!(reason)), "{line:#}");
            assert_eq!((&line["retries"], &line["significant"]), (&json!(0), &json!(true)), "{line:#}");
        }
        let server = app.addr.to_string();
        let labels = [("pool", APP), ("server", &*server), ("reason", reason)];
        homing.settles("homing_upstream_request_failures_total", &labels, 2.0).await;
        eventually("the server is not waited for any more", async || app.open() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_began_in_time_and_does_not_end_is_cut_when_its_request_is_late() {
    for (what, beginning) in [
        ("hangs in chunks", &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"[..]),
        ("hangs in a known length", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        ("ends with its connection", b"HTTP/1.1 200 OK\r\n\r\nhalf"),
    ] {
        let app = Origin::start("app").await;
        app.set(Mode::RawCut(beginning.into()));
        let keys = [("request_timeout", "300ms"), ("server_response_timeout", "1h")];
        let homing = patient(&[&app], &keys).start().await;
        let mut client = Connection::open(homing.addr).await;
        assert!(client.try_ask(&Request::get("/")).await.is_err(), "{what}: half is not passed off as whole");
        let line = lines::line(&homing).await;
        assert_eq!((&line["status"], &line["reason"]), (&json!(200), &json!(LATE)), "{what}: {line:#}");
    }
}

#[tokio::test]
async fn an_answer_that_trickles_is_cut_however_lively_it_is() {
    let app = Origin::start("app").await;
    app.set(Mode::Steps(usize::MAX));
    let homing = patient(&[&app], &[("request_timeout", "500ms"), ("read_timeout", "10s")]).start().await;
    let mut client = Connection::open(homing.addr).await;
    let request = Request::get("/");
    let asked = client.try_ask(&request);
    let trickle = async {
        loop {
            app.release(1);
            after(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        answer = asked => assert!(answer.is_err()),
        () = trickle => unreachable!("it goes on for ever"),
    }
    assert_eq!(lines::line(&homing).await["reason"], LATE);
}

#[tokio::test]
async fn a_client_that_is_still_sending_when_its_request_is_late_is_told_so() {
    let app = Origin::start("app").await;
    let homing = patient(&[&app], &[("request_timeout", "300ms")]).start().await;
    let mut client = Connection::open(homing.addr).await;
    let head = Request::new("POST", "/").header("Content-Length", "10");
    client.send(&head).await.expect("homing reads the head");
    client.wire.write("half").await.expect("homing reads the body");
    assert_eq!(client.answer().await.expect("an answer").status, 504);
    assert_eq!(lines::line(&homing).await["reason"], LATE);
}

#[tokio::test]
async fn an_http_2_server_is_given_up_as_well() {
    let server = RpcServer::start().await;
    let site = patient(&[], &[("request_timeout", "300ms"), ("enable_http2", "true")]).with(|yaml| {
        let addr = format!("[{{ip: {}, port: {}}}]", server.addr.ip(), server.addr.port());
        yaml["pools"][0]["servers"] = parse(&addr);
    });
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::new("POST", "/").header("Content-Length", "10")).await.expect("it is read");
    client.wire.write("half").await.expect("homing reads the body");
    let head = client.head().await.expect("the server begins to answer at once");
    assert_eq!(head.status(), 200);
    client.closed().await;
    assert_eq!(lines::line(&homing).await["reason"], LATE);
    eventually("the server sees it", async || server.cancelled() == 1).await;
    let answer = Request::post("/", "message").send(homing.addr).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"message"[..]));
}

#[tokio::test]
async fn what_is_answered_in_time_leaves_its_connection_to_others() {
    let app = Origin::start("app").await;
    let keys = [("request_timeout", "400ms"), ("server_response_timeout", "400ms")];
    let homing = patient(&[&app], &keys).start().await;
    let mut client = Connection::open(homing.addr).await;
    for (mode, request) in answered_whole() {
        app.set(mode);
        assert!(client.ask(&request).await.status < 300);
        after(Duration::from_millis(500)).await;
    }
    let late = lines::lines(&homing, 5).await.iter().filter(|line| !line["reason"].is_null()).count();
    assert_eq!((app.connections(), late), (1, 0));
}

#[tokio::test]
async fn a_stream_of_events_and_a_websocket_last_as_long_as_they_want() {
    let app = Origin::start("app").await;
    let homing = patient(&[&app], &[("request_timeout", "200ms")]).start().await;
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n";
    app.set(Mode::RawCut(events.into()));
    let mut listener = Connection::open(homing.addr).await;
    listener.send(&Request::get("/events")).await.expect("the request is read");
    listener.head().await.expect("the stream begins");
    app.set(Mode::Ok);
    let mut tunnel = Connection::open(homing.addr).await;
    tunnel.send(&websocket()).await.expect("the request is read");
    assert_eq!(tunnel.head().await.expect("an answer").status(), 101);
    after(Duration::from_millis(500)).await;
    tunnel.wire.write("hello").await.expect("the tunnel takes bytes");
    assert_eq!(soon("an echo", tunnel.wire.exactly(5)).await.expect("the tunnel gives bytes"), "hello");
    app.release(1);
    let rest = soon("the rest", listener.wire.body(crate::support::wire::Framing::Chunked)).await;
    assert_eq!(rest.expect("the stream ends as its server wants"), "data: 1\n\n");
}

#[tokio::test]
async fn who_asks_for_a_tunnel_is_not_late_however_long_the_server_takes() {
    let app = Origin::start("app").await;
    app.set(Mode::Held);
    let homing = patient(&[&app], &[("request_timeout", "200ms")]).start().await;
    let mut tunnel = Connection::open(homing.addr).await;
    tunnel.send(&websocket()).await.expect("the request is read");
    after(Duration::from_millis(500)).await;
    app.release(1);
    assert_eq!(soon("an answer", tunnel.head()).await.expect("an answer").status(), 200, "it declines");
}

#[tokio::test]
async fn a_connection_that_is_not_made_is_waited_for_no_longer_than_its_request_may_take() {
    let (server, _in_its_queue) = full().await;
    let keys = [("request_timeout", "300ms"), ("connect_timeout", "1h")];
    let homing = patient(&[], &keys).with(|yaml| {
        let server = server.local_addr().expect("it is bound");
        yaml["pools"][0]["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", server.ip(), server.port()));
    });
    let homing = homing.start().await;
    assert_eq!(soon("an answer", Request::get("/").send(homing.addr)).await.status, 504);
    assert_eq!(lines::line(&homing).await["reason"], LATE);
}

/// A server that accepts nobody, with a queue that has no room for more.
async fn full() -> (TcpListener, TcpStream) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("an address is free");
    let listener = socket.listen(0).expect("it listens");
    let queued = TcpStream::connect(listener.local_addr().expect("it is bound")).await;
    (listener, queued.expect("there is room for one"))
}
