//! Finds where a clone member's answers end, and looks at nothing else of them (RFC 9112 section 6.3).
//!
//! Bodies are passed over in place. Of a head, only a part that a read cut off is kept until the rest comes.

use std::mem::MaybeUninit;

/// The framing of the answers on one connection.
#[derive(Default)]
pub(super) struct Framer {
    state: State,
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    answer: Answer,
}

/// An answer that is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    /// The connection ends with it.
    pub closes: bool,
}

/// What came is no answer of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHttp;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// Bytes left.
    Body(u64),
    Chunked(Chunk),
    UntilClose,
}

/// Where in a chunked body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd,
    DataLf,
    TrailerStart,
    TrailerLine,
    LastLf,
}

impl Framer {
    /// Reads from `input`, moving it on, until an answer is complete; `None`: it goes on beyond `input`.
    /// `to_head_request`: the answer has no body.
    pub fn next(&mut self, input: &mut &[u8], to_head_request: bool) -> Result<Option<Answer>, NotHttp> {
        while !input.is_empty() {
            let complete = match self.state {
                State::Head => self.head(input, to_head_request)?,
                State::Body(left) => {
                    let left = left - skip(input, left);
                    self.state = State::Body(left);
                    left == 0
                }
                State::Chunked(chunk) => match chunk.step(input)? {
                    Some(chunk) => {
                        self.state = State::Chunked(chunk);
                        false
                    }
                    None => true,
                },
                State::UntilClose => {
                    *input = &[];
                    false
                }
            };
            if complete {
                self.state = State::Head;
                return Ok(Some(self.answer));
            }
        }
        Ok(None)
    }

    /// The answer that the end of the connection completes, if there is one.
    pub fn close(&self) -> Option<Answer> {
        (self.state == State::UntilClose).then_some(self.answer)
    }

    /// Reads a head, or a part of one; whether the answer is complete with it.
    fn head(&mut self, input: &mut &[u8], to_head_request: bool) -> Result<bool, NotHttp> {
        if !self.head.is_empty() {
            let kept = self.head.len();
            self.head.extend_from_slice(&input[..input.len().min(MAX_HEAD + 1 - kept)]);
            let Some(end) = end_of_head(&self.head, kept) else {
                *input = &[];
                return if self.head.len() > MAX_HEAD { Err(NotHttp) } else { Ok(false) };
            };
            *input = &input[end - kept..];
            let head = std::mem::take(&mut self.head);
            return match parse(&head[..end], to_head_request)? {
                Some((_, head)) => Ok(self.begin(head)),
                None => Err(NotHttp),
            };
        }
        if matches!(input[0], b'\r' | b'\n') {
            *input = &input[1..];
            return Ok(false);
        }
        match parse(input, to_head_request)? {
            Some((length, head)) => {
                *input = &input[length..];
                Ok(self.begin(head))
            }
            None => {
                self.head.extend_from_slice(input);
                *input = &[];
                if self.head.len() > MAX_HEAD { Err(NotHttp) } else { Ok(false) }
            }
        }
    }

    /// Goes on behind a head; whether the answer is complete with it.
    fn begin(&mut self, head: Head) -> bool {
        let Head { answer, body } = head;
        self.answer = answer;
        self.state = body;
        body == State::Body(0)
    }
}

struct Head {
    answer: Answer,
    body: State,
}

/// Parses a head; `None`: its end has not come.
fn parse(input: &[u8], to_head_request: bool) -> Result<Option<(usize, Head)>, NotHttp> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, input, &mut fields)
        .map_err(|_| NotHttp)?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let (Some(status), Some(version)) = (response.code, response.version) else { return Err(NotHttp) };
    if status == 101 || status < 100 {
        return Err(NotHttp);
    }
    let mut content_length = None;
    let mut chunked = None;
    let (mut closes, mut keeps) = (false, false);
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = number(field.value).ok_or(NotHttp)?;
            if content_length.replace(length).is_some_and(|before| before != length) {
                return Err(NotHttp);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = Some(last_option(field.value).eq_ignore_ascii_case(b"chunked"));
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                closes |= option.eq_ignore_ascii_case(b"close");
                keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }
    let body = match (chunked, content_length) {
        // An interim answer: the one that counts follows.
        _ if status < 200 => State::Head,
        _ if to_head_request || status == 204 || status == 304 => State::Body(0),
        (Some(true), _) => State::Chunked(Chunk::START),
        (None, Some(length)) => State::Body(length),
        (Some(false), _) | (None, None) => State::UntilClose,
    };
    let closes = closes || (version == 0 && !keeps) || body == State::UntilClose;
    Ok(Some((length, Head { answer: Answer { status, closes }, body })))
}

impl Chunk {
    const START: Self = Chunk::Size { size: 0, digits: 0 };

