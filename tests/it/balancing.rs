//! What the balancers go by, as the servers see it: keys of `consistent_hash`, what is in flight, what answers take.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use homing::{
    prelude::{self, Rule, RuleResult, async_trait},
    server,
};

use crate::{
    rules::run_here,
    support::{
        after,
        certs::cert_for,
        client::{Answer, Connection, Request},
        config::{APP, Site},
        http2::Http2,
        origin::{Mode, Origin},
        tls::{Profile, TlsClient},
    },
};

#[tokio::test]
async fn requests_with_the_same_header_go_to_the_same_server() {
    let servers = servers().await;
    let site = hashing(&servers, "consistent_hash_custom_header")
        .with(|yaml| yaml["pools"][0]["lb_algorithm_consistent_hash_hdr"] = "x-cart".into());
    let homing = site.start().await;
    let with = |key: &str| Request::get("/").header("X-Cart", key);
    keeps_keys(async |key| with(key).send(homing.addr).await).await;
    // On one connection, too, and whatever else the request has.
    let mut client = Connection::open(homing.addr).await;
    for key in KEYS {
        let answer = client.ask(&Request::post("/other?x=1", "body").header("x-cart", key)).await;
        assert_eq!(answer.server(), with(key).send(homing.addr).await.server(), "{key}");
    }
}

#[tokio::test]
async fn requests_with_the_same_cookie_go_to_the_same_server_over_http2_as_over_http1() {
    let servers = servers().await;
    let site = hashing(&servers, "consistent_hash_cookie")
        .with(|yaml| yaml["pools"][0]["lb_algorithm_consistent_hash_cookie"] = "BASKET".into())
        .tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    let http1 = TlsClient::new(Profile::TLS13);
    let ask = async |key: &str| {
        let mut client = Connection::over(http1.connect(homing.addr, "a.com").await);
        client.ask(&Request::get("/").cookie(&format!("theme=dark; BASKET={key}"))).await
    };
    keeps_keys(ask).await;
    let http2 = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let http2 = Http2::over(http2.connect(homing.addr, "a.com").await).await;
    for key in KEYS {
        // Browsers send each cookie as a field of its own.
        let request = Request::get("/").cookie("theme=light").cookie(&format!("BASKET={key}"));
        assert_eq!(http2.ask(&request).await.server(), ask(key).await.server(), "{key}");
    }
}

#[tokio::test]
async fn requests_for_the_same_path_and_query_go_to_the_same_server() {
    let servers = servers().await;
    let homing = hashing(&servers, "consistent_hash_uri").start().await;
    keeps_keys(async |key| Request::get(&format!("/item?key={key}")).send(homing.addr).await).await;
}

#[tokio::test]
async fn a_client_keeps_its_server_by_its_address() {
    let servers = servers().await;
    // No key at all: the address is what is gone by.
    let homing = Site::new(&servers.each_ref())
        .with(|yaml| yaml["pools"][0]["lb_algorithm"] = "consistent_hash".into())
        .start()
        .await;
    keeps_keys(async |key| {
        let last = KEYS.iter().position(|known| *known == key).expect("one of the keys") + 1;
        let from = IpAddr::from([127, 9, 9, last as u8]);
        let mut client =
            Connection::open_from(from, homing.addr).await.expect("all of 127.0.0.0/8 is this machine");
        client.ask(&Request::get("/")).await
    })
    .await;
}

/// The path's first segment is what the server is chosen by.
struct Tenant;

#[async_trait]
impl Rule for Tenant {
    async fn http_request(&self, request: &mut prelude::Request<'_>) -> RuleResult {
        let tenant = request.path().split('/').nth(1).unwrap_or_default().to_owned();
        request.hash_by(&tenant);
        Ok(())
    }
}

