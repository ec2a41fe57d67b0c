//! What becomes of sessions in the table when servers go and come, and when the configuration is loaded again.

use super::{HEADER, of, order, server_of, servers, settles, site, stays};
use crate::support::{
    config::{APP, parse},
    eventually,
    homing::Homing,
    origin::Origin,
};

fn named<'a>(servers: &'a [Origin; 3], name: &str) -> &'a Origin {
    servers.iter().find(|server| server.name == name).expect("one of them answered")
}

#[tokio::test]
async fn a_session_whose_server_is_down_moves_once_and_stays_there() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), HEADER).monitored(APP, "tcp").start().await;
    let home = stays(&homing, &of("1"), 2).await;
    let gone = named(&servers, &home);
    gone.down().await;
    // Whoever comes first, the monitor or this: a refused connection tells as well.
    let moved = server_of(&homing, &of("1")).await;
    assert_ne!(moved, home);
    homing.sees(APP, gone.addr, false).await;
    assert_eq!(stays(&homing, &of("1"), 4).await, moved);
    gone.up().await;
    homing.sees(APP, gone.addr, true).await;
    assert_eq!(stays(&homing, &of("1"), 4).await, moved, "no flap back");
    settles(&homing, "moved", 1.0).await;
}

#[tokio::test]
async fn a_refused_connection_moves_the_session_without_a_monitor() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), HEADER).start().await;
    let home = stays(&homing, &of("1"), 2).await;
    named(&servers, &home).down().await;
    let moved = server_of(&homing, &of("1")).await;
    assert_ne!(moved, home);
    named(&servers, &home).up().await;
    assert_eq!(stays(&homing, &of("1"), 4).await, moved);
}

#[tokio::test]
async fn a_server_that_drains_keeps_its_sessions_and_one_that_is_disabled_does_not() {
    let servers = servers().await;
    let homing = site(&servers.each_ref(), HEADER).start().await;
    let home = stays(&homing, &of("1"), 2).await;
    let server = named(&servers, &home);
    order(&homing, server, "drain").await;
    assert_eq!(stays(&homing, &of("1"), 4).await, home);
    for session in 2..6 {
        assert_ne!(server_of(&homing, &of(&session.to_string())).await, home, "a new session");
    }
    order(&homing, server, "disable").await;
    let moved = stays(&homing, &of("1"), 4).await;
    assert_ne!(moved, home);
    order(&homing, server, "enable").await;
    assert_eq!(stays(&homing, &of("1"), 4).await, moved, "no flap back");
}

#[tokio::test]
async fn a_server_that_a_reload_disables_keeps_its_sessions_for_its_time() {
    let servers = servers().await;
    let all = site(&servers.each_ref(), HEADER);
    let homing = all.start().await;
    let home = stays(&homing, &of("1"), 2).await;
    let ip = named(&servers, &home).addr.ip().to_string();
    let without = |grace: &str| {
        all.clone().with(|yaml| {
            let pool = &mut yaml["pools"][0];
            pool["graceful_disable_timeout"] = grace.into();
            let servers = pool["servers"].as_sequence_mut().expect("a list");
            let server = servers.iter_mut().find(|server| server["ip"].as_str() == Some(&ip));
            server.expect("it is one of them")["enabled"] = false.into();
        })
    };
    homing.reloaded(&without("1h")).await;
    assert_eq!(stays(&homing, &of("1"), 4).await, home);
    for session in 2..6 {
        assert_ne!(server_of(&homing, &of(&session.to_string())).await, home, "a new session");
    }
    let shown = homing.command(&["show", "pool", APP]).await;
    assert!(shown.stdout.contains("it keeps its sessions for a while"), "{}", shown.text());
    homing.reloaded(&without("1ms")).await;
    eventually("its time is over", async || server_of(&homing, &of("1")).await != home).await;
    homing.says("a disabled server has no sessions any more").await;
}

/// A session that is to stay at its server, and that server.
async fn determined<'a>(servers: &'a [Origin; 3], recovery: &str) -> (Homing, &'a Origin) {
    let profile = format!("server_hm_down_recovery: {recovery}, {HEADER}");
    let homing = site(&servers.each_ref(), &profile).monitored(APP, "tcp").start().await;
    let home = stays(&homing, &of("1"), 2).await;
    (homing, named(servers, &home))
}

#[tokio::test]
async fn a_session_that_may_not_move_is_refused_until_its_server_is_back() {
    for recovery in ["abort_connection", "continue_persistent_server"] {
        let servers = servers().await;
        let (homing, home) = determined(&servers, recovery).await;
        home.down().await;
        let refused = of("1").send(homing.addr).await;
        assert_eq!(refused.status, 503, "{recovery}, perhaps before the monitor sees it");
        homing.sees(APP, home.addr, false).await;
        assert_eq!(of("1").send(homing.addr).await.status, 503, "{recovery}");
        assert_eq!(of("another").send(homing.addr).await.status, 200, "{recovery}: others are served");
        settles(&homing, "aborted", 2.0).await;
        home.up().await;
        homing.sees(APP, home.addr, true).await;
        assert_eq!(stays(&homing, &of("1"), 3).await, home.name, "{recovery}");
        // Who takes it out means it.
        order(&homing, home, "disable").await;
        assert_ne!(stays(&homing, &of("1"), 3).await, home.name, "{recovery}");
    }
}

#[tokio::test]
async fn a_server_that_is_back_before_its_monitor_says_so_serves_who_insists_on_it() {
    let servers = servers().await;
    let profile = format!("server_hm_down_recovery: HM_DOWN_CONTINUE_PERSISTENT_SERVER, {HEADER}");
    let homing = site(&servers.each_ref(), &profile).monitored(APP, "http").start().await;
    let home = stays(&homing, &of("1"), 2).await;
    let home = named(&servers, &home);
    home.healthy(false);
    homing.sees(APP, home.addr, false).await;
    assert_eq!(stays(&homing, &of("1"), 3).await, home.name, "it is down, and answers");
    assert_ne!(server_of(&homing, &of("2")).await, home.name);
}

#[tokio::test]
async fn a_reload_keeps_every_session_and_one_without_the_server_moves_its_own() {
    let servers = servers().await;
    let before = site(&servers.each_ref(), HEADER);
    let homing = before.start().await;
    let mut homes = Vec::new();
    for session in ["1", "2", "3"] {
        homes.push(stays(&homing, &of(session), 2).await);
    }
    let changed = before.clone().with(|yaml| {
        yaml["application_persistence_profiles"][0]["hdr_persistence_profile"]["timeout"] = "1h".into();
        yaml["pools"][0]["read_timeout"] = "30s".into();
    });
    homing.reloaded(&changed).await;
    for (session, home) in ["1", "2", "3"].iter().zip(&homes) {
        assert_eq!(stays(&homing, &of(session), 3).await, *home);
    }
    let two = before.with(|yaml| {
        let gone = parse(&format!("{{ip: {}}}", named(&servers, &homes[0]).addr.ip()));
        let all = yaml["pools"][0]["servers"].as_sequence_mut().expect("a list");
        all.retain(|server| server["ip"] != gone["ip"]);
        assert_eq!(all.len(), 2);
    });
    homing.reloaded(&two).await;
    assert_ne!(stays(&homing, &of("1"), 3).await, homes[0]);
    for (session, home) in ["2", "3"].iter().zip(&homes[1..]) {
        assert_eq!(stays(&homing, &of(session), 3).await, *home);
    }
}
