//! Monitors that ping, on a machine that lets them and on one that does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::process::Command;

use crate::support::{
    client::Request,
    config::{APP, Site, parse},
    homing::{Homing, run_as},
    net,
    origin::Origin,
};

const MONITOR: &str = "{name: hm-ping, type: ping, send_interval: 200ms, receive_timeout: 10s}";

#[tokio::test]
async fn a_server_that_answers_pings_is_up_whatever_runs_on_it() {
    let port = net::free_addr().port();
    let site = pinging(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], port);
    if !datagrams() && !raw() {
        refused(&site, |_| {}).await;
        return;
    }
    let homing = site.start().await;
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        homing.sees(APP, (ip, port).into(), true).await;
    }
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!(pool["servers"][0]["oper_status"]["reason"], "monitors passed");
}

#[tokio::test]
async fn without_raw_sockets_pings_go_by_datagrams_or_are_refused_at_the_start() {
    let port = net::free_addr().port();
    let site = pinging(&[Ipv4Addr::LOCALHOST.into()], port);
    if !datagrams() {
        refused(&site, without_raw_sockets).await;
        return;
    }
    let homing = Homing::start_as(&site, without_raw_sockets).await;
    homing.sees(APP, (Ipv4Addr::LOCALHOST, port).into(), true).await;
}

#[tokio::test]
async fn a_reload_to_pings_that_are_not_allowed_is_refused_and_the_old_configuration_goes_on() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let homing = Homing::start_as(&site, without_raw_sockets).await;
    let reload = homing.reload(&with_pings(site)).await;
    if datagrams() {
        assert_eq!(reload["result"], "success", "{reload:#}");
        homing.sees(APP, app.addr, true).await;
    } else {
        assert_eq!(reload["result"], "failure");
        assert_names_the_mend(&reload["problems"].to_string());
    }
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}

#[tokio::test]
async fn a_monitor_that_no_pool_has_needs_no_permission() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).push("health_monitors", MONITOR);
    let homing = Homing::start_as(&site, without_raw_sockets).await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}

/// `run` does not start, and `check` warns: the configuration itself is right.
async fn refused(site: &Site, change: impl Fn(&mut Command)) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let config = site.write(dir.path());
    let config = config.to_str().expect("a text");
    let run = run_as(&["run", "--config", config], &change).await;
    assert_eq!(run.code, Some(1), "{}", run.text());
    assert_names_the_mend(&run.text());
    let check = run_as(&["check", "--config", config], &change).await;
    assert_eq!(check.code, Some(0), "{}", check.text());
    assert!(check.stdout.contains("no problems"), "{}", check.text());
    assert!(check.stderr.contains("warning: "), "{}", check.text());
    assert_names_the_mend(&check.stderr);
}

fn assert_names_the_mend(text: &str) {
    for part in ["health monitor `hm-ping`", "`type: ping`", "net.ipv4.ping_group_range", "CAP_NET_RAW"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

fn pinging(servers: &[IpAddr], port: u16) -> Site {
    let servers: Vec<_> = servers.iter().map(|ip| format!("{{ip: '{ip}', port: {port}}}")).collect();
    with_pings(
        Site::new(&[]).with(|yaml| yaml["pools"][0]["servers"] = parse(&format!("[{}]", servers.join(", ")))),
    )
}

fn with_pings(site: Site) -> Site {
    site.push("health_monitors", MONITOR)
        .with(|yaml| yaml["pools"][0]["health_monitor_refs"] = vec!["hm-ping"].into())
}

/// Whether the group of these tests may ping, and so homing's.
fn datagrams() -> bool {
    Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).is_ok()
}

/// Whether this process may have raw sockets.
fn raw() -> bool {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).is_ok()
}

/// Takes CAP_NET_RAW from a program for good.
fn without_raw_sockets(command: &mut Command) {
    let drop = || {
        // It fails for those who have no capabilities to drop.
        // SAFETY: `prctl` may be called between fork and exec, and this one takes numbers alone.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0) };
        Ok(())
    };
    // SAFETY: the closure does nothing but a system call.
    unsafe { command.pre_exec(drop) };
}

const CAP_NET_RAW: libc::c_ulong = 13;
