use proptest::prelude::*;

use super::{Answers, Fault, Request};

/// What becomes of bytes that follow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// An answer is under way, or ends with the connection.
    Open,
    Over,
    Bad(Fault),
}

use Fate::{Bad, Open, Over};

fn follow(request: Request, pieces: &[&[u8]]) -> (usize, Fate) {
    let mut answers = Answers::default();
    answers.asked(request);
    let good = pieces.iter().map(|piece| answers.read(piece)).sum();
    let fate = match answers.fault() {
        Some(fault) => Bad(fault),
        None if answers.are_over() => Over,
        None => Open,
    };
    (good, fate)
}

/// The answer's good bytes, its others, and its fate.
const ANSWERS: &[(&str, &str, Fate)] = &[
    ("", "", Open),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", Over),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "H", Bad(Fault::Unasked)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "", Open),
    ("HTTP/1.1 200 OK\r\ncontent-LENGTH:\t 2 \t\r\n\r\nok", "", Over),
    ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "", Over),
    ("HTTP/1.1 200 OK\r\n\r\nall that comes", "", Open),
    ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", Over),
    ("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "", Over),
    ("HTTP/1.1 200 Gr\u{fc}n\tX\r\nContent-Length: 0\r\nX: \u{e4}\r\nY:\r\n\r\n", "", Over),
    ("HTTP/1.1 204 None\r\n\r\n", "X", Bad(Fault::Unasked)),
    ("HTTP/1.1 304 None\r\nContent-Length: 4\r\n\r\n", "evil", Bad(Fault::Unasked)),
    ("HTTP/1.1 304 None\r\nTransfer-Encoding: chunked\r\n\r\n", "", Over),
    ("HTTP/1.1 100 On\r\n\r\nHTTP/1.1 103 Hint\r\nLink: a\r\n\r\nHTTP/1.1 204 X\r\n\r\n", "", Over),
    ("HTTP/1.1 100 On\r\n\r\n", "\r\nHTTP/1.1 204 X\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\n\r\n\0\r\n\n", "", Open),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked \r\n\r\n2;a\r\nok\r\n0\r\nX: y\r\n\r\n", "", Over),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "\r\n", Bad(Fault::Chunks)),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "0", Bad(Fault::Unasked)),
    // Status lines.
    ("HTTP/1.1 20", " OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.1 200", "0 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.1 ", " 200 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.1 ", "600 Odd\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.1 ", "099 Odd\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.", "2 200 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/1.1", "\t200 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("HTTP/", "2.0 200 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("", "http/1.1 200 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("", "\r\nHTTP/1.1 200 OK\r\n\r\n", Bad(Fault::StatusLine)),
    ("", "ok, says HTTP/0.9", Bad(Fault::StatusLine)),
    // Lines.
    ("HTTP/1.1 200 OK", "\n\r\n", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200", "\n\r\n", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 OK\r", "X: a\r\n\r\n", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 OK\r\nX: a", "\nY: b\r\n\r\n", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 OK\r\nX: a\r", "Y: b\r\n\r\n", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2", "\n\r\nok", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 OK\r\nX: a\r\n", "\nbody", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 OK\r\nX: a\r\n\r", "body", Bad(Fault::LineEnd)),
    ("HTTP/1.1 200 O", "\0K\r\n\r\n", Bad(Fault::Control)),
    ("HTTP/1.1 200 OK\r\nX: a", "\0b\r\n\r\n", Bad(Fault::Control)),
    ("HTTP/1.1 200 OK\r\nX: a", "\x7f\r\n\r\n", Bad(Fault::Control)),
    ("HTTP/1.1 200 OK\r\nX: a\r\n", " folded\r\n\r\n", Bad(Fault::Folded)),
    ("HTTP/1.1 200 OK\r\n", "\tfolded\r\n\r\n", Bad(Fault::Folded)),
    // Names.
    ("HTTP/1.1 200 OK\r\nno", " colon\r\n\r\n", Bad(Fault::FieldName)),
    ("HTTP/1.1 200 OK\r\nnocolon", "\r\n\r\n", Bad(Fault::FieldName)),
    ("HTTP/1.1 200 OK\r\n", ": no name\r\n\r\n", Bad(Fault::FieldName)),
    ("HTTP/1.1 200 OK\r\nContent-Length", " : 2\r\n\r\nok", Bad(Fault::FieldName)),
    ("HTTP/1.1 200 OK\r\nX\u{7e}", "\u{e4}: 2\r\n\r\nok", Bad(Fault::FieldName)),
    // Lengths.
    ("HTTP/1.1 200 OK\r\nContent-Length: ", "+2\r\n\r\nok", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: ", "-2\r\n\r\nok", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1", ",1\r\n\r\nok", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1 ", "1\r\n\r\nok", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: ", "two\r\n\r\nok", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: ", "\r\n\r\n", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", "", Open),
    ("HTTP/1.1 200 OK\r\nContent-Length: 1844674407370955161", "6\r\n\r\n", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999", "9\r\n\r\n", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length", ": 2\r\n\r\nok", Bad(Fault::Length)),
    ("HTTP/1.1 200 OK\r\nContent-Lengths: 2\r\nXContent-Length: 1\r\nContent: 1\r\n\r\n??", "", Open),
    // Codings.
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: ", "xchunked\r\n\r\n", Bad(Fault::Coding)),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "x\r\n\r\n", Bad(Fault::Coding)),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunke", "\r\n\r\n", Bad(Fault::Coding)),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: ", "identity\r\n\r\n", Bad(Fault::Coding)),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", ", identity\r\n\r\n", Bad(Fault::Coding)),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: ", "gzip, chunked\r\n\r\n", Bad(Fault::Coding)),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding",
        ": chunked\r\n\r\n",
        Bad(Fault::Coding),
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding", ": chunked\r\n\r\n0\r\n\r\n", Bad(Fault::Coding)),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding",
        ": chunked\r\n\r\n",
        Bad(Fault::TwoFramings),
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length",
        ": 2\r\n\r\n",
        Bad(Fault::TwoFramings),
    ),
];

