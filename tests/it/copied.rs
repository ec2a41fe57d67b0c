//! What is copied: which requests, how much of them and under which names, and what never is.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    routing::websocket,
    support::{
        after,
        client::{Connection, Request},
        config::{CLONES, Federation, Site, parse},
        copies::{Mark, by_session, copies},
        eventually,
        origin::{Mode, Origin, hex},
        site_cookie::{A, Cookie},
        soon,
    },
};

#[tokio::test]
async fn only_the_methods_and_paths_of_a_section_are_copied_and_the_rest_leaves_no_gap() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app])
        .clone_to(&[&clone])
        .clone_section("methods", "[GET, POST]")
        .clone_section("paths", "[/login, '/api/*']")
        .start()
        .await;
    let mut client = Connection::open(homing.addr).await;
    for (method, target) in [
        ("GET", "/api/1?x=/login"),
        ("GET", "/static/a.css?/api/"),
        ("DELETE", "/api/2"),
        ("POST", "/login?user=1"),
        ("GET", "/login/x"),
        ("GET", "/api/3"),
    ] {
        let request = Request::new(method, target).cookie("SID=1");
        assert_eq!(client.ask(&request).await.status, 200, "{method} {target}");
    }
    let copies = clone.got(3).await;
    let seen = copies.iter().map(|copy| (copy.target.as_str(), Mark::of(copy).seq)).collect::<Vec<_>>();
    assert_eq!(seen, [("/api/1?x=/login", 1), ("/login?user=1", 2), ("/api/3", 3)]);
    let filtered = [("vs", "web"), ("pool", CLONES), ("reason", "filtered")];
    homing.settles("homing_clone_skipped_total", &filtered, 3.0).await;
    homing.settles("homing_clone_skipped_total", &[], 3.0).await;
    homing.settles("homing_clone_copies_total", &[("outcome", "answered")], 3.0).await;
}

#[tokio::test]
async fn a_request_that_is_not_copied_keeps_its_session_alive_and_starts_none() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app])
        .clone_to(&[&clone])
        .clone_section("timeout", "900ms")
        .clone_section("paths", "['/api/*']")
        .start()
        .await;
    let mut client = Connection::open(homing.addr).await;
    client.ask(&Request::get("/other").cookie("SID=2")).await;
    assert_eq!(homing.metric("homing_session_entries", &[]).await, 0.0);
    for target in ["/api/1", "/other", "/other", "/other", "/api/2"] {
        client.ask(&Request::get(target).cookie("SID=1")).await;
        after(Duration::from_millis(400)).await;
    }
    let seqs = clone.got(2).await.iter().map(|copy| Mark::of(copy).seq).collect::<Vec<_>>();
    assert_eq!(seqs, [1, 2]);
}

