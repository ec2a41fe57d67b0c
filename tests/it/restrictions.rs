//! What site persistence forbids: each change that breaks a rule is refused, by the names of both objects, by `check`
//! and by a reload, which leaves the running configuration in force.

use serde_yaml::Value;

use crate::support::{
    certs::cert_for,
    client::Request,
    config::{Federation, Site, parse},
    homing::{Homing, Output, run},
    net,
    origin::{Origin, hex},
    site_cookie::KEY,
};

#[tokio::test]
async fn a_federation_that_breaks_a_restriction_is_refused_by_both_names() {
    let app = Origin::start("app").await;
    let member = |fed: &mut Value, n: usize| fed["gslb_services"][0]["groups"][n]["members"][0].clone();
    let fed = Federation::new();
    let running = Running::start(fed.site_a(&[&app]).monitored("app", "tcp").file("k", &hex(&[7; 32]))).await;
    for (what, change, names) in [
        (
            "a third-party VIP",
            &(|fed: &mut Value| {
                let members = &mut fed["gslb_services"][0]["groups"][1]["members"];
                push(members, "{ip: 192.0.2.7, services: [{port: 80}]}");
            }) as &dyn Fn(&mut Value),
            ["`gs`", "192.0.2.7"],
        ),
        (
            "two members of one site",
            &|fed| {
                let mut twin = member(fed, 1);
                twin["vs_uuid"] = "virtualservice-twin".into();
                push_value(&mut fed["gslb_services"][0]["groups"][0]["members"], twin);
            },
            ["`gs`", "`virtualservice-twin`"],
        ),
        (
            "a site that becomes passive",
            &|fed| fed["gslb"]["sites"][1]["mode"] = "passive".into(),
            ["`gs`", "`site_B`"],
        ),
        (
            "a member in two services",
            &|fed| {
                let mut second = fed["gslb_services"][0].clone();
                second["name"] = "second".into();
                second["uuid"] = "gslbservice-second".into();
                second["site_persistence_enabled"] = false.into();
                push_value(&mut fed["gslb_services"], second);
            },
            ["`gs`", "`second`"],
        ),
        ("no PKI profile left", &|fed| fed["pki_profiles"] = parse("[]"), ["`gs`", "PKI profile"]),
        (
            "a second PKI profile",
            &|fed| push(&mut fed["pki_profiles"], "{name: two, is_federated: true, ca_certs: []}"),
            ["`pki`", "`two`"],
        ),
        (
            "an unfederated monitor",
            &|fed| fed["gslb_services"][0]["health_monitor_refs"] = parse("[hm-tcp-app]"),
            ["`gs`", "`hm-tcp-app`"],
        ),
        ("no federation", &|fed| fed["gslb"] = Value::Null, ["`gslb`", "`pki`"]),
        (
            "two active keys",
            &|fed| {
                push(keys(fed), "{uuid: 1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed, key_file: k, state: active}")
            },
            [KEY.uuid, "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"],
        ),
        (
            "two keys that cookies cannot tell apart",
            &|fed| push(keys(fed), "{uuid: 509ceebd-0913-4aff-8b1e-2f0d3c4b5a70, key_file: k, state: next}"),
            [KEY.uuid, "509ceebd-0913-4aff-8b1e-2f0d3c4b5a70"],
        ),
    ] {
        let site = running.site.clone().in_federation(&fed.clone().with(change));
        running.refuses(what, &site, "federation.yaml:", names).await;
    }
    running.goes_on().await;
}

