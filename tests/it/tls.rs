//! TLS: a session's identity, certificates by name, versions, the redirect to it.

use std::collections::BTreeSet;

use openssl::ssl::SslVersion;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::{Site, parse},
    copies::Mark,
    http2::Http2,
    net,
    origin::Origin,
    soon,
    tls::{Profile, TlsClient, certificate_name},
};

#[tokio::test]
async fn a_resumed_tls_session_keeps_its_clone_member_tls_1_2() {
    identity_survives_resumption(SslVersion::TLS1_2).await;
}

#[tokio::test]
async fn a_resumed_tls_session_keeps_its_clone_member_tls_1_3() {
    identity_survives_resumption(SslVersion::TLS1_3).await;
}

/// Server and client each with and without tickets, HTTP/1.1 and HTTP/2.
async fn identity_survives_resumption(version: SslVersion) {
    let app = Origin::start("app").await;
    let members = [Origin::start("c0").await, Origin::start("c1").await, Origin::start("c2").await];
    for server_tickets in [true, false] {
        let homing = Site::new(&[&app])
            .clone_to(&members.each_ref())
            .clone_section("tokens", "[tls_session_id]")
            .tls(&cert_for(&["a.com"]))
            .push("ssl_profiles", &format!("{{name: tls, session_tickets: {server_tickets}}}"))
            .vs("ssl_profile_ref", "tls")
            .start()
            .await;
        for tickets in [true, false] {
            for http2 in [false, true] {
                let what = format!("tickets: server {server_tickets}, client {tickets}; http2: {http2}");
                let client = TlsClient::new(Profile { version, tickets, http2 });
                let mut sessions = Vec::new();
                for visit in 0..2 {
                    let first = client.connect(homing.addr, "a.com").await;
                    let mut copies = ask_twice(first, http2, &members).await;
                    for _ in 0..2 {
                        let resumed = client.resume(homing.addr, "a.com").await;
                        copies.extend(ask_twice(resumed, http2, &members).await);
                    }
                    let distinct = copies.iter().cloned().collect::<BTreeSet<_>>();
                    assert_eq!(
                        distinct.len(),
                        1,
                        "visit {visit} is one session at one member ({what}): {copies:?}"
                    );
                    sessions.extend(distinct.into_iter().map(|(_, session)| session));
                }
                assert_ne!(sessions[0], sessions[1], "a new full handshake is a new identity ({what})");
            }
        }
    }
}

#[tokio::test]
async fn parallel_connections_that_resume_one_session_share_its_identity() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("tokens", "[tls_session_id]");
    let homing = site.tls(&cert_for(&["a.com"])).start().await;
    let client = TlsClient::new(Profile::TLS12);
    let mut connections = vec![Connection::over(client.connect(homing.addr, "a.com").await)];
    connections[0].ask(&Request::get("/")).await;
    for _ in 0..3 {
        connections.push(Connection::over(client.resume(homing.addr, "a.com").await));
    }
    for connection in &mut connections {
        connection.ask(&Request::get("/")).await;
    }
    let sessions = clone.got(5).await.iter().map(|copy| Mark::of(copy).session).collect::<BTreeSet<_>>();
    assert_eq!(sessions.len(), 1);
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate_exact_before_suffix_before_the_first() {
    let app = Origin::start("app").await;
    let (b, any) = (cert_for(&["b.org"]), cert_for(&["*.c.net"]));
    let homing = Site::new(&[&app])
        .tls(&cert_for(&["a.com"]))
        .certificate("b", &b)
        .certificate("any", &any)
        .neighbour("{name: b, domain_names: [b.org], pool_ref: app}")
        .neighbour("{name: any, domain_names: ['*.c.net'], pool_ref: app}")
        .with(|yaml| {
            for (n, certificate) in [(1, "b"), (2, "any")] {
                yaml["virtual_services"][n]["services"][0]["ssl_key_and_certificate_ref"] =
                    certificate.into();
            }
        })
        .start()
        .await;
    for profile in [Profile::TLS12, Profile::TLS13] {
        let client = TlsClient::new(profile);
        for (sni, shown) in [
            ("a.com", "a.com"),
            ("b.org", "b.org"),
            ("B.org", "b.org"),
            ("www.c.net", "*.c.net"),
            ("unknown.example", "a.com"),
        ] {
            let stream = client.connect(homing.addr, sni).await;
            assert_eq!(certificate_name(&stream), shown, "SNI {sni}");
        }
        let mut b = Connection::over(client.connect(homing.addr, "b.org").await);
        assert_eq!(b.ask(&Request::get("/").host("b.org")).await.status, 200);
    }
}

