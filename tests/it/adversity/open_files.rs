//! Open files run out, by clients or for another reason.

use std::time::Duration;

use super::limits::Limit;
use crate::support::{
    after,
    client::{Connection, Request},
    config::{APP, Site},
    eventually,
    homing::Homing,
    origin::Origin,
};

#[tokio::test]
async fn clients_beyond_what_the_files_allow_wait_and_the_others_are_served() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into());
    let homing = Homing::start_as(&site, |command| Limit::OpenFiles.of(command, 128)).await;
    let room = format!("clients={ROOM}");
    assert_eq!(homing.log_lines(&room), 1, "{}", homing.log());
    let mut kept = Vec::new();
    for _ in 0..ROOM {
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        kept.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/late")).await.expect("the kernel takes it");
        waiting.push(client);
    }
    homing.says("no room for more client connections").await;
    let begun = homing.cpu();
    after(Duration::from_millis(500)).await;
    for client in &mut kept {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200, "who is there is served");
    }
    assert_eq!(homing.get("/healthz").await.status, 200);
    let used = homing.cpu() - begun;
    assert!(used < Duration::from_millis(400), "it does not try in a loop: {used:?}");
    assert!(app.requests().iter().all(|request| request.target != "/late"));
    kept.clear();
    for mut client in waiting {
        // It goes with its answer, and so makes room for the next.
        assert_eq!(client.answer().await.expect("there is room").status, 200);
    }
    assert_eq!(homing.log_lines("no room for more client connections"), 1, "{}", homing.log());
}

#[tokio::test]
async fn without_any_file_left_homing_serves_who_is_there_and_blames_no_server() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).monitored(APP, "tcp").with(|yaml| yaml["threads"] = 1.into());
    let homing = homing.start().await;
    homing.sees(APP, app.addr, true).await;
    let mut kept = Connection::open(homing.addr).await;
    assert_eq!(kept.ask(&Request::get("/")).await.status, 200);
    let before = Limit::OpenFiles.set(&homing, 3);
    let mut late = Connection::open(homing.addr).await;
    late.send(&Request::get("/")).await.expect("the kernel takes it");
    let mut admin = Connection::open(homing.admin).await;
    admin.send(&Request::get("/healthz").host("admin")).await.expect("the kernel takes it");
    let lines = [
        "ERROR cannot accept connections",
        "admin: cannot accept connections",
        "servers cannot be probed and keep the state that they had",
    ];
    for line in lines {
        homing.says(line).await;
    }
    let begun = homing.cpu();
    after(Duration::from_millis(700)).await;
    let used = homing.cpu() - begun;
    assert!(used < Duration::from_millis(400), "it does not try in a loop: {used:?}");
    assert_eq!(kept.ask(&Request::get("/")).await.status, 200, "who is there is served");
    for line in lines {
        assert_eq!(homing.log_lines(line), 1, "{}", homing.log());
    }
    assert_eq!(homing.log_lines("LimitNOFILE="), lines.len(), "each says how to mend it: {}", homing.log());
    Limit::OpenFiles.set(&homing, before);
    assert_eq!(late.answer().await.expect("it is served now").status, 200);
    assert_eq!(admin.answer().await.expect("it is served now").status, 200);
    eventually("new clients are served", async || Request::get("/").send(homing.addr).await.status == 200)
        .await;
    assert_eq!(homing.log_lines("server is down"), 0, "{}", homing.log());
}

/// What 128 open files allow.
const ROOM: usize = 48;
