//! Operating it: sessions explained, moved and ended, servers drained and disabled, and who may say so.

use std::{os::unix::fs::MetadataExt, time::Duration};

use homing::{
    prelude::{self, Rule, RuleResult, SocketAddr, async_trait},
    server,
};
use serde_json::Value;

use crate::{
    rules::{example, run_here},
    support::{
        client::{Connection, Request},
        config::{APP, CLONES, Federation, Site},
        copies::Mark,
        eventually,
        homing::{Homing, Output, run},
        net,
        origin::{Mode, Origin},
    },
};

/// The session table of [`Site::clone_to`].
const TABLE: &str = "clone:web:clones";

#[tokio::test]
async fn a_session_is_explained_by_whatever_an_operator_knows_of_it() {
    let (homing, _app, [a, b]) = two_members(|site| site).await;
    let secret = "very-secret";
    for _ in 0..3 {
        assert_eq!(ask(&homing, secret).await, 200);
    }
    Request::get("/").send(homing.addr).await;
    let home = home_of(&[&a, &b], secret).await;
    let session = Mark::of(&home.requests()[0]).session;
    let first = explain(&homing, &[secret]).await;
    assert_eq!((&first["value"], &first["requests"]), (&home.addr.to_string().into(), &3.into()));
    assert_eq!((&first["token"], &first["table"]), (&"cookie:SID".into(), &TABLE.into()));
    assert_eq!((&first["virtual_service"], &first["pool_ref"]), (&"web".into(), &CLONES.into()));
    assert_eq!(
        (&first["session"], &first["why"]),
        (&session.into(), &"chosen when the session began".into())
    );
    assert_eq!(first["server_status"]["state"], "OPER_UP");
    let seconds = |field: &str| first[field]["secs"].as_u64().unwrap_or_else(|| panic!("{field} of {first}"));
    assert_eq!(seconds("expires") - seconds("since"), 300);

    let key = first["key"].as_str().expect("a key").to_owned();
    let cookie = format!("cookie:SID={secret}");
    for args in [
        &["--vs", "WEB", secret][..],
        &[TABLE, secret],
        &["CLONE:web:clones", &cookie],
        &["--vs", "web", &cookie],
        &[&key],
        &[first["session"].as_str().expect("a session")],
    ] {
        let again = explain(&homing, args).await;
        assert_eq!((&again["key"], &again["requests"]), (&first["key"], &first["requests"]), "{args:?}");
    }
    for token in ["source_ip=127.0.0.1", "127.0.0.1", "source_ip=::ffff:127.0.0.1"] {
        let of_client = explain(&homing, &[token]).await;
        assert_eq!(
            (&of_client["token"], &of_client["requests"]),
            (&"source_ip".into(), &1.into()),
            "{token}"
        );
    }

    let output = homing.command(&["session", "explain", secret]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    for part in ["cookie:SID", "chosen when the session began", &home.addr.to_string(), "OPER_UP"] {
        assert!(output.stdout.contains(part), "it says {part}:\n{}", output.stdout);
    }
    let listed = homing.command(&["show", "session", TABLE]).await;
    assert!(listed.stdout.contains("chosen when the session began"), "{}", listed.text());
    for said in [output.text(), listed.text(), homing.log()] {
        assert!(!said.contains(secret), "no token is shown or logged: {said}");
    }
}

#[tokio::test]
async fn a_session_that_is_not_found_is_told_with_where_it_was_looked_for() {
    let site = |site: Site| site.neighbour("{name: plain, domain_names: [plain.com], pool_ref: app}");
    let (homing, _app, _members) = two_members(site).await;
    ask(&homing, "1").await;
    explain(&homing, &["1"]).await;
    for (args, parts) in [
        (&["explain", "nobodys"][..], &["no session is known", TABLE, "cookie:SID", "source_ip"][..]),
        (&["explain", TABLE, "nobodys"], &["no session is known", TABLE]),
        (&["explain", "--vs", "web", "nobodys"], &["no session is known"]),
        (&["explain", "--vs", "wbe", "1"], &["virtual service wbe is not known; known: web, plain"]),
        (&["explain", "--vs", "plain", "1"], &["virtual service plain has no clone section"]),
        (&["explain", "clone:web", "1"], &["session table clone:web is not known; known: clone:web:clones"]),
        (&["explain", "0123456789abcdef"], &["no session is known"]),
        (&["delete", "nobodys"], &["no session is known"]),
        (&["move", "nobodys", "127.0.0.1:1"], &["no session is known"]),
    ] {
        let output = homing.command(&[&["session"], args].concat()).await;
        assert_eq!(output.code, Some(1), "{args:?}: {}", output.text());
        for part in parts {
            assert!(output.stderr.contains(part), "{args:?} says {part}: {}", output.text());
        }
        assert!(!output.stderr.contains("nobodys"), "a token is not repeated: {}", output.text());
    }
    for args in [&["explain", "--vs", "web", TABLE, "1"][..], &["move", "1"], &["move", "1", "there"]] {
        let output = homing.command(&[&["session"], args].concat()).await;
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.text());
    }
}

