//! Ports: several at once, none while there is no server, and connections that end with the configuration that they
//! were made under.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{
    after,
    client::{Connection, Request},
    config::{APP, Site, parse},
    eventually,
    homing::run_in,
    net,
    origin::{Mode, Origin},
};

/// The first of some ports on an address of its own, which nobody uses.
fn free_range() -> std::net::SocketAddr {
    loop {
        let first = net::free_addr();
        if first.port() < u16::MAX - 8 {
            return first;
        }
    }
}

#[tokio::test]
async fn a_service_listens_on_a_range_of_ports() {
    let app = Origin::start("app").await;
    let first = free_range();
    let service =
        |last: u16| format!("[{{address: {}, port: {}, port_range_end: {last}}}]", first.ip(), first.port());
    let mut site = Site::new(&[&app]).vs("services", &service(first.port() + 4));
    site.addr = first;
    let homing = site.start().await;
    let at = |n| std::net::SocketAddr::new(first.ip(), first.port() + n);
    for n in 0..5 {
        assert_eq!(Request::get("/").send(at(n)).await.status, 200, "{n}");
    }
    assert!(TcpStream::connect(at(5)).await.is_err());
    homing.reloaded(&site.clone().vs("services", &service(first.port() + 1))).await;
    assert_eq!(Request::get("/").send(at(1)).await.status, 200);
    assert!(TcpStream::connect(at(2)).await.is_err());
    for last in [first.port() - 1, 1, first.port().saturating_add(1024)] {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        site.clone().vs("services", &service(last)).write(dir.path());
        let output = run_in(dir.path(), &["check", "--config", "homing.yaml"]).await;
        let is_refused = output.code != Some(0) && output.text().contains("port_range_end");
        assert!(is_refused || last == u16::MAX, "{last}: {}", output.text());
    }
}

#[tokio::test]
async fn nobody_listens_while_no_server_is_up() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).monitored(APP, "http").vs("remove_listening_port_on_vs_down", "true");
    let homing = site.start().await;
    homing.sees(APP, app.addr, true).await;
    let mut kept = Connection::open(homing.addr).await;
    assert_eq!(kept.ask(&Request::get("/")).await.status, 200);
    let is_open = async || TcpStream::connect(homing.addr).await.is_ok();
    app.healthy(false);
    homing.sees(APP, app.addr, false).await;
    eventually("the port is closed", async || !is_open().await).await;
    assert_eq!(homing.get("/healthz").await.status, 200);
    assert_eq!(kept.ask(&Request::get("/")).await.status, 503, "who is there is answered");
    // A reload opens nothing that is down.
    homing.reloaded(&site.clone().vs("analytics_policy", "{slow_request: 3s}")).await;
    assert!(!is_open().await);
    app.healthy(true);
    homing.says("listening again").await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    app.healthy(false);
    eventually("the port is closed", async || !is_open().await).await;
    homing.reloaded(&site.vs("remove_listening_port_on_vs_down", "false")).await;
    eventually("the port is open", is_open).await;
}

#[tokio::test]
async fn a_port_that_several_share_is_open_while_one_of_them_has_a_server() {
    let (app, other) = (Origin::start("app").await, Origin::start("other").await);
    let site = Site::new(&[&app]).monitored(APP, "http").pool("other", &[&other]).monitored("other", "http");
    let site = site.vs("remove_listening_port_on_vs_down", "true").vs("domain_names", "[a.com]");
    let site = site.with(|yaml| {
        let mut second = yaml["virtual_services"][0].clone();
        for (key, value) in [("name", "second"), ("pool_ref", "other"), ("domain_names", "[b.com]")] {
            second[key] = parse(value);
        }
        yaml["virtual_services"].as_sequence_mut().expect("a list").push(second);
    });
    let homing = site.start().await;
    homing.sees("other", other.addr, true).await;
    app.healthy(false);
    homing.sees(APP, app.addr, false).await;
    // Twice as long as it takes to look.
    after(Duration::from_millis(500)).await;
    let answer = Request::get("/").host("b.com").send(homing.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "other"));
    other.healthy(false);
    eventually("the port is closed", async || TcpStream::connect(homing.addr).await.is_err()).await;
}

#[tokio::test]
async fn connections_end_with_the_configuration_that_they_were_made_under_where_that_is_wanted() {
    let app = Origin::start("app").await;
    for closes in [true, false] {
        let site = Site::new(&[&app]).vs("close_client_conn_on_config_update", &closes.to_string());
        let homing = site.start().await;
        let before = app.started().len();
        let mut idle = Connection::open(homing.addr).await;
        assert_eq!(idle.ask(&Request::get("/")).await.status, 200);
        app.set(Mode::Held);
        let mut busy = Connection::open(homing.addr).await;
        busy.send(&Request::get("/held")).await.expect("it is read");
        app.began(before + 2).await;
        // Nothing has changed about it, then something has.
        homing.reloaded(&site.clone().with(|yaml| yaml["grace_period"] = "6s".into())).await;
        let changed = site.vs("analytics_policy", "{slow_request: 3s}");
        let mut fresh = Connection::open(homing.addr).await;
        app.set(Mode::Ok);
        assert_eq!(fresh.ask(&Request::get("/")).await.status, 200, "none was ended by the first");
        homing.reloaded(&changed.with(|yaml| yaml["pools"][0]["read_timeout"] = parse("59s"))).await;
        if closes {
            assert!(idle.closed().await.is_empty());
            assert!(fresh.closed().await.is_empty());
        }
        app.release(1);
        let answer = busy.answer().await.expect("what is under way is answered");
        assert_eq!((answer.status, answer.header("connection") == Some("close")), (200, closes));
        if !closes {
            assert_eq!(idle.ask(&Request::get("/")).await.status, 200);
            assert_eq!(busy.ask(&Request::get("/")).await.status, 200);
        }
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200, "new ones are served");
    }
}
