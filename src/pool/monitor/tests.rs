//! Monitors against servers of this process.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openssl::{
    pkey::PKey,
    ssl::{SslAcceptor, SslMethod},
    x509::X509,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

use super::Monitors;
use crate::{
    clock::Clock,
    config::{self, HealthMonitor, HttpRequest, LbAlgorithm, MonitorType, ResponseCodes},
    limits::OpenFiles,
    metrics::Metrics,
    pool::{Health, Pool, State, fixture},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const NOW: SystemTime = UNIX_EPOCH;

/// What an [`Origin`] does with a request.
#[derive(Clone, Copy)]
enum Answer {
    /// Sends this and closes.
    Text(&'static [u8]),
    /// Sends a head, then a body for as long as somebody reads.
    Endless,
    Nothing,
}

/// A server that gives one answer at a time and tells what it was asked.
struct Origin {
    addr: SocketAddr,
    answer: watch::Sender<Answer>,
    /// Each request; an empty one where the client left without.
    asked: mpsc::UnboundedReceiver<String>,
    /// Clients that left before they had their answer.
    left: mpsc::UnboundedReceiver<()>,
}

impl Origin {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answer, current) = watch::channel(answer);
        let (request, asked) = mpsc::unbounded_channel();
        let (leaves, left) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, *current.borrow(), request.clone(), leaves.clone()));
            }
        });
        Self { addr, answer, asked, left }
    }

    async fn next_request(&mut self) -> String {
        soon(self.asked.recv()).await.expect("the origin runs")
    }
}

async fn serve(
    mut client: TcpStream,
    answer: Answer,
    request: mpsc::UnboundedSender<String>,
    leaves: mpsc::UnboundedSender<()>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && client.read_buf(&mut head).await.unwrap_or(0) > 0 {}
    // The test may be over and not listen any more.
    let _ = request.send(String::from_utf8(head).unwrap());
    match answer {
        Answer::Text(text) => {
            let _ = client.write_all(text).await;
        }
        Answer::Endless => {
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while client.write_all(&[b'x'; 4096]).await.is_ok() {}
            let _ = leaves.send(());
        }
        Answer::Nothing => {
            while client.read_buf(&mut Vec::new()).await.is_ok_and(|read| read > 0) {}
            let _ = leaves.send(());
        }
    }
}

/// What nothing in these tests takes, unless it never comes.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it comes before the deadline")
}

async fn until(pool: &Pool, condition: impl Fn(&Pool) -> bool) {
    soon(async {
        loop {
            let changed = pool.changed();
            if condition(pool) {
                return;
            }
            changed.await;
        }
    })
    .await;
}

fn http(headers: &[(&str, &str)]) -> MonitorType {
    MonitorType::Http { request: request(headers), codes: codes() }
}

