//! The listening side over real sockets, with a small app in the place of the proxy.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use openssl::{
    pkey::PKey,
    ssl::{SslAcceptor, SslConnector, SslMethod, SslVerifyMode},
    x509::X509,
};
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream},
    http::ResponseHeader,
    protocols::{http::ServerSession, l4::stream::Stream as L4Stream, tls::server::handshake},
    server::ShutdownWatch,
    tls::tokio_ssl::SslStream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, mpsc},
};

use super::*;
use crate::{
    clock::Clock,
    config::{AddressLists, HeadLimits},
    limits::OpenFiles,
    metrics::Metrics,
};

mod in_virtual_time;

/// Answers by path; `/slow` waits for a permit, and says that it has begun.
struct App {
    gate: Semaphore,
    begun: mpsc::UnboundedSender<()>,
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        let connection = Connection::of(session.digest()).expect("the session is on a wire").clone();
        let path = session.req_header().uri.path().to_owned();
        let (status, answer) = match path.as_str() {
            "/panic" => panic!("as asked"),
            "/early" => (413, "too large".to_owned()),
            "/body" => (200, body(&mut session, &connection).await),
            "/slow" => {
                connection.request_done();
                self.begun.send(()).unwrap();
                // As the proxy does while it waits for the server's answer: watch whether the client is still there.
                tokio::select! {
                    gone = session.read_body_or_idle(true) => panic!("something came: {gone:?}"),
                    permit = self.gate.acquire() => permit.unwrap().forget(),
                }
                (200, format!("slow, draining: {}", connection.draining()))
            }
            _ => (200, path),
        };
        if connection.draining() {
            session.set_keepalive(None);
        }
        let mut head = ResponseHeader::build(status, None).unwrap();
        head.insert_header("Content-Length", answer.len()).unwrap();
        session.write_response_header(Box::new(head)).await.ok()?;
        session.write_response_body(Bytes::from(answer), true).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}

async fn body(session: &mut ServerSession, connection: &Connection) -> String {
    let mut length = 0;
    while let Ok(Some(chunk)) = session.read_request_body().await {
        length += chunk.len();
    }
    format!("{length} {:?}", connection.framing())
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Accepted(u64),
    Closed(u64),
    Refused(Refusal),
    HeadRefused(HeadRefusal, Vec<u8>),
}

struct Recorder {
    events: mpsc::UnboundedSender<Event>,
    verdict: Verdict,
}

#[async_trait]
impl ConnectionEvents for Recorder {
    async fn accepted(&self, connection: &Arc<Connection>) -> Verdict {
        assert!(connection.set_state(connection.id));
        assert_eq!(&*connection.listener, "test");
        self.events.send(Event::Accepted(connection.id)).unwrap();
        self.verdict
    }

    fn closed(&self, connection: &Arc<Connection>) {
        // The test may be over, with its end of the channel.
        let _ = self.events.send(Event::Closed(*connection.state().expect("set when accepted")));
    }

    fn head_refused(&self, _connection: &Connection, head: RefusedHead<'_>) {
        self.events.send(Event::HeadRefused(head.refusal, head.bytes.to_vec())).unwrap();
    }

    fn refused(&self, _listener: &str, _client: SocketAddr, reason: &Refusal) {
        self.events.send(Event::Refused(reason.clone())).unwrap();
    }
}

struct Fixture {
    listeners: Listeners<App>,
    app: Arc<App>,
    addr: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
    begun: mpsc::UnboundedReceiver<()>,
    metrics: Metrics,
}

impl Fixture {
    fn start(settings: ListenerSettings, verdict: Verdict) -> Self {
        let (sender, begun) = mpsc::unbounded_channel();
        let app = Arc::new(App { gate: Semaphore::new(0), begun: sender });
        let (sender, events) = mpsc::unbounded_channel();
        let recorder = Recorder { events: sender, verdict };
        let metrics = Metrics::new();
        let (workers, room) = (Workers::here(app.clone()), Room::new(OpenFiles::allowed(), None));
        let listeners = Listeners::new(workers, Arc::new(recorder), Clock::system(), room, metrics.clone());
        let addr = add(&listeners, spec("127.0.0.1:0".parse().unwrap(), settings)).unwrap();
        Self { listeners, app, addr, events, begun, metrics }
    }

    fn plain() -> Self {
        Self::start(settings(), Verdict::Serve)
    }

