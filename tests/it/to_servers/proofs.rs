//! TLS to servers: whose word is taken for them, what they are shown, and what they are called.

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    certs::{Ca, Cert, cert_for},
    client::Request,
    config::{APP, CLONES, Site, parse},
    eventually,
    homing::Homing,
    lines::{self, logged},
    net,
    origin::Origin,
    rpc::RpcServer,
    tls_server::{Seen, TlsServer},
};

/// A site in front of a server with TLS, whose pool has these keys; `ca` is the authority of its profile `servers`.
fn secured(server: SocketAddr, ca: &Ca, keys: &str) -> Site {
    let site = logged(Site::new(&[]), "")
        .file("ca.pem", &ca.pem())
        .push("pki_profiles", "{name: servers, ca_certs: [ca.pem]}")
        .with(|yaml| {
            yaml["threads"] = 1.into();
            let pool = &mut yaml["pools"][0];
            pool["servers"] =
                parse(&format!("[{{ip: {}, port: {}, hostname: own.test}}]", server.ip(), server.port()));
            pool["enable_ssl"] = true.into();
        });
    with_keys(site, keys)
}

fn with_keys(site: Site, keys: &str) -> Site {
    site.with(|yaml| {
        for (key, value) in parse(keys).as_mapping().expect("keys and values") {
            yaml["pools"][0][key] = value.clone();
        }
    })
}

const OURS: &str = "{pki_profile_ref: servers, sni: pay.test}";

#[tokio::test]
async fn a_server_is_believed_as_its_pool_says_and_a_refused_one_is_a_502_with_its_reason() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let good = ours.cert_for("pay.test");
    for (what, cert, keys, believed) in [
        ("signed by the profile's authority", &good, OURS, true),
        ("signed by another", &theirs.cert_for("pay.test"), OURS, false),
        ("for another name", &ours.cert_for("other.test"), OURS, false),
        (
            "for another name, which does not matter",
            &ours.cert_for("other.test"),
            "{pki_profile_ref: servers, sni: pay.test, host_check_enabled: false}",
            true,
        ),
        ("expired", &ours.cert_valid("pay.test", -20..=-10), OURS, false),
        ("not yet valid", &ours.cert_valid("pay.test", 10..=20), OURS, false),
        ("unknown to the system", &good, "{sni: pay.test}", false),
        ("not verified at all", &cert_for(&["x.test"]), "{verify: false}", true),
        ("not sent in SNI", &good, "{pki_profile_ref: servers, sni: pay.test, sni_enabled: false}", true),
        (
            "not sent in SNI and for another name",
            &ours.cert_for("other.test"),
            "{pki_profile_ref: servers, sni: pay.test, sni_enabled: false}",
            false,
        ),
    ] {
        let server = TlsServer::start(cert, None).await;
        let homing = secured(server.addr, &ours, keys).start().await;
        let answer = Request::post("/", "").send(homing.addr).await;
        assert_eq!(answer.status, if believed { 200 } else { 502 }, "{what}");
        let line = lines::line(&homing).await;
        let reason = if believed { json!(null) } else { json!("tls_failed") };
        assert_eq!(line["reason"], reason, "{what}: {line:#}");
        assert_eq!(server.seen().len(), usize::from(believed), "{what}");
        if !believed {
            homing.says("the certificate of a server is refused").await;
            let server = server.addr.to_string();
            let labels = [("pool", APP), ("server", &*server), ("reason", "certificate")];
            homing.settles("homing_upstream_connect_failures_total", &labels, 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_certificate_that_its_authority_has_taken_back_is_refused() {
    let ca = Ca::new("ours");
    for (revoked, status) in [(8, 200), (7, 502)] {
        let server = TlsServer::start(&ca.site_cert("pay.test", "homing://x/y", 7), None).await;
        let site = secured(server.addr, &ca, OURS)
            .file("ca.crl", &ca.crl(&[revoked], 2099))
            .with(|yaml| yaml["pki_profiles"][0]["crls"] = vec!["ca.crl"].into());
        let homing = site.start().await;
        assert_eq!(Request::get("/").send(homing.addr).await.status, status);
        if status == 502 {
            assert_eq!(lines::line(&homing).await["reason"], "tls_failed");
            homing.says("the certificate of `pay.test` is revoked").await;
        }
        assert_eq!(server.seen().len(), usize::from(status == 200));
    }
}

#[tokio::test]
async fn why_tls_with_a_server_fails_is_in_the_log_in_its_past_and_in_the_lines_of_later_requests() {
    let ours = Ca::new("ours");
    let expired = TlsServer::start(&ours.cert_valid("pay.test", -20..=-10), None).await;
    let of_another = TlsServer::start(&ours.cert_for("other.test"), None).await;
    for (server, message, why) in [
        (
            expired.addr,
            "the certificate of a server is refused",
            "certificate refused: certificate has expired",
        ),
        (of_another.addr, "the certificate of a server is refused", "certificate refused: hostname mismatch"),
        (no_tls().await, "there is no TLS with a server", "TLS handshake failed: wrong version number"),
    ] {
        let homing = secured(server, &ours, OURS).start().await;
        assert_eq!(Request::get("/first").send(homing.addr).await.status, 502);
        homing.says(why).await;
        assert_eq!(Request::get("/later").send(homing.addr).await.status, 502);
        let lines = lines::lines(&homing, 2).await;
        let later = lines.iter().find(|line| line["path"] == "/later").expect("a line for each");
        assert_eq!(later["reason_detail"], why, "{later:#}");
        let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
        assert_eq!(pool["servers"][0]["changes"][0]["reason"], why, "{pool:#}");
        assert_eq!(homing.log_lines(message), 1, "{}", homing.log());
    }
}

/// A server that says something else at once.
async fn no_tls() -> SocketAddr {
    let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
    let addr = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                client.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.ok();
                client.read_to_end(&mut Vec::new()).await
            });
        }
    });
    addr
}

