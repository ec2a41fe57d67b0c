//! The head of an answer, strictly (RFC 9112, sections 4 and 5).
//!
//! Fields are looked at no further than it takes to know where the answer ends. What they mean otherwise is for others to
//! judge.

use super::{Fault, is_text, is_token};

/// A head from its first byte to the end of its empty line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    line: Line,
    size: u32,
    is_1_0: bool,
    pub status: u16,
    pub length: Option<u64>,
    pub is_chunked: bool,
}

/// Where in a line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the first one, after so many bytes, up to the status.
    Status(u8),
    StatusEnd,
    Reason,
    Start,
    Name(Name),
    Value(Value),
    /// After its CR.
    Lf,
    /// After the CR of the empty one.
    LastLf,
    /// Behind the last one.
    Over,
    Bad(Fault),
}

impl Default for Line {
    fn default() -> Self {
        Self::Status(0)
    }
}

/// A field's name: the two that say where a body ends are told from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// It is this one so far, and so long.
    Framing(Framing, u8),
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Coding,
}

/// A field's value. After the number or the word, which is `over` then, there may be blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Length {
        number: Option<u64>,
        over: bool,
    },
    /// After so many letters of `chunked`.
    Coding {
        letters: u8,
        over: bool,
    },
    Other,
}

impl Head {
    /// Whether it has been read to its end, and well.
    pub fn is_whole(&self) -> bool {
        self.line == Line::Over
    }

    pub fn fault(&self) -> Option<Fault> {
        match self.line {
            Line::Bad(fault) => Some(fault),
            _ => None,
        }
    }

    /// Reads on, at most to its end. Returns how many of the bytes are good.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let room = usize::try_from(LIMIT - self.size).unwrap_or(usize::MAX);
        if room == 0 {
            self.line = Line::Bad(Fault::HeadTooLarge);
        }
        let read = self.read_lines(&bytes[..bytes.len().min(room)]);
        // No more than the limit.
        self.size += read as u32;
        read
    }

    fn read_lines(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            at += match self.line {
                Line::Over | Line::Bad(_) => return at,
                Line::Status(0) => self.status_at_once(&bytes[at..]),
                Line::Start => self.whole_lines(&bytes[at..]),
                Line::Reason | Line::Value(Value::Other) => run_of_text(&bytes[at..]),
                Line::Name(Name::Other) => bytes[at..].iter().take_while(|byte| is_token(**byte)).count(),
                _ => 0,
            };
            let Some(byte) = bytes.get(at) else { return at };
            match self.step(*byte) {
                Ok(next) => (self.line, at) = (next, at + 1),
                Err(fault) => self.line = Line::Bad(fault),
            }
        }
    }

    /// Reads a status line up to its status, if that is all there and an ordinary one. This and the next two spare nearly
    /// all heads the way byte by byte. Whatever is doubtful is left to [`step`](Self::step).
    fn status_at_once(&mut self, bytes: &[u8]) -> usize {
        match bytes.strip_prefix(b"HTTP/1.1 ") {
            Some([first @ b'1'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9', ..]) => {
                let digits = [first, second, third];
                self.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0'));
                self.line = Line::StatusEnd;
                12
            }
            _ => 0,
        }
    }

    /// Reads the lines at the beginning that are there whole.
    fn whole_lines(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(length) = self.whole_line(&bytes[at..]) {
            at += length;
        }
        at
    }

    fn whole_line(&mut self, bytes: &[u8]) -> Option<usize> {
        let cr = memchr::memchr(b'\r', bytes).filter(|cr| bytes.get(cr + 1) == Some(&b'\n'))?;
        let colon = memchr::memchr(b':', &bytes[..cr]).filter(|colon| *colon > 0)?;
        let (name, value) = (&bytes[..colon], &bytes[colon + 1..cr]);
        let is = |framing: Framing| name.eq_ignore_ascii_case(framing.name());
        if is(Framing::Length) {
            let digits = value.strip_prefix(b" ").filter(|_| self.length.is_none() && !self.is_chunked)?;
            self.length = Some(number(digits)?);
        } else if is(Framing::Coding) || !name.iter().all(|byte| is_token(*byte)) || !all_text(value) {
            return None;
        }
        Some(cr + 2)
    }

    /// What one byte leads to.
    fn step(&mut self, byte: u8) -> Result<Line, Fault> {
        Ok(match (self.line, byte) {
            (Line::Lf, b'\n') => Line::Start,
            (Line::LastLf, b'\n') => Line::Over,
            (Line::Lf | Line::LastLf, _) | (_, b'\n') => return Err(Fault::LineEnd),
            (Line::Status(at), _) => self.status(at, byte)?,
            (Line::StatusEnd, b' ') => Line::Reason,
            (Line::StatusEnd | Line::Reason, b'\r') => Line::Lf,
            (Line::StatusEnd, _) => return Err(Fault::StatusLine),
            (Line::Start, b'\r') => Line::LastLf,
            (Line::Start, b' ' | b'\t') => return Err(Fault::Folded),
            (Line::Start, _) if is_token(byte) => Line::Name(Name::begins(byte)),
            (Line::Name(name), b':') => Line::Value(self.value_of(name)?),
            (Line::Name(name), _) if is_token(byte) => Line::Name(name.goes_on(byte)),
            (Line::Start | Line::Name(_), _) => return Err(Fault::FieldName),
            (Line::Value(value), b'\r') => {
                self.ends(value)?;
                Line::Lf
            }
            (Line::Value(value), _) if is_text(byte) => Line::Value(value.goes_on(byte)?),
            // A run of text goes before it.
            (Line::Reason | Line::Value(_), _) => return Err(Fault::Control),
            (Line::Over | Line::Bad(_), _) => self.line,
        })
    }

    /// `HTTP/1.1 200`: the version is one of two, and the status one that RFC 9110 has a meaning for.
    fn status(&mut self, at: u8, byte: u8) -> Result<Line, Fault> {
        let good = match at {
            0..7 => byte == b"HTTP/1."[usize::from(at)],
            7 => {
                self.is_1_0 = byte == b'0';
                matches!(byte, b'0' | b'1')
            }
            8 => byte == b' ',
            9 => matches!(byte, b'1'..=b'5'),
            _ => byte.is_ascii_digit(),
        };
        if !good {
            return Err(Fault::StatusLine);
        }
        if at >= 9 {
            self.status = self.status * 10 + u16::from(byte - b'0');
        }
        Ok(if at == 11 { Line::StatusEnd } else { Line::Status(at + 1) })
    }

    /// A name has ended: a value begins that may be.
    fn value_of(&self, name: Name) -> Result<Value, Fault> {
        match name.framing() {
            None => Ok(Value::Other),
            Some(Framing::Length) if self.length.is_some() => Err(Fault::Length),
            Some(Framing::Coding) if self.is_chunked || self.is_1_0 => Err(Fault::Coding),
            Some(_) if self.is_chunked || self.length.is_some() => Err(Fault::TwoFramings),
            Some(Framing::Length) => Ok(Value::Length { number: None, over: false }),
            Some(Framing::Coding) => Ok(Value::Coding { letters: 0, over: false }),
        }
    }

    fn ends(&mut self, value: Value) -> Result<(), Fault> {
        match value {
            Value::Other => {}
            Value::Length { number, .. } => self.length = Some(number.ok_or(Fault::Length)?),
            Value::Coding { letters, .. } if usize::from(letters) < CHUNKED.len() => {
                return Err(Fault::Coding);
            }
            Value::Coding { .. } => self.is_chunked = true,
        }
        Ok(())
    }
}

