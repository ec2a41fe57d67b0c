//! Sites that prove themselves to one another by certificates of the federated PKI profile.

use serde_json::json;
use serde_yaml::Value;

use crate::{
    sites::OUTCOMES,
    support::{
        certs::{Ca, Cert, cert_for},
        client::{Answer, Connection, Request},
        config::{Federation, Site},
        eventually,
        homing::{Homing, Output, run},
        origin::Origin,
        site_cookie::{A, B, Cookie, Hop, Member},
        tls::{self, Profile, TlsClient},
    },
};

#[tokio::test]
async fn sites_with_certificates_prove_themselves_to_each_other() {
    let ca = Ca::new("sites");
    let sites = Sites::start(&ca, Federation::new().over_tls()).await;
    let answer = sites.ask_a().await;
    assert_eq!((answer.status, answer.server(), answer.site_cookie()), (200, "b", None));
    sites.a.settles(OUTCOMES, &[("outcome", "proxied")], 1.0).await;
    sites.b.settles(OUTCOMES, &[("outcome", "from_peer")], 1.0).await;
    let pool = sites.a.json("/api/v1/pools/SP-gs-web@site_A").await;
    assert_eq!(pool["servers"][0]["hostname"], "sp.site_b", "{pool}");
}

#[tokio::test]
async fn a_signed_hop_is_believed_only_from_the_site_whose_certificate_its_connection_brings() {
    let ca = Ca::new("sites");
    let sites = Sites::start(&ca, Federation::new().over_tls()).await;
    let of_a = site_cert(&ca, "site_A", A, 1);
    let of_c = ca.site_cert("sp.site_c", "homing://tests/cluster-c", 3);
    for (what, sni, cert, believed) in [
        ("no certificate", "a.com", None, false),
        ("a certificate that nobody asked for", "a.com", Some(&of_a), false),
        ("another site's certificate", "sp.site_b", Some(&of_c), false),
        ("its own certificate", "sp.site_b", Some(&of_a), true),
        ("its own certificate, to a name in capitals", "SP.SITE_B", Some(&of_a), true),
    ] {
        let before = sites.app_b.requests().len();
        let client = TlsClient::with_cert(Profile::TLS13, cert);
        let hop = Hop::to_b(&format!("rid-{before}-{sni}"), "203.0.113.7").sign("GET", "a.com", "/");
        let mut connection = Connection::over(client.connect(sites.b.addr, sni).await);
        let answer = connection.ask(&Request::get("/").header("Homing-Hop", &hop)).await;
        assert_eq!((answer.status, answer.server()), (200, "b"), "{what}");
        let record = sites.app_b.requests().remove(before);
        let clients = record.headers.all("x-forwarded-for").join(", ");
        assert_eq!(clients.contains("203.0.113.7"), believed, "{what}: {clients}");
    }
    let refused = [("reason", "no_certificate"), ("vs", "web@site_B")];
    sites.b.settles("homing_sp_hops_refused_total", &refused, 3.0).await;
    sites.b.settles(OUTCOMES, &[("outcome", "from_peer")], 2.0).await;
}

#[tokio::test]
async fn while_sites_get_their_certificates_the_header_alone_is_believed() {
    let ca = Ca::new("sites");
    let fed = Federation::new()
        .over_tls()
        .with(|yaml| yaml["pki_profiles"][0]["ssl_client_certificate_mode"] = "request".into());
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let bare = |site: Site| site.tls(&ca.cert_for("a.com")).file("ca.pem", &ca.pem());
    let cookie = |member| Request::get("/").cookie(&format!("FOO={}", Cookie::of(member).seal()));
    // site_A has none yet and knows site_B by its app's certificate; both ways lead home.
    let b = bare(fed.site_b(&[&app_b])).certificate("sp", &site_cert(&ca, "site_B", B, 2));
    let b = b.with(|yaml| yaml["site"]["ssl_key_and_certificate_ref"] = "sp".into()).start().await;
    let a = bare(fed.site_a(&[&app_a])).start().await;
    b.sees("SP-gs-web@site_B", a.addr, true).await;
    assert_eq!(tls::open(a.addr).await.ask(&cookie(B)).await.server(), "b");
    assert_eq!(tls::open(b.addr).await.ask(&cookie(A)).await.server(), "a");
    a.settles(OUTCOMES, &[("outcome", "from_peer")], 1.0).await;
    b.settles(OUTCOMES, &[("outcome", "from_peer")], 1.0).await;
}