#[tokio::test]
async fn a_site_that_breaks_a_restriction_is_refused_by_both_names() {
    const SP: &str = "SP-gs-web@site_A";
    let app = Origin::start("app").await;
    let https = net::free_addr();
    let tls = format!(
        "[{{address: {0}, port: {1}}}, {{address: {0}, port: {2}, enable_ssl: true, ssl_key_and_certificate_ref: c}}]",
        https.ip(),
        net::free_addr_on(https.ip()).port(),
        https.port()
    );
    let running = Running::start(Federation::new().site_a(&[&app])).await;
    let site = || running.site.clone();
    for (what, site, names) in [
        ("an SP pool of one's own", site().pool(SP, &[&app]), ["SP-gs-web@site_A", "homing makes"]),
        ("a pool renamed to an SP pool", site().pool("sp-x", &[&app]), ["sp-x", "homing makes"]),
        ("a reference to an SP pool", site().vs("pool_ref", SP), ["web@site_A", SP]),
        (
            "copies to an SP pool",
            site().vs("clone", &format!("{{pool_ref: {SP}, tokens: [source_ip]}}")),
            ["web@site_A", SP],
        ),
        (
            "an association of one's own",
            site().vs("sp_pool_refs", &format!("[{SP}]")),
            ["web@site_A", "homing"],
        ),
        (
            "a pool group on an SP pool",
            site().push("pool_groups", &format!("{{name: group, members: [{{pool_ref: {SP}}}]}}")),
            ["group", SP],
        ),
        (
            "a gslb_site profile at a virtual service",
            site().vs("application_persistence_profile_ref", "gap"),
            ["web@site_A", "`gap`"],
        ),
        (
            "a federated monitor at a pool",
            site().with(|yaml| yaml["pools"][0]["health_monitor_refs"] = parse("[ghm]")),
            ["`app`", "`ghm`"],
        ),
        (
            "HTTP and HTTPS without redirect",
            site().vs("services", &tls).certificate("c", &cert_for(&["a.com"])),
            ["web@site_A", "`gs`"],
        ),
    ] {
        running.refuses(what, &site, "homing.yaml:", names).await;
    }
    running.goes_on().await;
}

#[tokio::test]
async fn run_refuses_it_too() {
    let app = Origin::start("app").await;
    let fed = Federation::new().with(|fed| fed["gslb"]["sites"][1]["mode"] = "passive".into());
    let mut homing = Homing::spawn(&fed.site_a(&[&app])).await;
    assert_eq!(homing.ended().await.code(), Some(2), "{}", homing.log());
}

/// A site that serves while it is told to load what breaks a rule.
struct Running {
    site: Site,
    homing: Homing,
    /// When its configuration was loaded.
    loaded: serde_json::Value,
}

impl Running {
    async fn start(site: Site) -> Self {
        let good = check(&site).await;
        assert_eq!(good.code, Some(0), "{}", good.text());
        let homing = site.start().await;
        let loaded = homing.json("/api/v1/configuration").await["loaded"].clone();
        Self { site, homing, loaded }
    }

    /// `check` and a reload say on one line of this file both objects and the remedy, and the reload changes nothing.
    async fn refuses(&self, what: &str, site: &Site, file: &str, names: [&str; 2]) {
        let output = check(site).await;
        assert_eq!(output.code, Some(2), "{what}: {}", output.text());
        let reload = self.homing.reload(site).await;
        assert_eq!(reload["result"], "failure", "{what}");
        let problems = reload["problems"].as_array().expect("a list");
        let problems = problems.iter().map(|problem| problem.as_str().expect("a text")).collect::<Vec<_>>();
        for said in [output.stderr.lines().collect(), problems] {
            let is_it = |line: &&&str| line.contains(file) && names.iter().all(|name| line.contains(name));
            let line = said.iter().find(is_it).unwrap_or_else(|| panic!("{what} names {names:?}: {said:#?}"));
            assert!(line.contains("; "), "{what} says how to mend it: {line}");
        }
        self.serves_as_before().await;
    }

    async fn serves_as_before(&self) {
        let answer = Request::get("/").send(self.homing.addr).await;
        assert_eq!((answer.status, answer.server()), (200, "app"));
        assert!(answer.site_cookie().is_some(), "site persistence goes on");
        assert_eq!(self.homing.json("/api/v1/configuration").await["loaded"], self.loaded);
    }

    /// What it had from the beginning is loaded still.
    async fn goes_on(&self) {
        self.homing.reloaded(&self.site).await;
    }
}

async fn check(site: &Site) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = site.write(dir.path());
    run(&["check", "--config", path.to_str().expect("temporary paths are text")]).await
}

fn keys(fed: &mut Value) -> &mut Value {
    &mut fed["application_persistence_profiles"][0]["http_cookie_persistence_profile"]["keys"]
}

fn push(list: &mut Value, object: &str) {
    push_value(list, parse(object));
}

fn push_value(list: &mut Value, object: Value) {
    list.as_sequence_mut().expect("it is a list").push(object);
}
