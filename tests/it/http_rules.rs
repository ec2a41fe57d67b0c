//! `http_rules` and error pages: what is done with which requests, as configured.

use serde_json::json;

use crate::support::{
    certs::cert_for,
    client::{Answer, Connection, Request},
    config::{Federation, Site},
    eventually,
    http2::Http2,
    lines::{lines, logged},
    origin::{Mode, Origin},
    site_cookie::{A, B, Cookie},
    tls::{self, Profile, TlsClient},
};

fn with_rules(site: Site, rules: &str) -> Site {
    site.vs("http_rules", rules)
}

#[tokio::test]
async fn a_redirect_says_the_whole_url_and_keeps_what_it_does_not_change() {
    let app = Origin::start("app").await;
    let rules = "
      - { name: host, match: { path: { match_criteria: begins_with, match_str: [/host/] } },
          redirect_action: { host: 'www.{host}', status_code: 301 } }
      - { name: rest, match: { path: { match_criteria: begins_with, match_str: [/old/] } },
          redirect_action: { path: '/new/{rest}', status_code: 307 } }
      - { name: groups, match: { path: { match_criteria: regex_match, match_str: ['^/v([0-9]+)/([a-z]+)$'] } },
          redirect_action: { protocol: https, path: '/{2}?v={1}' } }
      - { name: no-query, match: { path: { match_criteria: equals, match_str: [/bare] } },
          redirect_action: { path: '/', keep_query: false } }
      - { name: slashes, match: { path: { match_criteria: ends_with, match_str: [.php] } },
          redirect_action: { path: '{path}/' } }
      - { name: loop, match: { path: { match_criteria: equals, match_str: [/same] } },
          redirect_action: { path: /same } }";
    let homing = with_rules(Site::new(&[&app]), rules).start().await;
    for (target, status, location) in [
        ("/host/x?q=1", 301, Some("http://www.a.com/host/x?q=1")),
        ("/old/x?q=1", 307, Some("http://a.com:91/new/x?q=1")),
        ("/v2/items?x", 302, Some("https://a.com/items?v=2&x")),
        ("/bare?x", 302, Some("http://a.com:91/")),
        ("//evil.org/x.php", 302, Some("http://a.com:91//evil.org/x.php/")),
        ("/old/%0d%0aSet-Cookie:x", 307, Some("http://a.com:91/new/%0d%0aSet-Cookie:x")),
        ("/same", 200, None),
        ("/other", 200, None),
    ] {
        let answer = Request::get(target).host("a.com:91").send(homing.addr).await;
        assert_eq!((answer.status, answer.header("location")), (status, location), "{target}");
    }
    assert_eq!(app.requests().len(), 2);
    homing.settles("homing_http_rule_hits_total", &[("vs", "web"), ("rule", "rest")], 2.0).await;
    homing.settles("homing_http_rule_hits_total", &[("rule", "loop")], 0.0).await;
}

