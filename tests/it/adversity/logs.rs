//! A log that goes nowhere.

use std::{fs::File, io::Read};

use crate::support::{
    client::{Connection, Request},
    config::{APP, Site},
    homing::Homing,
    origin::Origin,
    soon,
};

#[tokio::test]
async fn a_log_on_a_full_disk_stops_nothing() {
    let (app, other) = (Origin::start("app").await, Origin::start("other").await);
    let site = Site::new(&[&app, &other]).monitored(APP, "tcp");
    // What is dubious about a configuration is told before anything else.
    let site = site.with(|yaml| yaml["pools"][0]["servers"][1]["ratio"] = 0.into());
    let full = File::options().write(true).open("/dev/full").expect("Linux has one");
    let homing = Homing::start_as(&site, |command| {
        command.env("HOMING_LOG", "trace").stderr(full);
    })
    .await;
    homing.sees(APP, other.addr, true).await;
    other.down().await;
    homing.sees(APP, other.addr, false).await;
    other.up().await;
    homing.sees(APP, other.addr, true).await;
    assert_eq!(homing.reload(&site).await["result"], "success");
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    let status = homing.stop().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_delays_no_request() {
    let app = Origin::start("app").await;
    let (mut read, write) = std::io::pipe().expect("a pipe");
    let homing = Homing::start_as(&Site::new(&[&app]), |command| {
        command.env("HOMING_LOG", "trace").stderr(write);
    })
    .await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..400 {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
    assert_eq!(homing.get("/healthz").await.status, 200);
    // It does not wait for the reader at its end either.
    let status = homing.stop().await;
    assert!(status.success(), "{status}");
    let written = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        read.read_to_end(&mut text).map(|_| text.len())
    });
    let written = soon("the end of the log", written).await.expect("no panic").expect("readable");
    assert!(written >= PIPE, "the pipe had been full: {written} bytes");
}

/// What a pipe holds at least when a line more does not fit into it.
const PIPE: usize = 60 * 1024;
