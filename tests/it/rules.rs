//! Rules: the examples as a user builds them, and homing's own features compiled outside the crate.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use homing::{
    prelude::{self, Bytes, LbEvent, RequestData, Response, Rule, RuleResult, Setup, async_trait},
    server::{self, Running},
};

use crate::{
    filter,
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::{CLONES, Federation, Site, parse},
        eventually,
        homing::Homing,
        origin::{Mode, Origin},
        site_cookie::{B, Cookie},
        soon,
        tls::{Profile, TlsClient},
        wire::chunk,
    },
};

#[tokio::test]
async fn the_irule_of_the_article_keeps_a_tls_session_at_its_clone_member() {
    let app = Origin::start("app").await;
    let members = [Origin::start("c1").await, Origin::start("c2").await, Origin::start("c3").await];
    let cert = cert_for(&["a.com"]);
    let site = example("clone_pool_persistence", &app)
        .tls(&cert)
        .pool("MY_CLONEPOOL", &members.each_ref())
        .monitored("MY_CLONEPOOL", "tcp")
        .with(|yaml| {
            yaml["pools"][0]["name"] = "MY_APPPOOL".into();
            yaml["virtual_services"][0].as_mapping_mut().expect("an object").remove("pool_ref");
        });
    let homing = start(&site, "clone_pool_persistence").await;
    let copies = async |n: usize| {
        eventually("the copies arrive", async || {
            members.iter().map(|member| member.requests().len()).sum::<usize>() >= n
        })
        .await;
        members.iter().map(|member| member.take().len()).collect::<Vec<_>>()
    };

    for _ in 0..8 {
        let client = TlsClient::new(Profile::TLS13);
        let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
        for _ in 0..3 {
            assert_eq!(connection.ask(&Request::get("/")).await.server(), "app");
        }
        let mut resumed = Connection::over(client.resume(homing.addr, "a.com").await);
        assert_eq!(resumed.ask(&Request::get("/")).await.status, 200);
        let got = copies(4).await;
        assert!(got.contains(&4), "one session's copies are split: {got:?}");
    }

    let client = TlsClient::new(Profile::TLS13);
    let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
    connection.ask(&Request::get("/")).await;
    let home = copies(1).await.iter().position(|got| *got == 1).expect("one member got the copy");
    members[home].down().await;
    homing.sees("MY_CLONEPOOL", members[home].addr, false).await;
    let mut resumed = Connection::over(client.resume(homing.addr, "a.com").await);
    assert_eq!(resumed.ask(&Request::get("/")).await.status, 200);
    let got = copies(1).await;
    assert_eq!(got[home], 0, "a member that is down gets no copies");
    members[home].up().await;
    homing.sees("MY_CLONEPOOL", members[home].addr, true).await;
    let mut again = Connection::over(client.resume(homing.addr, "a.com").await);
    assert_eq!(again.ask(&Request::get("/")).await.status, 200);
    assert_eq!(copies(1).await, got, "the session stays where it moved to");
}

#[tokio::test]
async fn the_canary_is_chosen_by_header_and_sticks_to_a_client() {
    let (stable, canary) = (Origin::start("stable").await, Origin::start("canary").await);
    let site = example("canary_by_header", &stable)
        .with(|yaml| yaml["rules"][0] = parse("{name: canary, config: {pool: canary, percent: 50}}"))
        .pool("canary", &[&canary])
        .vs("rule_refs", "[canary]");
    let homing = start(&site, "canary_by_header").await;
    let ask = async |header: Option<&str>| {
        let request = Request::get("/");
        let request = match header {
            Some(value) => request.header("X-Canary", value),
            None => request,
        };
        let answer = request.send(homing.addr).await;
        (answer.server().to_owned(), answer.header("X-Release").map(str::to_owned))
    };
    assert_eq!(ask(Some("always")).await, ("canary".to_owned(), Some("canary".to_owned())));
    assert_eq!(ask(Some("never")).await, ("stable".to_owned(), None));
    let first = ask(None).await;
    for _ in 0..5 {
        assert_eq!(ask(None).await, first);
    }
}

