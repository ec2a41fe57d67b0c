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
