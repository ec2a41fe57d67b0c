//! Why requests ended as they did, and which of them always have a line.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    after,
    client::{Connection, Request},
    config::Site,
    lines::{self, line, logged},
    origin::{HALF_AN_ANSWER, Mode, Origin},
    soon,
};

/// A site that has lines for significant requests only.
fn significant_only(servers: &[&Origin], more: &str) -> Site {
    logged(Site::new(servers).vs("analytics_policy", &format!("{{sample: 0%{more}}}")), "")
}

#[tokio::test]
async fn a_request_that_homing_answers_itself_says_why() {
    let (app, gone) = (Origin::start("app").await, Origin::absent("gone").await);
    let silent = Origin::start("silent").await;
    silent.set(Mode::NeverAnswer);
    let closing = Origin::start("closing").await;
    closing.set(Mode::RawClose("".into()));
    let babbling = Origin::start("babbling").await;
    babbling.set(Mode::Raw("what?\r\n\r\n".into()));
    let plain = |server| Site::new(&[server]);
    let impatient = |site: Site| site.with(|yaml| yaml["pools"][0]["read_timeout"] = "200ms".into());
    for (what, site, request, status, reason, significant) in [
        ("no such host", plain(&app), Request::get("/").host("b.com"), 421, "no_virtual_service", false),
        ("a host that is none", plain(&app), Request::get("/").host("a/b"), 400, "bad_request", false),
        ("nobody there", plain(&gone), Request::get("/"), 503, "no_server", true),
        ("silence", impatient(plain(&silent)), Request::get("/"), 504, "server_timeout", true),
        ("it closes", plain(&closing), Request::post("/", "a"), 502, "server_closed", true),
        ("no HTTP", plain(&babbling), Request::post("/", "a"), 502, "bad_answer", true),
    ] {
        let homing = logged(site, "").start().await;
        assert_eq!(request.send(homing.addr).await.status, status, "{what}");
        let line = line(&homing).await;
        assert_eq!((&line["status"], &line["reason"]), (&json!(status), &json!(reason)), "{what}: {line:#}");
        assert_eq!(line["significant"], significant, "{what}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_and_an_answer_that_breaks_off_are_told() {
    let app = Origin::start("app").await;
    let homing = significant_only(&[&app], "").start().await;
    app.set(Mode::NeverAnswer);
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/gone")).await.expect("homing reads the request");
    app.began(1).await;
    drop(client);
    let gone = line(&homing).await;
    let told = [&gone["path"], &gone["reason"], &gone["server"]];
    assert_eq!(told, ["/gone", "client_gone", &*app.addr.to_string()], "{gone:#}");
    assert_eq!(gone["status"], 0);
    app.set(Mode::RawClose(HALF_AN_ANSWER));
    let mut client = Connection::open(homing.addr).await;
    assert!(client.try_ask(&Request::get("/half")).await.is_err());
    let lines = lines::lines(&homing, 2).await;
    assert_eq!(
        (&lines[1]["status"], &lines[1]["reason"]),
        (&json!(200), &json!("server_closed")),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn what_failed_has_its_line_whatever_the_sample_is() {
    let app = Origin::start("app").await;
    let homing = significant_only(&[&app], ", slow_request: 1h, throttle: 1").start().await;
    for path in ["/well", "/well"] {
        Request::get(path).send(homing.addr).await;
    }
    app.set(Mode::Status(500));
    for path in ["/failed", "/failed"] {
        Request::get(path).send(homing.addr).await;
    }
    for line in lines::lines(&homing, 2).await {
        assert_eq!((&line["path"], &line["significant"]), (&json!("/failed"), &json!(true)), "{line:#}");
    }
}

#[tokio::test]
async fn what_was_slow_has_its_line_whatever_the_sample_is() {
    let app = Origin::start("app").await;
    let homing = significant_only(&[&app], ", slow_request: 1ms").start().await;
    app.set(Mode::Held);
    let addr = homing.addr;
    let slow = tokio::spawn(async move { Request::get("/slow").send(addr).await.status });
    app.began(1).await;
    after(Duration::from_millis(20)).await;
    app.release(1);
    assert_eq!(soon("an answer", slow).await.expect("the request is answered"), 200);
    let line = line(&homing).await;
    assert_eq!((&line["path"], &line["significant"]), (&json!("/slow"), &json!(true)), "{line:#}");
    assert_eq!(line["reason"], Value::Null);
}

#[tokio::test]
async fn a_throttle_holds_for_what_is_not_significant() {
    let app = Origin::start("app").await;
    let site = logged(Site::new(&[&app]).vs("analytics_policy", "{throttle: 2}"), "");
    let homing = site.start().await;
    let began = std::time::Instant::now();
    for _ in 0..20 {
        Request::get("/well").send(homing.addr).await;
    }
    let seconds = began.elapsed().as_secs() as usize;
    app.set(Mode::Status(503));
    for _ in 0..5 {
        Request::get("/failed").send(homing.addr).await;
    }
    let written = "homing_access_log_lines_written_total";
    homing.counts(written, &[], 7.0).await;
    let failed = |line: &Value| line["path"] == "/failed";
    let all = lines::read(&lines::file(&homing));
    assert_eq!(all.iter().filter(|line| failed(line)).count(), 5, "{all:#?}");
    assert!((2..=2 * (seconds + 2)).contains(&(all.len() - 5)), "{} in {seconds} s", all.len() - 5);
}

#[tokio::test]
async fn a_redirect_tells_the_rule_that_gave_it() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).http("http_to_https: true").vs(
        "http_rules",
        "[{name: r, match: {vs_port: {ports: [80]}}, redirect_action: {protocol: https, port: 443}}]",
    );
    let port = site.addr.port();
    let site = site.with(|yaml| {
        yaml["virtual_services"][0]["http_rules"][0]["match"]["vs_port"]["ports"][0] = port.into();
    });
    let homing = logged(site, "").start().await;
    let answer = Request::get("/").send(homing.addr).await;
    let line = line(&homing).await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&json!(answer.status), &json!("rule_answered")),
        "{line:#}"
    );
    assert_eq!(line["rules"], json!([{"rule": "http_to_https", "decision": "respond"}]));
    assert_eq!((&line["significant"], &line["server"]), (&json!(false), &Value::Null));
}