    fn counted(&self, counts: &[(&str, u64)]) {
        let page = self.metrics.page();
        for (series, count) in counts {
            assert!(page.contains(&format!("{series} {count}\n")), "{series} {count}: {page}");
        }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.addr).await.unwrap())
    }

    async fn expect(&mut self, expected: &[Event]) {
        for expected in expected {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event");
            assert_eq!(event.as_ref(), Some(expected));
        }
    }

    async fn all_closed(&self) {
        let closed = async {
            while self.listeners.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("every connection ends");
    }
}

fn add(listeners: &Listeners<App>, spec: ListenerSpec) -> std::io::Result<SocketAddr> {
    let addr = spec.socket.local_addr()?;
    listeners.add(listeners.prepare(spec)?);
    Ok(addr)
}

fn spec(addr: SocketAddr, settings: ListenerSettings) -> ListenerSpec {
    ListenerSpec { name: "test".into(), socket: bind(addr).unwrap(), settings }
}

fn settings() -> ListenerSettings {
    ListenerSettings {
        http2: crate::config::Http2::default(),
        tls: None,
        address_lists: AddressLists::default(),
        proxy_peers: None,
        client_header_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(60),
        handshake_timeout: Duration::from_secs(10),
        head_limits: HeadLimits::default(),
        client_caps: None,
    }
}

/// Long enough for a slow machine; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(10);
const NO_GRACE: Duration = Duration::ZERO;

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        self.answer().await
    }

    /// One answer with a length: its status, whether the connection goes on, its body.
    async fn answer(&mut self) -> String {
        let answer = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let field = |name| head.split(name).nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
            let mut body = vec![0; field("content-length: ").parse().unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            let body = String::from_utf8(body).unwrap();
            format!("{} {} {body}", &head[9..12], field("connection: "))
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("an answer")
    }

    async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut [0])).await.expect("an end");
        !matches!(read, Ok(1..))
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let mut fixture = Fixture::plain();
    let mut client = fixture.connect().await;
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).await, format!("200 keep-alive {path}"));
    }
    let long = format!("/{}", "x".repeat(6000));
    assert_eq!(client.get(&long).await, format!("200 keep-alive {long}"));
    drop(client);
    fixture.expect(&[Event::Accepted(1), Event::Closed(1)]).await;
    fixture.all_closed().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let mut fixture = Fixture::plain();
    let mut client = fixture.connect().await;
    let chunked = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let sized = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd";
    let get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let slow = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    // More than one read of the wire takes ahead.
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(6000));
    client.send([slow, chunked, get, sized, &long].concat()).await;
    fixture.begun.recv().await.unwrap();
    client.send([get, get].concat()).await;
    fixture.app.gate.add_permits(1);
    assert_eq!(client.answer().await, "200 keep-alive slow, draining: false");
    assert_eq!(client.answer().await, "200 keep-alive 3 Fine");
    assert_eq!(client.answer().await, "200 keep-alive /a");
    assert!(client.answer().await.starts_with("200 keep-alive 4"));
    assert!(client.answer().await.starts_with("200 keep-alive /xxx"));
    assert_eq!(client.answer().await, "200 keep-alive /a");
    assert_eq!(client.answer().await, "200 keep-alive /a");
}