#[tokio::test]
async fn versions_and_http2_are_offered_as_the_profile_says() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app])
        .tls(&cert_for(&["a.com"]))
        .push("ssl_profiles", "{name: new, min_version: tls1.3, http2: false}")
        .vs("ssl_profile_ref", "new")
        .start()
        .await;
    assert!(!TlsClient::new(Profile::TLS12).can_connect(homing.addr, "a.com").await);
    let stream = TlsClient::new(Profile::TLS13).connect(homing.addr, "a.com").await;
    assert_eq!(stream.ssl().selected_alpn_protocol().unwrap_or(b"http/1.1"), b"http/1.1");

    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        for (http2, expected) in [(true, &b"h2"[..]), (false, b"http/1.1")] {
            let client = TlsClient::new(Profile { version, tickets: true, http2 });
            let stream = client.connect(homing.addr, "a.com").await;
            assert_eq!(stream.ssl().selected_alpn_protocol().unwrap_or(b"http/1.1"), expected);
        }
    }
}

#[tokio::test]
async fn the_server_learns_that_the_client_came_over_tls() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    crate::support::tls::open(homing.addr).await.ask(&Request::get("/")).await;
    assert_eq!(app.got(1).await[0].header("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_refused_and_harms_nobody() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the bytes are read");
    client.closed().await;
    assert!(app.started().is_empty());
    let mut client = crate::support::tls::open(homing.addr).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 200);
}

#[tokio::test]
async fn a_plain_request_is_redirected_to_https_where_the_profile_says_so() {
    let app = Origin::start("app").await;
    let https = net::free_addr();
    let homing = Site::new(&[&app])
        .certificate("cert", &cert_for(&["a.com"]))
        .http("http_to_https: true")
        .with(|yaml| {
            let service = format!(
                "{{address: {}, port: {}, enable_ssl: true, ssl_key_and_certificate_ref: cert}}",
                https.ip(),
                https.port()
            );
            let services = yaml["virtual_services"][0]["services"].as_sequence_mut().expect("a list");
            services.push(parse(&service));
        })
        .start()
        .await;
    let answer = Request::get("/path?q=1").send(homing.addr).await;
    assert!(matches!(answer.status, 301 | 302 | 307 | 308), "{}", answer.status);
    let location = answer.header("location").expect("a redirect says where to");
    assert!(location.starts_with("https://a.com"), "{location}");
    assert!(location.ends_with("/path?q=1"), "{location}");
    assert!(app.started().is_empty());
    let mut client = crate::support::tls::open(https).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 200);
}

/// Two requests over a connection, which is then closed as TLS wants it; who got the copies, and as what session.
async fn ask_twice(stream: SslStream<TcpStream>, http2: bool, members: &[Origin]) -> Vec<(String, String)> {
    if http2 {
        let client = Http2::over(stream).await;
        for _ in 0..2 {
            assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        }
    } else {
        let mut client = Connection::over(stream);
        for _ in 0..2 {
            assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        }
        soon("a clean end", client.wire.shutdown()).await.expect("the end can be sent");
    }
    let members = members.iter().collect::<Vec<_>>();
    let copies = crate::support::copies::copies(&members, 2).await;
    members.iter().for_each(|member| drop(member.take()));
    copies.into_iter().map(|(member, copy)| (member, Mark::of(&copy).session)).collect()
}
