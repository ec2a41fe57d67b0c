//! What a connection to a server begins with where its pool wants the client's address told by the PROXY protocol
//! (haproxy.org, `doc/proxy-protocol.txt`). It holds for all that follows, so such a connection is for one client.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::config::ProxyProtocol;

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preface(Arc<[u8]>);

impl Preface {
    /// Of a client that is connected to `local`.
    pub fn of_client(version: ProxyProtocol, client: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let (client, local) = (canonical(client), canonical(local));
        Self(match version {
            ProxyProtocol::V1 => text(client, local).into_bytes().into(),
            ProxyProtocol::V2 => binary(client, local).into(),
        })
    }

    /// Of a connection that is for no client, as a probe's: who connects is who it is.
    pub fn of_no_client(version: ProxyProtocol) -> Self {
        Self(match version {
            ProxyProtocol::V1 => UNKNOWN.as_bytes().into(),
            ProxyProtocol::V2 => [&SIGNATURE[..], &[LOCAL, UNSPECIFIED, 0, 0]].concat().into(),
        })
    }

    /// Writes it on a new connection.
    pub async fn write(&self, connection: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        connection.write_all(&self.0).await
    }

    /// Tells the connections of one client from those of others.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}

/// A new connection to a server, which begins with the header if there is one; `from`: the address of this machine that
/// it comes from, else the system chooses.
pub async fn connect(
    from: Option<IpAddr>,
    to: SocketAddr,
    preface: Option<&Preface>,
) -> io::Result<TcpStream> {
    let mut connection = match from {
        None => TcpStream::connect(to).await?,
        Some(from) => connect_from(from, to).await?,
    };
    if let Some(preface) = preface {
        preface.write(&mut connection).await?;
    }
    Ok(connection)
}

async fn connect_from(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The port is chosen when the server is known: one port may serve connections to several.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    let unbound = |error: io::Error| io::Error::new(error.kind(), format!("from snat_ip {from}: {error}"));
    socket.bind((from, 0).into()).map_err(unbound)?;
    socket.connect(to).await
}

/// Version 1. It cannot say that the families differ.
fn text(client: SocketAddr, local: SocketAddr) -> String {
    let family = match (client, local) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return UNKNOWN.to_owned(),
    };
    let (from, to) = (client.ip(), local.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port())
}

/// Version 2. Where the families differ, IPv4 is written as IPv6 has it.
fn binary(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (TCP_OVER_IPV4, [from.octets(), to.octets()].concat()),
        (from, to) => (TCP_OVER_IPV6, [v6(from), v6(to)].concat()),
    };
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    let length = u16::try_from(addresses.len() + ports.len()).expect("two addresses are short");
    [&SIGNATURE[..], &[PROXIED, family], &length.to_be_bytes(), &addresses, &ports].concat()
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const UNKNOWN: &str = "PROXY UNKNOWN\r\n";
/// Version 2, on behalf of somebody.
const PROXIED: u8 = 0x21;
/// Version 2, on behalf of nobody.
const LOCAL: u8 = 0x20;
const UNSPECIFIED: u8 = 0;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_of_in_either_version() {
        let mapped = "20010db8000000000000000000000001";
        for (client, local, v1, v2) in [
            (
                "192.0.2.7:51000",
                "198.51.100.1:443",
                "PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n",
                "2111000cc0000207c6336401c73801bb".to_owned(),
            ),
            (
                "[2001:db8::1]:1",
                "[2001:db8::1]:65535",
                "PROXY TCP6 2001:db8::1 2001:db8::1 1 65535\r\n",
                format!("21210024{mapped}{mapped}0001ffff"),
            ),
            (
                "[::ffff:192.0.2.7]:51000",
                "198.51.100.1:443",
                "PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n",
                "2111000cc0000207c6336401c73801bb".to_owned(),
            ),
            (
                "[2001:db8::1]:0",
                "198.51.100.1:443",
                "PROXY UNKNOWN\r\n",
                format!("21210024{mapped}00000000000000000000ffffc6336401000001bb"),
            ),
        ] {
            let (client, local) = (client.parse().expect("an address"), local.parse().expect("an address"));
            assert_eq!(*Preface::of_client(ProxyProtocol::V1, client, local).0, *v1.as_bytes());
            let binary = Preface::of_client(ProxyProtocol::V2, client, local);
            let (signature, rest) = binary.0.split_at(12);
            assert_eq!(signature, b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a");
            let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(rest, v2);
        }
    }

    #[test]
    fn a_connection_for_nobody_says_so_in_either_version() {
        assert_eq!(*Preface::of_no_client(ProxyProtocol::V1).0, *b"PROXY UNKNOWN\r\n");
        let binary = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00";
        assert_eq!(*Preface::of_no_client(ProxyProtocol::V2).0, *binary);
    }

    #[test]
    fn connections_of_different_clients_are_told_apart() {
        let local = SocketAddr::from(([198, 51, 100, 1], 443));
        let of =
            |port| Preface::of_client(ProxyProtocol::V1, SocketAddr::from(([192, 0, 2, 7], port)), local);
        assert_eq!(of(1).fingerprint(), of(1).fingerprint());
        assert_ne!(of(1).fingerprint(), of(2).fingerprint());
    }
}
