//! A reload: what stays, what changes, who may ask for it, and that a refused one changes nothing.

use std::{os::unix::fs::symlink, path::Path};

use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    routing::websocket,
    support::{
        certs::cert_for,
        client::{Browser, Connection, Request},
        config::{APP, CLONES, Federation, Site, parse},
        copies::{Mark, copies},
        eventually,
        homing::{Homing, run},
        net,
        origin::{Mode, Origin},
        soon,
        tls::{Profile, TlsClient, certificate_name},
    },
};

/// Another pool for its virtual service.
fn moved_to(site: &Site, server: &Origin) -> Site {
    site.clone().pool("other", &[server]).vs("pool_ref", "other")
}

#[tokio::test]
async fn open_connections_use_the_new_configuration_from_their_next_request_on() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let site = Site::new(&[&old]);
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..2 {
        assert_eq!(client.ask(&Request::get("/")).await.server(), "old");
    }
    let reload = homing.reloaded(&moved_to(&site, &new)).await;
    assert_eq!(reload["changes"]["pools"]["added"], json!(["other"]));
    assert_eq!(reload["changes"]["pools"]["unchanged"], json!([APP]));
    assert_eq!(reload["changes"]["virtual_services"]["changed"], json!(["web"]));
    assert_eq!(reload["changes"]["listeners"]["unchanged"], json!([homing.addr.to_string()]));
    assert_eq!(client.ask(&Request::get("/")).await.server(), "new", "what was routed once is routed anew");
    homing.reloaded(&site).await;
    assert_eq!(client.ask(&Request::get("/")).await.server(), "old");
}

#[tokio::test]
async fn a_host_that_is_no_longer_served_is_misdirected_on_an_open_connection_too() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    homing.reloaded(&site.clone().vs("domain_names", "[b.com]")).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 421);
    assert_eq!(Request::get("/").host("b.com").send(homing.addr).await.status, 200);
}

#[tokio::test]
async fn requests_and_tunnels_that_are_under_way_end_as_they_began() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let site = Site::new(&[&old]);
    let homing = site.start().await;
    let mut tunnel = Connection::open(homing.addr).await;
    tunnel.send(&websocket()).await.expect("the request is read");
    assert_eq!(tunnel.head().await.expect("an answer").status(), 101);
    old.set(Mode::Held);
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/held")).await.expect("the request is read");
    old.began(2).await;
    let only_new = Site { yaml: Site::new(&[&new]).yaml, ..site.clone() };
    let only_new = only_new
        .with(|yaml| yaml["admin"] = site.yaml["admin"].clone())
        .with(|yaml| yaml["virtual_services"] = site.yaml["virtual_services"].clone());
    homing.reloaded(&only_new).await;
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "new");
    old.release(1);
    let answer = client.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.server()), (200, "old"));
    assert_eq!(client.ask(&Request::get("/")).await.server(), "new");
    tunnel.wire.write("still here").await.expect("the tunnel takes bytes");
    let echoed = soon("an echo", tunnel.wire.exactly(10)).await.expect("the tunnel gives bytes");
    assert_eq!(echoed, "still here");
}

#[tokio::test]
async fn health_and_what_is_in_flight_survive_and_what_is_gone_leaves_the_metrics() {
    let (up, down, gone) =
        (Origin::start("up").await, Origin::absent("down").await, Origin::start("gone").await);
    let site = Site::new(&[&up, &down, &gone]).monitored(APP, "tcp");
    let homing = site.start().await;
    homing.sees(APP, down.addr, false).await;
    up.set(Mode::Held);
    gone.set(Mode::Held);
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    let busy = async || {
        let up = homing.metric("homing_pool_server_inflight", &[("server", &up.addr.to_string())]).await;
        let gone = homing.metric("homing_pool_server_inflight", &[("server", &gone.addr.to_string())]).await;
        (up, gone)
    };
    eventually("a request is in flight", async || busy().await != (0.0, 0.0)).await;
    let status = async || {
        let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
        let servers = pool["servers"].as_array().expect("servers").clone();
        servers.into_iter().find(|server| server["port"] == down.addr.port()).expect("it is there")
    };
    let before = (busy().await, status().await["oper_status"].clone());
    // A probe now would find it up; the state is what was known, until thresholds say otherwise.
    let changed = site.clone().with(|yaml| {
        yaml["pools"][0]["servers"][0]["ratio"] = 3.into();
        yaml["health_monitors"][0]["send_interval"] = "1h".into();
    });
    homing.reloaded(&changed).await;
    assert_eq!((busy().await, status().await["oper_status"].clone()), before);
    assert_eq!(homing.json(&format!("/api/v1/pools/{APP}")).await["servers"][0]["ratio"], 3);
    homing
        .reloaded(&changed.with(|yaml| drop(yaml["pools"][0]["servers"].as_sequence_mut().unwrap().pop())))
        .await;
    let of_gone = gone.addr.to_string();
    for metric in ["homing_pool_server_up", "homing_pool_server_inflight"] {
        assert!(!homing.has_metric(metric, &[("server", &of_gone)]).await, "{metric}");
        assert!(homing.has_metric(metric, &[("server", &up.addr.to_string())]).await, "{metric}");
    }
    up.release(1);
    gone.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200, "a server that is gone answers still");
}

