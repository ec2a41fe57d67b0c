//! Pings: an ICMP echo request and its reply, within `receive_timeout`.
//!
//! Each ping has a socket of its own that is connected to the server. So the system sorts out what is for whom: no
//! other ping's reply and no flood from elsewhere comes near it, and word that the server cannot be reached comes to
//! the ping that it is about. A socket for all pings would be spared a file for each that is under way, and every
//! other probe has one too.
//!
//! It is a datagram socket, for which Linux asks for no capability but for a group in `net.ipv4.ping_group_range`; or
//! a raw one, where the system gives that instead. The crates for pings have one socket for all and do not listen to
//! why there is no reply.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{
    icmp::{Echo, without_ipv4_header},
    probe::Failure,
};
use crate::{config::MonitorType, limits, names::MonitorName, pool::Pool};

/// A monitor of type `ping`, made ready for one server.
pub(super) struct Ping {
    to: IpAddr,
    /// `None`: the system chooses.
    from: Option<IpAddr>,
    receive_timeout: Duration,
    /// Of identifiers and payloads.
    rng: StdRng,
    sequence: u16,
}

/// The system would let no ping of this process out.
#[derive(Debug, thiserror::Error)]
#[error("health monitor `{monitor}`: `type: ping`: this process may send no pings ({error}); {HELP}")]
pub struct PingRefused {
    monitor: MonitorName,
    error: io::Error,
}

/// Asks the system whether it lets pings out, where a monitor of these pools needs it.
///
/// # Errors
/// It does not.
pub fn may_ping(pools: &[Arc<Pool>]) -> Result<(), PingRefused> {
    let mut monitors = pools.iter().flat_map(|pool| &pool.config().monitors);
    let Some(monitor) = monitors.find(|monitor| monitor.kind == MonitorType::Ping) else { return Ok(()) };
    match open(Ipv4Addr::LOCALHOST.into()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(PingRefused { monitor: monitor.name.clone(), error })
        }
        _ => Ok(()),
    }
}

impl Ping {
    pub fn new(server: IpAddr, receive_timeout: Duration, rng: &mut impl Rng) -> Self {
        let to = server.to_canonical();
        Self { to, from: None, receive_timeout, rng: StdRng::from_rng(rng), sequence: 0 }
    }

    /// From this address of the machine.
    pub fn from(self, from: Option<IpAddr>) -> Self {
        Self { from, ..self }
    }

    /// Pings once. Dropping the future ends it.
    pub async fn run(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.receive_timeout;
        let (socket, kind) = open(self.to).map_err(unopened)?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::new(from, 0).into()).map_err(unsent)?;
        }
        let identifier = connect(&socket, self.to, kind).map_err(unsent)?;
        self.sequence = self.sequence.wrapping_add(1);
        let identifier = identifier.unwrap_or_else(|| self.rng.random());
        let echo = Echo::new(self.to, identifier, self.sequence, self.rng.random());
        socket.send(echo.request()).map_err(unsent)?;
        let reply = reply(socket, &echo, kind == Type::RAW && self.to.is_ipv4());
        timeout_at(deadline, reply).await.map_err(|_| Failure::NoReply(self.receive_timeout))?
    }
}

/// A socket for pings to an address, and which of the two types it is.
fn open(to: IpAddr) -> io::Result<(Socket, Type)> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let of = |kind| Ok((Socket::new(domain, kind, Some(protocol))?, kind));
    of(Type::DGRAM).or_else(|refused| of(Type::RAW).map_err(|_: io::Error| refused))
}

