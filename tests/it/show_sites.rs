//! A GSLB service shown over all its sites: each node asks its peers, and says who did not answer.

use std::time::Instant;

use serde_json::Value;

use crate::{
    sites::{OUTCOMES, ask_as},
    support::{
        config::Federation,
        net,
        origin::{Mode, Origin},
        site_cookie::{A, B},
    },
};

const RUNTIME: &str = "/api/v1/gslbservices/gs/runtime";

#[tokio::test]
async fn each_site_tells_of_all() {
    let fed = Federation::new();
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let (a, b) = (fed.site_a(&[&app_a]), fed.site_b(&[&app_b]));
    let fed = with_admins(fed, &[format!("http://{}", a.admin), format!("http://{}", b.admin)]);
    let (a, b) = (a.in_federation(&fed), b.in_federation(&fed));
    let (b, a) = (b.start().await, a.start().await);
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    b.sees("SP-gs-web@site_B", a.addr, true).await;
    for _ in 0..60 {
        ask_as(B, &a).await;
        ask_as(B, &b).await;
    }
    a.settles(OUTCOMES, &[("outcome", "proxied")], 60.0).await;
    b.settles(OUTCOMES, &[("outcome", "local")], 60.0).await;
    b.settles(OUTCOMES, &[("outcome", "from_peer")], 60.0).await;

    for (homing, first) in [(&a, "site_A"), (&b, "site_B")] {
        let told = homing.json(RUNTIME).await;
        assert_eq!((&told["requests"]["proxied"], &told["requests"]["local"]), (&60.into(), &60.into()));
        assert_eq!(told["fraction_proxied"], 0.5, "what a peer sent on does not count twice");
        assert_eq!(told["services_state"], "Services-In-Sync");
        assert_eq!(told["sp_oper_status"]["state"], "OPER_UP");
        assert!(told["advice"].as_str().is_some_and(|advice| advice.contains("ttl above 30s")), "{told}");
        assert_eq!(told["sites"][0]["site_name"], first, "its own part comes first");
        for (group, vs) in [(0, "web@site_A"), (1, "web@site_B")] {
            let member = &told["groups"][group]["members"][0];
            assert_eq!(member["vs_name"], vs);
            assert_eq!(member["sp_pools"][0]["name"], format!("SP-gs-{vs}"));
            assert_eq!(
                (&member["sp_pools"][0]["num_servers"], &member["sp_pools"][0]["num_servers_up"]),
                (&1.into(), &1.into())
            );
        }
    }
    let alone = a.json(&format!("{RUNTIME}?scope=site")).await;
    assert_eq!((&alone["fraction_proxied"], &alone["sites"]), (&1.0.into(), &Value::Null));

    let output = a.command(&["show", "gslbservice", "GS", "runtime", "filter", "sp_status"]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    for part in ["web@site_A", "web@site_B", "SP-gs-web@site_B", "Services-In-Sync", "0.5", "ttl above 30s"] {
        assert!(output.stdout.contains(part), "it shows {part}:\n{}", output.stdout);
    }
    assert!(
        !output.stdout.contains("domain_names"),
        "only what concerns site persistence:\n{}",
        output.stdout
    );
}

#[tokio::test]
async fn a_site_whose_admin_is_dead_silent_or_not_configured_is_one_line_and_no_failure() {
    let (app, silent) = (Origin::start("a").await, Origin::start("silent").await);
    silent.set(Mode::NeverRead);
    let dead = net::free_addr();
    for (url, said) in [
        (Some(format!("http://{dead}")), format!("http://{dead}: connection refused")),
        (Some(format!("http://{}", silent.addr)), "no answer within 2 s".to_owned()),
        (None, "no `admin_url`".to_owned()),
    ] {
        let fed = Federation::new();
        let fed = match url {
            Some(url) => with_admins(fed, &["unix:/nowhere".to_owned(), url]),
            None => fed,
        };
        let a = fed.site_a(&[&app]).start().await;
        ask_as(A, &a).await;
        a.settles(OUTCOMES, &[("outcome", "local")], 1.0).await;
        let asked = Instant::now();
        let told = a.json(RUNTIME).await;
        assert!(asked.elapsed().as_secs() < 9, "in a bounded time");
        assert_eq!((&told["requests"]["local"], &told["services_state"]), (&1.into(), &Value::Null));
        let missing = told["sites"][1]["missing"].as_str().unwrap_or_default();
        assert!(missing.contains(&said), "{told}");
        let output = a.command(&["show", "gslbservice", "gs", "runtime"]).await;
        assert_eq!(output.code, Some(0), "{}", output.text());
        assert_eq!(
            output.stdout.lines().filter(|line| line.contains("missing")).count(),
            1,
            "{}",
            output.stdout
        );
    }
}

#[tokio::test]
async fn sites_with_different_files_are_out_of_sync() {
    let fed = Federation::new();
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let (a, b) = (fed.site_a(&[&app_a]), fed.site_b(&[&app_b]));
    let fed = with_admins(fed, &[format!("http://{}", a.admin), format!("http://{}", b.admin)]);
    let newer = fed.clone().with(|fed| fed["gslb_services"][0]["ttl"] = "60s".into());
    let _b = b.in_federation(&newer).start().await;
    let a = a.in_federation(&fed).start().await;
    assert_eq!(a.json(RUNTIME).await["services_state"], "Services-Out-Of-Sync");
}

#[tokio::test]
async fn all_servers_of_an_sp_pool_down_is_said_with_its_reason() {
    let app = Origin::start("a").await;
    let a = Federation::new().site_a(&[&app]).start().await;
    a.settles("homing_sp_pool_servers", &[("state", "down")], 1.0).await;
    let told = a.json(RUNTIME).await;
    let status = &told["sp_oper_status"];
    assert_eq!((&status["state"], &status["reason"]), (&"OPER_DOWN".into(), &"SP_ALL_SERVERS_DOWN".into()));
    assert!(status["last_changed_time"]["secs"].as_u64().is_some_and(|secs| secs > 1_500_000_000));
    assert_eq!(told["groups"][1]["members"][0]["controller_status"]["state"], "OPER_DOWN");
    let pools = a.json("/api/v1/pools").await;
    let names: Vec<_> = pools.as_array().expect("a list").iter().map(|pool| &pool["name"]).collect();
    assert_eq!(names, ["SP-gs-web@site_A", "app"], "SP pools appear beside the others");
    let pool = &pools[0];
    let uuid = A.vs.replace("virtualservice-", "pool-");
    assert_eq!((&pool["uuid"], &pool["num_servers_up"]), (&uuid.into(), &0.into()));
    assert_eq!(
        (&pool["default_server_port"], &pool["servers"][0]["hostname"]),
        (&pool["servers"][0]["port"], &pool["servers"][0]["ip"])
    );
    assert_eq!(pool["request_queue_enabled"], false);
}

/// The federation in which the sites have these admin APIs.
fn with_admins(fed: Federation, urls: &[String]) -> Federation {
    fed.with(|fed| {
        for (n, url) in urls.iter().enumerate() {
            fed["gslb"]["sites"][n]["admin_url"] = url.as_str().into();
        }
    })
}
