//! Echo requests and replies as ICMP (RFC 792) and ICMPv6 (RFC 4443) have them on the wire.

use std::net::IpAddr;

/// One question of a ping: the identifier and the number tell it from those of others, and the payload, which nobody
/// can guess, from what somebody makes up.
pub(super) struct Echo {
    request: [u8; LENGTH],
    reply: u8,
}

impl Echo {
    pub fn new(to: IpAddr, identifier: u16, sequence: u16, payload: [u8; PAYLOAD]) -> Self {
        let (kind, reply) = match to {
            IpAddr::V4(_) => (8, 0),
            IpAddr::V6(_) => (128, 129),
        };
        let mut request = [0; LENGTH];
        request[0] = kind;
        request[4..6].copy_from_slice(&identifier.to_be_bytes());
        request[6..8].copy_from_slice(&sequence.to_be_bytes());
        request[HEADER..].copy_from_slice(&payload);
        // That of ICMPv6 has the addresses in it: the system fills it in.
        if to.is_ipv4() {
            let sum = checksum(&request);
            request[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        Self { request, reply }
    }

    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Whether a message, whose checksum the system has looked at, is the reply to this.
    pub fn is_answered_by(&self, message: &[u8]) -> bool {
        message.starts_with(&[self.reply, 0]) && message.get(4..) == Some(&self.request[4..])
    }
}

/// What follows the header of an IPv4 packet; nothing, if it is none.
pub(super) fn without_ipv4_header(packet: &[u8]) -> &[u8] {
    let length = |first: &u8| usize::from(first & 0x0f) * 4;
    packet.first().and_then(|first| packet.get(length(first)..)).unwrap_or_default()
}

/// The Internet checksum (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let sum: u32 = message.chunks(2).map(word).sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    // The carry of the fold itself.
    !((folded + (folded >> 16)) as u16)
}

const HEADER: usize = 8;

pub(super) const PAYLOAD: usize = 32;

const LENGTH: usize = HEADER + PAYLOAD;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn a_request_is_what_the_rfcs_say() {
        let of = |to| Echo::new(to, 0x1234, 0x0102, *b"abcdefghijklmnopqrstuvwabcdefghi").request;
        assert_eq!(of(V4)[..HEADER], [8, 0, 0x3a, 0x26, 0x12, 0x34, 1, 2]);
        assert_eq!(of(V6)[..HEADER], [128, 0, 0, 0, 0x12, 0x34, 1, 2], "the system fills the sum in");
        assert!(of(V4).ends_with(b"efghi"));
    }

    #[test]
    fn a_message_with_its_checksum_sums_up_to_nothing() {
        for (payload, identifier) in [([0; PAYLOAD], 0), ([0xff; PAYLOAD], 0xffff), ([0x5a; PAYLOAD], 7)] {
            assert_eq!(checksum(Echo::new(V4, identifier, 9, payload).request()), 0);
        }
        // The example of RFC 1071, and one whose last byte has no other.
        assert_eq!(!checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(!checksum(&[0x00, 0x01, 0xf2]), 0xf201);
    }

    #[test]
    fn only_its_own_reply_answers_a_request() {
        for (to, reply) in [(V4, 0), (V6, 129)] {
            let echo = Echo::new(to, 7, 9, [3; PAYLOAD]);
            let mut answer = echo.request;
            assert!(!echo.is_answered_by(&answer), "a request is none, though loopback brings it back");
            answer[0] = reply;
            answer[2] ^= 0xff;
            assert!(echo.is_answered_by(&answer), "the sum of a reply is another");
            for (byte, what) in [(0, "type"), (1, "code"), (5, "identifier"), (7, "number"), (39, "payload")]
            {
                let mut other = answer;
                other[byte] ^= 1;
                assert!(!echo.is_answered_by(&other), "{what}");
            }
            for length in 0..LENGTH {
                assert!(!echo.is_answered_by(&answer[..length]), "{length} bytes of it");
            }
            assert!(!echo.is_answered_by(&[&answer[..], b"more"].concat()));
        }
    }

    #[test]
    fn a_header_with_options_is_left_out_whole_and_half_a_packet_is_nothing() {
        for words in [5_u8, 15] {
            let mut packet = vec![0; usize::from(words) * 4];
            packet[0] = 0x40 | words;
            packet.push(7);
            assert_eq!(without_ipv4_header(&packet), [7]);
            assert!(without_ipv4_header(&packet[..10]).is_empty());
        }
        assert!(without_ipv4_header(&[]).is_empty());
    }
}