#[tokio::test]
async fn an_https_monitor_of_sites_proves_itself_and_finds_who_is_revoked_or_cannot_be_looked_up() {
    let ca = Ca::new("sites");
    let fed = Federation::new().over_tls().with(|yaml| {
        yaml["pki_profiles"][0]["crls"] = vec!["ca.crl"].into();
        yaml["health_monitors"][0]["type"] = "https".into();
        yaml["health_monitors"][0]["http_request"] = "GET /healthz\r\nHost: a.com".into();
    });
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let with_list = |site: Site, crl: &str| site.file("ca.crl", crl);
    let (good, revoked, expired) = (ca.crl(&[], 2100), ca.crl(&[7, 2], 2100), ca.crl(&[], 2021));
    let site_b = with_certificate(fed.site_b(&[&app_b]), &ca, "site_B", B);
    let b = with_list(site_b, &good).start().await;
    let site_a = with_certificate(fed.site_a(&[&app_a]), &ca, "site_A", A);
    for (crl, server, why) in [
        (&good, "b", ""),
        (&revoked, "a", "is revoked"),
        (&expired, "a", "the revocation list of `sites` expired"),
    ] {
        let a = with_list(site_a.clone(), crl).start().await;
        a.sees("SP-gs-web@site_A", b.addr, why.is_empty()).await;
        let pool = a.json("/api/v1/pools/SP-gs-web@site_A").await;
        let reason = pool["servers"][0]["oper_status"]["reason"].as_str().expect("a reason");
        assert!(reason.contains(why), "{reason}");
        let request = Request::get("/").cookie(&format!("FOO={}", Cookie::of(B).seal()));
        let answer = tls::open(a.addr).await.ask(&request).await;
        assert_eq!((answer.status, answer.server()), (200, server), "{why}");
        assert_eq!(a.stop().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_request_finds_out_by_itself_that_its_home_is_revoked() {
    let ca = Ca::new("sites");
    let fed = with_lists(Federation::new());
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let b = with_certificate(fed.site_b(&[&app_b]), &ca, "site_B", B).file("ca.crl", &ca.crl(&[], 2100));
    let _b = b.start().await;
    let a = with_certificate(fed.site_a(&[&app_a]), &ca, "site_A", A).file("ca.crl", &ca.crl(&[2], 2100));
    let a = a.start().await;
    let request = Request::post("/", "the body").cookie(&format!("FOO={}", Cookie::of(B).seal()));
    let answer = tls::open(a.addr).await.ask(&request).await;
    assert_eq!((answer.status, answer.server()), (200, "a"), "nothing was sent, so recovery may serve it");
    assert_eq!(Cookie::open(answer.site_cookie().expect("a new home")).member, A.id());
    assert!(app_b.requests().is_empty());
    a.settles(OUTCOMES, &[("outcome", "rehomed")], 1.0).await;
}

#[tokio::test]
async fn a_reloaded_revocation_list_holds_from_the_next_handshake_of_a_peer_on() {
    let (ca, app) = (Ca::new("sites"), Origin::start("b").await);
    let site = with_certificate(with_lists(Federation::new()).site_b(&[&app]), &ca, "site_B", B);
    let revoking = |serials: &[u64]| site.clone().file("ca.crl", &ca.crl(serials, 2100));
    let homing = revoking(&[]).start().await;
    let of_a = site_cert(&ca, "site_A", A, 1);
    for (serials, welcome) in [(&[][..], true), (&[1], false), (&[3], true)] {
        let reload = homing.reloaded(&revoking(serials)).await;
        assert_eq!(reload["changes"]["listeners"]["changed"], json!([]), "apps' clients notice nothing");
        let client = TlsClient::with_cert(Profile::TLS12, Some(&of_a));
        assert_eq!(client.can_connect(homing.addr, "sp.site_b").await, welcome, "revoked: {serials:?}");
    }
}

#[tokio::test]
async fn a_connection_to_a_home_is_not_used_again_after_a_reloaded_list_has_revoked_it() {
    let ca = Ca::new("sites");
    let fed = with_lists(Federation::new());
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let b = with_certificate(fed.site_b(&[&app_b]), &ca, "site_B", B).file("ca.crl", &ca.crl(&[], 2100));
    let _b = b.start().await;
    let site_a = with_certificate(fed.site_a(&[&app_a]), &ca, "site_A", A);
    let revoking = |serials: &[u64]| site_a.clone().file("ca.crl", &ca.crl(serials, 2100));
    let a = revoking(&[]).start().await;
    let mut client = tls::open(a.addr).await;
    let request = Request::get("/").cookie(&format!("FOO={}", Cookie::of(B).seal()));
    for (serials, server) in [(&[][..], "b"), (&[2], "a"), (&[3], "b")] {
        a.reloaded(&revoking(serials)).await;
        assert_eq!(client.ask(&request).await.server(), server, "revoked: {serials:?}");
    }
}

#[tokio::test]
async fn a_refused_peer_is_told_of_in_the_log_once() {
    let ca = Ca::new("sites");
    let sites = Sites::start(&ca, Federation::new().over_tls()).await;
    let stranger = ca.site_cert("sp.site_a", "https://a.com/", 9);
    for _ in 0..3 {
        let client = TlsClient::with_cert(Profile::TLS12, Some(&stranger));
        assert!(!client.can_connect(sites.b.addr, "sp.site_b").await);
    }
    let said = || sites.b.log().lines().filter(|line| line.contains("a peer site is refused")).count();
    eventually("it is said", async || said() > 0).await;
    assert_eq!(said(), 1);
    assert!(sites.b.log().contains("homing://tests/CLUSTER_UUID"), "{}", sites.b.log());
}

#[tokio::test]
async fn a_certificate_that_peers_would_refuse_is_refused_with_its_remedy() {
    let (ca, stranger, app) = (Ca::new("sites"), Ca::new("strangers"), Origin::start("a").await);
    let (dns, uri) = ("sp.site_a", format!("homing://tests/{}", A.cluster));
    let fed = || Federation::new().over_tls();
    let without_ca = || fed().with(|yaml| yaml["pki_profiles"][0]["ca_certs"] = Value::Null);
    let with_crls = |crl: &str| {
        let fed = fed().with(|yaml| yaml["pki_profiles"][0]["crls"] = vec!["ca.crl"].into());
        with_cert(fed.site_a(&[&app]), &ca, &ca.site_cert(dns, &uri, 1)).file("ca.crl", crl)
    };
    let of = |fed: Federation, cert: Cert| with_cert(fed.site_a(&[&app]), &ca, &cert);
    let good = || ca.site_cert(dns, &uri, 1);
    for (what, site, said) in [
        ("all is well", of(fed(), good()), None),
        ("lists are well", with_crls(&ca.crl(&[1], 2100)), None),
        ("no DNS name", of(fed(), ca.site_cert("a.com", &uri, 1)), Some("DNS:sp.site_a")),
        ("no URI", of(fed(), ca.cert_for(dns)), Some("URI:homing://tests/cluster-3a179b95")),
        (
            "another authority",
            of(fed(), stranger.site_cert(dns, &uri, 1)),
            Some("is not of the federated PKI"),
        ),
        ("no authorities", of(without_ca(), good()), Some("has no `ca_certs`")),
        (
            "a list of strangers",
            with_crls(&stranger.crl(&[], 2100)),
            Some("signed by none of the `ca_certs`"),
        ),
        ("no list", with_crls("nothing"), Some("holds no certificate revocation list")),
        (
            "no federation",
            of(fed(), good()).with(|yaml| yaml["federation"] = Value::Null),
            Some("no federation"),
        ),
        (
            "an unknown mode",
            of(
                fed().with(|yaml| yaml["pki_profiles"][0]["ssl_client_certificate_mode"] = "never".into()),
                good(),
            ),
            Some("require, request"),
        ),
    ] {
        let output = check(&site).await;
        assert_eq!(output.code, Some(if said.is_some() { 2 } else { 0 }), "{what}: {}", output.text());
        let said = said.unwrap_or("no problems");
        assert!(output.text().contains(said), "{what}: {}", output.text());
        assert!(!output.text().contains("warning"), "{what}: {}", output.text());
    }
    let bare = fed().site_a(&[&app]).tls(&ca.cert_for("a.com")).file("ca.pem", &ca.pem());
    let output = check(&bare).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    assert!(output.stderr.contains("warning: ") && output.stderr.contains("believe the signed header alone"));
}

#[tokio::test]
async fn what_is_out_of_date_is_a_warning_of_check_and_of_a_reload() {
    let (ca, app) = (Ca::new("sites"), Origin::start("a").await);
    let (dns, uri) = ("sp.site_a", format!("homing://tests/{}", A.cluster));
    let fed = with_lists(Federation::new());
    let (good, list) = (ca.site_cert(dns, &uri, 1), ca.crl(&[], 2100));
    let base = with_cert(fed.site_a(&[&app]), &ca, &good).file("ca.crl", &list);
    let homing = base.start().await;
    let with = |cert: &Cert| base.clone().file("sp.pem", &cert.certificate).file("sp.key", &cert.key);
    let two_lists = fed.with(|yaml| yaml["pki_profiles"][0]["crls"] = vec!["ca.crl", "new.crl"].into());
    let old = Ca::of_year("old", 2020);
    for (site, said) in [
        (base.clone(), None),
        (
            with(&ca.site_cert_of_year(dns, &uri, 2020)),
            Some(["sp].certificate_file", "certificate `sp.site_a` expired at Dec 31 00:00:00 2020 GMT"]),
        ),
        (
            with(&ca.site_cert_of_year(dns, &uri, 3020)),
            Some(["sp].certificate_file", "certificate `sp.site_a` is not valid before Jan  1"]),
        ),
        (
            base.clone().file("ca.crl", &ca.crl(&[], 2021)),
            Some(["crls[0]", "the revocation list of `sites` in"]),
        ),
        // An authority's newer list stands in for its older one.
        (
            base.clone().in_federation(&two_lists).file("ca.crl", &ca.crl(&[], 2021)).file("new.crl", &list),
            None,
        ),
        (
            base.clone().file("ca.pem", &format!("{}{}", ca.pem(), old.pem())),
            Some(["ca_certs[0]", "certificate `old` expired at Dec 31 00:00:00 2020 GMT"]),
        ),
    ] {
        let output = check(&site).await;
        assert_eq!(output.code, Some(0), "dates change by themselves: {}", output.text());
        let warnings = homing.reloaded(&site).await["warnings"].clone();
        let reloaded = warnings.as_array().map(Vec::as_slice).unwrap_or_default();
        let reloaded = reloaded.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>();
        let checked = output.stderr.lines().filter(|line| line.starts_with("warning: ")).collect::<Vec<_>>();
        for warnings in [checked, reloaded] {
            assert_eq!(warnings.len(), usize::from(said.is_some()), "{said:?}: {warnings:?}");
            let (parts, line) = (said.unwrap_or_default(), warnings.first().unwrap_or(&""));
            assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
        }
    }
}

/// Two sites with TLS, each with a certificate for its app that nobody signed, and one for its peers.
struct Sites {
    a: Homing,
    b: Homing,
    app_b: Origin,
    _app_a: Origin,
}

impl Sites {
    async fn start(ca: &Ca, fed: Federation) -> Self {
        let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
        let b = with_certificate(fed.site_b(&[&app_b]), ca, "site_B", B).start().await;
        let a = with_certificate(fed.site_a(&[&app_a]), ca, "site_A", A).start().await;
        a.sees("SP-gs-web@site_A", b.addr, true).await;
        Self { a, b, app_b, _app_a: app_a }
    }

    /// A request with a cookie of site_B, over TLS to site_A.
    async fn ask_a(&self) -> Answer {
        let request = Request::get("/").cookie(&format!("FOO={}", Cookie::of(B).seal()));
        tls::open(self.a.addr).await.ask(&request).await
    }
}

/// Sites that look one another up, and learn of one another by requests alone.
fn with_lists(fed: Federation) -> Federation {
    fed.over_tls().unmonitored().with(|yaml| yaml["pki_profiles"][0]["crls"] = vec!["ca.crl"].into())
}

fn site_cert(ca: &Ca, site: &str, member: Member, serial: u64) -> Cert {
    let dns = format!("sp.{}", site.to_lowercase());
    ca.site_cert(&dns, &format!("homing://tests/{}", member.cluster), serial)
}

/// A certificate with the serial number 1 for site_A, 2 for site_B.
pub fn with_certificate(site: Site, ca: &Ca, name: &str, member: Member) -> Site {
    let serial = if name == "site_A" { 1 } else { 2 };
    with_cert(site, ca, &site_cert(ca, name, member, serial))
}

fn with_cert(site: Site, ca: &Ca, cert: &Cert) -> Site {
    let site = site.tls(&cert_for(&["a.com"])).certificate("sp", cert).file("ca.pem", &ca.pem());
    site.with(|yaml| yaml["site"]["ssl_key_and_certificate_ref"] = "sp".into())
}

async fn check(site: &Site) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = site.write(dir.path());
    run(&["check", "--config", path.to_str().expect("temporary paths are text")]).await
}
