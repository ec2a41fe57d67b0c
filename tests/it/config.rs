//! Configuration: what is wrong is said, all of it, with its place; what is right starts.

use std::path::Path;

use crate::support::{
    client::Request,
    config::{CLONES, Federation, Site, parse},
    homing::{Homing, Output, run, run_in},
    net,
    origin::{Origin, hex},
    site_cookie::KEY,
};

#[tokio::test]
async fn a_configuration_without_problems_is_accepted() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let fed = Federation::new();
    for site in [Site::new(&[&app]), fed.site_a(&[&app]).clone_to(&[&clone]), fed.site_b(&[&app])] {
        let output = check(&site).await;
        assert_eq!(output.code, Some(0), "{}", output.text());
    }
}

#[tokio::test]
async fn every_mistake_is_refused_with_file_and_line_and_remedy() {
    let app = Origin::start("app").await;
    let good = || Site::new(&[&app]).clone_to(&[&app]).monitored(CLONES, "tcp");
    for (what, site, said) in [
        ("an unknown key", good().with(|it| it["pools"][0]["lb_algoritm"] = "random".into()), "lb_algoritm"),
        (
            "an unknown key of a server",
            good().with(|it| it["pools"][0]["servers"][0]["wieght"] = 1.into()),
            "wieght",
        ),
        ("an unknown section", good().with(|it| it["pool"] = 1.into()), "pool"),
        ("a pool that is not there", good().vs("pool_ref", "nowhere"), "nowhere"),
        ("a clone pool that is not there", good().clone_section("pool_ref", "nowhere"), "nowhere"),
        (
            "a monitor that is not there",
            good().with(|it| it["pools"][1]["health_monitor_refs"][0] = "hm-x".into()),
            "hm-x",
        ),
        ("a profile that is not there", good().vs("application_profile_ref", "nowhere"), "nowhere"),
        ("a rule that is not there", good().vs("rule_refs", "[nowhere]"), "nowhere"),
        ("a name defined twice", good().pool("app", &[&app]), "app"),
        (
            "a duration without unit",
            good().with(|it| it["health_monitors"][0]["send_interval"] = 5.into()),
            "send_interval",
        ),
        (
            "the same as a text",
            good().with(|it| it["health_monitors"][0]["send_interval"] = "5".into()),
            "send_interval",
        ),
        (
            "a port out of range",
            good().with(|it| it["pools"][0]["servers"][0]["port"] = 70000.into()),
            "port",
        ),
        ("port 0", good().with(|it| it["virtual_services"][0]["services"][0]["port"] = 0.into()), "port"),
        (
            "an unknown algorithm",
            good().with(|it| it["pools"][0]["lb_algorithm"] = "fastest".into()),
            "fastest",
        ),
        ("an unknown token", good().clone_section("tokens", "[sourceip]"), "sourceip"),
        (
            "an address that is none",
            good().with(|it| it["pools"][0]["servers"][0]["ip"] = "127.0.0.300".into()),
            "ip",
        ),
        (
            "a federation that is not there",
            good().with(|it| it["federation"] = "fed.yaml".into()),
            "fed.yaml",
        ),
    ] {
        let output = check(&site).await;
        assert_eq!(output.code, Some(2), "{what}: {}", output.text());
        let problem = output.stderr.lines().find(|line| line.contains("homing.yaml:") && line.contains(said));
        let problem = problem.unwrap_or_else(|| panic!("{what} names {said}: {}", output.text()));
        assert!(line_number(problem) > 1, "{what}: {problem}");
        assert!(problem.contains("; "), "{what} says how to mend it: {problem}");
    }
}

#[tokio::test]
async fn the_line_of_a_problem_is_the_line_of_the_mistake() {
    let text = "\
# a comment
pools:
  - name: app
    servers:
      - { ip: 127.0.0.1, port: 1 }
virtual_services:
  - name: web
    services: [{ address: 127.0.0.1, port: 1080 }]
    pool_ref: nowhere
  - name: other
    services: [{ address: 127.0.0.1, port: 1081 }]
    pool_ref: app
    tyop: 1
";
    let output = check_text(text).await;
    assert_eq!(output.code, Some(2), "{}", output.text());
    let lines =
        output.stderr.lines().filter(|it| it.contains("homing.yaml:")).map(line_number).collect::<Vec<_>>();
    assert_eq!(lines, [9, 13], "{}", output.text());
    assert!(output.stderr.contains("app"), "the pools that there are are named: {}", output.text());
}

#[tokio::test]
async fn all_problems_are_said_at_once_in_both_files() {
    let app = Origin::start("app").await;
    let fed = Federation::new().with(|yaml| yaml["gslb_services"][0]["ttl"] = 30.into());
    let site =
        fed.site_a(&[&app]).vs("pool_ref", "nowhere").with(|yaml| yaml["grace_period"] = "soon".into());
    let output = check(&site).await;
    assert_eq!(output.code, Some(2), "{}", output.text());
    for said in ["nowhere", "grace_period", "federation.yaml:", "ttl"] {
        assert!(output.stderr.contains(said), "{said}: {}", output.text());
    }
}