#[tokio::test]
async fn a_moved_session_goes_on_at_its_new_member_with_its_numbers() {
    let (homing, _app, [a, b]) = two_members(|site| site).await;
    for _ in 0..2 {
        ask(&homing, "1").await;
    }
    let home = home_of(&[&a, &b], "1").await;
    let other = if home.addr == a.addr { &b } else { &a };
    let (addr, stranger) = (other.addr.to_string(), net::free_addr().to_string());
    let seqs = async |member: &Origin, n: usize| {
        member.got(n).await.iter().map(|copy| Mark::of(copy).seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(home, 2).await, [1, 2]);

    let refused = session(&homing, &["move", "--vs", "web", "1", &stranger]).await;
    assert_eq!(refused.code, Some(1));
    let members =
        format!("{} is not a member of clone pool clones; members: {}, {}", stranger, a.addr, b.addr);
    assert!(refused.stderr.contains(&members), "{}", refused.text());
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string(), "it stays");

    let moved = session(&homing, &["move", TABLE, "cookie:SID=1", &addr]).await;
    assert_eq!(moved.code, Some(0), "{}", moved.text());
    assert!(moved.stdout.contains("ordered by an operator"), "{}", moved.stdout);
    for _ in 0..2 {
        ask(&homing, "1").await;
    }
    assert_eq!(seqs(other, 2).await, [3, 4]);
    assert_eq!(seqs(home, 2).await, [1, 2]);
    let now = explain(&homing, &["1"]).await;
    assert_eq!((&now["value"], &now["why"]), (&addr.clone().into(), &"ordered by an operator".into()));
    let log = homing.log();
    let line = log.lines().find(|line| line.contains("session is moved by an operator")).expect(&log);
    for part in [TABLE, &addr, "by=\"127.0.0.1:", now["session"].as_str().expect("a session")] {
        assert!(line.contains(part), "it says {part}: {line}");
    }
    assert!(log.contains("admin write") && log.contains("path=\"/api/v1/sessions/move\""), "{log}");
    assert!(!log.contains("SID=1"), "{log}");
}

#[tokio::test]
async fn a_session_is_not_moved_to_a_member_that_is_down_unless_forced() {
    let (homing, _app, [a, b]) = two_members(|site| site.monitored(CLONES, "tcp")).await;
    ask(&homing, "1").await;
    let home = home_of(&[&a, &b], "1").await;
    let other = if home.addr == a.addr { &b } else { &a };
    let addr = other.addr.to_string();
    order(&homing, CLONES, other, "drain").await;
    let refused = session(&homing, &["move", "1", &addr]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("drains"), "{}", refused.text());
    order(&homing, CLONES, other, "disable").await;
    for args in [&["move", "1", &addr][..], &["move", "--force", "1", &addr]] {
        let refused = session(&homing, args).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("enable it first"), "{}", refused.text());
    }
    order(&homing, CLONES, other, "enable").await;
    other.down().await;
    homing.sees(CLONES, other.addr, false).await;
    let refused = session(&homing, &["move", "1", &addr]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("connection refused"), "{}", refused.text());
    assert!(refused.stderr.contains("use force"), "{}", refused.text());
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string());

    let forced = session(&homing, &["move", "--force", "1", &addr]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.text());
    let at_other = explain(&homing, &["1"]).await;
    assert_eq!(
        (&at_other["value"], &at_other["server_status"]["state"]),
        (&addr.into(), &"OPER_DOWN".into())
    );
    ask(&homing, "1").await;
    let back = explain(&homing, &["1"]).await;
    assert_eq!((&back["value"], &back["requests"]), (&home.addr.to_string().into(), &2.into()));
    assert_eq!(back["why"], "chosen when the server before was not up");
}

