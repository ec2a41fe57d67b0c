//! HTTP/2 requests that have no one meaning in HTTP/1, frame by frame: refused, with nothing of them at the server, or
//! passed on in one canonical way.

use crate::{
    strict_requests::{agree, in_front_of_raw},
    support::{
        certs::cert_for,
        config::Site,
        frames::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, HEADERS, frame},
        homing::Homing,
        raw::RawServer,
    },
};

/// The fields of a head that replace those of [`WHOLE`] of the same name, or come after them, a body, and the start
/// line and body that the server gets, if it gets any. A value of `-` leaves a field out.
type Case = (&'static [(&'static str, &'static str)], &'static str, Option<(&'static str, &'static str)>);

const WHOLE: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":authority", "a.com"), (":path", "/")];

const HELLO: Option<(&str, &str)> = Some(("POST /", "hello"));

const CASES: [Case; 84] = [
    (&[], "hello", HELLO),
    (&[("content-length", "5")], "hello", HELLO),
    (&[("content-length", "0")], "", Some(("POST /", ""))),
    (&[("te", "trailers")], "hello", HELLO),
    (&[("host", "a.com")], "hello", HELLO),
    (&[(":authority", "-"), ("host", "a.com")], "hello", HELLO),
    (&[(":authority", "a.com:443")], "hello", HELLO),
    (&[("cookie", "a=1"), ("cookie", "b=2")], "hello", HELLO),
    (&[(":path", "/a?b")], "hello", Some(("POST /a?b", "hello"))),
    (&[(":path", "/a#b")], "hello", None),
    (&[(":path", "/#")], "hello", None),
    (&[(":path", "/a/../b//c/%2e")], "hello", Some(("POST /a/../b//c/%2e", "hello"))),
    (&[(":method", "OPTIONS"), (":path", "*")], "", Some(("OPTIONS *", ""))),
    (&[(":method", "M-SEARCH")], "hello", Some(("M-SEARCH /", "hello"))),
    (&[(":scheme", "http")], "hello", HELLO),
    (&[("x-empty", "")], "hello", HELLO),
    (&[("x", "a\tb")], "hello", HELLO),
    (&[("x", "Gr\u{fc}n")], "hello", HELLO),
    (&[("expect", "100-continue")], "hello", HELLO),
    (&[("content-length", "4")], "hello", None),
    (&[("content-length", "6")], "hello", None),
    (&[("content-length", "0")], "hello", None),
    (&[("content-length", "5")], "", None),
    (&[("content-length", "+5")], "hello", None),
    (&[("content-length", "-5")], "hello", None),
    (&[("content-length", "")], "hello", None),
    (&[("content-length", "five")], "hello", None),
    (&[("content-length", "0x5")], "hello", None),
    (&[("content-length", "5 5")], "hello", None),
    (&[("content-length", "5, 5")], "hello", None),
    (&[("content-length", "18446744073709551621")], "hello", None),
    (&[("content-length", "5"), ("content-length", "6")], "hello", None),
    (&[("content-length", "5"), ("content-length", "5")], "hello", None),
    (&[("transfer-encoding", "chunked")], "hello", None),
    (&[("transfer-encoding", "chunked")], "0\r\n\r\n", None),
    (&[("transfer-encoding", "identity"), ("content-length", "5")], "hello", None),
    (&[("connection", "close")], "hello", None),
    (&[("connection", "x"), ("x", "y")], "hello", None),
    (&[("connection", "")], "hello", None),
    (&[("keep-alive", "1")], "hello", None),
    (&[("proxy-connection", "close")], "hello", None),
    (&[("upgrade", "websocket")], "hello", None),
    (&[("upgrade", "h2c"), ("http2-settings", "AAMAAABk")], "hello", None),
    (&[("te", "chunked")], "hello", None),
    (&[("te", "trailers, chunked")], "hello", None),
    (&[("te", "")], "hello", None),
    (&[("host", "b.com")], "hello", None),
    (&[("host", "")], "hello", None),
    (&[("host", "a.com"), ("host", "a.com")], "hello", None),
    (&[(":authority", "-"), ("host", "a.com"), ("host", "b.com")], "hello", None),
    (&[(":authority", "-")], "hello", None),
    (&[(":authority", "")], "hello", None),
    (&[(":authority", "x@a.com")], "hello", None),
    (&[(":authority", "a.com/x")], "hello", None),
    (&[(":authority", "a.com:x")], "hello", None),
    (&[(":authority", "a.com, b.com")], "hello", None),
    (&[(":authority", "a.com\r\nx: y")], "hello", None),
    (&[(":method", "-")], "hello", None),
    (&[(":path", "-")], "hello", None),
    (&[(":scheme", "-")], "hello", None),
    (&[(":method", "")], "hello", None),
    (&[(":scheme", "")], "hello", None),
    (&[(":path", "")], "hello", None),
    (&[(":path", "x")], "hello", None),
    (&[(":path", "*")], "hello", None),
    (&[(":path", "?x")], "hello", None),
    (&[(":path", "http://a.com/")], "hello", None),
    (&[(":path", "/ x")], "hello", None),
    (&[(":path", "/\r\nX: y")], "hello", None),
    (&[(":path", "/\0")], "hello", None),
    (&[(":path", "/\t")], "hello", None),
    (&[(":method", "GET / HTTP/1.1\r\nX: y")], "hello", None),
    (&[(":method", "PO ST")], "hello", None),
    (&[(":method", "P\"ST")], "hello", None),
    (&[(":method", "CONNECT")], "hello", None),
    (&[(":method", "CONNECT"), (":scheme", "-"), (":path", "-")], "hello", None),
    (&[(":method", "CONNECT"), (":protocol", "websocket")], "hello", None),
    (&[("x\"y", "1")], "hello", None),
    (&[(":authority", "[::g]")], "hello", None),
    (&[(":authority", "a%zz")], "hello", None),
    (&[("content-length", "9223372036854775808")], "hello", None),
    (&[(":scheme", "ftp")], "hello", None),
    (&[(":scheme", "ht tp")], "hello", None),
    (&[(":status", "200")], "hello", None),
];

