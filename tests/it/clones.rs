//! Clone pools: every session's copies arrive at one member, whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use homing::{
    clock::Clock,
    config::{self, OnError},
    filter::ClonePools,
    metrics::Metrics,
    prelude::{Setup, Simulator},
    rule::{ChainEntry, Services},
    session::SessionTable,
};
use sha2::{Digest, Sha256};

use crate::support::{
    after,
    certs::cert_for,
    client::{Connection, Request},
    config::{APP, CLONES, Site},
    copies::{Mark, by_session, copies},
    homing::Homing,
    origin::{Mode, Origin, hex},
};

#[tokio::test]
async fn a_session_keeps_its_member_and_sessions_spread_over_the_members() {
    let (app, members) = (Origin::start("app").await, three().await);
    let homing = Site::new(&[&app]).clone_to(&members.each_ref()).start().await;
    let mut client = Connection::open(homing.addr).await;
    for request in 0..4 {
        for session in 0..45 {
            client.ask(&of(session, request)).await;
        }
    }
    let got = copies(&members.each_ref(), 180).await;
    assert_eq!(got.len(), 180, "every request is copied once");
    let sessions = by_session(&got);
    assert_eq!(sessions.len(), 45);
    for (session, members) in &sessions {
        assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), 1, "{session} is split over {members:?}");
    }
    for member in &members {
        let share = sessions.values().filter(|got| got[0] == member.name).count();
        assert!(share >= 3, "of 45 sessions {} has {share}", member.name);
    }
    homing.settles("homing_clone_copies_total", &[("vs", "web"), ("pool", CLONES)], 180.0).await;
}

#[tokio::test]
async fn members_behind_tls_get_copies_unless_their_certificate_is_not_trusted() {
    let app = Origin::start("app").await;
    let clone = Origin::start_tls("clone", &cert_for(&["clone.test"])).await;
    for (verify, metric) in [(false, "homing_clone_copies_total"), (true, "homing_clone_dropped_total")] {
        // Members that offer no HTTP/2 get HTTP/1.1.
        let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("http2", "true").with(|yaml| {
            let clones = &mut yaml["pools"][1];
            clones["enable_ssl"] = true.into();
            clones["sni"] = "clone.test".into();
            clones["verify"] = verify.into();
        });
        let homing = site.start().await;
        for (path, body) in [("/small", 10), ("/large", 1_000_000)] {
            let request = Request::post(path, vec![b'x'; body]).cookie("SID=1");
            assert_eq!(request.send(homing.addr).await.status, 200);
        }
        homing.settles(metric, &[("vs", "web"), ("pool", CLONES)], 2.0).await;
    }
    let got: BTreeSet<_> =
        clone.got(2).await.iter().map(|copy| (copy.target.clone(), copy.body_len)).collect();
    assert_eq!(got, BTreeSet::from([("/small".to_owned(), 10), ("/large".to_owned(), 1_000_000)]));
}

#[tokio::test]
async fn simultaneous_first_requests_of_a_session_go_to_one_member() {
    let (app, members) = (Origin::start("app").await, three().await);
    let site = Site::new(&[&app]).clone_to(&members.each_ref()).with(|yaml| yaml["threads"] = 4.into());
    let homing = site.start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Connection::open(homing.addr).await);
    }
    for session in 0..1000 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&of(session, n)).await.expect("the request is read");
        }
        for client in &mut clients {
            assert_eq!(client.answer().await.expect("an answer").status, 200);
        }
    }
    let sessions = by_session(&copies(&members.each_ref(), 8000).await);
    assert_eq!(sessions.len(), 1000);
    for (session, got) in sessions {
        assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 1, "{session} is split over {got:?}");
        assert_eq!(got.len(), 8);
    }
}