#[tokio::test]
async fn sessions_keep_their_clone_members_and_no_queued_copy_is_lost() {
    let (app, a, b) = (Origin::start("app").await, Origin::start("a").await, Origin::start("b").await);
    let site = Site::new(&[&app]).clone_to(&[&a, &b]);
    let homing = site.start().await;
    let ask = async |n: usize| {
        for session in 0..SESSIONS {
            let request = Request::get(&format!("/{session}/{n}")).cookie(&format!("SID={session}"));
            assert_eq!(request.send(homing.addr).await.status, 200);
        }
    };
    ask(0).await;
    copies(&[&a, &b], SESSIONS).await;
    a.set(Mode::Held);
    b.set(Mode::Held);
    ask(1).await;
    // Twice the same lanes, then new ones, while copies wait in the old.
    homing.reloaded(&site.clone().vs("uuid", "virtualservice-1")).await;
    ask(2).await;
    homing.reloaded(&site.clone().clone_section("pipeline_depth", "8")).await;
    ask(3).await;
    a.set(Mode::Ok);
    b.set(Mode::Ok);
    a.release(100);
    b.release(100);
    let all = copies(&[&a, &b], 4 * SESSIONS).await;
    assert_eq!(all.len(), 4 * SESSIONS);
    for session in 0..SESSIONS {
        let own = all.iter().filter(|(_, copy)| copy.target.starts_with(&format!("/{session}/")));
        let (members, marks): (Vec<_>, Vec<_>) =
            own.map(|(member, copy)| (member.as_str(), Mark::of(copy))).unzip();
        assert!(members.iter().all(|member| *member == members[0]), "session {session}: {members:?}");
        let mut numbers: Vec<_> = marks.iter().map(|mark| mark.seq).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert!(marks.iter().all(|mark| mark.session == marks[0].session));
    }
    homing.settles("homing_clone_copies_total", &[("outcome", "answered")], 4.0 * SESSIONS as f64).await;
    homing.settles("homing_clone_dropped_total", &[], 0.0).await;
    homing.settles("homing_clone_buffered_bytes", &[("pool", CLONES)], 0.0).await;
    homing
        .reloaded(
            &site.with(|yaml| drop(yaml["virtual_services"][0].as_mapping_mut().unwrap().remove("clone"))),
        )
        .await;
    eventually("lanes that nobody needs end", async || a.open() + b.open() == 0).await;
}

#[tokio::test]
async fn sessions_of_other_sites_go_home_as_before() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new();
    let (site_a, site_b) = (fed.site_a(&[&a]), fed.site_b(&[&b]));
    let (homing_a, homing_b) = (site_a.start().await, site_b.start().await);
    let sp_pool = "SP-gs-web@site_A";
    homing_a.sees(sp_pool, homing_b.addr, true).await;
    let mut browser = Browser::default();
    assert_eq!(browser.get(homing_b.addr, "/").await.server(), "b");
    assert_eq!(browser.get(homing_a.addr, "/").await.server(), "b", "homed at site_B");
    let path = format!("/api/v1/pools/{sp_pool}");
    let known = async || homing_a.json(&path).await["servers"][0]["oper_status"].clone();
    let before = known().await;
    for n in 1..4 {
        let changed = site_a.clone().with(|yaml| yaml["pools"][0]["servers"][0]["ratio"] = n.into());
        let reload = homing_a.reloaded(&changed.vs("application_profile_ref", "System-HTTP")).await;
        assert!(reload["changes"]["pools"]["unchanged"].as_array().expect("names").contains(&json!(sp_pool)));
        assert_eq!(browser.get(homing_a.addr, "/").await.server(), "b");
    }
    assert_eq!(known().await, before, "with the health that it had");
    let disabled =
        fed.clone().with(|yaml| yaml["gslb_services"][0]["site_persistence_enabled"] = false.into());
    let reload = homing_a.reloaded(&disabled.site_a(&[&a])).await;
    assert_eq!(reload["changes"]["pools"]["removed"], json!([sp_pool]));
    assert_eq!(browser.get(homing_a.addr, "/").await.server(), "a");
    homing_a.reloaded(&site_a).await;
    assert_eq!(browser.get(homing_a.addr, "/").await.server(), "b");
}