#[tokio::test]
async fn bad_chunk_framing_is_seen_by_the_app() {
    let fixture = Fixture::plain();
    for (body, answer) in
        [("3\r\nabc\r\n0\r\n\r\n", "3 Fine"), ("3\r\nabc\r\n\r\n\r\n", "3 Bad"), (";a=b\r\n\r\n", "0 Bad")]
    {
        let mut client = fixture.connect().await;
        client
            .send(format!("POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
            .await;
        let got = client.answer().await;
        assert!(got.ends_with(answer), "{body:?}: {got}");
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let fixture = Fixture::plain();
    let mut client = fixture.connect().await;
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await;
    client.send(vec![b'x'; 250_000]).await;
    assert_eq!(client.answer().await, "413 close too large");
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0, "an end, not a reset");
    client.send(vec![b'x'; 250_000]).await;
}

#[tokio::test]
async fn closed_comes_once_however_a_connection_ends() {
    let mut fixture = Fixture::plain();
    // A reset in the middle of a head.
    let mut client = fixture.connect().await;
    client.send("GET /a HTTP/1.1\r\nHo").await;
    fixture.expect(&[Event::Accepted(1)]).await;
    socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    fixture.expect(&[Event::Closed(1)]).await;
    // A panic of the app.
    let mut client = fixture.connect().await;
    client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.is_closed().await);
    fixture.expect(&[Event::Accepted(2), Event::Closed(2)]).await;
    // Never a byte, then a goodbye.
    drop(fixture.connect().await);
    fixture.expect(&[Event::Accepted(3), Event::Closed(3)]).await;
    fixture.all_closed().await;
    assert!(fixture.events.is_empty());
}

#[tokio::test]
async fn a_refused_connection_is_closed_and_told() {
    let mut fixture = Fixture::start(settings(), Verdict::Refuse);
    assert!(fixture.connect().await.is_closed().await);
    fixture.expect(&[Event::Accepted(1), Event::Closed(1)]).await;
}

#[tokio::test]
async fn address_lists_decide_before_anything_else_and_change_at_run_time() {
    let (here, elsewhere) = ("127.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap());
    let lists = |allow, deny| ListenerSettings { address_lists: AddressLists { allow, deny }, ..settings() };
    let mut fixture = Fixture::start(lists(vec![elsewhere], vec![]), Verdict::Serve);
    assert!(fixture.connect().await.is_closed().await);
    fixture.expect(&[Event::Refused(Refusal::Address)]).await;
    fixture.listeners.update(fixture.addr, lists(vec![here], vec![here]));
    assert!(fixture.connect().await.is_closed().await);
    fixture.expect(&[Event::Refused(Refusal::Address)]).await;
    fixture.listeners.update(fixture.addr, lists(vec![here], vec![elsewhere]));
    assert_eq!(fixture.connect().await.get("/a").await, "200 keep-alive /a");
}

#[tokio::test]
async fn listeners_come_and_go_while_requests_run() {
    let mut fixture = Fixture::plain();
    let addr = fixture.addr;
    let (mut idle, mut busy) = (fixture.connect().await, fixture.connect().await);
    idle.get("/a").await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    fixture.begun.recv().await.unwrap();
    let other = add(&fixture.listeners, spec("127.0.0.1:0".parse().unwrap(), settings())).unwrap();
    let mut untouched = Client(TcpStream::connect(other).await.unwrap());
    untouched.get("/a").await;

    let removed = fixture.listeners.remove(addr, PATIENCE).await.expect("it was there");
    assert!(TcpStream::connect(addr).await.is_err(), "a removed listener refuses");
    assert_eq!(idle.get("/last").await, "200 close /last", "a request may have been on its way");
    assert!(idle.is_closed().await);
    assert_eq!(untouched.get("/b").await, "200 keep-alive /b");

    let again = spec(addr, settings());
    let twin =
        ListenerSpec { name: "test".into(), socket: again.socket.try_clone().unwrap(), settings: settings() };
    assert_eq!(add(&fixture.listeners, again).unwrap(), addr);
    assert!(add(&fixture.listeners, twin).is_err(), "one listener per address");
    assert_eq!(fixture.connect().await.get("/c").await, "200 keep-alive /c");

    fixture.app.gate.add_permits(1);
    assert_eq!(busy.answer().await, "200 close slow, draining: true");
    assert!(busy.is_closed().await);
    tokio::time::timeout(PATIENCE, removed).await.expect("its last connection is gone").unwrap();
    assert!(fixture.listeners.remove("127.0.0.1:1".parse().unwrap(), PATIENCE).await.is_none());
}

#[tokio::test]
async fn shutdown_ends_at_once_when_nothing_is_in_flight() {
    let fixture = Fixture::plain();
    let mut idle = fixture.connect().await;
    idle.get("/a").await;
    let began = Instant::now();
    assert_eq!(fixture.listeners.shutdown(PATIENCE).await, 0);
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(idle.is_closed().await);
    assert!(TcpStream::connect(fixture.addr).await.is_err());
}

#[tokio::test]
async fn shutdown_waits_for_requests_and_cuts_them_after_the_grace_period() {
    for permits in [1, 0] {
        let mut fixture = Fixture::plain();
        let mut busy = fixture.connect().await;
        busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        fixture.begun.recv().await.unwrap();
        let grace = if permits == 1 { PATIENCE } else { NO_GRACE };
        let app = fixture.app.clone();
        let (cut, ()) =
            tokio::join!(fixture.listeners.shutdown(grace), async { app.gate.add_permits(permits) });
        assert_eq!(cut, 1 - permits);
        if permits == 1 {
            assert!(busy.answer().await.contains("slow"));
        }
        assert!(busy.is_closed().await);
        fixture.expect(&[Event::Accepted(1), Event::Closed(1)]).await;
    }
}

struct Tls(SslAcceptor);

#[async_trait]
impl Handshake for Tls {
    async fn accept(&self, socket: L4Stream) -> Result<Secured, HandshakeFailure> {
        match handshake(&self.0, socket).await {
            Ok(stream) => Ok(Secured { stream: Box::new(stream), version: "TLSv1.3", resumed: false }),
            Err(error) => Err(HandshakeFailure { reason: "not_tls", message: error.to_string() }),
        }
    }
}

fn tls() -> ListenerSettings {
    let made = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&X509::from_pem(made.cert.pem().as_bytes()).unwrap()).unwrap();
    let key = PKey::private_key_from_pem(made.signing_key.serialize_pem().as_bytes()).unwrap();
    acceptor.set_private_key(&key).unwrap();
    acceptor.set_alpn_select_callback(|_, _| Ok(b"h2"));
    ListenerSettings { tls: Some(Arc::new(Tls(acceptor.build()))), ..settings() }
}

async fn tls_client(addr: SocketAddr) -> SslStream<TcpStream> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    connector.set_alpn_protos(b"\x02h2").unwrap();
    let ssl = connector.build().configure().unwrap().into_ssl("a.com").unwrap();
    let mut stream = SslStream::new(ssl, TcpStream::connect(addr).await.unwrap()).unwrap();
    std::pin::Pin::new(&mut stream).connect().await.unwrap();
    stream
}