#[test]
fn answers_are_judged_as_the_rfc_has_it_however_they_come() {
    for (good, others, fate) in ANSWERS {
        let all = [good.as_bytes(), others.as_bytes()].concat();
        assert_eq!(follow(Request::Other, &[&all]), (good.len(), *fate), "{good:?} {others:?}");
        for cut in 0..all.len() {
            let (one, two) = all.split_at(cut);
            assert_eq!(follow(Request::Other, &[one, two]), (good.len(), *fate), "{good:?} cut at {cut}");
        }
        let bytes: Vec<_> = all.chunks(1).collect();
        assert_eq!(follow(Request::Other, &bytes), (good.len(), *fate), "{good:?} byte by byte");
    }
}

#[test]
fn the_answer_to_head_is_a_head() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 100 On\r\n\r\nHTTP/1.1 404 None\r\n\r\n",
    ] {
        assert_eq!(follow(Request::Head, &[head.as_bytes()]), (head.len(), Over), "{head:?}");
        assert_eq!(follow(Request::Head, &[head.as_bytes(), b"ok"]), (head.len(), Bad(Fault::Unasked)));
    }
}

#[test]
fn nothing_is_good_before_a_request_and_answers_follow_one_another() {
    let mut answers = Answers::default();
    for _ in 0..2 {
        assert!(answers.are_over());
        answers.asked(Request::Other);
        assert!(!answers.are_over());
        assert_eq!(answers.read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), 40);
    }
    assert_eq!((answers.read(b"HTTP"), answers.fault()), (0, Some(Fault::Unasked)));
    answers.asked(Request::Other);
    assert_eq!((answers.read(b"HTTP"), answers.fault()), (0, Some(Fault::Unasked)), "it is over for good");
}

#[test]
fn heads_are_bounded_and_so_are_interim_ones() {
    let head = |length| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(length));
    assert_eq!(follow(Request::Other, &[head(127 << 10).as_bytes()]).1, Open);
    let large = head(200 << 10);
    let expected = (128 << 10, Bad(Fault::HeadTooLarge));
    assert_eq!(follow(Request::Other, &[large.as_bytes()]), expected);
    assert_eq!(follow(Request::Other, &large.as_bytes().chunks(1000).collect::<Vec<_>>()), expected);
    let fields = format!("HTTP/1.1 103 Hint\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    assert_eq!(follow(Request::Other, &[fields.as_bytes()]), expected);
}

