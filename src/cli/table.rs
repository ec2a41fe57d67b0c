//! Tables in the shape that Avi's CLI prints: an object as fields and values, objects as a list.

use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use serde_yaml::{Mapping, Value};

/// One object: its fields in their order, what is nested indented below its name, elements of a list numbered
/// from 1. Empty lists are left out.
pub fn fields(object: &impl Serialize) -> String {
    // YAML values, unlike JSON's, keep the order of the fields.
    let value = serde_yaml::to_value(object).expect("views consist of what YAML has");
    let mut rows = Vec::new();
    if let Value::Mapping(mapping) = &value {
        add_mapping(mapping, 0, &mut rows);
    }
    table(&["Field", "Value"], rows)
}

/// Several objects, a row each.
pub fn list<const COLUMNS: usize>(header: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    table(&header, rows)
}

/// `Tue Feb  6 00:15:17 2018 UTC`; Avi writes the microseconds before the zone.
pub fn date(seconds: u64, microseconds: Option<u32>) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(LAST_SECOND));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let number = |range: std::ops::Range<usize>| text[range].parse().unwrap_or(0);
    let (month, day): (usize, usize) = (number(5..7), number(8..10));
    let weekday = WEEKDAYS[(seconds.min(LAST_SECOND) / 86_400 % 7) as usize];
    let month = MONTHS[month.saturating_sub(1) % MONTHS.len()];
    let micro = microseconds.map_or(String::new(), |micro| format!(" ms({micro:06})"));
    format!("{weekday} {month} {day:2} {} {}{micro} UTC", &text[11..19], &text[..4])
}

fn add_mapping(mapping: &Mapping, depth: usize, rows: &mut Vec<[String; 2]>) {
    for (name, value) in mapping {
        let name = scalar(name);
        match value {
            Value::Sequence(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    add(&format!("{name}[{}]", at + 1), element, depth, rows);
                }
            }
            value => add(&name, value, depth, rows),
        }
    }
}

fn add(name: &str, value: &Value, depth: usize, rows: &mut Vec<[String; 2]>) {
    let name = "  ".repeat(depth) + name;
    match value {
        Value::Mapping(mapping) => match timestamp(mapping) {
            Some(date) => rows.push([name, date]),
            None => {
                rows.push([name, String::new()]);
                add_mapping(mapping, depth + 1, rows);
            }
        },
        value => rows.push([name, scalar(value)]),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => String::new(),
    }
}

fn timestamp(mapping: &Mapping) -> Option<String> {
    match (mapping.get("secs")?.as_u64()?, mapping.get("usecs")?.as_u64()?) {
        (secs, usecs) if mapping.len() == 2 => Some(date(secs, Some(u32::try_from(usecs).ok()?))),
        _ => None,
    }
}

fn table<const COLUMNS: usize>(header: &[&str], rows: Vec<[String; COLUMNS]>) -> String {
    let mut table = Table::new();
    table
        .load_preset(AVI)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header)
        .add_rows(rows.iter().map(|cells| cells.each_ref().map(|cell| printable(cell))));
    table.to_string() + "\n"
}

/// A name may hold anything; a terminal must not be steered by it.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// Lines above, below and under the header; none between rows.
const AVI: &str = "||--+-++|    ++++++";

/// 1 January 1970 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The end of the year 9999: beyond it a date has no four-digit year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Compares with a file of `tests/golden/show`; `HOMING_BLESS=1` writes it anew.
#[cfg(test)]
pub(super) fn golden(name: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/show").join(name);
    if std::env::var_os("HOMING_BLESS").is_some() {
        std::fs::write(&file, text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs; HOMING_BLESS=1 accepts\n{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_as_avi_writes_them() {
        for (seconds, micro, text) in [
            (1_517_876_117, Some(353_741), "Tue Feb  6 00:15:17 2018 ms(353741) UTC"),
            (1_517_876_117, Some(7), "Tue Feb  6 00:15:17 2018 ms(000007) UTC"),
            (0, None, "Thu Jan  1 00:00:00 1970 UTC"),
            (951_868_799, None, "Tue Feb 29 23:59:59 2000 UTC"),
            (u64::MAX, None, "Fri Dec 31 23:59:59 9999 UTC"),
        ] {
            assert_eq!(date(seconds, micro), text);
        }
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let text = list(["Name"], vec![["a\x1b[2Jb\nc".into()]]);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(!text.contains('\x1b'));
    }
}
