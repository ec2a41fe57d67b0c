//! Server cookies (RFC 7873, in the format of RFC 9018): who can show one has proved that its address is its own.

use std::{hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;

use super::edns::Cookie;
use crate::config::CookieSecret;

/// Makes and believes cookies. Servers with the same secrets believe each other's.
pub(super) struct Cookies {
    /// The first makes them; never empty.
    secrets: Vec<CookieSecret>,
}

impl Cookies {
    /// `random`: the secret where none is configured.
    pub fn new(configured: &[CookieSecret], random: [u8; 16]) -> Self {
        let secrets = match configured {
            [] => vec![CookieSecret::new(random)],
            configured => configured.to_vec(),
        };
        Self { secrets }
    }

    /// The server's half for a client. `now`: seconds since 1970, which may wrap.
    pub fn server(&self, client: [u8; 8], address: IpAddr, now: u32) -> [u8; 16] {
        seal(&self.secrets[0], client, address, now)
    }

    /// Whether a client shows a cookie that it got from us, not long ago, at this address.
    pub fn believes(&self, cookie: &Cookie, address: IpAddr, now: u32) -> bool {
        let Some(server) = cookie.server else { return false };
        let [_, _, _, _, a, b, c, d, ..] = server;
        let made = u32::from_be_bytes([a, b, c, d]);
        // Numbers of a circle (RFC 1982): half of it lies before, half after.
        let age = now.wrapping_sub(made) as i32;
        let genuine = |secret| bool::from(seal(secret, cookie.client, address, made).ct_eq(&server));
        (-CLOCKS_APART..=OLDEST).contains(&age) && self.secrets.iter().any(genuine)
    }
}

fn seal(secret: &CookieSecret, client: [u8; 8], address: IpAddr, made: u32) -> [u8; 16] {
    let mut cookie = [0; 16];
    cookie[0] = VERSION;
    cookie[4..8].copy_from_slice(&made.to_be_bytes());
    let mut hasher = SipHasher24::new_with_key(secret.expose());
    hasher.write(&client);
    hasher.write(&cookie[..8]);
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    cookie[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    cookie
}

const VERSION: u8 = 1;

/// Seconds, as RFC 9018 says.
const OLDEST: i32 = 3600;

/// The same: by so many may another server's clock be ahead.
const CLOCKS_APART: i32 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        for (byte, n) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[n..n + 2], 16).expect("hex digits");
        }
        bytes
    }

    #[test]
    fn cookies_are_those_of_the_rfc() {
        // RFC 9018, appendix A.1, and A.4: a new secret is in use, the old one is believed.
        let first = hex("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let [old, new] = ["dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"].map(hex);
        let client = hex("2464c4abcf10c957");
        let address = "198.51.100.100".parse().unwrap();
        let cookies = Cookies::new(&[CookieSecret::new(first)], [0; 16]);
        assert_eq!(cookies.server(client, address, 1_559_731_985), hex("010000005cf79f111f8130c3eee29480"));
        let v6 = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let rolled = Cookies::new(&[CookieSecret::new(new), CookieSecret::new(old)], [0; 16]);
        let shown =
            Cookie { client: hex("22681ab97d52c298"), server: Some(hex("010000005cf7c57926556bd0934c72f8")) };
        assert!(rolled.believes(&shown, v6, 1_559_741_961));
        assert_eq!(rolled.server(shown.client, v6, 1_559_741_961), hex("010000005cf7c609a6bb79d16625507a"));
    }

    #[test]
    fn a_cookie_is_believed_of_one_address_for_an_hour() {
        let cookies = Cookies::new(&[], [3; 16]);
        let (client, address) = ([9; 8], "192.0.2.1".parse().unwrap());
        // Close to where the seconds wrap, in 2106.
        let made = u32::MAX - 10;
        let cookie = Cookie { client, server: Some(cookies.server(client, address, made)) };
        for (later, believed) in
            [(0, true), (3600, true), (3601, false), (-300_i32, true), (-301, false), (i32::MAX, false)]
        {
            let now = made.wrapping_add_signed(later);
            assert_eq!(cookies.believes(&cookie, address, now), believed, "{later}");
        }
        assert!(!cookies.believes(&cookie, "192.0.2.2".parse().unwrap(), made), "another address");
        assert!(!cookies.believes(&Cookie { client: [8; 8], ..cookie }, address, made), "another client");
        assert!(!Cookies::new(&[], [4; 16]).believes(&cookie, address, made), "another server");
        assert!(!cookies.believes(&Cookie { server: None, ..cookie }, address, made), "none");
    }
}
