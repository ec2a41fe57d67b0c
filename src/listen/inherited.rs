//! Listening sockets that another process had.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use socket2::{Socket, Type};

/// Sockets by their addresses, to be taken before one is bound. Nothing, but for a process that takes over.
#[derive(Default)]
pub struct Inherited {
    tcp: HashMap<SocketAddr, TcpListener>,
    udp: HashMap<SocketAddr, Vec<UdpSocket>>,
}

impl Inherited {
    /// Adds a socket of either protocol.
    ///
    /// # Errors
    /// It is no socket that listens on an address.
    pub fn add(&mut self, socket: OwnedFd) -> io::Result<()> {
        let socket = Socket::from(socket);
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        match socket.r#type()? {
            Type::DGRAM => self.udp.entry(addr).or_default().push(socket.into()),
            _ => drop(self.tcp.insert(addr, socket.into())),
        }
        Ok(())
    }

    pub fn tcp(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        self.tcp.remove(&addr)
    }

    /// All that share the address.
    pub fn udp(&mut self, addr: SocketAddr) -> Vec<UdpSocket> {
        self.udp.remove(&addr).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tcp.len() + self.udp.values().map(Vec::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_by_protocol_and_address_and_once() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = tcp.local_addr().expect("it is bound");
        let udp = UdpSocket::bind(addr).expect("the same port over UDP");
        let mut inherited = Inherited::default();
        for socket in [OwnedFd::from(tcp), udp.try_clone().expect("another").into(), udp.into()] {
            inherited.add(socket).expect("it has an address");
        }
        assert_eq!(inherited.len(), 3);
        assert_eq!(inherited.tcp(addr).expect("it is there").local_addr().expect("bound"), addr);
        assert_eq!((inherited.tcp(addr).is_some(), inherited.udp(addr).len()), (false, 2));
        assert!(inherited.is_empty());
        let (pipe, _) = std::io::pipe().expect("a pipe");
        assert!(inherited.add(pipe.into()).is_err());
    }
}
