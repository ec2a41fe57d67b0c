//! `homing explain`: why a request goes where it goes.

use serde_json::Value;

use crate::{
    sites::{OUTCOMES, Sites},
    support::{
        config::{Federation, Site},
        eventually,
        homing::{Homing, Output, run},
        net,
        origin::Origin,
        site_cookie::{A, B, Cookie, Key, now},
    },
};

#[tokio::test]
async fn a_running_site_explains_what_it_then_does() {
    const OTHER: Key = Key { uuid: "00000000-0000-4000-8000-000000000000", secret: [1; 32] };
    let sites = Sites::start(Federation::new()).await;
    let of = |member| Cookie::of(member);
    let hour_ago = now() - 3600;
    for (what, cookie, outcome, decision, reason) in [
        ("ours", of(A), "local", "served here", "this site is the client's home"),
        (
            "ours, old",
            Cookie { iat: hour_ago, exp: now() + 600, ..of(A) },
            "local",
            "served here, and the answer brings a new cookie",
            "due to be renewed",
        ),
        ("a peer's", of(B), "proxied", "proxied to site_B (", "site_B is the client's home, and is up"),
        (
            "expired",
            Cookie { iat: hour_ago, exp: now() - 60, ..of(B) },
            "expired",
            "served here, and",
            "its time is over",
        ),
        (
            "of the future",
            Cookie { iat: now() + 400, ..of(B) },
            "future",
            "served here, and",
            "ahead of this machine's clock",
        ),
        (
            "of an unknown key",
            Cookie { key: OTHER, ..of(B) },
            "unknown_key",
            "served here, and",
            "no configured key",
        ),
        (
            "of nobody",
            Cookie { member: [3; 32], ..of(B) },
            "wrong_service",
            "served here, and",
            "names no member",
        ),
    ] {
        let value = cookie.seal();
        let told = explained(&sites.a, &format!("FOO={value}")).await;
        assert_eq!(told["outcome"], outcome, "{what}: {told}");
        assert!(told["decision"].as_str().is_some_and(|it| it.starts_with(decision)), "{what}: {told}");
        assert!(told["reason"].as_str().is_some_and(|it| it.contains(reason)), "{what}: {told}");
        let before = sites.a.metric(OUTCOMES, &[("outcome", outcome)]).await;
        crate::support::client::Request::get("/").cookie(&format!("FOO={value}")).send(sites.a.addr).await;
        sites.a.settles(OUTCOMES, &[("outcome", outcome)], before + 1.0).await;
    }
    let told = explained(&sites.a, &of(B).seal()).await;
    assert_eq!(
        (&told["home"]["site_name"], &told["home"]["is_this_site"]),
        (&"site_B".into(), &false.into())
    );
    assert_eq!(told["home"]["oper_status"]["state"], "OPER_UP");
    assert_eq!((&told["cookie"]["key_state"], &told["cookie"]["drain_epoch"]), (&"active".into(), &0.into()));
    assert_eq!(told["recovery"]["server_hm_down_recovery"], "pick_new_server");
    assert_eq!(told["recovery"]["if_home_fails"], "served here, and the answer brings a new cookie");
}

#[tokio::test]
async fn while_home_is_down_the_recovery_is_explained() {
    for (recovery, outcome, decision) in [
        ("pick_new_server", "rehomed", "served here, and the answer brings a new cookie"),
        ("abort_connection", "aborted", "answered 503"),
        ("continue_persistent_server", "proxied", "proxied to site_B ("),
    ] {
        let app = Origin::start("a").await;
        let a = Federation::new().recovery(recovery).site_a(&[&app]).start().await;
        eventually("site_B is known to be down", async || {
            explained(&a, &Cookie::of(B).seal()).await["home"]["oper_status"]["state"] == "OPER_DOWN"
        })
        .await;
        let told = explained(&a, &Cookie::of(B).seal()).await;
        assert_eq!(told["outcome"], outcome, "{recovery}: {told}");
        assert!(told["decision"].as_str().is_some_and(|it| it.starts_with(decision)), "{recovery}: {told}");
        assert!(
            told["reason"].as_str().is_some_and(|it| it.contains("site_B is the client's home, and is down"))
        );
    }
}

#[tokio::test]
async fn a_configuration_alone_explains_a_cookie_too() {
    let (app, fed) = (Origin::start("app").await, Federation::new());
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = fed.site_a(&[&app]).write(dir.path());
    let path = path.to_str().expect("temporary paths are text");
    let cookie = Cookie::of(B).seal();
    let ask = async |vs: &str| run(&["explain", "--vs", vs, "--cookie", &cookie, "--config", path]).await;
    let output = ask("WEB@site_A").await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    for part in ["proxied to site_B", "has not been probed", "OPER_UNKNOWN", "active", "pick_new_server"] {
        assert!(output.stdout.contains(part), "it says {part}: {}", output.stdout);
    }
    let output = ask("nobody").await;
    assert_eq!(output.code, Some(1), "{}", output.text());
    assert!(output.stderr.contains("nobody"), "{}", output.text());
}

#[tokio::test]
async fn what_cannot_be_explained_says_why() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let output = ask(&homing, "nobody", "1S").await;
    assert_eq!(output.code, Some(1), "{}", output.text());
    assert!(output.stderr.contains("nobody") && output.stderr.contains("web"), "{}", output.text());
    let output = ask(&homing, "web", "1S").await;
    assert!(output.stdout.contains("in no site-persistent GSLB service"), "{}", output.text());
    let nobody = format!("http://{}", net::free_addr());
    let output = run(&["explain", "--vs", "web", "--cookie", "1S", "--admin", &nobody]).await;
    assert_eq!(output.code, Some(1), "{}", output.text());
}

async fn ask(homing: &Homing, vs: &str, cookie: &str) -> Output {
    homing.command(&["explain", "--vs", vs, "--cookie", cookie]).await
}

/// What it explains of a cookie at its virtual service.
async fn explained(homing: &Homing, cookie: &str) -> Value {
    let output =
        homing.command(&["explain", "--vs", "web@site_A", "--cookie", cookie, "--output", "json"]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    serde_json::from_str(&output.stdout).expect("it prints JSON")
}