#[tokio::test]
async fn a_rule_may_keep_a_request_here_that_would_have_been_sent_home() {
    let (stable, canary, home) =
        (Origin::start("stable").await, Origin::start("canary").await, Origin::start("home").await);
    let fed = Federation::new();
    let b = fed.site_b(&[&home]).start().await;
    let site = fed
        .site_a(&[&stable])
        .push("rules", "{name: canary, config: {pool: canary, percent: 0}}")
        .vs("rule_refs", "[canary]")
        .pool("canary", &[&canary]);
    let a = start(&site, "canary_by_header").await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    let request = |header| {
        let cookie = format!("FOO={}", Cookie::of(B).seal());
        Request::get("/").cookie(&cookie).header("X-Canary", header)
    };
    assert_eq!(request("never").send(a.addr).await.server(), "home");
    assert_eq!(request("always").send(a.addr).await.server(), "canary");
    let got = &canary.requests()[0];
    assert_eq!((got.header("homing-hop"), got.cookies().as_str()), (None, ""));
    for (outcome, count) in [("proxied", 1.0), ("local", 1.0)] {
        a.counts("homing_sp_requests_total", &[("outcome", outcome)], count).await;
    }
}

#[tokio::test]
async fn a_rule_that_refuses_its_configuration_is_named_at_the_start() {
    let app = Origin::start("app").await;
    let site = example("canary_by_header", &app)
        .with(|yaml| yaml["rules"][0] = parse("{name: canary, config: {percent: 101}}"))
        .vs("rule_refs", "[canary]");
    let mut homing = Homing::spawn_program(&program("canary_by_header"), &site).await;
    assert!(!homing.ended().await.success());
    let message = "`percent` is 101; write a number from 0 to 100";
    eventually("the message is told", async || homing.log().contains(message)).await;
}

#[tokio::test]
async fn the_maintenance_page_is_shown_while_the_file_is_there_and_when_no_server_is_up() {
    let app = Origin::start("app").await;
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("maintenance");
    let rule = format!("{{name: maintenance, config: {{file: '{}', page: 'back soon'}}}}", file.display());
    let site = example("maintenance_page", &app)
        .with(|yaml| yaml["rules"][0] = parse(&rule))
        .vs("rule_refs", "[maintenance]")
        .monitored(crate::support::config::APP, "tcp");
    let homing = start(&site, "maintenance_page").await;
    let status = async || Request::get("/").send(homing.addr).await.status;
    assert_eq!(status().await, 200);
    std::fs::write(&file, "").expect("a file can be written");
    eventually("the page is shown", async || status().await == 503).await;
    let answer = Request::get("/").send(homing.addr).await;
    assert_eq!((answer.header("Retry-After"), &answer.body[..]), (Some("120"), &b"back soon"[..]));
    std::fs::remove_file(&file).expect("the file can be removed");
    eventually("the app is back", async || status().await == 200).await;

    app.down().await;
    homing.sees(crate::support::config::APP, app.addr, false).await;
    let answer = Request::get("/").send(homing.addr).await;
    assert_eq!((answer.status, &answer.body[..]), (503, &b"back soon"[..]));
}

#[tokio::test]
async fn an_interim_answer_passes_as_the_server_sent_it_and_rules_see_the_final_one() {
    struct Stamp;

    #[async_trait]
    impl Rule for Stamp {
        async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
            let status = response.status().to_string();
            response.set_header("X-Seen", &status)
        }
    }

    let app = Origin::start("app").await;
    app.set(Mode::Raw(Bytes::from_static(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nHoming-Hop-Refused: app\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )));
    let site = example("stamp", &app);
    let _running = run_here(&site, server::Homing::builder().rule("stamp", Stamp)).await;
    let mut client = Connection::open(site.addr).await;
    client.send(&Request::get("/")).await.expect("homing reads the request");
    let hints = soon("early hints", client.wire.head()).await.expect("an answer").expect("a head");
    assert_eq!((hints.status(), hints.headers.get("link")), (103, Some("</a.css>")));
    assert_eq!((hints.headers.get("x-seen"), hints.headers.get("homing-hop-refused")), (None, None));
    let answer = client.answer().await.expect("a final answer");
    assert_eq!((answer.status, answer.headers.all("x-seen")), (200, vec!["200"]));
}