#[tokio::test]
async fn a_copy_of_headers_only_has_no_body_and_says_so() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("headers_only", "true");
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for body in [vec![b'x'; 300_000], b"small".to_vec()] {
        assert_eq!(client.ask(&Request::post("/", body).cookie("SID=1")).await.status, 200);
    }
    client.ask(&Request::get("/").cookie("SID=1")).await;
    let copies = clone.got(3).await;
    let seen = copies.iter().map(|copy| (copy.body_len, copy.header("x-homing-truncated")));
    assert_eq!(seen.collect::<Vec<_>>(), [(0, Some("0")), (0, Some("0")), (0, None)]);
    assert_eq!(app.got(3).await.iter().map(|got| got.body_len).collect::<Vec<_>>(), [300_000, 5, 0]);
    for (outcome, count) in [("truncated", 2.0), ("answered", 1.0)] {
        homing.settles("homing_clone_copies_total", &[("outcome", outcome)], count).await;
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_cut_in_the_copy_alone() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("max_body_bytes", "100KiB");
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for len in [100 << 10, (100 << 10) + 1, 1_000_000] {
        let answer = client.ask(&Request::post("/", vec![b'x'; len]).cookie("SID=1")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(app.take()[0].body_len, len as u64);
    }
    let lens = clone.got(3).await.iter().map(|copy| copy.body_len).collect::<Vec<_>>();
    assert_eq!(lens, [100 << 10; 3]);
    for (outcome, count) in [("answered", 1.0), ("truncated", 2.0)] {
        homing.settles("homing_clone_copies_total", &[("outcome", outcome)], count).await;
    }
}

#[tokio::test]
async fn a_copy_has_the_host_and_the_path_prefix_of_its_section() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app])
        .clone_to(&[&clone])
        .clone_section("host", "shadow.a.com:8080")
        .clone_section("rewrite_path_prefix", "{from: /api, to: /shadow/api}")
        .start()
        .await;
    let mut client = Connection::open(homing.addr).await;
    for target in ["/api?a=b", "/api/v1/%20x", "/apis"] {
        client.ask(&Request::get(target).cookie("SID=1")).await;
    }
    let copies = clone.got(3).await;
    let targets = copies.iter().map(|copy| copy.target.as_str()).collect::<Vec<_>>();
    assert_eq!(targets, ["/shadow/api?a=b", "/shadow/api/v1/%20x", "/apis"]);
    assert!(copies.iter().all(|copy| copy.headers.all("host") == ["shadow.a.com:8080"]));
    let hosts =
        app.got(3).await.iter().map(|got| got.header("host").map(str::to_owned)).collect::<BTreeSet<_>>();
    assert_eq!(hosts, BTreeSet::from([Some("a.com".to_owned())]), "the app is not concerned");
}

#[tokio::test]
async fn each_clone_pool_has_its_own_tokens_sample_and_lists_and_none_minds_anothers_outage() {
    let (app, all, half, gone) = (
        Origin::start("app").await,
        Origin::start("all").await,
        Origin::start("half").await,
        Origin::absent("gone").await,
    );
    let homing = Site::new(&[&app])
        .pool("all", &[&all])
        .pool("half", &[&half])
        .pool("gone", &[&gone])
        .vs(
            "clone",
            "[{ pool_ref: gone, tokens: [source_ip], paths: ['/api/*'] },
              { pool_ref: half, tokens: ['cookie:SID'], sample: 50%, headers_only: true },
              { pool_ref: all, tokens: ['header:X-Session'] }]",
        )
        .start()
        .await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..80 {
        let path = if n % 4 == 0 { "api" } else { "other" };
        let request = Request::post(&format!("/{path}/{n}"), "body")
            .cookie(&format!("SID={}", n % 40))
            .header("X-Session", "one for all");
        assert_eq!(client.ask(&request).await.status, 200);
    }
    let got = all.got(80).await;
    let seqs = got.iter().map(|copy| Mark::of(copy).seq).collect::<BTreeSet<_>>();
    assert_eq!(seqs, (1..=80).collect(), "one session");
    assert!(got.iter().all(|copy| copy.body_len == 4 && !copy.cookies().is_empty()));

    let settles = async |name, pool, reason, count| {
        homing.settles(name, &[("pool", pool), ("reason", reason)], count).await;
    };
    settles("homing_clone_dropped_total", "gone", "connect", 20.0).await;
    settles("homing_clone_skipped_total", "gone", "filtered", 60.0).await;
    let left_out =
        homing.metric("homing_clone_skipped_total", &[("pool", "half"), ("reason", "sampled_out")]).await;
    let sampled = half.got(80 - left_out as usize).await;
    assert!((20..=60).contains(&sampled.len()), "{} of 80", sampled.len());
    assert!(sampled.iter().all(|copy| copy.body_len == 0 && Mark::of(copy).seq <= 2), "40 sessions of two");
    homing.settles("homing_clone_copies_total", &[("pool", "all"), ("outcome", "answered")], 80.0).await;
}