#[tokio::test]
async fn a_deleted_session_begins_anew() {
    let (homing, _app, [a, b]) = two_members(|site| site).await;
    for _ in 0..2 {
        ask(&homing, "1").await;
    }
    let home = home_of(&[&a, &b], "1").await.addr;
    let deleted = session(&homing, &["delete", "--vs", "web", "cookie:SID=1"]).await;
    assert_eq!(deleted.code, Some(0), "{}", deleted.text());
    assert!(deleted.stdout.contains(&home.to_string()), "it says what it was: {}", deleted.stdout);
    assert_eq!(session(&homing, &["explain", "1"]).await.code, Some(1));
    assert_eq!(session(&homing, &["delete", "1"]).await.code, Some(1), "it is gone");
    ask(&homing, "1").await;
    assert_eq!(explain(&homing, &["1"]).await["requests"], 1);
    eventually("its copies are numbered from 1 again", async || {
        let copies = [a.requests(), b.requests()].concat();
        copies.iter().filter(|copy| Mark::of(copy).seq == 1).count() == 2
    })
    .await;
    assert!(homing.log().contains("session is deleted by an operator"), "{}", homing.log());
}

#[tokio::test]
async fn a_token_that_names_two_sessions_changes_neither() {
    let site = |site: Site| {
        site.vs(
            "clone",
            "[{pool_ref: clones, tokens: ['cookie:SID']}, {pool_ref: app, tokens: ['cookie:SID']}]",
        )
    };
    let (homing, app, [a, b]) = two_members(site).await;
    ask(&homing, "1").await;
    let output = session(&homing, &["explain", "1", "--output", "json"]).await;
    let both: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(both.as_array().map(Vec::len), Some(2), "{both}");
    for args in [&["delete", "--vs", "web", "1"][..], &["move", "1", &app.addr.to_string()]] {
        let refused = session(&homing, args).await;
        assert_eq!(refused.code, Some(1), "{}", refused.text());
        assert!(
            refused.stderr.contains("say which table: clone:web:clones, clone:web:app"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(session(&homing, &["delete", "clone:web:app", "1"]).await.code, Some(0));
    let home = home_of(&[&a, &b], "1").await;
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string());
}

#[tokio::test]
async fn a_clone_member_that_drains_keeps_its_sessions_and_gets_no_new_ones() {
    let (homing, _app, [a, b]) =
        two_members(|site| site.clone_section("clone_selection", "round_robin")).await;
    for session in 0..6 {
        ask(&homing, &format!("old-{session}")).await;
    }
    let before = homes(&homing, "old", 6).await;
    assert!([&a, &b].iter().all(|member| before.contains(&member.addr.to_string())), "{before:?}");
    let drained = order(&homing, CLONES, &a, "drain").await;
    assert_eq!(drained["admin_state"]["state"], "draining");
    for session in 0..6 {
        ask(&homing, &format!("old-{session}")).await;
        ask(&homing, &format!("new-{session}")).await;
    }
    assert_eq!(homes(&homing, "old", 6).await, before);
    assert_eq!(homes(&homing, "new", 6).await, vec![b.addr.to_string(); 6]);

    order(&homing, CLONES, &a, "disable").await;
    homing.sees(CLONES, a.addr, false).await;
    for session in 0..6 {
        ask(&homing, &format!("old-{session}")).await;
    }
    assert_eq!(homes(&homing, "old", 6).await, vec![b.addr.to_string(); 6]);
    order(&homing, CLONES, &a, "enable").await;
    for session in 0..6 {
        ask(&homing, &format!("newer-{session}")).await;
    }
    assert!(homes(&homing, "newer", 6).await.contains(&a.addr.to_string()));
    assert_eq!(homes(&homing, "old", 6).await, vec![b.addr.to_string(); 6], "there is no flap back");
}

#[tokio::test]
async fn an_app_server_that_drains_or_is_disabled_is_not_picked_and_ends_what_it_has() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    let mut under_way = Vec::new();
    a.set(Mode::Held);
    for _ in 0..2 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/under-way")).await.expect("the request is read");
        under_way.push(client);
    }
    a.began(1).await;
    for verb in ["drain", "disable"] {
        b.take();
        order(&homing, APP, &a, verb).await;
        for _ in 0..10 {
            assert_eq!(Request::get("/").send(homing.addr).await.server(), "b", "{verb}");
        }
        assert_eq!(a.started().len(), 1, "{verb}");
    }
    a.release(1);
    for mut client in under_way {
        assert_eq!(
            client.answer().await.expect("it is answered").status,
            200,
            "a request under way ends well"
        );
    }
    order(&homing, APP, &b, "drain").await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503, "nobody takes what is new");
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    assert_eq!(pool["oper_status"]["reason"], "every server that is up drains");
    order(&homing, APP, &a, "enable").await;
    a.set(Mode::Ok);
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "a");
}

