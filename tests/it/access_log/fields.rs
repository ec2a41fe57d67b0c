//! What a line says of a request that was served.

use serde_json::{Value, json};

use crate::{
    routing::websocket,
    rules::{example, start},
    sites::{Sites, ask_as},
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::{Federation, Site, parse},
        copies::{self, Mark},
        http2::Http2,
        lines::{line, lines, logged},
        origin::Origin,
        site_cookie::{A, B, Cookie, now},
        soon,
        tls::{Profile, TlsClient},
    },
};

#[tokio::test]
async fn a_line_tells_who_asked_what_and_who_answered_in_what_time() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]), "").start().await;
    let request = Request::post("/cart/%7e?token=secret", "four").header("User-Agent", "curl/8");
    let answer = request.header("Referer", "https://b.com/a?token=secret").send(homing.addr).await;
    let line = line(&homing).await;
    for (field, value) in [
        ("vs", json!("web")),
        ("method", json!("POST")),
        ("host", json!("a.com")),
        ("path", json!("/cart/%7e")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("bytes_received", json!(4)),
        ("bytes_sent", json!(answer.body.len())),
        ("significant", json!(false)),
        ("pool", json!("app")),
        ("server", json!(app.addr.to_string())),
        ("server_connection_reused", json!(false)),
        ("retries", json!(0)),
        ("user_agent", json!("curl/8")),
        ("referer", json!("https://b.com/a")),
        ("query", Value::Null),
        ("reason", Value::Null),
        ("tls", Value::Null),
        ("site", Value::Null),
        ("clones", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}: {line:#}");
    }
    assert!(line["client"].as_str().is_some_and(|client| client.starts_with("127.")), "{line}");
    let time = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line:#}"));
    assert!(time("queue_ms") + time("connect_ms") <= time("first_byte_ms"), "{line:#}");
    assert!(time("first_byte_ms") <= time("total_ms"), "{line:#}");
    let when = line["time"].as_str().expect("a time");
    assert!(when.len() == "2026-11-21T15:00:25.123Z".len() && when.ends_with('Z'), "{when}");
}

#[tokio::test]
async fn a_query_is_told_where_that_is_wanted() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]), ", query: true").start().await;
    Request::get("/a?b=1").header("Referer", "https://b.com/a?c=2").send(homing.addr).await;
    let line = line(&homing).await;
    assert_eq!([&line["path"], &line["query"], &line["referer"]], ["/a", "b=1", "https://b.com/a?c=2"]);
}

#[tokio::test]
async fn apaches_formats_are_written_as_apache_writes_them() {
    let app = Origin::start("app").await;
    for (format, rest) in [("common", ""), ("combined", r#" "-" "a\x22b""#)] {
        let homing = logged(Site::new(&[&app]), &format!(", format: {format}")).start().await;
        Request::get("/x").header("User-Agent", "a\"b").send(homing.addr).await;
        homing.counts("homing_access_log_lines_written_total", &[], 1.0).await;
        let text = std::fs::read_to_string(homing.dir().join("access.log")).expect("it was written");
        let (begin, end) = text.split_once(" +0000] ").unwrap_or_else(|| panic!("{text}"));
        assert!(begin.starts_with("127.") && begin.contains(" - - ["), "{text}");
        assert_eq!(end, format!("\"GET /x HTTP/1.1\" 200 15{rest}\n"));
    }
}

#[tokio::test]
async fn tls_and_http_2_are_told() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]).tls(&cert_for(&["a.com"])), "").start().await;
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    Http2::over(client.connect(homing.addr, "a.com").await).await.ask(&Request::get("/two")).await;
    let line = line(&homing).await;
    assert_eq!([&line["protocol"], &line["host"], &line["path"]], ["HTTP/2", "a.com", "/two"]);
    let tls = &line["tls"];
    assert_eq!([&tls["version"], &tls["sni"]], ["TLSv1.3", "a.com"]);
    assert_eq!(tls["resumed"], false);
    assert!(tls["cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_")), "{tls}");
}

#[tokio::test]
async fn a_websocket_has_its_line_when_it_ends_and_no_reason() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]), "").start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("homing reads the request");
    assert_eq!(client.head().await.expect("the server switches").status(), 101);
    client.wire.write("hello").await.expect("the tunnel takes bytes");
    soon("an echo", client.wire.exactly(5)).await.expect("the tunnel gives bytes");
    assert_eq!(lines(&homing, 0).await.len(), 0, "it is open");
    drop(client);
    let line = line(&homing).await;
    assert_eq!((&line["status"], &line["reason"]), (&json!(101), &Value::Null), "{line:#}");
    assert_eq!(line["significant"], false);
}

#[tokio::test]
async fn a_copy_is_told_with_its_member_and_its_place_in_the_session() {
    let (app, member) = (Origin::start("app").await, Origin::start("member").await);
    let site = Site::new(&[&app]).clone_to(&[&member]);
    let homing = logged(site, "").start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..2 {
        client.ask(&Request::get("/").cookie("SID=1")).await;
    }
    let (lines, copies) = (lines(&homing, 2).await, copies::copies(&[&member], 2).await);
    for (n, (line, (_, copy))) in lines.iter().zip(&copies).enumerate() {
        let (mark, told) = (Mark::of(copy), &line["clones"][0]);
        assert_eq!([&told["pool"], &told["server"]], ["clones", &*member.addr.to_string()], "{line:#}");
        assert_eq!([&told["session"], &line["request_id"]], [&*mark.session, &*mark.id]);
        assert_eq!((told["seq"].as_u64(), mark.seq), (Some(n as u64 + 1), n as u64 + 1));
        assert_eq!(told["assigned"], if n == 0 { "new" } else { "kept" });
        assert_eq!(told["outcome"], "sent");
    }
}