/// Fields that are wrong wherever they stand.
const WRONG_FIELDS: [(&str, &str); 16] = [
    (":unknown", "x"),
    (":method", "GET"),
    (":path", "/other"),
    (":authority", "a.com"),
    ("X-Upper", "y"),
    ("x y", "z"),
    ("x:y", "z"),
    ("x\r\ny", "z"),
    ("x\0", "z"),
    ("", "z"),
    ("x\u{fc}", "z"),
    ("x", "a\r\nb: c"),
    ("x", "a\nb"),
    ("x", "a\rb"),
    ("x", "a\0b"),
    ("x", "a\u{7f}b"),
];

#[tokio::test]
async fn a_request_steps_down_to_http_1_in_one_way_or_not_at_all() {
    let (server, homing) = start().await;
    let mut verdicts = Verdicts::default();
    for (fields, body, expected) in CASES {
        let sent = [frames::head(1, 0, &with(fields)), frame(DATA, END_STREAM, 1, body.as_bytes())].concat();
        let what = format!("{fields:?} {body:?}");
        verdicts.add(&what, verdict(&server, &homing, &sent, expected).await);
    }
    verdicts.none_is_wrong();
    agree(&server);
}

#[tokio::test]
async fn a_field_that_http_2_forbids_refuses_its_request() {
    let (server, homing) = start().await;
    let mut verdicts = Verdicts::default();
    for field in WRONG_FIELDS {
        let fields = [&WHOLE[..], &[field]].concat();
        let sent = [frames::head(1, 0, &fields), frame(DATA, END_STREAM, 1, b"hello")].concat();
        verdicts.add(&format!("{field:?}"), verdict(&server, &homing, &sent, None).await);
    }
    verdicts.none_is_wrong();
    agree(&server);
}

