//! `X-Forwarded-*` of proxies in front, and of everybody else.

use std::net::IpAddr;

use serde_json::json;

use crate::support::{
    client::{Connection, Request},
    config::Site,
    copies::{Mark, copies},
    lines::{lines, logged},
    origin::{Origin, Record},
};

const TRUSTING: &str = "trusted_proxies: [127.0.0.1, 10.0.0.0/8], http_to_https: true";

fn forwarded() -> Request {
    Request::get("/")
        .header("X-Forwarded-For", "192.0.2.66, 203.0.113.7, 10.0.0.2")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.example")
        .header("X-Real-IP", "192.0.2.66")
        .header("Forwarded", "for=192.0.2.66")
        .header("Homing-Hop", "forged")
}

fn said(got: &Record) -> [Option<String>; 6] {
    let fields =
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "forwarded", "homing-hop"];
    fields.map(|name| got.header(name).map(str::to_owned))
}

fn text(said: [Option<&str>; 6]) -> [Option<String>; 6] {
    said.map(|it| it.map(str::to_owned))
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_who_its_client_is_and_nobody_else() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http(TRUSTING).start().await;
    assert_eq!(
        forwarded().send(homing.addr).await.server(),
        "app",
        "the client speaks TLS: it is not redirected"
    );
    let of_client = "for=203.0.113.7;proto=https";
    let believed = [Some("203.0.113.7"), Some("https"), Some("shop.example"), None, Some(of_client), None];
    assert_eq!(said(&app.take()[0]), text(believed));

    let stranger: IpAddr = [127, 0, 0, 2].into();
    let mut connection = Connection::open_from(stranger, homing.addr).await.expect("it listens");
    assert_eq!(connection.ask(&forwarded()).await.status, 301, "it says so, and does not");
    let plain = Site::new(&[&app]).http("trusted_proxies: [127.0.0.1]").start().await;
    let mut connection = Connection::open_from(stranger, plain.addr).await.expect("it listens");
    assert_eq!(connection.ask(&forwarded()).await.status, 200);
    let removed = [Some("127.0.0.2"), Some("http"), None, None, Some("for=127.0.0.2;proto=http"), None];
    assert_eq!(said(&app.take()[0]), text(removed));
}

#[tokio::test]
async fn a_proxy_that_tells_by_forwarded_is_believed_by_that_alone() {
    let app = Origin::start("app").await;
    let trusting = "trusted_proxies: [127.0.0.1, 10.0.0.0/8], trusted_proxies_header: forwarded";
    let homing = Site::new(&[&app]).http(trusting).start().await;
    let request = || {
        Request::get("/")
            .header("X-Forwarded-For", "192.0.2.66")
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Host", "evil.example")
    };
    for (field, client, scheme) in [
        (
            "for=192.0.2.66, for=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.2;proto=https",
            "2001:db8::7",
            "https",
        ),
        ("for=unknown;proto=https", "127.0.0.1", "https"),
        ("for=\"203.0.113.7", "127.0.0.1", "http"),
    ] {
        assert_eq!(request().header("Forwarded", field).send(homing.addr).await.status, 200);
        let node = if client.contains(':') { format!("\"[{client}]\"") } else { client.to_owned() };
        let forwarded = format!("for={node};proto={scheme}");
        let told = [Some(client), Some(scheme), None, None, Some(&*forwarded), None];
        assert_eq!(said(&app.take()[0]), text(told), "{field}");
    }
    assert_eq!(request().send(homing.addr).await.status, 200);
    assert_eq!(app.take()[0].headers.all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn each_request_of_a_proxys_connection_has_its_own_client() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app])
        .http("trusted_proxies: [127.0.0.1]")
        .clone_to(&[&clone])
        .clone_section("tokens", "[source_ip]");
    let homing = logged(site, "").start().await;
    let mut proxy = Connection::open(homing.addr).await;
    for client in ["203.0.113.7", "203.0.113.8", "203.0.113.7"] {
        proxy.ask(&Request::get("/").header("X-Forwarded-For", client)).await;
        assert_eq!(app.take()[0].headers.all("x-forwarded-for"), [client]);
    }
    proxy.ask(&Request::get("/")).await;
    assert_eq!(app.take()[0].headers.all("x-forwarded-for"), ["127.0.0.1"], "what it said before is over");
    let copies = copies(&[&clone], 4).await;
    let mut sessions: Vec<_> = copies.iter().map(|(_, copy)| Mark::of(copy).session).collect();
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 3);
    let lines = lines(&homing, 4).await;
    let clients: Vec<_> = lines.iter().map(|line| (&line["client"], line["peer"].is_string())).collect();
    assert_eq!(
        clients[..3],
        [(&json!("203.0.113.7"), true), (&json!("203.0.113.8"), true), (&json!("203.0.113.7"), true)]
    );
}
