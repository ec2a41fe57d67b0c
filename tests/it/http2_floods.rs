//! HTTP/2 clients that flood: their connections end, memory stays bounded, and other clients notice nothing.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::task::JoinHandle;

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::Site,
    frames::{self, CONTINUATION, DATA, END_STREAM, Fate, Frames, GET, HEADERS, PING, PRIORITY, frame},
    homing::Homing,
    http2::Http2,
    origin::{Mode, Origin},
    tls::{self, Profile, TlsClient},
};

/// Said first, and then over and over, with a number that grows.
type Flood = (&'static str, fn() -> Vec<u8>, fn(u32) -> Vec<u8>);

const CALM: u32 = 11;

const FLOODS: [Flood; 12] = [
    ("PING", Vec::new, |_| frame(PING, 0, 0, &[0; 8])),
    ("SETTINGS", Vec::new, |_| frames::settings(&[(4, 65_535)])),
    ("PRIORITY", Vec::new, |n| frame(PRIORITY, 0, odd(n), &[0, 0, 0, 0, 16])),
    ("frames of no known kind", Vec::new, |_| frame(0xfa, 0, 0, b"x")),
    ("empty DATA", open, |_| frame(DATA, 0, 1, b"")),
    ("window updates of a byte", Vec::new, |_| frames::window_update(0, 1)),
    ("window updates of a stream", open, |_| frames::window_update(1, 1)),
    ("requests that are reset at once", Vec::new, |n| {
        [frames::head(odd(n), END_STREAM, &GET), frames::reset(odd(n), 8)].concat()
    }),
    ("requests that homing has to reset", Vec::new, |n| {
        [frames::head(odd(n), 0, &GET), frames::window_update(odd(n), 0)].concat()
    }),
    ("requests that are none", Vec::new, |n| frames::head(odd(n), END_STREAM, &[("x", "y")])),
    (
        "requests above the limit",
        || (0..100).flat_map(|n| frames::head(odd(n), 0, &GET)).collect(),
        |n| frames::head(odd(n + 100), 0, &GET),
    ),
    (
        "a head without an end",
        || frame(HEADERS, 0, 1, &frames::block(&GET)),
        |_| frame(CONTINUATION, 0, 1, &frames::block(&[("x", "y")])),
    ),
];

fn odd(n: u32) -> u32 {
    2 * n + 1
}

/// A request whose body is still to come.
fn open() -> Vec<u8> {
    frames::head(1, 0, &GET)
}

#[tokio::test]
async fn a_flood_ends_its_connection_and_no_other() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let canary = Canary::start(&homing).await;
    let before = homing.memory();
    for (what, first, more) in FLOODS {
        let mut client = Frames::open(homing.addr).await;
        client.send(&first()).await;
        let fate = client.flood(more).await;
        assert!(matches!(fate, Fate::GoneAway(CALM | 1 | 9) | Fate::Closed), "{what}: {fate:?}");
    }
    canary.sings_on().await;
    let grown = homing.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
}

#[tokio::test]
async fn a_flood_is_counted_by_what_it_was() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let mut client = Frames::open(homing.addr).await;
    assert_eq!(client.flood(|_| frame(PING, 0, 0, &[0; 8])).await, Fate::GoneAway(CALM));
    homing.settles("homing_http2_connections_ended_total", &[("reason", "flood")], 1.0).await;
}

#[tokio::test]
async fn a_header_bomb_takes_no_memory() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let canary = Canary::start(&homing).await;
    let before = homing.memory();
    let long = "v".repeat(4000);
    // A field that is kept in the table, and a block that names it over and over.
    let mut kept = frames::block(&GET);
    kept.extend_from_slice(b"\x40\x01x\x7f\xa1\x1e");
    kept.extend_from_slice(long.as_bytes());
    let bomb = [frames::block(&GET), vec![0xbe; 16_000]].concat();
    let mut client = Frames::open(homing.addr).await;
    client.send(&frame(HEADERS, END_STREAM | frames::END_HEADERS, 1, &kept)).await;
    assert_eq!(client.fate(1).await, Fate::Answered(200));
    for n in 1..20 {
        client.send(&frame(HEADERS, END_STREAM | frames::END_HEADERS, odd(n), &bomb)).await;
        match client.fate(odd(n)).await {
            Fate::Answered(431 | 0) | Fate::Reset(_) => {}
            Fate::GoneAway(_) | Fate::Closed => break,
            fate => panic!("{fate:?}"),
        }
    }
    canary.sings_on().await;
    let grown = homing.memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[tokio::test]
