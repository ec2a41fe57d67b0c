//! The wire over a pipe, so that time can be the runtime's own.

use std::future::poll_fn;

use tokio::{
    io::{DuplexStream, duplex},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    listen::{
        WRITE_TIMEOUT,
        connection::{Facts, Open},
        http1::{Terms, serve},
        wire::Arrival,
    },
    metrics::ListenerMetrics,
};

struct Pipe {
    client: DuplexStream,
    wire: Box<Wire>,
    connection: Arc<Connection>,
    shutdown: watch::Sender<bool>,
}

fn pipe() -> Pipe {
    let (client, server) = duplex(64 * 1024);
    let (shutdown, watch) = watch::channel(false);
    let connection = Arc::new(Connection::from(Facts {
        id: 1,
        listener: "test".into(),
        client: "192.0.2.1:1".parse().unwrap(),
        local: "192.0.2.2:2".parse().unwrap(),
        tls: None,
        accepted_at: std::time::Instant::now(),
        shutdown: watch,
        open: Open::new(
            &Arc::new(watch::Sender::new(0)),
            ListenerMetrics::new(&Metrics::new(), "test").open(),
            None,
        ),
    }));
    let wire = Wire::http1(Box::new(server), connection.clone());
    Pipe { client, wire, connection, shutdown }
}

async fn read(wire: &mut Wire) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let read = wire.read(&mut bytes).await?;
    bytes.truncate(read);
    Ok(bytes)
}

const HEAD: Duration = Duration::from_secs(10);

/// What a connection is served with, and who hears of it.
struct Waiting {
    limits: HeadLimits,
    clock: Clock,
    recorder: Recorder,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Waiting {
    fn new() -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let recorder = Recorder { events: sender, verdict: Verdict::Serve };
        Self { limits: HeadLimits::default(), clock: Clock::system(), recorder, events }
    }

    fn terms(&self, idle_timeout: Duration) -> Terms<'_> {
        Terms {
            head_timeout: HEAD,
            idle_timeout,
            limits: &self.limits,
            events: &self.recorder,
            clock: &self.clock,
        }
    }
}

/// The head of a request arrives.
async fn head(wire: &mut Wire) {
    wire.next_request();
    let arrival = poll_fn(|cx| wire.poll_head(cx, &HeadLimits::default())).await;
    assert_eq!(arrival.unwrap(), Arrival::Head);
}

