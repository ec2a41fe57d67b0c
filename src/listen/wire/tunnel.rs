//! A wire whose request has become a tunnel.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{STREAM, Wire};
use crate::listen::{AfterHeads, Side, Tunnel};

/// The client's end of a tunnel.
pub(super) struct TunnelEnd {
    tunnel: Arc<Tunnel>,
    /// What Pingora writes begins with the answer's head.
    written: AfterHeads,
    /// The client was told that nothing more comes.
    told: bool,
}

impl Wire {
    /// Hands out what the client says in a tunnel, and its end when the server's end has come too.
    pub(super) fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.enter_tunnel();
        let (stream, sent_all) = (self.stream.as_mut().expect(STREAM), self.gathered.is_empty());
        if let Some(end) = &mut self.tunnel {
            if end.tunnel.is_over() {
                return Poll::Ready(Ok(()));
            }
            if !end.told && sent_all && end.tunnel.is_through(Side::Client) {
                ready!(Pin::new(stream).poll_shutdown(cx))?;
                end.told = true;
            }
            if self.ended {
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(self.stream()).poll_read(cx, buf))?;
        } else {
            let offered = self.ahead.split_to(self.ahead.len().min(buf.remaining()));
            buf.put_slice(&offered);
        }
        let read = buf.filled().len() - before;
        self.ended = read == 0;
        let Some(end) = &self.tunnel else { return Poll::Ready(Ok(())) };
        end.tunnel.gives(Side::Client, read);
        if self.ended {
            end.tunnel.ends(Side::Client);
            // The server's end is to look, in this same task, and this one to look again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// These bytes were taken to be sent: the head that opens the tunnel, then what the server says.
    pub(super) fn tunnel_takes(&mut self, bytes: &[u8]) {
        self.enter_tunnel();
        if let Some(end) = &mut self.tunnel {
            end.tunnel.takes(Side::Client, end.written.of(bytes));
        }
    }

    /// Keeps the tunnel that was opened, where its ends may end one after the other.
    fn enter_tunnel(&mut self) {
        if let Some(tunnel) = self.connection.take_tunnel() {
            self.tunnel = Some(TunnelEnd { tunnel, written: AfterHeads::default(), told: false });
        }
    }
}
