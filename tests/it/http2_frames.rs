//! HTTP/2 to the letter: frames that a client may not send, and what homing has to say to each (RFC 9113 and, where it
//! asks for more, RFC 7540; RFC 7541 for header blocks).

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};

use crate::support::{
    certs::cert_for,
    client::{self, Request},
    config::Site,
    frames::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, GET, GOAWAY, HEADERS, PADDED, PING,
        PREFACE, PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
        head, reset, settings, window_update,
    },
    homing::Homing,
    origin::Origin,
};

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;

/// What is to become of it.
enum Expect {
    /// The connection ends: with one of these codes if it is said why.
    Connection(&'static [u32]),
    /// The stream does, or the connection, with one of these.
    Stream(&'static [u32]),
    /// Stream 1 is answered.
    Answer,
    /// It is passed over: a PING after it is answered.
    Nothing,
}

use Expect::{Answer, Connection, Nothing, Stream};

struct Case {
    what: &'static str,
    said: Vec<u8>,
    /// Said when stream 1 is answered.
    then: Vec<u8>,
    expected: Expect,
}

fn case(what: &'static str, said: impl Into<Vec<u8>>, expected: Expect) -> Case {
    Case { what, said: said.into(), then: Vec::new(), expected }
}

fn after(what: &'static str, then: impl Into<Vec<u8>>, expected: Expect) -> Case {
    Case { what, said: frames::get(1), then: then.into(), expected }
}

fn get() -> Vec<u8> {
    frames::get(1)
}

/// A request whose body is still to come.
fn post() -> Vec<u8> {
    head(1, 0, &POST)
}

fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"whatever")
}

fn unfinished(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &block(&GET))
}

fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    head(1, END_STREAM, &[&GET, fields].concat())
}

/// A head with this after its usual block.
fn with_block(more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&block(&GET), more].concat())
}

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":authority", "a.com"), (":path", "/")];

