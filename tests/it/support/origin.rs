//! An HTTP/1.1 server that remembers what it got and misbehaves on demand: app server and clone member alike.
//!
//! Requests for `/healthz` are answered by [`Origin::healthy`] and not remembered, so that probes do not get
//! between the requests of a test.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    certs::Cert,
    eventually, net,
    wire::{Framing, Head, Headers, Wire, chunk, reply},
};

/// What a server does with a request that it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 200 with a short body; `Upgrade: websocket` is answered with 101 and an echo.
    Ok,
    /// The same with another status.
    Status(u16),
    /// The same, once [`Origin::release`] lets it.
    Held,
    /// The same, and the connection is closed.
    Close,
    /// These bytes, then the next request.
    Raw(Bytes),
    /// These bytes, then the connection is closed.
    RawClose(Bytes),
    /// These bytes, and once it is released the connection is closed.
    RawCut(Bytes),
    /// A chunked answer of `step 1`, `step 2`, …, each once it is released.
    Steps(usize),
    /// An answer of so many bytes.
    Much(u64),
    /// The first byte of the body starts the answer, which returns every piece as it comes.
    EchoBody,
    /// 101 as soon as the connection is there, before the request is read, and an echo.
    SwitchAtOnce,
    /// Requests are read, none is answered.
    NeverAnswer,
    /// Connections are accepted, nothing is read.
    NeverRead,
}

