//! A chunked body, strictly (RFC 9112, section 7.1).
//!
//! It looks at no chunk data, and bounds every line and section.

use super::{is_text, is_token};

/// Follows one body from its first chunk-size line to the end of its trailers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// Bytes of the present line or section, against its bound.
    length: u16,
    /// The chunk's size while it is read, then what is left of its data.
    size: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Up to 16 hexadecimal digits.
    #[default]
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

impl Chunks {
    /// Whether the body is well formed to its end.
    pub fn are_whole(&self) -> bool {
        self.state == State::Fine
    }

    /// Whether it is not what the RFC allows.
    pub fn are_bad(&self) -> bool {
        self.state == State::Bad
    }

    /// Reads on. Returns how many of the bytes belong to a well-formed body: it stops behind the end, and before the
    /// byte that is bad.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.state {
                State::Fine | State::Bad => return at,
                State::Data => self.skip_data(&bytes[at..]),
                _ => {
                    self.step(bytes[at]);
                    if self.state == State::Bad {
                        return at;
                    }
                    1
                }
            };
        }
        at
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

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Verdict {
        Unfinished,
        Fine,
        Bad,
    }

    fn check(body: &[u8]) -> Verdict {
        let mut chunks = Chunks::default();
        chunks.read(body);
        match (chunks.are_whole(), chunks.are_bad()) {
            (true, _) => Verdict::Fine,
            (_, true) => Verdict::Bad,
            _ => Verdict::Unfinished,
        }
    }

    #[test]
    fn bodies_are_judged_as_the_rfc_has_it() {
        for (body, verdict) in [
            ("0\r\n\r\n", Verdict::Fine),
            ("000\r\n\r\n", Verdict::Fine),
            ("5\r\nhello\r\n0\r\n\r\n", Verdict::Fine),
            ("5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n", Verdict::Fine),
            ("A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", Verdict::Fine),
            ("5;a=b\r\nhello\r\n0\r\n\r\n", Verdict::Fine),
            ("5;a\r\nhello\r\n0;z\r\n\r\n", Verdict::Fine),
            ("5 ; a = \"b;\\\"\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("5 ; a = \"b;\\\"\" ;c=d\r\nhello\r\n0\r\n\r\n", Verdict::Fine),
            ("0\r\nX-Sum: 1\r\nY:\r\n\r\n", Verdict::Fine),
            ("0000000000000000\r\n\r\n", Verdict::Fine),
            ("", Verdict::Unfinished),
            ("5", Verdict::Unfinished),
            ("5\r\nhel", Verdict::Unfinished),
            ("5\r\nhello\r\n", Verdict::Unfinished),
            ("0\r\n", Verdict::Unfinished),
            ("0\r\n\r", Verdict::Unfinished),
            ("ffffffffffffffff\r\nx", Verdict::Unfinished),
            ("\r\n\r\n", Verdict::Bad),
            ("5\r\nhello\r\n\r\n", Verdict::Bad),
            (";a=b\r\n\r\n", Verdict::Bad),
            (" \r\n\r\n", Verdict::Bad),
            ("\n\n", Verdict::Bad),
            ("5\nhello\n0\n\n", Verdict::Bad),
            ("5\r\nhello\n0\r\n\r\n", Verdict::Bad),
            ("5\r\nhello0\r\n\r\n", Verdict::Bad),
            ("5\r\nhell\r\n0\r\n\r\n", Verdict::Bad),
            ("5 \r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("5;\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("5;a=\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("5;a=b c\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("5;a\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("5\rhello\r\n0\r\n\r\n", Verdict::Bad),
            ("0x5\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("+5\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("-1\r\n\r\n", Verdict::Bad),
            ("00000000000000005\r\nhello\r\n0\r\n\r\n", Verdict::Bad),
            ("0\r\n folded\r\n\r\n", Verdict::Bad),
            ("0\r\nno colon\r\n\r\n", Verdict::Bad),
            ("0\r\nX: a\n\r\n", Verdict::Bad),
            ("0\r\n\n", Verdict::Bad),
        ] {
            assert_eq!(check(body.as_bytes()), verdict, "{body:?}");
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let extension = |length| format!("0;{}\r\n\r\n", "a".repeat(length));
        assert_eq!(check(extension(1000).as_bytes()), Verdict::Fine);
        assert_eq!(check(extension(2000).as_bytes()), Verdict::Bad);
        let trailers = |fields| format!("0\r\n{}\r\n", "X: y\r\n".repeat(fields));
        assert_eq!(check(trailers(1000).as_bytes()), Verdict::Fine);
        assert_eq!(check(trailers(10_000).as_bytes()), Verdict::Bad);
    }

    #[test]
    fn reading_stops_behind_the_end_and_before_what_is_bad() {
        for (body, taken) in
            [("1\r\nx\r\n0\r\n\r\nGET", 11), ("1\r\nxGET", 4), ("1\r\nx\r\n\r\n", 6), ("x", 0)]
        {
            let mut chunks = Chunks::default();
            assert_eq!(chunks.read(body.as_bytes()), taken, "{body:?}");
            assert_eq!(chunks.read(b"0"), 0, "nothing belongs to it any more");
        }
    }

    proptest! {
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
            prop_assert_eq!(check(&body), Verdict::Unfinished);
            body.extend(b"0\r\n\r\n");
            prop_assert_eq!(check(&body), Verdict::Fine);
        }
    }
}
