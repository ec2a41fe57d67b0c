//! What servers are told of the client, by homing alone: `X-Forwarded-For`, and `Forwarded` (RFC 7239) with its
//! address and scheme.

use std::net::IpAddr;

use http::HeaderValue;

/// Fields for one client; the same for all requests of its connection.
#[derive(Clone)]
pub(crate) struct Introduction {
    pub(crate) x_forwarded_for: HeaderValue,
    pub(crate) forwarded: HeaderValue,
}

impl Introduction {
    /// `secure`: the client came over TLS.
    pub(super) fn of(client: IpAddr, secure: bool) -> Self {
        let scheme = if secure { "https" } else { "http" };
        // An IPv6 address is no token: it is bracketed and quoted (RFC 7239, 6).
        let forwarded = match client {
            IpAddr::V4(client) => format!("for={client};proto={scheme}"),
            IpAddr::V6(client) => format!("for=\"[{client}]\";proto={scheme}"),
        };
        let value = |text: &str| HeaderValue::from_str(text).expect("addresses and schemes are ASCII");
        Self { x_forwarded_for: value(&client.to_string()), forwarded: value(&forwarded) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_introduced_in_the_form_of_rfc_7239() {
        for (client, secure, address, forwarded) in [
            ("192.0.2.43", false, "192.0.2.43", "for=192.0.2.43;proto=http"),
            ("192.0.2.43", true, "192.0.2.43", "for=192.0.2.43;proto=https"),
            ("2001:db8:cafe::17", true, "2001:db8:cafe::17", "for=\"[2001:db8:cafe::17]\";proto=https"),
        ] {
            let introduction = Introduction::of(client.parse().expect("an address"), secure);
            assert_eq!(introduction.x_forwarded_for, address);
            assert_eq!(introduction.forwarded, forwarded);
        }
    }
}
