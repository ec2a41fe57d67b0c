//! Values with their units, ranges and shapes: durations, sizes, numbers, names, addresses, choices.
//!
//! Each parser takes a node and says what is wrong with it and how to write it; none knows where it stands.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use serde_yaml::Value;

use super::{
    problem::{Wrong, listed, shown},
    yaml::{Data, Node},
};

pub(super) const fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

pub(super) const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

/// A text that is not empty.
pub(super) fn text(node: &Node) -> Result<String, Wrong> {
    match (&node.data, node.text()) {
        (_, Some("")) => Err(Wrong::new("an empty text", "write something, or leave the key out")),
        (_, Some(text)) => Ok(text.to_string()),
        (Data::Scalar(_), None) => {
            Err(Wrong::new(format!("{} where a text is meant", node.described()), "put it into quotes"))
        }
        _ => Err(Wrong::new(format!("{} where a text is meant", node.described()), "write one text")),
    }
}

/// `true` or `false`.
pub(super) fn flag(node: &Node) -> Result<bool, Wrong> {
    match node.data {
        Data::Scalar(Value::Bool(flag)) => Ok(flag),
        _ => {
            Err(Wrong::new(format!("{} where a flag is meant", node.described()), "write `true` or `false`"))
        }
    }
}

/// A whole number within a range.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, Wrong>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    move |node| {
        let help = || format!("write a whole number from {} to {}", range.start(), range.end());
        let Data::Scalar(Value::Number(number)) = &node.data else {
            return Err(Wrong::new(format!("{} where a number is meant", node.described()), help()));
        };
        let value = number.as_u64().and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        value.ok_or_else(|| Wrong::new(format!("`{number}` is out of range"), help()))
    }
}

/// A TCP port.
pub(super) fn port(node: &Node) -> Result<u16, Wrong> {
    whole(1..=u16::MAX)(node)
}

/// `300s`, `500ms`, `1h30m`: digits and `ms`, `s`, `m`, `h` or `d`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, Wrong> {
    const UNITS: [&str; 5] = ["ms", "s", "m", "h", "d"];
    move |node| {
        let text = with_unit(node, "s")?;
        let units = text.split(|c: char| c.is_ascii_digit()).filter(|unit| !unit.is_empty());
        let value = Some(text).filter(|_| units.into_iter().all(|unit| UNITS.contains(&unit)));
        let value = value.and_then(|text| humantime::parse_duration(text).ok()).ok_or_else(|| {
            let help = "write digits and one of ms, s, m, h, d, as in `300s` or `1h30m`";
            Wrong::new(format!("{} is not a duration", shown(text)), help)
        })?;
        if range.contains(&value) {
            return Ok(value);
        }
        let help =
            format!("write {} to {}", written_duration(*range.start()), written_duration(*range.end()));
        Err(Wrong::new(format!("{} is out of range", shown(text)), help))
    }
}

/// `64KiB`, `16MiB`: digits and `B`, `KB`, `MB`, `GB` (thousands) or `KiB`, `MiB`, `GiB` (1024).
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Node) -> Result<usize, Wrong> {
    move |node| {
        let text = with_unit(node, "B")?;
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = SIZES.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, bytes)| *bytes);
        let value = digits.parse::<usize>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
        let value = value.ok_or_else(|| {
            let help = "write digits and one of B, KB, MB, GB, KiB, MiB, GiB, as in `64KiB`";
            Wrong::new(format!("{} is not a size", shown(text)), help)
        })?;
        if range.contains(&value) {
            return Ok(value);
        }
        let help = format!("write {} to {}", written_size(*range.start()), written_size(*range.end()));
        Err(Wrong::new(format!("{} is out of range", shown(text)), help))
    }
}

