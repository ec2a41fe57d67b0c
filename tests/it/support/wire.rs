//! HTTP/1.1 as bytes: heads and bodies read from a stream, for the recording server and for the client alike.
//!
//! It repairs nothing and hides nothing: header fields keep their order, case and number.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream and what was read of it but not yet used.
pub struct Wire {
    io: Box<dyn Io>,
    buffer: BytesMut,
}

impl Wire {
    pub fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buffer: BytesMut::new() }
    }

    /// The next head, or nothing when the other side closed between messages.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return Head::parse(&self.buffer.split_to(end + 4)).map(Some);
            }
            if self.read().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The next piece of a body as it arrives; nothing at its end.
    pub async fn piece(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.buffer.is_empty() {
                    self.read_some().await?;
                }
                let take = self.buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                Ok(Some(self.buffer.split_to(take).freeze()))
            }
            Framing::Chunked => {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)
                    .map_err(|_| io::Error::other(format!("bad chunk size {size:?}")))?;
                if size == 0 {
                    // Trailers, up to an empty line.
                    while !self.line().await?.is_empty() {}
                    *framing = Framing::Length(0);
                    return Ok(None);
                }
                while self.buffer.len() < size + 2 {
                    self.read_some().await?;
                }
                let chunk = self.buffer.split_to(size).freeze();
                self.buffer.advance(2);
                Ok(Some(chunk))
            }
            Framing::UntilClosed => {
                if self.buffer.is_empty() && self.read().await? == 0 {
                    return Ok(None);
                }
                Ok(Some(self.buffer.split().freeze()))
            }
        }
    }

    /// A whole body.
    pub async fn body(&mut self, mut framing: Framing) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece(&mut framing).await? {
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Some bytes without any framing, as in a tunnel; none at the end.
    pub async fn bytes(&mut self) -> io::Result<Bytes> {
        if self.buffer.is_empty() {
            self.read().await?;
        }
        Ok(self.buffer.split().freeze())
    }

    /// Exactly so many bytes without any framing.
    pub async fn exactly(&mut self, len: usize) -> io::Result<Bytes> {
        while self.buffer.len() < len {
            self.read_some().await?;
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.io.write_all(bytes.as_ref()).await?;
        self.io.flush().await
    }

    /// Ends our direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.advance(end + 2);
                return Ok(line);
            }
            self.read_some().await?;
        }
    }

    async fn read_some(&mut self) -> io::Result<()> {
        match self.read().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.io.read_buf(&mut self.buffer).await
    }
}

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// The start line and header fields of a message.
#[derive(Clone, Debug)]
pub struct Head {
    pub start: String,
    pub headers: Headers,
}

impl Head {
    fn parse(raw: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(raw);
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|line| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other(format!("bad field {line:?}")))?;
            Ok((name.to_owned(), value.trim().to_owned()))
        });
        let headers = Headers(fields.collect::<io::Result<_>>()?);
        Ok(Self { start, headers })
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// How the body that follows is framed; `None` where the header does not say.
    pub fn framing(&self) -> Option<Framing> {
        if self.headers.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            return Some(Framing::Chunked);
        }
        self.headers.get("content-length").and_then(|len| len.parse().ok()).map(Framing::Length)
    }
}

/// Header fields in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first field of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every field of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }
}

/// An answer of a server that says its name, with a short body where the status has one.
pub fn reply(status: u16, server: &str, bodyless: bool, close: bool) -> String {
    let body = if matches!(status, 204 | 304) { String::new() } else { format!("hello from {server}\n") };
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let close = if close { "Connection: close\r\n" } else { "" };
    let body = if bodyless { "" } else { &body };
    format!("HTTP/1.1 {status} Reason\r\nX-Server: {server}\r\n{length}{close}\r\n{body}")
}

/// A chunk of a chunked body.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
