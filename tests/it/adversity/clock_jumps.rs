//! The time of day jumps by hours while homing runs: somebody has set the machine's clock.

use std::{fs, process::Command, time::Duration};

use tempfile::TempDir;

use crate::support::{
    certs::cert_valid,
    client::{Connection, Request},
    config::{APP, Federation, Site},
    eventually, eventually_within,
    homing::Homing,
    origin::Origin,
    tls,
};

#[tokio::test]
async fn sessions_monitors_and_connections_do_not_feel_a_jump_of_the_clock() {
    let (app, other) = (Origin::start("app").await, Origin::start("other").await);
    let (first, second) = (Origin::start("first").await, Origin::start("second").await);
    let site = Site::new(&[&app, &other]).monitored(APP, "tcp").clone_to(&[&first, &second]);
    let clock = WallClock::new();
    let homing = Homing::start_as(&site, |command| clock.rules(command)).await;
    let request = Request::get("/").cookie("SID=a");
    let mut client = Connection::open(homing.addr).await;
    assert_eq!(client.ask(&request).await.status, 200);
    eventually("a copy has come", async || first.requests().len() + second.requests().len() == 1).await;
    for (n, hours) in (2..).zip([6, -6, 0]) {
        clock.shift(hours);
        assert_eq!(client.ask(&request).await.status, 200, "{hours} h");
        eventually("the copy has come", async || first.requests().len() + second.requests().len() == n).await;
        assert!(first.requests().is_empty() || second.requests().is_empty(), "the session stays, {hours} h");
        other.down().await;
        homing.sees(APP, other.addr, false).await;
        other.up().await;
        homing.sees(APP, other.addr, true).await;
    }
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn site_cookies_out_of_their_time_are_served_here_and_renewed() {
    let app = Origin::start("app").await;
    let clock = WallClock::new();
    let homing = Homing::start_as(&Federation::new().site_a(&[&app]), |command| clock.rules(command)).await;
    let cookie = async |request: Request| {
        let answer = request.send(homing.addr).await;
        assert_eq!(answer.status, 200);
        answer.site_cookie().map(|value| format!("{}={value}", crate::support::site_cookie::NAME))
    };
    let mut own = cookie(Request::get("/")).await.expect("a new client gets a cookie");
    // Cookies live for 8 hours.
    for (hours, outcome) in [(2, "local"), (20, "expired"), (20, "local"), (-3, "future"), (-3, "local")] {
        clock.shift(hours);
        let label = [("outcome", outcome)];
        let before = homing.metric("homing_sp_requests_total", &label).await;
        own = cookie(Request::get("/").cookie(&own)).await.unwrap_or(own);
        homing.settles("homing_sp_requests_total", &label, before + 1.0).await;
    }
}

#[tokio::test]
async fn a_certificate_whose_time_passes_is_told_once() {
    let app = Origin::start("app").await;
    let clock = WallClock::new();
    let site = Site::new(&[&app]).tls(&cert_valid(&["a.com"], -100..=100));
    let homing = Homing::start_as(&site, |command| clock.rules(command)).await;
    for (days, what) in [(80, "the certificate expires soon"), (101, "the certificate expired at")] {
        assert_eq!(homing.log_lines(what), 0, "{}", homing.log());
        clock.shift(24 * days);
        // It looks every ten seconds.
        eventually_within(Duration::from_secs(30), what, async || homing.log_lines(what) == 1).await;
    }
    assert_eq!(tls::open(homing.addr).await.ask(&Request::get("/")).await.status, 200);
    assert_eq!(homing.log_lines("the certificate"), 2, "{}", homing.log());
}

/// The time of day as a process sees it.
struct WallClock(TempDir);

impl WallClock {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = dir.path().join("wall_clock.c");
        fs::write(&source, include_str!("wall_clock.c")).expect("written");
        let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()));
        let compiled =
            compiler.args(["-shared", "-fPIC", "-o"]).arg(dir.path().join("wall_clock.so")).arg(source);
        assert!(compiled.status().expect("a C compiler is there, as for the crates").success());
        Self(dir)
    }

    /// Puts itself between a program and the system.
    fn rules(&self, command: &mut tokio::process::Command) {
        command.env("LD_PRELOAD", self.0.path().join("wall_clock.so"));
        command.env("WALL_CLOCK_SHIFT", self.0.path().join("shift"));
    }

    /// It is so many hours later than it is, at once.
    fn shift(&self, hours: i64) {
        let (new, file) = (self.0.path().join("new"), self.0.path().join("shift"));
        fs::write(&new, (hours * 3600).to_string()).expect("written");
        fs::rename(new, file).expect("renamed");
    }
}
