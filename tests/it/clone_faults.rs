//! The app never waits for the clone: whatever its members do, requests are answered as if they were not there.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::support::{
    client::{Connection, Request},
    config::{CLONES, Site, parse},
    copies::Mark,
    eventually,
    homing::Homing,
    origin::{HALF_AN_ANSWER, Mode, Origin},
};

#[tokio::test]
async fn members_that_are_absent_silent_or_deaf_delay_and_fail_no_request() {
    for (what, mode) in [
        ("absent", None),
        ("reads and never answers", Some(Mode::NeverAnswer)),
        ("accepts and never reads", Some(Mode::NeverRead)),
        ("answers 500", Some(Mode::Status(500))),
        ("breaks off its answers", Some(Mode::RawClose(HALF_AN_ANSWER))),
        ("closes without an answer", Some(Mode::RawClose(Bytes::new()))),
        ("does not speak HTTP", Some(Mode::Raw(Bytes::from_static(b"\r\n\r\n220 mail.example ESMTP\r\n")))),
        ("answers without end", Some(Mode::Raw(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\nfor ever")))),
    ] {
        let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
        match mode {
            Some(mode) => clone.set(mode),
            None => clone.down().await,
        }
        let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
        let begun = Instant::now();
        let mut client = Connection::open(homing.addr).await;
        for n in 0..150 {
            let answer =
                client.ask(&Request::post(&format!("/{n}"), "small").cookie(&format!("SID={}", n % 5))).await;
            assert_eq!((answer.status, answer.server()), (200, "app"), "a member that {what}");
        }
        for _ in 0..5 {
            let answer = client.ask(&Request::post("/large", vec![b'x'; 1 << 20])).await;
            assert_eq!(answer.status, 200, "a member that {what}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "a member that {what}: {:?}", begun.elapsed());
    }
}

/// Envoy 1.40 froze the app for 12 to 25 seconds here.
#[tokio::test]
async fn a_large_body_reaches_the_app_while_the_member_reads_nothing_of_it() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    clone.set(Mode::NeverRead);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..4 {
        let answer = client.ask(&Request::post("/large", vec![b'x'; 6 << 20])).await;
        assert_eq!((answer.status, app.take()[0].body_len), (200, 6 << 20));
        assert_eq!(client.ask(&Request::get("/next")).await.status, 200);
        app.take();
    }
    assert!(clone.requests().is_empty(), "the member has still read nothing");
}

/// nginx lets the next request of a kept connection wait for the mirror's answer.
#[tokio::test]
async fn the_next_request_of_a_kept_connection_does_not_wait_for_the_answer_to_the_copy() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    clone.set(Mode::Held);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for (n, body) in [4, 1 << 20, 4, 1 << 20].into_iter().enumerate() {
        let request = Request::post(&format!("/{n}"), vec![b'x'; body]).cookie(&format!("SID={n}"));
        assert_eq!(client.ask(&request).await.status, 200);
        clone.got(1).await;
    }
    let answered = [("outcome", "answered")];
    assert_eq!(homing.metric("homing_clone_copies_total", &answered).await, 0.0, "no copy is answered yet");
    clone.release(4);
    homing.settles("homing_clone_copies_total", &answered, 4.0).await;
}

#[tokio::test]
async fn a_member_that_is_killed_within_bodies_fails_no_request() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut clients = Vec::new();
    for n in 0..8 {
        let mut client = Connection::open(homing.addr).await;
        let head = Request::new("POST", "/").header("Content-Length", "1000000").cookie(&format!("SID={n}"));
        client.send(&head).await.expect("the head is read");
        client.wire.write(vec![b'x'; 500_000]).await.expect("the body is read");
        clients.push(client);
    }
    clone.began(8).await;
    clone.down().await;
    for client in &mut clients {
        client.wire.write(vec![b'x'; 500_000]).await.expect("the body is read");
        assert_eq!(client.answer().await.expect("an answer").status, 200);
        assert_eq!(client.ask(&Request::get("/next")).await.status, 200, "and the connection is kept");
    }
    assert!(app.requests().iter().all(|request| request.body_len == 1_000_000 || request.target == "/next"));
    eventually("16 outcomes are counted", async || outcomes(&homing).await == 16.0).await;
    homing.settles("homing_clone_copies_total", &[("outcome", "failed"), ("reason", "closed")], 8.0).await;
}

#[tokio::test]
async fn lost_copies_are_told_in_the_log_in_one_line_for_many() {
    let (app, clone) = (Origin::start("app").await, Origin::absent("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).pool("off", &[&clone]).with(|yaml| {
        let clone = yaml["virtual_services"][0]["clone"].clone();
        yaml["virtual_services"][0]["clone"] =
            vec![clone, parse("{pool_ref: off, tokens: [source_ip]}")].into();
        yaml["pools"].as_sequence_mut().expect("pools are a list")[2]["enabled"] = false.into();
    });
    let homing = site.start().await;
    for _ in 0..50 {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    }
    let lines = || {
        let log = homing.log();
        let lines = log.lines().filter(|line| line.contains("clone copies lost")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let of = |what: &[&str]| lines().iter().filter(|line| what.iter().all(|it| line.contains(it))).count();
    let server = format!("server={}", clone.addr);
    eventually("both losses are told", async || {
        of(&["vs=web", "pool=clones", &server, "reason=\"connect\"", "copies="]) == 1
            && of(&["vs=web", "pool=off", "reason=\"no_server\"", "copies="]) == 1
    })
    .await;
    assert_eq!(lines().len(), 2, "{:?}", lines());
}

#[tokio::test]
async fn copies_beyond_the_budget_are_dropped_and_counted() {
    const BUDGET: f64 = (1 << 20) as f64;
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    clone.set(Mode::NeverRead);
    let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("max_buffered_bytes", "1MiB");
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..400 {
        let request = Request::post("/", vec![b'x'; 60_000]).cookie(&format!("SID={n}"));
        assert_eq!(client.ask(&request).await.status, 200);
        if n % 50 == 0 {
            let held = homing.metric("homing_clone_buffered_bytes", &[("pool", CLONES)]).await;
            assert!(held <= BUDGET, "{held} bytes are held");
        }
    }
    homing.counts("homing_clone_dropped_total", &[("vs", "web"), ("pool", CLONES)], 1.0).await;
}

#[tokio::test]
async fn an_outage_of_the_whole_clone_pool_is_counted_and_ends() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).monitored(CLONES, "tcp").start().await;
    homing.sees(CLONES, clone.addr, true).await;
    clone.down().await;
    homing.sees(CLONES, clone.addr, false).await;
    assert_eq!(Request::get("/lost").send(homing.addr).await.status, 200);
    homing.counts("homing_clone_dropped_total", &[("vs", "web"), ("pool", CLONES)], 1.0).await;
    clone.up().await;
    homing.sees(CLONES, clone.addr, true).await;
    assert_eq!(Request::get("/found").send(homing.addr).await.status, 200);
    assert_eq!(clone.got(1).await[0].target, "/found");
}

#[tokio::test]
async fn every_request_ends_in_one_outcome() {
    for mode in [Mode::Ok, Mode::Close, Mode::Status(500), Mode::RawClose(Bytes::new())] {
        let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
        clone.set(mode.clone());
        let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
        let mut client = Connection::open(homing.addr).await;
        for n in 0..60 {
            client.ask(&Request::get("/").cookie(&format!("SID={n}"))).await;
        }
        eventually(&format!("60 outcomes are counted ({mode:?})"), async || outcomes(&homing).await == 60.0)
            .await;
        let answered = homing.metric("homing_clone_copies_total", &[("outcome", "answered")]).await;
        match mode {
            Mode::Ok | Mode::Status(_) => assert_eq!(answered, 60.0, "{mode:?}"),
            Mode::RawClose(_) => assert_eq!(answered, 0.0, "{mode:?}"),
            _ => {}
        }
        eventually("nothing is held any more", async || {
            homing.metric("homing_clone_buffered_bytes", &[]).await == 0.0
        })
        .await;
    }
}

#[tokio::test]
async fn copies_travel_on_a_few_kept_connections() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..300 {
        client.ask(&Request::post(&format!("/{}", n % 30), "body").cookie(&format!("SID={}", n % 30))).await;
    }
    let copies = clone.got(300).await;
    let lanes = copies.iter().map(|copy| (&copy.target, copy.connection)).collect::<BTreeSet<_>>();
    assert_eq!(lanes.len(), 30, "a session's copies share a connection, so they arrive in order");
    assert!(clone.connections() <= 4, "{} connections", clone.connections());
}

#[tokio::test]
async fn a_clients_abort_aborts_the_copy_and_spoils_no_other() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    for len in [1_000, 1_000_000] {
        let mut client = Connection::open(homing.addr).await;
        let head =
            Request::new("POST", "/aborted").header("Content-Length", &len.to_string()).cookie("SID=1");
        client.send(&head).await.expect("the head is read");
        client.wire.write(vec![b'x'; len / 2]).await.expect("the body is read");
        eventually("the server gets half", async || {
            app.started().last().is_some_and(|it| it.body_len as usize == len / 2)
        })
        .await;
    }
    for n in 0..5 {
        Request::post(&format!("/{n}"), "whole").cookie("SID=1").send(homing.addr).await;
    }
    let whole = clone.got(5).await;
    assert!(
        whole.iter().all(|copy| copy.target != "/aborted"),
        "a copy without an end is not taken for whole"
    );
    eventually("seven outcomes are counted", async || outcomes(&homing).await == 7.0).await;
}

