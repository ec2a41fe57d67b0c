//! The framing of an HTTP/1 request, checked byte by byte as it is read (RFC 9112, sections 2.2 and 7.1).
//!
//! Pingora parses chunks with leniency that lets a proxy and a server disagree about where a request ends: it takes
//! an empty chunk-size line for the last chunk. [`Check`] reads the same bytes strictly. It finds the end of the
//! head, then follows the body *as if it were chunked* without looking at any header; who knows from Pingora that
//! it is chunked asks for the verdict. So there is no second opinion on which framing a request has.
//!
//! Of the head it keeps the length, and whether every line ends in CR LF: Pingora takes a bare LF for an end too, and
//! mends some request lines, which then have another length.
//!
//! It allocates nothing. The chunks themselves are read by [`Chunks`].

use super::head::Measure;
use crate::message::Chunks;

/// A verdict on a body's chunk framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Well formed so far, the end is still to come.
    Unfinished,
    /// Well formed to its end.
    Fine,
    /// Not what RFC 9112 allows: the request is to be refused with 400.
    Bad,
}

impl Framing {
    pub(super) fn word(self) -> u8 {
        self as u8
    }

    pub(super) fn from_word(word: u8) -> Self {
        [Self::Unfinished, Self::Fine, Self::Bad][usize::from(word)]
    }
}

/// Follows one request from the first byte of its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Check {
    state: State,
    /// Bytes of the head so far.
    head: u32,
    /// The last byte of the head so far is a CR.
    after_cr: bool,
    /// A line of the head ended without CR.
    bare_lf: bool,
    /// The lines of the head.
    pub measure: Measure,
    chunks: Chunks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the request line: empty lines are skipped.
    #[default]
    Start,
    StartCr,
    /// In a line of the head that has something in it.
    HeadLine,
    /// At the start of a line of the head: an empty one ends it.
    HeadLineStart,
    HeadLineStartCr,
    Body,
}

impl Check {
    pub fn verdict(&self) -> Framing {
        match (self.chunks.are_whole(), self.chunks.are_bad()) {
            (true, _) => Framing::Fine,
            (_, true) => Framing::Bad,
            _ => Framing::Unfinished,
        }
    }

    /// The length of the head, once it is over, if all its lines end in CR LF.
    pub fn head_length(&self) -> Option<u32> {
        (!self.in_head() && !self.bare_lf).then_some(self.head)
    }

    /// Reads on. Returns how many of the bytes belong to what is being read: it stops after the head, and after a
    /// well-formed body, so that nobody is handed bytes of the next request with the end of this one.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let in_head = self.in_head();
        let taken = self.advance(bytes);
        if in_head {
            self.head = self.head.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
            self.after_cr = taken > 0 && bytes[taken - 1] == b'\r';
        }
        taken
    }

    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.state {
                State::Body => return self.read_chunks(bytes),
                State::HeadLine => self.skip_line(bytes, at),
                _ => {
                    self.step(bytes[at]);
                    match self.state {
                        State::Body => return at + 1,
                        State::HeadLine => self.measure.line_begins(),
                        _ => {}
                    }
                    1
                }
            };
        }
        at
    }

    /// What is not chunked, or not well, is handed out as it comes.
    fn read_chunks(&mut self, bytes: &[u8]) -> usize {
        match self.verdict() {
            Framing::Fine | Framing::Bad => bytes.len(),
            Framing::Unfinished => {
                let taken = self.chunks.read(bytes);
                if self.chunks.are_bad() { bytes.len() } else { taken }
            }
        }
    }

    /// Nothing of the head has come but empty lines.
    pub fn is_before_head(&self) -> bool {
        matches!(self.state, State::Start | State::StartCr)
    }

    /// The head is not over yet.
    pub fn in_head(&self) -> bool {
        self.state != State::Body
    }

    fn skip_line(&mut self, bytes: &[u8], from: usize) -> usize {
        match memchr::memchr(b'\n', &bytes[from..]) {
            Some(end) => {
                let before = (from + end).checked_sub(1);
                self.bare_lf |= !before.map_or(self.after_cr, |before| bytes[before] == b'\r');
                self.state = State::HeadLineStart;
                self.measure.line_goes_on(end + 1);
                self.measure.line_ends();
                end + 1
            }
            None => {
                self.measure.line_goes_on(bytes.len() - from);
                bytes.len() - from
            }
        }
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Start | State::StartCr, b'\r') => State::StartCr,
            (State::Start | State::StartCr, b'\n') => self.line_end(State::StartCr, State::Start),
            (State::HeadLineStart, b'\r') => State::HeadLineStartCr,
            (State::HeadLineStart | State::HeadLineStartCr, b'\n') => {
                self.line_end(State::HeadLineStartCr, State::Body)
            }
            _ => State::HeadLine,
        };
    }

    /// An empty line of the head ends, well if it began with a CR.
    fn line_end(&mut self, after_cr: State, next: State) -> State {
        self.bare_lf |= self.state != after_cr;
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn reading_stops_after_the_head_and_after_the_body() {
        for head in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\nGET / HTTP/1.1\nHost: a\n\n"] {
            let mut check = Check::default();
            assert_eq!(check.read(format!("{head}GET /next").as_bytes()), head.len(), "{head:?}");
        }
        let mut check = Check::default();
        check.read(HEAD);
        assert_eq!(check.read(b"1\r\nx\r\n0\r\n\r\nGET /next"), 11);
        assert_eq!(check.verdict(), Framing::Fine);
    }

    #[test]
    fn a_head_has_a_length_when_all_its_lines_end_in_cr_lf() {
        for (head, well) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", false),
        ] {
            for cut in 0..head.len() {
                let mut check = Check::default();
                for part in [&head[..cut], &head[cut..]] {
                    assert_eq!(check.read(part.as_bytes()), part.len());
                }
                let length = well.then_some(head.len() as u32);
                assert_eq!(check.head_length(), length, "{head:?} cut at {cut}");
            }
            let mut unfinished = Check::default();
            unfinished.read(&head.as_bytes()[..head.len() - 1]);
            assert_eq!(unfinished.head_length(), None);
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict(
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                proptest::collection::vec(prop::sample::select(b"0 5a;=\"\r\n\\x:".to_vec()), 0..60),
            ],
            cuts in proptest::collection::vec(0usize..260, 0..8),
        ) {
            let bytes = [HEAD, &body].concat();
            let read = |mut check: Check, mut bytes: &[u8]| {
                while !bytes.is_empty() {
                    let taken = check.read(bytes);
                    assert!(taken > 0 && taken <= bytes.len());
                    bytes = &bytes[taken..];
                }
                check
            };
            let whole = read(Check::default(), &bytes);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut split, mut from) = (Check::default(), 0);
            for to in cuts {
                split = read(split, &bytes[from..to]);
                from = to;
            }
            prop_assert_eq!(split.verdict(), whole.verdict());
        }
    }
}
