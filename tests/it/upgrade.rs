//! A new process takes over from the one that serves: its ports, its sessions, what it knows.

mod load;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hickory_proto::rr::RecordType;
use load::Load;

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::{APP, CLONES, Federation, Site, parse},
    dns, eventually,
    homing::Homing,
    net,
    origin::{Mode, Origin},
    tls::{Profile, TlsClient},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_fail_no_request_and_move_no_session() {
    let upgrades: usize = std::env::var("HOMING_SOAK_UPGRADES").map_or(3, |n| n.parse().expect("a number"));
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let (x, y) = (Origin::start("x").await, Origin::start("y").await);
    let tls = net::free_addr();
    let site = upgradable(&[&a, &b])
        .clone_to(&[&x, &y])
        .certificate("cert", &cert_for(&["a.com"]))
        .monitored(APP, "tcp")
        .monitored(CLONES, "tcp")
        .with(|yaml| {
            let service = format!(
                "{{address: {}, port: {}, enable_ssl: true, ssl_key_and_certificate_ref: cert}}",
                tls.ip(),
                tls.port()
            );
            let services = yaml["virtual_services"][0]["services"].as_sequence_mut();
            services.expect("services are a list").push(parse(&service));
        });
    let mut homing = site.start().await;
    let load = Load::start(homing.addr, tls);
    load.makes(200).await;
    for _ in 0..upgrades {
        let next = homing.successor(&site).await;
        homing.hands_over().await;
        load.makes(100).await;
        assert!(homing.ended().await.success());
        let log = homing.log();
        assert!(!log.contains("were cut"), "{log}");
        homing = next;
        load.makes(100).await;
    }
    let requests = load.end().await;
    println!("{upgrades} upgrades, {requests} requests");
    let mut sessions = BTreeMap::<String, BTreeSet<String>>::new();
    for member in [&x, &y] {
        for copy in member.requests() {
            sessions.entry(copy.cookies()).or_default().insert(member.name.clone());
        }
    }
    let moved: Vec<_> = sessions.iter().filter(|(_, at)| at.len() > 1).collect();
    assert!(moved.is_empty(), "{} of {} sessions moved: {moved:?}", moved.len(), sessions.len());
    assert!(sessions.len() > 50, "{} sessions", sessions.len());
}

