//! So many connections and no more: of one client, of a virtual service, of all. Others still get in.

use std::net::{IpAddr, SocketAddr};

use serde_yaml::Value;

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    eventually,
    origin::Origin,
    tls::{Profile, TlsClient},
};

const US: &str = "127.0.0.1";
const OTHERS: &str = "127.0.0.77";

async fn open_from(client: &str, to: SocketAddr) -> Connection {
    let client: IpAddr = client.parse().expect("an address");
    Connection::open_from(client, to).await.expect("the kernel takes it")
}

/// Whether a connection is served; it stays open.
async fn is_served(client: &mut Connection) -> bool {
    matches!(client.try_ask(&Request::get("/")).await, Ok(answer) if answer.status == 200)
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_others_still_get_in() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).vs("max_concurrent_connections_per_client", "3");
    let homing = site.start().await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(open_from(US, homing.addr).await);
        assert!(is_served(kept.last_mut().expect("one was pushed")).await);
    }
    for _ in 0..10 {
        assert!(!is_served(&mut open_from(US, homing.addr).await).await);
    }
    assert!(is_served(&mut open_from(OTHERS, homing.addr).await).await);
    // They are still counted when something else about the virtual service, or the limit itself, has changed.
    for limit in ["3", "2"] {
        let changed = site.clone().vs("analytics_policy", "{slow_request: 3s}");
        homing.reloaded(&changed.vs("max_concurrent_connections_per_client", limit)).await;
        assert!(!is_served(&mut open_from(US, homing.addr).await).await, "{limit}");
        assert!(is_served(&mut open_from(OTHERS, homing.addr).await).await);
    }
    homing.settles("homing_connections_refused_total", &[("reason", "client_connections")], 12.0).await;
    for client in &mut kept {
        assert!(is_served(client).await, "who is there is served");
    }
    kept.truncate(1);
    eventually("there is room again", async || is_served(&mut open_from(US, homing.addr).await).await).await;
}

#[tokio::test]
async fn a_client_comes_so_often_in_a_second_and_is_refused_before_tls() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).vs("max_cps_per_client", "5").tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    let mut served = 0;
    for _ in 0..40 {
        served += usize::from(TlsClient::new(Profile::TLS13).can_connect(homing.addr, "a.com").await);
    }
    assert!((5..40).contains(&served), "{served}");
    let refused = homing.metric("homing_connections_refused_total", &[("reason", "client_rate")]).await;
    assert_eq!(refused, (40 - served) as f64);
    assert_eq!(homing.metric("homing_tls_handshake_failures_total", &[]).await, 0.0, "none was begun");
    eventually("there is room again", async || {
        TlsClient::new(Profile::TLS13).can_connect(homing.addr, "a.com").await
    })
    .await;
}

#[tokio::test]
async fn a_virtual_service_has_so_many_connections_and_its_neighbour_has_its_own() {
    let app = Origin::start("app").await;
    let limit = "{max_concurrent_connections: 2}";
    let alone = Site::new(&[&app]).vs("performance_limits", limit);
    let homing = alone.start().await;
    let mut kept = [Connection::open(homing.addr).await, Connection::open(homing.addr).await];
    for client in &mut kept {
        assert!(is_served(client).await);
    }
    let mut third = Connection::open(homing.addr).await;
    assert!(third.closed().await.is_empty(), "it is closed at once");
    homing.settles("homing_connections_refused_total", &[("reason", "virtual_service_full")], 1.0).await;
    let [_kept, left] = kept;
    drop(left);
    eventually("there is room again", async || is_served(&mut Connection::open(homing.addr).await).await)
        .await;

    let shared = Site::new(&[&app]).vs("performance_limits", limit);
    let shared = shared.neighbour("{name: other, domain_names: [b.com], pool_ref: app}");
    let homing = shared.start().await;
    let mut kept = [Connection::open(homing.addr).await, Connection::open(homing.addr).await];
    for client in &mut kept {
        assert!(is_served(client).await);
    }
    let mut third = Connection::open(homing.addr).await;
    assert_eq!(third.ask(&Request::get("/").host("b.com")).await.status, 200);
    assert_eq!(third.ask(&Request::get("/")).await.status, 503, "its request says whom it wants");
    third.closed().await;
    let labels = [("reason", "too_many_connections"), ("vs", "-")];
    homing.settles("homing_requests_refused_total", &labels, 1.0).await;
    assert!(is_served(&mut kept[0]).await);
}

#[tokio::test]
async fn beyond_max_connections_clients_wait_until_it_is_raised() {
    let app = Origin::start("app").await;
    let most = |n: u64| move |yaml: &mut Value| yaml["max_connections"] = n.into();
    let site = Site::new(&[&app]);
    let homing = site.clone().with(most(2)).start().await;
    homing.settles("homing_connections_limit", &[], 2.0).await;
    let mut kept = [Connection::open(homing.addr).await, Connection::open(homing.addr).await];
    for client in &mut kept {
        assert!(is_served(client).await);
    }
    let mut waiting = Connection::open(homing.addr).await;
    waiting.send(&Request::get("/late")).await.expect("the kernel takes it");
    homing.says("raise `max_connections`").await;
    assert!(is_served(&mut kept[0]).await);
    assert!(app.requests().iter().all(|request| request.target != "/late"));
    homing.reloaded(&site.with(most(3))).await;
    assert_eq!(waiting.answer().await.expect("there is room").status, 200);
    homing.settles("homing_connections_limit", &[], 3.0).await;
}
