//! HTTP/2 clients that send their bodies slowly or take nothing of their answers, each beside others of the same
//! connection that do not.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::support::{
    after,
    certs::cert_for,
    client::Request,
    config::Site,
    eventually,
    frames::{DATA, Fate, Frames, RST_STREAM, frame, get, head},
    homing::Homing,
    http2::{self, Http2},
    lines::{self, logged},
    origin::{Mode, Origin},
    soon,
    tls::{Profile, TlsClient},
};

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":authority", "a.com"), (":path", "/slow")];
const NO_ERROR: u32 = 0;

/// Something that a client sends again and again, with a number that grows.
type Said = fn(u32) -> Vec<u8>;

#[tokio::test]
async fn a_stream_whose_body_stops_drips_or_is_empty_frames_gets_408_and_its_neighbours_are_served() {
    let app = Origin::start("app").await;
    let slow: [(&str, Said); 3] = [
        ("nothing", |_| Vec::new()),
        ("a byte", |_| frame(DATA, 0, 1, b"x")),
        ("empty frames", |_| frame(DATA, 0, 1, b"")),
    ];
    for (what, body) in slow {
        let homing = start(&app, "client_body_timeout: 500ms, client_body_min_rate: 100B").await;
        let mut client = Frames::open(homing.addr).await;
        client.send(&[head(1, 0, &POST), frame(DATA, 0, 1, b"x")].concat()).await;
        let beside = |n| [body(n), get(3 + 2 * n)].concat();
        let fate = client.fate_while(1, Duration::from_millis(50), beside).await;
        assert_eq!(fate, Fate::Answered(408), "{what}");
        let reset = client.next_of(RST_STREAM).await.expect("the rest of the body is not wanted");
        assert_eq!((reset.stream, reset.payload), (1, NO_ERROR.to_be_bytes().to_vec()), "{what}");
        client.send(&get(1001)).await;
        assert_eq!(client.fate(1001).await, Fate::Answered(200), "{what}");
        let refused = [("reason", "client_timeout"), ("vs", "web")];
        homing.settles("homing_requests_refused_total", &refused, 1.0).await;
        let told = |line: &Value| line["status"] == 408 && line["reason"] == "client_timeout";
        let log = lines::file(&homing);
        eventually("it has a line", async || lines::read(&log).iter().any(told)).await;
    }
    assert!(app.requests().iter().all(|request| request.target == "/"), "no server gets a slow one whole");
}

#[tokio::test]
async fn a_body_that_stops_after_its_answer_has_begun_resets_its_stream() {
    let app = Origin::start("app").await;
    app.set(Mode::EchoBody);
    let homing = start(&app, "client_body_timeout: 400ms").await;
    let mut client = Frames::open(homing.addr).await;
    client.send(&[head(1, 0, &POST), frame(DATA, 0, 1, b"x")].concat()).await;
    let fate = client.fate(1).await;
    assert!(matches!(fate, Fate::Reset(_)), "{fate:?}");
    client.send(&get(3)).await;
    assert_eq!(client.fate(3).await, Fate::Answered(200));
    let slow = lines::lines(&homing, 2).await.into_iter().find(|line| line["path"] == "/slow");
    assert_eq!(slow.expect("it has a line")["reason"], "client_timeout");
}

#[tokio::test]
async fn a_conversation_may_be_slow_as_long_as_one_of_the_two_says_something() {
    let app = Origin::start("app").await;
    app.set(Mode::EchoBody);
    let homing = start(&app, "client_body_timeout: 1s, client_body_min_rate: 1MiB").await;
    let client = http2(&homing).await;
    let (answer, mut body) = client.begin(&Request::post("/", ""), false).await;
    body.send_data("0".into(), false).expect("the stream lives");
    let mut answer = soon("an answer", answer).await.expect("the stream lives").into_body();
    for word in 1..=8 {
        let echo = soon("an echo", answer.data()).await.expect("the answer goes on");
        assert_eq!(echo.expect("the stream lives"), (word - 1).to_string());
        after(Duration::from_millis(200)).await;
        body.send_data(word.to_string().into(), false).expect("the stream lives");
    }
    body.send_data(Bytes::new(), true).expect("the stream ends");
    assert_eq!(soon("the last", answer.data()).await.expect("an echo").expect("the stream lives"), "8");
    while let Some(rest) = soon("the end", answer.data()).await {
        assert_eq!(rest.expect("the stream lives"), "");
    }
    assert_eq!(lines::line(&homing).await["reason"], Value::Null);
}

#[tokio::test]
async fn a_server_that_takes_nothing_of_a_stream_is_not_its_clients_fault() {
    let stuck = Origin::start("stuck").await;
    stuck.set(Mode::NeverRead);
    let homing = start(&stuck, "client_body_timeout: 200ms, client_body_min_rate: 1MiB").await;
    let client = http2(&homing).await;
    let request = Request::post("/", "");
    let (answer, mut body) = client.begin(&request, false).await;
    let sending = http2::send_all(&mut body, vec![b'b'; 64 << 20].into());
    tokio::select! {
        answer = answer => panic!("{answer:?}"),
        () = sending => panic!("a body of 64 MiB is nowhere in between"),
        () = after(Duration::from_secs(2)) => {}
    }
    let refused = homing.metric("homing_requests_refused_total", &[]).await;
    assert_eq!(refused, 0.0);
}

async fn start(app: &Origin, limits: &str) -> Homing {
    let site = Site::new(&[app]).tls(&cert_for(&["a.com"])).http(limits);
    logged(site, "").with(|yaml| yaml["threads"] = 1.into()).start().await
}

async fn http2(homing: &Homing) -> Http2 {
    let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
    Http2::over(client.connect(homing.addr, "a.com").await).await
}
