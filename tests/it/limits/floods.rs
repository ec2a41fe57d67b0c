//! Floods, and a canary among them: a client from elsewhere whose requests are all answered.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{
    after,
    client::{Connection, Request},
    config::{Site, parse},
    homing::Homing,
    origin::Origin,
};

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(3);

#[tokio::test]
async fn slow_heads_disturb_nobody() {
    let site = flooded("client_header_timeout: 500ms").await;
    flood(&site, 500, |at| async move {
        let Ok(mut client) = from("127.0.0.1", at).await else { return };
        for part in ["GET / HTTP/1.1\r\n", "Host: a.com\r\n", "X-Slow: ", "x", "x", "x", "x", "x", "x", "x"] {
            if client.wire.write(part).await.is_err() {
                break;
            }
            after(Duration::from_millis(100)).await;
        }
    })
    .await;
    site.homing.counts("homing_requests_refused_total", &[("reason", "client_timeout")], 500.0).await;
}

#[tokio::test]
async fn slow_bodies_disturb_nobody() {
    let site = flooded("client_body_timeout: 300ms, client_body_min_rate: 1KiB").await;
    flood(&site, 200, |at| async move {
        let Ok(mut client) = from("127.0.0.1", at).await else { return };
        let head = Request::new("POST", "/slow").header("Content-Length", "100000");
        if client.send(&head).await.is_err() {
            return;
        }
        loop {
            match tokio::time::timeout(Duration::from_millis(50), client.answer()).await {
                Ok(_) => break,
                Err(_) if client.wire.write("x").await.is_err() => break,
                Err(_) => {}
            }
        }
    })
    .await;
    site.homing.counts("homing_requests_refused_total", &[("reason", "client_timeout")], 200.0).await;
}

#[tokio::test]
async fn a_flood_of_connections_of_one_client_disturbs_no_other() {
    let site = flooded_site(Site::new(&[]).vs("max_concurrent_connections_per_client", "20")).await;
    flood(&site, 300, |at| async move {
        let Ok(mut client) = from("127.0.0.1", at).await else { return };
        let _ = client.try_ask(&Request::get("/flood")).await;
        // Who got in stays for a while; who did not comes again at once.
        after(Duration::from_millis(20)).await;
    })
    .await;
    site.homing.counts("homing_connections_refused_total", &[("reason", "client_connections")], 100.0).await;
}

#[tokio::test]
async fn a_flood_of_requests_of_one_client_disturbs_no_other_and_reaches_no_server() {
    let rate = "{per: 'header:X-Api-Key', rate_limiter: {count: 50, period: 1h}}";
    let site = flooded_site(Site::new(&[]).vs("requests_rate_limit", rate)).await;
    flood(&site, 20, |at| async move {
        let Ok(mut client) = from("127.0.0.1", at).await else { return };
        for _ in 0..100 {
            if client.try_ask(&Request::get("/flood").header("X-Api-Key", "known")).await.is_err() {
                break;
            }
        }
    })
    .await;
    let passed = site.app.requests().iter().filter(|request| request.target == "/flood").count();
    assert_eq!(passed, 50);
}

struct Flooded {
    homing: Homing,
    app: Origin,
}

async fn flooded(profile: &str) -> Flooded {
    flooded_site(Site::new(&[]).http(profile)).await
}

/// With a server for it.
async fn flooded_site(site: Site) -> Flooded {
    let app = Origin::start("app").await;
    let server = format!("[{{ip: {}, port: {}}}]", app.addr.ip(), app.addr.port());
    let site = site.with(|yaml| yaml["pools"][0]["servers"] = parse(&server));
    Flooded { homing: site.start().await, app }
}

/// Lets so many attackers, each of whom begins again when he is done, at it for a while; meanwhile and afterwards the
/// canary sings, each time on an old connection and a new one.
async fn flood<F>(site: &Flooded, attackers: usize, attack: impl Fn(SocketAddr) -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send,
{
    let at = site.homing.addr;
    let attack = Arc::new(attack);
    let mut flood = JoinSet::new();
    for _ in 0..attackers {
        let attack = attack.clone();
        flood.spawn(async move {
            loop {
                attack(at).await;
            }
        });
    }
    let mut kept = from(CANARY, at).await.expect("the canary gets in");
    let (begun, mut slowest, mut sung) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < FLOOD {
        let asked = Instant::now();
        // Of its own for each, where keys are counted.
        let song = Request::get("/canary").header("X-Api-Key", &format!("song {sung}"));
        assert_eq!(kept.ask(&song).await.status, 200);
        let mut new = from(CANARY, at).await.expect("the canary gets in");
        assert_eq!(new.ask(&song).await.status, 200);
        slowest = slowest.max(asked.elapsed());
        sung += 1;
        after(Duration::from_millis(5)).await;
    }
    // Shown where the test fails, or with `--nocapture`.
    println!("{sung} songs, the slowest {slowest:?}");
    flood.shutdown().await;
    assert_eq!(kept.ask(&Request::get("/canary")).await.status, 200);
}

async fn from(client: &str, to: SocketAddr) -> std::io::Result<Connection> {
    let client: IpAddr = client.parse().expect("an address");
    Connection::open_from(client, to).await
}

const CANARY: &str = "127.0.0.77";
