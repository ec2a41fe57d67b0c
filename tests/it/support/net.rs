//! Addresses that nobody else uses: each from a loopback address of its own.
//!
//! A port that was free a moment ago on 127.0.0.1 may be some client's source port when it is bound again. Clients
//! that connect to 127.x.y.z come from 127.0.0.1, so there a port stays free.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// A loopback address that no other test of this run has.
pub fn own_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed) + 1;
    let run = (std::process::id() % 200 + 20) as u8;
    IpAddr::V4(Ipv4Addr::new(127, run, (n / 250) as u8, (n % 250) as u8 + 1))
}

/// A free port on [`own_ip`].
pub fn free_addr() -> SocketAddr {
    free_addr_on(own_ip())
}

/// A free port on an address.
pub fn free_addr_on(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a loopback address has a free port");
    listener.local_addr().expect("a bound socket has an address")
}