/// The RFC read line by line, of bytes that are all there.
fn model(bytes: &[u8]) -> Fate {
    let mut rest = bytes;
    loop {
        let mut lines = Vec::new();
        loop {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Open };
            let Some(line) = rest[..end].strip_suffix(b"\r") else { return Bad(Fault::LineEnd) };
            rest = &rest[end + 1..];
            if line.is_empty() && !lines.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status: u16 = match lines[0] {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', status @ ..]
                if status.len() >= 3 =>
            {
                let (digits, reason) = status.split_at(3);
                let good = digits.iter().all(u8::is_ascii_digit) && matches!(digits[0], b'1'..=b'5');
                match good && (reason.is_empty() || (reason[0] == b' ' && all_text(reason))) {
                    true => String::from_utf8_lossy(digits).parse().expect("three digits"),
                    false => return Bad(Fault::StatusLine),
                }
            }
            _ => return Bad(Fault::StatusLine),
        };
        let (mut lengths, mut codings) = (Vec::new(), Vec::new());
        for line in &lines[1..] {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return Bad(Fault::FieldName);
            };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() || !name.iter().all(|byte| super::is_token(*byte)) {
                return Bad(Fault::FieldName);
            }
            if !all_text(value) {
                return Bad(Fault::Control);
            }
            match name.to_ascii_lowercase().as_slice() {
                b"content-length" => lengths.push(value.trim_ascii()),
                b"transfer-encoding" => codings.push(value.trim_ascii()),
                _ => {}
            }
        }
        let number = |digits: &[u8]| match digits.iter().all(u8::is_ascii_digit) {
            true => String::from_utf8_lossy(digits).parse::<u64>().ok(),
            false => None,
        };
        let length = match (&lengths[..], &codings[..]) {
            ([], []) => None,
            ([length], []) => match number(length) {
                Some(length) => Some(length),
                None => return Bad(Fault::Length),
            },
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && lines[0][7] == b'1' => None,
            _ => return Bad(Fault::TwoFramings),
        };
        let body = match status {
            101 => return Open,
            100..200 => continue,
            204 | 304 => 0,
            _ if !codings.is_empty() => {
                let mut chunks = super::Chunks::default();
                let read = chunks.read(rest);
                match (chunks.are_whole(), chunks.are_bad()) {
                    (true, _) => read as u64,
                    (_, true) => return Bad(Fault::Chunks),
                    _ => return Open,
                }
            }
            _ => match length {
                Some(length) => length,
                None => return Open,
            },
        };
        return match (rest.len() as u64).cmp(&body) {
            std::cmp::Ordering::Less => Open,
            std::cmp::Ordering::Equal => Over,
            std::cmp::Ordering::Greater => Bad(Fault::Unasked),
        };
    }
}

fn all_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| super::is_text(*byte))
}

/// Answers made of pieces that fit, mostly.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200\r\n",
        "HTTP/1.1 100 On\r\n\r\n",
        "HTTP/1.1 204 X\r\n",
        "HTTP/1.1 304 X\r\n",
        "HTTP/1.1 101 X\r\n",
        "Content-Length: 2\r\n",
        "Content-Length:0 \r\n",
        "Transfer-Encoding: chunked\r\n",
        "X: y\r\n",
        "\r\n",
        "\r\n",
        "ok",
        "2\r\nok\r\n",
        "0\r\n\r\n",
        "\n",
        "\r",
        " ",
        ":",
        "\0",
        "5",
        "x",
        "Content-Length",
        ",",
    ]);
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat().into_bytes())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let well_begun = pieces().prop_map(|rest| [b"HTTP/1.1 200 OK\r\n", &rest[..]].concat());
    prop_oneof![well_begun, pieces(), proptest::collection::vec(any::<u8>(), 0..100)]
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_verdict(
        bytes in bytes(), head in any::<bool>(), cuts in proptest::collection::vec(0usize..200, 0..8),
    ) {
        let request = if head { Request::Head } else { Request::Other };
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(follow(request, &pieces), follow(request, &[&bytes]));
    }

    /// The model reads whole lines and tells faults apart less finely: what begins badly is bad, whatever is missing.
    #[test]
    fn the_plain_reading_of_the_rfc_agrees(bytes in bytes()) {
        let ours = follow(Request::Other, &[&bytes]).1;
        match model(&bytes) {
            Open => prop_assert!(matches!(ours, Open | Bad(_)), "{:?}", ours),
            Over => prop_assert_eq!(ours, Over),
            Bad(_) => prop_assert!(matches!(ours, Bad(_)), "{:?}", ours),
        }
        let (good, ours) = follow(Request::Other, &[&bytes]);
        if let Bad(_) = ours {
            let before = follow(Request::Other, &[&bytes[..good]]).1;
            prop_assert!(!matches!(before, Bad(_)), "what is good is good alone");
        }
    }
}
