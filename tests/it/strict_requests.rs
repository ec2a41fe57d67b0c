//! Requests that two readers could read in two ways: refused and the connection closed, or passed on in one canonical
//! way, with what the server gets held against several models of servers.

use bytes::Bytes;

use crate::support::{
    client::Connection,
    config::{Site, parse},
    homing::Homing,
    models::{self, Message},
    raw::RawServer,
};

/// What becomes of a request.
enum Fate {
    /// This status, the connection closed, and nothing whole at the server.
    Refused(u16),
    /// The server gets this start line, without its version, and this body.
    Passes(&'static str, &'static str),
}

use Fate::{Passes, Refused};

const NO: Fate = Refused(400);

#[tokio::test]
async fn a_target_is_read_in_one_way() {
    let get = |line: &str| format!("{line}\r\nHost: a.com\r\n\r\n").into_bytes();
    check(vec![
        (get("GET / HTTP/1.1"), Passes("GET /", "")),
        (get("GET /a?b=c&d=%20;e HTTP/1.1"), Passes("GET /a?b=c&d=%20;e", "")),
        (get("GET /a/../b//c/./%2e%2e HTTP/1.1"), Passes("GET /a/../b//c/./%2e%2e", "")),
        (get("GET /\\a HTTP/1.1"), Passes("GET /\\a", "")),
        (get("OPTIONS * HTTP/1.1"), Passes("OPTIONS *", "")),
        (get("GET http://a.com/x?y HTTP/1.1"), Passes("GET /x?y", "")),
        (get("GET http://a.com HTTP/1.1"), Passes("GET /", "")),
        (get("GET http://a.com?y HTTP/1.1"), Passes("GET /?y", "")),
        (get("OPTIONS http://a.com HTTP/1.1"), Passes("OPTIONS *", "")),
        (get("M-SEARCH /x HTTP/1.1"), Passes("M-SEARCH /x", "")),
        (get("A#B / HTTP/1.1"), Passes("A#B /", "")),
        (get("GET /a?b=[c]^`{d}|\\ HTTP/1.1"), Passes("GET /a?b=[c]^`{d}|\\", "")),
        (get("A#B /#c HTTP/1.1"), NO),
        (get("\r\nGET / HTTP/1.1"), Passes("GET /", "")),
        (get("GET http://b.com/ HTTP/1.1"), NO),
        (get("GET http://user@a.com/ HTTP/1.1"), NO),
        (get("GET http:/a.com/ HTTP/1.1"), NO),
        (get("GET http://a.com:80/ HTTP/1.1"), NO),
        (get("GET ftp://a.com/ HTTP/1.1"), NO),
        (get("GET a.com:80 HTTP/1.1"), NO),
        (get("GET a.com HTTP/1.1"), NO),
        (get("GET * HTTP/1.1"), NO),
        (get("GET x HTTP/1.1"), NO),
        (get("GET ?x HTTP/1.1"), NO),
        (get("GET /a#b HTTP/1.1"), NO),
        (get("\r\nGET /?a#b HTTP/1.1"), NO),
        (get("GET /a b HTTP/1.1"), NO),
        (get("GET / HTTP/1.1 HTTP/1.1"), NO),
        (get("GET  / HTTP/1.1"), NO),
        (get("GET /  HTTP/1.1"), NO),
        (get("GET\t/ HTTP/1.1"), NO),
        (get("GET /\tHTTP/1.1"), NO),
        (get(" GET / HTTP/1.1"), NO),
        (get("GET / HTTP/1.1 "), NO),
        (get("GET /\u{1} HTTP/1.1"), NO),
        (get("GET /\0 HTTP/1.1"), NO),
        (get("GET /\u{7f} HTTP/1.1"), NO),
        (get("GET /\r HTTP/1.1"), NO),
        (get("GET /\"<> HTTP/1.1"), NO),
        (get("GET /"), NO),
        (get("GET / HTTP/0.9"), NO),
        (get("GET / HTTP/1.2"), NO),
        (get("GET / HTTP/2.0"), NO),
        (get("GET / HTTP/11"), NO),
        (get("GET / http/1.1"), NO),
        (get("GET / HTTP/1.1x"), NO),
        (get("GET / XTTP/1.1"), NO),
        (get("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), NO),
        (get("G(T / HTTP/1.1"), NO),
        (get("G\u{e9}T / HTTP/1.1"), NO),
        (get(" / HTTP/1.1"), NO),
        (get("\nGET / HTTP/1.1"), NO),
        (get("CONNECT a.com:80 HTTP/1.1"), Refused(405)),
    ])
    .await;
}

#[tokio::test]
async fn lines_and_fields_are_read_in_one_way() {
    let with = |field: &str| format!("GET / HTTP/1.1\r\nHost: a.com\r\n{field}\r\n\r\n").into_bytes();
    let whole = |text: &str| text.as_bytes().to_vec();
    check(vec![
        (with("X: y"), Passes("GET /", "")),
        (with("X:y"), Passes("GET /", "")),
        (with("X:  y\t"), Passes("GET /", "")),
        (with("X:"), Passes("GET /", "")),
        (with("Connection: close"), Passes("GET /", "")),
        (with("Connection: keep-alive, X-Own\r\nX-Own: 1"), Passes("GET /", "")),
        (with("Expect: x"), Passes("GET /", "")),
        (
            with("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk"),
            Passes("GET /", ""),
        ),
        (with("TE: trailers, chunked\r\nConnection: TE"), Passes("GET /", "")),
        (with("X : y"), NO),
        (with("X\t: y"), NO),
        (with(" X: y"), NO),
        (with("X: y\r\n folded"), NO),
        (with("X: y\r\n\tfolded"), NO),
        (with("X: y\nZ: 1"), NO),
        (with("X: y\rZ: 1"), NO),
        (with("X: y\r\r"), NO),
        (with("X: a\0b"), NO),
        (with("X: a\u{1}b"), NO),
        (with("X: a\u{7f}b"), NO),
        (with("X\0: y"), NO),
        (with("X(: y"), NO),
        (with("X\u{e9}: y"), NO),
        (with(": y"), NO),
        (with("no colon"), NO),
        (with("Host: a.com"), NO),
        (with("Host: b.com"), NO),
        (with("host:"), NO),
        (with("Connection: Host"), NO),
        (with("Connection: close, host"), NO),
        (with("Connection: Content-Length"), NO),
        (with("Connection: Transfer-Encoding"), NO),
        (with("Connection: Authorization"), NO),
        (with("Connection: Cookie"), NO),
        (with("Connection: Forwarded"), NO),
        (with("Connection: X-Forwarded-For"), NO),
        (with("Connection: X-Real-IP"), NO),
        (with("Connection: Homing-Hop"), NO),
        (with("Connection: \"X\""), NO),
        (with("Connection: close\r\nConnection: Host"), NO),
        (whole("GET / HTTP/1.1\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost:\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a.com/\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a.com, b.com\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: x@a.com\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a.com:x\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n"), NO),
        (whole("GET http://a.com/ HTTP/1.1\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\nHost: a.com\r\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a.com\n\r\n"), NO),
        (whole("GET / HTTP/1.1\r\nHost: a.com\r\n\n"), NO),
        (whole("GET / HTTP/1.1\nHost: a.com\n\n"), NO),
        (whole("GET / HTTP/1.1\r\n Host: a.com\r\n\r\n"), NO),
    ])
    .await;
}

#[tokio::test]
async fn a_body_ends_in_one_place() {
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a.com\r\n{fields}\r\n\r\n{body}").into_bytes()
    };
    let of_length = |length: &str| post(&format!("Content-Length: {length}"), "hello");
    let coded = |coding: &str| post(&format!("Transfer-Encoding: {coding}"), "5\r\nhello\r\n0\r\n\r\n");
    let chunks = |body: &str| post("Transfer-Encoding: chunked", body);
    let hello = || Passes("POST /", "hello");
    check(vec![
        (of_length("5"), hello()),
        (of_length("0005"), hello()),
        (of_length("5\t"), hello()),
        (coded("chunked"), hello()),
        (coded("Chunked"), hello()),
        (coded("\tchunked "), hello()),
        (chunks("2\r\nhe\r\n3;x=\"y\"\r\nllo\r\n00\r\nX: y\r\n\r\n"), hello()),
        (post("Content-Length: 0", ""), Passes("POST /", "")),
        (post("X-None: 1", ""), Passes("POST /", "")),
        (of_length("+5"), NO),
        (of_length("-5"), NO),
        (of_length("5 5"), NO),
        (of_length("5, 5"), NO),
        (of_length("5,"), NO),
        (of_length("5;"), NO),
        (of_length("5.0"), NO),
        (of_length("0x5"), NO),
        (of_length("5a"), NO),
        (of_length(""), NO),
        (of_length("five"), NO),
        (of_length("9223372036854775808"), NO),
        (of_length("18446744073709551621"), NO),
        (of_length("99999999999999999999999999"), NO),
        (post("Content-Length: 5\r\nContent-Length: 5", "hello"), NO),
        (post("Content-Length: 5\r\nContent-Length: 6", "hello"), NO),
        (post("Content-Length: 5\r\ncontent-length: 0", "hello"), NO),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), NO),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), NO),
        (post("Transfer-Encoding: identity\r\nContent-Length: 5", "hello"), NO),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), NO),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"), NO),
        (post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), NO),
        (post("Transfer-Encoding : chunked", "0\r\n\r\n"), NO),
        (post("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"), NO),
        (coded("xchunked"), NO),
        (coded("chunked, chunked"), NO),
        (coded("chunked, identity"), NO),
        (coded("identity, chunked"), NO),
        (coded("gzip, chunked"), NO),
        (coded("chunked;q=1"), NO),
        (coded("\"chunked\""), NO),
        (coded("\u{b}chunked"), NO),
        (coded("chunked,"), NO),
        (coded(""), NO),
        (coded("identity"), NO),
        (chunks("\r\n\r\n"), NO),
        (chunks("5\nhello\n0\n\n"), NO),
        (chunks("5\r\nhello0\r\n\r\n"), NO),
        (chunks("5 \r\nhello\r\n0\r\n\r\n"), NO),
        (chunks(" 5\r\nhello\r\n0\r\n\r\n"), NO),
        (chunks("5;\r\nhello\r\n0\r\n\r\n"), NO),
        (chunks("5;a\nb\r\nhello\r\n0\r\n\r\n"), NO),
        (chunks("0x5\r\nhello\r\n0\r\n\r\n"), NO),
        (chunks("+5\r\nhello\r\n0\r\n\r\n"), NO),
        (chunks("10000000000000005\r\nhello\r\n0\r\n\r\n"), NO),
        (chunks("5\r\nhello\r\n0\r\n\n"), NO),
        (chunks("5\r\nhello\r\n0\r\nno colon\r\n\r\n"), NO),
        (chunks("5\r\nhello\r\n0\r\n X: y\r\n\r\n"), NO),
        (b"POST / HTTP/1.0\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), NO),
        (post("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5", "hello"), NO),
        (
            post(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked",
                "5\r\nhello\r\n0\r\n\r\n",
            ),
            NO,
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_only_homing_says_is_not_believed_of_a_client() {
    let (server, homing) = start().await;
    let fields = "X_Forwarded_For: forged\r\nX-Forwarded-Ssl: forged\r\nX-Forwarded-Prefix: forged\r\n\
                  Content_Length: 9\r\nTransfer_Encoding: chunked\r\nX_Real_IP: forged\r\nHoming_Hop: forged\r\n\
                  forwarded: forged\r\nX_Own: kept";
    let mut client = Connection::open(homing.addr).await;
    client
        .wire
        .write(format!("GET / HTTP/1.1\r\nHost: a.com\r\n{fields}\r\n\r\n"))
        .await
        .expect("it is read");
    assert_eq!(client.answer().await.expect("an answer").status, 200);
    let request = server.requests().remove(0);
    let forged: Vec<_> = request.fields.iter().filter(|(_, value)| value == "forged").collect();
    assert!(forged.is_empty(), "{forged:?}");
    assert_eq!((request.all("content_length").len(), request.all("transfer_encoding").len()), (0, 0));
    assert_eq!(request.all("x_own"), ["kept"]);
    agree(&server);
}

/// Each request on a connection of its own, followed at once by another one that is to be served only where the first
/// is.
async fn check(cases: Vec<(Vec<u8>, Fate)>) {
    let (server, homing) = start().await;
    for (sent, fate) in cases {
        let what = sent.escape_ascii().to_string();
        let before = server.requests().len();
        let mut client = Connection::open(homing.addr).await;
        let mut bytes = sent.clone();
        if matches!(fate, Refused(_)) {
            bytes.extend_from_slice(b"GET /next HTTP/1.1\r\nHost: a.com\r\n\r\n");
        }
        client.wire.write(&bytes).await.expect("homing reads");
        match fate {
            Refused(status) => {
                let said = String::from_utf8_lossy(&client.closed().await).into_owned();
                assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {said}");
                assert_eq!(said.matches("HTTP/1.").count(), 1, "{what}: one answer, not {said}");
                assert_eq!(server.requests().len(), before, "{what}: no server gets it");
            }
            Passes(line, body) => {
                let answer = client.answer().await.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!((answer.status, answer.body), (200, Bytes::from_static(b"ok")), "{what}");
                let got = server.requests().split_off(before);
                assert_eq!(got.len(), 1, "{what}: {got:?}");
                let got = &got[0];
                assert_eq!((&*got.line(), &*got.body), (line, body.as_bytes()), "{what}");
                assert_eq!(got.all("host"), ["a.com"], "{what}");
                assert!(got.all("transfer-encoding").len() + got.all("content-length").len() < 2, "{what}");
            }
        }
    }
    agree(&server);
}

/// All models of servers find the same requests in what came on each connection, to its last byte.
pub fn agree(server: &RawServer) {
    for bytes in server.got() {
        let shown = bytes.escape_ascii();
        let (strict, taken) = models::strict(&bytes);
        let plain = |messages: Vec<Message>| -> Vec<Message> {
            messages
                .into_iter()
                .map(|mut message| {
                    message.fields.iter_mut().for_each(|(name, _)| *name = name.replace('_', "-"));
                    message
                })
                .collect()
        };
        let strict = plain(strict);
        let (httparse, by_httparse) = models::by_httparse(&bytes);
        assert_eq!((&plain(httparse), by_httparse), (&strict, taken), "{shown}");
        let (lenient, by_lenient) = models::lenient(&bytes);
        assert_eq!((&plain(lenient), by_lenient), (&strict, taken), "{shown}");
    }
}

async fn start() -> (RawServer, Homing) {
    let (server, site) = in_front_of_raw().await;
    (server, site.start().await)
}

/// A server that answers everything with `ok`, and the site in front of it.
pub async fn in_front_of_raw() -> (RawServer, Site) {
    let server =
        RawServer::start(|_| (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(), false)).await;
    let addr = server.addr;
    let site = Site::new(&[]).with(|yaml| {
        yaml["threads"] = 1.into();
        yaml["pools"][0]["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", addr.ip(), addr.port()));
    });
    (server, site)
}
