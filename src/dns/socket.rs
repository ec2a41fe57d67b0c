//! The sockets of one address: one over TCP, and over UDP one for each thread, among which the kernel spreads the
//! clients.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
};

use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};

use crate::listen::{self, Inherited};

/// Why the responder does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "{0} (UDP): another program has this port; end it (`ss -lunp` names it), or choose another port or address: \
         a resolver of the machine often has port 53 of 127.0.0.53 or of all addresses"
    )]
    Udp(SocketAddr),
    #[error(transparent)]
    Listen(#[from] listen::BindError),
}

pub(super) struct Sockets {
    pub tcp: TcpListener,
    pub udp: Vec<Datagrams>,
}

/// A socket over UDP that tells to which address a packet came.
pub(super) struct Datagrams {
    pub socket: UdpSocket,
    pub state: UdpSocketState,
}

impl Sockets {
    /// Those that another process had, and as many more as it takes. None is left out where there are more than threads:
    /// what has come there would be lost.
    pub fn open(addr: SocketAddr, threads: usize, inherited: &mut Inherited) -> Result<Self, BindError> {
        let Some(tcp) = inherited.tcp(addr) else { return Self::bind(addr, threads) };
        let sockets = inherited.udp(addr);
        let missing = threads.saturating_sub(sockets.len());
        let more = (0..missing).map(|_| open(addr, Type::DGRAM, true).map(UdpSocket::from));
        let all = sockets.into_iter().map(Ok).chain(more).map(|socket| Datagrams::new(socket?));
        let udp = all.collect::<io::Result<_>>().map_err(|error| udp_error(addr, error))?;
        Ok(Self { tcp, udp })
    }

    /// Other handles of all of them: as many as there may be, which is all unless files are short.
    pub fn handles(&self) -> Vec<OwnedFd> {
        let udp = self.udp.iter().map(|udp| udp.socket.as_fd());
        let all = std::iter::once(self.tcp.as_fd()).chain(udp);
        all.filter_map(|socket| socket.try_clone_to_owned().ok()).collect()
    }

    /// `threads`: how many sockets there are to be over UDP.
    pub fn bind(addr: SocketAddr, threads: usize) -> Result<Self, BindError> {
        let tcp = open(addr, Type::STREAM, false).map_err(|error| listen::BindError::new(addr, error))?;
        // Sockets that share a port also share it with those of a stranger who allows it; one alone does not.
        drop(open(addr, Type::DGRAM, false).map_err(|error| udp_error(addr, error))?);
        let datagrams = |_| Datagrams::new(open(addr, Type::DGRAM, true)?.into());
        let udp = (0..threads).map(datagrams).collect::<io::Result<_>>();
        Ok(Self { tcp: tcp.into(), udp: udp.map_err(|error| udp_error(addr, error))? })
    }
}

impl Datagrams {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self { state: UdpSocketState::new((&socket).into())?, socket })
    }
}

fn open(addr: SocketAddr, kind: Type, shared: bool) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        // So that `[::]` and `0.0.0.0` can stand side by side.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
        // What comes while a thread is busy. The kernel gives what it allows (`net.core.rmem_max`).
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&addr.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn udp_error(addr: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Udp(addr),
        _ => listen::BindError::new(addr, error).into(),
    }
}

const RECEIVE_BUFFER: usize = 1 << 20;

const BACKLOG: i32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_over_either_protocol_is_named() {
        let first = Sockets::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
        let addr = first.tcp.local_addr().unwrap();
        let error = Sockets::bind(addr, 2).err().expect("it is taken");
        assert!(matches!(error, BindError::Listen(listen::BindError::InUse(_))), "{error}");
        drop(first);
        let shared = open("127.0.0.1:0".parse().unwrap(), Type::DGRAM, true).unwrap();
        let addr = shared.local_addr().unwrap().as_socket().unwrap();
        let error = Sockets::bind(addr, 2).err().expect("it is taken");
        assert!(matches!(error, BindError::Udp(in_use) if in_use == addr), "{error}");
    }

    #[test]
    fn sockets_of_another_process_are_taken_and_more_are_bound_beside_them() {
        for threads in [1, 2, 4] {
            let free = Sockets::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap().tcp.local_addr();
            let addr = free.unwrap();
            let first = Sockets::bind(addr, 2).unwrap();
            let mut inherited = Inherited::default();
            first.handles().into_iter().for_each(|socket| inherited.add(socket).unwrap());
            assert_eq!(inherited.len(), 3);
            let second = Sockets::open(addr, threads, &mut inherited).unwrap();
            assert_eq!(second.udp.len(), threads.max(2));
            assert!(inherited.is_empty());
        }
    }

    #[test]
    fn one_address_has_a_socket_for_each_thread_and_families_do_not_meet() {
        let both = Sockets::bind("127.0.0.1:0".parse().unwrap(), 0).unwrap().tcp.local_addr().unwrap().port();
        let v4 = Sockets::bind(format!("0.0.0.0:{both}").parse().unwrap(), 3).unwrap();
        assert_eq!(v4.udp.len(), 3);
        if let Err(error) = Sockets::bind(format!("[::]:{both}").parse().unwrap(), 1) {
            assert!(!error.to_string().contains("another program"), "{error}");
        }
    }
}
