//! Domain names as they are looked up: in lower case, with dots, without the last one.

use hickory_proto::rr::Name;

/// A name of a query. It holds no heap memory, for every query has one.
pub(super) struct LowerName {
    bytes: [u8; MOST],
    length: usize,
}

impl LowerName {
    pub fn of(name: &Name) -> Self {
        let mut lower = Self { bytes: [0; MOST], length: 0 };
        for label in name {
            if lower.length > 0 {
                lower.push(b'.');
            }
            label.iter().for_each(|byte| lower.push(plain(*byte)));
        }
        lower
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).expect("all bytes are ASCII")
    }
}

/// A byte of a label, lower case. What no configured name can have, a dot within a label too, becomes something
/// that none has.
fn plain(byte: u8) -> u8 {
    match byte {
        b'.' => NOT_CONFIGURED,
        _ if byte.is_ascii_graphic() => byte.to_ascii_lowercase(),
        _ => NOT_CONFIGURED,
    }
}

/// The name itself, then those above it without the root: `a.b.c`, `b.c`, `c`.
pub(super) fn upwards(name: &str) -> impl Iterator<Item = &str> {
    let first = (!name.is_empty()).then_some(name);
    std::iter::successors(first, |name| name.split_once('.').map(|(_, above)| above))
}

/// A configured name on the wire. `None`: too long, which its check excludes.
pub(super) fn absolute(name: &str) -> Option<Name> {
    Name::from_labels(name.split('.').map(str::as_bytes)).ok()
}

const NOT_CONFIGURED: u8 = 1;

/// A name on the wire has at most 255 bytes, of which the length of the first label and the root are not in a text.
const MOST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_lower_case_and_never_taken_for_others() {
        for (labels, expected) in [
            (vec!["wWw", "A", "cOm"], "www.a.com"),
            (vec!["a.com"], "a\u{1}com"),
            (vec!["\u{e4}", "com"], "\u{1}\u{1}.com"),
            (vec!["a b", "com"], "a\u{1}b.com"),
            (vec!["*", "a", "com"], "*.a.com"),
            (vec![], ""),
        ] {
            let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).expect("a name");
            assert_eq!(LowerName::of(&name).as_str(), expected);
        }
        let longest = [[b'X'; 63].as_slice(); 3].into_iter().chain([[b'X'; 61].as_slice()]);
        let longest = Name::from_labels(longest).expect("it is just short enough");
        assert_eq!(LowerName::of(&longest).as_str().len(), 253);
    }

    #[test]
    fn the_names_above_a_name_end_before_the_root() {
        assert_eq!(upwards("a.b.com").collect::<Vec<_>>(), ["a.b.com", "b.com", "com"]);
        assert_eq!(upwards("").count(), 0);
    }
}
