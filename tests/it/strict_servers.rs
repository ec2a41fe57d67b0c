//! Servers that answer in ways which two readers could read in two ways, or not to the end: their clients get an error,
//! or an answer that is visibly cut, and never a byte of one answer in another.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    certs::cert_for,
    client::{Connection, Request},
    config::{Site, parse},
    eventually,
    homing::Homing,
    net,
    raw::RawServer,
    soon,
};

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 502, and nothing of what the server said.
    BadGateway,
    /// The answer begins and its connection is closed before its end.
    Cut,
    /// This status and body.
    Passes(u16, &'static str),
}

use Fate::{BadGateway, Cut, Passes};

/// The answer, whether the server closes after it, and what becomes of it.
const ANSWERS: &[(&str, bool, Fate)] = &[
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 200 OK\r\n\r\nuntil closed", true, Passes(200, "until closed")),
    ("HTTP/1.0 200 OK\r\n\r\nuntil closed", true, Passes(200, "until closed")),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n", false, Passes(204, "")),
    // What nobody asked for is behind an answer that is whole.
    ("HTTP/1.1 204 None\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false, Passes(204, "")),
    ("HTTP/1.1 304 None\r\nContent-Length: 4\r\n\r\nevil", false, Passes(304, "")),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        false,
        Passes(200, "ok"),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
        false,
        Passes(200, "ok"),
    ),
    // Bodies that are announced where there is none, or in two ways.
    ("HTTP/1.1 204 None\r\nContent-Length: 4\r\n\r\nevil", false, BadGateway),
    ("HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", false, BadGateway),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        false,
        BadGateway,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        false,
        BadGateway,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nevil", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nevil", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nevil", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false, BadGateway),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        false,
        BadGateway,
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, BadGateway),
    // Lines.
    ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX: a\x1bb\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\n: no name\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX y: z\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    // Status lines.
    ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("ok, says HTTP/0.9", true, BadGateway),
    ("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nevil", false, BadGateway),
    // Answers that break off.
    ("HTTP/1.1 200 OK\r\nContent-Le", true, BadGateway),
    ("", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", true, Cut),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", true, Cut),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, Cut),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", true, Cut),
];

/// Chunks, and whether they are well formed: `ok` then, and else cut.
const CHUNKS: &[(&str, bool)] = &[
    ("2\r\nok\r\n0\r\n\r\n", true),
    ("02;a=\"b;c\" ; d\r\nok\r\n000\r\n\r\n", true),
    // Trailers are for this connection; what they say of framing comes too late.
    ("2\r\nok\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\n\r\n", true),
    ("2\r\nok\r\n\r\n", false),
    ("2\r\nok\r\n\r\n\r\n", false),
    ("\r\n\r\n", false),
    ("2\r\nok\r\nzz\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n00000000000000004\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\nfffffffffffffffff\r\nevil", false),
    ("2\r\nok\r\n0x4\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n+4\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n-1\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n 4\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n4 \r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n4;ext=\"a\nb\"\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok\r\n4;\r\nevil\r\n0\r\n\r\n", false),
    ("2\r\nok4\r\nevil\r\n0\r\n\r\n", false),
    ("2\nok\n0\n\n", false),
    ("2\r\nok\r\n0\r\nno colon\r\n\r\n", false),
    ("2\r\nok\r\n0\r\n\n", false),
];

/// What servers say that is not in the tables, by target.
fn others(target: &str) -> Vec<u8> {
    let large = |head: &str, of: &str, times| [head, &of.repeat(times), "\r\n"].concat().into_bytes();
    match target {
        "/interims" => b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000),
        "/line" => large("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", "a", 1 << 20),
        "/fields" => large("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "X: y\r\n", 5000),
        "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_vec(),
        "/head/evil" => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec(),
        "/unchanged" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n".to_vec(),
        "/nothing" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/hint" => {
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_vec()
        }
        "/chunks" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\nX: y\r\n\r\n".to_vec()
        }
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_vec(),
    }
}