#[tokio::test]
async fn a_clone_pool_that_is_full_leaves_room_to_the_others() {
    let (app, stuck, sound) =
        (Origin::start("app").await, Origin::start("stuck").await, Origin::start("sound").await);
    stuck.set(Mode::NeverRead);
    let homing = Site::new(&[&app])
        .pool("stuck", &[&stuck])
        .pool("sound", &[&sound])
        .vs(
            "clone",
            "[{ pool_ref: stuck, tokens: [source_ip], max_buffered_bytes: 64KiB },
              { pool_ref: sound, tokens: [source_ip] }]",
        )
        .start()
        .await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..200 {
        assert_eq!(client.ask(&Request::post("/", vec![b'x'; 60_000])).await.status, 200);
    }
    sound.got(200).await;
    homing.settles("homing_clone_copies_total", &[("pool", "sound"), ("outcome", "answered")], 200.0).await;
    homing.counts("homing_clone_dropped_total", &[("pool", "stuck"), ("reason", "budget")], 1.0).await;
    assert_eq!(homing.metric("homing_clone_dropped_total", &[("pool", "sound")]).await, 0.0);
}

#[tokio::test]
async fn a_sample_is_whole_sessions_and_every_node_takes_the_same() {
    let app = Origin::start("app").await;
    let nodes = [Origin::start("first").await, Origin::start("second").await];
    let mut samples = Vec::new();
    for clone in &nodes {
        let site = Site::new(&[&app]).clone_to(&[clone]).clone_section("sample", "30%");
        let homing = site.start().await;
        let mut client = Connection::open(homing.addr).await;
        for n in 0..300 {
            let session = n % 100;
            client.ask(&Request::get(&format!("/{session}/{n}")).cookie(&format!("SID={session}"))).await;
        }
        let taken = async || homing.metric("homing_clone_copies_total", &[("outcome", "answered")]).await;
        let left = async || homing.metric("homing_clone_skipped_total", &[("reason", "sampled_out")]).await;
        eventually("all is counted", async || taken().await + left().await == 300.0).await;
        samples.push(by_session(&copies(&[clone], taken().await as usize).await));
    }
    let sessions = samples.iter().map(|sample| sample.keys().collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(sessions[0], sessions[1], "both nodes take the same");
    assert!((15..=45).contains(&sessions[0].len()), "{} of 100 sessions", sessions[0].len());
    assert!(samples.iter().flatten().all(|(_, got)| got.len() == 3), "whole: {samples:?}");
}

#[tokio::test]
async fn a_copy_that_comes_back_is_served_and_not_copied_again() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).clone_to(&[&app]);
    let (ip, port) = (site.addr.ip().to_string(), site.addr.port());
    let homing = site
        .with(|yaml| yaml["pools"][1]["servers"] = parse(&format!("[{{ip: {ip}, port: {port}}}]")))
        .start()
        .await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..5 {
        client.ask(&Request::post(&format!("/{n}"), "body").cookie("SID=1")).await;
    }
    homing.settles("homing_clone_skipped_total", &[("reason", "loop")], 5.0).await;
    homing.settles("homing_clone_copies_total", &[("outcome", "answered")], 5.0).await;
    let (copies, originals): (Vec<_>, Vec<_>) =
        app.got(10).await.into_iter().partition(|got| got.header("x-homing-clone").is_some());
    assert_eq!((copies.len(), originals.len()), (5, 5), "who gets a copy next can tell it too");
}