#[tokio::test]
async fn a_copy_that_is_not_sent_says_why() {
    let app = Origin::start("app").await;
    let gone = Origin::absent("gone").await;
    let site = Site::new(&[&app]).clone_to(&[&gone]).monitored("clones", "tcp");
    let homing = logged(site, "").start().await;
    homing.sees("clones", gone.addr, false).await;
    Request::get("/").send(homing.addr).await;
    let told = &line(&homing).await["clones"];
    let (outcome, reason) = (&told[0]["outcome"], &told[0]["reason"]);
    assert_eq!([outcome, reason], ["dropped", "no_server"], "{told:#}");
    let member = Origin::start("member").await;
    let homing = logged(Site::new(&[&app]).clone_to(&[&member]), "").start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&websocket()).await.expect("homing reads the request");
    client.head().await.expect("the server switches");
    drop(client);
    let told = &line(&homing).await["clones"];
    let (outcome, reason) = (&told[0]["outcome"], &told[0]["reason"]);
    assert_eq!([outcome, reason], ["skipped", "upgrade"], "{told:#}");
}

#[tokio::test]
async fn both_sites_tell_of_a_request_under_one_id() {
    let sites = Sites::start_with(Federation::new(), |site| logged(site, "")).await;
    assert_eq!(ask_as(B, &sites.a).await.server(), "b");
    let (entry, home) = (line(&sites.a).await, line(&sites.b).await);
    assert_eq!(
        entry["site"],
        json!({"outcome": "proxied", "decision": "proxy", "home": "site_B"}),
        "{entry:#}"
    );
    assert_eq!(home["site"], json!({"outcome": "from_peer", "decision": "serve_here"}), "{home:#}");
    assert_eq!(entry["pool"], "SP-gs-web@site_A");
    assert_eq!(entry["request_id"], home["request_id"]);
    let client = entry["client"].as_str().and_then(|client| client.rsplit_once(':')).expect("a port");
    assert_eq!(home["client"], client.0, "{home:#}");
    assert!(home["peer"].is_string() && entry["peer"].is_null(), "{home:#}");
    let got = sites.app_b.requests().remove(0);
    assert_eq!(got.header("x-request-id"), home["request_id"].as_str());
}

#[tokio::test]
async fn the_site_persistence_of_a_request_is_told_and_never_its_cookie() {
    let (fed, app) = (Federation::new(), Origin::start("a").await);
    let homing = logged(fed.site_a(&[&app]), "").start().await;
    ask_as(A, &homing).await;
    let value = Cookie { exp: now() - 1, iat: now() - 60, ..Cookie::of(B) }.seal();
    Request::get("/").cookie(&format!("FOO={value}")).send(homing.addr).await;
    let lines = lines(&homing, 2).await;
    let sites: Vec<_> = lines.iter().map(|line| &line["site"]).collect();
    assert_eq!(*sites[0], json!({"outcome": "local", "decision": "serve_here"}));
    assert_eq!(*sites[1], json!({"outcome": "expired", "decision": "serve_here_and_issue"}));
    let text = std::fs::read_to_string(homing.dir().join("access.log")).expect("it was written");
    assert!(!text.contains(&value), "{text}");
}

#[tokio::test]
async fn retries_and_the_servers_that_were_tried_are_told() {
    let (gone, app) = (Origin::absent("gone").await, Origin::start("app").await);
    let homing = logged(Site::new(&[&gone, &app]), "").start().await;
    for _ in 0..2 {
        Request::get("/").send(homing.addr).await;
    }
    let lines = lines(&homing, 2).await;
    let retried: Vec<_> = lines.iter().filter(|line| line["retries"] == 1).collect();
    assert_eq!(retried.len(), 1, "{lines:#?}");
    assert_eq!(retried[0]["servers_tried"], json!([gone.addr.to_string()]));
    assert_eq!(retried[0]["server"], app.addr.to_string());
}

#[tokio::test]
async fn a_kept_connection_to_the_server_is_told() {
    let app = Origin::start("app").await;
    let homing = logged(Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into()), "").start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..2 {
        client.ask(&Request::get("/")).await;
    }
    let lines = lines(&homing, 2).await;
    assert_eq!([&lines[0], &lines[1]].map(|line| &line["server_connection_reused"]), [false, true]);
    assert_eq!(lines[0]["client"], lines[1]["client"]);
}

#[tokio::test]
async fn what_a_rule_decided_is_told_with_its_name() {
    let (app, canary) = (Origin::start("app").await, Origin::start("canary").await);
    let site = example("canary_by_header", &app)
        .with(|yaml| yaml["rules"][0] = parse("{name: canary, config: {pool: canary, percent: 0}}"))
        .pool("canary", &[&canary])
        .vs("rule_refs", "[canary]");
    let homing = start(&logged(site, ""), "canary_by_header").await;
    let mut client = Connection::open(homing.addr).await;
    for choice in ["always", "never"] {
        client.ask(&Request::get("/").header("X-Canary", choice)).await;
    }
    let lines = lines(&homing, 2).await;
    assert_eq!(lines[0]["rules"], json!([{"rule": "canary", "decision": "pool"}]));
    assert_eq!([&lines[0]["pool"], &lines[1]["pool"]], ["canary", "app"]);
    assert_eq!(lines[1]["rules"], Value::Null);
}
