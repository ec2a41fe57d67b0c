//! Certificates that have expired, are about to, or are not valid yet; ours and those of servers.

use crate::support::{
    certs::{Ca, cert_valid},
    client::Request,
    config::Site,
    homing::{Homing, run},
    origin::Origin,
    tls,
};

#[tokio::test]
async fn a_certificate_out_of_its_time_is_served_with_one_warning() {
    let app = Origin::start("app").await;
    for (valid, what) in [
        (-400..=-3, "certificate `a.com` expired at "),
        (-80..=2, "certificate `a.com` expires soon, at "),
        (2..=90, "certificate `a.com` is not valid before "),
    ] {
        let site = Site::new(&[&app]).tls(&cert_valid(&["a.com"], valid));
        let homing = site.start().await;
        assert_eq!(tls::open(homing.addr).await.ask(&Request::get("/")).await.status, 200);
        assert_eq!(homing.log_lines(what), 1, "{}", homing.log());
        let config = homing.dir().join("homing.yaml");
        let check = run(&["check", "--config", config.to_str().expect("temporary paths are text")]).await;
        assert_eq!(check.code, Some(0), "{}", check.text());
        let says = |text: &str| text.contains(what) && text.contains("certificate_file");
        assert!(says(&check.stderr), "{}", check.stderr);
        let reload = homing.reloaded(&site).await;
        assert!(reload["warnings"][0].as_str().is_some_and(says), "{reload:#}");
    }
}

#[tokio::test]
async fn a_certificate_within_its_time_is_not_worth_a_word() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).tls(&cert_valid(&["a.com"], -3..=80));
    let homing = site.start().await;
    assert!(homing.reloaded(&site).await["warnings"].is_null());
    assert_eq!(homing.log_lines("certificate"), 0, "{}", homing.log());
}

#[tokio::test]
async fn a_server_whose_certificate_has_expired_is_refused_and_the_log_says_so_once() {
    let ca = Ca::new("the authority");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let trusted = dir.path().join("ca.pem");
    std::fs::write(&trusted, ca.pem()).expect("written");
    for (valid, status, lines) in [(-90..=-1, 502, 1), (-1..=90, 200, 0)] {
        let app = Origin::start_tls("app", &ca.cert_valid("a.com", valid)).await;
        let site = Site::new(&[&app]).with(|yaml| yaml["pools"][0]["enable_ssl"] = true.into());
        let trusting = |command: &mut tokio::process::Command| {
            command.env("SSL_CERT_FILE", &trusted);
        };
        let homing = Homing::start_as(&site, trusting).await;
        for _ in 0..20 {
            assert_eq!(Request::get("/").send(homing.addr).await.status, status, "{}", homing.log());
        }
        // A reload is told after them.
        homing.reloaded(&site).await;
        homing.says("configuration reloaded").await;
        assert_eq!(homing.log_lines("the certificate of a server is refused"), lines, "{}", homing.log());
    }
}
