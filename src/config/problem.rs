//! What is wrong with a configuration, where, and how to mend it.
//!
//! Problems are collected, never thrown: whoever reads a configuration goes on after one and finds the next.
//! Values of key files never get here; values of YAML only cut short and made printable ([`shown`]).

use std::{cell::RefCell, fmt, path::Path, sync::Arc};

use super::shape::Shape;

/// Where something stands: `conf/homing.yaml`, line 12, `pools[pay].servers[1].port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
    /// Empty for the whole file.
    pub path: String,
}

/// One thing that is wrong (or, as a warning, dubious): `FILE:LINE: path: what is wrong; how to mend it`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub what: String,
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, path } = &self.place;
        write!(f, "{}:{line}: ", file.display())?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{}; {}", self.what, self.help)
    }
}

/// Everything that is wrong with a configuration, by file and line; never empty.
///
/// `Display` prints a line for each, and stops after 50.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// The most problems that are printed at once.
pub const SHOWN_AT_MOST: usize = 50;

impl Problems {
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().take(SHOWN_AT_MOST).enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(SHOWN_AT_MOST) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// What is wrong with a value, before it is known where the value stands.
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) help: String,
    /// What would have been taken.
    pub(super) expected: Option<Box<Shape>>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into(), expected: None }
    }

    /// The same, from a parser that takes values of this shape.
    pub(super) fn expecting(self, shape: Shape) -> Self {
        Self { expected: Some(Box::new(shape)), ..self }
    }
}

/// Collects problems and warnings while files are read.
#[derive(Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Report {
    pub(super) fn problem(&self, place: Place, what: impl Into<String>, help: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place, what: what.into(), help: help.into() });
    }

    pub(super) fn warning(&self, place: Place, what: impl Into<String>, help: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem { place, what: what.into(), help: help.into() });
    }

    /// The warnings, unless there are problems.
    pub(super) fn into_result(self) -> Result<Vec<Problem>, Problems> {
        let sorted = |found: RefCell<Vec<Problem>>| {
            let mut found = found.into_inner();
            found.sort_by_cached_key(|problem| (problem.place.file.clone(), problem.place.line));
            found
        };
        match sorted(self.problems) {
            problems if problems.is_empty() => Ok(sorted(self.warnings)),
            problems => Err(Problems(problems)),
        }
    }
}

/// A value as messages quote it: short, on one line, and not at all when it looks like a key.
pub(super) fn shown(value: &str) -> String {
    const CHARACTERS: usize = 60;
    if value.len() >= 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) || value.contains("-----BEGIN")
    {
        return "a value that looks like a key".into();
    }
    let mut short: String = value.chars().take(CHARACTERS).flat_map(char::escape_debug).collect();
    if value.chars().nth(CHARACTERS).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// `a, b and 7 more`: what could have been meant, for help texts.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const NAMES: usize = 50;
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(NAMES).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES {
        text.push_str(&format!(" and {} more", names.len() - NAMES));
    }
    if text.is_empty() { "none".into() } else { text }
}

/// The known word that a misspelt one was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let near = known.iter().map(|known| (distance(word, known), *known)).min()?;
    (near.0 <= 1 + near.1.len() / 6).then_some(near.1)
}

/// How many letters have to be changed, added or left out to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_told_from_another_one() {
        let known = ["lb_algorithm", "name", "servers", "sni"];
        for (word, expected) in [
            ("lb_algoritm", Some("lb_algorithm")),
            ("lb_algorihtm", Some("lb_algorithm")),
            ("server", Some("servers")),
            ("nmae", None),
            ("weight", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }

    #[test]
    fn a_value_is_shown_short_on_one_line_and_never_a_key() {
        assert_eq!(shown("a\nb"), "`a\\nb`");
        assert!(shown(&"x".repeat(1000)).len() < 80);
        for key in ["0f".repeat(32), "-----BEGIN PRIVATE KEY-----".into()] {
            assert!(!shown(&key).contains(&key[..10]));
        }
    }
}