impl Name {
    fn begins(byte: u8) -> Self {
        match byte {
            b'c' | b'C' => Self::Framing(Framing::Length, 1),
            b't' | b'T' => Self::Framing(Framing::Coding, 1),
            _ => Self::Other,
        }
    }

    fn goes_on(self, byte: u8) -> Self {
        match self {
            Self::Framing(framing, at)
                if framing.name().get(usize::from(at)) == Some(&byte.to_ascii_lowercase()) =>
            {
                Self::Framing(framing, at + 1)
            }
            _ => Self::Other,
        }
    }

    /// Which of the two it is.
    fn framing(self) -> Option<Framing> {
        match self {
            Self::Framing(framing, length) if usize::from(length) == framing.name().len() => Some(framing),
            _ => None,
        }
    }
}

impl Framing {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Length => b"content-length",
            Self::Coding => b"transfer-encoding",
        }
    }
}

impl Value {
    /// One more byte, of text.
    fn goes_on(self, byte: u8) -> Result<Self, Fault> {
        let is_blank = matches!(byte, b' ' | b'\t');
        match self {
            Self::Other => Ok(self),
            Self::Length { number: None, .. } | Self::Coding { letters: 0, .. } if is_blank => Ok(self),
            Self::Length { number, .. } if is_blank => Ok(Self::Length { number, over: true }),
            Self::Coding { letters, .. } if is_blank => Ok(Self::Coding { letters, over: true }),
            Self::Length { number, over: false } if byte.is_ascii_digit() => {
                let longer = number.unwrap_or(0).checked_mul(10);
                let number = longer.and_then(|longer| longer.checked_add(u64::from(byte - b'0')));
                Ok(Self::Length { number: Some(number.ok_or(Fault::Length)?), over: false })
            }
            Self::Length { .. } => Err(Fault::Length),
            Self::Coding { letters, over: false }
                if CHUNKED.get(usize::from(letters)) == Some(&byte.to_ascii_lowercase()) =>
            {
                Ok(Self::Coding { letters: letters + 1, over: false })
            }
            Self::Coding { .. } => Err(Fault::Coding),
        }
    }
}

/// A number that surely fits.
fn number(digits: &[u8]) -> Option<u64> {
    let is_one = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_one.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// All at once, for nearly always they are.
fn all_text(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| all & is_text(*byte))
}

/// How much of these bytes, up to the next CR, is text.
fn run_of_text(bytes: &[u8]) -> usize {
    let line = &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())];
    if all_text(line) {
        return line.len();
    }
    line.iter().take_while(|byte| is_text(**byte)).count()
}

const CHUNKED: &[u8] = b"chunked";
/// Of a whole head. Pingora reads it again from its beginning with every piece that comes.
const LIMIT: u32 = 128 << 10;
