//! HTTP/2 frame by frame (RFC 9113, 4.1), for clients that break its rules: what a well-made client library would
//! not send.

use std::{net::SocketAddr, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    after, soon,
    tls::{Profile, TlsClient},
    wire::Io,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// `ACK` of SETTINGS and PING too.
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITIZED: u8 = 0x20;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    fn ends(&self, stream: u32) -> bool {
        self.stream == stream && matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The status that a HEADERS frame begins with, if it is an answer's first in its connection.
    fn status(&self) -> Option<u16> {
        match *self.payload.first()? {
            indexed @ 0x88..=0x8e => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
            0x08 | 0x18 | 0x48 => digits(&self.payload[1..]),
            _ => None,
        }
    }

    /// The error code of a RST_STREAM or GOAWAY frame.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Three digits, plain or in the code of RFC 7541, appendix B.
fn digits(text: &[u8]) -> Option<u16> {
    let (length, text) = text.split_first()?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(text.get(..3)?).ok()?.parse().ok();
    }
    let mut bits = text
        .get(..usize::from(length & 0x7f))?
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).try_fold(0, |code, _| Some(code << 1 | bits.next()?))?;
        let digit = if five < 3 { five } else { (five << 1 | bits.next()?) - 22 };
        number = number * 10 + digit;
    }
    Some(number)
}

/// What became of a stream, or of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An answer, to its end.
    Answered(u16),
    Reset(u32),
    GoneAway(u32),
    Closed,
}

/// A connection of a client that says what it likes.
pub struct Frames {
    read: ReadHalf<Box<dyn Io>>,
    write: WriteHalf<Box<dyn Io>>,
}

impl Frames {
    /// A TLS connection for `a.com`, with nothing said yet.
    pub async fn silent(to: SocketAddr) -> Self {
        let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
        Self::over(client.connect(to, "a.com").await)
    }

    pub fn over(io: impl Io + 'static) -> Self {
        let io: Box<dyn Io> = Box::new(io);
        let (read, write) = tokio::io::split(io);
        Self { read, write }
    }

    /// The same after both sides have said their SETTINGS.
    pub async fn open(to: SocketAddr) -> Self {
        let mut client = Self::silent(to).await;
        client.greet(&[]).await;
        client
    }

    /// Says the preface and these SETTINGS, and hears those of the server.
    pub async fn greet(&mut self, settings: &[(u16, u32)]) {
        self.send(&[PREFACE, &self::settings(settings)].concat()).await;
        let first = self.next().await.expect("a server begins with its SETTINGS");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0), "{first:?}");
        self.send(&frame(SETTINGS, 1, 0, b"")).await;
    }

    /// Sends bytes; a server that has closed already is no failure.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes).await;
    }

    /// Whether the bytes could be sent.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        let sent = async {
            self.write.write_all(bytes).await?;
            self.write.flush().await
        };
        soon("the bytes are taken", sent).await.is_ok()
    }

    /// The next frame; `None`: the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        soon("a frame", read_frame(&mut self.read)).await
    }

    /// Reads until a stream is answered or reset, or the connection ends.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        fate(&mut self.read, stream).await
    }

    /// The same while something is said again and again, with a number that grows.
    pub async fn fate_while(
        &mut self,
        stream: u32,
        interval: Duration,
        said: impl Fn(u32) -> Vec<u8>,
    ) -> Fate {
        let Self { read, write } = self;
        let say = async {
            for n in 0.. {
                // One who hears no more is told so.
                let _ = write.write_all(&said(n)).await;
                after(interval).await;
            }
        };
        let told = async {
            tokio::select! {
                () = say => unreachable!("it goes on for ever"),
                fate = fate(read, stream) => fate,
            }
        };
        soon("its fate", told).await
    }

    /// Reads until a stream is reset or the connection ends, or stream 1 is answered where that is waited for.
    pub async fn end(&mut self, or_answered: bool) -> Fate {
        while let Some(frame) = self.next().await {
            match frame.kind {
                RST_STREAM => return Fate::Reset(frame.code()),
                GOAWAY => return Fate::GoneAway(frame.code()),
                _ if or_answered && frame.ends(1) => return Fate::Answered(200),
                _ => {}
            }
        }
        Fate::Closed
    }

    /// Says something over and over, with a number that grows, until the connection is ended.
    pub async fn flood(&mut self, more: impl Fn(u32) -> Vec<u8>) -> Fate {
        let Self { read, write } = self;
        let say = async {
            for batch in 0.. {
                let bytes: Vec<_> = (64 * batch..64 * (batch + 1)).flat_map(&more).collect();
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // Why it was ended is still to be heard.
            std::future::pending::<()>().await;
        };
        let hear = async {
            while let Some(frame) = read_frame(read).await {
                if frame.kind == GOAWAY {
                    return Fate::GoneAway(frame.code());
                }
            }
            Fate::Closed
        };
        let ended = async {
            tokio::select! {
                () = say => unreachable!("it never ends"),
                fate = hear => fate,
            }
        };
        soon("the flood is ended", ended).await
    }

    /// Reads until the connection is over: the code of its GOAWAY, if there was one.
    pub async fn goodbye(&mut self) -> Option<u32> {
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                return Some(frame.code());
            }
        }
        None
    }

    /// The next frame of a kind; what comes before it is passed over.
    pub async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

async fn fate(read: &mut (impl AsyncRead + Unpin), stream: u32) -> Fate {
    let mut status = None;
    while let Some(frame) = soon("a frame", read_frame(read)).await {
        if frame.stream == stream && frame.kind == HEADERS && status.is_none_or(|status| status < 200) {
            status = Some(frame.status().unwrap_or(0));
        }
        match frame.kind {
            RST_STREAM if frame.stream == stream => return Fate::Reset(frame.code()),
            GOAWAY => return Fate::GoneAway(frame.code()),
            _ if frame.ends(stream) => return Fate::Answered(status.expect("HEADERS come first")),
            _ => {}
        }
    }
    Fate::Closed
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub fn settings(all: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<_> = all
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A head in one HEADERS frame.
pub fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// `GET /` for `a.com`.
pub fn get(stream: u32) -> Vec<u8> {
    head(stream, END_STREAM, &GET)
}

/// Fields, none of them indexed or compressed (RFC 7541, 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    if length < 0x7f {
        return block.push(length as u8);
    }
    block.push(0x7f);
    let mut left = length - 0x7f;
    while left >= 0x80 {
        block.push(left as u8 | 0x80);
        left >>= 7;
    }
    block.push(left as u8);
}

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a.com"), (":path", "/")];