#[tokio::test]
async fn sessions_of_a_member_that_is_down_move_the_others_stay_and_none_comes_back() {
    let (app, members) = (Origin::start("app").await, three().await);
    let site = Site::new(&[&app]).clone_to(&members.each_ref()).monitored(CLONES, "tcp");
    let homing = site.start().await;
    for member in &members {
        homing.sees(CLONES, member.addr, true).await;
    }
    let before = round(&homing, &members).await;
    let lost = &members[0];
    lost.down().await;
    homing.sees(CLONES, lost.addr, false).await;
    let during = round(&homing, &members).await;
    for (session, member) in &before {
        let now = &during[session];
        match *member == lost.name {
            true => assert_ne!(*now, lost.name, "{session} moves"),
            false => assert_eq!(now, member, "{session} stays"),
        }
    }
    lost.up().await;
    homing.sees(CLONES, lost.addr, true).await;
    assert_eq!(round(&homing, &members).await, during, "no flap-back");
}

#[tokio::test]
async fn the_first_token_of_the_chain_that_a_request_has_names_its_session() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let same = [
        vec![
            Request::get("/").cookie("SID=1").header("X-Session", "a"),
            Request::get("/").cookie("other=0; SID=1"),
            Request::get("/").cookie("a=b").cookie("SID=1").header("X-Session", "b"),
        ],
        vec![
            Request::get("/").header("X-Session", "a").cookie("sid=1"),
            Request::get("/").header("x-session", "a"),
        ],
        vec![Request::get("/").header("X-Session", "b")],
        vec![Request::get("/"), Request::get("/other").cookie("XSID=1")],
    ];
    let mut sessions = Vec::new();
    for (n, requests) in same.iter().enumerate() {
        for request in requests {
            request.send(homing.addr).await;
            sessions.push((n, mark_of_next(&clone).await.session));
        }
    }
    let distinct = sessions.iter().collect::<BTreeSet<_>>();
    assert_eq!(distinct.len(), same.len(), "one session for each group: {sessions:?}");
    let hashes = sessions.iter().map(|(_, session)| session).collect::<BTreeSet<_>>();
    assert_eq!(hashes.len(), same.len(), "no two groups share a session: {sessions:?}");
}

#[tokio::test]
async fn a_query_parameter_or_a_claim_of_a_bearer_token_may_name_the_session() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("tokens", "['jwt:sub', 'query:sid']");
    let homing = site.start().await;
    let bearer = |claims: &str| {
        let parts = [r#"{"alg":"none"}"#, claims, "signature"].map(|part| URL_SAFE_NO_PAD.encode(part));
        Request::get("/?sid=other").header("Authorization", &format!("Bearer {}", parts.join(".")))
    };
    let mut sessions = Vec::new();
    for request in [
        bearer(r#"{"sub":"u1","iat":1}"#),
        bearer(r#"{"iat":2,"sub":"u1"}"#),
        bearer(r#"{"sub":"u2"}"#),
        Request::get("/?a=b&sid=u1"),
        Request::get("/?sid=u1&c=d"),
        Request::get("/?sid=u2"),
    ] {
        request.send(homing.addr).await;
        sessions.push(mark_of_next(&clone).await.session);
    }
    assert_eq!(sessions[0], sessions[1]);
    assert_eq!(sessions[3], sessions[4]);
    assert_eq!(sessions.iter().collect::<BTreeSet<_>>().len(), 4, "{sessions:?}");
}

#[tokio::test]
async fn clients_with_nothing_else_are_told_apart_by_their_address() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut sessions = Vec::new();
    for from in ["127.0.0.71", "127.0.0.71", "127.0.0.72"] {
        let from = from.parse().expect("an address");
        let mut client = Connection::open_from(from, homing.addr).await.expect("the listener accepts");
        client.ask(&Request::get("/")).await;
        sessions.push(mark_of_next(&clone).await.session);
    }
    assert_eq!(sessions[0], sessions[1], "another connection from one address");
    assert_ne!(sessions[0], sessions[2], "another address");
}

#[tokio::test]
async fn a_request_without_any_token_of_the_chain_is_copied_to_some_member_and_starts_no_session() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).clone_section("tokens", "['cookie:SID']");
    let homing = site.start().await;
    assert_eq!(Request::get("/without").send(homing.addr).await.status, 200);
    let copy = clone.got(1).await.remove(0);
    assert_eq!(Mark::of(&copy).seq, 0, "it is not one of a session's");
    homing.settles("homing_session_entries", &[], 0.0).await;
}

