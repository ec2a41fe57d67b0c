//! Site persistence: the cookie that names a client's home, and the way home.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    routing::websocket,
    support::{
        certs::cert_for,
        client::{Answer, Browser, Connection, Request},
        config::{Federation, Site},
        copies::Mark,
        homing::Homing,
        net,
        origin::{Mode, Origin, hex},
        site_cookie::{A, B, Cookie, KEY, Key, Member, now},
        soon, tls,
    },
};

#[tokio::test]
async fn a_first_answer_carries_a_cookie_that_opens_under_the_published_format() {
    let sites = Sites::start(Federation::new()).await;
    let answer = Request::get("/").send(sites.a.addr).await;
    let cookie = Cookie::open(answer.site_cookie().expect("a site cookie"));
    assert_eq!((cookie.layout, cookie.flags, cookie.pad, cookie.drain_epoch), (1, 0, 0, 0));
    assert_eq!((cookie.member, cookie.server_tag), (A.id(), [0; 8]));
    assert!(now().abs_diff(cookie.iat) <= 5, "issued now");
    assert_eq!(cookie.exp - cookie.iat, 8 * 3600);
    assert_eq!(attributes(&answer), ["HttpOnly", "Path=/", "SameSite=Lax"]);
    assert_eq!(answer.header("cache-control"), Some("private"));
    sites.a.counts(OUTCOMES, &[("service", "gs"), ("vs", "web@site_A"), ("outcome", "new")], 1.0).await;
}

#[tokio::test]
async fn the_cookie_is_secure_when_the_client_came_over_tls() {
    let (fed, app) = (Federation::new(), Origin::start("app").await);
    let https = net::free_addr();
    let site =
        fed.site_a(&[&app]).http("http_to_https: true").certificate("cert", &cert_for(&["a.com"])).with(
            |yaml| {
                let service = format!(
                    "{{address: {}, port: {}, enable_ssl: true, ssl_key_and_certificate_ref: cert}}",
                    https.ip(),
                    https.port()
                );
                let services = yaml["virtual_services"][0]["services"].as_sequence_mut().expect("a list");
                services.push(crate::support::config::parse(&service));
            },
        );
    let homing = site.start().await;
    let answer = tls::open(https).await.ask(&Request::get("/")).await;
    assert_eq!(attributes(&answer), ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]);
    drop(homing);
}

#[tokio::test]
async fn our_own_cookie_is_honoured_and_not_issued_again() {
    let sites = Sites::start(Federation::new()).await;
    let mut browser = Browser::default();
    browser.cookies.insert("other".to_owned(), "1".to_owned());
    let first = browser.get(sites.a.addr, "/").await;
    assert!(first.site_cookie().is_some());
    let second = browser.get(sites.a.addr, "/").await;
    assert_eq!((second.server(), second.site_cookie()), ("a", None));
    assert_eq!(second.header("cache-control"), None, "answers that set nothing stay as they are");
    assert_eq!(sites.app_a.requests()[1].cookies(), "other=1", "the site cookie stays here, others go on");
    sites.a.counts(OUTCOMES, &[("outcome", "local")], 1.0).await;
    sites.a.settles(OUTCOMES, &[], 2.0).await;
}

