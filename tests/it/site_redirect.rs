//! `site_persistence_mode: redirect`: a client goes home by itself, once and no further.

use sha2::{Digest, Sha256};

use crate::{
    sites::OUTCOMES,
    support::{
        certs::cert_for,
        client::{Answer, Request},
        config::{Federation, Site, parse},
        homing::Homing,
        net,
        origin::Origin,
        site_cookie::{A, B, Cookie},
        tls,
    },
};

#[tokio::test]
async fn a_client_is_redirected_to_its_homes_own_name_and_is_served_there() {
    let sites = Sites::start(redirecting(Federation::new())).await;
    let cookie = as_member(B.id());
    for (n, request) in
        [Request::get("/away?q=%20"), Request::post("/away?q=%20", "a body")].iter().enumerate()
    {
        let answer = request.clone().cookie(&cookie).send(sites.a.addr).await;
        let home = format!("http://b.a.com:{}/away?q=%20", sites.b.addr.port());
        assert_eq!((answer.status, answer.header("location")), (307, Some(&home[..])));
        assert_eq!(answer.site_cookie(), None, "the client keeps its home");
        sites.a.settles(OUTCOMES, &[("outcome", "redirected")], n as f64 + 1.0).await;

        let answer = request.clone().host("b.a.com").cookie(&cookie).send(sites.b.addr).await;
        assert_eq!((answer.status, answer.server(), answer.site_cookie()), (200, "b", None));
        sites.b.settles(OUTCOMES, &[("outcome", "local")], n as f64 + 1.0).await;
    }
    let answer = Request::new("OPTIONS", "*").cookie(&cookie).send(sites.a.addr).await;
    let home = format!("http://b.a.com:{}/*", sites.b.addr.port());
    assert_eq!((answer.status, answer.header("location")), (307, Some(&home[..])));
    assert!(sites.app_a.requests().is_empty());
    sites.a.settles(OUTCOMES, &[], 3.0).await;
}

#[tokio::test]
async fn a_client_with_tls_is_redirected_to_tls() {
    let https = net::free_addr();
    let fed = redirecting(Federation::new()).recovery("continue_persistent_server").with(|yaml| {
        for group in yaml["gslb_services"][0]["groups"].as_sequence_mut().expect("groups are a list") {
            let services = group["members"][0]["services"].as_sequence_mut().expect("services are a list");
            services.push(parse(&format!("{{port: {}, enable_ssl: true}}", https.port())));
        }
    });
    let app = Origin::start("a").await;
    let service = format!(
        "{{address: {}, port: {}, enable_ssl: true, ssl_key_and_certificate_ref: cert}}",
        https.ip(),
        https.port()
    );
    let site = fed.site_a(&[&app]).http("http_to_https: true").certificate("cert", &cert_for(&["a.com"]));
    let site = named(site).with(|yaml| {
        let services =
            yaml["virtual_services"][0]["services"].as_sequence_mut().expect("services are a list");
        services.push(parse(&service));
    });
    // site_B is not there, and its sessions stay with it.
    let homing = site.start().await;
    let answer = tls::open(https).await.ask(&Request::get("/x").cookie(&as_member(B.id()))).await;
    let home = format!("https://b.a.com:{}/x", https.port());
    assert_eq!((answer.status, answer.header("location")), (307, Some(&home[..])));

    let answer = Request::get("/x").cookie(&as_member(B.id())).send(homing.addr).await;
    let same = format!("https://a.com:{}/x", https.port());
    assert_eq!((answer.status, answer.header("location")), (301, Some(&same[..])), "TLS first");
    homing.settles(OUTCOMES, &[("outcome", "redirected")], 1.0).await;
}