#[tokio::test]
async fn a_copy_is_the_request_without_what_belongs_to_one_connection_or_is_secret() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let request = Request::post("/path?q=1&r=%20", "the body")
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .header("Authorization", "Basic secret")
        .header("Proxy-Authorization", "Basic secret")
        .header("Connection", "keep-alive, X-Private")
        .header("X-Private", "1")
        .header("TE", "trailers")
        .header("Expect", "100-continue")
        .header("Content-Type", "text/plain")
        .cookie("SID=1; b=2");
    let request = Request { method: "PATCH".to_owned(), ..request };
    assert_eq!(request.send(homing.addr).await.status, 200);
    let (got, copy) = (app.got(1).await.remove(0), clone.got(1).await.remove(0));
    assert_eq!((copy.method.as_str(), copy.target.as_str()), ("PATCH", "/path?q=1&r=%20"));
    assert_eq!((copy.body_len, &copy.body_sha), (8, &got.body_sha));
    assert_eq!(copy.headers.all("x-twice"), ["1", "2"]);
    assert_eq!((copy.header("host"), copy.header("content-type")), (Some("a.com"), Some("text/plain")));
    assert_eq!(copy.cookies(), "SID=1; b=2");
    for gone in ["authorization", "proxy-authorization", "x-private", "te", "expect", "keep-alive"] {
        assert_eq!(copy.header(gone), None, "{gone} is not copied");
    }
    assert_eq!(got.header("authorization"), Some("Basic secret"), "the server gets it");
    assert_eq!(got.header("x-homing-clone"), None, "only copies are marked");
}

#[tokio::test]
async fn a_request_that_asks_for_another_protocol_than_websocket_is_served_and_copied_like_any_other() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let upgrade = |request: Request, to: &str| request.header("Connection", "Upgrade").header("Upgrade", to);
    let mut client = Connection::open(homing.addr).await;
    for (n, to) in ["h2c", "TLS/1.0, HTTP/2.0"].into_iter().enumerate() {
        assert_eq!(client.ask(&upgrade(Request::post("/", "the body"), to)).await.status, 200, "{to}");
        let copy = clone.got(n + 1).await.remove(n);
        assert_eq!((copy.method.as_str(), copy.body_len, copy.header("upgrade")), ("POST", 8, None), "{to}");
    }
    app.set(Mode::Held);
    let both = [upgrade(Request::get("/first"), "h2c").bytes(), Request::get("/second").bytes()].concat();
    client.wire.write(both).await.expect("the requests are read");
    app.began(3).await;
    app.release(2);
    for _ in 0..2 {
        assert_eq!(client.answer().await.expect("an answer").status, 200, "the next request waits its turn");
    }
    assert_eq!(clone.got(4).await.len(), 4);
}

#[tokio::test]
async fn a_copy_tells_the_clients_address_and_scheme_and_nothing_that_the_client_says_of_them() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut request = Request::get("/").header("X-Forwarded-For", "203.0.113.9");
    for forged in ["X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded"] {
        request = request.header(forged, "forged");
    }
    assert_eq!(request.send(homing.addr).await.status, 200);
    let copy = clone.got(1).await.remove(0);
    assert_eq!(copy.headers.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(copy.headers.all("x-forwarded-proto"), ["http"]);
    let forged: Vec<_> = copy.headers.0.iter().filter(|(_, value)| value == "forged").collect();
    assert!(forged.is_empty(), "{forged:?}");
}

#[tokio::test]
async fn headers_are_stripped_and_set_as_configured() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app])
        .clone_to(&[&clone])
        .clone_section("strip_headers", "[cookie, X-Internal]")
        .clone_section("set_headers", "{X-Copied-By: tests}");
    let homing = site.start().await;
    Request::get("/")
        .cookie("SID=1")
        .header("x-internal", "1")
        .header("Authorization", "kept")
        .send(homing.addr)
        .await;
    let copy = clone.got(1).await.remove(0);
    assert_eq!((copy.header("cookie"), copy.header("x-internal")), (None, None));
    assert_eq!(copy.header("x-copied-by"), Some("tests"));
    assert_eq!(copy.header("authorization"), Some("kept"), "a list of one's own replaces the default");
    assert_eq!(app.got(1).await[0].header("x-copied-by"), None);
}

