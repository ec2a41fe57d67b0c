//! The OPT record of a query: sizes, client subnet, cookie (RFC 6891, 7871, 7873).
//!
//! It is read here and not by the library, which logs a warning for a malformed option, that is for whatever a
//! stranger sends, takes no care of bits beyond a prefix, and copies every option.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::Edns as Opt,
    rr::rdata::opt::{ClientSubnet, EdnsOption},
};

/// What a client says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Edns {
    /// The longest answer over UDP that it takes.
    pub payload: u16,
    pub version: u8,
    /// It wants signatures (DO).
    pub dnssec_ok: bool,
    pub subnet: Option<Subnet>,
    pub cookie: Option<Cookie>,
}

/// For whose sake a resolver asks. The bits beyond the prefix are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    pub address: IpAddr,
    pub prefix: u8,
}

/// The client's half, and what it got from a server before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cookie {
    pub client: [u8; 8],
    /// `None`: it has none, or one of a length that is not ours.
    pub server: Option<[u8; 16]>,
}

/// An option that is not what its specification says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Edns {
    /// Of an OPT record's class, time to live and data.
    pub fn read(class: u16, ttl: u32, data: &[u8]) -> Result<Self, Malformed> {
        let [_, version, flags, _] = ttl.to_be_bytes();
        let mut edns = Self { payload: class, version, dnssec_ok: flags & DNSSEC_OK != 0, ..Self::default() };
        // Options of a version that is not known may mean anything.
        if version != 0 {
            return Ok(edns);
        }
        let mut rest = data;
        while !rest.is_empty() {
            let (code, after) = take_u16(rest)?;
            let (length, after) = take_u16(after)?;
            let (value, after) = after.split_at_checked(length.into()).ok_or(Malformed)?;
            match code {
                SUBNET if edns.subnet.is_none() => edns.subnet = Subnet::read(value)?,
                COOKIE if edns.cookie.is_none() => edns.cookie = Some(Cookie::read(value)?),
                _ => {}
            }
            rest = after;
        }
        Ok(edns)
    }
}

impl Subnet {
    /// `None`: of a family that we do not know, which is as if there were no option.
    fn read(value: &[u8]) -> Result<Option<Self>, Malformed> {
        let (family, value) = take_u16(value)?;
        let [prefix, scope, octets @ ..] = value else { return Err(Malformed) };
        if *scope != 0 || octets.len() != usize::from(*prefix).div_ceil(8) {
            return Err(Malformed);
        }
        let address = match family {
            1 => IpAddr::from(Ipv4Addr::from(padded(octets)?)),
            2 => IpAddr::from(Ipv6Addr::from(padded(octets)?)),
            _ => return Ok(None),
        };
        let network = ipnet::IpNet::new(address, *prefix).map_err(|_| Malformed)?;
        let clean = network.network() == address;
        clean.then_some(Some(Self { address, prefix: *prefix })).ok_or(Malformed)
    }
}

impl Cookie {
    fn read(value: &[u8]) -> Result<Self, Malformed> {
        let (client, server) = value.split_first_chunk().ok_or(Malformed)?;
        match server.len() {
            0 | 8..=32 => Ok(Self { client: *client, server: server.try_into().ok() }),
            _ => Err(Malformed),
        }
    }
}

/// The OPT record of an answer.
pub(super) struct Said {
    /// The longest query over UDP that we take.
    pub payload: u16,
    /// Whether the client has said so (RFC 3225).
    pub dnssec_ok: bool,
    /// The subnet that was asked for, and for which networks around it the answer holds.
    pub subnet: Option<(Subnet, u8)>,
    /// Ours to a client that sent one.
    pub cookie: Option<([u8; 8], [u8; 16])>,
}

impl Said {
    /// As a record, with the high bits of an rcode.
    pub fn record(&self, rcode_high: u8) -> Opt {
        let mut opt = Opt::new();
        opt.set_max_payload(self.payload).set_rcode_high(rcode_high).set_dnssec_ok(self.dnssec_ok);
        if let Some((Subnet { address, prefix }, scope)) = self.subnet {
            opt.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(address, prefix, scope)));
        }
        if let Some((client, server)) = self.cookie {
            let cookie = [&client[..], &server].concat();
            opt.options_mut().insert(EdnsOption::Unknown(COOKIE, cookie));
        }
        opt
    }

    /// Its bytes on the wire.
    pub fn length(&self) -> u16 {
        let subnet = self.subnet.map_or(0, |(subnet, _)| 8 + u16::from(subnet.prefix).div_ceil(8));
        let cookie = self.cookie.map_or(0, |_| 4 + 24);
        11 + subnet + cookie
    }
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    Ok((u16::from_be_bytes(*head), rest))
}

