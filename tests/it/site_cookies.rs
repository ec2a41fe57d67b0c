//! The site cookie's options on the wire, and the app server that it names beside the home.

use std::collections::BTreeSet;

use serde_yaml::Value;

use crate::{
    sites::ask_as,
    support::{
        client::{Answer, Browser, Request},
        config::{APP, Federation, parse},
        homing::Homing,
        origin::{Mode, Origin},
        site_cookie::{A, B, Cookie, server_tag},
    },
};

#[tokio::test]
async fn every_option_of_the_profile_reaches_the_client() {
    let app = Origin::start("app").await;
    for (options, expected) in [
        ("{path: /pay, domain: a.com}", "FOO=_; Path=/pay; Domain=a.com; HttpOnly; SameSite=Lax"),
        ("{cookie_name: __Host-FOO}", "__Host-FOO=_; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ("{same_site: strict, http_only: false}", "FOO=_; Path=/; SameSite=Strict"),
        (
            "{same_site: none, partitioned: true}",
            "FOO=_; Path=/; HttpOnly; SameSite=None; Secure; Partitioned",
        ),
        ("{persistent: true, timeout: 2h}", "FOO=_; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax"),
        ("{avi_compatible: true}", "FOO=_; path=/"),
    ] {
        let homing = with_options(Federation::new(), options).site_a(&[&app]).start().await;
        let answer = Request::get("/").send(homing.addr).await;
        let field = answer.header("set-cookie").unwrap_or_else(|| panic!("{options}: a cookie"));
        let (name, rest) = field.split_once('=').expect("a pair");
        let (value, attributes) = rest.split_at(141);
        assert_eq!(format!("{name}=_{attributes}"), expected, "{options}");
        let cookie = format!("{name}={value}");
        let again = Request::get("/").cookie(&cookie).send(homing.addr).await;
        assert_eq!((again.status, again.header("set-cookie")), (200, None), "{options}: it is ours");
    }
}

#[tokio::test]
async fn a_cookie_lives_as_long_as_its_timeout_or_for_ever() {
    let app = Origin::start("app").await;
    let lifetime = async |fed: Federation| {
        let homing = fed.site_a(&[&app]).start().await;
        let answer = Request::get("/").send(homing.addr).await;
        let cookie = Cookie::open(answer.site_cookie().expect("a site cookie"));
        cookie.exp.checked_sub(cookie.iat)
    };
    assert_eq!(lifetime(with_options(Federation::new(), "{timeout: 90s}")).await, Some(90));
    let unlimited = Federation::new().with(|yaml| {
        options(yaml).as_mapping_mut().expect("a mapping").remove("timeout");
    });
    assert_eq!(lifetime(unlimited).await, None, "exp is 0");
}

#[tokio::test]
async fn a_cookie_with_a_server_tag_brings_the_client_to_its_app_server() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let homing = tagging().site_a(&[&one, &two]).start().await;
    let mut clients = [(); 4].map(|()| Browser::default());
    let mut servers = BTreeSet::new();
    for browser in &mut clients {
        let first = browser.get(homing.addr, "/").await;
        let server = first.server().to_owned();
        assert_eq!(named(&first), Some(tag_of(&[&one, &two], &server)));
        for _ in 0..5 {
            let answer = browser.get(homing.addr, "/").await;
            assert_eq!((answer.server(), answer.site_cookie()), (&*server, None));
        }
        servers.insert(server);
    }
    assert_eq!(servers.len(), 2, "the balancer still spreads who is new");
}