#[tokio::test]
async fn copies_are_numbered_within_their_session() {
    let (app, members) = (Origin::start("app").await, three().await);
    let homing = Site::new(&[&app]).clone_to(&members.each_ref()).start().await;
    let mut client = Connection::open(homing.addr).await;
    for request in 0..5 {
        for session in 0..3 {
            client.ask(&of(session, request)).await;
        }
    }
    let mut marks = BTreeMap::<_, Vec<_>>::new();
    for (_, copy) in copies(&members.each_ref(), 15).await {
        let mark = Mark::of(&copy);
        assert_eq!(mark.vs, "web");
        marks.entry(mark.session.clone()).or_default().push((copy.target, mark));
    }
    assert_eq!(marks.len(), 3);
    for copies in marks.values_mut() {
        copies.sort_by_key(|(_, mark)| mark.seq);
        assert_eq!(copies.iter().map(|(_, mark)| mark.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert!(copies.iter().is_sorted_by_key(|(target, _)| target.clone()), "in the order of the requests");
    }
    let ids = marks.values().flatten().map(|(_, mark)| &mark.id).collect::<BTreeSet<_>>();
    assert_eq!(ids.len(), 15, "every request has an id of its own");
}

#[tokio::test]
async fn a_session_ends_when_it_was_idle_for_the_timeout_and_each_request_puts_that_off() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).clone_section("timeout", "900ms").start().await;
    let mut seqs = Vec::new();
    for pause in [400, 400, 400, 1500, 0] {
        Request::get("/").cookie("SID=1").send(homing.addr).await;
        seqs.push(mark_of_next(&clone).await.seq);
        after(Duration::from_millis(pause)).await;
    }
    assert_eq!(seqs, [1, 2, 3, 4, 1]);
}

#[tokio::test]
async fn where_only_new_connections_refresh_a_session_its_requests_do_not_put_off_its_end() {
    // When it begins anew, its turn comes to the next member. Seconds, and which of two connections.
    let requests = [(0, 0), (200, 0), (350, 0), (550, 1), (800, 0), (900, 0)];
    for (refresh, expected) in [("request", [0, 0, 0, 0, 0, 0]), ("connection", [0, 0, 1, 1, 1, 2])] {
        let site = Site::new(&[]).clone_to(&[]).clone_section("clone_selection", "round_robin");
        let simulator = simulate(&site.clone_section("refresh", refresh));
        let connections = [simulator.connect(None).await, simulator.connect(None).await];
        let (mut members, mut now) = (Vec::new(), 0);
        for (at, connection) in requests {
            simulator.advance(Duration::from_secs(at - now));
            now = at;
            let request = connections[connection].send("/", &[("Cookie", "SID=1")]).await;
            members.push(request.clones()[0].server());
        }
        let expected = expected.map(|member| MEMBERS[member].parse().expect("an address"));
        assert_eq!(members, expected, "{refresh}");
    }
}

#[tokio::test]
async fn a_session_that_gains_a_token_stays_whole() {
    let (app, members) = (Origin::start("app").await, three().await);
    let homing = Site::new(&[&app]).clone_to(&members.each_ref()).start().await;
    for login in 0..8 {
        let from = format!("127.0.1.{}", login + 10).parse().expect("an address");
        let mut client = Connection::open_from(from, homing.addr).await.expect("the listener accepts");
        let set =
            format!("HTTP/1.1 200 OK\r\nSet-Cookie: SID=new{login}; Path=/\r\nContent-Length: 0\r\n\r\n");
        app.set(Mode::Raw(set.into()));
        client.ask(&Request::get(&format!("/{login}/login"))).await;
        app.set(Mode::Ok);
        client.ask(&Request::get(&format!("/{login}/next")).cookie(&format!("SID=new{login}"))).await;
    }
    for (session, got) in by_session(&copies(&members.each_ref(), 16).await) {
        assert_eq!(got[0], got[1], "session {session}");
    }
}