#[tokio::test]
async fn a_rule_answers_for_what_fits_all_of_its_match() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).file("page.html", "<h1>closed</h1>");
    let fits = [
        ("method", "{ methods: [PUT, DELETE] }", Request::new("PUT", "/"), Request::new("GET", "/")),
        (
            "method",
            "{ match_criteria: is_not_in, methods: [GET] }",
            Request::new("PUT", "/"),
            Request::get("/"),
        ),
        (
            "host_hdr",
            "{ match_criteria: begins_with, value: [A.] }",
            Request::get("/").host("a.com:80"),
            Request::get("/").host("b.com"),
        ),
        ("path", "{ match_criteria: equals, match_str: [/x] }", Request::get("/x?y"), Request::get("/x/")),
        (
            "query",
            "{ match_criteria: equals, match_str: [a=1] }",
            Request::get("/?a=1"),
            Request::get("/?a=1&b"),
        ),
        (
            "query_parameter",
            "{ name: b, match_criteria: equals, value: ['2'] }",
            Request::get("/?a=1&b=2"),
            Request::get("/?a=2"),
        ),
        (
            "hdrs",
            "[{ hdr: x-a, match_criteria: contains, match_case: insensitive, value: [bot] }, { hdr: x-b, match_criteria: does_not_exist }]",
            Request::get("/").header("X-A", "GoogleBot"),
            Request::get("/").header("X-A", "Bot").header("X-B", ""),
        ),
        (
            "cookie",
            "{ name: beta, match_criteria: equals, value: ['1'] }",
            Request::get("/").cookie("a=0; beta=1"),
            Request::get("/").cookie("beta=2; a=1"),
        ),
        ("client_ip", "{ networks: [127.0.0.0/8] }", Request::get("/"), Request::get("/").host("no.such")),
        ("protocol", "http", Request::get("/"), Request::get("/").host("no.such")),
    ];
    let rule = "respond_action: { status_code: 451, file: page.html }";
    let homing = with_rules(site.clone().vs("domain_names", "[a.com, b.com]"), "[]").start().await;
    for (key, value, one, other) in fits {
        let rules = format!("[{{name: x, match: {{{key}: {value}}}, {rule}}}]");
        homing.reloaded(&with_rules(site.clone().vs("domain_names", "[a.com, b.com]"), &rules)).await;
        let answer = one.send(homing.addr).await;
        let told = (answer.status, answer.header("content-type"), &*answer.body);
        assert_eq!(told, (451, Some("text/html; charset=utf-8"), &b"<h1>closed</h1>"[..]), "{key}: {value}");
        assert_ne!(other.send(homing.addr).await.status, 451, "{key}: {value}");
    }
}

#[tokio::test]
async fn the_first_rule_that_fits_chooses_the_pool_and_header_actions_add_up() {
    let (app, api, beta) =
        (Origin::start("app").await, Origin::start("api").await, Origin::start("beta").await);
    let rules = "
      - { name: api, match: { path: { match_criteria: begins_with, match_str: [/api/] } },
          switching_action: { pool_ref: api }, rewrite_url_action: { path: '/{rest}', host_hdr: 'api.{host}' },
          hdr_action: [{ action: set, hdr: x-from, value: '{client_ip} {scheme} {method}' }] }
      - { name: beta, match: { cookie: { name: beta, match_criteria: exists } },
          switching_action: { pool_ref: beta }, rewrite_url_action: { path: /beta },
          hdr_action: [{ action: add, hdr: x-from, value: beta }, { action: remove, hdr: x-secret }],
          response_hdr_action: [{ action: set, hdr: x-variant, value: beta }, { action: remove, hdr: x-server }] }";
    let site = Site::new(&[&app]).pool("api", &[&api]).pool("beta", &[&beta]);
    let homing = with_rules(logged(site, ""), rules).start().await;

    let answer = Request::get("/api/x?q=1").send(homing.addr).await;
    assert_eq!((answer.server(), answer.header("x-variant")), ("api", None));
    let got = api.take().remove(0);
    assert_eq!((&*got.target, got.header("host")), ("/x?q=1", Some("api.a.com")));
    assert_eq!(got.header("x-from"), Some("127.0.0.1 http GET"));

    let both = Request::get("/api/y").cookie("beta=1").header("X-Secret", "s").send(homing.addr).await;
    assert_eq!((both.header("x-variant"), both.header("x-server")), (Some("beta"), None));
    let got = api.take().remove(0);
    assert_eq!(
        (&*got.target, got.header("x-secret")),
        ("/y", None),
        "the first one decides on pool and path"
    );
    assert_eq!(got.headers.all("x-from"), ["127.0.0.1 http GET", "beta"]);

    let forged = Request::get("/z").cookie("beta=1").header("X-From", "me").send(homing.addr).await;
    assert_eq!(forged.status, 200);
    let got = beta.take().remove(0);
    assert_eq!((&*got.target, got.headers.all("x-from")), ("/beta", vec!["me", "beta"]));
    assert_eq!(Request::get("/").send(homing.addr).await.server(), "app");

    let lines = lines(&homing, 4).await;
    let decision = |word: &str| json!({"rule": "http_rules", "decision": word});
    let of = |path: &str| lines.iter().find(|line| line["path"] == path).expect("each request has a line");
    assert_eq!(of("/api/y")["rules"], json!([decision("api"), decision("beta"), decision("pool")]));
    assert!(of("/").get("rules").is_none());
}

