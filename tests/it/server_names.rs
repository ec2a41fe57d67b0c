//! Servers that are configured by name: DNS says where they are, and when to ask again.

use std::net::{IpAddr, SocketAddr};

use crate::{
    pools::ask,
    support::{
        client::{Connection, Request},
        config::{APP, Site, parse},
        dns::NameServer,
        eventually,
        homing::Homing,
        net::own_ip,
        origin::{Mode, Origin},
    },
};

#[tokio::test]
async fn a_name_is_the_servers_at_its_addresses_as_long_as_dns_says() {
    let a = Origin::start("a").await;
    let b = Origin::start_at("b", SocketAddr::new(own_ip(), a.addr.port())).await;
    let names = NameServer::start(&[a.addr.ip()]).await;
    let homing = named(&names, a.addr.port()).start().await;
    ask(&homing, 4).await;
    assert_eq!(a.take().len(), 4, "the first request finds a server");
    a.set(Mode::Held);
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    a.got(1).await;
    names.says(&[a.addr.ip(), b.addr.ip()]);
    eventually("the second is there", async || servers(&homing).await.len() == 2).await;
    let labels = [("pool", APP), ("server", &*a.addr.to_string())];
    assert_eq!(homing.metric("homing_pool_server_inflight", &labels).await, 1.0, "the first is what it was");
    a.release(1);
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    names.says(&[b.addr.ip()]);
    eventually("the first is gone", async || servers(&homing).await == [b.addr]).await;
    ask(&homing, 2).await;
    assert_eq!(b.requests().len(), 2);
}

#[tokio::test]
async fn servers_stay_while_dns_is_silent_or_knows_nothing() {
    let app = Origin::start("app").await;
    let names = NameServer::start(&[app.addr.ip()]).await;
    let homing = named(&names, app.addr.port()).start().await;
    for (n, quiet) in [(1.0, false), (2.0, true)] {
        if quiet {
            names.silent();
        } else {
            names.says(&[]);
        }
        homing.counts("homing_server_name_lookups_total", &[("result", "failure")], n).await;
        ask(&homing, 2).await;
        assert_eq!(servers(&homing).await, [app.addr]);
    }
    assert_eq!(homing.log_lines("cannot be resolved"), 1, "{}", homing.log());
}

#[tokio::test]
async fn without_an_answer_at_the_start_servers_come_when_there_is_one() {
    let app = Origin::start("app").await;
    let names = NameServer::start(&[]).await;
    let homing = named(&names, app.addr.port()).start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503);
    names.says(&[app.addr.ip()]);
    eventually("a server is there", async || servers(&homing).await == [app.addr]).await;
    ask(&homing, 1).await;
}

/// A pool whose servers are at this port of the addresses of `app.test`.
fn named(names: &NameServer, port: u16) -> Site {
    Site::new(&[]).with(|yaml| {
        let server = format!("[{{hostname: app.test, port: {port}, resolve_server_by_dns: true}}]");
        yaml["pools"][0]["servers"] = parse(&server);
        let resolver =
            format!("{{name_servers: ['{}'], timeout: 600ms, min_ttl: 100ms, max_ttl: 1s}}", names.addr);
        yaml["dns_resolver"] = parse(&resolver);
    })
}

async fn servers(homing: &Homing) -> Vec<SocketAddr> {
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    let servers = pool["servers"].as_array().expect("servers").iter();
    let addr = |server: &serde_json::Value| {
        let ip: IpAddr = server["ip"].as_str().and_then(|ip| ip.parse().ok()).expect("an address");
        SocketAddr::new(ip, server["port"].as_u64().expect("a port") as u16)
    };
    servers.map(addr).collect()
}