#[tokio::test]
async fn nodes_that_share_a_key_know_each_others_copies() {
    let app = Origin::start("app").await;
    let fed = Federation::new();
    let federated = (fed.site_a(&[&app]), fed.site_b(&[&app]));
    let with_key = |site: Site| {
        site.file("marks.key", &hex(&[7; 32])).with(|yaml| yaml["clone_mark_key_file"] = "marks.key".into())
    };
    let with_file = (with_key(Site::new(&[&app])), with_key(Site::new(&[&app])));
    for (what, (a, b)) in [("a federation", federated), ("a key file", with_file)] {
        let copies_to = |site: Site, other: std::net::SocketAddr| {
            let servers = format!("[{{ip: {}, port: {}}}]", other.ip(), other.port());
            site.clone_to(&[&app]).with(|yaml| yaml["pools"][1]["servers"] = parse(&servers))
        };
        let (to_a, to_b) = (a.addr, b.addr);
        let (a, b) = (copies_to(a, to_b).start().await, copies_to(b, to_a).start().await);
        assert_eq!(Request::get("/").send(a.addr).await.status, 200, "{what}");
        b.settles("homing_clone_skipped_total", &[("reason", "loop")], 1.0).await;
        a.settles("homing_clone_copies_total", &[("outcome", "answered")], 1.0).await;
        for name in ["homing_clone_copies_total", "homing_clone_dropped_total"] {
            assert_eq!(b.metric(name, &[]).await, 0.0, "{what}: {name}");
        }
    }
}

#[tokio::test]
async fn a_client_that_marks_its_requests_does_not_keep_them_from_being_copied() {
    let (app, clone, other) =
        (Origin::start("app").await, Origin::start("clone").await, Origin::start("other").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let foreign = Site::new(&[&app]).clone_to(&[&other]).start().await;
    Request::get("/").send(foreign.addr).await;
    let foreign = other.got(1).await[0].header("x-homing-clone").expect("a mark").to_owned();
    let forged = format!("{}mac=0123456789abcdef", foreign.split("mac=").next().expect("a mark"));
    app.take();
    for (n, mark) in ["1", "", &forged, &foreign].into_iter().enumerate() {
        let request = Request::get("/").cookie("SID=1").header("X-Homing-Clone", mark);
        assert_eq!(request.send(homing.addr).await.status, 200);
        let copy = clone.got(n + 1).await.remove(n);
        assert_eq!((Mark::of(&copy).vs.as_str(), Mark::of(&copy).seq), ("web", n as u64 + 1), "{mark}");
        assert_ne!(copy.header("x-homing-clone"), Some(mark));
        assert_eq!(app.got(n + 1).await[n].header("x-homing-clone"), None, "{mark}");
    }
    homing.settles("homing_clone_skipped_total", &[], 0.0).await;

    let plain = Site::new(&[&app]).start().await;
    app.take();
    Request::get("/").header("X-Homing-Clone", "1").send(plain.addr).await;
    assert_eq!(app.got(1).await[0].header("x-homing-clone"), None, "without a clone pool too");
}

#[tokio::test]
async fn a_tunnel_is_not_copied_and_counted_as_skipped() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("the request is read");
    assert_eq!(client.head().await.expect("an answer").status(), 101);
    client.wire.write("through the tunnel").await.expect("the tunnel takes bytes");
    soon("an echo", client.wire.exactly(18)).await.expect("the tunnel gives bytes");
    drop(client);
    Request::get("/after").send(homing.addr).await;
    assert_eq!(clone.got(1).await[0].target, "/after");
    homing.settles("homing_clone_skipped_total", &[("reason", "upgrade")], 1.0).await;
    homing.settles("homing_clone_copies_total", &[], 1.0).await;
    assert_eq!(clone.started().len(), 1);
}

#[tokio::test]
async fn the_site_cookie_and_the_hop_header_are_never_copied() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Federation::new().site_a(&[&app]).clone_to(&[&clone]).start().await;
    let request = Request::get("/")
        .cookie(&format!("a=1; FOO={}; b=2", Cookie::of(A).seal()))
        .header("Homing-Hop", "v=1;kid=forged")
        .header("Homing-Hop-Refused", "app");
    assert_eq!(request.send(homing.addr).await.status, 200);
    let copy = clone.got(1).await.remove(0);
    assert_eq!(copy.cookies(), "a=1; b=2");
    assert_eq!((copy.header("homing-hop"), copy.header("homing-hop-refused")), (None, None));
}
