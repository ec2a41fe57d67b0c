//! Copies over real sockets, to members that behave and to members that do not. Time is tokio's, paused: it
//! moves on when nothing else is left to do.

use std::{
    future::Future,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{CloneSelection, LbAlgorithm, OnOverflow, Pool, Server};

/// A section with the defaults.
pub(super) fn section() -> CloneSection {
    CloneSection {
        pool: "MY_CLONEPOOL".into(),
        tokens: Vec::new(),
        timeout: Duration::from_secs(300),
        lifetime: None,
        selection: CloneSelection::Random,
        sample_permille: 1000,
        strip_headers: Default::default(),
        set_headers: Vec::new(),
        max_buffered_bytes: 16 << 20,
        inline_body_bytes: 64 << 10,
        connections_per_server: NonZeroUsize::new(4).unwrap(),
        pipeline_depth: NonZeroUsize::new(64).unwrap(),
        on_overflow: OnOverflow::Drop,
    }
}

fn members(addrs: &[SocketAddr]) -> Pool {
    let server = |addr: &SocketAddr| Server { addr: *addr, hostname: None, ratio: 1, enabled: true };
    Pool {
        name: "MY_CLONEPOOL".into(),
        enabled: true,
        algorithm: LbAlgorithm::Random,
        servers: addrs.iter().map(server).collect(),
        monitors: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        enable_ssl: false,
        sni: None,
        verify: false,
    }
}

/// A clone pool at work, and what it counted.
struct Bench {
    pool: Arc<ClonePool>,
    metrics: Metrics,
    retired: CancellationToken,
}

impl Bench {
    fn new(section: &CloneSection, addrs: &[SocketAddr]) -> Self {
        let (metrics, retired) = (Metrics::new(), CancellationToken::new());
        let pool = ClonePool::new(section, &members(addrs), &"vs".into(), &metrics, retired.clone());
        Self { pool, metrics, retired }
    }

    fn tap(&self, to: SocketAddr, session: u64, seq: u64, method: Method, body: BodyKind) -> Option<Tap> {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("test"));
        let head = CopyHead {
            method: &method,
            target: &format!("/{session}/{seq}"),
            host: "a.com",
            headers: &headers,
            session,
            seq,
            request_id: &"id",
            drop_cookie: None,
            body,
        };
        self.pool.tap(to, &head)
    }

    /// Copies a request without a body.
    fn get(&self, to: SocketAddr, session: u64, seq: u64) {
        if let Some(tap) = self.tap(to, session, seq, Method::GET, BodyKind::None) {
            tap.end();
        }
    }

    fn post(&self, to: SocketAddr, session: u64, body: BodyKind) -> Tap {
        self.tap(to, session, 1, Method::POST, body).expect("the copy is not dropped")
    }

    /// The sum of a metric over the lines that have all of `labels`.
    fn count(&self, metric: &str, labels: &[&str]) -> usize {
        let page = self.metrics.page();
        let lines = page.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    }

    fn copies(&self, outcome: &str, reason: &str) -> usize {
        let (outcome, reason) = (format!("outcome=\"{outcome}\""), format!("reason=\"{reason}\""));
        self.count("homing_clone_copies_total", &[&outcome, &reason])
    }

    fn answered(&self) -> usize {
        self.copies("answered", "")
    }

    fn dropped(&self, reason: &str) -> usize {
        self.count("homing_clone_dropped_total", &[&format!("reason=\"{reason}\"")])
    }

    /// Every copy whose fate is known.
    fn ended(&self) -> usize {
        self.count("homing_clone_copies_total", &[]) + self.count("homing_clone_dropped_total", &[])
    }

    fn buffered(&self) -> usize {
        self.count("homing_clone_buffered_bytes", &[])
    }

    /// Waits until so many copies have ended, and sees that nothing of them is kept.
    async fn settled(&self, copies: usize) {
        eventually(&format!("{copies} copies to end"), || self.ended() == copies).await;
        assert_eq!(self.buffered(), 0, "what has ended is not kept");
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(600), waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// A clone member: what it got, and how often it had to accept and to read for it.
struct Origin {
    addr: SocketAddr,
    requests: mpsc::UnboundedReceiver<Got>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Got {
    connection: usize,
    head: String,
    body: Vec<u8>,
}

impl Got {
    /// Session and number, of the target.
    fn session(&self) -> (u64, u64) {
        let target = self.head.split(' ').nth(1).unwrap();
        let (session, seq) = target[1..].split_once('/').unwrap();
        (session.parse().unwrap(), seq.parse().unwrap())
    }
}

/// The member's side of a connection.
struct Incoming {
    stream: TcpStream,
    number: usize,
    buffer: Vec<u8>,
    reads: Arc<AtomicUsize>,
    requests: mpsc::UnboundedSender<Got>,
}

impl Incoming {
    /// The next request, reported; `None`: the connection has ended.
    async fn request(&mut self) -> Option<()> {
        let head = loop {
            match self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break self.take(end + 4),
                None => self.more().await?,
            }
        };
        let head = String::from_utf8(head).expect("a head is text");
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let body = match (field("Content-Length:"), field("Transfer-Encoding:")) {
            (Some(length), None) => self.exactly(length.parse().expect("a number")).await?,
            (None, Some("chunked")) => self.chunked().await?,
            (None, None) => Vec::new(),
            framing => panic!("not framed once: {framing:?}"),
        };
        let _ = self.requests.send(Got { connection: self.number, head, body });
        Some(())
    }

    async fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).expect("a chunk size");
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await?);
            assert_eq!(self.line().await?, "");
        }
        let mut trailers = Vec::new();
        loop {
            match self.line().await?.as_str() {
                "" => break,
                trailer => trailers.push(trailer.to_owned()),
            }
        }
        body.extend(trailers.concat().bytes());
        Some(body)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            match self.buffer.windows(2).position(|window| window == b"\r\n") {
                Some(end) => {
                    let line = self.take(end + 2);
                    return Some(String::from_utf8(line[..end].to_vec()).expect("a line is text"));
                }
                None => self.more().await?,
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Some(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }

    async fn more(&mut self) -> Option<()> {
        let mut piece = vec![0; 256 * 1024];
        let length = self.stream.read(&mut piece).await.unwrap_or(0);
        self.reads.fetch_add(1, SeqCst);
        self.buffer.extend(&piece[..length]);
        (length > 0).then_some(())
    }

    async fn answer(&mut self, answer: &str) {
        // The other side may have gone.
        let _ = self.stream.write_all(answer.as_bytes()).await;
    }
}