/// Persistence as a rule does it: requests that name a server go to it.
struct Persistent;

#[async_trait]
impl Rule for Persistent {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        match request.header("X-Server-Is").map(str::to_owned) {
            Some(server) => request.server(APP, server.parse::<SocketAddr>()?),
            None => Ok(()),
        }
    }
}

#[tokio::test]
async fn an_app_server_that_drains_keeps_what_a_rule_sends_it_and_a_disabled_one_does_not() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let site = example("persistent", &a).with(|yaml| {
        yaml["pools"][0]["servers"] = Site::new(&[&a, &b]).yaml["pools"][0]["servers"].clone();
    });
    let running = run_here(&site, server::Homing::builder().rule("persistent", Persistent)).await;
    let ask = async |server: Option<&Origin>| {
        let request = server.map_or(Request::get("/"), |server| {
            Request::get("/").header("X-Server-Is", &server.addr.to_string())
        });
        let answer = request.send(site.addr).await;
        (answer.status, answer.server().to_owned())
    };
    for (verb, persistent) in [("drain", (200, "a".to_owned())), ("disable", (503, String::new()))] {
        let path = format!("/api/v1/pools/{APP}/servers/{}/{verb}", a.addr);
        assert_eq!(Request::new("POST", &path).send(site.admin).await.status, 200);
        assert_eq!(ask(Some(&a)).await, persistent, "{verb}");
        assert_eq!(ask(None).await, (200, "b".to_owned()), "{verb}");
    }
    running.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_order_is_shown_with_its_author_and_its_time_and_is_logged() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let homing = Site::new(&[&a, &b]).start().await;
    let drained = order(&homing, APP, &a, "drain").await;
    let by = drained["admin_state"]["by"].as_str().expect("an author");
    assert!(by.starts_with("127.0.0.1:"), "{by}");
    assert!(drained["admin_state"]["since"]["secs"].as_u64().is_some_and(|secs| secs > 1_700_000_000));
    assert_eq!(drained["oper_status"]["state"], "OPER_UP");
    let shown = homing.command(&["show", "pool", "APP"]).await;
    for part in ["draining", by, "it keeps its sessions and gets no new ones"] {
        assert!(shown.stdout.contains(part), "it shows {part}:\n{}", shown.stdout);
    }
    assert_eq!(homing.json("/api/v1/pools/app").await["servers"][1].get("admin_state"), None);
    homing.sees(APP, a.addr, true).await;
    let log = homing.log();
    for part in ["server is draining by an operator", by, "admin write", "/drain"] {
        assert!(log.contains(part), "it logs {part}: {log}");
    }
    let enabled = order(&homing, APP, &a, "enable").await;
    assert_eq!((&enabled["admin_state"]["state"], &enabled["enabled"]), (&"enabled".into(), &true.into()));
}

#[tokio::test]
async fn an_order_that_cannot_be_done_says_what_there_is() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new();
    let site = fed.site_a(&[&a, &b]).with(|yaml| yaml["pools"][0]["servers"][1]["enabled"] = false.into());
    let homing = site.start().await;
    let (a, b, nobody) = (a.addr.to_string(), b.addr.to_string(), net::free_addr().to_string());
    let peer = homing.json("/api/v1/pools/SP-gs-web@site_A").await["servers"][0].clone();
    let peer = format!("{}:{}", peer["ip"].as_str().expect("an address"), peer["port"]);
    for (pool, server, code, part) in [
        ("apps", &a, 1, "pool apps is not known; known: app".to_owned()),
        ("app", &nobody, 1, format!("pool app has no server {nobody}; servers: {a}, {b}")),
        ("app", &b, 1, format!("server {b} of pool app is disabled in the configuration")),
        ("SP-gs-web@site_A", &peer, 1, "drain the site".to_owned()),
        ("app", &"here".to_owned(), 2, "invalid".to_owned()),
    ] {
        let output = homing.command(&["pool", pool, "server", server, "drain"]).await;
        assert_eq!(output.code, Some(code), "{}", output.text());
        assert!(output.stderr.contains(&part), "it says {part}: {}", output.text());
    }
    assert_eq!(homing.command(&["pool", "app", "server", &a, "stop"]).await.code, Some(2));
    let pool = homing.json("/api/v1/pools/app").await;
    assert!(
        pool["servers"].as_array().is_some_and(|all| all.iter().all(|it| it.get("admin_state").is_none()))
    );
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let (homing, app, [a, b]) = two_members(|site| site).await;
    ask(&homing, "1").await;
    let home = home_of(&[&a, &b], "1").await;
    let other = if home.addr == a.addr { b.addr } else { a.addr };
    let own = homing.admin.to_string();
    let writes = [
        ("POST", format!("/api/v1/pools/app/servers/{}/disable", app.addr)),
        ("POST", format!("/api/v1/sessions/move?token=1&server={other}")),
        ("DELETE", "/api/v1/sessions?token=1".to_owned()),
    ];
    for (method, path) in &writes {
        for (name, value) in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
            let request = Request::new(method, path).host(&own).header(name, value);
            let answer = request.send(homing.admin).await;
            assert_eq!(answer.status, 403, "{method} {path} {name}");
        }
    }
    assert_eq!(explain(&homing, &["1"]).await["value"], home.addr.to_string());
    assert_eq!(ask(&homing, "1").await, 200);
    eventually("refused writes are logged too", async || {
        homing.log().lines().filter(|line| line.contains("admin write") && line.contains("403")).count() == 6
    })
    .await;
    for (method, path) in &writes {
        let request = Request::new(method, path).host(&own).header("Origin", &format!("http://{own}"));
        assert_eq!(request.send(homing.admin).await.status, 200, "its own page may: {method} {path}");
    }
}