#[tokio::test]
async fn a_rule_changes_what_the_server_gets_of_a_body_and_the_copy_is_what_the_client_sent() {
    /// Passes the pieces that begin with `+`, without it, and counts all.
    struct Sieve(Arc<AtomicUsize>);

    #[async_trait]
    impl Rule for Sieve {
        fn http_request_data(&self, data: &mut RequestData<'_>) -> RuleResult {
            self.0.fetch_add(1, Ordering::Relaxed);
            *data.chunk = data.chunk.take().filter(|chunk| chunk.starts_with(b"+")).map(|it| it.slice(1..));
            Ok(())
        }
    }

    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    app.set(Mode::EchoBody);
    let seen = Arc::new(AtomicUsize::new(0));
    let site = example("sieve", &app).clone_to(&[&clone]);
    let _running = run_here(&site, server::Homing::builder().rule("sieve", Sieve(seen.clone()))).await;
    let mut client = Connection::open(site.addr).await;
    let head = Request::new("POST", "/").header("Transfer-Encoding", "chunked");
    client.send(&head).await.expect("the head is read");
    client.wire.write(chunk(b"+first")).await.expect("the body is read");
    let head = client.head().await.expect("the answer begins");
    let mut framing = client.framing(&head);
    let echoed = soon("an echo", client.wire.piece(&mut framing)).await.expect("a whole piece");
    assert_eq!(echoed.as_deref(), Some(&b"first"[..]));
    client.wire.write(chunk(b"swallowed")).await.expect("the body is read");
    eventually("the rule swallows", async || seen.load(Ordering::Relaxed) == 2).await;
    client.wire.write([&chunk(b"+last")[..], b"0\r\n\r\n"].concat()).await.expect("the body is read");
    let rest = soon("the rest", client.wire.body(framing)).await.expect("the answer comes whole");
    assert_eq!(rest, "last");
    assert_eq!((app.got(1).await[0].body_len, clone.got(1).await[0].body_len), (9, 20));
}