#[tokio::test]
async fn listeners_come_and_go_and_the_connections_of_one_that_went_are_answered_once_more() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let second = net::free_addr();
    let both = site.clone().with(|yaml| {
        let services = yaml["virtual_services"][0]["services"].as_sequence_mut().expect("services");
        services.push(parse(&format!("{{ address: {}, port: {} }}", second.ip(), second.port())));
    });
    let reload = homing.reloaded(&both).await;
    assert_eq!(reload["changes"]["listeners"]["added"], json!([second.to_string()]));
    let mut idle = Connection::open(second).await;
    assert_eq!(idle.ask(&Request::get("/")).await.status, 200);
    let mut fresh = Connection::open(second).await;
    app.set(Mode::Held);
    let mut busy = Connection::open(second).await;
    busy.send(&Request::get("/")).await.expect("the request is read");
    app.began(2).await;

    let reload = homing.reloaded(&site).await;
    assert_eq!(reload["changes"]["listeners"]["removed"], json!([second.to_string()]));
    assert!(TcpStream::connect(second).await.is_err(), "it refuses");
    assert_eq!(homing.get("/readyz").await.status, 200);
    app.set(Mode::Ok);
    app.release(1);
    assert_eq!(busy.answer().await.expect("an answer").status, 200);
    for client in [&mut idle, &mut fresh] {
        let answer = client.ask(&Request::get("/")).await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    for mut client in [idle, fresh, busy] {
        client.closed().await;
    }
    homing.reloaded(&both).await;
    assert_eq!(Request::get("/").send(second).await.status, 200, "it is there again");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_in_new_handshakes_and_sessions_go_on() {
    let app = Origin::start("app").await;
    let site = |name: &str| Site::new(&[&app]).tls(&cert_for(&[name]));
    let old = site("old.a.com");
    let homing = old.start().await;
    let client = TlsClient::new(Profile::TLS12);
    let stream = client.connect(homing.addr, "a.com").await;
    assert_eq!(certificate_name(&stream), "old.a.com");
    let mut open = Connection::over(stream);
    assert_eq!(open.ask(&Request::get("/")).await.status, 200);
    let renewed = Site { files: site("new.a.com").files, ..old.clone() };
    let reload = homing.reloaded(&renewed).await;
    assert_eq!(reload["changes"]["ssl_keys_and_certificates"]["changed"], json!(["cert"]));
    assert_eq!(reload["changes"]["listeners"]["changed"], json!([homing.addr.to_string()]));
    assert_eq!(reload["changes"]["virtual_services"]["unchanged"], json!(["web"]));
    assert_eq!(
        certificate_name(&TlsClient::new(Profile::TLS13).connect(homing.addr, "a.com").await),
        "new.a.com"
    );
    assert_eq!(open.ask(&Request::get("/")).await.status, 200, "an open connection stays");
    drop(client.resume(homing.addr, "a.com").await);
}

#[tokio::test]
async fn a_bad_file_is_refused_as_by_check_and_nothing_changes() {
    let (app, new) = (Origin::start("app").await, Origin::start("new").await);
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let before = homing.json("/api/v1/configuration").await;
    let bad = moved_to(&site, &new)
        .with(|yaml| yaml["pools"][1]["lb_algoritm"] = "random".into())
        .with(|yaml| yaml["grace_period"] = 5.into());
    let reload = homing.reload(&bad).await;
    assert_eq!(reload["result"], "failure");
    let file = homing.dir().join("homing.yaml").display().to_string();
    let problems = reload["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), 2, "all at once: {problems:?}");
    let checked = run(&["check", "--config", &file]).await;
    for problem in problems.iter().map(|problem| problem.as_str().expect("a text")) {
        assert!(problem.starts_with(&format!("{file}:")), "{problem}");
        assert!(checked.text().contains(problem), "{problem} in {}", checked.text());
        says(&homing, &[problem]).await;
    }
    let command = homing.command(&["reload"]).await;
    assert_eq!(command.code, Some(2), "{}", command.text());
    assert!(command.stderr.contains("lb_algoritm") && command.stderr.contains("nothing was changed"));
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "app");
    assert_eq!(homing.json("/api/v1/configuration").await["loaded"], before["loaded"]);
    assert_eq!(homing.metric("homing_config_reloads_total", &[("result", "failure")]).await, 2.0);
    assert_eq!(homing.metric("homing_config_last_reload_successful", &[]).await, 0.0);

    let good = moved_to(&site, &new);
    good.write(homing.dir());
    let command = homing.command(&["reload"]).await;
    assert_eq!(command.code, Some(0), "{}", command.text());
    assert!(command.stdout.contains("pools: 1 added (other), 1 unchanged"), "{}", command.stdout);
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "new");
    assert_eq!(homing.metric("homing_config_last_reload_successful", &[]).await, 1.0);
    assert_eq!(homing.metric("homing_config_reloads_total", &[("result", "success")]).await, 1.0);
    assert!(homing.metric("homing_config_last_reload_success_timestamp_seconds", &[]).await > 1e9);
    let shown = homing.command(&["show", "configuration"]).await;
    assert!(shown.stdout.contains("loaded") && shown.stdout.contains("success"), "{}", shown.stdout);
}

