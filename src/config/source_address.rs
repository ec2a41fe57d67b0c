//! The addresses of this machine that connections to a pool's servers come from.
//!
//! Avi says SNAT address, HAProxy `source`, nginx `proxy_bind`.

use std::net::IpAddr;

use super::{
    Server,
    problem::{Wrong, shown},
    read::Object,
    words,
    yaml::Node,
};

/// None: the system chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAddresses(Vec<IpAddr>);

impl SourceAddresses {
    /// `servers`: those of the pool whose addresses are known.
    pub(super) fn read(o: &mut Object<'_>, servers: &[Server]) -> Self {
        let addresses = o.list(KEY, source).unwrap_or_default();
        o.not_empty(KEY, "write at least one, or leave the key out: then the system chooses");
        for (n, ip) in addresses.iter().enumerate() {
            if addresses[..n].contains(ip) {
                o.wrong(KEY, format!("{ip} is there twice"), "leave one of the two out");
            }
        }
        let sources = Self(addresses);
        let is_reached = |server: &&Server| sources.is_empty() || sources.of(server.addr.ip(), 0).is_some();
        if let Some(server) = servers.iter().find(|server| !is_reached(server)) {
            let (family, example) = match server.addr.is_ipv4() {
                true => ("IPv4", "10.0.0.9"),
                false => ("IPv6", "2001:db8::9"),
            };
            let what = format!("server {} is reached by {family}, and none of these is", server.addr);
            o.wrong(KEY, what, format!("add an {family} address of this machine, as in `{example}`"));
        }
        sources
    }

    /// The address of a connection to this server: those of its family in turn. `None`: the system chooses.
    pub fn of(&self, server: IpAddr, turn: usize) -> Option<IpAddr> {
        let fitting = || self.0.iter().filter(|ip| ip.is_ipv4() == server.is_ipv4());
        match fitting().count() {
            0 => None,
            1 => fitting().next().copied(),
            several => fitting().nth(turn % several).copied(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn all(&self) -> &[IpAddr] {
        &self.0
    }
}

fn source(node: &Node) -> Result<IpAddr, Wrong> {
    let ip = words::ip(node)?;
    if ip.is_unspecified() || ip.is_multicast() {
        let help = "write one that an interface of this machine has, as in `10.0.0.9`";
        return Err(Wrong::new(format!("{} is no address of a machine", shown(&ip.to_string())), help));
    }
    Ok(ip)
}

const KEY: &str = "snat_ip";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_servers_family_take_turns() {
        let addresses = ["10.0.0.8", "2001:db8::8", "10.0.0.9"];
        let sources = SourceAddresses(addresses.map(|ip| ip.parse().expect("an address")).into());
        for (server, turns) in
            [("10.0.0.1", ["10.0.0.8", "10.0.0.9", "10.0.0.8"]), ("2001:db8::1", ["2001:db8::8"; 3])]
        {
            let server = server.parse().expect("an address");
            let got = [0, 1, 2].map(|turn| sources.of(server, turn).map(|ip| ip.to_string()));
            assert_eq!(got, turns.map(|ip| Some(ip.to_owned())));
        }
        assert_eq!(SourceAddresses::default().of("10.0.0.1".parse().expect("an address"), 7), None);
    }
}
