//! Words with a shape: names, choices, addresses, hosts, headers, files.
//!
//! Like those of `units`, these parsers know nothing of where a value stands.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{
    problem::{Wrong, listed, shown},
    shape::Shape,
    yaml::{Data, Node},
};

/// A text that is not empty.
pub(super) fn text(node: &Node) -> Result<String, Wrong> {
    let wrong = match (&node.data, node.text()) {
        (_, Some("")) => Wrong::new("an empty text", "write something, or leave the key out"),
        (_, Some(text)) => return Ok(text.to_string()),
        (Data::Scalar(_), None) => {
            Wrong::new(format!("{} where a text is meant", node.described()), "put it into quotes")
        }
        _ => Wrong::new(format!("{} where a text is meant", node.described()), "write one text"),
    };
    Err(wrong.expecting(Shape::Text))
}

/// One of some words: our short one or Avi's long one.
pub(super) fn choice<T: Copy>(words: &[(&'static str, &str, T)]) -> impl Fn(&Node) -> Result<T, Wrong> {
    move |node| {
        let known = || {
            let both = words.iter().flat_map(|(short, avi, _)| [*short, *avi]);
            Shape::Words(both.filter(|word| !word.is_empty()).map(str::to_owned).collect())
        };
        let word = text(node).map_err(|wrong| wrong.expecting(known()))?;
        let found = words.iter().find(|(short, avi, _)| word == *short || word == *avi);
        found.map(|(_, _, value)| *value).ok_or_else(|| {
            let help = format!("write one of {}", listed(words.iter().map(|(short, _, _)| *short)));
            Wrong::new(format!("{} is not known here", shown(&word)), help)
        })
    }
}

/// Our short word for a value, as [`choice`] reads it.
pub(super) fn word<T: Copy + PartialEq>(words: &[(&'static str, &str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, _, known)| *known == value);
    found.map(|(short, _, _)| *short).expect("the table has a word for every value")
}

/// The name of an object. Names end up in headers, metrics, paths and tables.
pub(super) fn name(node: &Node) -> Result<String, Wrong> {
    let name = text(node).map_err(|wrong| wrong.expecting(NAME))?;
    let fits =
        name.len() <= 128 && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b';' && b != b'"');
    if fits && name.trim() == name {
        return Ok(name);
    }
    let help = "write at most 128 ASCII characters, without `;`, quotes and spaces at the ends";
    Err(Wrong::new(format!("{} cannot be a name", shown(&name)), help))
}

/// An identifier such as a uuid: letters, digits, `-`, `_` and `.`.
pub(super) fn identifier(node: &Node) -> Result<String, Wrong> {
    let id = text(node).map_err(|wrong| wrong.expecting(IDENTIFIER))?;
    if id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Ok(id);
    }
    let help = "write at most 128 letters, digits, `-`, `_` and `.`";
    Err(Wrong::new(format!("{} cannot be an identifier", shown(&id)), help))
}

/// A uuid such as `509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69`, in lower case.
pub(super) fn uuid(node: &Node) -> Result<String, Wrong> {
    let id = text(node).map_err(|wrong| wrong.expecting(UUID))?;
    let hyphens = [8, 13, 18, 23];
    let fits = |(n, b): (usize, u8)| match hyphens.contains(&n) {
        true => b == b'-',
        false => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
    };
    if id.len() == 36 && id.bytes().enumerate().all(fits) {
        return Ok(id);
    }
    let help = "write 32 lower-case hex digits as 8-4-4-4-12; `homing keys new` makes one";
    Err(Wrong::new(format!("{} is not a uuid", shown(&id)), help))
}

// As the three above: printable ASCII but `"` and `;`, and no space at the ends.
const NAME: Shape = Shape::Matching("^[!#-:<-~]([ !#-:<-~]{0,126}[!#-:<-~])?$");
const IDENTIFIER: Shape = Shape::Matching("^[A-Za-z0-9._-]{1,128}$");
const UUID: Shape = Shape::Matching("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$");

/// The name of a file. Somebody who pastes a key here is told so without an echo.
pub(super) fn file_name(node: &Node) -> Result<String, Wrong> {
    let name = text(node)?;
    let looks_like_key = name.len() >= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if looks_like_key || name.contains("-----BEGIN") || name.contains(['\n', '\0']) {
        return Err(Wrong::new("a key where a file's name is meant", "put the key into a file of mode 0600"));
    }
    Ok(name)
}

pub(super) fn ip(node: &Node) -> Result<IpAddr, Wrong> {
    let ip = text(node)?;
    ip.parse().map_err(|_| {
        Wrong::new(format!("{} is not an IP address", shown(&ip)), "write it as in `10.0.0.1` or `\"::1\"`")
    })
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new(
            format!("{} is not an address with a port", shown(text)),
            "write it as in `127.0.0.1:9901`",
        )
    })
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(node: &Node) -> Result<IpNet, Wrong> {
    let text = text(node)?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| {
        let help = "write it as in `10.0.0.0/8`, `fd00::/8` or `10.0.0.1`";
        Wrong::new(format!("{} is not a network", shown(&text)), help)
    })?;
    if network.trunc() != network {
        let help = format!("write `{}`", network.trunc());
        return Err(Wrong::new(format!("{} has address bits beyond its prefix", shown(&text)), help));
    }
    Ok(network)
}

/// A name as in DNS, in lower case; `*.suffix` stands for every name that ends with it.
pub(super) fn host_pattern(node: &Node) -> Result<String, Wrong> {
    let pattern = text(node)?.to_ascii_lowercase();
    if is_host(pattern.strip_prefix("*.").unwrap_or(&pattern)) {
        return Ok(pattern);
    }
    let help = "write a name without port such as `a.com`, or `*.a.com`; names beyond ASCII in punycode";
    Err(Wrong::new(format!("{} is not a host name", shown(&pattern)), help))
}

/// A name as in DNS, in lower case.
pub(super) fn host(node: &Node) -> Result<String, Wrong> {
    let name = text(node)?.to_ascii_lowercase();
    if is_host(&name) {
        return Ok(name);
    }
    let help = "write a name without port such as `a.com`; names beyond ASCII in punycode";
    Err(Wrong::new(format!("{} is not a host name", shown(&name)), help))
}

pub(super) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = || label.bytes();
        (1..=63).contains(&label.len())
            && bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A cookie's name: a token of RFC 9110.
pub(super) fn cookie_name(name: &str) -> Result<String, Wrong> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(token) {
        return Ok(name.to_string());
    }
    let help = "write at most 64 letters, digits and -_.!#$%&'*+^`|~";
    Err(Wrong::new(format!("{} is not a cookie name", shown(name)), help))
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, Wrong> {
    let wrong =
        || Wrong::new(format!("{} is not a header name", shown(name)), "write letters, digits and `-`");
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())
}

/// The value of a header; it is not quoted in messages, for it may be a secret.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, Wrong> {
    let wrong =
        || Wrong::new("characters that a header value cannot have", "write visible ASCII on one line");
    let value = HeaderValue::from_str(text).map_err(|_| wrong())?;
    value.to_str().map_err(|_| wrong())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::fixture::read;

    #[test]
    fn host_names_become_lower_case() {
        assert_eq!(read(host_pattern, "\"*.A.com\""), Some("*.a.com".into()));
        assert_eq!(read(host, "A.com"), Some("a.com".into()));
    }

    #[test]
    fn one_address_is_a_network() {
        assert_eq!(read(network, "10.0.0.1"), "10.0.0.1/32".parse().ok());
        assert_eq!(read(network, "\"fd00::/8\""), "fd00::/8".parse().ok());
    }
}
