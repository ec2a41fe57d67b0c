//! Listening sockets, made before anything is served so that a taken port is a message and not a surprise.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use rustix::net::sockopt::set_socket_reuseport;
use socket2::{Domain, Protocol, Socket, Type};

/// Opens a socket that listens on `addr`, ready for [`super::Listeners::add`]. Port 0 takes a free one.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    listening(addr, false)
}

/// The same where other processes of this user may listen on `addr` too, if they say so as well: the kernel spreads
/// connections over them (`SO_REUSEPORT`).
pub fn bind_shared(addr: SocketAddr) -> Result<TcpListener, BindError> {
    listening(addr, true)
}

fn listening(addr: SocketAddr, is_shared: bool) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of an earlier run that the kernel still remembers do not hold the port.
        socket.set_reuse_address(true)?;
        set_socket_reuseport(&socket, is_shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| BindError::new(addr, source))
}

/// Why a socket does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{0}: another program listens there; end it (`ss -ltnp` names it) or choose another port")]
    InUse(SocketAddr),
    #[error("{0}: this machine has no such address; choose one that `ip address` lists, or 0.0.0.0 for all")]
    NotHere(SocketAddr),
    #[error(
        "{0}: not permitted; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose another port"
    )]
    Permission(SocketAddr),
    #[error("{addr}: {source}")]
    Other { addr: SocketAddr, source: io::Error },
}

impl BindError {
    /// What the system's answer to a wish for an address means.
    pub fn new(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(addr),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(addr),
            io::ErrorKind::PermissionDenied => Self::Permission(addr),
            _ => Self::Other { addr, source },
        }
    }
}

/// Connections that the kernel completes before we accept them; it caps the number itself (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shared_only_if_both_say_so() {
        let first = bind_shared("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = first.local_addr().unwrap();
        assert!(matches!(bind(addr), Err(BindError::InUse(_))));
        assert_eq!(bind_shared(addr).unwrap().local_addr().unwrap(), addr);
    }

    #[test]
    fn a_taken_port_and_a_foreign_address_are_named() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = first.local_addr().unwrap();
        let taken = bind(addr).unwrap_err();
        assert!(matches!(taken, BindError::InUse(in_use) if in_use == addr));
        assert!(taken.to_string().starts_with(&addr.to_string()), "{taken}");
        // 192.0.2.0/24 is reserved for documentation: no machine has it.
        assert!(matches!(bind("192.0.2.1:0".parse().unwrap()), Err(BindError::NotHere(_))));
    }
}