fn script(target: &str) -> (Vec<u8>, bool) {
    let numbered = |of: &str| target.strip_prefix(of)?.parse::<usize>().ok();
    if let Some((answer, close, _)) = numbered("/answer/").map(|number| ANSWERS[number]) {
        return (answer.into(), close);
    }
    if let Some((chunks, _)) = numbered("/chunks/").map(|number| CHUNKS[number]) {
        return (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").into(), false);
    }
    (others(target), false)
}

/// A server and a homing before it.
struct Pair {
    server: RawServer,
    homing: Homing,
}

/// How homing speaks with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Clear,
    Tls,
    /// The pool wants HTTP/2, which the server does not agree to.
    TlsAndMaybeHttp2,
}

const ALL_WAYS: [Over; 3] = [Over::Clear, Over::Tls, Over::TlsAndMaybeHttp2];

impl Pair {
    async fn start(over: Over) -> Self {
        let server = match over {
            Over::Clear => RawServer::start(script).await,
            _ => RawServer::start_tls(&cert_for(&["raw.test"]), script).await,
        };
        let homing = in_front_of(server.addr, over).start().await;
        Self { server, homing }
    }

    async fn get(&self, target: &str) -> (u16, String) {
        let answer = Request::get(target).send(self.homing.addr).await;
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Clients to come are served as ever.
    async fn serves_on(&self, after: &str) {
        for _ in 0..2 {
            assert_eq!(self.get("/good").await, (200, "good".to_owned()), "after {after:?}");
        }
    }
}

fn in_front_of(server: SocketAddr, over: Over) -> Site {
    Site::new(&[]).with(|yaml| {
        yaml["threads"] = 1.into();
        let pool = &mut yaml["pools"][0];
        pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", server.ip(), server.port()));
        if over != Over::Clear {
            pool["enable_ssl"] = true.into();
            pool["verify"] = false.into();
        }
        if over == Over::TlsAndMaybeHttp2 {
            pool["enable_http2"] = true.into();
        }
    })
}

#[tokio::test]
async fn a_hostile_server_never_puts_a_byte_into_another_answer() {
    for over in ALL_WAYS {
        let pair = Pair::start(over).await;
        for (number, (answer, _, fate)) in ANSWERS.iter().enumerate() {
            let mut client = Connection::open(pair.homing.addr).await;
            let got = client.try_ask(&Request::new("POST", &format!("/answer/{number}"))).await;
            match (fate, got) {
                (Cut, Err(_)) => {}
                (BadGateway, Ok(got)) if got.status == 502 => {}
                (Passes(status, body), Ok(got)) if got.status == *status && got.body == *body => {}
                (_, got) => panic!("{answer:?} over {over:?} is to be {fate:?}: {got:?}"),
            }
            pair.serves_on(answer).await;
        }
    }
}

#[tokio::test]
async fn chunks_are_taken_strictly() {
    for over in ALL_WAYS {
        let pair = Pair::start(over).await;
        for (number, (chunks, good)) in CHUNKS.iter().enumerate() {
            let mut client = Connection::open(pair.homing.addr).await;
            let got = client.try_ask(&Request::get(&format!("/chunks/{number}"))).await;
            match got {
                Ok(got) => {
                    // Where nothing of the body was there yet, it may not have begun to answer.
                    let refused = !good && got.status == 502;
                    assert!(refused || (*good && got.body == "ok"), "{chunks:?} over {over:?}: {got:?}");
                }
                Err(_) => assert!(!good, "{chunks:?} over {over:?} is well formed"),
            }
            pair.serves_on(chunks).await;
        }
    }
}

#[tokio::test]
async fn floods_have_an_end() {
    let pair = Pair::start(Over::Clear).await;
    for target in ["/interims", "/line", "/fields"] {
        assert_eq!(Request::new("POST", target).send(pair.homing.addr).await.status, 502, "{target}");
        pair.serves_on(target).await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_every_kind_of_answer() {
    for over in ALL_WAYS {
        let pair = Pair::start(over).await;
        let requests = [
            Request::new("HEAD", "/head"),
            Request::get("/good"),
            Request::get("/unchanged"),
            Request::get("/nothing"),
            Request::get("/hint"),
            Request::get("/chunks"),
            Request::post("/good", "a body"),
        ];
        for round in 0..2 {
            for request in &requests {
                let answer = request.send(pair.homing.addr).await;
                assert!(answer.status < 400, "{request:?}: {answer:?}, round {round}");
            }
        }
        // One on which HTTP/2 was asked for before.
        let more = usize::from(over == Over::TlsAndMaybeHttp2);
        assert_eq!(pair.server.got().len(), 1 + more, "connections over {over:?}");
        assert_eq!(pair.server.requests().len(), 2 * requests.len(), "over {over:?}");

        let head = Request::new("HEAD", "/head/evil").send(pair.homing.addr).await;
        assert_eq!(head.status, 200);
        pair.serves_on("a HEAD that was answered with a body").await;
        assert_eq!(pair.server.got().len(), 2 + more, "that connection is not used again, over {over:?}");
    }
}

#[tokio::test]
async fn a_malformed_answer_is_counted_and_logged_with_what_is_wrong_with_it() {
    let pair = Pair::start(Over::Clear).await;
    let number = |of: &str| ANSWERS.iter().position(|(answer, ..)| answer.contains(of)).expect("it is there");
    let status = pair.get(&format!("/answer/{}", number("folded"))).await.0;
    assert_eq!(status, 502);
    pair.homing.says("a line of the head is folded").await;
    let server = pair.server.addr.to_string();
    let labels = [("server", server.as_str()), ("reason", "protocol")];
    pair.homing.counts("homing_upstream_request_failures_total", &labels, 1.0).await;
}

/// It answers when it has seen a head, and again whatever comes then.
async fn hasty_server() -> SocketAddr {
    let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
    let addr = listener.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut said, mut space) = (Vec::new(), [0; 1024]);
                let mut word = "good";
                while let Ok(read @ 1..) = stream.read(&mut space).await {
                    said.extend_from_slice(&space[..read]);
                    if word == "good" && !said.windows(4).any(|four| four == b"\r\n\r\n") {
                        continue;
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{word}");
                    _ = stream.write_all(answer.as_bytes()).await;
                    word = "evil";
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_connection_whose_request_was_answered_before_its_end_is_nobody_elses() {
    let homing = in_front_of(hasty_server().await, Over::Clear).start().await;
    let mut hesitant = Connection::open(homing.addr).await;
    let head = "POST / HTTP/1.1\r\nHost: a.com\r\nContent-Length: 10\r\n\r\nhalf.";
    soon("send a head", hesitant.wire.write(head)).await.expect("homing reads it");
    assert_eq!(hesitant.answer().await.expect("an answer").body, "good");
    _ = hesitant.wire.write("half!").await;
    let other = Request::get("/").send(homing.addr).await;
    assert_eq!(other.body, "good");
}

/// Sends an answer that is whole, and on the kept connection another that nobody asked for.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
    let addr = listener.local_addr().expect("a bound socket has an address");
    let homing = in_front_of(addr, Over::Clear).start().await;
    let mut client = Connection::open(homing.addr).await;
    client.send(&Request::get("/")).await.expect("homing reads it");
    let (mut first, _) = soon("a connection", listener.accept()).await.expect("homing connects");
    let mut space = [0; 1024];
    assert!(soon("a request", first.read(&mut space)).await.expect("a request") > 0);
    let answer = |word: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{word}");
    first.write_all(answer("good").as_bytes()).await.expect("homing reads");
    assert_eq!(client.answer().await.expect("an answer").body, "good");
    first.write_all(answer("evil").as_bytes()).await.expect("homing reads");
    // It ends: homing has nothing to say on it.
    eventually("the connection ends", async || {
        matches!(soon("an end", first.read(&mut space)).await, Ok(0) | Err(_))
    })
    .await;
}
