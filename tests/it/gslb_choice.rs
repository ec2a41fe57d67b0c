//! Which site DNS sends a client to, as `homing gslb explain` tells it of two running sites.

use serde_json::Value;

use crate::support::{
    client::Request,
    config::{Federation, Site},
    eventually,
    homing::Homing,
    origin::Origin,
    site_cookie::{A, SERVICE},
};

/// A federation of two sites that ask each other, and its apps. site_A comes first.
struct Sites {
    a: Homing,
    b: Homing,
    app_a: Origin,
}

impl Sites {
    async fn start(fed: Federation) -> Self {
        let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
        let (a, b) = sites(fed, &app_a, &app_b);
        Self { a: a.start().await, b: b.start().await, app_a }
    }
}

fn sites(fed: Federation, app_a: &Origin, app_b: &Origin) -> (Site, Site) {
    let (a, b) = (fed.site_a(&[app_a]), fed.site_b(&[app_b]));
    let fed = fed.with(|yaml| {
        for (n, site) in [&a, &b].into_iter().enumerate() {
            yaml["gslb"]["sites"][n]["admin_url"] = format!("http://{}", site.admin).into();
        }
    });
    let monitored = |site: Site| site.monitored("app", "tcp").in_federation(&fed);
    (monitored(a), monitored(b))
}

const EXPLAIN: &str = "/api/v1/gslb/explain?client=192.0.2.1&name=A.com.";

/// The member that a client is sent to, and what is said of site_A.
async fn choice(homing: &Homing) -> (String, Value) {
    let told = homing.json(EXPLAIN).await;
    let member = told["member"].as_str().unwrap_or("none").to_owned();
    let members = told["groups"].as_array().expect("groups").iter().map(|group| group["members"][0].clone());
    (member, members.into_iter().find(|member| member["name"] == "site_A").expect("site_A is a member"))
}

async fn sends_to(homing: &Homing, site: &str, verdict_of_a: &str) -> Value {
    eventually(&format!("{site} is chosen, and site_A is `{verdict_of_a}`"), async || {
        let (member, site_a) = choice(homing).await;
        member == site && site_a["verdict"] == verdict_of_a
    })
    .await;
    choice(homing).await.1
}