#[tokio::test]
async fn where_homes_own_name_leads_here_the_client_is_served_instead_of_sent_in_circles() {
    let sites = Sites::start(redirecting(Federation::new())).await;
    for host in ["b.a.com", "B.A.com:80"] {
        let request = Request::get("/").host(host).cookie(&as_member(B.id()));
        let answer = request.send(sites.a.addr).await;
        assert_eq!((answer.status, answer.server(), answer.site_cookie()), (200, "a", None), "{host}");
    }
    sites.a.settles(OUTCOMES, &[("outcome", "loop")], 2.0).await;
    let answer = Request::get("/").host("a.a.com").cookie(&as_member(B.id())).send(sites.a.addr).await;
    assert_eq!(answer.status, 307, "another site's name is no reason to leave home");
}

#[tokio::test]
async fn a_home_that_is_down_is_not_redirected_to() {
    let mut sites = Sites::start(redirecting(Federation::new()).recovery("pick_new_server")).await;
    sites.b.kill().await;
    sites.a.sees("SP-gs-web@site_A", sites.b.addr, false).await;
    let answer = Request::get("/").cookie(&as_member(B.id())).send(sites.a.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "a"));
    let issued = Cookie::open_for(DOMAIN, answer.site_cookie().expect("a new home"));
    assert_eq!(issued.member, A.id());
    sites.a.settles(OUTCOMES, &[("outcome", "rehomed")], 1.0).await;
}

#[tokio::test]
async fn a_third_partys_clients_are_redirected_while_it_is_up() {
    let theirs = Origin::start("theirs").await;
    let fed = redirecting(Federation::new()).recovery("abort_connection").with(|yaml| {
        let member = format!(
            "{{ip: {}, fqdn: c.a.com, services: [{{port: {}}}]}}",
            theirs.addr.ip(),
            theirs.addr.port()
        );
        let members = yaml["gslb_services"][0]["groups"][0]["members"].as_sequence_mut();
        members.expect("members are a list").push(parse(&member));
    });
    let sites = Sites::start(fed).await;
    sites.a.sees("SP-gs-web@site_A", theirs.addr, true).await;
    let ask = async || -> Answer {
        let cookie = as_member(Sha256::digest(":c.a.com").into());
        Request::get("/x").cookie(&cookie).send(sites.a.addr).await
    };
    let answer = ask().await;
    let home = format!("http://c.a.com:{}/x", theirs.addr.port());
    assert_eq!((answer.status, answer.header("location")), (307, Some(&home[..])));
    assert!(theirs.requests().is_empty());

    theirs.down().await;
    sites.a.sees("SP-gs-web@site_A", theirs.addr, false).await;
    assert_eq!(ask().await.status, 503);
}

/// Two sites that know each other to be up; they serve `a.com` and everything below.
struct Sites {
    a: Homing,
    b: Homing,
    app_a: Origin,
    _app_b: Origin,
}

impl Sites {
    async fn start(fed: Federation) -> Self {
        let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
        let b = named(fed.site_b(&[&app_b])).start().await;
        let a = named(fed.site_a(&[&app_a])).start().await;
        a.sees("SP-gs-web@site_A", b.addr, true).await;
        Self { a, b, app_a, _app_b: app_b }
    }
}

fn named(site: Site) -> Site {
    site.vs("domain_names", "[a.com, '*.a.com']")
}

/// Clients are redirected to `a.a.com` and `b.a.com`.
fn redirecting(fed: Federation) -> Federation {
    fed.with(|yaml| {
        let profile = &mut yaml["application_persistence_profiles"][0];
        profile["http_cookie_persistence_profile"]["domain"] = DOMAIN.into();
        let service = &mut yaml["gslb_services"][0];
        service["site_persistence_mode"] = "redirect".into();
        service["groups"][0]["members"][0]["fqdn"] = "a.a.com".into();
        service["groups"][1]["members"][0]["fqdn"] = "b.a.com".into();
    })
}

/// The cookie of a client whose home is this member.
fn as_member(member: [u8; 32]) -> String {
    format!("FOO={}", Cookie { domain: DOMAIN, member, ..Cookie::of(B) }.seal())
}

const DOMAIN: &str = "a.com";
