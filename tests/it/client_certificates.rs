//! Client certificates: who has to show one, what servers and rules learn of it, and what a resumed session proves.

use crate::support::{
    certs::{Ca, Cert, cert_for},
    client::{Answer, Connection, Request},
    config::{Site, parse},
    copies::{Mark, copies},
    homing::Homing,
    http2::Http2,
    origin::Origin,
    tls::{Profile, TlsClient},
};

/// Clients of the virtual service are asked; servers get the subject as `X-Client`.
fn asking(app: &Origin, mode: &str, ca: &Ca) -> Site {
    Site::new(&[app])
        .tls(&cert_for(&["a.com"]))
        .file("clients.pem", &ca.pem())
        .push("pki_profiles", "{name: clients, ca_certs: [clients.pem]}")
        .http(&format!("ssl_client_certificate_mode: {mode}, pki_profile_ref: clients"))
        .vs(
            "http_rules",
            "[{name: cert, hdr_action: [{action: set, hdr: x-client, value: '{client_cert_subject}'}]}]",
        )
}

fn alice(ca: &Ca) -> Cert {
    ca.site_cert("alice", "urn:alice", 7)
}

/// The answer to a client with this certificate; `None`: it got none.
async fn answer(homing: &Homing, profile: Profile, cert: Option<&Cert>) -> Option<Answer> {
    let client = TlsClient::with_cert(profile, cert);
    let stream = client.try_connect(homing.addr, "a.com").await?;
    let forged = Request::get("/").header("X-Client", "CN=mallory");
    // Under TLS 1.3 a client learns that it is refused when it reads.
    Connection::over(stream).try_ask(&forged).await.ok()
}

#[tokio::test]
async fn who_has_to_show_a_certificate_gets_in_with_one_alone() {
    let (app, ca, other) = (Origin::start("app").await, Ca::new("clients"), Ca::new("others"));
    let homing = asking(&app, "require", &ca).start().await;
    for profile in [Profile::TLS12, Profile::TLS13] {
        assert!(answer(&homing, profile, None).await.is_none());
        assert!(answer(&homing, profile, Some(&alice(&other))).await.is_none());
        assert!(answer(&homing, profile, Some(&ca.cert_valid("old", -20..=-10))).await.is_none());
        assert_eq!(answer(&homing, profile, Some(&alice(&ca))).await.expect("an answer").status, 200);
        assert_eq!(app.take().remove(0).headers.all("x-client"), ["CN=alice"]);
    }
    let refused = [("reason", "client_certificate")];
    homing.settles("homing_tls_handshake_failures_total", &refused, 6.0).await;
    assert!(app.started().is_empty());
}

#[tokio::test]
async fn who_may_show_a_certificate_gets_in_without_one_but_not_with_a_bad_one() {
    let (app, ca, other) = (Origin::start("app").await, Ca::new("clients"), Ca::new("others"));
    let homing = asking(&app, "request", &ca).start().await;
    for (cert, client) in [(None, ""), (Some(alice(&ca)), "CN=alice")] {
        assert_eq!(answer(&homing, Profile::TLS13, cert.as_ref()).await.expect("an answer").status, 200);
        assert_eq!(app.take().remove(0).headers.all("x-client"), [client]);
    }
    assert!(answer(&homing, Profile::TLS13, Some(&alice(&other))).await.is_none());
}

#[tokio::test]
async fn a_certificate_that_is_revoked_is_refused_after_a_reload_even_in_a_session_that_began_before() {
    let (app, ca) = (Origin::start("app").await, Ca::new("clients"));
    let site = asking(&app, "require", &ca);
    let homing = site.start().await;
    for profile in [Profile::TLS12, Profile::TLS13] {
        homing.reloaded(&site).await;
        let client = TlsClient::with_cert(profile, Some(&alice(&ca)));
        let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
        assert_eq!(connection.ask(&Request::get("/")).await.status, 200);
        let mut resumed = Connection::over(client.resume(homing.addr, "a.com").await);
        assert_eq!(resumed.ask(&Request::get("/")).await.status, 200);

        let lists = site.clone().file("clients.crl", &ca.crl(&[7], 2100));
        let lists = lists.with(|yaml| yaml["pki_profiles"][0]["crls"] = parse("[clients.crl]"));
        homing.reloaded(&lists).await;
        assert_eq!(
            resumed.ask(&Request::get("/")).await.status,
            421,
            "what it has shown does not count any more"
        );
        let again = match client.try_resume(homing.addr, "a.com").await {
            None => None,
            Some(stream) => Connection::over(stream).try_ask(&Request::get("/")).await.ok(),
        };
        assert!(again.is_none(), "it is verified anew: {again:?}");
        let bob = ca.site_cert("bob", "urn:bob", 8);
        assert_eq!(answer(&homing, profile, Some(&bob)).await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn a_resumed_session_has_its_certificate_and_its_identity() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let ca = Ca::new("clients");
    for (profile, tickets) in [
        (Profile::TLS12, true),
        (Profile::TLS13, true),
        (Profile { tickets: false, ..Profile::TLS12 }, true),
        (Profile::TLS13, false),
    ] {
        let site = asking(&app, "require", &ca).clone_to(&[&clone]);
        let site = site
            .clone_section("tokens", "[tls_session_id]")
            .push("ssl_profiles", &format!("{{name: System-Standard, session_tickets: {tickets}}}"));
        let homing = site.start().await;
        let client = TlsClient::with_cert(profile, Some(&alice(&ca)));
        let first = client.connect(homing.addr, "a.com").await;
        Connection::over(first).ask(&Request::get("/1")).await;
        Connection::over(client.resume(homing.addr, "a.com").await).ask(&Request::get("/2")).await;
        let got = app.take();
        assert!(got.iter().all(|got| got.headers.all("x-client") == ["CN=alice"]), "{profile:?}: {got:?}");
        let copies = copies(&[&clone], 2).await;
        let sessions: Vec<_> = copies.iter().map(|(_, copy)| Mark::of(copy).session).collect();
        assert_eq!(sessions[0], sessions[1], "{profile:?}");
        clone.take();
    }
}

#[tokio::test]
async fn no_host_is_reached_by_the_handshake_for_another_one() {
    let (app, ca) = (Origin::start("app").await, Ca::new("clients"));
    let site = asking(&app, "require", &ca)
        .vs("domain_names", "[closed.com]")
        .neighbour("{name: open, domain_names: [a.com], pool_ref: app, ssl_key_and_certificate_ref: cert}");
    let homing = site.start().await;
    let closed = Request::get("/").host("closed.com");
    let plain = TlsClient::new(Profile::TLS13);
    let mut connection = Connection::over(plain.connect(homing.addr, "a.com").await);
    assert_eq!(connection.ask(&Request::get("/")).await.status, 200);
    assert_eq!(connection.ask(&closed).await.status, 421);
    let http2 = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let http2 = Http2::over(http2.connect(homing.addr, "a.com").await).await;
    assert_eq!(http2.ask(&closed).await.status, 421);

    let client = TlsClient::with_cert(Profile::TLS13, Some(&alice(&ca)));
    let mut connection = Connection::over(client.connect(homing.addr, "closed.com").await);
    assert_eq!(connection.ask(&closed).await.status, 200);
    let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
    assert_eq!(connection.ask(&Request::get("/")).await.status, 200);
    assert_eq!(connection.ask(&closed).await.status, 421, "it has one, and was not asked for it");
    assert_eq!(app.take().iter().filter(|got| got.header("host") == Some("closed.com")).count(), 1);
}