fn request(headers: &[(&str, &str)]) -> HttpRequest {
    let header = |(name, value): &(&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
    HttpRequest {
        method: http::Method::GET,
        target: "/healthz".into(),
        headers: headers.iter().map(header).collect(),
    }
}

/// 2xx and 404.
fn codes() -> ResponseCodes {
    ResponseCodes { classes: 1 << 2, codes: vec![404] }
}

/// A monitor that probes once and waits for long, unless `change` says otherwise.
fn monitor(kind: MonitorType, change: impl FnOnce(&mut HealthMonitor)) -> Arc<HealthMonitor> {
    let mut monitor = HealthMonitor::clone(&fixture::monitor(kind));
    change(&mut monitor);
    Arc::new(monitor)
}

fn config(servers: &[SocketAddr], monitors: Vec<Arc<HealthMonitor>>) -> config::Pool {
    let mut config = fixture::config(LbAlgorithm::RoundRobin, &vec![1; servers.len()]);
    for (server, addr) in config.servers.iter_mut().zip(servers) {
        server.addr = *addr;
    }
    config.monitors = monitors;
    config
}

/// Starts to watch; ends when this is dropped.
fn watch(pool: &Arc<Pool>) -> Monitors {
    let monitors = Monitors::new(Clock::virtual_at(Duration::from_secs(7)), OpenFiles::allowed());
    follow(&monitors, &[pool]);
    monitors
}

fn follow(monitors: &Monitors, pools: &[&Arc<Pool>]) {
    let pools: Vec<_> = pools.iter().copied().cloned().collect();
    monitors.follow(&pools, &mut StdRng::seed_from_u64(1));
}

/// The health of a server after the first result of one monitor.
async fn first_result(addr: SocketAddr, monitor: Arc<HealthMonitor>) -> Health {
    first_health(config(&[addr], vec![monitor])).await
}

/// The same of a pool's only server.
async fn first_health(config: config::Pool) -> Health {
    let pool = fixture::build(config);
    let _watch = watch(&pool);
    until(&pool, Pool::checked).await;
    pool.servers()[0].health()
}

fn down(reason: &str) -> Health {
    Health::Down { reason: format!("hm: {reason}") }
}

/// An address where nobody listens.
async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn one_answer_decides_what_the_first_health_is() {
    let interim =
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [
        (OK, Health::Up),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Health::Up),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Health::Up),
        (interim, Health::Up),
        (BROKEN, down("answered 500")),
        (b"HTTP/1.1 302 Found\r\n\r\n", down("answered 302")),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", down("the answer is not HTTP")),
        (b"", down("connection closed before the end of the answer")),
        (b"HTTP/1.1 200 OK\r\ncontent-le", down("connection closed before the end of the answer")),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            down("connection closed before the end of the answer"),
        ),
    ] {
        let origin = Origin::start(Answer::Text(answer)).await;
        let health = first_result(origin.addr, monitor(http(&[]), |_| {})).await;
        assert_eq!(health, expected, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn the_request_is_the_monitors_own() {
    let mut origin = Origin::start(Answer::Text(OK)).await;
    first_result(origin.addr, monitor(http(&[("Host", "a.com")]), |_| {})).await;
    let request = origin.next_request().await.to_lowercase();
    assert!(request.starts_with("get /healthz http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: a.com\r\n"), "{request}");
    assert!(request.contains("\r\nuser-agent: homing-monitor\r\n"), "{request}");
}

#[tokio::test]
async fn silence_is_a_failure_when_the_time_is_up() {
    let mut origin = Origin::start(Answer::Nothing).await;
    let monitor = monitor(http(&[]), |monitor| monitor.receive_timeout = Duration::from_millis(50));
    assert_eq!(first_result(origin.addr, monitor).await, down("no answer within 50ms"));
    soon(origin.left.recv()).await.expect("the probe's connection ends with it");
}

#[tokio::test]
async fn a_health_page_that_never_ends_is_read_in_part() {
    let mut origin = Origin::start(Answer::Endless).await;
    assert_eq!(first_result(origin.addr, monitor(http(&[]), |_| {})).await, Health::Up);
    soon(origin.left.recv()).await.expect("the probe does not stay for more");
}

#[tokio::test]
async fn tcp_asks_nothing_and_a_closed_port_is_down() {
    let mut origin = Origin::start(Answer::Text(b"")).await;
    assert_eq!(first_result(origin.addr, monitor(MonitorType::Tcp, |_| {})).await, Health::Up);
    assert_eq!(origin.next_request().await, "");
    for (kind, proxy_protocol) in
        [(MonitorType::Tcp, None), (http(&[]), None), (MonitorType::Tcp, Some(config::ProxyProtocol::V2))]
    {
        let mut config = config(&[closed_port().await], vec![monitor(kind, |_| {})]);
        config.connections.proxy_protocol = proxy_protocol;
        assert_eq!(first_health(config).await, down("connection refused"));
    }
}

#[tokio::test]
async fn the_monitors_port_is_probed_where_it_has_one() {
    let origin = Origin::start(Answer::Text(OK)).await;
    let port = origin.addr.port();
    for kind in [MonitorType::Tcp, http(&[])] {
        let monitor = monitor(kind, |monitor| monitor.monitor_port = Some(port));
        assert_eq!(first_result(closed_port().await, monitor).await, Health::Up);
    }
}

#[tokio::test]
async fn https_takes_any_certificate_and_sends_a_name() {
    let certified = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&X509::from_der(certified.cert.der()).unwrap()).unwrap();
    let key = PKey::private_key_from_der(&certified.signing_key.serialize_der()).unwrap();
    acceptor.set_private_key(&key).unwrap();
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::task::spawn_blocking(move || {
        let (client, _) = listener.accept().unwrap();
        let mut client = acceptor.accept(client).unwrap();
        std::io::Read::read(&mut client, &mut [0; 4096]).unwrap();
        std::io::Write::write_all(&mut client, OK).unwrap();
        client.ssl().servername(openssl::ssl::NameType::HOST_NAME).map(str::to_owned)
    });
    let kind = MonitorType::Https { request: request(&[("Host", "a.com")]), codes: codes() };
    assert_eq!(first_result(addr, monitor(kind.clone(), |_| {})).await, Health::Up);
    assert_eq!(server.await.unwrap().as_deref(), Some("a.com"));
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = plain.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = plain.accept().await.unwrap();
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        client.read_to_end(&mut Vec::new()).await
    });
    let Health::Down { reason } = first_result(addr, monitor(kind, |_| {})).await else { panic!("it is up") };
    assert!(reason.starts_with("hm: TLS handshake failed: wrong version number"), "{reason}");
}