impl Origin {
    /// A member that does this with every connection.
    async fn new<F>(behave: impl Fn(Incoming) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), behave)
    }

    fn on<F>(listener: TcpListener, behave: impl Fn(Incoming) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().expect("it is bound");
        let (sender, requests) = mpsc::unbounded_channel();
        let [accepted, open, reads] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let origin = Self { addr, requests, accepted, open, reads };
        let (accepted, open, reads) = (origin.accepted.clone(), origin.open.clone(), origin.reads.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                open.fetch_add(1, SeqCst);
                let (reads, requests) = (reads.clone(), sender.clone());
                let number = accepted.fetch_add(1, SeqCst);
                let served = behave(Incoming { stream, number, buffer: Vec::new(), reads, requests });
                let open = open.clone();
                tokio::spawn(async move {
                    served.await;
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        origin
    }

    /// A member that answers every request alike.
    async fn answering(answer: &'static str) -> Self {
        Self::new(move |mut incoming| async move {
            while incoming.request().await.is_some() {
                incoming.answer(answer).await;
            }
        })
        .await
    }

    async fn request(&mut self) -> Got {
        timeout(Duration::from_secs(600), self.requests.recv()).await.expect("a request").expect("it runs")
    }

    async fn requests(&mut self, count: usize) -> Vec<Got> {
        let mut requests = Vec::new();
        while requests.len() < count {
            requests.push(self.request().await);
        }
        requests
    }

    fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    async fn all_closed(&self) {
        eventually("connections to close", || self.open.load(SeqCst) == 0).await;
    }
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn many_copies_share_few_connections_and_few_writes_and_sessions_stay_in_order() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..100 {
        for session in 0..20 {
            bench.get(origin.addr, session, seq);
        }
        tokio::task::yield_now().await;
    }
    let requests = origin.requests(2000).await;
    bench.settled(2000).await;
    assert_eq!(bench.answered(), 2000);
    assert!(origin.accepted() <= 4, "{} connections", origin.accepted());
    let reads = origin.reads.load(SeqCst);
    assert!(reads < 500, "{reads} reads for 2000 copies");
    for session in 0..20 {
        let own: Vec<_> = requests.iter().filter(|got| got.session().0 == session).collect();
        assert!(own.iter().map(|got| got.session().1).eq(0..100), "in order");
        assert!(own.iter().all(|got| got.connection == own[0].connection), "on one lane");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_every_framing_leave_the_lane_in_step() {
    const ANSWERS: [&str; 4] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        NO_CONTENT,
    ];
    let origin = Origin::new(|mut incoming| async move {
        for answer in ANSWERS.iter().cycle() {
            if incoming.request().await.is_none() {
                return;
            }
            // In pieces, so that heads and chunks are cut.
            for piece in answer.as_bytes().chunks(7) {
                incoming.answer(str::from_utf8(piece).unwrap()).await;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..40 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(40).await;
    assert_eq!((bench.answered(), origin.accepted()), (40, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_is_known_to_have_no_body() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..3 {
        bench.tap(origin.addr, 1, seq, Method::HEAD, BodyKind::None).expect("a tap").end();
    }
    bench.settled(3).await;
    assert_eq!((bench.answered(), origin.accepted()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_small_body_arrives_whole_however_it_came() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for (kind, pieces, length) in [
        (BodyKind::Length(6), &["abc", "def"][..], 6),
        (BodyKind::Unknown, &["abc", "", "d"], 4),
        (BodyKind::Unknown, &[], 0),
        (BodyKind::Length(0), &[], 0),
        (BodyKind::None, &[], 0),
    ] {
        let mut tap = bench.post(origin.addr, 1, kind);
        for piece in pieces {
            tap.data(&Bytes::from_static(piece.as_bytes()));
        }
        tap.end();
        let got = origin.request().await;
        assert_eq!(got.body, pieces.concat().as_bytes());
        assert!(got.head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{}", got.head);
    }
    bench.settled(5).await;
    assert_eq!((bench.answered(), origin.accepted()), (5, 1), "all on one lane");
}

#[tokio::test(start_paused = true)]
async fn a_large_body_streams_on_a_connection_of_its_own_while_it_arrives() {
    for (kind, framing) in [
        (BodyKind::Length(300_000), "Content-Length: 300000"),
        (BodyKind::Unknown, "Transfer-Encoding: chunked"),
    ] {
        let mut origin = Origin::answering(NO_CONTENT).await;
        let bench = Bench::new(&section(), &[origin.addr]);
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&vec![b'a'; 100_000].into());
        eventually("the beginning to arrive", || origin.reads.load(SeqCst) > 0 && bench.buffered() == 0)
            .await;
        bench.get(origin.addr, 1, 2);
        assert_eq!(origin.request().await.session(), (1, 2), "the lane is free meanwhile");
        tap.data(&vec![b'b'; 199_999].into());
        tap.data(&Bytes::from_static(b"c"));
        tap.end();
        let got = origin.request().await;
        assert!(got.head.contains(framing), "{}", got.head);
        assert_eq!((got.body.len(), got.body[99_999], got.body[100_000]), (300_000, b'a', b'b'));
        assert_eq!(got.body.last(), Some(&b'c'));
        bench.settled(2).await;
        assert_eq!((bench.answered(), origin.accepted()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_client_vanishes_is_given_up_and_the_lane_goes_on() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);

    let mut small = bench.post(origin.addr, 1, BodyKind::Length(10));
    small.data(&Bytes::from_static(b"abc"));
    drop(small);
    assert_eq!(bench.dropped("client_aborted"), 1);

    let mut large = bench.post(origin.addr, 1, BodyKind::Unknown);
    large.data(&vec![0; 100_000].into());
    eventually("the beginning to leave", || origin.reads.load(SeqCst) > 0 && bench.buffered() == 0).await;
    drop(large);
    eventually("the copy to fail", || bench.copies("failed", "client_aborted") == 1).await;
    origin.all_closed().await;

    let mut short = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    short.data(&vec![0; 50_000].into());
    eventually("the beginning to leave", || bench.buffered() == 0).await;
    short.end();
    eventually("the copy to fail", || bench.copies("failed", "client_aborted") == 2).await;

    bench.get(origin.addr, 1, 4);
    assert_eq!(origin.request().await.session(), (1, 4), "nothing of the others arrived as a request");
    bench.settled(4).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_reads_costs_the_budget_and_nothing_else() {
    let stuck = Origin::new(|incoming| async move {
        let _held = incoming;
        std::future::pending().await
    })
    .await;
    let mut healthy = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.max_buffered_bytes = 1 << 20;
    let bench = Bench::new(&section, &[stuck.addr, healthy.addr]);
    let body = Bytes::from(vec![b'x'; 50_000]);
    let mut made = 0;
    for session in 0..1000 {
        made += 1;
        let Some(mut tap) =
            bench.tap(stuck.addr, session, 1, Method::POST, BodyKind::Length(body.len() as u64))
        else {
            continue;
        };
        tap.data(&body);
        tap.end();
        assert!(bench.buffered() <= 1 << 20);
        if session % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(bench.dropped("budget") > 900, "{}", bench.dropped("budget"));
    for seq in 0..100 {
        bench.get(healthy.addr, seq, 1);
        made += 1;
    }
    healthy.requests(100).await;
    eventually("the healthy member's answers", || bench.answered() == 100).await;
    bench.settled(made).await;
    let asked = bench.copies("unanswered", "answer_timeout");
    assert_eq!(asked + bench.dropped("budget") + bench.dropped("stalled"), 1000);
    assert!((4..=12).contains(&asked), "each of four lanes asks one by one, three times at most: {asked}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_when_a_member_stops_reading_goes_on_the_next_connection() {
    let origin = Origin::new(|mut incoming| async move {
        for _ in 0..100 {
            if incoming.request().await.is_none() {
                return;
            }
            incoming.answer(NO_CONTENT).await;
        }
        if incoming.number == 0 {
            std::future::pending::<()>().await;
        }
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let mut section = section();
    section.pipeline_depth = NonZeroUsize::new(1000).unwrap();
    let bench = Bench::new(&section, &[origin.addr]);
    let body = Bytes::from(vec![b'x'; 60_000]);
    let mut made = 0;
    while bench.dropped("budget") == 0 {
        if let Some(mut tap) = bench.tap(origin.addr, 1, made, Method::POST, BodyKind::Unknown) {
            tap.data(&body);
            tap.end();
        }
        made += 1;
        tokio::task::yield_now().await;
    }
    bench.settled(made as usize).await;
    let (unanswered, failed) =
        (bench.copies("unanswered", "write_timeout"), bench.copies("failed", "write_timeout"));
    assert!(unanswered > 0, "sent whole, but not read");
    assert_eq!(failed, 1, "sent in part");
    assert_eq!(bench.answered(), made as usize - unanswered - failed - bench.dropped("budget"));
    assert!(bench.answered() > 110, "the rest arrived on another connection: {}", bench.answered());
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_that_the_member_does_not_read_is_given_up_at_the_budget() {
    let stuck = Origin::new(|incoming| async move {
        let _held = incoming;
        std::future::pending().await
    })
    .await;
    let mut section = section();
    section.max_buffered_bytes = 256 << 10;
    let bench = Bench::new(&section, &[stuck.addr]);
    let mut tap = bench.post(stuck.addr, 1, BodyKind::Unknown);
    for _ in 0..1000 {
        tap.data(&vec![0; 64 << 10].into());
        assert!(bench.buffered() <= 256 << 10);
        tokio::task::yield_now().await;
    }
    tap.end();
    bench.settled(1).await;
    assert_eq!(bench.copies("failed", "budget"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_gone_costs_its_copies_and_gets_the_next_when_it_is_back() {
    // Bound and not listening: nobody else can take the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let addr = socket.local_addr().expect("it is bound");
    let bench = Bench::new(&section(), &[addr]);
    bench.get(addr, 1, 1);
    let mut large = bench.post(addr, 1, BodyKind::Length(100_000));
    large.data(&vec![0; 100_000].into());
    large.end();
    bench.settled(2).await;
    assert_eq!(bench.dropped("connect"), 2);

    let behave = |mut incoming: Incoming| async move {
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    };
    let mut origin = Origin::on(socket.listen(16).expect("it listens"), behave);
    bench.get(addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2));
    bench.settled(3).await;
    assert_eq!(bench.answered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_closes_after_each_answer_loses_no_copy() {
    for answer in
        [NO_CONTENT, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nx"]
    {
        let origin = Origin::new(move |mut incoming| async move {
            if incoming.request().await.is_some() {
                incoming.answer(answer).await;
            }
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..50 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(50).await;
        assert_eq!((bench.answered(), origin.accepted()), (50, 50), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_learns_after_how_many_answers_its_member_closes() {
    let origin = Origin::new(|mut incoming| async move {
        for left in (0..20).rev() {
            if incoming.request().await.is_none() {
                return;
            }
            let close = if left == 0 { "Connection: close\r\n" } else { "" };
            incoming.answer(&format!("HTTP/1.1 204 No Content\r\n{close}\r\n")).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..1000 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(1000).await;
    let lost = bench.copies("unanswered", "closed");
    assert!(lost > 0 && lost < 64, "only the first connection lost copies: {lost}");
    assert_eq!(bench.answered(), 1000 - lost);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_answers_is_asked_one_by_one_and_then_given_up() {
    let mut origin =
        Origin::new(|mut incoming| async move { while incoming.request().await.is_some() {} }).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..10 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(10).await;
    assert_eq!((bench.copies("unanswered", "answer_timeout"), bench.dropped("stalled")), (3, 7));
    let asked: Vec<_> = origin.requests(3).await.iter().map(Got::session).collect();
    assert_eq!(asked, [(1, 0), (1, 1), (1, 2)], "none was sent again");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_not_waited_for() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.request().await;
        incoming.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while incoming.stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    bench.settled(1).await;
    assert_eq!(bench.copies("unanswered", "answer_timeout"), 1);
    origin.all_closed().await;
}

#[tokio::test]
async fn an_answer_that_never_ends_and_never_pauses_is_not_waited_for() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.request().await;
        incoming.answer("HTTP/1.1 200 OK\r\n\r\n").await;
        while incoming.stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
    })
    .await;
    let (metrics, retired) = (Metrics::new(), CancellationToken::new());
    let mut members = members(&[origin.addr]);
    members.read_timeout = Duration::from_millis(50);
    let pool = ClonePool::new(&section(), &members, &"vs".into(), &metrics, retired.clone());
    let bench = Bench { pool, metrics, retired };
    bench.get(origin.addr, 1, 1);
    bench.settled(1).await;
    assert_eq!(bench.copies("unanswered", "answer_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_ends_the_connection() {
    for (answer, reason) in [("SSH-2.0-x\r\n", "not_http"), ("", "closed")] {
        let origin = Origin::new(move |mut incoming| async move {
            incoming.request().await;
            incoming.answer(answer).await;
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..5 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(5).await;
        assert_eq!((bench.copies("unanswered", reason), bench.dropped("stalled")), (3, 2), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_accepts_and_closes_is_not_hammered() {
    let origin = Origin::new(|incoming| async move { drop(incoming) }).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(5).await;
    assert!(origin.accepted() <= 6, "{} connections", origin.accepted());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nothing_asked_for_ends_the_connection_and_loses_nothing() {
    let origin = Origin::new(|mut incoming| async move {
        while incoming.request().await.is_some() {
            incoming.answer(&NO_CONTENT.repeat(2)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
        bench.settled(seq as usize + 1).await;
    }
    assert_eq!((bench.answered(), origin.accepted()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_answers_a_large_body_early_and_closes_has_answered() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.more().await;
        incoming.answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
    while bench.ended() == 0 {
        tap.data(&vec![0; 100_000].into());
        sleep(Duration::from_millis(1)).await;
    }
    tap.end();
    bench.settled(1).await;
    assert_eq!(bench.answered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_room_is_cut_and_says_so_where_that_is_wanted() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.on_overflow = OnOverflow::Truncate;
    section.max_buffered_bytes = 40_000;
    let bench = Bench::new(&section, &[origin.addr]);
    for (kind, kept) in [(BodyKind::Unknown, 30_000), (BodyKind::Length(60_000), 0)] {
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&vec![b'x'; 30_000].into());
        tap.data(&vec![b'x'; 30_000].into());
        tap.end();
        let got = origin.request().await;
        assert_eq!(got.body.len(), kept);
        assert!(got.head.contains(&format!("X-Homing-Truncated: {kept}\r\n")), "{}", got.head);
    }
    bench.settled(2).await;

    let mut tap = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    tap.data(&vec![b'x'; 30_000].into());
    tap.data(&vec![b'x'; 70_000].into());
    tap.end();
    let got = origin.request().await;
    assert!(got.head.contains("Trailer: X-Homing-Truncated\r\n"), "{}", got.head);
    assert_eq!(&got.body[30_000..], b"X-Homing-Truncated: 30000");
    bench.settled(3).await;
    assert_eq!(bench.copies("truncated", ""), 3);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_bodies_stream_at_a_time() {
    let origin = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.connections_per_server = NonZeroUsize::MIN;
    let bench = Bench::new(&section, &[origin.addr]);
    let large = || bench.tap(origin.addr, 1, 1, Method::POST, BodyKind::Length(100_000));
    let taps: Vec<_> = (0..STREAMS_PER_LANE + 1).map(|_| large()).collect();
    assert_eq!(taps.iter().flatten().count(), STREAMS_PER_LANE);
    assert_eq!(bench.dropped("streams"), 1);
    drop(taps);
    bench.settled(STREAMS_PER_LANE + 1).await;
    assert!(large().is_some(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_closes_and_opens_again() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    origin.request().await;
    assert_eq!(origin.open.load(SeqCst), 1);
    origin.all_closed().await;
    bench.get(origin.addr, 1, 2);
    origin.request().await;
    bench.settled(2).await;
    assert_eq!((bench.answered(), origin.accepted()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_retired_pool_keeps_no_idle_lane_but_still_copies() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    origin.request().await;
    let before = tokio::time::Instant::now();
    bench.retired.cancel();
    origin.all_closed().await;
    assert!(before.elapsed() < Duration::from_secs(3));
    bench.get(origin.addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2));
    bench.settled(2).await;
    assert_eq!(bench.answered(), 2);
}

#[tokio::test(start_paused = true)]
async fn copies_that_cannot_be_made_are_counted_by_reason() {
    let origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(SocketAddr::from(([192, 0, 2, 1], 9)), 1, 1);
    assert_eq!(bench.dropped("unknown_server"), 1);
    bench.pool.skip(SkipReason::SampledOut);
    assert_eq!(bench.count("homing_clone_skipped_total", &["reason=\"sampled_out\""]), 1);

    let mut tls = members(&[origin.addr]);
    tls.enable_ssl = true;
    let pool = ClonePool::new(&section(), &tls, &"vs".into(), &bench.metrics, CancellationToken::new());
    let bench = Bench { pool, ..bench };
    bench.get(origin.addr, 1, 1);
    assert_eq!(bench.dropped("tls"), 1);
}

#[test]
fn copies_from_many_threads_are_all_accounted_for() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let origin = Origin::answering(NO_CONTENT).await;
        let bench = Arc::new(Bench::new(&section(), &[origin.addr]));
        let tasks = (0..8).map(|session| {
            let (bench, addr) = (bench.clone(), origin.addr);
            tokio::spawn(async move {
                for seq in 0..500 {
                    bench.get(addr, session, seq);
                    if seq % 50 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("it ends well");
        }
        bench.settled(4000).await;
        assert_eq!(bench.answered(), 4000);
        assert!(origin.accepted() <= 4);
    });
}
