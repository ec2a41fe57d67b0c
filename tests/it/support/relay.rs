//! A server that wants to be told of its clients by the PROXY protocol.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::net;

/// Stands before a server, takes the PROXY header off each connection, and passes on what follows. A connection that
/// begins with something else is closed.
pub struct Relay {
    pub addr: SocketAddr,
    headers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let headers = Arc::new(Mutex::new(Vec::new()));
        let seen = headers.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let Some(header) = proxy_header(&mut stream).await else { return };
                    seen.lock().push(header);
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        copy_bidirectional(&mut stream, &mut server).await.ok();
                    }
                });
            }
        });
        Self { addr, headers }
    }

    /// Of all connections so far.
    pub fn headers(&self) -> Vec<Vec<u8>> {
        self.headers.lock().clone()
    }
}

/// Reads exactly a header of either version, and nothing behind it; `None`: something else comes.
async fn proxy_header(stream: &mut TcpStream) -> Option<Vec<u8>> {
    // The shortest of version 1 is no longer.
    let mut header = vec![0; 15];
    stream.read_exact(&mut header).await.ok()?;
    if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            header.push(stream.read_u8().await.ok()?);
        }
    } else if header.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        header.push(stream.read_u8().await.ok()?);
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.resize(16 + rest, 0);
        stream.read_exact(&mut header[16..]).await.ok()?;
    } else {
        return None;
    }
    Some(header)
}

/// Whether a header tells of a client at `from` that is connected to `to`.
pub fn tells(header: &[u8], from: IpAddr, to: SocketAddr) -> bool {
    let (IpAddr::V4(client), SocketAddr::V4(local)) = (from, to) else { return false };
    match std::str::from_utf8(header).ok().and_then(|line| line.strip_prefix("PROXY TCP4 ")) {
        Some(line) => {
            let words: Vec<_> = line.trim_end().split(' ').collect();
            let port_is_one = words[2].parse::<u16>().is_ok_and(|port| port > 0);
            words[..2] == [client.to_string(), local.ip().to_string()]
                && port_is_one
                && words[3] == local.port().to_string()
        }
        None => {
            let start = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &client.octets(), &local.ip().octets()];
            header.starts_with(&start.concat()) && header.ends_with(&local.port().to_be_bytes())
        }
    }
}