#[tokio::test]
async fn another_server_is_chosen_for_one_that_is_down_and_the_session_stays_there() {
    for monitored in [false, true] {
        let (one, two) = (Origin::start("one").await, Origin::start("two").await);
        let site = tagging().site_a(&[&one, &two]);
        let site = if monitored { site.monitored(APP, "tcp") } else { site };
        let homing = site.start().await;
        let mut browser = browser_at(&homing, "one").await;
        one.down().await;
        if monitored {
            homing.sees(APP, one.addr, false).await;
        }
        let moved = browser.get(homing.addr, "/").await;
        assert_eq!((moved.status, moved.server()), (200, "two"), "monitored: {monitored}");
        assert_eq!(named(&moved), Some(server_tag(two.addr)), "monitored: {monitored}");
        one.up().await;
        if monitored {
            homing.sees(APP, one.addr, true).await;
        }
        for _ in 0..3 {
            let answer = browser.get(homing.addr, "/").await;
            assert_eq!((answer.server(), answer.site_cookie()), ("two", None), "monitored: {monitored}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_replaced() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let fed = tagging();
    let homing = fed.site_a(&[&one, &two]).start().await;
    let mut browser = browser_at(&homing, "one").await;
    assert!(homing.stop().await.success());
    let homing = fed.site_a(&[&two]).start().await;
    let answer = browser.get(homing.addr, "/").await;
    assert_eq!((answer.server(), named(&answer)), ("two", Some(server_tag(two.addr))));
}

#[tokio::test]
async fn an_error_of_homings_own_moves_nobody() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let homing = tagging().site_a(&[&one, &two]).start().await;
    let mut browser = browser_at(&homing, "one").await;
    one.set(Mode::RawClose("garbage\r\n\r\n".into()));
    let failed = browser.get(homing.addr, "/").await;
    assert_eq!((failed.status, failed.site_cookie()), (502, None));
    one.set(Mode::Ok);
    assert_eq!(browser.get(homing.addr, "/").await.server(), "one");
}

#[tokio::test]
async fn the_server_at_home_is_kept_over_the_hop_and_its_successor_is_told() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let app_a = Origin::start("a").await;
    let fed = tagging();
    let b = fed.site_b(&[&one, &two]).start().await;
    let a = fed.site_a(&[&app_a]).start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    let mut browser = browser_at(&b, "two").await;
    for _ in 0..3 {
        let answer = browser.get(a.addr, "/").await;
        assert_eq!((answer.server(), answer.site_cookie()), ("two", None));
    }
    two.down().await;
    let moved = browser.get(a.addr, "/").await;
    assert_eq!((moved.server(), named(&moved)), ("one", Some(server_tag(one.addr))));
    assert_eq!(Cookie::open(moved.site_cookie().expect("a cookie")).member, B.id(), "home is where it was");
    assert_eq!(browser.get(a.addr, "/").await.server(), "one");
}

#[tokio::test]
async fn a_cookie_without_a_tag_gets_one_and_without_the_option_a_tag_means_nothing() {
    let (one, two) = (Origin::start("one").await, Origin::start("two").await);
    let homing = tagging().site_a(&[&one, &two]).start().await;
    let answer = ask_as(A, &homing).await;
    assert_eq!(named(&answer), Some(tag_of(&[&one, &two], answer.server())));
    let homing = Federation::new().site_a(&[&one, &two]).start().await;
    let cookie = Cookie { server_tag: server_tag(one.addr), ..Cookie::of(A) }.seal();
    let mut servers = BTreeSet::new();
    for _ in 0..4 {
        let answer = Request::get("/").cookie(&format!("FOO={cookie}")).send(homing.addr).await;
        assert_eq!(answer.site_cookie(), None);
        servers.insert(answer.server().to_owned());
    }
    assert_eq!(servers.len(), 2);
}

/// A federation with two-level stickiness.
fn tagging() -> Federation {
    with_options(Federation::new(), "{server_tag: true}")
}

/// Sets options of the site cookie.
fn with_options(fed: Federation, changes: &str) -> Federation {
    let Value::Mapping(changes) = parse(changes) else { panic!("options are a mapping") };
    fed.with(|yaml| options(yaml).as_mapping_mut().expect("a mapping").extend(changes))
}

fn options(yaml: &mut Value) -> &mut Value {
    &mut yaml["application_persistence_profiles"][0]["http_cookie_persistence_profile"]
}

/// A browser whose session is at this server.
async fn browser_at(homing: &Homing, server: &str) -> Browser {
    for _ in 0..4 {
        let mut browser = Browser::default();
        if browser.get(homing.addr, "/").await.server() == server {
            return browser;
        }
    }
    panic!("no session starts at {server}");
}

/// The tag in the cookie that an answer sets.
fn named(answer: &Answer) -> Option<[u8; 8]> {
    answer.site_cookie().map(|value| Cookie::open(value).server_tag)
}

fn tag_of(servers: &[&Origin], name: &str) -> [u8; 8] {
    let server = servers.iter().find(|server| server.name == name).expect("one of them answered");
    server_tag(server.addr)
}