#[tokio::test]
async fn a_port_that_is_taken_refuses_the_reload_and_nothing_changes() {
    let (app, new) = (Origin::start("app").await, Origin::start("new").await);
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr();
    let taken = taken.expect("its address");
    let holder = std::net::TcpListener::bind(taken).expect("the port is free again");
    let free = net::free_addr();
    let wanted = moved_to(&site, &new).push(
        "virtual_services",
        &format!(
            "{{name: more, pool_ref: {APP}, services: [{{address: {}, port: {}}}, {{address: {}, port: {}}}]}}",
            free.ip(), free.port(), taken.ip(), taken.port()
        ),
    );
    let reload = homing.reload(&wanted).await;
    assert_eq!(reload["result"], "failure");
    let problem = reload["problems"][0].as_str().expect("a problem");
    assert!(problem.contains(&format!("listener {taken}: another program listens there")), "{problem}");
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "app");
    assert!(TcpStream::connect(free).await.is_err(), "what was bound in vain is let go");
    for series in ["homing_pool_server_up", "homing_pool_server_inflight", "homing_pool_retries_total"] {
        assert!(!homing.has_metric(series, &[("pool", "other")]).await, "{series}");
    }
    assert!(!homing.has_metric("homing_connections_open", &[("vs", "more")]).await);
    drop(holder);
    homing.reloaded(&wanted).await;
    assert_eq!(Request::get("/").send(free).await.status, 200);
    assert_eq!(Request::get("/").send(taken).await.status, 200);
    let overlap = wanted.with(|yaml| {
        yaml["virtual_services"][1]["services"][1]["address"] = "0.0.0.0".into();
    });
    let reload = homing.reload(&overlap).await;
    let problem = reload["problems"][0].as_str().expect("a problem");
    assert!(
        problem.contains(&format!("{taken}, which this reload removes, still has the port")),
        "{problem}"
    );
}

#[tokio::test]
async fn what_only_a_restart_changes_is_said() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let reload = homing.reloaded(&site.clone().with(|yaml| yaml["threads"] = 3.into())).await;
    let expected = json!(["threads: 2 until a restart, then 3"]);
    assert_eq!(reload["needs_restart"], expected);
    assert_eq!(homing.json("/api/v1/configuration").await["needs_restart"], expected);
    says(&homing, &["needs a restart: threads"]).await;
    let reload = homing.reloaded(&site).await;
    assert_eq!(reload["needs_restart"], serde_json::Value::Null, "back to what is in force");
}

