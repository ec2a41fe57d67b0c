//! What a request says of its connection: when it ends, where the next request begins, what it may become.

use serde_yaml::Value;

use crate::{
    strict_requests::{agree, in_front_of_raw},
    support::client::{Connection, Request},
};

#[tokio::test]
async fn close_in_any_connection_field_is_the_end() {
    let (_server, site) = in_front_of_raw().await;
    let homing = site.start().await;
    for (fields, closes) in [
        ("Connection: close", true),
        ("Connection: keep-alive, Close", true),
        ("Connection: keep-alive\r\nConnection: close", true),
        ("Connection: close\r\nConnection: keep-alive", true),
        ("Connection: X-Own\r\nX-Own: 1\r\nConnection: ,\tCLOSE ,", true),
        ("Connection: keep-alive\r\nConnection: X-Own", false),
        ("Connection: closed\r\nConnection: X-Own", false),
    ] {
        let mut client = Connection::open(homing.addr).await;
        let request = format!("GET / HTTP/1.1\r\nHost: a.com\r\n{fields}\r\n\r\n");
        client.wire.write(request).await.expect("homing reads");
        let answer = client.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.header("connection") == Some("close")), (200, closes), "{fields}");
        match closes {
            true => assert!(client.closed().await.is_empty(), "{fields}"),
            false => assert_eq!(client.ask(&Request::get("/")).await.status, 200, "{fields}"),
        }
    }
}

#[tokio::test]
async fn what_follows_a_body_at_once_is_the_next_request() {
    let (server, site) = in_front_of_raw().await;
    let homing = site.start().await;
    let chunked = "Transfer-Encoding: chunked";
    for (fields, body) in [
        (chunked, "0\r\n\r\n"),
        (chunked, "00;x\r\nX-Sum: 1\r\n\r\n"),
        (chunked, "2\r\nhi\r\n0\r\n\r\n"),
        ("Content-Length: 0", ""),
        ("Content-Length: 2", "hi"),
        ("X-None: 1", ""),
    ] {
        let before = server.requests().len();
        let mut client = Connection::open(homing.addr).await;
        let both = format!(
            "POST /1 HTTP/1.1\r\nHost: a.com\r\n{fields}\r\n\r\n{body}GET /2 HTTP/1.1\r\nHost: a.com\r\n\r\n"
        );
        client.wire.write(both).await.expect("homing reads");
        for request in ["the first", "the second"] {
            let answer =
                client.answer().await.unwrap_or_else(|error| panic!("{request} of {body:?}: {error}"));
            assert_eq!(answer.status, 200, "{request} of {body:?}");
        }
        let lines: Vec<_> = server.requests()[before..].iter().map(|request| request.line()).collect();
        assert_eq!(lines, ["POST /1", "GET /2"], "{body:?}");
    }
    agree(&server);
}

#[tokio::test]
async fn an_upgrade_that_connection_does_not_name_is_not_asked_for() {
    let (server, site) = in_front_of_raw().await;
    let homing = site.start().await;
    for (fields, asked) in [
        ("Upgrade: websocket\r\nConnection: Upgrade", true),
        ("Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: upgrade", true),
        ("Upgrade: websocket", false),
        ("Upgrade: websocket\r\nConnection: keep-alive", false),
        ("Upgrade: websocket\r\nContent-Length: 0", false),
    ] {
        let mut client = Connection::open(homing.addr).await;
        let pair = format!(
            "GET / HTTP/1.1\r\nHost: a.com\r\n{fields}\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.com\r\n\r\n"
        );
        client.wire.write(pair).await.expect("homing reads");
        assert_eq!(client.answer().await.expect("an answer").status, 200, "{fields}");
        let request = server.requests().pop().expect("the server got it");
        let is_asked = !request.all("upgrade").is_empty() || !request.all("connection").is_empty();
        assert_eq!(is_asked, asked, "{fields}: {request:?}");
        assert_eq!(client.answer().await.expect("an answer").status, 200, "the next after {fields}");
    }
}

#[tokio::test]
async fn a_request_of_http_1_0_without_host_is_for_the_address_that_it_came_to() {
    let (server, site) = in_front_of_raw().await;
    let site = site.with(|yaml| yaml["virtual_services"][0]["domain_names"] = Value::Null);
    let homing = site.start().await;
    let own = homing.addr.to_string();
    for (request, host) in [
        ("OPTIONS / HTTP/1.0\r\n\r\n", Some(&*own)),
        ("GET http://b.com/ HTTP/1.0\r\n\r\n", Some("b.com")),
        ("GET / HTTP/1.0\r\nHost: c.com\r\n\r\n", Some("c.com")),
        ("GET http://x@b.com/ HTTP/1.0\r\n\r\n", None),
        ("GET / HTTP/1.0\r\nHost:\r\n\r\n", None),
        ("GET / HTTP/1.1\r\n\r\n", None),
    ] {
        let mut client = Connection::open(homing.addr).await;
        client.wire.write(request).await.expect("homing reads");
        let status = client.answer().await.expect("an answer").status;
        assert_eq!(status, if host.is_some() { 200 } else { 400 }, "{request:?}");
        if let Some(host) = host {
            assert_eq!(
                server.requests().pop().expect("the server got it").all("host"),
                [host],
                "{request:?}"
            );
        }
    }
    agree(&server);
}
