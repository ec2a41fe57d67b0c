//! Servers drained, disabled and enabled.

use std::time::Duration;

use homing::{
    prelude::{self, Rule, RuleResult, SocketAddr, async_trait},
    server,
};

use super::{ask, homes, order, two_members};
use crate::{
    rules::{example, run_here},
    support::{
        client::{Connection, Request},
        config::{APP, CLONES, Federation, Site},
        net,
        origin::{Mode, Origin},
    },
};

#[tokio::test]
async fn a_clone_member_that_drains_keeps_its_sessions_and_gets_no_new_ones() {
    let (homing, _app, [a, b]) =
        two_members(|site| site.clone_section("clone_selection", "round_robin")).await;
    for session in 0..6 {
        ask(&homing, &format!("old-{session}")).await;
    }
    let before = homes(&homing, "old", 6).await;
    assert!([&a, &b].iter().all(|member| before.contains(&member.addr.to_string())), "{before:?}");
    let drained = order(&homing, CLONES, &a, "drain").await;
    assert_eq!(drained["admin_state"]["state"], "draining");
    for session in 0..6 {
        ask(&homing, &format!("old-{session}")).await;
        ask(&homing, &format!("new-{session}")).await;
    }
    assert_eq!(homes(&homing, "old", 6).await, before);
    assert_eq!(homes(&homing, "new", 6).await, vec![b.addr.to_string(); 6]);

    order(&homing, CLONES, &a, "disable").await;
    homing.sees(CLONES, a.addr, false).await;
    for session in 0..6 {
        ask(&homing, &format!("old-{session}")).await;
    }
    assert_eq!(homes(&homing, "old", 6).await, vec![b.addr.to_string(); 6]);
    order(&homing, CLONES, &a, "enable").await;
    for session in 0..6 {
        ask(&homing, &format!("newer-{session}")).await;
    }
    assert!(homes(&homing, "newer", 6).await.contains(&a.addr.to_string()));
    assert_eq!(homes(&homing, "old", 6).await, vec![b.addr.to_string(); 6], "there is no flap back");
}

#[tokio::test]
async fn an_app_server_that_drains_or_is_disabled_is_not_picked_and_ends_what_it_has() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    let mut under_way = Vec::new();
    a.set(Mode::Held);
    for _ in 0..2 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/under-way")).await.expect("the request is read");
        under_way.push(client);
    }
    a.began(1).await;
    for verb in ["drain", "disable"] {
        b.take();
        order(&homing, APP, &a, verb).await;
        for _ in 0..10 {
            assert_eq!(Request::get("/").send(homing.addr).await.server(), "b", "{verb}");
        }
        assert_eq!(a.started().len(), 1, "{verb}");
    }
    a.release(1);
    for mut client in under_way {
        assert_eq!(
            client.answer().await.expect("it is answered").status,
            200,
            "a request under way ends well"
        );
    }
    order(&homing, APP, &b, "drain").await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503, "nobody takes what is new");
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!(pool["oper_status"]["reason"], "every server that is up drains");
    order(&homing, APP, &a, "enable").await;
    a.set(Mode::Ok);
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "a");
}

/// Persistence as a rule does it: requests that name a server go to it.
struct Persistent;

#[async_trait]
impl Rule for Persistent {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        match request.header("X-Server-Is").map(str::to_owned) {
            Some(server) => request.server(APP, server.parse::<SocketAddr>()?),
            None => Ok(()),
        }
    }
}