#[tokio::test(start_paused = true)]
async fn a_head_has_one_deadline_however_its_bytes_trickle() {
    for idle in [HEAD / 2, HEAD * 6] {
        let Pipe { mut client, wire, shutdown, .. } = pipe();
        let (begun, _) = mpsc::unbounded_channel();
        let app = Arc::new(App { gate: Semaphore::new(0), begun });
        let (watch, hang_up) = (shutdown.subscribe(), CancellationToken::new());
        let mut waiting = Waiting::new();
        let began = Instant::now();
        let talk = async {
            // An empty line is no head yet.
            client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (mut reads, mut writes) = tokio::io::split(client);
            let trickle = async {
                for byte in b"GET / HTTP/1.1\r\nHost: example.com\r\n" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if writes.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                }
            };
            let mut answers = String::new();
            tokio::join!(async { reads.read_to_string(&mut answers).await.map(drop) }, trickle).0.unwrap();
            answers
        };
        let ended = async {
            serve(&app, wire, waiting.terms(idle), &watch, &hang_up).await;
            began.elapsed()
        };
        let (_, answers) = tokio::join!(ended, talk);
        let (first, last) = answers.split_at(answers.rfind("HTTP/1.1").expect("two answers"));
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        assert!(last.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{last}");
        let refused = waiting.events.recv().await;
        let Some(Event::HeadRefused(HeadRefusal::Late, head)) = refused else { panic!("{refused:?}") };
        let seconds = HEAD.as_secs() as usize;
        assert!(
            (seconds..=seconds + 1).contains(&head.trim_ascii_start().len()),
            "from the first byte: {head:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up() {
    let Pipe { mut client, mut wire, connection, .. } = pipe();
    client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n").await.unwrap();
    head(&mut wire).await;
    wire.begin_request();
    connection.demand_pace(LeastPace { rate: 10, patience: Duration::from_secs(5) });
    assert!(!read(&mut wire).await.unwrap().is_empty());
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(b"x").await.unwrap();
        }
    };
    let serve = async {
        let begun = Instant::now();
        loop {
            if let Err(error) = read(&mut wire).await {
                return (error, begun.elapsed());
            }
        }
    };
    let (error, took) = tokio::select! {
        ended = serve => ended,
        () = drip => unreachable!("it drips for ever"),
    };
    assert_eq!((error.kind(), took.as_secs()), (std::io::ErrorKind::TimedOut, 6));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_longer_than_the_head() {
    let Pipe { mut client, mut wire, .. } = pipe();
    client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n").await.unwrap();
    head(&mut wire).await;
    wire.begin_request();
    read(&mut wire).await.unwrap();
    let late = async {
        tokio::time::sleep(HEAD * 3).await;
        client.write_all(b"ab").await.unwrap();
    };
    let (body, ()) = tokio::join!(read(&mut wire), late);
    assert_eq!(body.unwrap(), b"ab");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answer_is_waited_for_with_an_end() {
    for (piece, answer) in [(1024, 100 * 1024), (64 * 1024, 1024 * 1024)] {
        let Pipe { mut client, mut wire, .. } = pipe();
        wire.begin_request();
        let slow_start = async {
            tokio::time::sleep(WRITE_TIMEOUT / 2).await;
            client.read_exact(&mut [0; 1024]).await.unwrap();
            Instant::now()
        };
        let send = async {
            for _ in 0..answer / piece {
                wire.write_all(&vec![0; piece]).await?;
            }
            wire.flush().await
        };
        let (read_last, error) = tokio::join!(slow_start, send);
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(read_last.elapsed(), WRITE_TIMEOUT, "from the last byte that was taken");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_is_let_go_at_the_end_of_its_time() {
    let (idle, waiting) = (Duration::from_secs(7), Waiting::new());
    let (begun, _) = mpsc::unbounded_channel();
    let app = Arc::new(App { gate: Semaphore::new(0), begun });
    for requests in [0, 2] {
        let Pipe { mut client, wire, shutdown, .. } = pipe();
        let began = Instant::now();
        let (watch, hang_up) = (shutdown.subscribe(), CancellationToken::new());
        let talk = async {
            for _ in 0..requests {
                tokio::time::sleep(idle / 2).await;
                client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            }
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.unwrap();
            assert_eq!(answers.matches("200 OK").count(), requests as usize);
        };
        tokio::join!(serve(&app, wire, waiting.terms(idle), &watch, &hang_up), talk);
        assert_eq!(began.elapsed().as_millis(), (idle / 2 * requests + idle).as_millis());
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_connection_while_a_request_is_served_ends_it_afterwards() {
    let (idle, waiting) = (Duration::from_secs(7), Waiting::new());
    for hangs_up in [true, false] {
        let Pipe { mut client, wire, shutdown, .. } = pipe();
        let (begun, mut served) = mpsc::unbounded_channel();
        let app = Arc::new(App { gate: Semaphore::new(0), begun });
        let (watch, hang_up) = (shutdown.subscribe(), CancellationToken::new());
        let began = Instant::now();
        let talk = async {
            // The connection has waited before, so that it is being watched.
            tokio::time::sleep(idle / 2).await;
            client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            served.recv().await.unwrap();
            if hangs_up {
                hang_up.cancel();
            }
            tokio::time::sleep(idle).await;
            app.gate.add_permits(1);
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.unwrap();
            assert_eq!(answers.matches("200 OK").count(), 1);
        };
        tokio::join!(serve(&app, wire, waiting.terms(idle), &watch, &hang_up), talk);
        let waited = if hangs_up { Duration::ZERO } else { idle };
        assert_eq!(began.elapsed().as_millis(), (idle / 2 + idle + waited).as_millis());
    }
}

#[tokio::test]
async fn what_comes_after_a_request_waits_for_its_turn() {
    let Pipe { mut client, mut wire, connection, .. } = pipe();
    client.write_all(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await.unwrap();
    head(&mut wire).await;
    wire.begin_request();
    assert_eq!(read(&mut wire).await.unwrap(), b"GET /1 HTTP/1.1\r\n\r\n");
    connection.request_done();
    assert!(try_read(&mut wire).await.is_none(), "the next request is not this one's");
    head(&mut wire).await;
    wire.begin_request();
    assert_eq!(read(&mut wire).await.unwrap(), b"GET /2 HTTP/1.1\r\n\r\n");
    connection.request_done();
    assert!(try_read(&mut wire).await.is_none());
    drop(client);
    assert_eq!(read(&mut wire).await.unwrap(), b"", "that the client has gone is told at once");
}

/// One try to read.
async fn try_read(wire: &mut Wire) -> Option<std::io::Result<Vec<u8>>> {
    tokio::select! {
        biased;
        read = read(wire) => Some(read),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn small_writes_leave_together_when_flushed() {
    let Pipe { mut client, mut wire, .. } = pipe();
    wire.write_all(b"head").await.unwrap();
    wire.write_all(b"body").await.unwrap();
    let mut bytes = [0; 100];
    let nothing = tokio::select! {
        biased;
        _ = client.read(&mut bytes) => false,
        () = std::future::ready(()) => true,
    };
    assert!(nothing, "nothing leaves before the flush");
    wire.flush().await.unwrap();
    let read = client.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..read], b"headbody");
    // Around the buffer's size, in pieces that fit, fill and overflow it.
    let sent: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    for piece in [&sent[..5000], &sent[5000..9000], &sent[9000..17_192], &sent[17_192..]] {
        wire.write_all(piece).await.unwrap();
    }
    wire.flush().await.unwrap();
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(received, sent);
}
