//! What an operator's monitoring reads, and what hostile clients cannot do to it.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::{APP, CLONES, Federation, Site},
    eventually,
    http2::Http2,
    origin::{HALF_AN_ANSWER, Mode, Origin},
    tls::{Profile, TlsClient},
};

#[tokio::test]
async fn the_published_metrics_are_there() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let fed = Federation::new();
    let homing = fed.site_a(&[&app]).clone_to(&[&clone]).start().await;
    Request::get("/").send(homing.addr).await;
    let (vs, server, member) = ("web@site_A", app.addr.to_string(), clone.addr.to_string());
    homing.counts("homing_clone_copies_total", &[("outcome", "answered")], 1.0).await;
    for (name, labels) in [
        ("homing_requests_total", vec![("vs", vs), ("pool", APP), ("code_class", "2xx")]),
        ("homing_request_duration_seconds_bucket", vec![("vs", vs), ("le", "+Inf")]),
        ("homing_request_duration_seconds_count", vec![("vs", vs)]),
        ("homing_pool_server_up", vec![("pool", APP), ("server", &server)]),
        (
            "homing_clone_copies_total",
            vec![("vs", vs), ("pool", CLONES), ("server", &member), ("outcome", "answered")],
        ),
        (
            "homing_clone_answers_total",
            vec![("vs", vs), ("pool", CLONES), ("server", &member), ("code_class", "2xx")],
        ),
        ("homing_clone_answer_seconds_count", vec![("vs", vs), ("pool", CLONES)]),
        ("homing_sp_requests_total", vec![("service", "gs"), ("vs", vs), ("outcome", "new")]),
    ] {
        homing.settles(name, &labels, 1.0).await;
    }
    for (name, labels) in [
        ("homing_connections_open", vec![("vs", vs)]),
        ("homing_pool_server_inflight", vec![("pool", APP), ("server", &server)]),
        ("homing_clone_buffered_bytes", vec![("pool", CLONES)]),
        ("homing_session_entries", vec![]),
        ("homing_sp_pool_servers", vec![("pool", "SP-gs-web@site_A")]),
        ("homing_build_info", vec![("version", env!("CARGO_PKG_VERSION"))]),
    ] {
        assert!(homing.has_metric(name, &labels).await, "{name} {labels:?}");
    }
    homing.settles("homing_session_entries", &[], 1.0).await;
}

#[tokio::test]
async fn connections_and_handshakes_are_counted() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let listener = homing.addr.to_string();
    let listener = ("listener", &*listener);
    let client = TlsClient::new(Profile::TLS13);
    let mut kept = Connection::over(client.connect(homing.addr, "a.com").await);
    assert_eq!(kept.ask(&Request::post("/", "12345")).await.status, 200);
    Connection::over(client.resume(homing.addr, "a.com").await).ask(&Request::get("/")).await;
    let http2 = TlsClient::new(Profile { http2: true, ..Profile::TLS12 });
    Http2::over(http2.connect(homing.addr, "a.com").await).await.ask(&Request::get("/")).await;
    TcpStream::connect(homing.addr)
        .await
        .expect("it listens")
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    for (name, labels, count) in [
        ("homing_tls_handshakes_total", vec![listener, ("version", "TLSv1.3"), ("resumed", "false")], 1.0),
        ("homing_tls_handshakes_total", vec![listener, ("version", "TLSv1.3"), ("resumed", "true")], 1.0),
        ("homing_tls_handshakes_total", vec![listener, ("version", "TLSv1.2"), ("resumed", "false")], 1.0),
        ("homing_tls_handshake_failures_total", vec![listener, ("reason", "not_tls")], 1.0),
        ("homing_connections_refused_total", vec![listener, ("reason", "tls_handshake")], 1.0),
        ("homing_connections_accepted_total", vec![listener], 4.0),
        ("homing_requests_by_protocol_total", vec![("vs", "web"), ("protocol", "HTTP/1.1")], 2.0),
        ("homing_requests_by_protocol_total", vec![("vs", "web"), ("protocol", "HTTP/2")], 1.0),
        ("homing_request_body_bytes_total", vec![("vs", "web")], 5.0),
        // The others have closed.
        ("homing_listener_connections_open", vec![listener], 1.0),
        ("homing_connections_open", vec![("vs", "web")], 1.0),
    ] {
        homing.settles(name, &labels, count).await;
    }
    assert!(homing.metric("homing_response_body_bytes_total", &[("vs", "web")]).await > 0.0);
}