#[tokio::test]
async fn an_answer_that_sets_the_cookie_is_not_for_shared_caches() {
    let sites = Sites::start(Federation::new()).await;
    for (given, expected) in [
        ("public, max-age=60", "private, max-age=60"),
        ("private, max-age=60", "private, max-age=60"),
        ("no-store", "no-store"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nCache-Control: {given}\r\nContent-Length: 0\r\n\r\n");
        sites.app_a.set(Mode::Raw(answer.into()));
        let answer = Request::get("/").send(sites.a.addr).await;
        assert!(answer.site_cookie().is_some());
        assert_eq!(answer.headers.all("cache-control"), [expected], "the server said {given}");
    }
}

#[tokio::test]
async fn a_cookie_is_issued_again_when_half_its_life_is_over_its_key_is_retiring_or_its_epoch_is_old() {
    const OLD: Key = Key { uuid: "00000000-1111-4222-8333-444444444444", secret: [7; 32] };
    let fed = Federation::new().with(|yaml| {
        let profile = &mut yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"];
        let key = format!("{{uuid: {}, key_file: old.key, state: retiring}}", OLD.uuid);
        profile["keys"].as_sequence_mut().expect("a list").push(crate::support::config::parse(&key));
        yaml["gslb_services"][0]["groups"][0]["members"][0]["drain_epoch"] = 5.into();
    });
    let app = Origin::start("app").await;
    let homing = fed.site_a(&[&app]).file("old.key", &hex(&OLD.secret)).start().await;
    let fresh = Cookie { drain_epoch: 5, ..Cookie::of(A) };
    let (iat, exp) = (now() - 5 * 3600, now() + 3 * 3600);
    let mut counted = BTreeMap::new();
    for (what, cookie, outcome, issued) in [
        ("fresh", fresh.clone(), "local", false),
        ("half over", Cookie { iat, exp, ..fresh.clone() }, "local", true),
        ("of a retiring key", Cookie { key: OLD, ..fresh.clone() }, "local", true),
        ("of an older epoch", Cookie { drain_epoch: 4, ..fresh.clone() }, "expired", true),
    ] {
        let count = counted.entry(outcome).or_insert(0.0);
        *count += 1.0;
        let answer = Request::get("/").cookie(&format!("FOO={}", cookie.seal())).send(homing.addr).await;
        let again = answer.site_cookie().map(Cookie::open);
        assert_eq!(again.is_some(), issued, "a cookie {what}");
        if let Some(again) = again {
            assert_eq!((again.drain_epoch, again.member), (5, A.id()), "a cookie {what}");
        }
        homing.settles(OUTCOMES, &[("outcome", outcome)], *count).await;
    }
}

#[tokio::test]
async fn a_peers_cookie_brings_the_request_home() {
    let sites = Sites::start(Federation::new()).await;
    let mut browser = Browser::default();
    assert_eq!(browser.get(sites.b.addr, "/").await.server(), "b");
    let mine = browser.cookies["FOO"].clone();
    for _ in 0..3 {
        let answer = browser.get(sites.a.addr, "/away?q=1").await;
        assert_eq!((answer.status, answer.server(), answer.site_cookie()), (200, "b", None));
    }
    assert_eq!(browser.cookies["FOO"], mine);
    let record = sites.app_b.requests().remove(1);
    assert_eq!((record.target.as_str(), record.header("host")), ("/away?q=1", Some("a.com")), "Host is kept");
    assert_eq!(record.headers.all("host").len(), 1);
    assert_eq!(record.header("homing-hop"), None, "the hop ends at home");
    assert_eq!(record.cookies(), "", "the site cookie ends at home");
    sites.a.settles(OUTCOMES, &[("outcome", "proxied")], 3.0).await;
    sites.b.settles(OUTCOMES, &[("outcome", "from_peer")], 3.0).await;
    assert!(sites.app_a.requests().is_empty());
}

#[tokio::test]
async fn a_cookie_that_someone_else_sealed_in_the_published_format_is_honoured() {
    let sites = Sites::start(Federation::new()).await;
    let session = Cookie { exp: 0, ..Cookie::of(B) };
    for cookie in [Cookie::of(B), session] {
        let answer = Request::get("/").cookie(&format!("FOO={}", cookie.seal())).send(sites.a.addr).await;
        assert_eq!((answer.status, answer.server()), (200, "b"), "{cookie:?}");
    }
}

#[tokio::test]
async fn every_kind_of_bad_cookie_is_like_none() {
    const OTHER: Key = Key { uuid: "00000000-0000-4000-8000-000000000000", secret: [1; 32] };
    let sites = Sites::start(Federation::new()).await;
    let good = Cookie::of(B).seal();
    let flipped = |at: usize| {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("base64 is text")
    };
    let mut counted = BTreeMap::new();
    let of_b = |change: fn(&mut Cookie)| {
        let mut cookie = Cookie::of(B);
        change(&mut cookie);
        cookie.seal()
    };
    for (what, value, outcome) in [
        ("a flipped nonce", flipped(20), "undecryptable"),
        ("a flipped member", flipped(80), "undecryptable"),
        ("a flipped tag", flipped(135), "undecryptable"),
        ("too short", good[..140].to_owned(), "undecryptable"),
        ("too long", format!("{good}A"), "undecryptable"),
        ("nothing", String::new(), "undecryptable"),
        ("garbage", format!("1S{}{}", &KEY.uuid[..16], "!".repeat(123)), "undecryptable"),
        ("another tag", good.replacen("1S", "2S", 1), "undecryptable"),
        ("another key", of_b(|it| it.key = OTHER), "unknown_key"),
        ("our key's id on another secret", of_b(|it| it.key.secret = [9; 32]), "undecryptable"),
        ("another service", of_b(|it| it.service = "gslbservice-0"), "undecryptable"),
        ("another cookie's name", of_b(|it| it.name = "BAR"), "undecryptable"),
        ("a domain", of_b(|it| it.domain = "a.com"), "undecryptable"),
        ("expired", of_b(|it| (it.iat, it.exp) = (1517875922, 1517879522)), "expired"),
        ("expired a moment ago", of_b(|it| (it.iat, it.exp) = (now() - 10, now() - 1)), "expired"),
        ("of the future", of_b(|it| it.iat = now() + 400), "future"),
        ("an unknown member", of_b(|it| it.member = [3; 32]), "wrong_service"),
        ("another layout", of_b(|it| it.layout = 2), "undecryptable"),
        ("flags", of_b(|it| it.flags = 1), "undecryptable"),
        ("reserved bits", of_b(|it| it.pad = 1), "undecryptable"),
    ] {
        let count = counted.entry(outcome).or_insert(0.0);
        *count += 1.0;
        let answer = Request::get("/").cookie(&format!("x=1; FOO={value}")).send(sites.a.addr).await;
        assert_eq!((answer.status, answer.server()), (200, "a"), "{what}: served here");
        let issued = answer.site_cookie().unwrap_or_else(|| panic!("{what}: issued again"));
        assert_eq!(Cookie::open(issued).member, A.id(), "{what}");
        sites.a.settles(OUTCOMES, &[("outcome", outcome)], *count).await;
    }
    sites.a.settles(OUTCOMES, &[], 20.0).await;
    assert!(sites.app_b.requests().is_empty());
    assert!(
        sites.app_a.requests().iter().all(|record| record.cookies() == "x=1"),
        "bad ones are removed too"
    );
}

#[tokio::test]
async fn of_several_site_cookies_the_newest_valid_one_counts() {
    let sites = Sites::start(Federation::new()).await;
    let older = |member, by| format!("FOO={}", Cookie { iat: now() - by, ..Cookie::of(member) }.seal());
    let values = [older(A, 50), "FOO=1S".to_owned(), older(B, 5), older(A, 20)].join("; ");
    let answer = Request::get("/").cookie(&values).send(sites.a.addr).await;
    assert_eq!((answer.server(), answer.site_cookie()), ("b", None));
    assert_eq!(sites.app_b.requests()[0].cookies(), "");
}

#[tokio::test]
async fn the_clients_address_survives_the_hop() {
    let sites = Sites::start(Federation::new()).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    let from = "127.0.0.88".parse().expect("an address");
    let mut client = Connection::open_from(from, sites.a.addr).await.expect("the listener accepts");
    let forged = Request::get("/").header("X-Forwarded-For", "1.2.3.4").header("Forwarded", "for=1.2.3.4");
    assert_eq!(client.ask(&forged.cookie(&cookie)).await.server(), "b");
    let record = sites.app_b.requests().remove(0);
    assert_eq!(record.headers.all("x-forwarded-for"), ["127.0.0.88"]);
    assert_eq!(record.headers.all("forwarded"), ["for=127.0.0.88;proto=http"]);
}

#[tokio::test]
async fn large_bodies_and_unbuffered_answers_cross_the_hop() {
    let sites = Sites::start(Federation::new()).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    let body = Bytes::from(vec![b'x'; 8 << 20]);
    let answer = Request::post("/", body.clone()).cookie(&cookie).send(sites.a.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "b"));
    assert_eq!(sites.app_b.requests()[0].body_sha, hex(&Sha256::digest(&body)));

    sites.app_b.set(Mode::Steps(2));
    let mut client = Connection::open(sites.a.addr).await;
    client.send(&Request::get("/").cookie(&cookie)).await.expect("the request is read");
    let head = client.head().await.expect("the head comes before any step");
    let mut framing = client.framing(&head);
    for step in ["step 1", "step 2"] {
        sites.app_b.release(1);
        let piece = soon("a step", client.wire.piece(&mut framing)).await.expect("the answer goes on");
        assert_eq!(piece, Some(step.into()), "before the next one is released");
    }
}

