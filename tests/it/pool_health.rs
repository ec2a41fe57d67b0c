//! Servers that requests take out, and what servers say of themselves to monitors.

use serde_json::Value;

use crate::{
    pools::ask,
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::{APP, Site, parse},
        eventually,
        homing::Homing,
        net,
        origin::{HALF_AN_ANSWER, Mode, Origin},
        relay::Relay,
    },
};

#[tokio::test]
async fn a_server_that_fails_requests_is_out_until_its_time_is_over() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    a.set(Mode::Status(503));
    let site = Site::new(&[&a, &b]);
    let homing = inline(site.clone(), "ejection_time: 1h, max_ejection_time: 1h").start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..6 {
        let expected = if n % 2 == 0 { 503 } else { 200 };
        assert_eq!(client.ask(&Request::get("/")).await.status, expected);
    }
    homing.sees(APP, a.addr, false).await;
    a.set(Mode::Ok);
    ask(&homing, 10).await;
    assert_eq!([a.requests().len(), b.requests().len()], [3, 13]);
    let server = server(&homing, 0).await;
    assert_eq!(server["oper_status"]["state"], "OPER_DOWN");
    assert_eq!(
        server["oper_status"]["reason"],
        "ejected for 1h: 3 failures in a row, the last: answered 503"
    );
    let ejection = &server["ejection"];
    assert_eq!([&ejection["time"], &ejection["times"]], [&Value::from("1h"), &Value::from(1)]);
    let (since, until) = (&server["oper_status"]["last_changed_time"]["secs"], &ejection["until"]["secs"]);
    assert_eq!(until.as_u64().zip(since.as_u64()).map(|(until, since)| until - since), Some(3600));
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!(pool["runtime"]["num_servers_ejected"], 1);
    homing.settles("homing_pool_ejections_total", &[("reason", "consecutive_failures")], 1.0).await;
    assert_eq!(homing.log_lines("server is down"), 1, "{}", homing.log());

    homing.reloaded(&inline(site, "ejection_time: 2h, max_ejection_time: 2h")).await;
    assert_eq!(homing.metric("homing_pool_server_up", &[("server", &a.addr.to_string())]).await, 0.0);
}

#[tokio::test]
async fn a_server_comes_back_when_its_time_is_over_and_tells_its_past() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    a.set(Mode::Status(500));
    let homing = inline(Site::new(&[&a, &b]), "ejection_time: 300ms, max_ejection_time: 300ms").start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..6 {
        client.ask(&Request::get("/")).await;
    }
    a.set(Mode::Ok);
    eventually("it came back", async || {
        server(&homing, 0).await["oper_status"]["reason"] == "back after 300ms"
    })
    .await;
    a.take();
    ask(&homing, 10).await;
    assert_eq!(a.requests().len(), 5);
    let server = server(&homing, 0).await;
    let states: Vec<_> =
        server["changes"].as_array().expect("changes").iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["OPER_DOWN", "OPER_UP"], "{server:#}");
}

#[tokio::test]
async fn every_way_not_to_answer_is_a_failure() {
    for (mode, why) in [
        (None, "refused"),
        (Some(Mode::NeverAnswer), "read_timeout"),
        (Some(Mode::RawClose("".into())), "closed"),
        (Some(Mode::RawClose("SSH-2.0-OpenSSH_9.2\r\n\r\n".into())), "protocol"),
    ] {
        let (a, b) = (Origin::start("a").await, Origin::start("b").await);
        let site = Site::new(&[&a, &b]).with(|yaml| yaml["pools"][0]["read_timeout"] = "200ms".into());
        let homing = inline(site, "").start().await;
        match mode {
            None => a.down().await,
            Some(mode) => a.set(mode),
        }
        for _ in 0..8 {
            Request::post("/", "body").send(homing.addr).await;
        }
        homing.sees(APP, a.addr, false).await;
        let reason = server(&homing, 0).await["oper_status"]["reason"].clone();
        assert_eq!(reason, format!("ejected for 30s: 3 failures in a row, the last: {why}"));
    }
}

#[tokio::test]
async fn half_an_answer_is_a_failure_and_a_kept_connection_that_was_closed_is_none() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = inline(Site::new(&[&a, &b]), "failed_response_code: [500]").start().await;
    for _ in 0..4 {
        ask(&homing, 2).await;
        a.down().await;
        a.up().await;
    }
    assert_eq!(homing.metric("homing_pool_server_up", &[("server", &a.addr.to_string())]).await, 1.0);
    a.set(Mode::RawCut(HALF_AN_ANSWER));
    a.release(10);
    for _ in 0..6 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/half")).await.expect("the request is read");
        // Half an answer, or the other server's whole one.
        let _ = client.answer().await;
    }
    homing.sees(APP, a.addr, false).await;
}

#[tokio::test]
async fn the_last_server_stays_however_it_fails() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    a.set(Mode::Status(503));
    b.set(Mode::Status(503));
    let homing = inline(Site::new(&[&a, &b]), "max_ejection_percent: 100%").start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..20 {
        assert_eq!(client.ask(&Request::get("/")).await.status, 503);
    }
    assert_eq!(homing.metric("homing_pool_server_up", &[("pool", APP)]).await, 1.0);
    homing.counts("homing_pool_ejections_prevented_total", &[("pool", APP)], 1.0).await;
    assert_eq!(a.requests().len() + b.requests().len(), 20);
}

