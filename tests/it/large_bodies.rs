//! Large bodies cross the hop in a memory that does not grow with them, and no faster than they are read.
//!
//! `HOMING_BODY_MIB` sets how large; `make soak` asks for a gibibyte.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    support::{
        after,
        client::{Connection, Request},
        config::Site,
        eventually_within,
        origin::{Mode, Origin},
        soon,
        wire::chunk,
    },
    through::{HOPS, Hop, Sites, as_of_b},
};

#[tokio::test]
async fn a_large_body_crosses_either_hop_in_constant_memory_up_and_down() {
    for hop in HOPS {
        let app = Origin::start("b").await;
        let sites = Watched::start(hop, &app).await;
        let mut client = sites.open().await;
        send(&mut client, body_size()).await;
        // The app has still to read and to hash what is in the kernel's buffers.
        eventually_within(Duration::from_secs(300), "the body is whole", async || app.requests().len() == 1)
            .await;
        assert_eq!(client.answer().await.expect("an answer").status, 200);
        assert_eq!(app.take().remove(0).body_len, body_size());
        sites.stayed_small("after an upload");

        app.set(Mode::Much(body_size()));
        client.send(&as_of_b(Request::get("/"))).await.expect("the request is read");
        let head = client.head().await.expect("an answer");
        let mut framing = client.framing(&head);
        let mut read = 0;
        while let Some(piece) =
            soon("the body", client.wire.piece(&mut framing)).await.expect("it comes whole")
        {
            read += piece.len() as u64;
        }
        assert_eq!(read, body_size());
        sites.stayed_small("after a download");
    }
}

#[tokio::test]
async fn who_does_not_read_stops_who_writes() {
    for hop in HOPS {
        let app = Origin::start("b").await;
        let sites = Watched::start(hop, &app).await;
        app.set(Mode::Much(MORE_THAN_FITS));
        let mut client = sites.open().await;
        client.send(&as_of_b(Request::get("/"))).await.expect("the request is read");
        client.head().await.expect("an answer");
        after(PATIENCE).await;
        assert!(app.sent() < MORE_THAN_FITS, "{hop:?}: everything was taken off the app");
        sites.stayed_small("before a client that does not read");

        app.down().await;
        app.set(Mode::NeverRead);
        app.up().await;
        let mut client = sites.open().await;
        let whole = timeout(PATIENCE, send(&mut client, MORE_THAN_FITS)).await;
        assert!(whole.is_err(), "{hop:?}: everything was taken off the client");
        sites.stayed_small("before an app that does not read");
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_a_server_may_be_silent() {
    let app = Origin::start("app").await;
    let site = Site::new(&[&app]).with(|yaml| yaml["pools"][0]["read_timeout"] = "100ms".into());
    let homing = site.start().await;
    let half = vec![b'x'; 2 << 20];
    for framing in [("Content-Length", "4194304"), ("Transfer-Encoding", "chunked")] {
        let mut client = Connection::open(homing.addr).await;
        client
            .send(&Request::new("POST", "/").header(framing.0, framing.1))
            .await
            .expect("homing reads the head");
        let chunked = framing.1 == "chunked";
        let half = if chunked { chunk(&half) } else { half.clone() };
        client.wire.write(&half).await.expect("homing reads the body");
        after(Duration::from_millis(500)).await;
        client.wire.write(&half).await.expect("homing reads the body");
        if chunked {
            client.wire.write("0\r\n\r\n").await.expect("homing reads the body");
        }
        assert_eq!(client.answer().await.expect("an answer").status, 200, "{framing:?}");
        assert_eq!(app.take().remove(0).body_len, 4 << 20);
    }
    app.set(Mode::NeverAnswer);
    assert_eq!(Request::post("/", "a small body").send(homing.addr).await.status, 504);
}

/// Two sites whose memory is looked at.
struct Watched {
    sites: Sites,
    /// Of site_A and site_B, when they have served a request.
    before: [u64; 2],
}

impl Watched {
    async fn start(hop: Hop, app: &Origin) -> Self {
        let sites = Sites::start(hop, |fed| fed.site_b(&[app])).await;
        let mut client = sites.open().await;
        assert_eq!(client.ask(&as_of_b(Request::post("/", "a small body"))).await.status, 200);
        app.take();
        let before = [&sites.a, &sites.b].map(|homing| homing.peak_memory());
        Self { sites, before }
    }

    async fn open(&self) -> Connection {
        self.sites.open().await
    }

    fn stayed_small(&self, when: &str) {
        for (homing, before) in [&self.sites.a, &self.sites.b].into_iter().zip(self.before) {
            // The kernel counts in batches for each thread: its peak may be told a little lower later.
            let grown = homing.peak_memory().saturating_sub(before);
            assert!(grown < MOST_GROWTH, "{:?} {when}: grown by {} KiB", self.sites.hop, grown >> 10);
        }
    }
}

/// Sends a request whose body has so many bytes.
async fn send(client: &mut Connection, bytes: u64) {
    let head = as_of_b(Request::new("POST", "/")).header("Content-Length", &bytes.to_string());
    client.send(&head).await.expect("homing reads the head");
    let piece = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        client.wire.write(&piece[..now as usize]).await.expect("homing reads the body");
        left -= now;
    }
}

fn body_size() -> u64 {
    let mebibytes = std::env::var("HOMING_BODY_MIB").map_or(64, |size| size.parse().expect("a number"));
    mebibytes << 20
}

/// Windows and buffers of a few requests, and what an allocator keeps; half of the smallest body.
const MOST_GROWTH: u64 = 32 << 20;
/// More than the kernel's buffers on the way.
const MORE_THAN_FITS: u64 = 256 << 20;
/// Long enough to move all that nothing holds back.
const PATIENCE: Duration = Duration::from_secs(3);