#[tokio::test]
async fn http2_streams_know_their_connection_and_end_with_a_goaway() {
    let mut fixture = Fixture::start(tls(), Verdict::Serve);
    let (mut client, connection) = h2::client::handshake(tls_client(fixture.addr).await).await.unwrap();
    let connection = tokio::spawn(connection);
    for path in ["/a", "/b"] {
        let request = http::Request::get(format!("https://a.com{path}")).body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), path);
    }
    assert_eq!(fixture.listeners.shutdown(PATIENCE).await, 0);
    tokio::time::timeout(PATIENCE, connection).await.expect("the server ends it").unwrap().unwrap();
    fixture.expect(&[Event::Accepted(1), Event::Closed(1)]).await;
}

#[tokio::test]
async fn a_handshake_holds_nobody_up_and_its_failure_is_told() {
    let mut fixture = Fixture::start(tls(), Verdict::Serve);
    let _silent = fixture.connect().await;
    let mut plain = fixture.connect().await;
    plain.send("GET / HTTP/1.1\r\n\r\n").await;
    let event = tokio::time::timeout(PATIENCE, fixture.events.recv()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Refused(Refusal::Handshake(_))), "{event:?}");
    drop(tls_client(fixture.addr).await);
    fixture.expect(&[Event::Accepted(1), Event::Closed(1)]).await;
    fixture.counted(&[
        (r#"homing_connections_accepted_total{listener="test"}"#, 3),
        (r#"homing_connections_refused_total{listener="test",reason="tls_handshake"}"#, 1),
        (r#"homing_tls_handshake_failures_total{listener="test",reason="not_tls"}"#, 1),
        (r#"homing_tls_handshakes_total{listener="test",resumed="false",version="TLSv1.3"}"#, 1),
        (r#"homing_listener_connections_open{listener="test"}"#, 1),
    ]);
}

#[tokio::test]
async fn what_becomes_of_connections_is_counted() {
    let mut fixture = Fixture::start(settings(), Verdict::Refuse);
    assert!(fixture.connect().await.is_closed().await);
    fixture.expect(&[Event::Accepted(1), Event::Closed(1)]).await;
    let lists = AddressLists { allow: Vec::new(), deny: vec!["127.0.0.0/8".parse().unwrap()] };
    fixture.listeners.update(fixture.addr, ListenerSettings { address_lists: lists, ..settings() });
    assert!(fixture.connect().await.is_closed().await);
    fixture.expect(&[Event::Refused(Refusal::Address)]).await;
    fixture.counted(&[
        (r#"homing_connections_accepted_total{listener="test"}"#, 2),
        (r#"homing_connections_refused_total{listener="test",reason="rule"}"#, 1),
        (r#"homing_connections_refused_total{listener="test",reason="address"}"#, 1),
        (r#"homing_listener_connections_open{listener="test"}"#, 0),
    ]);
}