fn padded<const N: usize>(octets: &[u8]) -> Result<[u8; N], Malformed> {
    let mut all = [0; N];
    all.get_mut(..octets.len()).ok_or(Malformed)?.copy_from_slice(octets);
    Ok(all)
}

/// In the upper byte of the flags.
const DNSSEC_OK: u8 = 0x80;

const SUBNET: u16 = 8;
const COOKIE: u16 = 10;

#[cfg(test)]
mod tests {
    use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

    use super::*;

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    #[test]
    fn client_subnets_are_exact_or_malformed() {
        let subnet = |text: &str, prefix| Ok(Some(Subnet { address: text.parse().unwrap(), prefix }));
        for (value, expected) in [
            (&[0, 1, 24, 0, 192, 0, 2][..], subnet("192.0.2.0", 24)),
            (&[0, 1, 32, 0, 192, 0, 2, 1], subnet("192.0.2.1", 32)),
            (&[0, 1, 0, 0], subnet("0.0.0.0", 0)),
            (&[0, 2, 20, 0, 0x20, 1, 0x10], subnet("2001:1000::", 20)),
            // A family of the future.
            (&[0, 9, 8, 0, 1], Ok(None)),
            // Bits beyond the prefix; too few and too many octets; a scope in a query; prefixes too long; cut.
            (&[0, 1, 23, 0, 192, 0, 3], Err(Malformed)),
            (&[0, 1, 24, 0, 192, 0], Err(Malformed)),
            (&[0, 1, 24, 0, 192, 0, 2, 0], Err(Malformed)),
            (&[0, 1, 24, 24, 192, 0, 2], Err(Malformed)),
            (&[0, 1, 33, 0, 192, 0, 2, 1, 0], Err(Malformed)),
            (&[0, 2, 255, 0, 1], Err(Malformed)),
            (&[0, 1, 24], Err(Malformed)),
            (&[], Err(Malformed)),
        ] {
            let edns = Edns::read(1232, 0, &option(SUBNET, value)).map(|edns| edns.subnet);
            assert_eq!(edns, expected, "{value:?}");
        }
    }

    #[test]
    fn cookies_have_one_half_or_two() {
        for (length, expected) in [
            (8, Ok(None)),
            (24, Ok(Some([7; 16]))),
            // A server half of another server's making.
            (16, Ok(None)),
            (40, Ok(None)),
            (0, Err(Malformed)),
            (7, Err(Malformed)),
            (15, Err(Malformed)),
            (41, Err(Malformed)),
        ] {
            let edns = Edns::read(1232, 0, &option(COOKIE, &vec![7; length]));
            assert_eq!(edns.map(|edns| edns.cookie.unwrap().server), expected, "{length}");
        }
    }

    #[test]
    fn unknown_options_are_passed_over_and_cut_ones_are_malformed() {
        let unknown = option(65001, &[1, 2, 3]);
        assert!(Edns::read(1232, 0, &unknown).is_ok());
        for cut in 1..unknown.len() {
            assert_eq!(Edns::read(1232, 0, &unknown[..cut]), Err(Malformed), "{cut}");
        }
        let of_a_later_version = Edns::read(1232, 1 << 16, &unknown[..3]).expect("its options are not read");
        assert_eq!(of_a_later_version.version, 1);
    }

    #[test]
    fn the_length_of_what_is_said_is_known_before() {
        for (address, prefix) in [("192.0.2.0", 24), ("2001:db8::", 33), ("0.0.0.0", 0)] {
            let subnet = Subnet { address: address.parse().unwrap(), prefix };
            for subnet in [None, Some((subnet, 16))] {
                for cookie in [None, Some(([1; 8], [2; 16]))] {
                    let said = Said { payload: 1232, dnssec_ok: true, subnet, cookie };
                    let mut bytes = Vec::new();
                    said.record(1).emit(&mut BinEncoder::new(&mut bytes)).unwrap();
                    assert_eq!(bytes.len(), usize::from(said.length()));
                }
            }
        }
    }
}