const SIZES: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// A size as the configuration has it.
fn written_size(bytes: usize) -> String {
    let fits = |unit: &usize| bytes >= *unit && bytes % unit == 0;
    let (name, unit) = SIZES.iter().find(|(_, unit)| fits(unit)).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

/// `10%` or `0.5%`, in thousandths.
pub(super) fn permille(node: &Node) -> Result<u16, Wrong> {
    let text = with_unit(node, "%")?;
    let value = text.strip_suffix('%').and_then(|number| {
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most| text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
        let valid = digits(whole, 3) && digits(tenth, 1);
        valid.then(|| Some(whole.parse::<u16>().ok()? * 10 + tenth.parse::<u16>().ok()?)).flatten()
    });
    value.filter(|permille| *permille <= 1000).ok_or_else(|| {
        Wrong::new(format!("{} is not a share", shown(text)), "write `0%` to `100%`, as in `0.5%`")
    })
}

/// The text of a value that needs a unit; a bare number is told which.
fn with_unit<'n>(node: &'n Node, unit: &str) -> Result<&'n str, Wrong> {
    let bare = |n: &dyn Display| Wrong::new(format!("`{n}` has no unit"), format!("write `{n}{unit}`"));
    match &node.data {
        Data::Scalar(Value::Number(number)) => Err(bare(number)),
        Data::Scalar(Value::String(text)) if is_number(text) => Err(bare(text)),
        Data::Scalar(Value::String(text)) => Ok(text),
        _ => {
            let what = format!("{} where a value with a unit is meant", node.described());
            Err(Wrong::new(what, format!("write it as in `10{unit}`")))
        }
    }
}

fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// A duration as the configuration has it: one number and the largest unit that fits.
fn written_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, unit)| ms >= *unit && ms % unit == 0) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// One of some words: our short one or Avi's long one.
pub(super) fn choice<T: Copy>(words: &[(&'static str, &str, T)]) -> impl Fn(&Node) -> Result<T, Wrong> {
    move |node| {
        let word = text(node)?;
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
    let name = text(node)?;
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
    let id = text(node)?;
    if id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Ok(id);
    }
    let help = "write at most 128 letters, digits, `-`, `_` and `.`";
    Err(Wrong::new(format!("{} cannot be an identifier", shown(&id)), help))
}

/// A uuid such as `509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69`, in lower case.
pub(super) fn uuid(node: &Node) -> Result<String, Wrong> {
    let id = text(node)?;
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

fn is_host(name: &str) -> bool {
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

    fn node(yaml: &str) -> Node {
        Node::parse(yaml).unwrap_or_else(|_| panic!("{yaml} is not YAML"))
    }

    /// What `parse` makes of a YAML value.
    fn read<T>(parse: impl Fn(&Node) -> Result<T, Wrong>, yaml: &str) -> Option<T> {
        parse(&node(yaml)).ok()
    }

    #[test]
    fn durations_have_a_unit_and_a_range() {
        let parse = duration(milliseconds(1)..=days(1));
        for (text, expected) in [
            ("300s", Some(seconds(300))),
            ("500ms", Some(milliseconds(500))),
            ("1h30m", Some(seconds(5400))),
            ("1d", Some(days(1))),
            ("25h", None),
            ("0s", None),
            ("5", None),
            ("1M", None),
            ("1w", None),
            ("s", None),
        ] {
            assert_eq!(read(&parse, text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_have_a_unit_and_a_range() {
        let parse = size(1..=1 << 30);
        for (text, expected) in [
            ("64KiB", Some(65_536)),
            ("16MiB", Some(16 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("10MB", Some(10_000_000)),
            ("1B", Some(1)),
            ("2GiB", None),
            ("64k", None),
            ("64", None),
            ("-1B", None),
        ] {
            assert_eq!(read(&parse, text), expected, "{text}");
        }
    }

    #[test]
    fn shares_are_percents_in_steps_of_a_tenth() {
        for (text, expected) in [
            ("100%", Some(1000)),
            ("10%", Some(100)),
            ("0.5%", Some(5)),
            ("0%", Some(0)),
            ("100.1%", None),
            ("0.25%", None),
            ("10", None),
            ("'%'", None),
        ] {
            assert_eq!(read(permille, text), expected, "{text}");
        }
    }

    #[test]
    fn ranges_are_written_as_the_configuration_has_them() {
        let durations =
            [(days(2), "2d"), (hours(36), "36h"), (seconds(90), "90s"), (milliseconds(1500), "1500ms")];
        for (duration, expected) in durations {
            assert_eq!(written_duration(duration), expected);
        }
        for (size, expected) in [(0, "0B"), (1 << 20, "1MiB"), (1000, "1KB"), (1500, "1500B")] {
            assert_eq!(written_size(size), expected);
        }
    }

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