#[tokio::test]
async fn a_member_that_returns_gets_copies_again_without_any_monitor() {
    let (app, clone) = (Origin::start("app").await, Origin::absent("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    for _ in 0..5 {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    }
    clone.up().await;
    eventually("copies arrive again", async || {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        !clone.requests().is_empty()
    })
    .await;
}

#[tokio::test]
async fn several_clone_pools_get_copies_by_their_own_tokens() {
    let app = Origin::start("app").await;
    let (first, second) = (Origin::start("first").await, Origin::start("second").await);
    let site = Site::new(&[&app])
        .pool("first", &[&first])
        .pool("second", &[&second])
        .vs("clone", "[{pool_ref: first, tokens: ['cookie:SID']}, {pool_ref: second, tokens: [source_ip]}]");
    let homing = site.start().await;
    assert_eq!(Request::get("/both").cookie("SID=1").send(homing.addr).await.status, 200);
    first.got(1).await;
    second.got(1).await;
    Request::get("/one").cookie("SID=2").send(homing.addr).await;
    let sessions = async |pool: &Origin| {
        let marks = pool.got(2).await.iter().map(|copy| Mark::of(copy).session).collect::<BTreeSet<_>>();
        marks.len()
    };
    assert_eq!((sessions(&first).await, sessions(&second).await), (2, 1), "by cookie, by address");
}

/// Copies, dropped and skipped ones together.
async fn outcomes(homing: &Homing) -> f64 {
    let mut sum = 0.0;
    for name in ["homing_clone_copies_total", "homing_clone_dropped_total", "homing_clone_skipped_total"] {
        sum += homing.metric(name, &[("vs", "web")]).await;
    }
    sum
}
