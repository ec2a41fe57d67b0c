//! What the two ends of a tunnel (RFC 9110, 7.8) tell each other past Pingora: how much each has said, how much of it
//! has reached the other, and that it says no more.
//!
//! Pingora ends a tunnel as soon as one end does, and the other loses what it still has to say. So neither the
//! client's [`Wire`](super::Wire) nor the stream to the server tells Pingora of its end while the other goes on:
//! instead the other end is told, once it has got everything (TCP's half-close). Pingora hears of an end when both
//! are over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::framing::Check;

/// A tunnel that is asked for, or open.
#[derive(Debug, Default)]
pub struct Tunnel {
    client: End,
    server: End,
}

#[derive(Debug, Default)]
struct End {
    /// Bytes that came from it.
    given: AtomicU64,
    /// Bytes that went to it.
    taken: AtomicU64,
    ended: AtomicBool,
}

/// One of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Tunnel {
    /// So many bytes came from this end.
    pub fn gives(&self, side: Side, bytes: usize) {
        self.end(side).given.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes went to this end.
    pub fn takes(&self, side: Side, bytes: usize) {
        self.end(side).taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Nothing more comes from this end.
    pub fn ends(&self, side: Side) {
        self.end(side).ended.store(true, Ordering::Relaxed);
    }

    /// Whether nothing more goes to this end, and all has.
    pub fn is_through(&self, side: Side) -> bool {
        let (to, from) = match side {
            Side::Client => (&self.client, &self.server),
            Side::Server => (&self.server, &self.client),
        };
        from.ended.load(Ordering::Relaxed)
            && to.taken.load(Ordering::Relaxed) == from.given.load(Ordering::Relaxed)
    }

    /// Whether both ends are over, and have got everything.
    pub fn is_over(&self) -> bool {
        self.is_through(Side::Client) && self.is_through(Side::Server)
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

/// Tells a tunnel's bytes from the heads before them: one of a request, or of answers of which the last is not an
/// interim one.
#[derive(Debug, Default)]
pub struct AfterHeads {
    check: Check,
    /// What the present head begins with.
    start: [u8; STATUS_END],
    length: usize,
}

impl AfterHeads {
    /// How many of these bytes, which follow those before, are after the heads.
    pub fn of(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && self.check.in_head() {
            let taken = self.check.read(rest);
            for byte in &rest[..taken.min(STATUS_END - self.length)] {
                self.start[self.length] = *byte;
                self.length += 1;
            }
            rest = &rest[taken..];
            if !self.check.in_head() && self.is_interim() {
                *self = Self::default();
            }
        }
        rest.len()
    }

    /// Whether what follows is the tunnel's.
    pub fn are_over(&self) -> bool {
        !self.check.in_head()
    }

    fn is_interim(&self) -> bool {
        self.start.starts_with(b"HTTP/1.1 1") && !self.start.ends_with(b"101")
    }
}

/// Of `HTTP/1.1 101`.
const STATUS_END: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_when_the_other_is_over_and_all_has_arrived() {
        let tunnel = Tunnel::default();
        tunnel.gives(Side::Client, 5);
        tunnel.ends(Side::Client);
        assert!(!tunnel.is_through(Side::Server), "five bytes are on their way");
        tunnel.takes(Side::Server, 5);
        assert!(tunnel.is_through(Side::Server));
        assert!(!tunnel.is_through(Side::Client) && !tunnel.is_over(), "the server goes on");
        tunnel.gives(Side::Server, 1);
        tunnel.ends(Side::Server);
        assert!(!tunnel.is_over());
        tunnel.takes(Side::Client, 1);
        assert!(tunnel.is_over());
    }

    #[test]
    fn heads_are_told_from_what_follows_however_they_arrive() {
        for (heads, after) in [
            ("GET /aaaa1b HTTP/1.1\r\nHost: a\r\n\r\n", "hello"),
            ("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 101 S\r\n\r\n",
                "\r\n\r\n",
            ),
        ] {
            let bytes = format!("{heads}{after}").into_bytes();
            for cut in 0..=bytes.len() {
                let mut found = AfterHeads::default();
                let counted: usize = [&bytes[..cut], &bytes[cut..]].map(|part| found.of(part)).iter().sum();
                assert_eq!(counted, after.len(), "{heads:?} cut at {cut}");
            }
        }
    }
}