#[tokio::test]
async fn probes_believe_servers_as_requests_do_and_say_why_they_do_not() {
    let (ours, theirs, clients) = (Ca::new("ours"), Ca::new("theirs"), Ca::new("clients"));
    let good = ours.cert_for("pay.test");
    for (cert, asks, keys, refused) in [
        (&good, false, OURS, None),
        (&good, false, "{pki_profile_ref: servers, sni: pay.test, sni_enabled: false}", None),
        (&good, false, "{sni: pay.test}", Some("unable to get local issuer certificate")),
        (&theirs.cert_for("pay.test"), false, OURS, Some("unable to get local issuer certificate")),
        (&ours.cert_for("other.test"), false, OURS, Some("hostname mismatch")),
        (
            &ours.cert_for("other.test"),
            false,
            "{pki_profile_ref: servers, sni: pay.test, host_check_enabled: false}",
            None,
        ),
        (&ours.cert_valid("pay.test", -20..=-10), false, OURS, Some("certificate has expired")),
        (&ours.cert_valid("pay.test", 10..=20), false, OURS, Some("certificate is not yet valid")),
        (&good, true, "{pki_profile_ref: servers, sni: pay.test, ssl_key_and_certificate_ref: us}", None),
    ] {
        let server = TlsServer::start(cert, asks.then_some(&clients)).await;
        let site = secured(server.addr, &ours, "{}").certificate("us", &clients.cert_for("us.test"));
        let homing = with_keys(site, keys).monitored(APP, "https").start().await;
        let reason = match refused {
            None => "monitors passed".to_owned(),
            Some(why) => format!("hm-https-app: certificate refused: {why}"),
        };
        says_of_its_server(&homing, &reason).await;
        let requests = Request::get("/").send(homing.addr).await.status;
        assert_eq!(requests, if refused.is_none() { 200 } else { 503 }, "{keys}: {reason}");
    }
}

#[tokio::test]
async fn probes_look_up_what_authorities_have_taken_back() {
    let ca = Ca::new("ours");
    for (revoked, reason) in
        [(8, "monitors passed"), (7, "hm-https-app: the certificate of `pay.test` is revoked")]
    {
        let server = TlsServer::start(&ca.site_cert("pay.test", "homing://x/y", 7), None).await;
        let site = secured(server.addr, &ca, OURS)
            .file("ca.crl", &ca.crl(&[revoked], 2099))
            .with(|yaml| yaml["pki_profiles"][0]["crls"] = vec!["ca.crl"].into());
        let homing = site.monitored(APP, "https").start().await;
        says_of_its_server(&homing, reason).await;
    }
}

async fn says_of_its_server(homing: &Homing, reason: &str) {
    let mut said = String::new();
    let says = async || {
        let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
        said = pool["servers"][0]["oper_status"]["reason"].to_string();
        said.contains("hm-https-app") || said.contains("monitors passed")
    };
    eventually("a first result", says).await;
    assert!(said.contains(reason), "{said}, and not {reason}");
}

#[tokio::test]
async fn a_server_that_asks_who_connects_is_shown_the_pools_certificate_also_a_renewed_one() {
    let (ours, clients) = (Ca::new("ours"), Ca::new("clients"));
    let server = TlsServer::start(&ours.cert_for("pay.test"), Some(&clients)).await;
    let site = secured(server.addr, &ours, OURS);
    let homing = site.start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 502, "it has nothing to show");
    assert_eq!(server.seen(), []);
    let showing = |cert: &Cert| {
        site.clone().certificate("us", cert).with(|yaml| {
            yaml["pools"][0]["ssl_key_and_certificate_ref"] = "us".into();
        })
    };
    for name in ["first.test", "second.test"] {
        homing.reloaded(&showing(&clients.cert_for(name))).await;
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        let last = server.seen().pop();
        assert_eq!(last.and_then(|seen| seen.client).as_deref(), Some(name), "on a connection of its own");
    }
}