#[tokio::test]
async fn rules_meet_http_2_and_tls_too() {
    let app = Origin::start("app").await;
    let rules = "
      - { name: plain, match: { protocol: http }, respond_action: { status_code: 403 } }
      - { name: moved, match: { path: { match_criteria: equals, match_str: [/old] } }, redirect_action: { path: /new } }
      - { name: inside, rewrite_url_action: { host_hdr: app.internal, path: '/in{path}' } }";
    let site = with_rules(Site::new(&[&app]).tls(&cert_for(&["a.com"])), rules);
    let homing = site.start().await;
    let old = tls::open(homing.addr).await.ask(&Request::get("/old")).await;
    assert_eq!((old.status, old.header("location")), (302, Some("https://a.com/new")));
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let http2 = Http2::over(client.connect(homing.addr, "a.com").await).await;
    assert_eq!(http2.ask(&Request::get("/x")).await.status, 200);
    let got = app.take().remove(0);
    assert_eq!((&*got.target, got.header("host")), ("/in/x", Some("app.internal")));
}

#[tokio::test]
async fn a_rule_chooses_which_clone_section_counts() {
    let (app, one, two) =
        (Origin::start("app").await, Origin::start("one").await, Origin::start("two").await);
    let rules = "
      - { name: secret, match: { path: { match_criteria: begins_with, match_str: [/secret] } }, clone_action: none }
      - { name: two, match: { path: { match_criteria: begins_with, match_str: [/two] } }, clone_action: two }";
    let site = Site::new(&[&app]).pool("one", &[&one]).pool("two", &[&two]);
    let site =
        site.vs("clone", "[{pool_ref: one, tokens: [source_ip]}, {pool_ref: two, tokens: [source_ip]}]");
    let homing = with_rules(site, rules).start().await;
    for path in ["/secret/x", "/two/x", "/both"] {
        assert_eq!(Request::get(path).send(homing.addr).await.server(), "app");
    }
    eventually("the copies arrive", async || one.requests().len() + two.requests().len() >= 3).await;
    let targets = |of: &Origin| of.take().into_iter().map(|got| got.target).collect::<Vec<_>>();
    assert_eq!(
        (targets(&one), targets(&two)),
        (vec!["/both".to_owned()], vec!["/two/x".into(), "/both".into()])
    );
    for (pool, skipped) in [("one", 2.0), ("two", 1.0)] {
        let labels = [("pool", pool), ("reason", "filtered")];
        homing.settles("homing_clone_skipped_total", &labels, skipped).await;
    }
}

#[tokio::test]
async fn a_request_that_another_site_serves_meets_the_rules_there() {
    let (here, there, other) =
        (Origin::start("a").await, Origin::start("b").await, Origin::start("other").await);
    let fed = Federation::new();
    let rules = "
      - { name: gone, match: { path: { match_criteria: equals, match_str: [/gone] } }, respond_action: { status_code: 410 } }
      - { name: in, switching_action: { pool_ref: other }, rewrite_url_action: { path: '/in{path}' },
          response_hdr_action: [{ action: add, hdr: x-by, value: 'rule' }] }";
    let a = with_rules(fed.site_a(&[&here]).pool("other", &[&other]), rules).start().await;
    let b = with_rules(fed.site_b(&[&there]).pool("other", &[&there]), rules).start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    let cookie = format!("FOO={}", Cookie::of(B).seal());
    let answer = Request::get("/x").cookie(&cookie).send(a.addr).await;
    assert_eq!((answer.server(), answer.headers.all("x-by")), ("b", vec!["rule"]), "once, at home");
    assert_eq!(there.take().remove(0).target, "/in/x");
    assert_eq!(Request::get("/gone").cookie(&cookie).send(a.addr).await.status, 410);
    drop(b);
    let answer = Request::get("/y").cookie(&cookie).send(a.addr).await;
    assert_eq!((answer.status, answer.server()), (200, "other"), "it recovered here, by the rules of here");
    assert_eq!(other.take().remove(0).target, "/in/y");
}