#[tokio::test]
async fn failures_of_servers_are_counted_by_reason() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| {
        yaml["threads"] = 1.into();
        yaml["pools"][0]["read_timeout"] = "200ms".into();
    });
    let homing = site.start().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    homing.settles("homing_upstream_connect_duration_seconds_count", &[("pool", APP)], 1.0).await;
    let server = app.addr.to_string();
    let failures = async |reason: &str| {
        let labels = [("pool", APP), ("server", &*server), ("reason", reason)];
        homing.settles("homing_upstream_request_failures_total", &labels, 1.0).await;
    };
    app.set(Mode::RawClose(HALF_AN_ANSWER));
    Connection::open(homing.addr).await.try_ask(&Request::post("/", "x")).await.expect_err("it is cut");
    failures("closed").await;
    app.set(Mode::NeverAnswer);
    assert_eq!(Request::get("/").send(homing.addr).await.status, 504);
    failures("read_timeout").await;
    app.set(Mode::RawClose("nonsense\r\n\r\n".into()));
    assert_eq!(Request::post("/", "x").send(homing.addr).await.status, 502);
    failures("protocol").await;
    app.down().await;
    assert_eq!(Request::get("/").send(homing.addr).await.status, 503, "no server is left to try");
    let labels = [("pool", APP), ("server", &*server), ("reason", "refused")];
    homing.settles("homing_upstream_connect_failures_total", &labels, 1.0).await;
}

#[tokio::test]
async fn the_process_and_its_configuration_are_told() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    for (name, least) in [
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 4.0),
        ("process_max_fds", 64.0),
        ("process_threads", 1.0),
        ("process_start_time_seconds", 1e9),
        ("homing_config_last_reload_success_timestamp_seconds", 1e9),
        // Certificates of tests are good for centuries.
        ("homing_certificate_expiry_timestamp_seconds", 2e9),
    ] {
        let value = homing.metric(name, &[]).await;
        assert!(value > least, "{name} is {value}");
    }
    let checksum = async || {
        let page = homing.get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let lines: Vec<_> = page.lines().filter(|line| line.starts_with("homing_config_info{")).collect();
        assert_eq!(lines.len(), 1, "one configuration is in force: {lines:?}");
        lines[0].to_owned()
    };
    let first = checksum().await;
    assert_eq!(homing.metric("homing_config_generation", &[]).await, 1.0);
    let other = site.with(|yaml| yaml["grace_period"] = "3s".into());
    homing.reloaded(&other).await;
    assert_ne!(checksum().await, first);
    assert_eq!(homing.metric("homing_config_generation", &[]).await, 2.0);
}

/// Whatever a client says, a million clients make no more series than one.
#[tokio::test]
async fn clients_cannot_multiply_labels() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let fed = Federation::new();
    let site = fed.site_a(&[&app]).clone_to(&[&clone]).tls(&cert_for(&["a.com"]));
    let homing = site.start().await;
    let series = async || {
        let page = homing.get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let names = page.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<_> =
            names.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    };
    let client = TlsClient::new(Profile::TLS13);
    let visit = async |evil: String| {
        // A name that is not served, one that is, and one in SNI alone.
        for (sni, host) in
            [("a.com", format!("{evil}.com")), ("a.com", "a.com".into()), (&*evil, "a.com".into())]
        {
            let request = Request::new(&format!("M{evil}"), &format!("/{evil}?{evil}={evil}"))
                .host(&host)
                .cookie(&format!("{evil}={evil}; SID={evil}; FOO={evil}"))
                .header("x-session", &evil)
                .header("x-forwarded-for", &evil)
                .header("x-homing-hop", &evil)
                .header("x-homing-clone", &evil)
                .header("x-request-id", &evil)
                .header("user-agent", &evil);
            Connection::over(client.connect(homing.addr, sni).await).ask(&request).await;
        }
    };
    let all_counted = async |visits: f64| {
        homing.settles("homing_requests_total", &[], 3.0 * visits).await;
        homing.settles("homing_connections_open", &[], 0.0).await;
        eventually("each request is copied or counted as not copied", async || {
            let mut sum = 0.0;
            for name in
                ["homing_clone_copies_total", "homing_clone_dropped_total", "homing_clone_skipped_total"]
            {
                sum += homing.metric(name, &[]).await;
            }
            sum >= 2.0 * visits
        })
        .await;
    };
    visit("evil0".into()).await;
    all_counted(1.0).await;
    let before = series().await;
    for n in 1..10 {
        visit(format!("evil{n}")).await;
    }
    all_counted(10.0).await;
    let after = series().await;
    assert_eq!(after, before);
    assert!(after.iter().all(|name| !name.contains("evil")), "{after:#?}");
}
