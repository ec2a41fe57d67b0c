//! The connection of two processes: messages one after another, some with sockets. Blocking, so for threads that may.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg, sockopt::socket_peercred,
};

use super::Message;

/// Why the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("it closed the connection")]
    Closed,
    #[error("it speaks another version of the hand-over; restart instead of upgrading")]
    OtherVersion,
    #[error("it sent what makes no sense here")]
    Nonsense,
    #[error("{0}")]
    Io(#[from] io::Error),
}

pub(super) struct Link {
    stream: UnixStream,
    /// Those that came and were not asked for yet, in order.
    sockets: VecDeque<OwnedFd>,
}

impl Link {
    /// Greets the other side, which does the same.
    pub fn greet(mut stream: UnixStream) -> Result<Self, LinkError> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(GREETING)?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => LinkError::Closed,
            _ => error.into(),
        })?;
        if greeting != *GREETING {
            return Err(LinkError::OtherVersion);
        }
        Ok(Self { stream, sockets: VecDeque::new() })
    }

    /// The process on the other side, if the system says.
    pub fn peer(&self) -> Option<u32> {
        let peer = socket_peercred(&self.stream).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }

    /// Whether the other side is still there, as far as is known here.
    pub fn is_alive(&self) -> bool {
        let looked = recv(&self.stream, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(looked, Ok((_, 1..)) | Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// How long [`Link::receive`] waits; `None`: for as long as it takes.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)
    }

    /// Ends the connection, also for the other threads that have it.
    pub fn close(&self) {
        // It fails where it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The same connection, for another thread.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, sockets: VecDeque::new() })
    }

    pub fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        let content = postcard::to_allocvec(message).map_err(io::Error::other)?;
        self.stream.write_all(&length(&content))?;
        Ok(self.stream.write_all(&content)?)
    }

    /// As many messages as it takes: the kernel passes a bounded number with one.
    pub fn send_sockets(&mut self, sockets: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        for sockets in sockets.chunks(SOCKETS_AT_ONCE) {
            let number = u32::try_from(sockets.len()).expect("they are few");
            let content = postcard::to_allocvec(&Message::Sockets(number)).map_err(io::Error::other)?;
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut passed = SendAncillaryBuffer::new(&mut space);
            passed.push(SendAncillaryMessage::ScmRights(sockets));
            let length = length(&content);
            let sent = sendmsg(&self.stream, &[IoSlice::new(&length)], &mut passed, SendFlags::NOSIGNAL)
                .map_err(io::Error::from)?;
            self.stream.write_all(&length[sent..])?;
            self.stream.write_all(&content)?;
        }
        Ok(())
    }

    pub fn receive(&mut self) -> Result<Message, LinkError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(LinkError::Nonsense);
        }
        let mut content = vec![0; length];
        self.fill(&mut content)?;
        postcard::from_bytes(&content).map_err(|_| LinkError::Nonsense)
    }

    /// Sockets that came with a message.
    pub fn take_sockets(&mut self, number: u32) -> Result<Vec<OwnedFd>, LinkError> {
        let number = number as usize;
        if self.sockets.len() < number {
            return Err(LinkError::Nonsense);
        }
        Ok(self.sockets.drain(..number).collect())
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), LinkError> {
        while !buffer.is_empty() {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut passed = RecvAncillaryBuffer::new(&mut space);
            let stream = self.stream.as_fd();
            let got =
                match recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut passed, RecvFlags::CMSG_CLOEXEC) {
                    Err(rustix::io::Errno::INTR) => continue,
                    got => got.map_err(io::Error::from)?,
                };
            for message in passed.drain() {
                if let RecvAncillaryMessage::ScmRights(sockets) = message {
                    self.sockets.extend(sockets);
                }
            }
            if got.flags.contains(ReturnFlags::CTRUNC) {
                let what = "not all listening sockets could be received; allow the process more open files";
                return Err(io::Error::other(what).into());
            }
            if got.bytes == 0 {
                return Err(LinkError::Closed);
            }
            buffer = &mut buffer[got.bytes..];
        }
        Ok(())
    }
}

fn length(content: &[u8]) -> [u8; 4] {
    u32::try_from(content.len()).expect("messages are far shorter").to_le_bytes()
}

/// It changes with the form of any message.
const GREETING: &[u8; 19] = b"homing hand-over 2\n";
/// For one message to get through, once it is due.
const TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST: usize = 64 << 20;
/// Linux takes 253.
const SOCKETS_AT_ONCE: usize = 64;
const SPACE: usize = rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE));

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd, thread};

    use super::*;

    fn links() -> (Link, Link) {
        let (a, b) = UnixStream::pair().expect("a pair of sockets");
        let other = thread::spawn(|| Link::greet(b).expect("greeted"));
        (Link::greet(a).expect("greeted"), other.join().expect("no panic"))
    }

    #[test]
    fn more_sockets_than_fit_into_one_message_arrive_in_order() {
        let (mut old, mut new) = links();
        let sockets: Vec<_> =
            (0..150).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        old.send_sockets(&fds).expect("sent");
        old.send(&Message::Complete).expect("sent");
        let mut got = Vec::new();
        while let Message::Sockets(number) = new.receive().expect("a message") {
            got.extend(new.take_sockets(number).expect("they came with it"));
        }
        let addr = |socket: &TcpListener| socket.local_addr().expect("it is bound");
        let got: Vec<_> = got.into_iter().map(|fd| addr(&TcpListener::from(fd))).collect();
        assert_eq!(got, sockets.iter().map(addr).collect::<Vec<_>>());
    }

    #[test]
    fn the_end_of_the_other_side_is_seen_and_another_version_is_named() {
        let (old, mut new) = links();
        assert!(new.is_alive());
        drop(old);
        assert!(!new.is_alive());
        assert!(matches!(new.receive(), Err(LinkError::Closed)));
        let (a, mut b) = UnixStream::pair().expect("a pair of sockets");
        b.write_all(b"homing hand-over 9\n").expect("written");
        assert!(matches!(Link::greet(a), Err(LinkError::OtherVersion)));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\x01\x00\x00\x00\xee", b"\x02\x00\x00\x00\x02\x05"] {
            let (mut old, mut new) = links();
            old.stream.write_all(bytes).expect("written");
            let sockets = new.receive().and_then(|message| match message {
                Message::Sockets(number) => new.take_sockets(number).map(drop),
                _ => Ok(()),
            });
            assert!(matches!(sockets, Err(LinkError::Nonsense)), "{bytes:?}");
        }
    }
}
