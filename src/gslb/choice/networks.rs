//! What holds for the networks of a list, the longest match first, and how far around an address it holds.

use std::net::IpAddr;

use ipnet::IpNet;

/// A value for each address of some networks. Kept as the addresses from which on another value holds, so that finding
/// one is a binary search, and the neighbours tell the scope.
#[derive(Clone, Debug)]
pub struct NetworkMap<T> {
    v4: Line<T>,
    v6: Line<T>,
}

/// All addresses of one family, from 0 on, by where a value begins to hold. IPv4 addresses are the first 32 bits.
#[derive(Clone, Debug)]
struct Line<T>(Box<[(u128, Option<T>)]>);

impl<T: Copy + PartialEq> NetworkMap<T> {
    pub fn new(networks: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) =
            networks.into_iter().partition(|(network, _)| matches!(network, IpNet::V4(_)));
        Self { v4: Line::new(v4), v6: Line::new(v6) }
    }

    /// What holds for an address, and the length of the longest prefix of it with which that holds for all.
    pub fn find(&self, address: IpAddr) -> (Option<T>, u8) {
        let line = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        line.find(bits(address))
    }
}

impl<T: Copy + PartialEq> Line<T> {
    fn new(mut networks: Vec<(IpNet, T)>) -> Self {
        // What is wider first, so that what is inside it overwrites.
        networks.sort_by_key(|(network, _)| network.prefix_len());
        let mut line: Vec<(u128, Option<T>)> = vec![(0, None)];
        for (network, value) in networks {
            let (first, last) = (bits(network.network()), last(network));
            let begin = line.partition_point(|(start, _)| *start < first);
            let end = line.partition_point(|(start, _)| *start <= last);
            let after = line[end - 1].1;
            let mut insert = vec![(first, Some(value))];
            if let Some(next) = last.checked_add(1)
                && line.get(end).is_none_or(|(start, _)| *start != next)
            {
                insert.push((next, after));
            }
            line.splice(begin..end, insert);
        }
        line.dedup_by(|next, before| next.1 == before.1);
        Self(line.into())
    }

    fn find(&self, address: u128) -> (Option<T>, u8) {
        let after = self.0.partition_point(|(start, _)| *start <= address);
        let (start, value) = self.0[after - 1];
        let apart = |other: u128| (address ^ other).leading_zeros() as u8 + 1;
        let before = start.checked_sub(1).map_or(0, apart);
        let behind = self.0.get(after).map_or(0, |(next, _)| apart(*next));
        (value, before.max(behind))
    }
}

/// An address at the upper end, so that prefixes count from the same bit in both families.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn last(network: IpNet) -> u128 {
    let len = u32::from(network.prefix_len());
    bits(network.network()) | u128::MAX.checked_shr(len).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(networks: &[(&str, u8)]) -> NetworkMap<u8> {
        NetworkMap::new(networks.iter().map(|(network, value)| (network.parse().unwrap(), *value)))
    }

    #[test]
    fn the_longest_match_holds_and_its_scope_leaves_out_what_is_special() {
        let map = map(&[
            ("10.0.0.0/8", 1),
            ("10.1.0.0/16", 2),
            ("0.0.0.0/0", 9),
            ("2001:db8::/32", 3),
            ("255.0.0.0/8", 4),
        ]);
        for (address, value, scope) in [
            ("10.1.2.3", Some(2), 16),
            ("10.2.0.1", Some(1), 15),
            ("10.128.0.1", Some(1), 9),
            ("192.0.2.1", Some(9), 3),
            ("255.255.255.255", Some(4), 8),
            ("2001:db8::1", Some(3), 32),
            ("2001:db9::1", None, 32),
            ("::1", None, 3),
        ] {
            assert_eq!(map.find(address.parse().unwrap()), (value, scope), "{address}");
        }
        assert_eq!(self::map(&[]).find("10.0.0.1".parse().unwrap()), (None, 0));
    }

    proptest! {
        #[test]
        fn it_is_what_a_search_through_the_list_finds(
            networks in prop::collection::vec((any::<u32>(), 0_u8..=32, 0_u8..3), 0..12),
            address in any::<u32>(),
            other in any::<u32>(),
        ) {
            let mut list: Vec<(IpNet, u8)> = Vec::new();
            for (address, len, value) in networks {
                let network = IpNet::new(IpAddr::V4(address.into()), len).unwrap().trunc();
                if list.iter().all(|(known, _)| *known != network) {
                    list.push((network, value));
                }
            }
            let search = |address: IpAddr| {
                let holding = list.iter().filter(|(network, _)| network.contains(&address));
                holding.max_by_key(|(network, _)| network.prefix_len()).map(|(_, value)| *value)
            };
            let map = NetworkMap::new(list.clone());
            let (value, scope) = map.find(IpAddr::V4(address.into()));
            prop_assert_eq!(value, search(IpAddr::V4(address.into())));
            let mask = u32::MAX.checked_shr(scope.into()).unwrap_or(0);
            let near = (address & !mask) | (other & mask);
            prop_assert_eq!(search(IpAddr::V4(near.into())), value, "everyone in the scope gets the same");
        }
    }
}