#[tokio::test]
async fn a_large_body_streams_to_the_member_while_it_arrives() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let body = (0..3_000_000u32).flat_map(|n| (n as u16).to_be_bytes()).collect::<Vec<_>>();
    let (first, rest) = body.split_at(1_000_000);
    let mut client = Connection::open(homing.addr).await;
    let head = Request::new("POST", "/").header("Content-Length", &body.len().to_string());
    client.send(&head).await.expect("the head is read");
    client.wire.write(first).await.expect("the body is read");
    crate::support::eventually("the member gets what has come", async || {
        clone.started().first().is_some_and(|copy| copy.body_len >= 900_000)
    })
    .await;
    client.wire.write(rest).await.expect("the body is read");
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    assert_eq!(clone.got(1).await[0].body_sha, hex(&Sha256::digest(&body)));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_copied_whole() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).start().await;
    let mut client = Connection::open(homing.addr).await;
    for chunks in ["0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"] {
        let head = Request::new("POST", "/").header("Transfer-Encoding", "chunked");
        client.send(&head).await.expect("the head is read");
        client.wire.write(chunks).await.expect("the body is read");
        assert_eq!(client.answer().await.expect("an answer").status, 200);
    }
    let lens = clone.got(3).await.iter().map(|copy| copy.body_len).collect::<Vec<_>>();
    assert_eq!(lens, [0, 5, 6]);
}

#[tokio::test]
async fn a_request_that_is_tried_on_two_servers_is_copied_once() {
    let (gone, app, clone) =
        (Origin::absent("gone").await, Origin::start("app").await, Origin::start("clone").await);
    let homing = Site::new(&[&gone, &app]).clone_to(&[&clone]).start().await;
    for _ in 0..6 {
        assert_eq!(Request::post("/", vec![b'x'; 30_000]).send(homing.addr).await.status, 200);
    }
    homing.counts("homing_pool_retries_total", &[("pool", APP)], 3.0).await;
    let sha = hex(&Sha256::digest(vec![b'x'; 30_000]));
    let copies = clone.got(6).await;
    assert!(
        copies.iter().all(|copy| copy.body_sha == sha && copy.body_len == 30_000),
        "no chunk is copied twice"
    );
    homing.settles("homing_clone_copies_total", &[], 6.0).await;
}

/// Request number `request` of a session.
fn of(session: usize, request: usize) -> Request {
    Request::post(&format!("/{session}/{request}"), "body").cookie(&format!("SID=s{session}"))
}

async fn three() -> [Origin; 3] {
    [Origin::start("c0").await, Origin::start("c1").await, Origin::start("c2").await]
}

/// One request of each of 30 sessions; who got which.
async fn round(homing: &Homing, members: &[Origin; 3]) -> BTreeMap<String, String> {
    members.iter().for_each(|member| drop(member.take()));
    let mut client = Connection::open(homing.addr).await;
    for session in 0..30 {
        assert_eq!(client.ask(&of(session, 0)).await.status, 200);
    }
    let got = copies(&members.each_ref(), 30).await;
    assert_eq!(got.len(), 30, "every request is copied once");
    by_session(&got).into_iter().map(|(session, mut members)| (session, members.remove(0))).collect()
}

/// Takes the next copy and reads its mark.
async fn mark_of_next(clone: &Origin) -> Mark {
    clone.got(1).await;
    Mark::of(&clone.take()[0])
}

const MEMBERS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

/// The clone section of a site alone, in virtual time, with these members.
fn simulate(site: &Site) -> Simulator {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config::load(&site.write(dir.path()), &[]).expect("the configuration is right").config;
    let (metrics, clock) = (Metrics::new(), Clock::system());
    let sessions = Arc::new(SessionTable::new(1, [0; 16], &metrics, clock.now()));
    let setup = Setup {
        config: &serde_yaml::Value::Null,
        virtual_service: &config.virtual_services[0],
        services: &Arc::new(Services::new(Default::default(), sessions, clock, None)),
        metrics: &metrics,
        site: None,
    };
    let rules = ClonePools::for_virtual_service(&setup).into_iter();
    let entry = |rule| ChainEntry { name: "clone".into(), rule, on_error: OnError::FailClosed };
    Simulator::with_chain(rules.map(entry).collect()).pool(CLONES, MEMBERS)
}