#[tokio::test]
async fn a_websocket_crosses_the_hop() {
    let sites = Sites::start(Federation::new()).await;
    let mut client = Connection::open(sites.a.addr).await;
    let request = websocket().cookie(&format!("FOO={}", Cookie::of(B).seal()));
    client.send(&request).await.expect("the request is read");
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    client.wire.write("hello").await.expect("the tunnel takes bytes");
    assert_eq!(soon("an echo", client.wire.exactly(5)).await.expect("the tunnel gives bytes"), "hello");
    assert_eq!(sites.app_b.requests().len(), 1);
}

#[tokio::test]
async fn the_home_site_clones_and_the_entry_site_does_not() {
    let fed = Federation::new();
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let (clone_a, clone_b) = (Origin::start("clone a").await, Origin::start("clone b").await);
    let b = fed.site_b(&[&app_b]).clone_to(&[&clone_b]).start().await;
    let a = fed.site_a(&[&app_a]).clone_to(&[&clone_a]).start().await;
    let cookie = format!("x=1; FOO={}", Cookie::of(B).seal());
    let mut sessions = Vec::new();
    for from in ["127.0.0.81", "127.0.0.82"] {
        let from = from.parse().expect("an address");
        let mut client = Connection::open_from(from, a.addr).await.expect("the listener accepts");
        assert_eq!(client.ask(&Request::get("/home").cookie(&cookie)).await.server(), "b");
        clone_b.got(1).await;
        let copy = clone_b.take().remove(0);
        assert_eq!((copy.cookies(), copy.header("homing-hop")), ("x=1".to_owned(), None));
        sessions.push(Mark::of(&copy).session);
    }
    assert_ne!(sessions[0], sessions[1], "at home source_ip is the client's address, not the peer's");
    assert_eq!(Request::get("/local").send(a.addr).await.server(), "a");
    let copies = clone_a.got(1).await;
    assert_eq!(
        (copies.len(), copies[0].target.as_str()),
        (1, "/local"),
        "what was proxied is copied at home alone"
    );
    drop(b);
}