#[tokio::test]
async fn an_app_server_that_drains_keeps_what_a_rule_sends_it_and_a_disabled_one_does_not() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let site = example("persistent", &a).with(|yaml| {
        yaml["pools"][0]["servers"] = Site::new(&[&a, &b]).yaml["pools"][0]["servers"].clone();
    });
    let running = run_here(&site, server::Homing::builder().rule("persistent", Persistent)).await;
    let ask = async |server: Option<&Origin>| {
        let request = server.map_or(Request::get("/"), |server| {
            Request::get("/").header("X-Server-Is", &server.addr.to_string())
        });
        let answer = request.send(site.addr).await;
        (answer.status, answer.server().to_owned())
    };
    for (verb, persistent) in [("drain", (200, "a".to_owned())), ("disable", (503, String::new()))] {
        let path = format!("/api/v1/pools/{APP}/servers/{}/{verb}", a.addr);
        assert_eq!(Request::new("POST", &path).send(site.admin).await.status, 200);
        assert_eq!(ask(Some(&a)).await, persistent, "{verb}");
        assert_eq!(ask(None).await, (200, "b".to_owned()), "{verb}");
    }
    running.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_server_that_a_rule_names_and_that_is_not_reached_is_asked_once_and_nobody_in_its_place() {
    let (gone, app) = (Origin::absent("gone").await, Origin::start("app").await);
    let site = example("persistent", &gone).with(|yaml| {
        yaml["pools"][0]["servers"] = Site::new(&[&gone, &app]).yaml["pools"][0]["servers"].clone();
    });
    let running = run_here(&site, server::Homing::builder().rule("persistent", Persistent)).await;
    let named = Request::get("/").header("X-Server-Is", &gone.addr.to_string());
    assert_eq!(named.send(site.addr).await.status, 502);
    assert!(app.requests().is_empty());
    running.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_order_is_shown_with_its_author_and_its_time_and_is_logged() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    let drained = order(&homing, APP, &a, "drain").await;
    let by = drained["admin_state"]["by"].as_str().expect("an author");
    assert!(by.starts_with("127.0.0.1:"), "{by}");
    assert!(drained["admin_state"]["since"]["secs"].as_u64().is_some_and(|secs| secs > 1_700_000_000));
    assert_eq!(drained["oper_status"]["state"], "OPER_UP");
    let labels = [("pool", APP), ("server", &*a.addr.to_string())];
    assert_eq!(homing.metric("homing_pool_server_admin_state", &labels).await, 1.0);
    let shown = homing.command(&["show", "pool", "APP"]).await;
    for part in ["draining", by, "it keeps its sessions and gets no new ones"] {
        assert!(shown.stdout.contains(part), "it shows {part}:\n{}", shown.stdout);
    }
    assert_eq!(homing.json("/api/v1/pools/app").await["servers"][1].get("admin_state"), None);
    homing.sees(APP, a.addr, true).await;
    let log = homing.log();
    for part in ["server is draining by an operator", by, "admin write", "/drain"] {
        assert!(log.contains(part), "it logs {part}: {log}");
    }
    let enabled = order(&homing, APP, &a, "enable").await;
    assert_eq!((&enabled["admin_state"]["state"], &enabled["enabled"]), (&"enabled".into(), &true.into()));
    assert_eq!(homing.metric("homing_pool_server_admin_state", &labels).await, 0.0);
}

#[tokio::test]
async fn an_order_that_cannot_be_done_says_what_there_is() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new();
    let site = fed.site_a(&[&a, &b]).with(|yaml| yaml["pools"][0]["servers"][1]["enabled"] = false.into());
    let homing = site.start().await;
    let (a, b, nobody) = (a.addr.to_string(), b.addr.to_string(), net::free_addr().to_string());
    let peer = homing.json("/api/v1/pools/SP-gs-web@site_A").await["servers"][0].clone();
    let peer = format!("{}:{}", peer["ip"].as_str().expect("an address"), peer["port"]);
    for (pool, server, code, part) in [
        ("apps", &a, 1, "pool apps is not known; known: app".to_owned()),
        ("app", &nobody, 1, format!("pool app has no server {nobody}; servers: {a}, {b}")),
        ("app", &b, 1, format!("server {b} of pool app is disabled in the configuration")),
        ("SP-gs-web@site_A", &peer, 1, "drain the site".to_owned()),
        ("app", &"here".to_owned(), 2, "invalid".to_owned()),
    ] {
        let output = homing.command(&["pool", pool, "server", server, "drain"]).await;
        assert_eq!(output.code, Some(code), "{}", output.text());
        assert!(output.stderr.contains(&part), "it says {part}: {}", output.text());
    }
    assert_eq!(homing.command(&["pool", "app", "server", &a, "stop"]).await.code, Some(2));
    let pool = homing.json("/api/v1/pools/app").await;
    assert!(
        pool["servers"].as_array().is_some_and(|all| all.iter().all(|it| it.get("admin_state").is_none()))
    );
}

#[tokio::test]
async fn an_order_stands_over_reloads_and_not_over_a_restart() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let site = Site::new(&[&a, &b]);
    let mut homing = site.start().await;
    let drained = order(&homing, APP, &a, "drain").await;
    order(&homing, APP, &b, "disable").await;
    homing.reloaded(&site).await;
    let changed = site.clone().with(|yaml| {
        yaml["pools"][0]["lb_algorithm"] = "random".into();
        yaml["pools"][0]["servers"][0]["ratio"] = 2.into();
    });
    homing.reloaded(&changed).await;
    let pool = homing.json("/api/v1/pools/app").await;
    assert_eq!(pool["lb_algorithm"], "random");
    assert_eq!(pool["servers"][0]["admin_state"], drained["admin_state"], "who and when, too");
    assert_eq!(pool["servers"][1]["admin_state"]["state"], "disabled");
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503, "nobody takes what is new");

    homing.kill().await;
    let again = site.start().await;
    let pool = again.json("/api/v1/pools/app").await;
    assert!(
        pool["servers"].as_array().is_some_and(|all| all.iter().all(|it| it.get("admin_state").is_none()))
    );
    assert_eq!(Request::get("/").send(again.addr).await.status, 200);
}
