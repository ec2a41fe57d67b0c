//! What clients cost that only wait.

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    homing::Homing,
    origin::Origin,
    tls::{Profile, TlsClient},
};

/// 60 MiB for 10,000, and what a build without optimisation takes beside.
const PLAIN_KIB: u64 = 10;
/// 280 MiB for 10,000, and the same.
const TLS_KIB: u64 = 40;

#[tokio::test]
async fn an_idle_connection_costs_little() {
    const CONNECTIONS: usize = 2000;
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into()).start().await;
    warm_up(&homing).await;
    let before = homing.memory();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        idle.push(client);
    }
    assert_costs(&homing, before, CONNECTIONS, PLAIN_KIB);
    assert_eq!(idle[0].ask(&Request::get("/")).await.status, 200);
}

#[tokio::test]
async fn an_idle_tls_connection_costs_little() {
    const CONNECTIONS: usize = 400;
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).tls(&cert_for(&["a.com"]));
    let homing = site.with(|yaml| yaml["threads"] = 1.into()).start().await;
    let client = TlsClient::new(Profile::TLS13);
    let open = async || {
        let mut client = Connection::over(client.connect(homing.addr, "a.com").await);
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        client
    };
    for _ in 0..20 {
        open().await;
    }
    let before = homing.memory();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(open().await);
    }
    assert_costs(&homing, before, CONNECTIONS, TLS_KIB);
    assert_eq!(idle[0].ask(&Request::get("/")).await.status, 200);
}

async fn warm_up(homing: &Homing) {
    for _ in 0..50 {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    }
}

fn assert_costs(homing: &Homing, before: u64, connections: usize, at_most: u64) {
    let cost = homing.memory().saturating_sub(before);
    assert!(cost < at_most * connections as u64, "{connections} cost {cost} KiB");
}
