//! Values with units and ranges: durations, sizes, shares, whole numbers, flags.
//!
//! Each parser takes a node and says what is wrong with it and how to write it; none knows where it stands.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use serde_yaml::Value;

use super::{
    problem::{Wrong, shown},
    shape::Shape,
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

/// `true` or `false`.
pub(super) fn flag(node: &Node) -> Result<bool, Wrong> {
    match node.data {
        Data::Scalar(Value::Bool(flag)) => Ok(flag),
        _ => {
            let what = format!("{} where a flag is meant", node.described());
            Err(Wrong::new(what, "write `true` or `false`").expecting(Shape::Flag))
        }
    }
}

/// A whole number within a range.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, Wrong>
where
    T: Copy + TryFrom<u64> + TryInto<u64> + PartialOrd + Display,
{
    move |node| {
        let bound = |bound: T| bound.try_into().unwrap_or(u64::MAX);
        let shape = || Shape::Whole { least: bound(*range.start()), most: bound(*range.end()) };
        let help = || format!("write a whole number from {} to {}", range.start(), range.end());
        let Data::Scalar(Value::Number(number)) = &node.data else {
            let what = format!("{} where a number is meant", node.described());
            return Err(Wrong::new(what, help()).expecting(shape()));
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
        let text = with_unit(node, "s").map_err(|wrong| wrong.expecting(DURATION))?;
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
        let text = with_unit(node, "B").map_err(|wrong| wrong.expecting(SIZE))?;
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
    let fits = |unit: &usize| bytes >= *unit && bytes.is_multiple_of(*unit);
    let (name, unit) = SIZES.iter().find(|(_, unit)| fits(unit)).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

/// `10%` or `0.5%`, in thousandths.
pub(super) fn permille(node: &Node) -> Result<u16, Wrong> {
    let text = with_unit(node, "%").map_err(|wrong| wrong.expecting(SHARE))?;
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

/// A share in thousandths, as the configuration has it.
pub fn written_share(permille: u16) -> String {
    match permille % 10 {
        0 => format!("{}%", permille / 10),
        tenth => format!("{}.{tenth}%", permille / 10),
    }
}

const DURATION: Shape = Shape::Matching("^([0-9]+(ms|s|m|h|d))+$");
const SIZE: Shape = Shape::Matching("^[0-9]+ *(B|KB|MB|GB|KiB|MiB|GiB)$");
const SHARE: Shape = Shape::Matching("^[0-9]{1,3}(\\.[0-9])?%$");

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
pub(super) fn written_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::fixture::read;

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
}