    /// Goes on by at least one byte of `input`; `None`: the body is complete.
    fn step(self, input: &mut &[u8]) -> Result<Option<Self>, NotHttp> {
        if let Chunk::Data { left } = self {
            let left = left - skip(input, left);
            return Ok(Some(if left == 0 { Chunk::DataEnd } else { Chunk::Data { left } }));
        }
        let byte = input[0];
        *input = &input[1..];
        let data = |size| if size == 0 { Chunk::TrailerStart } else { Chunk::Data { left: size } };
        let next = match (self, byte) {
            (Chunk::Size { size, digits: digits @ 0..16 }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).expect("a hex digit is one");
                Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Size { digits: 0, .. }, _) => return Err(NotHttp),
            (Chunk::Size { size, .. }, b';' | b' ' | b'\t') => Chunk::Extension { size },
            (Chunk::Size { size, .. } | Chunk::Extension { size }, b'\r') => Chunk::SizeEnd { size },
            (Chunk::Size { size, .. } | Chunk::Extension { size } | Chunk::SizeEnd { size }, b'\n') => {
                data(size)
            }
            (Chunk::Extension { size }, _) => Chunk::Extension { size },
            (Chunk::DataEnd, b'\r') => Chunk::DataLf,
            (Chunk::DataEnd | Chunk::DataLf, b'\n') => Chunk::START,
            (Chunk::TrailerStart, b'\r') => Chunk::LastLf,
            (Chunk::TrailerStart | Chunk::LastLf, b'\n') => return Ok(None),
            (Chunk::TrailerLine, b'\n') => Chunk::TrailerStart,
            (Chunk::TrailerStart | Chunk::TrailerLine, _) => Chunk::TrailerLine,
            _ => return Err(NotHttp),
        };
        Ok(Some(next))
    }
}

/// Passes over up to `left` bytes; how many.
fn skip(input: &mut &[u8], left: u64) -> u64 {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    *input = &input[here..];
    here as u64
}

/// Where a head ends, if the end came after the first `seen` bytes.
fn end_of_head(head: &[u8], seen: usize) -> Option<usize> {
    let line_ends = (seen..head.len()).filter(|at| head[*at] == b'\n');
    line_ends.map(|at| (at, &head[..at])).find_map(|(at, before)| match before {
        [.., b'\n'] | [.., b'\n', b'\r'] => Some(at + 1),
        _ => None,
    })
}

fn last_option(value: &[u8]) -> &[u8] {
    value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii()
}

/// A `Content-Length`: digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(value).ok()?.parse().ok()).flatten()
}

const MAX_HEAD: usize = 64 * 1024;

const MAX_FIELDS: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The statuses of the answers in `input`, given in pieces that end at `cuts`; HEAD was asked by `heads`.
    fn read(input: &[u8], cuts: &[usize], heads: &[bool]) -> Result<(Vec<Answer>, Option<Answer>), NotHttp> {
        let mut framer = Framer::default();
        let mut answers = Vec::new();
        let mut begin = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            let mut piece = &input[begin..end];
            begin = end;
            while !piece.is_empty() {
                let head = heads.get(answers.len()).copied().unwrap_or(false);
                answers.extend(framer.next(&mut piece, head)?);
            }
        }
        Ok((answers, framer.close()))
    }

    fn statuses(input: &str) -> Result<Vec<u16>, NotHttp> {
        Ok(read(input.as_bytes(), &[], &[])?.0.into_iter().map(|answer| answer.status).collect())
    }

    const EVERY_FRAMING: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 201 Created\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n\
        a;x=y\r\n0123456789\r\n1 \r\nz\r\n0\r\nTrailer: x\r\n\r\n\
        HTTP/1.1 304 Not Modified\r\nContent-Length: 900\r\n\r\n\
        HTTP/1.1 404 Not Found\nContent-Length: 0\n\n\
        \r\nHTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n\
        HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";

    #[test]
    fn answers_end_where_their_framing_says() {
        assert_eq!(statuses(EVERY_FRAMING), Ok(vec![200, 204, 201, 304, 404, 500, 202]));
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let input =
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx";
        let (answers, _) = read(input, &[], &[true, false]).expect("HTTP");
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 201]);
    }

    #[test]
    fn an_answer_says_whether_the_connection_ends() {
        for (head, closes) in [
            ("HTTP/1.1 204 N\r\n\r\n", false),
            ("HTTP/1.1 204 N\r\nConnection: x, Close\r\n\r\n", true),
            ("HTTP/1.0 204 N\r\n\r\n", true),
            ("HTTP/1.0 204 N\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            let (answers, at_close) = read(head.as_bytes(), &[], &[]).expect("HTTP");
            assert_eq!(answers, [Answer { status: 204, closes }], "{head}");
            assert_eq!(at_close, None);
        }
        let (answers, at_close) = read(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", &[], &[]).expect("HTTP");
        assert_eq!((answers, at_close), (vec![], Some(Answer { status: 200, closes: true })));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for garbage in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert_eq!(statuses(garbage), Err(NotHttp), "{garbage}");
        }
    }

    #[test]
    fn a_head_of_64_kib_is_read_and_an_endless_one_is_not() {
        let long =
            |length| format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(length));
        let in_pieces = |text: String| {
            let cuts: Vec<_> = (1..text.len() / 1000).map(|n| n * 1000).collect();
            read(text.as_bytes(), &cuts, &[]).map(|(answers, _)| answers.len())
        };
        assert_eq!(in_pieces(long(65_000)), Ok(1));
        assert_eq!(in_pieces(long(70_000)), Err(NotHttp));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_reads_are_cut(mut cuts in prop::collection::vec(0..600_usize, 0..40)) {
            let input = EVERY_FRAMING;
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(input.len()));
            cuts.sort_unstable();
            prop_assert_eq!(read(input.as_bytes(), &cuts, &[]), read(input.as_bytes(), &[], &[]));
        }

        #[test]
        fn nothing_makes_it_panic(input in any::<Vec<u8>>(), head in any::<bool>()) {
            let _ = read(&input, &[], &[head]);
            let _ = read(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &*input].concat(), &[], &[]);
            let _ = read(&[b"HTTP/1.1 200 OK\r\n", &*input, b"\r\n\r\n"].concat(), &[], &[]);
        }
    }
}