#[tokio::test]
async fn over_a_unix_socket_the_user_is_the_author() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = format!("unix:{}", dir.path().join("admin.sock").display());
    let site = Site::new(&[&app]).with(|yaml| yaml["admin"]["listen"] = socket.as_str().into());
    let homing = Homing::spawn(&site).await;
    let addr = app.addr.to_string();
    let drain = ["pool", APP, "server", &addr, "drain", "--output", "json", "--admin", &socket];
    let mut said = String::new();
    eventually("it can be commanded", async || {
        let output = run(&drain).await;
        said = output.stdout.clone();
        output.code == Some(0)
    })
    .await;
    let server: Value = serde_json::from_str(&said).expect("JSON");
    let uid = std::fs::metadata(dir.path()).expect("it is there").uid();
    assert_eq!(server["admin_state"]["by"], format!("uid {uid}"));
    assert!(homing.log().contains(&format!("uid {uid}")), "{}", homing.log());
}

/// An app and two clone members, which [`Site::clone_to`] names, with a change of the site.
async fn two_members(change: impl FnOnce(Site) -> Site) -> (Homing, Origin, [Origin; 2]) {
    let app = Origin::start("app").await;
    let members = [Origin::start("c0").await, Origin::start("c1").await];
    let homing = change(Site::new(&[&app]).clone_to(&members.each_ref())).start().await;
    (homing, app, members)
}

async fn ask(homing: &Homing, session: &str) -> u16 {
    Request::get("/").cookie(&format!("SID={session}")).send(homing.addr).await.status
}

/// The member that a session has.
async fn home_of<'a>(members: &[&'a Origin], token: &str) -> &'a Origin {
    let cookie = format!("SID={token}");
    let got = |member: &&&Origin| member.requests().iter().any(|copy| copy.cookies() == cookie);
    eventually("a member gets the session", async || members.iter().any(|member| got(&member))).await;
    members.iter().find(got).expect("one got it")
}

/// Where sessions `NAME-0`, `NAME-1`, … are.
async fn homes(homing: &Homing, name: &str, sessions: usize) -> Vec<String> {
    let mut homes = Vec::new();
    for session in 0..sessions {
        let found = explain(homing, &[&format!("{name}-{session}")]).await;
        homes.push(found["value"].as_str().expect("a member").to_owned());
    }
    homes
}

async fn session(homing: &Homing, args: &[&str]) -> Output {
    homing.command(&[&["session"], args].concat()).await
}

/// The one session that is meant.
async fn explain(homing: &Homing, args: &[&str]) -> Value {
    let output = session(homing, &[&["explain", "--output", "json"], args].concat()).await;
    assert_eq!(output.code, Some(0), "{args:?}: {}", output.text());
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{args:?}: {found}");
    found[0].clone()
}

/// Commands a server; what it is then.
async fn order(homing: &Homing, pool: &str, server: &Origin, verb: &str) -> Value {
    let addr = server.addr.to_string();
    let output = homing.command(&["pool", pool, "server", &addr, verb, "--output", "json"]).await;
    assert_eq!(output.code, Some(0), "{}", output.text());
    serde_json::from_str(&output.stdout).expect("JSON")
}