#[tokio::test]
async fn a_requests_parts_come_in_their_order() {
    let (server, homing) = start().await;
    let mut verdicts = Verdicts::default();
    let late = [("x", "y"), WHOLE[0], WHOLE[1], WHOLE[2], WHOLE[3]];
    let long = "v".repeat(20_000);
    let data = |flags, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let hello = || data(END_STREAM, b"hello");
    let head = |fields: &[(&'static str, &str)]| frames::head(1, 0, fields);
    let end = |fields: &[(&str, &str)]| frames::head(1, END_STREAM, fields);
    let block = frames::block(&[&WHOLE[..], &[("x", &long[..10_000])]].concat());
    let (first, second) = block.split_at(3000);
    for (what, sent, expected) in [
        ("pseudo-header fields last", [head(&late), hello()].concat(), None),
        ("a length and no body", end(&with(&[("content-length", "5")])), None),
        ("a head alone", end(&WHOLE), Some(("POST /", ""))),
        (
            "a head in two frames",
            [frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, second), hello()].concat(),
            HELLO,
        ),
        (
            "a head in two frames with another between",
            [
                frame(HEADERS, 0, 1, first),
                data(0, b"x"),
                frame(CONTINUATION, END_HEADERS, 1, second),
                hello(),
            ]
            .concat(),
            None,
        ),
        ("a body in two frames", [head(&WHOLE), data(0, b"hel"), data(END_STREAM, b"lo")].concat(), HELLO),
        (
            "a body that ends with an empty frame",
            [head(&with(&[("content-length", "5")])), data(0, b"hello"), data(END_STREAM, b"")].concat(),
            HELLO,
        ),
        (
            "a body of empty frames",
            [head(&WHOLE), data(0, b""), data(0, b""), data(END_STREAM, b"")].concat(),
            Some(("POST /", "")),
        ),
        (
            "padding",
            [head(&WHOLE), frame(DATA, END_STREAM | frames::PADDED, 1, b"\x03hello\0\0\0")].concat(),
            HELLO,
        ),
        (
            "padding that is counted",
            [
                head(&with(&[("content-length", "9")])),
                frame(DATA, END_STREAM | frames::PADDED, 1, b"\x03hello\0\0\0"),
            ]
            .concat(),
            None,
        ),
        (
            "too much padding",
            [head(&WHOLE), frame(DATA, END_STREAM | frames::PADDED, 1, b"\x09hello\0\0\0")].concat(),
            None,
        ),
        ("trailers", [head(&WHOLE), data(0, b"hello"), end(&[("x-sum", "1")])].concat(), HELLO),
        (
            "trailers that do not end it",
            [head(&WHOLE), data(0, b"hello"), head(&[("x-sum", "1")]), hello()].concat(),
            None,
        ),
        (
            "an upper-case name among trailers",
            [head(&WHOLE), data(0, b"hello"), end(&[("X", "y")])].concat(),
            None,
        ),
        (
            "a connection's field among trailers",
            [head(&WHOLE), data(0, b"hello"), end(&[("connection", "x")])].concat(),
            None,
        ),
        (
            "a length that trailers come before",
            [head(&with(&[("content-length", "9")])), data(0, b"hello"), end(&[("x-sum", "1")])].concat(),
            None,
        ),
        ("a long value", [head(&with(&[("x", &long[..8_000])])), hello()].concat(), HELLO),
        ("a stream of the server's", frames::head(2, END_STREAM, &WHOLE), None),
        ("stream 0", frames::head(0, END_STREAM, &WHOLE), None),
    ] {
        verdicts.add(what, verdict(&server, &homing, &sent, expected).await);
    }
    verdicts.none_is_wrong();
    agree(&server);
}

#[tokio::test]
async fn what_a_browser_splits_is_one_field_for_a_server() {
    let (server, homing) = start().await;
    let fields = with(&[
        ("cookie", "a=1"),
        ("cookie", "b=2; c=3"),
        ("cookie", "d=4"),
        ("x-list", "1"),
        ("x-list", "2"),
        ("x-forwarded-for", "9.9.9.9"),
        ("homing-hop", "forged"),
    ]);
    let sent = [frames::head(1, 0, &fields), frame(DATA, END_STREAM, 1, b"hello")].concat();
    verdict(&server, &homing, &sent, HELLO).await.expect("it is forwarded");
    let got = server.requests().remove(0);
    assert_eq!(got.all("cookie"), ["a=1; b=2; c=3; d=4"]);
    assert_eq!(got.all("x-list"), ["1", "2"]);
    assert_eq!((got.all("x-forwarded-for"), got.all("homing-hop")), (vec!["127.0.0.1"], vec![]));
    assert_eq!(got.all("x-forwarded-proto"), ["https"]);
    assert_eq!(got.fields.iter().filter(|(name, _)| name.starts_with(':')).count(), 0);
    agree(&server);
}

/// What is wrong with the fates of many requests.
#[derive(Default)]
struct Verdicts(Vec<String>);

impl Verdicts {
    fn add(&mut self, what: &str, verdict: Result<(), String>) {
        self.0.extend(verdict.err().map(|wrong| format!("{what}: {wrong}")));
    }

    fn none_is_wrong(&self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

/// Sends frames of stream 1 on a connection of their own and looks what the server gets.
async fn verdict(
    server: &RawServer,
    homing: &Homing,
    sent: &[u8],
    expected: Option<(&str, &str)>,
) -> Result<(), String> {
    let before = server.requests().len();
    let mut client = Frames::open(homing.addr).await;
    client.send(sent).await;
    let fate = client.fate(1).await;
    let got = server.requests().split_off(before);
    let refused = match fate {
        Fate::Answered(status) => (400..500).contains(&status),
        Fate::Reset(_) | Fate::GoneAway(_) | Fate::Closed => true,
    };
    match (expected, &got[..]) {
        (None, []) if refused => Ok(()),
        (Some((line, body)), [got]) => {
            let hosts = got.all("host");
            let right = fate == Fate::Answered(200)
                && (&*got.line(), &*got.body) == (line, body.as_bytes())
                && matches!(hosts[..], ["a.com" | "a.com:443"]);
            if right { Ok(()) } else { Err(format!("{fate:?} {got:?}")) }
        }
        _ => Err(format!("{fate:?} {got:?}")),
    }
}

/// [`WHOLE`] with these in place of its own, or after them.
fn with<'a>(fields: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let replaced = |(name, value)| {
        let other = fields.iter().find(|(other, _)| *other == name);
        (name, other.map_or(value, |(_, value)| *value))
    };
    let own = WHOLE.into_iter().map(replaced).filter(|(_, value)| *value != "-");
    let more = fields.iter().filter(|(name, _)| WHOLE.iter().all(|(known, _)| known != name));
    own.chain(more.copied()).collect()
}

async fn start() -> (RawServer, Homing) {
    let (server, site) = in_front_of_raw().await;
    (server, Site::tls(site, &cert_for(&["a.com"])).start().await)
}