/// Has the system tell this socket alone what comes from the server and what is said of it. The identifier, where
/// the system and not the sender chooses it.
fn connect(socket: &Socket, to: IpAddr, kind: Type) -> io::Result<Option<u16>> {
    socket.set_nonblocking(true)?;
    // Without it, unreachable hosts and networks would be passed over in silence.
    match to {
        IpAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    socket.connect(&SocketAddr::new(to, 0).into())?;
    let own = socket.local_addr()?.as_socket();
    Ok(own.filter(|_| kind == Type::DGRAM).map(|own| own.port()))
}

/// Waits for the reply among whatever else the server sends.
async fn reply(socket: Socket, echo: &Echo, has_header: bool) -> Result<(), Failure> {
    // Tokio has no other sockets that bring datagrams, and what is in them is nothing to it.
    let socket = UdpSocket::from_std(socket.into()).map_err(unopened)?;
    let mut buffer = [0; LARGEST_REPLY];
    loop {
        let read = || (&*SockRef::from(&socket)).read(&mut buffer);
        let read = socket.async_io(Interest::READABLE | Interest::ERROR, read).await;
        let packet = &buffer[..read.map_err(unreachable)?];
        let message = if has_header { without_ipv4_header(packet) } else { packet };
        if echo.is_answered_by(message) {
            return Ok(());
        }
    }
}

/// There is no socket.
fn unopened(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::Ours { error: error.to_string(), help: HELP },
        _ => unsent(error),
    }
}

fn unsent(error: io::Error) -> Failure {
    if let Some(help) = limits::shortage(&error) {
        return Failure::Ours { error: error.to_string(), help };
    }
    match Errno::from_io_error(&error) {
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => Failure::NoRoute,
        _ => Failure::Unsent(error.to_string()),
    }
}

/// A router, or the server itself, has said so.
fn unreachable(error: io::Error) -> Failure {
    Failure::Unreachable(match Errno::from_io_error(&error) {
        Some(Errno::NETUNREACH) => "network".into(),
        Some(Errno::HOSTUNREACH) => "host".into(),
        Some(Errno::NOPROTOOPT) => "protocol".into(),
        Some(Errno::CONNREFUSED) => "port".into(),
        Some(Errno::ACCESS) => "prohibited".into(),
        _ => error.to_string(),
    })
}

const HELP: &str = "allow them to its group with sysctl net.ipv4.ping_group_range=\"0 2147483647\", of which a \
                    container has its own (`--sysctl`, a pod's `sysctls`), or give it CAP_NET_RAW";

/// Ours, in an IPv4 packet with all options; what is longer is none.
const LARGEST_REPLY: usize = 128;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    /// Whether this machine lets these tests ping.
    fn allowed(to: IpAddr) -> bool {
        open(to).is_ok()
    }

    #[tokio::test]
    async fn what_is_there_answers_where_the_system_lets_pings_out() {
        let loopback: [IpAddr; 3] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        ];
        for to in loopback {
            let mut ping = Ping::new(to, Duration::from_secs(20), &mut rand::rng());
            for _ in 0..3 {
                let answered = ping.run().await;
                match allowed(ping.to) {
                    true => assert_eq!(answered, Ok(()), "{to}"),
                    false => assert!(matches!(answered, Err(Failure::Ours { .. })), "{to}: {answered:?}"),
                }
            }
        }
    }

    #[test]
    fn why_a_ping_fails_is_told_in_words() {
        let of = |errno: Errno| io::Error::from(errno);
        assert_eq!(unsent(of(Errno::NETUNREACH)), Failure::NoRoute);
        assert!(matches!(unsent(of(Errno::NOBUFS)), Failure::Ours { .. }));
        assert!(matches!(unopened(of(Errno::ACCESS)), Failure::Ours { help: HELP, .. }));
        assert!(matches!(unopened(of(Errno::MFILE)), Failure::Ours { .. }));
        for (failure, reason) in [
            (unsent(of(Errno::PERM)), "echo request not sent: Operation not permitted (os error 1)"),
            (unreachable(of(Errno::HOSTUNREACH)), "destination unreachable: host"),
            (unreachable(of(Errno::ACCESS)), "destination unreachable: prohibited"),
            (unreachable(of(Errno::PROTO)), "destination unreachable: Protocol error (os error 71)"),
            (Failure::NoReply(Duration::from_secs(1)), "no echo reply within 1s"),
        ] {
            assert_eq!(failure.to_string(), reason);
        }
    }
}
