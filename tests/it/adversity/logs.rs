//! A log that goes nowhere.

use std::{fs::File, io::Read, os::fd::AsRawFd};

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
async fn a_log_that_nobody_reads_delays_nothing() {
    let app = Origin::start("app").await;
    let (mut read, write) = std::io::pipe().expect("a pipe");
    // SAFETY: a system call without pointers, on a descriptor that is open.
    let size = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) };
    assert_eq!(size, PIPE, "Linux makes pipes as small as a page");
    let site = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into());
    let homing = Homing::start_as(&site, |command| {
        command.stderr(write);
    })
    .await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..40 {
        homing.reloaded(&site).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
    // It does not wait for the reader at its end either.
    let status = homing.stop().await;
    assert!(status.success(), "{status}");
    let written = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        read.read_to_end(&mut text).map(|_| text.len())
    });
    let written = soon("the end of the log", written).await.expect("no panic").expect("readable");
    assert!(
        (PIPE / 2..2 * PIPE).contains(&i32::try_from(written).expect("small")),
        "{written} bytes: it was full"
    );
}

/// What the pipe holds, and 40 reloads do not fit into.
const PIPE: i32 = 4096;