#[tokio::test]
async fn a_server_goes_down_and_returns_by_the_thresholds() {
    let mut origin = Origin::start(Answer::Text(OK)).await;
    let monitor = monitor(http(&[]), |monitor| {
        monitor.send_interval = Duration::from_millis(5);
        (monitor.successful_checks, monitor.failed_checks) = (4, 3);
    });
    let pool = fixture::build(config(&[origin.addr], vec![monitor]));
    let _watch = watch(&pool);
    for (answer, up, at_least) in [(BROKEN, 0, 3), (OK, 1, 4)] {
        until(&pool, |pool| pool.checked() && pool.up_count() == 1 - up).await;
        origin.answer.send_replace(Answer::Text(answer));
        while origin.asked.try_recv().is_ok() {}
        until(&pool, |pool| pool.up_count() == up).await;
        let mut asked = 0;
        while origin.asked.try_recv().is_ok() {
            asked += 1;
        }
        assert!(asked >= at_least, "{asked} requests, threshold {at_least}");
    }
    let status = pool.servers()[0].status();
    assert_eq!((status.state, status.last_changed), (State::Up, NOW + Duration::from_secs(7)));
}

#[tokio::test]
async fn a_server_is_up_when_all_its_monitors_say_so() {
    let origin = Origin::start(Answer::Text(BROKEN)).await;
    let tcp = monitor(MonitorType::Tcp, |monitor| monitor.name = "tcp".into());
    let http = monitor(http(&[]), |monitor| {
        monitor.send_interval = Duration::from_millis(5);
    });
    let pool = fixture::build(config(&[origin.addr], vec![tcp, http]));
    let _watch = watch(&pool);
    until(&pool, |pool| pool.checked() && pool.up_count() == 0).await;
    assert_eq!(pool.servers()[0].health(), down("answered 500"));
    origin.answer.send_replace(Answer::Text(OK));
    until(&pool, |pool| pool.up_count() == 1).await;
}

#[test]
fn nothing_is_decided_until_each_monitor_has_said_something_or_one_says_down() {
    let (unchecked, up) = (Health::Unchecked, Health::Up);
    let (broken, refused) = (down("answered 500"), down("connection refused"));
    for (said, enough, expected) in [
        (vec![up.clone(), unchecked.clone()], 2, None),
        (vec![up.clone(), up.clone()], 2, Some(&up)),
        (vec![unchecked.clone(), broken.clone()], 2, Some(&broken)),
        (vec![broken.clone(), refused.clone()], 2, Some(&broken)),
        (vec![up.clone(), unchecked.clone()], 1, Some(&up)),
        (vec![unchecked.clone(), broken.clone()], 1, None),
        (vec![up.clone(), broken.clone()], 1, Some(&up)),
        (vec![refused.clone(), broken.clone()], 1, Some(&refused)),
        (vec![up.clone(), unchecked, broken.clone()], 2, None),
    ] {
        assert_eq!(super::together(&said, enough).as_ref(), expected, "{enough} of {said:?}");
    }
}

#[test]
fn thousands_of_probes_do_not_begin_at_once() {
    for (before, milliseconds) in [(0, 0), (99, 0), (100, 50), (250, 100), (20_000, 10_000)] {
        assert_eq!(super::turn(before), Duration::from_millis(milliseconds));
    }
}

#[tokio::test]
async fn each_server_has_its_own_health_and_a_disabled_one_is_not_probed() {
    let (up, broken) = (Origin::start(Answer::Text(OK)).await, Origin::start(Answer::Text(BROKEN)).await);
    let mut disabled = Origin::start(Answer::Text(OK)).await;
    let mut config = config(&[up.addr, broken.addr, disabled.addr], vec![monitor(http(&[]), |_| {})]);
    config.servers[2].enabled = false;
    let pool = fixture::build(config);
    let _watch = watch(&pool);
    until(&pool, Pool::checked).await;
    let active: Vec<_> = pool.active_servers().map(|server| server.addr()).collect();
    assert_eq!(active, [up.addr]);
    assert!(disabled.asked.try_recv().is_err());
}