/// Two sites that know each other to be up, an app server each.
pub struct Sites {
    pub a: Homing,
    pub b: Homing,
    pub app_a: Origin,
    pub app_b: Origin,
}

impl Sites {
    pub async fn start(fed: Federation) -> Self {
        Self::start_with(fed, |site| site).await
    }

    /// Each with a change of its configuration.
    pub async fn start_with(fed: Federation, change: fn(Site) -> Site) -> Self {
        let apps = [Origin::start("a").await, Origin::start("b").await];
        let (site_a, site_b) = (change(fed.site_a(&[&apps[0]])), change(fed.site_b(&[&apps[1]])));
        Self::of(&site_a, &site_b, apps).await
    }

    /// Of these configurations.
    pub async fn of(site_a: &Site, site_b: &Site, [app_a, app_b]: [Origin; 2]) -> Self {
        // site_B first: so site_A finds it up at the first probe, also where no second one follows.
        let (b, a) = (site_b.start().await, site_a.start().await);
        a.sees("SP-gs-web@site_A", b.addr, true).await;
        Self { a, b, app_a, app_b }
    }
}

/// A request with a cookie of a member, from a new client.
pub async fn ask_as(member: Member, at: &Homing) -> Answer {
    Request::get("/").cookie(&format!("FOO={}", Cookie::of(member).seal())).send(at.addr).await
}

/// The attributes of the site cookie, in alphabetical order.
fn attributes(answer: &Answer) -> Vec<String> {
    let field = answer.set_cookie("FOO").expect("a site cookie");
    let mut attributes = field.split(';').skip(1).map(|it| it.trim().to_owned()).collect::<Vec<_>>();
    attributes.retain(|it| !it.starts_with("Max-Age") && !it.starts_with("Expires"));
    attributes.sort();
    attributes
}

pub const OUTCOMES: &str = "homing_sp_requests_total";