const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// An answer that breaks off in the middle of its body.
pub const HALF_AN_ANSWER: Bytes =
    Bytes::from_static(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhalf an ans\r\n");

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Record {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    /// Body bytes so far.
    pub body_len: u64,
    /// SHA-256 of the whole body, hex; empty until it ended.
    pub body_sha: String,
    /// The body has come whole.
    pub whole: bool,
    /// Counts the server's connections, from 1.
    pub connection: u64,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The `Cookie` fields as one, as an app would read them; empty where there is none.
    pub fn cookies(&self) -> String {
        self.headers.all("cookie").join("; ")
    }
}

/// The server. It ends with the test's runtime, or when it is told to go [`Origin::down`].
pub struct Origin {
    pub name: String,
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    running: tokio::sync::Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

struct Shared {
    name: String,
    mode: Mutex<Mode>,
    healthy: AtomicBool,
    requests: Mutex<Vec<Arc<Mutex<Record>>>>,
    connections: AtomicU64,
    open: AtomicU64,
    sent: AtomicU64,
    released: Semaphore,
    tls: Option<SslAcceptor>,
}

impl Origin {
    /// A server on an address of its own, in [`Mode::Ok`].
    pub async fn start(name: &str) -> Self {
        Self::new(name, net::free_addr(), None).await
    }

    /// The same on a certain address.
    pub async fn start_at(name: &str, addr: SocketAddr) -> Self {
        Self::new(name, addr, None).await
    }

    /// The same with TLS.
    pub async fn start_tls(name: &str, cert: &Cert) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        std::fs::write(&chain, &cert.certificate).expect("the certificate can be written");
        std::fs::write(&key, &cert.key).expect("the key can be written");
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("OpenSSL starts");
        tls.set_certificate_chain_file(&chain).expect("the certificate can be read");
        tls.set_private_key_file(&key, SslFiletype::PEM).expect("the key can be read");
        Self::new(name, net::free_addr(), Some(tls.build())).await
    }

    /// Nobody: an address where connections are refused until [`Origin::up`].
    pub async fn absent(name: &str) -> Self {
        let origin = Self::start(name).await;
        origin.down().await;
        origin
    }

    async fn new(name: &str, addr: SocketAddr, tls: Option<SslAcceptor>) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            mode: Mutex::new(Mode::Ok),
            healthy: AtomicBool::new(true),
            requests: Mutex::default(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            released: Semaphore::new(0),
            tls,
        };
        let origin = Self {
            name: name.to_owned(),
            addr,
            shared: Arc::new(shared),
            running: tokio::sync::Mutex::new(None),
        };
        origin.up().await;
        origin
    }

    /// Listens (again) on its address.
    pub async fn up(&self) {
        let mut listener = None;
        // A process that is just being started may hold what this one has closed, until its `exec`.
        eventually("the server's own address is free", async || {
            listener = TcpListener::bind(self.addr).await.ok();
            listener.is_some()
        })
        .await;
        let listener = listener.expect("it was bound");
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, self.shared.clone(), stop.clone()));
        *self.running.lock().await = Some((stop, task));
    }

    /// Closes its listener and every connection.
    pub async fn down(&self) {
        if let Some((stop, task)) = self.running.lock().await.take() {
            stop.cancel();
            task.await.expect("the accept loop does not panic");
        }
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock() = mode;
    }

    /// Whether `/healthz` answers 200 or 503.
    pub fn healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Lets `n` held answers or steps go.
    pub fn release(&self, n: usize) {
        self.shared.released.add_permits(n);
    }

    /// The requests that came whole, in order.
    pub fn requests(&self) -> Vec<Record> {
        self.started().into_iter().filter(|record| record.whole).collect()
    }

    /// The requests whose head came, in order.
    pub fn started(&self) -> Vec<Record> {
        self.shared.requests.lock().iter().map(|record| record.lock().clone()).collect()
    }

    /// [`Origin::requests`], forgotten here.
    pub fn take(&self) -> Vec<Record> {
        let mut requests = self.shared.requests.lock();
        let whole = requests.extract_if(.., |record| record.lock().whole);
        whole.map(|record| record.lock().clone()).collect()
    }

    /// Waits for this many whole requests.
    pub async fn got(&self, n: usize) -> Vec<Record> {
        eventually(&format!("{} gets {n} requests", self.name), async || self.requests().len() >= n).await;
        self.requests()
    }

    /// Waits for this many request heads.
    pub async fn began(&self, n: usize) -> Vec<Record> {
        eventually(&format!("{} gets {n} heads", self.name), async || self.started().len() >= n).await;
        self.started()
    }

    /// Waits for this many connections.
    pub async fn began_connection(&self, n: u64) {
        eventually(&format!("{} is connected to", self.name), async || self.connections() >= n).await;
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that it has got rid of in [`Mode::Much`].
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
                connections.spawn(serve(stream, shared.clone(), number));
            }
        }
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, number: u64) {
    let _open = Open::new(&shared);
    stream.set_nodelay(true).ok();
    if *shared.mode.lock() == Mode::NeverRead {
        std::future::pending::<()>().await;
    }
    let mut wire = match &shared.tls {
        None => Wire::new(stream),
        Some(acceptor) => {
            let ssl = Ssl::new(acceptor.context()).expect("OpenSSL makes a connection");
            let mut tls = tokio_openssl::SslStream::new(ssl, stream).expect("OpenSSL takes a stream");
            if Pin::new(&mut tls).accept().await.is_err() {
                return;
            }
            Wire::new(tls)
        }
    };
    if *shared.mode.lock() == Mode::SwitchAtOnce && wire.write(SWITCHING).await.is_err() {
        return;
    }
    while let Ok(Some(head)) = wire.head().await {
        if !matches!(answer(&mut wire, head, &shared, number).await, Ok(Next::Request)) {
            break;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

async fn answer(wire: &mut Wire, head: Head, shared: &Shared, connection: u64) -> io::Result<Next> {
    let mut words = head.start.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let bodyless = method == "HEAD";
    if target == "/healthz" {
        let status = if shared.healthy.load(Ordering::Relaxed) { 200 } else { 503 };
        wire.write(reply(status, &shared.name, bodyless, false)).await?;
        return Ok(Next::Request);
    }
    let mode = shared.mode.lock().clone();
    let record = Arc::new(Mutex::new(Record {
        method,
        target,
        headers: head.headers.clone(),
        body_len: 0,
        body_sha: String::new(),
        whole: false,
        connection,
    }));
    shared.requests.lock().push(record.clone());
    if head.headers.get("expect").is_some_and(|what| what.eq_ignore_ascii_case("100-continue")) {
        wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if head.headers.get("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket")) && mode == Mode::Ok
    {
        record.lock().whole = true;
        wire.write(SWITCHING).await?;
        return echo(wire).await;
    }
    let mut framing = head.framing().unwrap_or(Framing::Length(0));
    let echoed = mode == Mode::EchoBody;
    if echoed {
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    }
    let mut sha = Sha256::new();
    while let Some(piece) = wire.piece(&mut framing).await? {
        sha.update(&piece);
        record.lock().body_len += piece.len() as u64;
        if echoed {
            wire.write(chunk(&piece)).await?;
        }
    }
    {
        let mut record = record.lock();
        record.body_sha = hex(&sha.finalize());
        record.whole = true;
    }
    match mode {
        Mode::Ok => wire.write(reply(200, &shared.name, bodyless, false)).await?,
        Mode::Status(status) => wire.write(reply(status, &shared.name, bodyless, false)).await?,
        Mode::Held => {
            shared.released.acquire().await.expect("the semaphore is never closed").forget();
            wire.write(reply(200, &shared.name, bodyless, false)).await?;
        }
        Mode::Close => {
            wire.write(reply(200, &shared.name, bodyless, true)).await?;
            return Ok(Next::Close);
        }
        Mode::Raw(bytes) => wire.write(bytes).await?,
        Mode::RawClose(bytes) => {
            wire.write(bytes).await?;
            return Ok(Next::Close);
        }
        Mode::RawCut(bytes) => {
            wire.write(bytes).await?;
            shared.released.acquire().await.expect("the semaphore is never closed").forget();
            return Ok(Next::Close);
        }
        Mode::Steps(steps) => {
            wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            for step in 1..=steps {
                shared.released.acquire().await.expect("the semaphore is never closed").forget();
                wire.write(chunk(format!("step {step}").as_bytes())).await?;
            }
            wire.write("0\r\n\r\n").await?;
        }
        Mode::Much(bytes) => {
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")).await?;
            let piece = vec![b'x'; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(piece.len() as u64);
                wire.write(&piece[..now as usize]).await?;
                shared.sent.fetch_add(now, Ordering::Relaxed);
                left -= now;
            }
        }
        Mode::EchoBody => wire.write("0\r\n\r\n").await?,
        Mode::SwitchAtOnce => return echo(wire).await,
        Mode::NeverAnswer => {}
        Mode::NeverRead => std::future::pending().await,
    }
    Ok(Next::Request)
}

async fn echo(wire: &mut Wire) -> io::Result<Next> {
    loop {
        let bytes = wire.bytes().await?;
        if bytes.is_empty() {
            return Ok(Next::Close);
        }
        wire.write(bytes).await?;
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.open.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
