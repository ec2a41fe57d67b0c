//! What one client may have of a listener before anything is known of it but its address: so many connections at a
//! time, and so many new ones in a second. The others still get in.
//!
//! Who is connected is known exactly, in a table that is as large as there are clients; how often they came, in a memory
//! that is fixed (see [`crate::buckets`]).
//!
//! Known elsewhere as: nginx's `limit_conn`, Avi's `max_cps_per_client`, HAProxy's `src_conn_cur` and `src_conn_rate`.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::Refusal;
use crate::{
    buckets::{Buckets, Rate, one_client, write_address},
    config::ClientLimits,
};

/// What clients may, who is connected, and how often they came.
pub struct ClientCaps {
    limits: ClientLimits,
    connected: Arc<Connected>,
    arrivals: Option<Buckets>,
}

/// Clients that are connected, with the number of their connections. It outlives a change of the limits.
#[derive(Debug, Default)]
pub struct Connected(Mutex<HashMap<IpAddr, u32>>);

impl ClientCaps {
    /// `key`: random, so that nobody can choose who is forgotten for whom.
    pub fn new(limits: ClientLimits, connected: Arc<Connected>, key: [u8; 16], now: Instant) -> Self {
        let rate = limits.max_cps_per_client.map(Rate::per_second);
        let arrivals = rate.map(|rate| Buckets::new(rate, ARRIVALS, key, now));
        Self { limits, connected, arrivals }
    }

    pub fn limits(&self) -> ClientLimits {
        self.limits
    }

    pub fn connected(&self) -> Arc<Connected> {
        self.connected.clone()
    }

    /// Counts a client in, until what is returned is dropped.
    pub(super) fn admit(&self, client: IpAddr, now: Instant) -> Result<Guest, Refusal> {
        let client = one_client(client);
        let mut connected = self.connected.0.lock();
        let open = connected.entry(client);
        let most = self.limits.max_concurrent_connections_per_client;
        if let (Entry::Occupied(open), Some(most)) = (&open, most)
            && *open.get() >= most
        {
            return Err(Refusal::ClientConnections);
        }
        if let Some(arrivals) = &self.arrivals
            && arrivals.take(|name| write_address(name, client), now).is_err()
        {
            return Err(Refusal::ClientRate);
        }
        *open.or_insert(0) += 1;
        Ok(Guest { connected: self.connected.clone(), client })
    }
}

impl Connected {
    fn leaves(&self, client: IpAddr) {
        let mut connected = self.0.lock();
        if let Entry::Occupied(mut open) = connected.entry(client) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        // After a flood of many the table is given back.
        let clients = connected.len();
        if connected.capacity() > SMALLEST.max(8 * clients) {
            connected.shrink_to(2 * clients);
        }
    }
}

/// One connection of a client.
pub(super) struct Guest {
    connected: Arc<Connected>,
    client: IpAddr,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connected.leaves(self.client);
    }
}

/// Clients whose arrivals are remembered; with 24 bytes for each, 0.8 MiB.
const ARRIVALS: usize = 1 << 15;
const SMALLEST: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn caps(connections: Option<u32>, cps: Option<u32>) -> (ClientCaps, Instant) {
        let limits =
            ClientLimits { max_concurrent_connections_per_client: connections, max_cps_per_client: cps };
        let now = Instant::now();
        (ClientCaps::new(limits, Arc::default(), [1; 16], now), now)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_has_so_many_connections_and_others_have_theirs() {
        let (caps, now) = caps(Some(2), None);
        let admit = |client| caps.admit(ip(client), now);
        let first = admit("192.0.2.1").expect("the first");
        let _second = admit("::ffff:192.0.2.1").expect("the second");
        assert_eq!(admit("192.0.2.1").err(), Some(Refusal::ClientConnections));
        let _other = admit("192.0.2.2").expect("another client");
        drop(first);
        let _again = admit("192.0.2.1").expect("there is room again");
        let household = ["2001:db8::1", "2001:db8::2:3"].map(|client| admit(client).expect("two"));
        assert_eq!(admit("2001:db8::4").err(), Some(Refusal::ClientConnections), "the same household");
        assert!(admit("2001:db8:0:1::4").is_ok());
        drop(household);
        assert!(admit("2001:db8::4").is_ok());
    }

    #[test]
    fn a_client_comes_so_often_in_a_second() {
        let (caps, now) = caps(None, Some(3));
        let of_10 = |client, now| (0..10).filter(|_| caps.admit(ip(client), now).is_ok()).count();
        assert_eq!((of_10("192.0.2.1", now), of_10("192.0.2.2", now)), (3, 3));
        assert_eq!(of_10("192.0.2.1", now + Duration::from_millis(400)), 1);
        assert_eq!(caps.admit(ip("192.0.2.1"), now).err(), Some(Refusal::ClientRate));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (caps, now) = caps(Some(1), None);
        let guests: Vec<_> = (0..50_000_u32)
            .map(|n| caps.admit(IpAddr::from(n.to_be_bytes()), now).expect("each has one"))
            .collect();
        drop(guests);
        let connected = caps.connected.0.lock();
        assert_eq!(connected.len(), 0);
        assert!(connected.capacity() < 4 * SMALLEST, "{}", connected.capacity());
    }
}