#[tokio::test]
async fn what_is_not_yaml_is_refused_with_its_line() {
    for text in
        ["pools:\n  - name: [\n", "pools:\n\t- name: app\n", "a: 1\na: 2\n", "- 1\n", "", "just text\n"]
    {
        let output = check_text(text).await;
        assert_eq!(output.code, Some(2), "{text:?}: {}", output.text());
        assert!(output.stderr.contains("homing.yaml"), "{text:?}: {}", output.text());
        assert!(!output.stderr.contains("panicked"), "{text:?}: {}", output.text());
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for command in ["check", "run"] {
        let output = run_in(dir.path(), &[command, "--config", "nowhere.yaml"]).await;
        assert_eq!(output.code, Some(2), "{}", output.text());
        assert!(output.stderr.contains("nowhere.yaml"), "{}", output.text());
        assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.text());
    }
}

#[tokio::test]
async fn run_refuses_what_check_refuses_with_the_same_words() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).vs("pool_ref", "nowhere");
    let mut homing = Homing::spawn(&site).await;
    assert_eq!(homing.ended().await.code(), Some(2), "{}", homing.log());
    let checked = check(&site).await;
    let problem = checked.stderr.lines().find(|line| line.contains("nowhere")).expect("check says it");
    let words = problem.split("homing.yaml:").nth(1).expect("a place");
    crate::support::eventually("run says it too", async || homing.log().contains(words)).await;
}

#[tokio::test]
async fn secrets_are_never_printed() {
    let app = Origin::start("app").await;
    let fed = Federation::new();
    let secret = hex(&KEY.secret);
    let almost = format!("{}g", &secret[..63]);
    for key in [secret.as_str(), almost.as_str(), &secret[..62]] {
        let mut site = fed.site_a(&[&app]).vs("pool_ref", "nowhere");
        site.files.retain(|(name, _)| name != "site-cookie.key");
        let output = check(&site.file("site-cookie.key", key)).await;
        assert_eq!(output.code, Some(2), "{}", output.text());
        assert!(!output.text().contains(&secret[..16]), "{}", output.text());
    }
    let homing = fed.site_a(&[&app]).start().await;
    Request::get("/").send(homing.addr).await;
    assert!(!homing.log().contains(&secret[..16]));
    assert!(!String::from_utf8_lossy(&homing.get("/metrics").await.body).contains(&secret[..16]));
}

#[tokio::test]
async fn a_taken_port_is_one_clear_line() {
    let app = Origin::start("app").await;
    let taken = std::net::TcpListener::bind(net::free_addr()).expect("the address is free");
    let addr = taken.local_addr().expect("a bound socket has an address");
    let services = format!("[{{address: {}, port: {}}}]", addr.ip(), addr.port());
    for site in [
        Site::new(&[&app]).vs("services", &services),
        Site::new(&[&app]).with(|yaml| yaml["admin"]["listen"] = addr.to_string().into()),
    ] {
        let mut homing = Homing::spawn(&site).await;
        let status = homing.ended().await;
        assert!(!status.success(), "{status}");
        let complaint = |log: &str| log.lines().filter(|line| line.contains(&addr.to_string())).count() == 1;
        crate::support::eventually("the address is named", async || complaint(&homing.log())).await;
        assert!(!homing.log().contains("panicked"), "{}", homing.log());
    }
}

#[tokio::test]
async fn the_start_says_what_listens_where() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    for said in [homing.addr.to_string(), homing.admin.to_string(), "web".to_owned()] {
        crate::support::eventually(&format!("{said} is named"), async || homing.log().contains(&said)).await;
    }
    let log = homing.log();
    assert!(log.lines().count() <= 12, "in a few lines: {log}");
}

#[tokio::test]
async fn the_configuration_that_comes_with_the_project_starts() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = run_in(project, &["check", "--config", "conf/homing.yaml"]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());

    let text = std::fs::read_to_string(project.join("conf/homing.yaml")).expect("it is there");
    let (mut site, app) = (Site::new(&[]), Origin::start("app").await);
    let elsewhere = site.yaml["virtual_services"][0]["services"].clone();
    let admin = site.yaml["admin"].clone();
    site.yaml = parse(&text);
    site.yaml["admin"] = admin;
    site.yaml["virtual_services"][0]["services"] = elsewhere;
    for pool in site.yaml["pools"].as_sequence_mut().expect("it has pools") {
        pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", app.addr.ip(), app.addr.port()));
    }
    let homing = site.start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "app");
}

#[tokio::test]
async fn wrong_arguments_are_refused() {
    for args in [&["check", "--confg", "x"][..], &["frobnicate"], &["show"], &["show", "nothing"]] {
        assert_eq!(run(args).await.code, Some(2), "{args:?}");
    }
    assert_eq!(run(&["--help"]).await.code, Some(0));
    assert_eq!(run(&["--version"]).await.code, Some(0));
}

async fn check(site: &Site) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = site.write(dir.path());
    run(&["check", "--config", path.to_str().expect("temporary paths are text")]).await
}

async fn check_text(text: &str) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(dir.path().join("homing.yaml"), text).expect("the file can be written");
    run_in(dir.path(), &["check", "--config", "homing.yaml"]).await
}

/// The line number of `…homing.yaml:LINE: …`; 0 where there is none.
fn line_number(problem: &str) -> usize {
    let number = problem.split("homing.yaml:").nth(1).and_then(|rest| rest.split(':').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
