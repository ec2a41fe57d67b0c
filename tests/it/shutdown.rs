//! The end: at once when nothing is in flight, else when it is done, and never later than the grace period.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::{
    routing::websocket,
    support::{
        after,
        certs::cert_for,
        client::{Connection, Request},
        config::Site,
        eventually,
        http2::Http2,
        origin::{Mode, Origin},
        tls::{Profile, TlsClient},
    },
};

#[tokio::test]
async fn an_idle_homing_ends_at_once() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    let site = Site::new(&[&app]).clone_to(&[&clone]).with(|yaml| yaml["grace_period"] = "60s".into());
    let homing = site.start().await;
    let mut kept = Connection::open(homing.addr).await;
    assert_eq!(kept.ask(&Request::get("/")).await.status, 200);
    let _fresh = Connection::open(homing.addr).await;
    clone.got(1).await;
    let begun = Instant::now();
    let status = homing.stop().await;
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    kept.closed().await;
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_newcomers_are_refused() {
    let app = Origin::start("app").await;
    app.set(Mode::Held);
    let mut homing = Site::new(&[&app]).with(|yaml| yaml["grace_period"] = "30s".into()).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    app.got(1).await;
    homing.signal(libc::SIGTERM);
    eventually("new connections are refused", async || TcpStream::connect(homing.addr).await.is_err()).await;
    after(Duration::from_millis(300)).await;
    app.release(1);
    let answer = client.answer().await.expect("the request is answered");
    assert_eq!((answer.status, answer.server()), (200, "app"));
    client.closed().await;
    let begun = Instant::now();
    assert!(homing.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(2), "then it ends at once: {:?}", begun.elapsed());
}

#[tokio::test]
async fn an_http2_stream_in_flight_is_answered() {
    let app = Origin::start("app").await;
    app.set(Mode::Held);
    let site = Site::new(&[&app]).tls(&cert_for(&["a.com"])).with(|yaml| yaml["grace_period"] = "30s".into());
    let mut homing = site.start().await;
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    let client = Http2::over(client.connect(homing.addr, "a.com").await).await;
    let (answer, _) = client.begin(&Request::get("/"), true).await;
    app.got(1).await;
    homing.signal(libc::SIGTERM);
    eventually("new connections are refused", async || TcpStream::connect(homing.addr).await.is_err()).await;
    app.release(1);
    assert_eq!(
        crate::support::soon("an answer", answer).await.expect("the stream is answered").status(),
        200
    );
    let begun = Instant::now();
    assert!(homing.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_does_not_end_is_cut_after_the_grace_period() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).with(|yaml| yaml["grace_period"] = "700ms".into()).start().await;
    let mut tunnel = Connection::open(homing.addr).await;
    tunnel.send(&websocket()).await.expect("the request is read");
    assert_eq!(tunnel.head().await.expect("an answer").status(), 101);
    app.set(Mode::NeverAnswer);
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("the request is read");
    app.got(2).await;
    let begun = Instant::now();
    homing.stop().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(600), "the grace period is given: {took:?}");
    assert!(took < Duration::from_secs(4), "and no more: {took:?}");
}

#[tokio::test]
async fn copies_under_way_do_not_hold_up_the_end() {
    let (app, clone) = (Origin::start("app").await, Origin::start("clone").await);
    clone.set(Mode::NeverAnswer);
    let homing = Site::new(&[&app]).clone_to(&[&clone]).with(|yaml| yaml["grace_period"] = "30s".into());
    let homing = homing.start().await;
    for _ in 0..5 {
        assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
    }
    clone.began(1).await;
    let begun = Instant::now();
    assert!(homing.stop().await.success());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn it_starts_again_on_the_same_addresses_at_once() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]);
    for _ in 0..3 {
        let mut homing = site.start().await;
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
        homing.kill().await;
    }
}