#[tokio::test]
async fn a_hangup_signal_reloads() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let site = Site::new(&[&old]);
    let homing = site.start().await;
    moved_to(&site, &new).write(homing.dir());
    homing.signal(libc::SIGHUP);
    serves(&homing, "new").await;
    // It serves as soon as the change is in force, and tells of it when all of it is done.
    eventually("the reload is told of", async || {
        homing.json("/api/v1/configuration").await["last_reload"]["trigger"] == "signal"
    })
    .await;
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn a_browser_cannot_be_made_to_reload_and_every_write_is_logged() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let post = Request::new("POST", "/api/v1/reload").host("admin");
    for (name, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(post.clone().header(name, value).send(homing.admin).await.status, 403, "{name}");
    }
    assert_eq!(homing.metric("homing_config_reloads_total", &[]).await, 0.0);
    assert_eq!(post.send(homing.admin).await.status, 200);
    for status in ["status=403", "status=200"] {
        says(&homing, &["admin write", "method=POST", "/api/v1/reload", "127.", status]).await;
    }
}

#[tokio::test]
async fn a_node_stays_ready_while_a_new_pool_has_no_health_yet() {
    let (app, silent) = (Origin::start("app").await, Origin::start("silent").await);
    silent.set(Mode::NeverRead);
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let more = site.pool("more", &[&silent]).monitored("more", "http");
    homing.reloaded(&more.with(|yaml| yaml["health_monitors"][0]["receive_timeout"] = "1h".into())).await;
    silent.began_connection(1).await;
    assert_eq!(homing.get("/readyz").await.status, 200);
}

/// A ConfigMap as a kubelet mounts it: files are links into `..data`, which is a link that is swapped.
#[tokio::test]
async fn a_config_map_that_is_swapped_is_noticed() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let site = Site::new(&[&old]).with(|yaml| yaml["watch"] = true.into());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |generation: &str, site: &Site| {
        let generation = dir.path().join(generation);
        std::fs::create_dir(&generation).expect("made");
        site.write(&generation);
    };
    write("..1", &site);
    symlink("..1", dir.path().join("..data")).expect("linked");
    let config = dir.path().join("homing.yaml");
    symlink("..data/homing.yaml", &config).expect("linked");
    write("..2", &moved_to(&site, &new));
    let homing = Homing::start_in(dir, &config, &site).await;
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "old");
    let (link, data) = (homing.dir().join("..data_tmp"), homing.dir().join("..data"));
    symlink("..2", &link).expect("linked");
    std::fs::rename(link, data).expect("swapped");
    std::fs::remove_dir_all(homing.dir().join("..1")).expect("removed");
    serves(&homing, "new").await;
    assert_eq!(homing.json("/api/v1/configuration").await["last_reload"]["trigger"], "watch");
}

#[tokio::test]
async fn a_file_that_is_saved_is_noticed_a_bad_one_is_said_once_and_its_repair_is_loaded() {
    let (old, new) = (Origin::start("old").await, Origin::start("new").await);
    let cert = cert_for(&["a.com"]);
    let site = Site::new(&[&old]).tls(&cert).with(|yaml| yaml["watch"] = true.into());
    let homing = site.start().await;
    let save = |name: &str, content: &str| save(&homing.dir().join(name), content);
    let failures = async || homing.metric("homing_config_reloads_total", &[("result", "failure")]).await;
    save("cert.pem", "no certificate");
    eventually("the bad certificate is refused", async || failures().await == 1.0).await;
    save("cert.pem", &cert_for(&["b.com"]).certificate);
    eventually("a certificate without its key is refused", async || failures().await == 2.0).await;
    save("cert.pem", &cert.certificate);
    let successes = async || homing.metric("homing_config_reloads_total", &[("result", "success")]).await;
    eventually("the repair is loaded", async || successes().await == 1.0).await;
    save("homing.yaml", &serde_yaml::to_string(&moved_to(&site, &new).yaml).expect("plain YAML"));
    eventually("the new file is loaded", async || successes().await == 2.0).await;
    let client = TlsClient::new(Profile::TLS13);
    let mut client = Connection::over(client.connect(homing.addr, "a.com").await);
    assert_eq!(client.ask(&Request::get("/")).await.server(), "new");
    assert_eq!(failures().await, 2.0, "each bad one was tried once");
}

/// Waits until a line of the log has all of these.
async fn says(homing: &Homing, parts: &[&str]) {
    let has = |line: &str| parts.iter().all(|part| line.contains(part));
    eventually(&format!("the log says {parts:?}"), async || homing.log().lines().any(has)).await;
}

/// As editors do: beside the file, then over it.
fn save(file: &Path, content: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, content).expect("written");
    std::fs::rename(beside, file).expect("renamed");
}

async fn serves(homing: &Homing, server: &str) {
    let what = format!("{server} answers");
    eventually(&what, async || Request::get("/").send(homing.addr).await.server() == server).await;
}

const SESSIONS: usize = 8;