async fn clients_that_take_nothing_of_their_answers_take_no_memory() {
    let app = Origin::start("app").await;
    app.set(Mode::Much(64 << 20));
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let before = homing.memory();
    let mut client = Frames::silent(homing.addr).await;
    client.greet(&[(4, 0)]).await;
    client.send(&(0..100).flat_map(|n| frames::head(odd(n), END_STREAM, &GET)).collect::<Vec<_>>()).await;
    let mut begun = 0;
    while begun < 100 {
        begun += usize::from(client.next().await.expect("the connection lives").kind == HEADERS);
    }
    app.set(Mode::Ok);
    let canary = Canary::start(&homing).await;
    canary.sings_on().await;
    let grown = homing.memory().saturating_sub(before);
    assert!(grown < 96 << 10, "{grown} KiB");
}

#[tokio::test]
async fn what_browsers_do_is_no_flood() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    let mut client = Frames::open(homing.addr).await;
    for n in 0..3000 {
        client.send(&frames::get(odd(n))).await;
        assert_eq!(client.fate(odd(n)).await, Fate::Answered(200), "request {n}");
    }
    // A page that is left: its requests are given up together.
    let left = (3000..3090).flat_map(|n| frames::head(odd(n), 0, &GET)).collect::<Vec<_>>();
    let given_up = (3000..3090).flat_map(|n| frames::reset(odd(n), 8)).collect::<Vec<_>>();
    client.send(&[left, frame(PING, 0, 0, &[0; 8])].concat()).await;
    client.next_of(PING).await.expect("the connection lives");
    client.send(&given_up).await;
    client.send(&frames::get(odd(3090))).await;
    assert_eq!(client.fate(odd(3090)).await, Fate::Answered(200));
}

/// Clients that ask one thing after another while something else goes on. None of their requests may fail.
struct Canary {
    silenced: Arc<AtomicBool>,
    singing: Vec<JoinHandle<usize>>,
}

impl Canary {
    async fn start(homing: &Homing) -> Self {
        let silenced = Arc::new(AtomicBool::new(false));
        let http2 = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
        let http2 = Http2::over(http2.connect(homing.addr, "a.com").await).await;
        let http1 = tls::open(homing.addr).await;
        let singing = vec![
            tokio::spawn(sing(silenced.clone(), async move || http2.ask(&Request::get("/")).await.status)),
            tokio::spawn(sing_in_http1(silenced.clone(), http1)),
        ];
        Self { silenced, singing }
    }

    /// All were answered, and some were asked.
    async fn sings_on(self) {
        self.silenced.store(true, Ordering::Relaxed);
        for song in self.singing {
            assert!(song.await.expect("no request failed") > 0);
        }
    }
}

async fn sing(silenced: Arc<AtomicBool>, ask: impl AsyncFn() -> u16) -> usize {
    let mut asked = 0;
    loop {
        assert_eq!(ask().await, 200, "request {asked}");
        asked += 1;
        if silenced.load(Ordering::Relaxed) {
            return asked;
        }
    }
}

async fn sing_in_http1(silenced: Arc<AtomicBool>, mut client: Connection) -> usize {
    let mut asked = 0;
    loop {
        assert_eq!(client.ask(&Request::get("/")).await.status, 200, "request {asked}");
        asked += 1;
        if silenced.load(Ordering::Relaxed) {
            return asked;
        }
    }
}
