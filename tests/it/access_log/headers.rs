//! Full client logs: header fields, for a while, and never credentials.

use serde_json::json;

use crate::support::{
    client::Request,
    config::{CLONES, Site},
    lines::{lines, logged},
    origin::{Mode, Origin},
};

const SECRET: &str = "geheim";

#[tokio::test]
async fn full_lines_have_header_fields_but_none_that_hold_credentials() {
    let (app, member) = (Origin::start("app").await, Origin::start("member").await);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: SID={SECRET}\r\nX-Kind: good\r\nLocation: /?code={SECRET}\r\nContent-Length: 0\r\n\r\n"
    );
    app.set(Mode::Raw(answer.into()));
    let site = Site::new(&[&app]).clone_to(&[&member]);
    let policy = "{full_client_logs: {enabled: true, throttle: 0}}";
    let homing = logged(site.vs("analytics_policy", policy), "").start().await;
    let secret =
        ["Cookie", "Authorization", "Proxy-Authorization", "Homing-Hop", "X-Homing-Clone", "X-Api-Key"];
    let request = secret.iter().fold(Request::get("/"), |request, name| request.header(name, SECRET));
    request.header("X-Mine", "\"1\"").header("X-Forwarded-For", "10.9.9.9").send(homing.addr).await;
    let line = lines(&homing, 1).await.remove(0);
    let asked = json!({"host": "a.com", "x-mine": "\"1\"", "x-forwarded-for": "10.9.9.9"});
    assert_eq!(line["request_headers"], asked, "as the client sent them: {line:#}");
    assert_eq!(line["response_headers"], json!({"x-kind": "good", "location": "/", "content-length": "0"}));
    assert_eq!(line["clones"][0]["pool"], CLONES);
    assert!(!line.to_string().contains(SECRET), "{line:#}");
}

#[tokio::test]
async fn full_lines_are_throttled_and_end_with_their_time() {
    let app = Origin::start("app").await;
    let site = |full: &str| {
        let policy = format!("{{full_client_logs: {{enabled: true, {full}}}}}");
        logged(Site::new(&[&app]).vs("analytics_policy", &policy), "")
    };
    let throttled = site("duration: 0s, throttle: 1");
    let homing = throttled.start().await;
    let began = std::time::Instant::now();
    for _ in 0..20 {
        Request::get("/").send(homing.addr).await;
    }
    let seconds = began.elapsed().as_secs() as usize;
    let full = lines(&homing, 20).await.iter().filter(|line| line["request_headers"].is_object()).count();
    assert!((1..=seconds + 2).contains(&full), "{full} in {seconds} s");
    let homing = site("duration: 1ms").start().await;
    Request::get("/").send(homing.addr).await;
    assert!(lines(&homing, 1).await[0]["request_headers"].is_null());
}

#[tokio::test]
async fn a_reload_does_not_begin_the_time_of_full_lines_anew() {
    let app = Origin::start("app").await;
    let full = |duration: &str| {
        format!("{{full_client_logs: {{enabled: true, duration: {duration}, throttle: 0}}}}")
    };
    let site = logged(Site::new(&[&app]).vs("analytics_policy", &full("1ms")), "");
    let homing = site.start().await;
    homing.reloaded(&site.clone().vs("enabled", "true").vs("deny", "[203.0.113.7]")).await;
    Request::get("/").send(homing.addr).await;
    homing.reloaded(&site.clone().vs("analytics_policy", &full("1h"))).await;
    Request::get("/").send(homing.addr).await;
    let lines = lines(&homing, 2).await;
    assert!(lines[0]["request_headers"].is_null(), "{lines:#?}");
    assert!(lines[1]["request_headers"].is_object(), "{lines:#?}");
}
