//! So many requests in a time and no more, of one client or one holder of a key. Others are served.

use std::net::IpAddr;

use crate::support::{
    certs::cert_for,
    client::{Answer, Connection, Request},
    config::{Federation, Site, parse},
    eventually,
    http2::Http2,
    origin::Origin,
    tls::{Profile, TlsClient},
};

/// A rate that no test lives long enough to see renewed.
const FIVE: &str = "rate_limiter: {count: 5, period: 1h}";

async fn ask_from(client: &str, request: &Request, homing: &crate::support::homing::Homing) -> Answer {
    let client: IpAddr = client.parse().expect("an address");
    Connection::open_from(client, homing.addr).await.expect("the listener accepts").ask(request).await
}

#[tokio::test]
async fn a_client_asks_so_often_and_is_told_when_to_come_again() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).vs("requests_rate_limit", &format!("{{{FIVE}}}"));
    let site = site.with(|yaml| yaml["access_log"] = parse("{path: access.log}"));
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for n in 0..20 {
        let answer = client.ask(&Request::get("/")).await;
        assert_eq!(answer.status, if n < 5 { 200 } else { 429 }, "{n}");
        if n >= 5 {
            let wait: u64 = answer.header("retry-after").expect("it says so").parse().expect("seconds");
            assert!((600..=720).contains(&wait), "a fifth of an hour: {wait}");
        }
    }
    assert_eq!(ask_from("127.0.0.77", &Request::get("/"), &homing).await.status, 200, "another client");
    // A reload that changes something else forgets nothing, nor does one that adds a rate.
    let changed = site.clone().vs("analytics_policy", "{slow_request: 3s}");
    homing.reloaded(&changed).await;
    assert_eq!(client.ask(&Request::get("/")).await.status, 429);
    assert_eq!(client.ask(&Request::post("/", "body")).await.status, 429);
    homing.settles("homing_requests_refused_total", &[("reason", "rate_limited"), ("vs", "web")], 17.0).await;
    assert_eq!(app.requests().len(), 6);
    let lines = async || std::fs::read_to_string(homing.dir().join("access.log")).unwrap_or_default();
    eventually("the lines are there", async || {
        lines().await.matches("\"reason\":\"rate_limited\"").count() == 17
    })
    .await;
}

#[tokio::test]
async fn who_is_told_to_wait_for_less_than_a_second_is_not_told_to_come_at_once() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).vs("requests_rate_limit", "{rate_limiter: {count: 1, period: 900ms}}");
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    // However slowly this runs, some two requests come in short order.
    let refused = loop {
        let answer = client.ask(&Request::get("/")).await;
        if answer.status == 429 {
            break answer;
        }
    };
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn holders_of_keys_have_their_own_rates_and_the_rest_count_by_client() {
    let app = Origin::start("app").await;
    let limit = format!("{{per: 'header:X-Api-Key', {FIVE}, action: {{status_code: 503}}}}");
    let homing = Site::new(&[&app]).vs("requests_rate_limit", &limit).start().await;
    let passed = async |request: Request| {
        let mut passed = 0;
        let mut client = Connection::open(homing.addr).await;
        for _ in 0..8 {
            let answer = client.ask(&request).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.status);
            assert_eq!(answer.header("retry-after").is_some(), answer.status == 503);
            passed += usize::from(answer.status == 200);
        }
        passed
    };
    let with = |key| Request::get("/").header("X-Api-Key", key);
    assert_eq!(passed(with("a")).await, 5);
    assert_eq!(passed(with("b")).await, 5);
    assert_eq!(passed(with("a")).await, 0);
    assert_eq!(passed(Request::get("/")).await, 5);
    assert_eq!(passed(Request::get("/")).await, 0);
}

#[tokio::test]
async fn a_connection_is_closed_where_the_action_says_so_and_http2_streams_are_counted() {
    let app = Origin::start("app").await;
    let limits = format!(
        "[{{{FIVE}, action: {{type: close_conn}}}}, {{per: virtual_service, rate_limiter: {{count: 100}}}}]"
    );
    let site = Site::new(&[&app]).vs("requests_rate_limit", &limits);
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..5 {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
    client.send(&Request::get("/")).await.expect("it is read");
    assert!(client.closed().await.is_empty(), "nothing is said");

    let site = Site::new(&[&app]).vs("requests_rate_limit", &format!("{{{FIVE}}}"));
    let homing = site.tls(&cert_for(&["a.com"])).start().await;
    let over_tls =
        TlsClient::new(Profile { http2: true, ..Profile::TLS13 }).connect(homing.addr, "a.com").await;
    let client = Http2::over(over_tls).await;
    for n in 0..8 {
        let answer = client.ask(&Request::get("/")).await;
        assert_eq!(answer.status, if n < 5 { 200 } else { 429 }, "{n}");
    }
}

#[tokio::test]
async fn a_client_that_comes_by_way_of_another_site_counts_as_itself() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let fed = Federation::new().unmonitored();
    let limit = format!("{{{FIVE}}}");
    let site_b = fed.site_b(&[&b]).vs("requests_rate_limit", &limit).start().await;
    let site_a = fed.site_a(&[&a]).start().await;
    let cookie = {
        let answer = ask_from("127.0.0.9", &Request::get("/"), &site_b).await;
        answer
            .set_cookie(crate::support::site_cookie::NAME)
            .expect("it is given one")
            .split(';')
            .next()
            .expect("a pair")
            .to_owned()
    };
    let request = Request::get("/").cookie(&cookie);
    for (client, passes) in [("127.0.0.1", 5), ("127.0.0.77", 5), ("127.0.0.1", 0)] {
        let mut passed = 0;
        for _ in 0..7 {
            let answer = ask_from(client, &request, &site_a).await;
            assert_eq!(answer.status == 200, answer.server() == "b", "{}", answer.status);
            passed += usize::from(answer.status == 200);
        }
        assert_eq!(passed, passes, "{client}");
    }
    // Who only says that it comes from there counts by its address.
    let forged = Request::get("/").header("Homing-Hop", "forged");
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(ask_from("127.0.0.5", &forged, &site_b).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 2, "{statuses:?}");
}