#[tokio::test]
async fn after_a_reload_thresholds_go_on_from_what_is_known() {
    let mut origin = Origin::start(Answer::Text(BROKEN)).await;
    let monitor = monitor(http(&[]), |monitor| monitor.send_interval = Duration::from_millis(5));
    let config = Arc::new(config(&[origin.addr], vec![monitor]));
    let metrics = Metrics::new();
    let old = Pool::new(&config, &metrics, None, NOW);
    old.servers()[0].set_health(Health::Up, NOW);
    let new = Pool::new(&config, &metrics, Some(&old), NOW);
    let _watch = watch(&new);
    until(&new, |pool| pool.up_count() == 0).await;
    origin.next_request().await;
    origin.asked.try_recv().expect("one failure alone takes no server down that was up");
}

#[tokio::test]
async fn after_a_reload_one_monitor_alone_brings_no_server_up_that_was_down() {
    let silent = Origin::start(Answer::Nothing).await;
    let mut open = Origin::start(Answer::Text(b"")).await;
    let tcp = monitor(MonitorType::Tcp, |monitor| {
        monitor.send_interval = Duration::from_millis(5);
        monitor.monitor_port = Some(open.addr.port());
    });
    let config = Arc::new(config(&[silent.addr], vec![tcp, monitor(http(&[]), |_| {})]));
    let metrics = Metrics::new();
    let old = Pool::new(&config, &metrics, None, NOW);
    old.servers()[0].set_health(down("answered 500"), NOW);
    let new = Pool::new(&config, &metrics, Some(&old), NOW);
    let _watch = watch(&new);
    for _ in 0..4 {
        open.next_request().await;
    }
    assert_eq!(new.servers()[0].health(), down("answered 500"));
}

#[tokio::test]
async fn the_monitors_of_a_pool_that_stays_are_left_alone_and_those_of_one_that_goes_end() {
    let (mut stays, mut goes) = (Origin::start(Answer::Nothing).await, Origin::start(Answer::Nothing).await);
    let mut comes = Origin::start(Answer::Text(OK)).await;
    let [stays_pool, goes_pool, comes_pool] = [stays.addr, goes.addr, comes.addr]
        .map(|addr| fixture::build(config(&[addr], vec![monitor(http(&[]), |_| {})])));
    let monitors = watch(&stays_pool);
    follow(&monitors, &[&stays_pool, &goes_pool]);
    stays.next_request().await;
    goes.next_request().await;
    follow(&monitors, &[&comes_pool, &stays_pool]);
    soon(goes.left.recv()).await.expect("the probe of the one that goes ends");
    comes.next_request().await;
    until(&comes_pool, Pool::checked).await;
    assert!(stays.asked.try_recv().is_err(), "the one that stays is not probed anew");
    assert!(stays.left.try_recv().is_err(), "nor is its probe cut");
}

#[tokio::test]
async fn cancelling_ends_a_probe_that_is_on_its_way() {
    let mut origin = Origin::start(Answer::Nothing).await;
    let pool = fixture::build(config(&[origin.addr], vec![monitor(http(&[]), |_| {})]));
    let watch = watch(&pool);
    origin.next_request().await;
    drop(watch);
    soon(origin.left.recv()).await.expect("the connection ends");
    assert!(!pool.checked());
}

#[tokio::test]
async fn a_server_says_by_code_or_text_that_it_is_in_maintenance() {
    let says = |answer: &'static [u8], codes: &[u16], text: Option<&str>| {
        let maintenance = config::Maintenance {
            codes: ResponseCodes { classes: 0, codes: codes.to_vec() },
            text: text.map(str::to_owned),
        };
        async move {
            let origin = Origin::start(Answer::Text(answer)).await;
            first_result(origin.addr, monitor(http(&[]), |monitor| monitor.maintenance = maintenance)).await
        }
    };
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nback soon: repairing";
    let maintenance = |status: u16| Health::Maintenance {
        reason: format!("hm: answered {status}, which is for maintenance"),
    };
    assert_eq!(says(answer, &[], Some("repairing")).await, maintenance(200));
    assert_eq!(says(answer, &[], Some("despairing")).await, Health::Up);
    assert_eq!(says(BROKEN, &[500], None).await, maintenance(500));
    assert_eq!(says(BROKEN, &[503], None).await, down("answered 500"));
}
