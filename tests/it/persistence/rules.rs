//! Persistence beside users' rules, which may refuse it or choose another pool, and beside clones.

use std::time::Duration;

use homing::{
    prelude::{self, Rule, RuleResult, async_trait},
    server,
};

use super::{COOKIE, HEADER, keeping, of, servers, site};
use crate::{
    rules::run_here,
    support::{
        client::{Browser, Request},
        config::Federation,
        copies::{Mark, copies},
        origin::Origin,
    },
};

/// By path: no persistence, or the other pool.
struct Director;

#[async_trait]
impl Rule for Director {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        match request.path() {
            "/none" => request.persist_none(),
            "/other" => request.pool("other")?,
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_rule_may_refuse_persistence_and_the_pool_that_it_chooses_has_its_own() {
    let servers = servers().await;
    let others = [Origin::start("x").await, Origin::start("y").await];
    let site = site(&servers.each_ref(), HEADER)
        .pool("other", &others.each_ref())
        .with(|yaml| {
            yaml["pools"][1]["lb_algorithm"] = "round_robin".into();
            yaml["pools"][1]["application_persistence_profile_ref"] = "sticky".into();
        })
        .push("rules", "{name: director}")
        .vs("rule_refs", "[director]");
    let running = run_here(&site, server::Homing::builder().rule("director", Director)).await;
    let ask = async |path: &str| {
        let answer = Request { target: path.to_owned(), ..of("1") }.send(site.addr).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.server().to_owned()
    };
    let (home, other) = (ask("/").await, ask("/other").await);
    for _ in 0..4 {
        assert_eq!(ask("/").await, home);
        assert_eq!(ask("/other").await, other);
    }
    let mut balanced = Vec::new();
    for _ in 0..3 {
        balanced.push(ask("/none").await);
    }
    balanced.sort();
    assert_eq!(balanced, ["a", "b", "c"], "its turns are as if there were no session");
    assert_eq!(ask("/").await, home);
    running.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_cookie_that_names_the_server_is_not_copied() {
    let (servers, clone) = (servers().await, Origin::start("clone").await);
    let homing = site(&servers.each_ref(), COOKIE).clone_to(&[&clone]).start().await;
    let mut browser = Browser::default();
    browser.cookies.insert("theme".into(), "dark".into());
    for _ in 0..3 {
        browser.get(homing.addr, "/").await;
    }
    assert!(browser.cookies.contains_key("APP"));
    assert!(clone.got(3).await.iter().all(|copy| copy.cookies() == "theme=dark"));
}

#[tokio::test]
async fn the_site_cookie_and_the_one_of_the_server_go_side_by_side() {
    let (fed, servers) = (Federation::new(), servers().await);
    let homing = keeping(fed.site_a(&servers.each_ref()), COOKIE).start().await;
    let mut browser = Browser::default();
    let first = browser.get(homing.addr, "/").await;
    assert!(first.site_cookie().is_some() && first.cookie("APP").is_some(), "{:?}", first.headers);
    for _ in 0..4 {
        let answer = browser.get(homing.addr, "/").await;
        assert_eq!(
            (answer.server(), answer.site_cookie(), answer.cookie("APP")),
            (first.server(), None, None)
        );
    }
    assert!(servers.iter().flat_map(Origin::requests).all(|record| record.cookies().is_empty()));
}

#[tokio::test]
async fn a_session_that_moves_to_another_server_keeps_its_clone_member() {
    let servers = servers().await;
    let members = [Origin::start("c1").await, Origin::start("c2").await];
    let site = site(&servers.each_ref(), HEADER)
        .clone_to(&members.each_ref())
        .clone_section("tokens", "['header:X-Session']");
    let homing = site.start().await;
    let home = of("1").send(homing.addr).await.server().to_owned();
    servers.iter().find(|server| server.name == home).expect("one of them answered").down().await;
    for _ in 0..3 {
        assert_eq!(of("1").send(homing.addr).await.status, 200);
    }
    let copies = copies(&members.each_ref(), 4).await;
    let seen: Vec<_> = copies.iter().map(|(member, copy)| (member, Mark::of(copy).seq)).collect();
    assert_eq!(seen, [1, 2, 3, 4].map(|seq| (&copies[0].0, seq)), "one session, at one member");
}
