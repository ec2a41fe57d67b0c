//! Request heads that are refused before anybody has parsed them: those that are too large, those that take too long,
//! and what is no head from its first byte on. The client is told which, and its connection is closed.
//!
//! Pingora knows a limit of 1 MiB and answers 400 to it; a head that is late it only cuts.

use std::time::{Duration, SystemTime};

use crate::config::HeadLimits;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadRefusal {
    /// Not HTTP: a TLS handshake, for one.
    Malformed,
    /// Not whole in time.
    Late,
    UriTooLong,
    /// A field, their number, or all of it.
    TooLarge,
}

impl HeadRefusal {
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Late => 408,
            Self::UriTooLong => 414,
            Self::TooLarge => 431,
        }
    }

    /// The whole answer.
    pub(super) fn answer(self, now: SystemTime) -> Vec<u8> {
        let status = match self {
            Self::Malformed => "400 Bad Request",
            Self::Late => "408 Request Timeout",
            Self::UriTooLong => "414 URI Too Long",
            Self::TooLarge => "431 Request Header Fields Too Large",
        };
        format!(
            "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{status}\n",
            httpdate::fmt_http_date(now),
            status.len() + 1,
        )
        .into_bytes()
    }
}

/// A head that was refused, as far as it was read.
#[derive(Clone, Copy, Debug)]
pub struct RefusedHead<'a> {
    pub refusal: HeadRefusal,
    pub bytes: &'a [u8],
    /// How long it was waited for.
    pub took: Duration,
}

/// The lines of a head, measured while they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Bytes so far of the line that is being read.
    line: usize,
    first: usize,
    /// The longest after the first.
    longest: usize,
    /// Lines that are over.
    lines: usize,
}

impl Measure {
    pub fn line_begins(&mut self) {
        self.line = 1;
    }

    pub fn line_goes_on(&mut self, bytes: usize) {
        self.line += bytes;
    }

    pub fn line_ends(&mut self) {
        match self.lines {
            0 => self.first = self.line,
            _ => self.longest = self.longest.max(self.line),
        }
        self.line = 0;
        self.lines += 1;
    }

    /// What is too much about a head, of which these bytes are there.
    pub fn excess(&self, head: &[u8], limits: &HeadLimits) -> Option<HeadRefusal> {
        let in_first = self.lines == 0;
        let first = if in_first { self.line } else { self.first };
        // Only a first line that is longer than its target may be has its target looked at.
        if first > limits.client_max_uri_size && target_length(head) > limits.client_max_uri_size {
            return Some(HeadRefusal::UriTooLong);
        }
        let longest = if in_first { 0 } else { self.longest.max(self.line) };
        let fields = (self.lines + usize::from(self.line > 0)).saturating_sub(1);
        let too_large = longest > limits.client_max_header_size
            || fields > limits.max_header_count
            || head.len() > limits.client_max_request_size;
        too_large.then_some(HeadRefusal::TooLarge)
    }
}

/// How long the target is of a head whose first line may be cut.
fn target_length(head: &[u8]) -> usize {
    let line = head.trim_ascii_start();
    let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
    let Some(begin) = memchr::memchr(b' ', line) else { return 0 };
    let rest = &line[begin + 1..];
    memchr::memrchr(b' ', rest).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::framing::Check;

    const LIMITS: HeadLimits = HeadLimits {
        client_max_uri_size: 20,
        client_max_header_size: 24,
        max_header_count: 3,
        client_max_request_size: 90,
    };

    /// What is too much about a head that comes in two pieces.
    fn excess(head: &str, cut: usize) -> Option<HeadRefusal> {
        let mut check = Check::default();
        let read = check.read(&head.as_bytes()[..cut]);
        assert_eq!(read, cut);
        let early = check.measure.excess(&head.as_bytes()[..cut], &LIMITS);
        early.or_else(|| {
            let read = cut + check.read(&head.as_bytes()[cut..]);
            check.measure.excess(&head.as_bytes()[..read], &LIMITS)
        })
    }

    #[test]
    fn every_part_of_a_head_is_bounded_however_it_is_cut() {
        let uri = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(length - 1));
        let field = |length: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "v".repeat(length - 5));
        let fields = |n| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
        let whole =
            |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", format!("{}\r\n", "f".repeat(n - 2)).repeat(3));
        for (head, expected) in [
            (uri(20), None),
            (uri(21), Some(HeadRefusal::UriTooLong)),
            (format!("\r\n{}", uri(20)), None),
            (format!("\r\n{}", uri(21)), Some(HeadRefusal::UriTooLong)),
            (format!("GET /{}", "u".repeat(20)), Some(HeadRefusal::UriTooLong)),
            (format!("METHODOFMORETHANTWENTYBYTES /{} HTTP/1.1\r\n\r\n", "u".repeat(18)), None),
            (field(24), None),
            (field(25), Some(HeadRefusal::TooLarge)),
            (format!("GET / HTTP/1.1\r\nX: {}", "v".repeat(22)), Some(HeadRefusal::TooLarge)),
            (fields(3), None),
            (fields(4), Some(HeadRefusal::TooLarge)),
            (whole(24), None),
            (format!("\r\n{}", whole(24)), Some(HeadRefusal::TooLarge)),
            ("\r\n".repeat(46), Some(HeadRefusal::TooLarge)),
        ] {
            for cut in 0..=head.len() {
                assert_eq!(excess(&head, cut), expected, "{head:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let answer = HeadRefusal::TooLarge.answer(SystemTime::UNIX_EPOCH);
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("\r\nConnection: close"), "{head}");
    }
}