#[tokio::test]
async fn requests_of_which_a_rule_says_the_same_go_to_the_same_server() {
    let servers = servers().await;
    let site = hashing(&servers, "LB_ALGORITHM_CONSISTENT_HASH_CUSTOM_STRING")
        .push("rules", "{name: tenant}")
        .vs("rule_refs", "[tenant]");
    let running = run_here(&site, server::Homing::builder().rule("tenant", Tenant)).await;
    keeps_keys(async |key| Request::get(&format!("/{key}/x")).send(site.addr).await).await;
    for key in KEYS {
        let elsewhere = Request::get(&format!("/{key}/y?z=1")).send(site.addr).await;
        let here = Request::get(&format!("/{key}/x")).send(site.addr).await;
        assert_eq!(elsewhere.server(), here.server(), "{key}");
    }
    running.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn only_the_keys_of_a_server_that_is_down_move_and_they_come_back() {
    let servers = servers().await;
    let site = hashing(&servers, "consistent_hash_uri").monitored(APP, "tcp");
    let homing = site.start().await;
    let ask = async || {
        let mut of = Vec::new();
        for key in KEYS {
            let answer = Request::get(&format!("/{key}")).send(homing.addr).await;
            assert_eq!(answer.status, 200);
            of.push(answer.server().to_owned());
        }
        of
    };
    let before = ask().await;
    let gone = servers.iter().find(|server| server.name == before[0]).expect("one of them answered");
    gone.down().await;
    homing.sees(APP, gone.addr, false).await;
    let without = ask().await;
    for (key, (before, without)) in KEYS.iter().zip(before.iter().zip(&without)) {
        assert_eq!(before == without, *before != gone.name, "{key}");
    }
    gone.up().await;
    homing.sees(APP, gone.addr, true).await;
    assert_eq!(ask().await, before);
}

#[tokio::test]
async fn requests_without_the_key_take_turns() {
    let servers = servers().await;
    let site = hashing(&servers, "consistent_hash_custom_header")
        .with(|yaml| yaml["pools"][0]["lb_algorithm_consistent_hash_hdr"] = "x-cart".into());
    let homing = site.start().await;
    ask(&homing.addr, 30).await;
    assert_eq!(servers.each_ref().map(|server| server.requests().len()), [10; 3]);
}

#[tokio::test]
async fn random_spares_a_server_that_is_busier_than_another() {
    let (busy, idle) = (Origin::start("busy").await, Origin::start("idle").await);
    let site = Site::new(&[&busy]).with(|yaml| yaml["pools"][0]["lb_algorithm"] = "random".into());
    let homing = site.start().await;
    busy.set(Mode::Held);
    let mut held = Vec::new();
    for n in 1..=4 {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/")).await.expect("the request is read");
        busy.got(n).await;
        held.push(client);
    }
    // From now on there are two, and the requests that are held are in flight still.
    let both = Site::new(&[&busy, &idle]).yaml["pools"].clone();
    let site = site.with(|yaml| {
        yaml["pools"] = both;
        yaml["pools"][0]["lb_algorithm"] = "random".into();
    });
    homing.reloaded(&site).await;
    busy.set(Mode::Ok);
    ask(&homing.addr, 400).await;
    let got = busy.requests().len() - 4;
    assert!(got > 56 && got < 144, "a quarter, five standard deviations allowed: {got} of 400");
}

#[tokio::test]
async fn fastest_response_spares_a_server_that_was_slow() {
    let (slow, fast) = (Origin::start("slow").await, Origin::start("fast").await);
    let site = Site::new(&[&slow]).with(|yaml| yaml["pools"][0]["lb_algorithm"] = "fastest_response".into());
    let homing = site.start().await;
    slow.set(Mode::Held);
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    slow.got(1).await;
    after(Duration::from_secs(2)).await;
    slow.set(Mode::Ok);
    slow.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    // The other one comes by a reload, which forgets nothing of the first.
    let both = Site::new(&[&slow, &fast]).yaml["pools"].clone();
    let site = site.with(|yaml| {
        yaml["pools"] = both;
        yaml["pools"][0]["lb_algorithm"] = "fastest_response".into();
    });
    homing.reloaded(&site).await;
    // Until the other has answered, it is thought to be what the pool is.
    while fast.requests().is_empty() {
        ask(&homing.addr, 1).await;
    }
    let before = slow.requests().len();
    ask(&homing.addr, 200).await;
    let got = slow.requests().len() - before;
    assert!(got > 19 && got < 81, "a quarter, five standard deviations allowed: {got} of 200");
}

/// Enough of them that no server of three is left out.
const KEYS: [&str; 12] =
    ["ada", "ben", "cleo", "dan", "eve", "finn", "gil", "hal", "ida", "jon", "kim", "lou"];

async fn servers() -> [Origin; 3] {
    [Origin::start("a").await, Origin::start("b").await, Origin::start("c").await]
}

fn hashing(servers: &[Origin; 3], key: &str) -> Site {
    Site::new(&servers.each_ref()).with(|yaml| {
        yaml["pools"][0]["lb_algorithm"] = "consistent_hash".into();
        yaml["pools"][0]["lb_algorithm_hash"] = key.into();
    })
}

/// Asks with each key several times: a key has one server, and not all have the same.
async fn keeps_keys(ask: impl AsyncFn(&str) -> Answer) {
    let mut used = BTreeSet::new();
    for key in KEYS {
        let mut of_key = BTreeSet::new();
        for _ in 0..4 {
            let answer = ask(key).await;
            assert_eq!(answer.status, 200, "{key}");
            of_key.insert(answer.server().to_owned());
        }
        assert_eq!(of_key.len(), 1, "{key}: {of_key:?}");
        used.extend(of_key);
    }
    assert!(used.len() > 1, "all keys are on {used:?}");
}

/// So many requests, each answered with 200.
async fn ask(homing: &std::net::SocketAddr, n: usize) {
    let mut client = Connection::open(*homing).await;
    for _ in 0..n {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
}