#[tokio::test]
async fn a_client_is_sent_elsewhere_while_a_site_says_that_its_app_is_down() {
    let sites = Sites::start(Federation::new()).await;
    for homing in [&sites.a, &sites.b] {
        sends_to(homing, "site_A", "in the answer").await;
    }
    sites.app_a.down().await;
    for homing in [&sites.a, &sites.b] {
        let site_a = sends_to(homing, "site_B", "excluded: down").await;
        assert_eq!(site_a["monitors"], "up: monitors passed", "its virtual service still accepts");
        assert!(site_a["site"].as_str().is_some_and(|said| said.starts_with("down: no server")), "{site_a}");
    }
    let up = |member: &'static str, source: &'static str| {
        [("service", "gs"), ("member", member), ("source", source)]
    };
    assert_eq!(sites.b.metric("homing_gslb_member_up", &up("site_A", "site")).await, 0.0);
    assert_eq!(sites.b.metric("homing_gslb_member_up", &up("site_A", "monitors")).await, 1.0);
    assert_eq!(sites.b.metric("homing_gslb_member_up", &up("site_B", "site")).await, 1.0);
    sites.b.says("GSLB member is down").await;
    let command = [
        "gslb",
        "explain",
        "--client",
        "192.0.2.0/24",
        "--name",
        "a.com",
        "--type",
        "aaaa",
        "--output",
        "json",
    ];
    let told = sites.b.command(&command).await;
    assert!(told.stdout.contains(r#""answer": "no address (NODATA)""#), "{}", told.text());

    sites.app_a.up().await;
    sends_to(&sites.b, "site_A", "in the answer").await;
    sites.b.says("GSLB member is up").await;
}

#[tokio::test]
async fn a_site_that_is_drained_or_disabled_gets_no_new_clients() {
    let sites = Sites::start(Federation::new()).await;
    sends_to(&sites.b, "site_A", "in the answer").await;
    let drained = sites.a.command(&["gslb", "drain", "site_A"]).await;
    assert_eq!(drained.code, Some(0), "{}", drained.text());
    for homing in [&sites.a, &sites.b] {
        sends_to(homing, "site_B", "excluded: its site is being drained").await;
    }
    let answer = Request::get("/").send(sites.a.addr).await;
    assert_eq!(answer.status, 200, "its own clients go on");
    sites.a.command(&["gslb", "undrain", "site_A"]).await;
    sends_to(&sites.b, "site_A", "in the answer").await;

    let fed = Federation::new().with(|yaml| yaml["gslb"]["sites"][0]["enabled"] = false.into());
    let sites = Sites::start(fed).await;
    sends_to(&sites.b, "site_B", "excluded: its site is disabled").await;
    assert_eq!(Request::get("/").send(sites.a.addr).await.server(), "a", "who is there stays");
}

#[tokio::test]
async fn a_site_that_is_gone_gets_nobody_until_an_operator_says_so_also_after_a_restart() {
    let fed =
        Federation::new().with(|yaml| yaml["gslb_services"][0]["groups"][0]["manual_resume"] = true.into());
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    let (site_a, site_b) = sites(fed, &app_a, &app_b);
    let site_b = site_b.with(|yaml| yaml["gslb_state_file"] = "gslb-state.json".into());
    let (mut a, b) = (site_a.start().await, site_b.start().await);
    sends_to(&b, "site_A", "in the answer").await;

    a.kill().await;
    sends_to(&b, "site_B", "excluded: down").await;
    b.says("GSLB member is down").await;
    let file = b.dir().join("gslb-state.json");
    let says = async |part: &str| {
        eventually(&format!("the file says {part}"), async || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains(part))
        })
        .await
    };
    says(r#""down": true"#).await;

    drop(a);
    let _a = site_a.start().await;
    sends_to(&b, "site_B", "excluded: was down and waits for `homing gslb resume`").await;
    says(r#""down": false"#).await;
    let kept = std::fs::read_to_string(&file).expect("it is there");
    b.stop().await;

    let site_b = site_b.file("gslb-state.json", &kept);
    let b = site_b.start().await;
    sends_to(&b, "site_B", "excluded: was down and waits for `homing gslb resume`").await;
    let resumed = b.command(&["gslb", "resume", "GS", "--member", "site_A"]).await;
    assert_eq!(resumed.stdout, "Members of gs get clients again: site_A.\n", "{}", resumed.text());
    sends_to(&b, "site_A", "in the answer").await;
    let again = b.command(&["gslb", "resume", "gs"]).await;
    assert_eq!(again.stdout, "No member of gs waited for that.\n", "{}", again.text());
}

#[tokio::test]
async fn a_member_that_was_down_before_a_restart_is_down_until_it_is_heard_of() {
    let (app_a, app_b) = (Origin::start("a").await, Origin::start("b").await);
    // Without monitors site_A itself is asked, which takes its time to be known as silent.
    let fed = Federation::new().with(|yaml| {
        yaml["gslb_services"][0].as_mapping_mut().expect("an object").remove("health_monitor_refs");
    });
    let (site_a, site_b) = sites(fed, &app_a, &app_b);
    let remembering = |file: &str| {
        let site = site_b.clone().with(|yaml| yaml["gslb_state_file"] = "gslb-state.json".into());
        site.file("gslb-state.json", file)
    };
    let down = format!(
        r#"{{"members":[{{"service_uuid":"{SERVICE}","cluster_uuid":"{}","vs_uuid":"{}","down":true,"held":false}}]}}"#,
        A.cluster, A.vs
    );
    for (file, chosen) in [(r#"{"members":[]}"#, "site_A"), ("{", "site_A"), (&down, "site_B")] {
        let b = remembering(file).start().await;
        assert_eq!(choice(&b).await.0, chosen, "the first answer with {file}");
        if file == "{" {
            b.says("what was known of them cannot be read").await;
        }
        b.stop().await;
    }
    let b = remembering(&down).start().await;
    let _a = site_a.start().await;
    sends_to(&b, "site_A", "in the answer").await;
}

#[tokio::test]
async fn a_service_is_shown_as_it_is_configured_with_all_of_avis_fields() {
    let app = Origin::start("a").await;
    let fed = Federation::new();
    let homing = fed.site_a(&[&app]).start().await;
    let shown = homing.command(&["show", "gslbservice", "GS"]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.text());
    for field in [
        "uuid",
        "name",
        "domain_names[1]",
        "groups[1]",
        "priority",
        "algorithm",
        "members[1]",
        "cluster_uuid",
        "vs_uuid",
        "ip",
        "ratio",
        "enabled",
        "groups[2]",
        "health_monitor_refs[1]",
        "controller_health_status_enabled",
        "health_monitor_scope",
        "use_edns_client_subnet",
        "wildcard_match",
        "site_persistence_enabled",
        "application_persistence_profile_ref",
        "pool_algorithm",
        "min_members",
        "is_federated",
        "tenant_ref",
    ] {
        let is_row = |line: &str| line.split('|').nth(1).is_some_and(|name| name.trim() == field);
        assert!(shown.stdout.lines().any(is_row), "{field}: {}", shown.stdout);
    }
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_members() {
    let sites = Sites::start(Federation::new()).await;
    sites.app_a.down().await;
    sends_to(&sites.b, "site_B", "excluded: down").await;
    let reloaded = sites.b.command(&["reload"]).await;
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.text());
    assert_eq!(choice(&sites.b).await.0, "site_B", "at once");
    let none = sites.b.command(&["gslb", "explain", "--client", "192.0.2.1", "--name", "b.com"]).await;
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("domain name b.com is not known; known: a.com"), "{}", none.text());
}
