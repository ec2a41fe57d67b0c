//! What happens to the process: it is killed, signalled without end, gets no threads, loses its files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use super::limits::Limit;
use tokio::process::Command;

use crate::support::{
    after,
    client::Request,
    config::{APP, Site},
    eventually,
    homing::{Homing, run},
    origin::Origin,
};

#[tokio::test]
async fn a_killed_homing_leaves_nothing_that_stops_the_next_start() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = format!("unix:{}", dir.path().join("admin.sock").display());
    let site = Site::new(&[&app]).with(|yaml| yaml["admin"]["listen"] = socket.as_str().into());
    for _ in 0..3 {
        let mut homing = Homing::spawn(&site).await;
        let ready = async || run(&["show", "pool", "--admin", &socket]).await.code == Some(0);
        eventually("the admin API answers", ready).await;
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        assert_eq!(homing.log_lines("WARN"), 0, "{}", homing.log());
        homing.kill().await;
        assert!(dir.path().join("admin.sock").exists(), "it had no time to remove it");
    }
}

#[tokio::test]
async fn a_flood_of_sighups_leaves_no_queue_of_reloads() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let reloads = async || homing.metric("homing_config_reloads_total", &[("result", "success")]).await;
    for n in 0..1000 {
        homing.signal(libc::SIGHUP);
        if n % 10 == 0 {
            assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let during = reloads().await;
    homing.reloaded(&site).await;
    let queued = reloads().await - during;
    assert!(during > 1.0 && queued <= 4.0, "{during} reloads, then {queued} more");
}

#[tokio::test]
async fn without_new_threads_it_serves_and_reloads() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).monitored(APP, "tcp");
    if !fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        // The limit is of a user, and only root can be another one, who runs nothing else.
        return;
    }
    let user = 50_000 + std::process::id() % 10_000;
    let homing = Homing::start_as(&site, |command| {
        command.uid(user);
        Limit::Threads.of(command, THREADS);
    })
    .await;
    let fill = |_| Command::new("sleep").arg("60").uid(user).kill_on_drop(true).spawn();
    let _others: Vec<_> = (0..THREADS).map(fill).collect::<Result<_, _>>().expect("sleep is there");
    // Longer than an idle thread is usually kept.
    after(Duration::from_secs(11)).await;
    homing.reloaded(&site).await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    assert_eq!(homing.log_lines("panic"), 0, "{}", homing.log());
}

#[tokio::test]
async fn a_configuration_that_vanishes_is_missed_once_and_found_again() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| yaml["watch"] = true.into());
    let homing = site.start().await;
    let (dir, away) = (homing.dir().to_owned(), homing.dir().with_extension("away"));
    fs::rename(&dir, &away).expect("renamed");
    homing.says("does not exist").await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    fs::create_dir(&dir).expect("made again");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("permissions can be set");
    site.write(&dir);
    fs::remove_dir_all(&away).expect("removed");
    homing.says("configuration reloaded").await;
    assert_eq!(homing.log_lines("reload refused"), 1, "{}", homing.log());
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
}

/// More than homing begins with.
const THREADS: u64 = 32;