#[tokio::test]
async fn a_server_is_called_as_its_pool_says_in_sni_and_host() {
    let ca = Ca::new("ours");
    let seen = |sni: Option<&str>, host: &str| Seen {
        sni: sni.map(str::to_owned),
        client: None,
        host: Some(host.to_owned()),
    };
    for (keys, told) in [
        ("{}", seen(Some("a.com"), "a.com:80")),
        ("{sni: pay.test}", seen(Some("pay.test"), "a.com:80")),
        ("{server_name: pay.test}", seen(Some("pay.test"), "a.com:80")),
        ("{sni_enabled: false}", seen(None, "a.com:80")),
        ("{sni: pay.test, rewrite_host_header_to_sni: true}", seen(Some("pay.test"), "pay.test")),
        ("{rewrite_host_header_to_server_name: true}", seen(Some("a.com"), "own.test")),
    ] {
        let server = TlsServer::start(&ca.cert_for("x.test"), None).await;
        let homing = with_keys(secured(server.addr, &ca, keys), "{verify: false}").start().await;
        assert_eq!(Request::get("/").host("a.com:80").send(homing.addr).await.status, 200, "{keys}");
        assert_eq!(server.seen(), [told], "{keys}");
    }
}

#[tokio::test]
async fn an_http_2_server_and_one_without_tls_are_called_as_their_pool_says() {
    let (plain, rpc) = (Origin::start("plain").await, RpcServer::start().await);
    let pool = |addr: std::net::SocketAddr, http2| {
        Site::new(&[]).with(|yaml| {
            let pool = &mut yaml["pools"][0];
            pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", addr.ip(), addr.port()));
            pool["enable_http2"] = http2;
            pool["rewrite_host_header_to_server_name"] = true.into();
        })
    };
    let homing = pool(plain.addr, false.into()).start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    assert_eq!(plain.requests()[0].headers.all("host"), [plain.addr.to_string()]);
    let homing = pool(rpc.addr, true.into()).start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    let head = rpc.heads().remove(0);
    assert_eq!(head.uri.authority().map(|it| it.as_str().to_owned()), Some(rpc.addr.to_string()));
}

#[tokio::test]
async fn members_of_a_clone_pool_are_believed_and_shown_the_same() {
    let (ours, clients, app) = (Ca::new("ours"), Ca::new("clients"), Origin::start("app").await);
    let revoked = ours.crl(&[7], 2099);
    let us = "{ssl_key_and_certificate_ref: us}";
    let (left, never_left) = ("homing_clone_copies_total", "homing_clone_dropped_total");
    for (cert, keys, (counter, label, value)) in [
        (ours.cert_for("pay.test"), us, (left, "outcome", "answered")),
        // With TLS 1.3 a member refuses who shows nothing after the handshake: the copy is on its way then.
        (ours.cert_for("pay.test"), "{}", (left, "reason", "closed")),
        (Ca::new("theirs").cert_for("pay.test"), us, (never_left, "reason", "tls")),
        (ours.cert_for("other.test"), us, (never_left, "reason", "tls")),
        (ours.site_cert("pay.test", "homing://x/y", 7), us, (never_left, "reason", "tls")),
    ] {
        let member = TlsServer::start(&cert, Some(&clients)).await;
        let site = Site::new(&[&app])
            .clone_to(&[&app])
            .file("ca.pem", &ours.pem())
            .file("ca.crl", &revoked)
            .certificate("us", &clients.cert_for("us.test"))
            .push("pki_profiles", "{name: servers, ca_certs: [ca.pem], crls: [ca.crl]}")
            .with(|yaml| {
                let pool = &mut yaml["pools"][1];
                pool["servers"] =
                    parse(&format!("[{{ip: {}, port: {}}}]", member.addr.ip(), member.addr.port()));
                pool["enable_ssl"] = true.into();
                for (key, value) in [OURS, keys]
                    .iter()
                    .flat_map(|keys| parse(keys).as_mapping().expect("keys and values").clone().into_iter())
                {
                    pool[key] = value;
                }
            });
        let homing = site.start().await;
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        homing.settles(counter, &[("vs", "web"), ("pool", CLONES), (label, value)], 1.0).await;
        let shown: Vec<_> = member.seen().into_iter().map(|seen| seen.client).collect();
        assert_eq!(shown, if value == "answered" { vec![Some("us.test".to_owned())] } else { vec![] });
    }
}
