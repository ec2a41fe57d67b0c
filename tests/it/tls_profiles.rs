//! What operators set about TLS: cipher suites, the keys of session tickets, certificates that are renewed.

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    eventually,
    origin::Origin,
    tls::{Profile, TlsClient, certificate_name},
};

#[tokio::test]
async fn a_profile_says_which_ciphers_are_offered() {
    let app = Origin::start("app").await;
    let profile = "{name: System-Standard, accepted_ciphers: 'ECDHE+AES256+AESGCM:ECDHE+CHACHA20',
        ciphersuites: TLS_AES_128_GCM_SHA256}";
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).push("ssl_profiles", profile).start().await;
    for (profile, ciphers) in [
        (Profile::TLS12, &["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"][..]),
        (Profile::TLS13, &["TLS_AES_128_GCM_SHA256"]),
    ] {
        let stream = TlsClient::new(profile).connect(homing.addr, "a.com").await;
        let cipher = stream.ssl().current_cipher().expect("the handshake is over").name();
        assert!(ciphers.contains(&cipher), "{cipher}");
    }
}

#[tokio::test]
async fn a_profile_says_which_versions_are_offered() {
    let app = Origin::start("app").await;
    let profile = "{name: System-Standard, accepted_versions: [SSL_VERSION_TLS1_3]}";
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).push("ssl_profiles", profile).start().await;
    assert!(TlsClient::new(Profile::TLS13).can_connect(homing.addr, "a.com").await);
    assert!(!TlsClient::new(Profile::TLS12).can_connect(homing.addr, "a.com").await);
}

#[tokio::test]
async fn nodes_that_share_ticket_keys_resume_each_others_sessions_through_a_change_of_keys() {
    let app = Origin::start("app").await;
    let (old, new) = ("0a".repeat(32), "1b".repeat(32));
    let node = |keys: &str| {
        let site = Site::new(&[&app]).tls(&cert_for(&["a.com"])).file("tickets.keys", keys);
        site.with(|yaml| yaml["session_ticket_keys_file"] = "tickets.keys".into())
    };
    let (one, two) = (node(&old), node(&old));
    let (one, mut two) = (one.start().await, (two.start().await, two));
    for profile in [Profile::TLS12, Profile::TLS13] {
        let client = TlsClient::new(profile);
        for at in [one.addr, two.0.addr, one.addr] {
            let stream = match at == one.addr && !client.has_session() {
                true => client.connect(at, "a.com").await,
                false => client.resume(at, "a.com").await,
            };
            assert_eq!(Connection::over(stream).ask(&Request::get("/")).await.status, 200);
        }
        // First all nodes learn to open the new key, then they seal with it.
        two.1 = two.1.file("tickets.keys", &format!("{new}\n{old}\n"));
        let reload = two.0.reloaded(&two.1).await;
        let changed = &reload["changes"]["settings"]["changed"];
        assert_eq!(*changed, serde_json::json!(["session_ticket_keys_file"]));
        let resumed = client.resume(two.0.addr, "a.com").await;
        assert_eq!(Connection::over(resumed).ask(&Request::get("/")).await.status, 200);
        two.1 = two.1.file("tickets.keys", &old);
        two.0.reloaded(&two.1).await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_command_and_ends_no_session() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).tls(&cert_for(&["a.com"])).with(|yaml| yaml["watch"] = true.into());
    let homing = site.start().await;
    let client = TlsClient::new(Profile::TLS13);
    let mut open = Connection::over(client.connect(homing.addr, "a.com").await);
    assert_eq!(open.ask(&Request::get("/")).await.status, 200);

    site.certificate_files("cert", &cert_for(&["renewed.a.com"])).write_files(homing.dir());
    eventually("the new certificate is shown", async || {
        let stream = TlsClient::new(Profile::TLS13).connect(homing.addr, "a.com").await;
        certificate_name(&stream) == "renewed.a.com"
    })
    .await;
    assert_eq!(open.ask(&Request::get("/")).await.status, 200);
    let resumed = client.resume(homing.addr, "a.com").await;
    assert_eq!(Connection::over(resumed).ask(&Request::get("/")).await.status, 200);
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_never_shown() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    let half = site.clone().file("cert.pem", &cert_for(&["other.com"]).certificate);
    let reload = homing.reload(&half).await;
    assert_eq!(reload["result"], "failure");
    assert!(reload["problems"].to_string().contains("does not belong to the certificate"), "{reload:#}");
    let stream = TlsClient::new(Profile::TLS13).connect(homing.addr, "a.com").await;
    assert_eq!(certificate_name(&stream), "a.com");
}
