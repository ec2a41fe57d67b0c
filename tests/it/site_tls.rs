//! The way home over TLS: sites that verify one another against the federation's authority.

use crate::{
    sites::OUTCOMES,
    support::{
        certs::Ca,
        client::{Answer, Request},
        config::{Federation, Site},
        homing::Homing,
        origin::Origin,
        site_cookie::{A, B, Cookie},
        tls,
    },
};

#[tokio::test]
async fn a_request_goes_home_over_tls_to_a_site_that_the_authority_has_signed() {
    let ca = Ca::new("ours");
    let sites = Sites::start(&ca, &ca).await;
    for _ in 0..2 {
        let answer = sites.ask_a().await;
        assert_eq!((answer.status, answer.server(), answer.site_cookie()), (200, "b", None));
    }
    let record = sites.app_b.requests().remove(0);
    assert_eq!(record.header("x-forwarded-proto"), Some("https"));
    assert_eq!(record.headers.all("forwarded"), ["for=127.0.0.1;proto=https"]);
    sites.a.settles(OUTCOMES, &[("outcome", "proxied")], 2.0).await;
}

#[tokio::test]
async fn a_site_that_another_authority_has_signed_is_no_home() {
    for (recovery, status, server) in [
        ("pick_new_server", 200, "a"),
        ("abort_connection", 503, ""),
        ("continue_persistent_server", 503, ""),
    ] {
        let sites = Sites::recovering(recovery, &Ca::new("ours"), &Ca::new("theirs")).await;
        let answer = sites.ask_a().await;
        assert_eq!((answer.status, answer.server()), (status, server), "{recovery}");
        let home = answer.site_cookie().map(|value| Cookie::open(value).member);
        assert_eq!(home, (status == 200).then(|| A.id()), "{recovery}");
        assert!(sites.app_b.requests().is_empty());
    }
}

/// Two sites with TLS services alone, an app server each.
struct Sites {
    a: Homing,
    _b: Homing,
    app_b: Origin,
    _app_a: Origin,
}

impl Sites {
    /// Both trust `trusted`; their certificates, for names of their own, are signed by `signer`.
    async fn start(trusted: &Ca, signer: &Ca) -> Self {
        Self::recovering("pick_new_server", trusted, signer).await
    }

    /// The same with what happens to a session whose home is down.
    async fn recovering(recovery: &str, trusted: &Ca, signer: &Ca) -> Self {
        let fed = Federation::new().over_tls().recovery(recovery);
        let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
        let b = with_tls(fed.site_b(&[&app_b]), "b.sites.test", trusted, signer).start().await;
        let a = with_tls(fed.site_a(&[&app_a]), "a.sites.test", trusted, signer).start().await;
        a.sees("SP-gs-web@site_A", b.addr, true).await;
        Self { a, _b: b, app_b, _app_a: app_a }
    }

    /// A request with a cookie of site_B, over TLS to site_A.
    async fn ask_a(&self) -> Answer {
        tls::open(self.a.addr).await.ask(&Request::get("/").cookie(&cookie())).await
    }
}

/// A site of a federation over TLS: it trusts one authority, and another, or the same, has signed its certificate.
pub fn with_tls(site: Site, name: &str, trusted: &Ca, signer: &Ca) -> Site {
    site.tls(&signer.cert_for(name)).file("ca.pem", &trusted.pem())
}

fn cookie() -> String {
    format!("FOO={}", Cookie::of(B).seal())
}
