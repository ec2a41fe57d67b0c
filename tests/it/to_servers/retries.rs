//! What is tried again, on which server, how often, and what the client gets when it is not.

use bytes::Bytes;
use serde_json::json;

use crate::{
    support::{
        client::{Connection, Request},
        config::{APP, Site, parse},
        eventually,
        lines::{self, logged},
        origin::{Mode, Origin},
        soon,
    },
    tunnels::full_listener,
};

/// A pool whose balancer, left to itself, begins with the servers before the last one.
fn last_choice(servers: &[&Origin], keys: &str) -> Site {
    logged(Site::new(servers), "").with(|yaml| {
        yaml["threads"] = 1.into();
        let pool = &mut yaml["pools"][0];
        for (n, _) in servers.iter().enumerate().take(servers.len() - 1) {
            pool["servers"][n]["ratio"] = 1000.into();
        }
        for (key, value) in parse(keys).as_mapping().expect("keys and values") {
            pool[key] = value.clone();
        }
    })
}

const REFUSED: &str = "homing_pool_retries_refused_total";

#[tokio::test]
async fn a_budget_holds_for_all_retries_that_are_under_way() {
    let (gone, app) = (Origin::absent("gone").await, Origin::start("app").await);
    app.set(Mode::Held);
    let keys = "{retry_budget: {percent: 0, min_concurrent: 1}}";
    let homing = last_choice(&[&gone, &app], keys).start().await;
    let addr = homing.addr;
    let first = tokio::spawn(async move { Request::get("/first").send(addr).await.status });
    app.began(1).await;
    assert_eq!(Request::get("/second").send(addr).await.status, 502, "the only retry is under way");
    homing.settles(REFUSED, &[("pool", APP), ("reason", "retry_budget")], 1.0).await;
    app.release(2);
    assert_eq!(soon("an answer", first).await.expect("it is answered"), 200);
    assert_eq!(
        Request::get("/third").send(addr).await.status,
        200,
        "it is over, and there is room for another"
    );
    let lines = lines::lines(&homing, 3).await;
    let told =
        |line: &serde_json::Value| (line["path"].clone(), line["reason"].clone(), line["retries"].clone());
    assert_eq!(told(&lines[0]), (json!("/second"), json!("connect_failed"), json!(0)), "{lines:#?}");
    assert_eq!(told(&lines[2]), (json!("/third"), json!(null), json!(1)), "{lines:#?}");
}

#[tokio::test]
async fn a_request_is_tried_again_as_often_as_its_pool_says() {
    let gone = [Origin::absent("one").await, Origin::absent("two").await];
    let app = Origin::start("app").await;
    for (most, status, retries) in [("0", 502, 0), ("1", 502, 1), ("2", 200, 2)] {
        let keys = format!("{{max_retries: {most}}}");
        let homing = last_choice(&[&gone[0], &gone[1], &app], &keys).start().await;
        assert_eq!(Request::get("/").send(homing.addr).await.status, status, "{most}");
        let line = lines::line(&homing).await;
        assert_eq!(line["retries"], retries, "{most}: {line:#}");
        let refused = if status == 502 { 1.0 } else { 0.0 };
        homing.settles(REFUSED, &[("pool", APP), ("reason", "max_retries")], refused).await;
    }
}

#[tokio::test]
async fn a_request_that_is_tried_again_is_copied_once() {
    let (gone, app) = (Origin::absent("gone").await, Origin::start("app").await);
    let member = Origin::start("member").await;
    let homing = last_choice(&[&gone, &app], "{}").clone_to(&[&member]).start().await;
    for n in 1..=3 {
        assert_eq!(Request::post(&format!("/{n}"), "body").send(homing.addr).await.status, 200);
        let copies = member.got(n).await;
        let targets: Vec<_> = copies.iter().map(|copy| (copy.target.clone(), copy.body_len)).collect();
        assert_eq!(targets, (1..=n).map(|n| (format!("/{n}"), 4)).collect::<Vec<_>>());
    }
    homing.settles("homing_pool_retries_total", &[("pool", APP)], 3.0).await;
}

#[tokio::test]
async fn what_was_not_sent_is_sent_again_whatever_its_method() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into()).start().await;
    for round in 0..20 {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        app.down().await;
        app.up().await;
        let answer = Request::post("/", "body").send(homing.addr).await;
        assert_eq!(answer.status, 200, "round {round}: the kept connection is known to be closed");
    }
    assert_eq!(app.requests().len(), 40);
}

#[tokio::test]
async fn what_a_server_may_have_acted_on_is_sent_again_only_where_that_does_no_harm() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into()).start().await;
    for (request, status, seen) in [(Request::get("/"), 502, 2), (Request::post("/", "body"), 502, 1)] {
        app.set(Mode::Ok);
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        app.take();
        app.set(Mode::RawClose(Bytes::new()));
        assert_eq!(request.send(homing.addr).await.status, status);
        assert_eq!(app.take().len(), seen, "{}", request.method);
    }
}

#[tokio::test]
async fn servers_that_do_not_accept_in_time_are_a_504_when_there_is_no_other() {
    let (full, _queued) = full_listener().await;
    let app = Origin::start("app").await;
    let addr = full.local_addr().expect("a bound socket has an address");
    let server = format!("{{ip: {}, port: {}, ratio: 1000}}", addr.ip(), addr.port());
    for (others, keys, status, reason) in [
        (String::new(), "connect_timeout", 504, json!("connect_timeout")),
        (String::new(), "request_timeout", 504, json!("request_timeout")),
        (
            format!(", {{ip: {}, port: {}}}", app.addr.ip(), app.addr.port()),
            "connect_timeout",
            200,
            json!(null),
        ),
    ] {
        let site = logged(Site::new(&[]), "").with(|yaml| {
            let pool = &mut yaml["pools"][0];
            pool["servers"] = parse(&format!("[{server}{others}]"));
            pool[keys] = "300ms".into();
        });
        let homing = site.start().await;
        assert_eq!(Request::post("/", "body").send(homing.addr).await.status, status, "{keys}");
        let line = lines::line(&homing).await;
        assert_eq!(
            (&line["reason"], &line["servers_tried"][0]),
            (&reason, &json!(addr.to_string())),
            "{line:#}"
        );
    }
}

#[tokio::test]
async fn a_body_that_was_passed_on_in_part_is_not_asked_of_another_server() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into()).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::new("PUT", "/").header("Content-Length", "200000")).await.expect("it is read");
    client.wire.write(vec![b'x'; 150_000]).await.expect("the body is read");
    eventually("the server has most of it", async || app.started().iter().any(|it| it.body_len > 100_000))
        .await;
    app.down().await;
    assert_eq!(client.head().await.expect("an answer").status(), 502);
    assert_eq!(app.started().len(), 1);
}