fn frames_and_streams() -> Vec<Case> {
    let depends_on_itself = [&1u32.to_be_bytes()[..], &[16]].concat();
    let dependent_head = [&depends_on_itself[..], &block(&GET)].concat();
    let padded = |padding: u8| [&[padding][..], b"data"].concat();
    vec![
        // 4.1, 4.2, 4.3
        case("a frame of no known kind", frame(0xfa, 0, 0, b"x"), Nothing),
        case("flags of no meaning", frame(PING, 0x16, 0, b"whatever"), Nothing),
        case("the reserved bit", frame(PING, 0, 1 << 31, b"whatever"), Nothing),
        case("the longest DATA", [post(), frame(DATA, END_STREAM, 1, &[b'x'; 1 << 14])].concat(), Answer),
        case(
            "DATA too long",
            [post(), frame(DATA, END_STREAM, 1, &[b'x'; (1 << 14) + 1])].concat(),
            Stream(&[FRAME_SIZE]),
        ),
        case(
            "HEADERS too long",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0; (1 << 14) + 1]),
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "a block that is none",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x00\x7f\xff\xff\xff\xff\xff\xff"),
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "PRIORITY within a block",
            [unfinished(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])].concat(),
            Connection(&[PROTOCOL]),
        ),
        case(
            "another stream's HEADERS within a block",
            [unfinished(1), frames::get(3)].concat(),
            Connection(&[PROTOCOL]),
        ),
        // 5.1
        case("DATA of an idle stream", frame(DATA, END_STREAM, 1, b"test"), Connection(&[PROTOCOL])),
        case("RST_STREAM of an idle stream", reset(1, 8), Connection(&[PROTOCOL])),
        case("WINDOW_UPDATE of an idle stream", window_update(1, 100), Connection(&[PROTOCOL])),
        case(
            "CONTINUATION of an idle stream",
            frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
            Connection(&[PROTOCOL]),
        ),
        case(
            "DATA after END_STREAM",
            [get(), frame(DATA, END_STREAM, 1, b"test")].concat(),
            Stream(&[STREAM_CLOSED]),
        ),
        case("HEADERS after END_STREAM", [get(), get()].concat(), Stream(&[STREAM_CLOSED])),
        case(
            "CONTINUATION after END_STREAM",
            [get(), frame(CONTINUATION, END_HEADERS, 1, &block(&GET))].concat(),
            Stream(&[STREAM_CLOSED, PROTOCOL]),
        ),
        case(
            "DATA after RST_STREAM",
            [post(), reset(1, 8), frame(DATA, END_STREAM, 1, b"test")].concat(),
            Stream(&[STREAM_CLOSED]),
        ),
        case("HEADERS after RST_STREAM", [post(), reset(1, 8), get()].concat(), Stream(&[STREAM_CLOSED])),
        case(
            "CONTINUATION after RST_STREAM",
            [post(), reset(1, 8), frame(CONTINUATION, END_HEADERS, 1, &block(&[("x", "y")]))].concat(),
            Stream(&[STREAM_CLOSED, PROTOCOL]),
        ),
        after("DATA after the answer", frame(DATA, END_STREAM, 1, b"test"), Stream(&[STREAM_CLOSED])),
        after("HEADERS after the answer", get(), Connection(&[STREAM_CLOSED])),
        after(
            "CONTINUATION after the answer",
            frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
            Connection(&[STREAM_CLOSED, PROTOCOL]),
        ),
        after("PRIORITY after the answer", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), Nothing),
        after("WINDOW_UPDATE after the answer", window_update(1, 1), Nothing),
        after("RST_STREAM after the answer", reset(1, 8), Nothing),
        case("a stream of the server's", frames::get(2), Connection(&[PROTOCOL])),
        case(
            "a stream before the newest",
            [frames::get(5), frames::get(3)].concat(),
            Connection(&[PROTOCOL]),
        ),
        case(
            "more streams than are allowed",
            [settings(&[(4, 0)]), (0..=100).flat_map(|n| head(2 * n + 1, 0, &POST)).collect()].concat(),
            Stream(&[PROTOCOL, REFUSED]),
        ),
        // 5.3.1, 5.4.1, 5.5
        case(
            "HEADERS that depend on themselves",
            frame(HEADERS, END_STREAM | END_HEADERS | PRIORITIZED, 1, &dependent_head),
            Stream(&[PROTOCOL]),
        ),
        case(
            "PRIORITY that depends on itself",
            frame(PRIORITY, 0, 1, &depends_on_itself),
            Stream(&[PROTOCOL]),
        ),
        case("a PING of the wrong length", frame(PING, 0, 0, b"short"), Connection(&[FRAME_SIZE])),
        case(
            "a frame of no known kind within a block",
            [unfinished(1), frame(0xfa, 0, 0, b"x")].concat(),
            Connection(&[PROTOCOL]),
        ),
        // 6.1, 6.2
        case("DATA of stream 0", frame(DATA, END_STREAM, 0, b"test"), Connection(&[PROTOCOL])),
        case("DATA with padding", [post(), frame(DATA, END_STREAM | PADDED, 1, &padded(2))].concat(), Answer),
        case(
            "DATA with more padding than there is",
            [post(), frame(DATA, END_STREAM | PADDED, 1, &padded(6))].concat(),
            Connection(&[PROTOCOL]),
        ),
        case(
            "HEADERS with padding",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[&[2][..], &block(&GET), &[0, 0]].concat()),
            Answer,
        ),
        case(
            "HEADERS with more padding than there is",
            frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[&[0xff][..], &block(&GET)].concat()),
            Connection(&[PROTOCOL]),
        ),
        case(
            "HEADERS with a priority",
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | PRIORITIZED,
                1,
                &[&[0, 0, 0, 0, 16][..], &block(&GET)].concat(),
            ),
            Answer,
        ),
        case("HEADERS of stream 0", frames::get(0), Connection(&[PROTOCOL])),
        // 6.3, 6.4
        case("PRIORITY of an idle stream", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), Nothing),
        case("PRIORITY of stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 16]), Connection(&[PROTOCOL])),
        case(
            "PRIORITY of the wrong length",
            [post(), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            Stream(&[FRAME_SIZE]),
        ),
        case("RST_STREAM of stream 0", reset(0, 8), Connection(&[PROTOCOL])),
        case(
            "RST_STREAM of the wrong length",
            [post(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            Connection(&[FRAME_SIZE]),
        ),
        case("RST_STREAM of a code that nobody knows", [post(), reset(1, 0xff)].concat(), Nothing),
        // 6.6, 8.4
        case(
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&GET)].concat()),
            Connection(&[PROTOCOL]),
        ),
        // 6.7, 6.8
        case("PING that is an answer", frame(PING, 1, 0, b"whatever"), Nothing),
        case("PING of a stream", frame(PING, 0, 1, b"whatever"), Connection(&[PROTOCOL])),
        case("GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(&[PROTOCOL])),
    ]
}

