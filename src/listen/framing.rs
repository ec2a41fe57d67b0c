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
//! It allocates nothing, looks at no chunk data, and bounds every line and section.

use super::head::Measure;

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
    /// Bytes of the present line or section, against its bound.
    length: u16,
    /// Bytes of the head so far.
    head: u32,
    /// The last byte of the head so far is a CR.
    after_cr: bool,
    /// A line of the head ended without CR.
    bare_lf: bool,
    /// The lines of the head.
    pub measure: Measure,
    /// The chunk's size while it is read, then what is left of its data.
    size: u64,
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
    /// Up to 16 hexadecimal digits.
    Size,
    /// After the size or an extension, in blanks that only a `;` may follow.
    BlankBeforeExtension,
    /// After `;`, in blanks before the name.
    BlankBeforeName,
    Name,
    /// After a name, in blanks that `=` or `;` may follow.
    BlankAfterName,
    /// After `=`, in blanks before the value.
    BlankBeforeValue,
    Value,
    Quoted,
    QuotedPair,
    /// After the closing quote.
    QuotedEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk: a trailer field or the end.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Fine,
    Bad,
}

impl Check {
    pub fn verdict(&self) -> Framing {
        match self.state {
            State::Fine => Framing::Fine,
            State::Bad => Framing::Bad,
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
                State::Fine | State::Bad => return bytes.len(),
                State::HeadLine => self.skip_line(bytes, at),
                State::Data => self.skip_data(&bytes[at..]),
                _ => {
                    let was_head = self.in_head();
                    self.step(bytes[at]);
                    if self.state == State::HeadLine {
                        self.measure.line_begins();
                    }
                    if was_head != self.in_head() || self.state == State::Fine {
                        return at + 1;
                    }
                    1
                }
            };
        }
        at
    }

    /// Nothing of the head has come but empty lines.
    pub fn is_before_head(&self) -> bool {
        matches!(self.state, State::Start | State::StartCr)
    }

    /// The head is not over yet.
    pub fn in_head(&self) -> bool {
        matches!(
            self.state,
            State::Start | State::StartCr | State::HeadLine | State::HeadLineStart | State::HeadLineStartCr
        )
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

    fn skip_data(&mut self, bytes: &[u8]) -> usize {
        let skipped = usize::try_from(self.size).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.size -= skipped as u64;
        if self.size == 0 {
            self.state = State::DataCr;
        }
        skipped
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Start | State::StartCr, b'\r') => State::StartCr,
            (State::Start | State::StartCr, b'\n') => self.line_end(State::StartCr, State::Start),
            (State::HeadLineStart, b'\r') => State::HeadLineStartCr,
            (State::HeadLineStart | State::HeadLineStartCr, b'\n') => {
                let next = self.chunk();
                self.line_end(State::HeadLineStartCr, next)
            }
            (State::Start | State::StartCr | State::HeadLineStart | State::HeadLineStartCr, _) => {
                State::HeadLine
            }

            (State::Size, _) if byte.is_ascii_hexdigit() && self.length < SIZE_DIGITS => self.digit(byte),
            (State::Size, _) if self.length > 0 => self.after_element(byte),
            (State::BlankBeforeExtension, _) => self.blank_or(byte, |byte| match byte {
                b';' => State::BlankBeforeName,
                _ => State::Bad,
            }),
            (State::BlankBeforeName, _) => self.blank_or(byte, |byte| match byte {
                _ if is_token(byte) => State::Name,
                _ => State::Bad,
            }),
            (State::Name, _) if is_token(byte) => self.extension(State::Name),
            (State::Name, b'=') => self.extension(State::BlankBeforeValue),
            (State::Name, b' ' | b'\t') => self.extension(State::BlankAfterName),
            (State::Name, _) => self.after_element(byte),
            (State::BlankAfterName, _) => self.blank_or(byte, |byte| match byte {
                b'=' => State::BlankBeforeValue,
                b';' => State::BlankBeforeName,
                _ => State::Bad,
            }),
            (State::BlankBeforeValue, _) => self.blank_or(byte, |byte| match byte {
                b'"' => State::Quoted,
                _ if is_token(byte) => State::Value,
                _ => State::Bad,
            }),
            (State::Value, _) if is_token(byte) => self.extension(State::Value),
            (State::Value | State::QuotedEnd, _) => self.after_element(byte),
            (State::Quoted, b'"') => self.extension(State::QuotedEnd),
            (State::Quoted, b'\\') => self.extension(State::QuotedPair),
            (State::Quoted | State::QuotedPair, _) if is_text(byte) => self.extension(State::Quoted),
            (State::SizeLf, b'\n') => self.data(),

            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.chunk(),

            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                self.trailer(State::TrailerName)
            }
            (State::TrailerName, b':') => self.trailer(State::TrailerValue),
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => self.trailer(State::TrailerValue),
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Fine,
            _ => State::Bad,
        };
    }

    /// An empty line of the head ends, well if it began with a CR.
    fn line_end(&mut self, after_cr: State, next: State) -> State {
        self.bare_lf |= self.state != after_cr;
        next
    }

    /// A chunk-size line begins.
    fn chunk(&mut self) -> State {
        self.length = 0;
        self.size = 0;
        State::Size
    }

    fn digit(&mut self, byte: u8) -> State {
        let digit = char::from(byte).to_digit(16).expect("the byte is a hexadecimal digit");
        self.size = self.size << 4 | u64::from(digit);
        self.length += 1;
        State::Size
    }

    /// What may follow the size, a name or a value. Blanks at the end of the line are not among it.
    fn after_element(&mut self, byte: u8) -> State {
        match byte {
            b'\r' => State::SizeLf,
            b';' => self.extension(State::BlankBeforeName),
            b' ' | b'\t' => self.extension(State::BlankBeforeExtension),
            _ => State::Bad,
        }
    }

    fn blank_or(&mut self, byte: u8, other: impl Fn(u8) -> State) -> State {
        let next = if matches!(byte, b' ' | b'\t') { self.state } else { other(byte) };
        self.extension(next)
    }

    fn extension(&mut self, next: State) -> State {
        self.bounded(LINE_LIMIT, next)
    }

    /// The size line is over: data, or the trailers after the last chunk.
    fn data(&mut self) -> State {
        self.length = 0;
        if self.size == 0 { State::TrailerStart } else { State::Data }
    }

    fn trailer(&mut self, next: State) -> State {
        self.bounded(TRAILERS_LIMIT, next)
    }

    fn bounded(&mut self, limit: u16, next: State) -> State {
        self.length += 1;
        if self.length > limit { State::Bad } else { next }
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value and a quoted string may hold: no controls but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// 64 bits.
const SIZE_DIGITS: u16 = 16;
/// Of a chunk-size line with its extensions.
const LINE_LIMIT: u16 = 1024;
/// Of all trailer fields.
const TRAILERS_LIMIT: u16 = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    fn check(body: &[u8]) -> Framing {
        let mut check = Check::default();
        assert_eq!(check.read(HEAD), HEAD.len());
        check.read(body);
        check.verdict()
    }

    #[test]
    fn bodies_are_judged_as_the_rfc_has_it() {
        for (body, verdict) in [
            ("0\r\n\r\n", Framing::Fine),
            ("000\r\n\r\n", Framing::Fine),
            ("5\r\nhello\r\n0\r\n\r\n", Framing::Fine),
            ("5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n", Framing::Fine),
            ("A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", Framing::Fine),
            ("5;a=b\r\nhello\r\n0\r\n\r\n", Framing::Fine),
            ("5;a\r\nhello\r\n0;z\r\n\r\n", Framing::Fine),
            ("5 ; a = \"b;\\\"\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("5 ; a = \"b;\\\"\" ;c=d\r\nhello\r\n0\r\n\r\n", Framing::Fine),
            ("0\r\nX-Sum: 1\r\nY:\r\n\r\n", Framing::Fine),
            ("0000000000000000\r\n\r\n", Framing::Fine),
            ("", Framing::Unfinished),
            ("5", Framing::Unfinished),
            ("5\r\nhel", Framing::Unfinished),
            ("5\r\nhello\r\n", Framing::Unfinished),
            ("0\r\n", Framing::Unfinished),
            ("0\r\n\r", Framing::Unfinished),
            ("ffffffffffffffff\r\nx", Framing::Unfinished),
            ("\r\n\r\n", Framing::Bad),
            ("5\r\nhello\r\n\r\n", Framing::Bad),
            (";a=b\r\n\r\n", Framing::Bad),
            (" \r\n\r\n", Framing::Bad),
            ("\n\n", Framing::Bad),
            ("5\nhello\n0\n\n", Framing::Bad),
            ("5\r\nhello\n0\r\n\r\n", Framing::Bad),
            ("5\r\nhello0\r\n\r\n", Framing::Bad),
            ("5\r\nhell\r\n0\r\n\r\n", Framing::Bad),
            ("5 \r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("5;\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("5;a=\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("5;a=b c\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("5;a\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("5\rhello\r\n0\r\n\r\n", Framing::Bad),
            ("0x5\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("+5\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("-1\r\n\r\n", Framing::Bad),
            ("00000000000000005\r\nhello\r\n0\r\n\r\n", Framing::Bad),
            ("0\r\n folded\r\n\r\n", Framing::Bad),
            ("0\r\nno colon\r\n\r\n", Framing::Bad),
            ("0\r\nX: a\n\r\n", Framing::Bad),
            ("0\r\n\n", Framing::Bad),
        ] {
            assert_eq!(check(body.as_bytes()), verdict, "{body:?}");
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let extension = |length| format!("0;{}\r\n\r\n", "a".repeat(length));
        assert_eq!(check(extension(1000).as_bytes()), Framing::Fine);
        assert_eq!(check(extension(2000).as_bytes()), Framing::Bad);
        let trailers = |fields| format!("0\r\n{}\r\n", "X: y\r\n".repeat(fields));
        assert_eq!(check(trailers(1000).as_bytes()), Framing::Fine);
        assert_eq!(check(trailers(10_000).as_bytes()), Framing::Bad);
    }

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

        #[test]
        fn what_is_encoded_well_passes(chunks in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 1..300), 0usize..4, any::<bool>()), 0..8,
        )) {
            let mut body = Vec::new();
            for (data, zeros, extended) in chunks {
                let extension = if extended { ";name=\"va lue\"" } else { "" };
                body.extend(format!("{}{:x}{extension}\r\n", "0".repeat(zeros), data.len()).bytes());
                body.extend(data);
                body.extend(b"\r\n");
            }
            prop_assert_eq!(check(&body), Framing::Unfinished);
            body.extend(b"0\r\n\r\n");
            prop_assert_eq!(check(&body), Framing::Fine);
        }
    }
}
