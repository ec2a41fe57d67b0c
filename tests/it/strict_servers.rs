//! Servers that answer in ways which two readers could read in two ways, or not to the end: their clients get an error,
//! or an answer that is visibly cut, and never a byte of one answer in another.

use crate::support::{
    client::{Connection, Request},
    config::{Site, parse},
    raw::RawServer,
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
const ANSWERS: [(&str, bool, Fate); 37] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 200 OK\r\n\r\nuntil closed", true, Passes(200, "until closed")),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n", false, Passes(204, "")),
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
    ("HTTP/1.1 204 None\r\nContent-Length: 4\r\n\r\nevil", false, BadGateway),
    ("HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nevil", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nevil", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false, BadGateway),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        false,
        BadGateway,
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok", false, Passes(200, "ok")),
    ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, BadGateway),
    ("ok, says HTTP/0.9", true, BadGateway),
    ("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nevil", false, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Le", true, BadGateway),
    ("", true, BadGateway),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", true, Cut),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", true, Cut),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, Cut),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nevil\r\n0\r\n\r\n", false, Cut),
];

#[tokio::test]
async fn a_hostile_server_never_puts_a_byte_into_another_answer() {
    let script = |target: &str| match target.strip_prefix("/answer/") {
        Some(number) => {
            let (answer, close, _) = ANSWERS[number.parse::<usize>().expect("a number")];
            (answer.into(), close)
        }
        None if target == "/flood" => (b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000), false),
        None => (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_vec(), false),
    };
    let server = RawServer::start(script).await;
    let addr = server.addr;
    let site = Site::new(&[]).with(|yaml| {
        yaml["threads"] = 1.into();
        yaml["pools"][0]["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", addr.ip(), addr.port()));
    });
    let homing = site.start().await;
    let good = async |after: &str| {
        for _ in 0..2 {
            let answer = Request::get("/good").send(homing.addr).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"good"[..]), "after {after}");
        }
    };
    for (number, (answer, _, fate)) in ANSWERS.iter().enumerate() {
        let mut client = Connection::open(homing.addr).await;
        let got = client.try_ask(&Request::new("POST", &format!("/answer/{number}"))).await;
        match (fate, got) {
            (Cut, Err(_)) => {}
            (BadGateway, Ok(got)) if got.status == 502 => {}
            (Passes(status, body), Ok(got)) if got.status == *status && got.body == *body => {}
            (_, got) => panic!("{answer:?} is to be {fate:?}: {got:?}"),
        }
        good(answer).await;
    }
    let flooded = Request::new("POST", "/flood").send(homing.addr).await;
    assert_eq!(flooded.status, 502, "interim answers have an end");
    good("a flood").await;
}
