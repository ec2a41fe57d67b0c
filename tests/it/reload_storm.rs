//! Reloads under load: no request fails, no connection is cut, no session moves, and memory stays what it is.
//!
//! A few here; `make soak` runs many.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::task::JoinHandle;

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::{APP, CLONES, Site, parse},
    eventually,
    http2::Http2,
    net,
    origin::Origin,
    tls::{Profile, TlsClient},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_request() {
    let reloads: usize = std::env::var("HOMING_SOAK_RELOADS").map_or(20, |n| n.parse().expect("a number"));
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let (x, y) = (Origin::start("x").await, Origin::start("y").await);
    let (tls, extra) = (net::free_addr(), net::free_addr());
    let site = Site::new(&[&a, &b]).clone_to(&[&x, &y]).certificate("cert", &cert_for(&["a.com"]));
    let site = site.with(|yaml| services(yaml).push(parse(&service(tls, TLS))));
    let variants = [
        site.clone(),
        site.clone().with(|yaml| yaml["pools"][0]["servers"][0]["ratio"] = 3.into()),
        site.clone().with(|yaml| services(yaml).push(parse(&service(extra, "")))),
        site.clone().with(|yaml| drop(yaml["pools"][0]["servers"].as_sequence_mut().unwrap().pop())),
        site.clone().monitored(APP, "tcp").clone_section("pipeline_depth", "8"),
        site.clone()
            .pool("more", &[&a])
            .push("virtual_services", "{name: more, domain_names: [more.com], pool_ref: more}")
            .with(|yaml| {
                let services = yaml["virtual_services"][0]["services"].clone();
                yaml["virtual_services"][1]["services"] = services;
                yaml["virtual_services"][1]["ssl_key_and_certificate_ref"] = "cert".into();
            }),
    ];
    let homing = site.start().await;
    let load = Load::start(homing.addr, tls);
    load.makes(100).await;
    let mut memory = 0;
    for n in 1..=reloads {
        let asked = load.asked.load(Relaxed);
        homing.reloaded(&variants[n % variants.len()]).await;
        load.makes(asked + 20).await;
        if n == reloads / 4 {
            memory = homing.memory();
        }
    }
    homing.reloaded(&site).await;
    let (grown, requests) = (homing.memory().saturating_sub(memory), load.end().await);
    assert!(requests >= 20 * reloads as u64, "{requests} requests");
    assert!(reloads < 100 || grown < MOST_GROWN, "{grown} KiB more after {reloads} reloads");
    println!("{reloads} reloads, {requests} requests, {grown} KiB more memory than after a quarter");

    let copies = || [&x, &y].map(|member| (member.name.clone(), member.requests()));
    eventually("every request is copied", async || {
        copies().iter().map(|(_, copies)| copies.len() as u64).sum::<u64>() >= requests
    })
    .await;
    let mut sessions = BTreeMap::<String, String>::new();
    for (member, copies) in copies() {
        for copy in copies {
            let kept = sessions.entry(copy.cookies()).or_insert_with(|| member.clone());
            assert_eq!(*kept, member, "session {} moved", copy.cookies());
        }
    }
    assert_eq!(sessions.len(), CLIENTS);
    homing.settles("homing_clone_dropped_total", &[("pool", CLONES)], 0.0).await;
}

/// Clients of every kind, each a session of its own; the first failure of one ends the test.
struct Load {
    asked: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(plain: SocketAddr, tls: SocketAddr) -> Self {
        let (asked, ending) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let kinds = [Kind::KeepAlive, Kind::KeepAlive, Kind::EachAnew, Kind::Tls, Kind::Http2];
        assert_eq!(kinds.len(), CLIENTS);
        let client = |(n, kind): (usize, Kind)| {
            let (asked, ending) = (asked.clone(), ending.clone());
            tokio::spawn(async move {
                let request = Request::get("/").cookie(&format!("SID={n}"));
                let mut client = Client::new(kind, plain, tls).await;
                while !ending.load(Relaxed) {
                    let status = client.ask(&request).await;
                    assert_eq!(status, 200, "client {n}, {kind:?}");
                    asked.fetch_add(1, Relaxed);
                }
            })
        };
        let clients = kinds.into_iter().enumerate().map(client).collect();
        Self { asked, ending, clients }
    }

    /// Waits until this many requests were answered.
    async fn makes(&self, requests: u64) {
        eventually("requests are answered", async || {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            failed || self.asked.load(Relaxed) >= requests
        })
        .await;
        assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client has failed");
    }

    async fn end(self) -> u64 {
        self.ending.store(true, Relaxed);
        for client in self.clients {
            client.await.expect("no request fails");
        }
        self.asked.load(Relaxed)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One connection for all.
    KeepAlive,
    EachAnew,
    Tls,
    Http2,
}

/// None of them ever opens a second connection, but the one that always does.
enum Client {
    Kept(Connection),
    Anew(SocketAddr),
    Http2(Http2),
}

impl Client {
    async fn new(kind: Kind, plain: SocketAddr, tls: SocketAddr) -> Self {
        match kind {
            Kind::KeepAlive => Self::Kept(Connection::open(plain).await),
            Kind::EachAnew => Self::Anew(plain),
            Kind::Tls => Self::Kept(crate::support::tls::open(tls).await),
            Kind::Http2 => {
                let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
                Self::Http2(Http2::over(client.connect(tls, "a.com").await).await)
            }
        }
    }

    async fn ask(&mut self, request: &Request) -> u16 {
        match self {
            Self::Kept(connection) => connection.ask(request).await.status,
            Self::Anew(addr) => request.send(*addr).await.status,
            Self::Http2(connection) => connection.ask(request).await.status,
        }
    }
}

fn services(yaml: &mut serde_yaml::Value) -> &mut serde_yaml::Sequence {
    yaml["virtual_services"][0]["services"].as_sequence_mut().expect("services are a list")
}

fn service(addr: SocketAddr, more: &str) -> String {
    format!("{{ address: {}, port: {}{more} }}", addr.ip(), addr.port())
}

const TLS: &str = ", enable_ssl: true, ssl_key_and_certificate_ref: cert";
const CLIENTS: usize = 5;
/// In KiB: what allocators keep, and metrics of what comes and goes.
const MOST_GROWN: u64 = 16 * 1024;
