//! A thousand servers fail their monitors at once.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::support::{
    client::{Connection, Request},
    config::{APP, Site},
    eventually, net,
    origin::Origin,
};

#[tokio::test]
async fn a_thousand_servers_that_fail_disturb_no_request_and_fill_no_log() {
    let app = Origin::start("app").await;
    let silent = Silent::start().await;
    let refusing = net::free_addr().port();
    let site = Site::new(&[&app]).monitored(APP, "http");
    let site = site.push(
        "health_monitors",
        "{name: hm, type: http, send_interval: 2s, receive_timeout: 1s, successful_checks: 1, failed_checks: 1}",
    );
    let site =
        site.push("pools", &crowd("refusing", 40, refusing)).push("pools", &crowd("silent", 44, silent.port));
    let homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    let mut most_files = 0;
    let down = async |pool| homing.json(&format!("/api/v1/pools/{pool}")).await["num_servers_up"] == 0;
    for pool in ["refusing", "silent"] {
        eventually("the crowd is down", async || {
            let fds = fs::read_dir(format!("/proc/{}/fd", homing.pid())).expect("it runs").count();
            most_files = most_files.max(fds);
            assert_eq!(client.ask(&Request::get("/")).await.status, 200);
            down(pool).await
        })
        .await;
    }
    let most = silent.most.load(Relaxed);
    assert!(most <= PROBES, "{most} probes at a time");
    assert!(most_files < PROBES + 200, "{most_files} files");
    homing.sees(APP, app.addr, true).await;
    for pool in ["refusing", "silent"] {
        let of_pool = |line: &&str| line.contains(pool) && line.contains("WARN");
        eventually("the rest is told in a summary", async || {
            let log = homing.log();
            log.lines().filter(of_pool).any(|line| line.contains("more servers went down"))
        })
        .await;
        let lines = homing.log().lines().filter(of_pool).count();
        assert!(lines <= 40, "{lines} lines of {pool}:\n{}", homing.log());
    }
    assert_eq!(homing.get("/readyz").await.status, 200, "what is down is known");
}

fn crowd(name: &str, net: u8, port: u16) -> String {
    let servers: Vec<_> = (0..1000u32)
        .map(|n| format!("{{ip: 127.{net}.{}.{}, port: {port}}}", n / 200, n % 200 + 1))
        .collect();
    format!("{{name: {name}, health_monitor_refs: [hm], servers: [{}]}}", servers.join(", "))
}

/// A server on all loopback addresses that accepts and never answers.
struct Silent {
    port: u16,
    /// The most connections that were open at a time.
    most: Arc<AtomicUsize>,
}

impl Silent {
    async fn start() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("a free port");
        let listener: TcpListener = socket.listen(4096).expect("it listens");
        let port = listener.local_addr().expect("its address").port();
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let highest = most.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                highest.fetch_max(open.fetch_add(1, Relaxed) + 1, Relaxed);
                let open = open.clone();
                tokio::spawn(async move {
                    let mut sink = [0; 1024];
                    while client.read(&mut sink).await.is_ok_and(|read| read > 0) {}
                    open.fetch_sub(1, Relaxed);
                });
            }
        });
        Self { port, most }
    }
}

/// Probes at a time, where files are plenty, and some that are just being closed.
const PROBES: usize = 512 + 100;