#[tokio::test]
async fn forty_listeners_are_handed_over_and_those_not_wanted_any_more_are_closed() {
    let app = Origin::start("app").await;
    let ports: Vec<_> = (0..40).map(|_| net::free_addr()).collect();
    let listening = |ports: &[SocketAddr]| {
        let services = ports.iter().map(|at| format!("{{address: {}, port: {}}}", at.ip(), at.port()));
        let services = format!("[{}]", services.collect::<Vec<_>>().join(", "));
        upgradable(&[&app]).vs("services", &services)
    };
    let mut site = listening(&ports);
    let mut homing = site.start().await;
    let admin = (site.admin, homing.addr);
    site = listening(&ports[..38]).with(|yaml| yaml["admin"]["listen"] = admin.0.to_string().into());
    (site.admin, site.addr) = (admin.0, ports[0]);
    let added = net::free_addr();
    site = site.with(|yaml| {
        let service = parse(&format!("{{address: {}, port: {}}}", added.ip(), added.port()));
        yaml["virtual_services"][0]["services"].as_sequence_mut().expect("a list").push(service);
    });
    let next = homing.successor(&site).await;
    homing.hands_over().await;
    assert!(next.log().contains("sockets=41"), "40 and the admin API's: {}", next.log());
    for port in ports[..38].iter().chain([&added]) {
        assert_eq!(Request::get("/").send(*port).await.status, 200, "{port}");
    }
    assert!(homing.ended().await.success());
    for port in &ports[38..] {
        assert!(tokio::net::TcpStream::connect(port).await.is_err(), "{port}");
    }
    assert_eq!(next.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_request_in_flight_ends_in_the_old_process_and_an_idle_connection_is_answered_once_more() {
    let app = Origin::start("app").await;
    let mut homing = upgradable(&[&app]).start().await;
    let site = upgradable(&[&app]);
    let site = same_addresses(site, &homing);
    let mut idle = Connection::open(homing.addr).await;
    assert_eq!(idle.ask(&Request::get("/")).await.header("connection"), Some("keep-alive"));
    app.set(Mode::Held);
    let mut busy = Connection::open(homing.addr).await;
    busy.send(&Request::get("/held")).await.expect("the request is read");
    app.got(2).await;
    let next = homing.successor(&site).await;
    homing.hands_over().await;
    app.set(Mode::Ok);
    let fresh = Request::get("/").send(homing.addr).await;
    assert_eq!(fresh.status, 200, "the new process serves beside the old one");
    let last = idle.ask(&Request::get("/")).await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    app.release(1);
    assert_eq!(busy.answer().await.expect("the request is answered").status, 200);
    assert!(homing.ended().await.success());
    next.says("the process before has no connection any more").await;
}

#[tokio::test]
async fn a_new_process_that_cannot_serve_leaves_the_old_one_serving() {
    let app = Origin::start("app").await;
    let mut homing = upgradable(&[&app]).start().await;
    let site = same_addresses(upgradable(&[&app]), &homing);
    let mut kept = Connection::open(homing.addr).await;
    assert_eq!(kept.ask(&Request::get("/")).await.status, 200);

    let mut bad = homing.beside(&site.clone().vs("pool_ref", "nowhere"), &["--upgrade"], None);
    assert_eq!(bad.ended().await.code(), Some(2), "{}", bad.log());
    homing.signal(libc::SIGQUIT);
    homing.says("no process waits on upgrade_sock").await;

    let taken = Origin::start("taken").await;
    let service = format!("[{{address: {}, port: {}}}]", taken.addr.ip(), taken.addr.port());
    let mut bad = homing.successor(&site.clone().vs("services", &service)).await;
    homing.signal(libc::SIGQUIT);
    assert_eq!(bad.ended().await.code(), Some(1));
    assert!(bad.log().contains("another program listens there"), "{}", bad.log());
    homing.says("the new process failed").await;

    let mut stuck = homing.beside(&site, &["--upgrade"], None);
    stuck.says("taking over when it gets SIGQUIT").await;
    eventually("it waits", async || homing.log().matches("a new process waits").count() == 2).await;
    stuck.signal(libc::SIGSTOP);
    homing.signal(libc::SIGQUIT);
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    stuck.kill().await;
    eventually("it serves on", async || homing.log().matches("the new process failed").count() == 2).await;

    assert_eq!(
        kept.ask(&Request::get("/")).await.header("connection"),
        Some("keep-alive"),
        "nothing has changed"
    );
    let next = homing.beside(&site, &["--upgrade"], None);
    eventually("it waits", async || homing.log().matches("a new process waits").count() == 3).await;
    homing.hands_over().await;
    assert_eq!(kept.ask(&Request::get("/")).await.header("connection"), Some("close"));
    assert!(homing.ended().await.success());
    assert_eq!(next.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn at_sigusr2_it_starts_its_successor_itself_and_hands_over() {
    let app = Origin::start("app").await;
    let mut homing = upgradable(&[&app]).start().await;
    let mut kept = Connection::open(homing.addr).await;
    assert_eq!(kept.ask(&Request::get("/")).await.status, 200);
    homing.signal(libc::SIGUSR2);
    homing.says("the new process serves").await;
    let log = homing.log();
    let pid = log.split("the new process serves pid=").nth(1).expect("its id is told");
    let next = Ending(pid.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a number"));
    assert_eq!(kept.ask(&Request::get("/")).await.header("connection"), Some("close"));
    assert!(homing.ended().await.success());
    // It writes to the same log.
    homing.says("the process before has no connection any more").await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    drop(next);
    homing.says("stopping").await;
    eventually("nobody listens", async || tokio::net::TcpStream::connect(homing.addr).await.is_err()).await;
}

#[tokio::test]
async fn a_successor_that_does_not_start_leaves_the_old_one_serving() {
    let app = Origin::start("app").await;
    let homing = upgradable(&[&app]).start().await;
    std::fs::write(homing.dir().join("homing.yaml"), "pools: 1").expect("it can be written");
    homing.signal(libc::SIGUSR2);
    homing.says("not handed over, serving on").await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    assert!(homing.stop().await.success());
}

/// It reads as a new process does, and dies with everything in its hands.
#[tokio::test]
async fn a_new_process_that_dies_with_the_sockets_in_its_hands_leaves_the_old_one_serving() {
    let app = Origin::start("app").await;
    let homing = upgradable(&[&app]).start().await;
    let path = homing.dir().join("upgrade.sock");
    let mut dying = UnixStream::connect(&path).expect("the old process listens");
    dying.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
    dying.write_all(b"homing hand-over 2\n").expect("it greets");
    homing.says("a new process waits to take over").await;
    let second = homing.beside(&same_addresses(upgradable(&[&app]), &homing), &["--upgrade"], None);
    second.says("another process waits to take over already").await;
    homing.signal(libc::SIGQUIT);
    let dying = tokio::task::spawn_blocking(move || {
        let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
        // Of the admin API's socket and one listener there is one message; what knows of the pool comes after it.
        while !all.windows(APP.len()).any(|at| at == APP.as_bytes()) {
            let got = dying.read(&mut bytes).expect("the old process tells");
            assert!(got > 0, "it was told all");
            all.extend_from_slice(&bytes[..got]);
        }
        dying
    });
    drop(dying.await.expect("no panic"));
    homing.says("not handed over, serving on").await;
    for _ in 0..20 {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    }
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn a_process_that_waits_serves_when_the_one_before_dies() {
    let app = Origin::start("app").await;
    let mut homing = upgradable(&[&app]).start().await;
    let site = same_addresses(upgradable(&[&app]), &homing);
    // Without --upgrade: it finds the socket.
    let next = homing.beside(&site, &[], None);
    homing.says("a new process waits to take over").await;
    homing.kill().await;
    let next = next.once_ready().await;
    assert_eq!(Request::get("/").send(next.addr).await.status, 200);
    // What a killed process left stops nobody.
    let mut next = next;
    next.kill().await;
    assert!(homing.dir().join("upgrade.sock").exists());
    let again = homing.beside(&site, &[], None).once_ready().await;
    assert_eq!(Request::get("/").send(again.addr).await.status, 200);
    assert!(again.stop().await.success());
    assert!(!homing.dir().join("upgrade.sock").exists());
}

#[tokio::test]
async fn health_orders_of_operators_and_tls_sessions_go_along() {
    let (a, b, c) = (Origin::start("a").await, Origin::start("b").await, Origin::start("c").await);
    b.healthy(false);
    let base = |addr: Option<&Homing>| {
        let site = upgradable(&[&a, &b, &c]).tls(&cert_for(&["a.com"])).monitored(APP, "http").with(|yaml| {
            yaml["health_monitors"][0]["failed_checks"] = 50.into();
            yaml["health_monitors"][0]["successful_checks"] = 50.into();
        });
        match addr {
            Some(homing) => same_addresses(site, homing),
            None => site,
        }
    };
    let mut homing = base(None).start().await;
    homing.sees(APP, b.addr, false).await;
    let disabled = homing.command(&["pool", APP, "server", &c.addr.to_string(), "disable"]).await;
    assert_eq!(disabled.code, Some(0), "{}", disabled.text());
    let client = TlsClient::new(Profile::TLS13);
    let mut connection = Connection::over(client.connect(homing.addr, "a.com").await);
    assert_eq!(connection.ask(&Request::get("/")).await.server(), "a");
    // Nothing but what the old process knows says that it is down: 50 checks have to agree.
    let next = homing.successor(&base(Some(&homing))).await;
    b.healthy(true);
    homing.hands_over().await;
    let resumed = client.resume(homing.addr, "a.com").await;
    let mut connection = Connection::over(resumed);
    for _ in 0..6 {
        assert_eq!(connection.ask(&Request::get("/")).await.server(), "a");
    }
    homing.kill().await;
    assert_eq!(next.get("/readyz").await.status, 200);
    let log = next.log();
    assert!(log.contains("server is disabled by an operator"), "{log}");
}

#[tokio::test]
async fn a_server_that_requests_have_taken_out_stays_out_for_the_rest_of_its_time() {
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    a.set(Mode::Status(503));
    let site = upgradable(&[&a, &b]).with(|yaml| {
        yaml["pools"][0]["lb_algorithm"] = "round_robin".into();
        yaml["pools"][0]["inline_health_monitor"] =
            parse("{ consecutive_failures: 3, ejection_time: 1h, max_ejection_time: 2h }");
    });
    let mut homing = site.start().await;
    let mut client = Connection::open(homing.addr).await;
    for _ in 0..6 {
        client.ask(&Request::get("/")).await;
    }
    homing.sees(APP, a.addr, false).await;
    a.set(Mode::Ok);
    a.take();
    let before = ejection(&homing).await;
    assert_eq!((&before["time"], &before["times"]), (&"1h".into(), &1.into()));
    let next = homing.successor(&same_addresses(site, &homing)).await;
    homing.hands_over().await;
    let after = ejection(&next).await;
    assert_eq!(
        ["reason", "time", "times"].map(|key| &after[key]),
        ["reason", "time", "times"].map(|key| &before[key])
    );
    let until = |ejection: &serde_json::Value| ejection["until"]["secs"].as_u64().expect("an end");
    assert!(until(&after).abs_diff(until(&before)) <= 1, "{before} {after}");
    for _ in 0..6 {
        assert_eq!(Request::get("/").send(next.addr).await.status, 200);
    }
    assert_eq!(a.requests().len(), 0);
    drop(client);
    assert!(homing.ended().await.success());
}

/// Of the pool's first server.
async fn ejection(homing: &Homing) -> serde_json::Value {
    homing.json(&format!("/api/v1/pools/{APP}")).await["servers"][0]["ejection"].clone()
}

#[tokio::test]
async fn the_admin_socket_is_the_new_processs_and_a_second_upgrade_finds_the_upgrade_socket() {
    let app = Origin::start("app").await;
    let site = upgradable(&[&app]);
    let mut homing = site.start().await;
    let unix = |homing: &Homing| {
        let mut site = same_addresses(upgradable(&[&app]), homing);
        site.yaml["admin"]["listen"] = "unix:admin.sock".into();
        site
    };
    let admin = format!("unix:{}", homing.dir().join("admin.sock").display());
    for _ in 0..3 {
        let next = homing.successor(&unix(&homing)).await;
        homing.hands_over().await;
        assert!(homing.ended().await.success());
        next.says("admin unix:").await;
        let shown = crate::support::homing::run(&["show", "pool", "--admin", &admin]).await;
        assert_eq!(shown.code, Some(0), "{}", shown.text());
        homing = next;
    }
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn dns_is_answered_all_the_while() {
    let app = Origin::start("app").await;
    let at = net::free_addr();
    let site = Federation::new().site_a(&[&app]).with(|yaml| {
        yaml["upgrade_sock"] = "upgrade.sock".into();
        yaml["dns"] = parse(&format!("{{listen: ['{at}']}}"));
    });
    let mut homing = site.start().await;
    let ending = Arc::new(AtomicBool::new(false));
    let clients = [Arc::clone(&ending), Arc::clone(&ending)].map(|ending| {
        tokio::spawn(async move {
            while !ending.load(Relaxed) {
                let answer = dns::ask(at, "a.com.", RecordType::A).await;
                assert_eq!(dns::addresses(&answer).len(), 1);
            }
        })
    });
    // More threads, and with them more sockets; then fewer.
    for threads in [4, 1] {
        let next = homing.successor(&site.clone().with(|yaml| yaml["threads"] = threads.into())).await;
        homing.hands_over().await;
        assert!(homing.ended().await.success());
        homing = next;
        let mut connection = dns::DnsConnection::open(at).await;
        assert!(connection.ask("a.com.", RecordType::A).await.is_some(), "over TCP too");
    }
    ending.store(true, Relaxed);
    for client in clients {
        client.await.expect("no query is lost");
    }
    assert!(homing.stop().await.success());
}

#[tokio::test]
async fn two_instances_share_a_port_if_both_say_so() {
    let app = Origin::start("app").await;
    let shared = |site: Site| site.with(|yaml| yaml["so_reuseport"] = true.into());
    let first = shared(Site::new(&[&app])).start().await;
    let mut site = shared(Site::new(&[&app]));
    let services = format!("[{{address: {}, port: {}}}]", first.addr.ip(), first.addr.port());
    site = site.vs("services", &services);
    site.addr = first.addr;
    let second = site.start().await;
    for homing in [first, second] {
        assert_eq!(Request::get("/").send(site.addr).await.status, 200);
        assert!(homing.stop().await.success());
    }
}

/// A process that nobody waits for, told to end when this is dropped.
struct Ending(i32);

impl Drop for Ending {
    fn drop(&mut self) {
        // SAFETY: `kill` touches no memory of ours; the process serves, so that its id is its own.
        unsafe { libc::kill(self.0, libc::SIGTERM) };
    }
}

fn upgradable(servers: &[&Origin]) -> Site {
    Site::new(servers).with(|yaml| {
        yaml["upgrade_sock"] = "upgrade.sock".into();
        yaml["grace_period"] = "20s".into();
    })
}

/// The site where this homing is.
fn same_addresses(mut site: Site, homing: &Homing) -> Site {
    let service = &mut site.yaml["virtual_services"][0]["services"][0];
    service["address"] = homing.addr.ip().to_string().into();
    service["port"] = homing.addr.port().into();
    site.yaml["admin"]["listen"] = homing.admin.to_string().into();
    (site.addr, site.admin) = (homing.addr, homing.admin);
    site
}
