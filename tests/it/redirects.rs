//! HTTP beside HTTPS: which plain ports are redirected, where to, and what site persistence has to do with it.

use std::net::SocketAddr;

use crate::{
    sites::OUTCOMES,
    support::{
        certs::cert_for,
        client::{Browser, Request},
        config::{Federation, Site, parse},
        net,
        origin::Origin,
        site_cookie::{A, Cookie, Hop},
        tls,
    },
};

/// Avi's case 1: one pair of ports, and `http_to_https` alone.
#[tokio::test]
async fn http_to_https_redirects_and_keeps_method_path_and_query() {
    let app = Origin::start("app").await;
    let https = net::free_addr();
    let homing = with_https(Site::new(&[&app]).http("http_to_https: true"), https).start().await;
    for (method, status) in
        [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308), ("DELETE", 308), ("OPTIONS", 308)]
    {
        let answer = Request::new(method, "/path?q=1").host("a.com:91").send(homing.addr).await;
        let location = format!("https://a.com:{}/path?q=1", https.port());
        assert_eq!((answer.status, answer.header("location")), (status, Some(&*location)), "{method}");
    }
    assert!(app.started().is_empty(), "no app server is asked");
    assert_eq!(tls::open(https).await.ask(&Request::get("/")).await.status, 200);
}

/// Avi's case 2: arbitrary pairs, each with a rule.
#[tokio::test]
async fn http_rules_redirect_each_port_to_its_own_https_port() {
    let app = Origin::start("app").await;
    let (plain, one, two) = (net::free_addr(), net::free_addr(), net::free_addr());
    let site = Site::new(&[&app]).http("http_to_https: true");
    let first = site.addr;
    let site = with_https(with_https(with_service(site, &service(plain)), one), two);
    let rule = |name: &str, vs_port: &str, to: SocketAddr| {
        format!(
            "{{name: {name}, match: {{vs_port: {vs_port}}}, redirect_action: {{protocol: HTTPS, port: {}}}}}",
            to.port()
        )
    };
    let rules = rule("second", &format!("{{match_criteria: IS_IN, ports: [{}]}}", plain.port()), two);
    let homing = site.clone().vs("http_rules", &format!("[{rules}]")).start().await;
    let location = async |at: SocketAddr| {
        let answer = Request::get("/x").send(at).await;
        answer.header("location").unwrap_or_else(|| panic!("{} at {at}", answer.status)).to_owned()
    };
    assert_eq!(location(plain).await, format!("https://a.com:{}/x", two.port()), "by the rule");
    assert_eq!(location(first).await, format!("https://a.com:{}/x", one.port()), "without one the first");
    drop(homing);

    let rules = rule("others", &format!("{{match_criteria: is_not_in, ports: [{}]}}", first.port()), two);
    let site = site.vs("http_rules", &format!("[{rules}]"));
    let site = site.with(|yaml| yaml["application_profiles"][0]["http_to_https"] = false.into());
    let homing = site.start().await;
    assert_eq!(location(plain).await, format!("https://a.com:{}/x", two.port()));
    assert_eq!(Request::get("/x").send(homing.addr).await.server(), "app", "no rule, no redirect");
}

#[tokio::test]
async fn a_session_that_comes_by_http_begins_over_https_and_stays_at_its_site() {
    let (app, fed) = (Origin::start("a").await, Federation::new());
    let https = net::free_addr();
    let homing = with_https(fed.site_a(&[&app]).http("http_to_https: true"), https).start().await;
    let mut browser = Browser::default();
    let plain = browser.get(homing.addr, "/").await;
    assert_eq!((plain.status, plain.site_cookie()), (301, None), "the cookie comes over TLS alone");
    let secure = tls::open(https).await.ask(&Request::get("/")).await;
    let cookie = format!("FOO={}", secure.site_cookie().expect("a site cookie"));
    assert!(secure.set_cookie("FOO").is_some_and(|field| field.contains("; Secure")));
    assert_eq!(Request::get("/").cookie(&cookie).send(homing.addr).await.status, 301);
    let again = tls::open(https).await.ask(&Request::get("/").cookie(&cookie)).await;
    assert_eq!((again.status, again.site_cookie()), (200, None));
    homing.settles(OUTCOMES, &[("outcome", "local")], 2.0).await;
}

#[tokio::test]
async fn what_a_peer_sends_home_is_not_redirected() {
    let (app, fed) = (Origin::start("b").await, Federation::new());
    let site = with_https(fed.site_b(&[&app]).http("http_to_https: true"), net::free_addr());
    let homing = site.start().await;
    let hop = Hop::to_b("plain", "203.0.113.7").sign("GET", "a.com", "/");
    let answer = Request::get("/").header("Homing-Hop", &hop).send(homing.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "b"), "its client's ports are the peer's");
    let forged = Request::get("/").header("Homing-Hop", &hop).send(homing.addr).await;
    assert_eq!(forged.status, 301, "a second use proves nothing");
    let cookie = format!("FOO={}", Cookie::of(A).seal());
    assert_eq!(Request::get("/").cookie(&cookie).send(homing.addr).await.status, 301);
}

/// Adds a service with TLS.
fn with_https(site: Site, at: SocketAddr) -> Site {
    let name = format!("cert-{}", at.port());
    let tls = format!("enable_ssl: true, ssl_key_and_certificate_ref: {name}");
    let service = service(at).replace('}', &format!(", {tls}}}"));
    with_service(site.certificate(&name, &cert_for(&["a.com"])), &service)
}

fn with_service(site: Site, service: &str) -> Site {
    site.with(|yaml| {
        let services = yaml["virtual_services"][0]["services"].as_sequence_mut();
        services.expect("services are a list").push(parse(service));
    })
}

fn service(at: SocketAddr) -> String {
    format!("{{address: {}, port: {}}}", at.ip(), at.port())
}
