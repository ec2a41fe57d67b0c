//! Where lines go: files that are rotated, disks that are full, pipes that nobody reads.

use std::{
    fs,
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::net::unix::pipe;

use crate::support::{
    after,
    client::{Connection, Request},
    config::{Site, parse},
    eventually,
    homing::Homing,
    lines::{self, lines, logged},
    origin::Origin,
    soon,
};

const WRITTEN: &str = "homing_access_log_lines_written_total";
const DROPPED: &str = "homing_access_log_lines_dropped_total";

fn log_to(site: Site, path: &Path) -> Site {
    let log = format!("{{path: '{}', buffer: 64KiB}}", path.display());
    site.with(|yaml| yaml["access_log"] = parse(&log))
}

/// Asks so often over one connection; every request is answered.
async fn ask(homing: &Homing, times: usize) {
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..times {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
}

/// A pipe that somebody has open and does not read yet.
fn pipe_in(dir: &Path) -> (PathBuf, pipe::Receiver) {
    let path = make_pipe(dir);
    let receiver = pipe::OpenOptions::new().open_receiver(&path).expect("the pipe can be opened");
    (path, receiver)
}

fn make_pipe(dir: &Path) -> PathBuf {
    let path = dir.join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo is there").success());
    path
}

/// Everything until nobody has the other end open; blocks.
fn read_to_end(receiver: pipe::Receiver) -> String {
    let mut reader = receiver.into_blocking_fd().map(fs::File::from).expect("it is a descriptor");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("lines are text");
    text
}

#[tokio::test]
async fn a_file_that_is_renamed_is_opened_again_at_sigusr1_and_no_line_is_lost() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]), "").start().await;
    let (file, old) = (lines::file(&homing), homing.dir().join("access.log.1"));
    ask(&homing, 3).await;
    lines(&homing, 3).await;
    fs::rename(&file, &old).expect("it can be renamed");
    ask(&homing, 2).await;
    homing.signal(libc::SIGUSR1);
    eventually("the file is there again", async || file.exists()).await;
    ask(&homing, 4).await;
    homing.settles(WRITTEN, &[], 9.0).await;
    let (before, after) = (lines::read(&old).len(), lines::read(&file).len());
    assert!(before + after == 9 && after >= 4, "{before} before, {after} after");
    assert_eq!(homing.metric(DROPPED, &[]).await, 0.0);
}

#[tokio::test]
async fn sigusr1_ends_nothing_without_an_access_log() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    homing.signal(libc::SIGUSR1);
    ask(&homing, 1).await;
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn what_is_queued_is_written_before_the_end() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, receiver) = pipe_in(dir.path());
    let mut homing = log_to(Site::new(&[&app]), &path).start().await;
    // More than the pipe holds, and less than it and the buffer do.
    ask(&homing, 220).await;
    homing.settles("homing_requests_total", &[("vs", "web")], 220.0).await;
    assert_eq!(homing.metric(DROPPED, &[]).await, 0.0);
    homing.signal(libc::SIGTERM);
    // Who did not wait for the pipe would be gone.
    after(Duration::from_millis(200)).await;
    let reading = tokio::task::spawn_blocking(|| read_to_end(receiver));
    assert!(homing.ended().await.success());
    let text = soon("the pipe's end", reading).await.expect("the reader ends");
    assert!(text.len() > 64 << 10, "the pipe was full: {}", text.len());
    assert_eq!(text.lines().count(), 220);
}

