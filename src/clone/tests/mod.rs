//! Copies over real sockets, to members that behave and to members that do not. Time is tokio's, paused: it
//! moves on when nothing else is left to do. Here are the members and the bench; the tests are by subject.

mod answers;
mod bodies;
mod cut;
mod faults;
mod habits;
mod http2;
mod lanes;
mod secure;

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
use crate::config::{CloneRefresh, CloneSelection, LbAlgorithm, OnOverflow, Pool, Server};

/// A section with the defaults.
pub(super) fn section() -> CloneSection {
    CloneSection {
        pool: "MY_CLONEPOOL".into(),
        tokens: Vec::new(),
        timeout: Duration::from_secs(300),
        lifetime: None,
        refresh: CloneRefresh::Request,
        selection: CloneSelection::Random,
        sample_permille: 1000,
        copied: Default::default(),
        strip_headers: Default::default(),
        set_headers: Vec::new(),
        max_buffered_bytes: 16 << 20,
        inline_body_bytes: 64 << 10,
        connections_per_server: NonZeroUsize::new(4).unwrap(),
        pipeline_depth: NonZeroUsize::new(64).unwrap(),
        on_overflow: OnOverflow::Drop,
        http2: false,
        retry_lost: false,
    }
}

fn members(addrs: &[SocketAddr]) -> Pool {
    Pool {
        algorithm: LbAlgorithm::Random,
        read_timeout: Duration::from_secs(30),
        ..Pool::of("MY_CLONEPOOL".into(), addrs.iter().copied())
    }
}

fn clone_pool(
    section: &CloneSection,
    members: &Pool,
    metrics: &Metrics,
    retired: &CancellationToken,
) -> Arc<ClonePool> {
    let marks = MarkKeys::new([], &[7; 16]);
    ClonePool::new(section, members, &"vs".into(), &marks, metrics, retired.clone())
        .expect("OpenSSL takes the settings")
}

/// A clone pool at work, and what it counted.
struct Bench {
    pool: Arc<ClonePool>,
    metrics: Metrics,
    retired: CancellationToken,
}

impl Bench {
    fn new(section: &CloneSection, addrs: &[SocketAddr]) -> Self {
        Self::of(section, &members(addrs))
    }

    fn of(section: &CloneSection, members: &Pool) -> Self {
        let (metrics, retired) = (Metrics::new(), CancellationToken::new());
        Self { pool: clone_pool(section, members, &metrics, &retired), metrics, retired }
    }

    fn tap(&self, to: SocketAddr, session: u64, seq: u64, method: Method, body: BodyKind) -> Option<Tap> {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("test"));
        let target = format!("/{session}/{seq}");
        let head = CopyHead {
            method: &method,
            target: target.as_bytes(),
            host: "a.com",
            headers: &headers,
            client: "127.0.0.1",
            secure: false,
            session,
            seq,
            request_id: "000000000000001d",
            drop_cookies: [None; 2],
            body,
        };
        self.pool.tap(to, &head, None).ok()
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

    fn answers(&self, class: &str) -> usize {
        self.count("homing_clone_answers_total", &[&format!("code_class=\"{class}\"")])
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
                // Or the kernel waits in real time, and virtual time runs away.
                stream.set_nodelay(true).expect("a TCP socket");
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