#[test]
fn homings_own_features_need_nothing_but_the_public_prelude() {
    // That this compiles is the test: `filter` is the crate's own source, included by this one.
    type MakesOne = fn(&Setup<'_>) -> Option<Arc<dyn Rule>>;
    let _: MakesOne = filter::SitePersistence::for_virtual_service;
    let _: MakesOne = filter::HttpsRedirect::for_virtual_service;
    let _: MakesOne = filter::HttpRules::for_virtual_service;
    let _: MakesOne = filter::ErrorPages::for_virtual_service;
    let _: MakesOne = filter::AppPersistence::for_virtual_service;
    let _: fn(&Setup<'_>) -> Vec<Arc<dyn Rule>> = filter::ClonePools::for_virtual_service;
}

/// One virtual service that names a rule.
pub fn example(rule: &str, app: &Origin) -> Site {
    Site::new(&[app]).push("rules", &format!("{{name: {rule}}}")).vs("rule_refs", &format!("[{rule}]"))
}

/// Sends what finds no server to a spare pool.
struct Spare;

#[async_trait]
impl Rule for Spare {
    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        match lb.server() {
            None if lb.pool().as_str() != "spare" => lb.reselect_from("spare"),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_rule_may_choose_another_pool_when_no_server_is_up() {
    let (app, spare) = (Origin::absent("app").await, Origin::start("spare").await);
    let site = example("spare", &app).pool("spare", &[&spare]);
    let running = run_here(&site, server::Homing::builder().rule("spare", Spare)).await;
    let answer = Request::post("/", "the body").send(site.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "spare"));
    assert_eq!(spare.requests()[0].body_len, 8);
    running.shutdown(Duration::from_secs(1)).await;
}

/// Prefers the server that a header names, unless the path says otherwise.
struct Prefer;

#[async_trait]
impl Rule for Prefer {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        if let Some(server) = request.header("x-server") {
            let server = server.parse()?;
            request.prefer(server);
        }
        match request.path() {
            "/persist-none" => request.persist_none(),
            "/spare" => request.pool("spare")?,
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_preferred_server_is_taken_while_it_is_up_and_no_rule_says_otherwise() {
    let (one, two, spare) =
        (Origin::start("one").await, Origin::start("two").await, Origin::start("spare").await);
    let site = example("prefer", &one)
        .with(|yaml| yaml["pools"][0]["servers"].as_sequence_mut().expect("a list").push(server(&two)))
        .pool("spare", &[&spare]);
    let running = run_here(&site, server::Homing::builder().rule("prefer", Prefer)).await;
    let ask = async |path: &str, server: &Origin| {
        let request = Request::get(path).header("X-Server", &server.addr.to_string());
        let answer = request.send(site.addr).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.server().to_owned()
    };
    for _ in 0..4 {
        assert_eq!(ask("/", &two).await, "two");
    }
    assert_eq!(ask("/spare", &two).await, "spare");
    assert_ne!(ask("/persist-none", &two).await, ask("/persist-none", &two).await, "balanced");
    assert_ne!(ask("/", &spare).await, "spare", "it is no server of the virtual service's own pool");
    two.down().await;
    assert_eq!(ask("/", &two).await, "one");
    running.shutdown(Duration::from_secs(1)).await;
}

/// A server of a pool, as YAML.
fn server(origin: &Origin) -> serde_yaml::Value {
    parse(&format!("{{ip: {}, port: {}}}", origin.addr.ip(), origin.addr.port()))
}

/// Rewrites a path, and keeps it from being copied.
struct Private;

#[async_trait]
impl Rule for Private {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        if request.path() == "/card" {
            request.clone_none();
            request.set_path_and_query("/vault?from=card")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_rule_may_rewrite_a_path_and_keep_a_request_from_being_copied() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = example("private", &app).clone_to(&[&clone]);
    let running = run_here(&site, server::Homing::builder().rule("private", Private)).await;
    for path in ["/card", "/cart"] {
        assert_eq!(Request::get(path).send(site.addr).await.status, 200);
    }
    let targets = app.requests().iter().map(|request| request.target.clone()).collect::<Vec<_>>();
    assert_eq!(targets, ["/vault?from=card", "/cart"]);
    let copies = clone.got(1).await;
    assert_eq!(copies.iter().map(|copy| copy.target.as_str()).collect::<Vec<_>>(), ["/cart"]);
    running.shutdown(Duration::from_secs(1)).await;
}

struct ToOne(SocketAddr);

#[async_trait]
impl Rule for ToOne {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        request.clone_to(CLONES, self.0)
    }
}

#[tokio::test]
async fn a_rule_that_chooses_the_member_takes_the_place_of_the_clone_section() {
    let (app, first, second) =
        (Origin::start("app").await, Origin::start("first").await, Origin::start("second").await);
    let site = example("to_one", &app).clone_to(&[&first, &second]);
    let running = run_here(&site, server::Homing::builder().rule("to_one", ToOne(first.addr))).await;
    for n in 0..20 {
        let request = Request::post("/", "body").cookie(&format!("SID={n}"));
        assert_eq!(request.send(site.addr).await.status, 200);
    }
    assert_eq!(first.got(20).await.len(), 20, "one copy of each");
    assert!(second.requests().is_empty());
    running.shutdown(Duration::from_secs(1)).await;
}

/// homing in the test's own process, with the test's own rules.
pub async fn run_here(site: &Site, builder: server::Builder) -> Running {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let loaded = builder.load(&site.write(dir.path())).expect("the configuration is right");
    let homing = builder.build(loaded.config).expect("the rules take their configuration");
    homing.start().await.expect("homing's addresses are free")
}

pub async fn start(site: &Site, name: &str) -> Homing {
    Homing::start_program(&program(name), site).await
}

/// `cargo test` builds the examples beside the program.
fn program(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_homing")).with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built; run `cargo test`, or `cargo build --examples` first",
        path.display()
    );
    path
}