#[tokio::test]
async fn a_full_disk_is_said_once_and_costs_nothing_but_lines() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, file) = (dir.path().join("log"), dir.path().join("file"));
    symlink("/dev/full", &path).expect("a link can be made");
    let homing = log_to(Site::new(&[&app]), &path).start().await;
    ask(&homing, 400).await;
    homing.counts(DROPPED, &[], 1.0).await;
    assert_eq!(homing.metric(WRITTEN, &[]).await, 0.0);
    let said = |what: &str| homing.log().lines().filter(|line| line.contains(what)).count();
    eventually("the log says so", async || said("access log cannot be written") == 1).await;
    // Room is made.
    symlink(&file, dir.path().join("new")).expect("a link can be made");
    fs::rename(dir.path().join("new"), &path).expect("the link can be replaced");
    homing.signal(libc::SIGUSR1);
    eventually("what waited is written", async || said("access log is written again") == 1).await;
    ask(&homing, 1).await;
    let all = 401.0;
    eventually("every line is accounted for", async || {
        homing.metric(WRITTEN, &[]).await + homing.metric(DROPPED, &[]).await == all
    })
    .await;
    assert_eq!(lines::read(&file).len() as f64, homing.metric(WRITTEN, &[]).await);
    assert_eq!(said("access log cannot be written"), 1);
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_delays_no_request_and_is_read_whole_later() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (path, receiver) = pipe_in(dir.path());
    let homing = log_to(Site::new(&[&app]), &path).start().await;
    ask(&homing, 800).await;
    homing.counts(DROPPED, &[], 1.0).await;
    let reading = tokio::task::spawn_blocking(|| read_to_end(receiver));
    eventually("every line is accounted for", async || {
        homing.metric(WRITTEN, &[]).await + homing.metric(DROPPED, &[]).await == 800.0
    })
    .await;
    let written = homing.metric(WRITTEN, &[]).await as usize;
    assert!(homing.stop().await.success());
    let text = soon("the pipe's end", reading).await.expect("the reader ends");
    assert_eq!(text.lines().count(), written);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
}

#[tokio::test]
async fn a_pipe_without_a_reader_stops_the_start_and_says_so() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = make_pipe(dir.path());
    for (path, what) in [(path, "start who reads this pipe first"), (dir.path().join("no/log"), "mkdir -p ")]
    {
        let mut homing = Homing::spawn(&log_to(Site::new(&[&app]), &path)).await;
        assert_eq!(homing.ended().await.code(), Some(1));
        eventually("it says why", async || homing.log().contains(what)).await;
        assert!(homing.log().contains("access log "), "{}", homing.log());
    }
}

#[tokio::test]
async fn lines_on_stdout_are_nothing_but_lines() {
    let app = Origin::start("app").await;
    let homing = log_to(Site::new(&[&app]), Path::new("stdout")).start().await;
    ask(&homing, 3).await;
    let lines = || homing.log().lines().filter(|line| line.starts_with("{\"time\":")).count();
    eventually("the lines are there", async || lines() == 3).await;
}

#[tokio::test]
async fn a_reload_changes_where_lines_go_or_nothing() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    client.ask(&Request::get("/0")).await;
    homing.reloaded(&logged(site.clone(), "")).await;
    client.ask(&Request::get("/1")).await;
    lines(&homing, 1).await;
    let refused = homing.reload(&log_to(site.clone(), Path::new("no/such/log"))).await;
    assert_eq!(refused["result"], "failure");
    assert!(refused["problems"][0].as_str().is_some_and(|it| it.contains("mkdir -p ")), "{refused:#}");
    client.ask(&Request::get("/2")).await;
    lines(&homing, 2).await;
    let other = homing.dir().join("other.log");
    let changed = homing.reloaded(&log_to(site.clone(), Path::new("other.log"))).await;
    assert_eq!(changed["changes"]["settings"]["changed"][0], "access_log", "{changed:#}");
    client.ask(&Request::get("/3")).await;
    eventually("the other file has the line", async || lines::read(&other).len() == 1).await;
    homing.reloaded(&site).await;
    client.ask(&Request::get("/4")).await;
    homing.settles("homing_requests_total", &[("vs", "web")], 5.0).await;
    assert_eq!((lines(&homing, 2).await.len(), lines::read(&other).len()), (2, 1));
}

#[tokio::test]
async fn homings_own_log_is_json_where_that_is_wanted() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| yaml["log"] = parse("{format: json}"));
    let homing = Homing::start_logging(&site, "info").await;
    let log = homing.log();
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    let events: Vec<_> = log.lines().map(|line| event(line).unwrap_or_else(|| panic!("{line}"))).collect();
    assert!(events.iter().any(|event| event["level"] == "INFO" && event["message"].is_string()), "{log}");
    let text =
        homing.reloaded(&Site::new(&[&app]).with(|yaml| yaml["admin"] = site.yaml["admin"].clone())).await;
    assert_eq!(text["needs_restart"][0], "log.format: json until a restart, then text", "{text:#}");
}