fn settings_and_windows() -> Vec<Case> {
    vec![
        // 6.5
        case(
            "SETTINGS that are an answer and say something",
            frame(SETTINGS, 1, 0, &[0; 6]),
            Connection(&[FRAME_SIZE]),
        ),
        case("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]), Connection(&[PROTOCOL])),
        case("SETTINGS of the wrong length", frame(SETTINGS, 0, 0, &[0; 3]), Connection(&[FRAME_SIZE])),
        case("SETTINGS: no push, and no refusal of it", settings(&[(2, 2)]), Connection(&[PROTOCOL])),
        case("SETTINGS: too large a window", settings(&[(4, 1 << 31)]), Connection(&[FLOW_CONTROL])),
        case("SETTINGS: too small frames", settings(&[(5, (1 << 14) - 1)]), Connection(&[PROTOCOL])),
        case("SETTINGS: too large frames", settings(&[(5, 1 << 24)]), Connection(&[PROTOCOL])),
        case("SETTINGS that nobody knows", settings(&[(0xff, 1)]), Nothing),
        case("SETTINGS of which the last counts", [settings(&[(4, 0), (4, 1000)]), get()].concat(), Answer),
        // 6.9
        case("WINDOW_UPDATE by 0", window_update(0, 0), Connection(&[PROTOCOL])),
        case("WINDOW_UPDATE of a stream by 0", [post(), window_update(1, 0)].concat(), Stream(&[PROTOCOL])),
        case(
            "WINDOW_UPDATE of the wrong length",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "too large a window",
            [window_update(0, i32::MAX as u32), window_update(0, i32::MAX as u32)].concat(),
            Connection(&[FLOW_CONTROL]),
        ),
        case(
            "too large a window of a stream",
            [post(), window_update(1, i32::MAX as u32), window_update(1, i32::MAX as u32)].concat(),
            Stream(&[FLOW_CONTROL]),
        ),
        case(
            "a window that opens in small steps",
            [settings(&[(4, 0)]), get(), window_update(1, 1), window_update(1, 1000)].concat(),
            Answer,
        ),
        case(
            "a window that is changed below zero",
            [settings(&[(4, 3)]), get(), settings(&[(4, 2)]), window_update(1, 1000)].concat(),
            Answer,
        ),
        case(
            "too large a window by SETTINGS",
            [post(), window_update(1, 1), settings(&[(4, i32::MAX as u32)])].concat(),
            Connection(&[FLOW_CONTROL]),
        ),
    ]
}

fn blocks_and_requests() -> Vec<Case> {
    let in_parts = |between: &[u8]| {
        let block = block(&GET);
        [
            frame(HEADERS, END_STREAM, 1, &block[..10]),
            frame(CONTINUATION, 0, 1, &block[10..20]),
            between.to_vec(),
            frame(CONTINUATION, END_HEADERS, 1, &block[20..]),
        ]
        .concat()
    };
    let body = |fields: &[(&str, &str)], body: &[u8]| {
        [head(1, 0, &[&POST, fields].concat()), body.to_vec()].concat()
    };
    let data = |flags, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let instead = |name: &str, value: Option<&str>| {
        let kept = GET.into_iter().filter(|(known, _)| *known != name);
        let fields: Vec<_> = kept.chain(value.map(|value| (name, value))).collect();
        head(1, END_STREAM, &fields)
    };
    vec![
        // 6.10
        case("a block in three frames", in_parts(b""), Answer),
        case("DATA within a block", in_parts(&data(0, b"x")), Connection(&[PROTOCOL])),
        case(
            "CONTINUATION of stream 0",
            [unfinished(1), frame(CONTINUATION, END_HEADERS, 0, b"")].concat(),
            Connection(&[PROTOCOL]),
        ),
        case(
            "CONTINUATION after a whole block",
            [post(), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            Connection(&[PROTOCOL]),
        ),
        case(
            "CONTINUATION after one that ended the block",
            [in_parts(b""), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            Connection(&[PROTOCOL]),
        ),
        case(
            "CONTINUATION after DATA",
            [post(), data(0, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            Connection(&[PROTOCOL]),
        ),
        // 8.1
        case(
            "HEADERS in the middle of a body",
            [post(), data(0, b"x"), head(1, 0, &[("x", "y")])].concat(),
            Stream(&[PROTOCOL]),
        ),
        case("an upper-case name", with(&[("X-TEST", "ok")]), Stream(&[PROTOCOL])),
        case("a pseudo-header field that nobody knows", with(&[(":test", "ok")]), Stream(&[PROTOCOL])),
        case("an answer's pseudo-header field", with(&[(":status", "200")]), Stream(&[PROTOCOL])),
        case(
            "a pseudo-header field among trailers",
            [post(), data(0, b"x"), head(1, END_STREAM, &[(":method", "x")])].concat(),
            Stream(&[PROTOCOL]),
        ),
        case(
            "a pseudo-header field of the table among trailers",
            [post(), data(0, b"x"), frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82")].concat(),
            Stream(&[PROTOCOL]),
        ),
        case(
            "a pseudo-header field after another",
            head(1, END_STREAM, &[("x", "y"), GET[0], GET[1], GET[2], GET[3]]),
            Stream(&[PROTOCOL]),
        ),
        case("a connection's field", with(&[("connection", "keep-alive")]), Stream(&[PROTOCOL])),
        case("TE", with(&[("te", "trailers, deflate")]), Stream(&[PROTOCOL])),
        case("an empty path", instead(":path", Some("")), Stream(&[PROTOCOL])),
        case("no method", instead(":method", None), Stream(&[PROTOCOL])),
        case("no scheme", instead(":scheme", None), Stream(&[PROTOCOL])),
        case("no path", instead(":path", None), Stream(&[PROTOCOL])),
        case("two methods", with(&[(":method", "GET")]), Stream(&[PROTOCOL])),
        case("two schemes", with(&[(":scheme", "https")]), Stream(&[PROTOCOL])),
        case("two paths", with(&[(":path", "/")]), Stream(&[PROTOCOL])),
        case(
            "a length that is not the body's",
            body(&[("content-length", "1")], &data(END_STREAM, b"test")),
            Stream(&[PROTOCOL]),
        ),
        case(
            "a length that is not the body's of two frames",
            body(&[("content-length", "1")], &[data(0, b"test"), data(END_STREAM, b"test")].concat()),
            Stream(&[PROTOCOL]),
        ),
        case(
            "trailers",
            body(&[], &[data(0, b"x"), head(1, END_STREAM, &[("x-sum", "1")])].concat()),
            Answer,
        ),
        // RFC 7541: 2.3.3, 4.2, 5.2, 6.1, 6.3
        case("an index of no field", with_block(b"\xc6"), Connection(&[COMPRESSION, PROTOCOL])),
        case("an index of no name", with_block(b"\x7f\x07\x01x"), Connection(&[COMPRESSION, PROTOCOL])),
        case("a table's size after fields", with_block(b"\x21"), Connection(&[COMPRESSION, PROTOCOL])),
        case(
            "a code padded by a byte",
            with_block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "a code padded by zeros",
            with_block(b"\x00\x85\xf2\xb2\x4a\x87\xff\x83\x49\x50\x90"),
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case(
            "a code's end within a string",
            with_block(b"\x00\x85\xf2\xb2\x4a\x87\xff\xff\xff\xff\x50"),
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
        case("index 0", with_block(b"\x80"), Connection(&[COMPRESSION, PROTOCOL])),
        case(
            "a table larger than is allowed",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[&b"\x3f\xe1\x7f"[..], &block(&GET)].concat()),
            Connection(&[COMPRESSION, PROTOCOL]),
        ),
    ]
}

#[tokio::test]
async fn frames_and_streams_are_taken_to_the_letter() {
    check(frames_and_streams()).await;
}

#[tokio::test]
async fn settings_and_windows_are_taken_to_the_letter() {
    check(settings_and_windows()).await;
}

#[tokio::test]
async fn blocks_and_requests_are_taken_to_the_letter() {
    check(blocks_and_requests()).await;
}

#[tokio::test]
async fn a_preface_that_is_none_ends_its_connection() {
    let (_app, homing) = start().await;
    for said in [&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
        let mut client = Frames::silent(homing.addr).await;
        client.send(&[said, &settings(&[])].concat()).await;
        client.goodbye().await;
    }
    let mut client = Frames::silent(homing.addr).await;
    client.send(&[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()).await;
    client.goodbye().await;
}

#[tokio::test]
async fn without_tls_http_2_is_spoken_by_prior_knowledge_where_the_profile_says_so() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).http("http2: {prior_knowledge: true}").start().await;
    let mut client = plain(&homing).await;
    client.greet(&[]).await;
    client.send(&get()).await;
    assert_eq!(client.fate(1).await, Fate::Answered(200));
    let mut http1 = client::Connection::open(homing.addr).await;
    for _ in 0..2 {
        assert_eq!(http1.ask(&Request::get("/")).await.status, 200);
    }
    let homing = Site::new(&[&app]).start().await;
    let mut client = plain(&homing).await;
    client.send(&[PREFACE, &settings(&[])].concat()).await;
    assert_eq!(client.goodbye().await, None, "it is no HTTP/2 connection");
}

async fn plain(homing: &Homing) -> Frames {
    Frames::over(TcpStream::connect(homing.addr).await.expect("homing listens"))
}

/// Enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(8);

/// Each on a connection of its own.
async fn check(cases: Vec<Case>) {
    let (_app, homing) = start().await;
    let mut wrong = Vec::new();
    for Case { what, said, then, expected } in cases {
        let mut client = Frames::open(homing.addr).await;
        client.send(&said).await;
        if !then.is_empty() {
            assert_eq!(client.fate(1).await, Fate::Answered(200), "{what}");
            client.send(&then).await;
        }
        if let Nothing = expected {
            client.send(&ping()).await;
            if client.next_of(PING).await.is_none() {
                wrong.push(format!("{what}: closed"));
            }
            continue;
        }
        let fate = timeout(PATIENCE, client.end(matches!(expected, Answer))).await;
        let right = match (&expected, &fate) {
            // The library says that there is an error, where a code exists that says which.
            (Connection(codes) | Stream(codes), Ok(Fate::GoneAway(code))) => {
                *code == PROTOCOL || codes.contains(code)
            }
            (Connection(_) | Stream(_), Ok(Fate::Closed)) => true,
            (Stream(codes), Ok(Fate::Reset(code))) => codes.contains(code),
            (Answer, Ok(Fate::Answered(200))) => true,
            _ => false,
        };
        if !right {
            wrong.push(format!("{what}: {fate:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn start() -> (Origin, Homing) {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).tls(&cert_for(&["a.com"])).start().await;
    (app, homing)
}