#[tokio::test]
async fn errors_have_the_pages_of_their_profile() {
    let app = Origin::start("app").await;
    let pages = "{name: pages, error_pages: [
        {status_code: [503], file: sorry.html}, {status_code: [http_5xx, 404], body: 'oh no', content_type: text/x}]}";
    let site = Site::new(&[&app]).file("sorry.html", "<h1>sorry</h1>").push("error_page_profiles", pages);
    let rules = "
      - { name: own, match: { path: { match_criteria: equals, match_str: [/own] } }, respond_action: { status_code: 503, body: own } }
      - { name: none, match: { path: { match_criteria: equals, match_str: [/none] } }, respond_action: { status_code: 503 } }";
    let site = with_rules(site.vs("error_page_profile_ref", "pages"), rules);
    let homing = site.start().await;
    let page = |answer: &Answer| {
        let content_type = answer.header("content-type").unwrap_or("none").to_owned();
        (answer.status, content_type, String::from_utf8_lossy(&answer.body).into_owned())
    };
    let is = |status: u16, content_type: &str, body: &str| (status, content_type.to_owned(), body.to_owned());
    let sorry = is(503, "text/html; charset=utf-8", "<h1>sorry</h1>");
    assert_eq!(page(&Request::get("/none").send(homing.addr).await), sorry);
    let own = page(&Request::get("/own").send(homing.addr).await);
    assert_eq!(
        own,
        is(503, "text/plain; charset=utf-8", "own"),
        "a rule that says something is not contradicted"
    );
    app.set(Mode::Status(500));
    assert_eq!(page(&Request::get("/").send(homing.addr).await).0, 500);
    assert_ne!(Request::get("/").send(homing.addr).await.body, "oh no", "servers say what they say");

    let intercepting =
        site.clone().with(|yaml| yaml["error_page_profiles"][0]["intercept_errors"] = true.into());
    homing.reloaded(&intercepting).await;
    assert_eq!(page(&Request::get("/").send(homing.addr).await), is(500, "text/x", "oh no"));
    app.down().await;
    assert_eq!(page(&Request::get("/").send(homing.addr).await), sorry, "no server is left");
    let head = Connection::open(homing.addr).await.ask(&Request::new("HEAD", "/")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (503, Some("14"), 0));
    let changed = intercepting.file("sorry.html", "<h1>later</h1>");
    homing.reloaded(&changed).await;
    assert_eq!(
        Request::get("/none").send(homing.addr).await.body,
        "<h1>later</h1>",
        "a page changes by a reload"
    );
}

#[tokio::test]
async fn an_answer_of_another_site_keeps_the_page_that_it_got_there() {
    let (here, there) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new();
    let with_page = |site: Site, body: &str| {
        let page = format!(
            "{{name: pages, intercept_errors: true, error_pages: [{{status_code: [http_5xx], body: {body}}}]}}"
        );
        site.push("error_page_profiles", &page).vs("error_page_profile_ref", "pages")
    };
    let a = with_page(fed.site_a(&[&here]), "of a").start().await;
    let b = with_page(fed.site_b(&[&there]), "of b").start().await;
    a.sees("SP-gs-web@site_A", b.addr, true).await;
    for (origin, cookie, page) in [(&here, Cookie::of(A), "of a"), (&there, Cookie::of(B), "of b")] {
        origin.set(Mode::Status(500));
        let answer = Request::get("/").cookie(&format!("FOO={}", cookie.seal())).send(a.addr).await;
        assert_eq!((answer.status, &answer.body[..]), (500, page.as_bytes()));
    }
}
