//! A wire whose client speaks HTTP/2.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::ReadBuf, time::Instant};

use super::{Mode, STREAM, Wire};
use crate::listen::frames::{Frames, PREFACE_LENGTH, Reader};

impl Wire {
    /// Makes it one for HTTP/2, whose preface has to arrive within `preface_timeout`, and whose client may send so many
    /// frames that are of no use.
    pub(in crate::listen) fn into_http2(
        mut self: Box<Self>,
        preface_timeout: Duration,
        allowance: u32,
    ) -> Box<Self> {
        let ahead = std::mem::take(&mut self.ahead);
        self.http2 = Some(Box::new(Reader::new(Frames::new(allowance, Instant::now()), &ahead)));
        self.mode = Mode::Http2 { preface: PREFACE_LENGTH };
        self.preface_late = Some(Box::pin(tokio::time::sleep(preface_timeout)));
        self
    }

    /// Whether the client's first bytes are these; waits for as many of them as tell.
    pub(in crate::listen) async fn begins_with(&mut self, bytes: &[u8]) -> bool {
        loop {
            let known = self.ahead.len().min(bytes.len());
            if self.ahead[..known] != bytes[..known] {
                return false;
            }
            if known == bytes.len() {
                return true;
            }
            if !poll_fn(|cx| self.poll_ahead(cx)).await.unwrap_or(false) {
                return false;
            }
        }
    }

    /// Hands out the client's frames, until they are a flood.
    pub(super) fn poll_http2(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        preface: usize,
    ) -> Poll<io::Result<()>> {
        if self.connection.is_flooded() {
            // Who accepts streams ends the connection, and there is nothing more to hear meanwhile.
            return Poll::Pending;
        }
        let reader = self.http2.as_mut().expect("a wire of HTTP/2 has a reader");
        let before = buf.filled().len();
        if reader.poll_read(Pin::new(self.stream.as_mut().expect(STREAM)), cx, buf)?.is_pending() {
            let Some(late) = &mut self.preface_late else { return Poll::Pending };
            ready!(late.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the HTTP/2 preface is late")));
        }
        reader.frames.served(self.connection.take_served());
        if reader.frames.is_flooded(Instant::now) {
            self.connection.set_flooded();
        }
        if preface > 0 {
            let left = preface.saturating_sub(buf.filled().len() - before);
            self.mode = Mode::Http2 { preface: left };
            if left == 0 {
                self.preface_late = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}