#[tokio::test]
async fn a_server_in_maintenance_gets_no_new_requests_and_is_not_down() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let site = Site::new(&[&a, &b]).monitored(APP, "http");
    let homing =
        site.with(|yaml| yaml["health_monitors"][0]["maintenance_code"] = vec![503].into()).start().await;
    homing.sees(APP, a.addr, true).await;
    a.healthy(false);
    eventually("it says so", async || {
        let status = server(&homing, 0).await["oper_status"].clone();
        let reason = status["reason"].as_str().unwrap_or_default();
        status["state"] == "OPER_UP" && reason.starts_with("in maintenance, keeps its sessions: hm-http-app")
    })
    .await;
    ask(&homing, 6).await;
    assert_eq!([a.requests().len(), b.requests().len()], [0, 6]);
    a.healthy(true);
    eventually("it takes requests again", async || {
        ask(&homing, 2).await;
        !a.requests().is_empty()
    })
    .await;
}

#[tokio::test]
async fn servers_of_a_lower_priority_serve_while_the_higher_ones_cannot() {
    let (main, backup) = (Origin::start("main").await, Origin::start("backup").await);
    let site = Site::new(&[&backup, &main]).monitored(APP, "http");
    let homing = site.with(|yaml| yaml["pools"][0]["servers"][0]["priority"] = 5.into()).start().await;
    homing.sees(APP, main.addr, true).await;
    ask(&homing, 6).await;
    assert_eq!([main.take().len(), backup.take().len()], [6, 0]);
    main.healthy(false);
    homing.sees(APP, main.addr, false).await;
    ask(&homing, 6).await;
    assert_eq!([main.take().len(), backup.take().len()], [0, 6]);
    main.healthy(true);
    homing.sees(APP, main.addr, true).await;
    main.down().await;
    ask(&homing, 1).await;
    assert_eq!(backup.take().len(), 1, "a connection refused is answered by the next priority at once");
}

#[tokio::test]
async fn an_https_monitor_refuses_the_certificate_that_requests_refuse_unless_it_is_told_not_to() {
    let app = Origin::start_tls("app", &cert_for(&["app"])).await;
    let site =
        Site::new(&[&app]).monitored(APP, "https").with(|yaml| yaml["pools"][0]["enable_ssl"] = true.into());
    let homing = site.start().await;
    homing.sees(APP, app.addr, false).await;
    let reason = server(&homing, 0).await["oper_status"]["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("certificate refused")), "{reason}");
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503);
    homing.reloaded(&site.with(|yaml| yaml["health_monitors"][0]["verify"] = false.into())).await;
    homing.sees(APP, app.addr, true).await;
}

#[tokio::test]
async fn probes_tell_servers_that_want_a_proxy_header_that_they_are_for_nobody() {
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        for kind in ["tcp", "http", "https"] {
            let app = match kind {
                "https" => Origin::start_tls("app", &cert_for(&["app"])).await,
                _ => Origin::start("app").await,
            };
            let relay = Relay::to(app.addr).await;
            let site = introduced(&relay, version).monitored(APP, kind);
            let homing = site.start().await;
            homing.sees(APP, relay.addr, true).await;
            assert_eq!(relay.headers()[0], header, "{version} {kind}");
        }
    }
}

#[tokio::test]
async fn a_probe_of_a_port_of_its_own_has_no_proxy_header() {
    let app = Origin::start("app").await;
    let relay = Relay::to(app.addr).await;
    let health = Origin::start_at("health", (relay.addr.ip(), net::free_addr().port()).into()).await;
    let site = introduced(&relay, "v2").monitored(APP, "http");
    let homing = site
        .with(|yaml| yaml["health_monitors"][0]["monitor_port"] = health.addr.port().into())
        .start()
        .await;
    homing.sees(APP, relay.addr, true).await;
    assert_eq!(relay.headers().len(), 0);
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    assert_eq!(relay.headers().len(), 1, "requests have one");
}

/// One server, which wants PROXY headers.
fn introduced(relay: &Relay, version: &str) -> Site {
    let (ip, port) = (relay.addr.ip(), relay.addr.port());
    Site::new(&[]).with(|yaml| {
        let pool = &mut yaml["pools"][0];
        pool["servers"] = parse(&format!("[{{ip: {ip}, port: {port}}}]"));
        pool["proxy_protocol"] = version.into();
    })
}

/// Three failures in a row take a server out; `more` are further keys.
fn inline(site: Site, more: &str) -> Site {
    site.with(|yaml| {
        let monitor = parse(&format!("{{consecutive_failures: 3, {more}}}"));
        yaml["pools"][0]["inline_health_monitor"] = monitor;
    })
}

async fn server(homing: &Homing, n: usize) -> Value {
    homing.json(&format!("/api/v1/pools/{APP}")).await["servers"][n].clone()
}
