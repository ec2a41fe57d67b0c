//! Texts that a part of a request is compared with.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::config::{
    problem::{Wrong, shown},
    read::Object,
    words,
};

/// A comparison with some texts, of which one has to fit. What is compared is as the client sent it: nothing is
/// decoded or normalised, so that `/%61dmin` and `//admin` are not `/admin`.
#[derive(Clone, PartialEq)]
pub struct Texts {
    how: Comparison,
    /// None of the texts may fit.
    negated: bool,
    any_case: bool,
    texts: Vec<Text>,
}

/// Avi's `match_criteria` without their negations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    BeginsWith,
    Contains,
    EndsWith,
    Equals,
    Regex,
    Exists,
}

#[derive(Clone)]
struct Text {
    written: String,
    /// Compiled, where the comparison is one. Its time is linear in what it looks at.
    regex: Option<Regex>,
}

/// Under which key the texts stand, and what they are compared with.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) list: &'static str,
    pub(super) kind: Kind,
}

/// Which of Avi's matches it is: their words differ.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A path or a query, which are always there.
    Plain,
    /// A header, a cookie or a parameter, which may be missing.
    Field,
    /// A host, whose case never matters.
    Host,
}

impl Texts {
    /// `None`: something is wrong with it, which is reported.
    pub(super) fn read(o: &mut Object<'_>, Keys { list, kind }: Keys) -> Option<Self> {
        let criteria = match kind {
            Kind::Plain => o.required("match_criteria", words::choice(&PLAIN)),
            Kind::Field | Kind::Host => o.required("match_criteria", words::choice(&FIELD)),
        };
        let cases = [("sensitive", "SENSITIVE", false), ("insensitive", "INSENSITIVE", true)];
        let any_case = match kind {
            Kind::Host => true,
            _ => o.field("match_case", words::choice(&cases)).unwrap_or(false),
        };
        let has_texts = o.has(list);
        let how = criteria.map(|(how, _)| how);
        let texts = o.list(list, |node| {
            let text = words::text(node)?;
            Text::new(text, how == Some(Comparison::Regex), any_case)
        });
        let (how, negated) = criteria?;
        match (how, has_texts) {
            (Comparison::Exists, true) => {
                o.wrong(list, "no effect with this `match_criteria`", "leave the key out");
            }
            (Comparison::Exists, false) => {}
            (_, true) => o.not_empty(list, "write at least one text"),
            (_, false) => o.is_missed(list),
        }
        Some(Self { how, negated, any_case, texts: texts.unwrap_or_default() })
    }

    /// Whether it fits a part of a request that is there.
    pub fn fits(&self, value: &str) -> bool {
        self.fit([value])
    }

    /// Whether it fits one that may be missing, or be there several times.
    pub fn fit<'v>(&self, values: impl IntoIterator<Item = &'v str>) -> bool {
        let one = |value: &str| match self.how {
            Comparison::Exists => true,
            how => self.texts.iter().any(|text| text.fits(how, self.any_case, value)),
        };
        values.into_iter().any(one) != self.negated
    }

    /// What follows the text that the value begins with.
    pub fn rest<'v>(&self, value: &'v str) -> Option<&'v str> {
        self.has_rest().then_some(())?;
        let found = self.texts.iter().find(|text| text.fits(Comparison::BeginsWith, self.any_case, value))?;
        value.get(found.written.len()..)
    }

    /// A group of the regular expression that fits; 0 is all of it.
    pub fn group<'v>(&self, value: &'v str, group: usize) -> Option<&'v str> {
        let mut regexes = self.texts.iter().filter_map(|text| text.regex.as_ref());
        let captures = regexes.find_map(|regex| regex.captures(value))?;
        captures.get(group).map(|group| group.as_str())
    }

    /// Whether there is a rest of what it fits.
    pub(super) fn has_rest(&self) -> bool {
        self.how == Comparison::BeginsWith && !self.negated
    }

    /// How many groups every one of its regular expressions has.
    pub(super) fn groups(&self) -> usize {
        let counts =
            self.texts.iter().map(|text| text.regex.as_ref().map_or(0, |regex| regex.captures_len() - 1));
        if self.negated { 0 } else { counts.min().unwrap_or(0) }
    }
}

impl Text {
    fn new(written: String, is_regex: bool, any_case: bool) -> Result<Self, Wrong> {
        if written.len() > LONGEST {
            let help = format!("write at most {LONGEST} bytes");
            return Err(Wrong::new(format!("{} is too long", shown(&written)), help));
        }
        let regex = is_regex.then(|| {
            let mut builder = RegexBuilder::new(&written);
            builder.case_insensitive(any_case).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build()
        });
        let regex = regex.transpose().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                let help =
                    "write a smaller one: fewer repetitions, or ranges of ASCII such as `[0-9]` for `\\d`";
                Wrong::new(format!("{} makes too large a program", shown(&written)), help)
            }
            error => {
                let error = error.to_string();
                let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let help =
                    "see docs.rs/regex for the syntax, which has no look-around and no back-references";
                Wrong::new(format!("{} is no regular expression: {why}", shown(&written)), help)
            }
        })?;
        Ok(Self { written, regex })
    }

    fn fits(&self, how: Comparison, any_case: bool, value: &str) -> bool {
        if let Some(regex) = &self.regex {
            return regex.is_match(value);
        }
        let (text, value) = (self.written.as_bytes(), value.as_bytes());
        let same = |one: &[u8]| if any_case { one.eq_ignore_ascii_case(text) } else { one == text };
        match how {
            Comparison::Equals => same(value),
            Comparison::BeginsWith => value.get(..text.len()).is_some_and(same),
            Comparison::EndsWith => value.len() >= text.len() && same(&value[value.len() - text.len()..]),
            Comparison::Contains if any_case => value.windows(text.len()).any(same),
            Comparison::Contains => memchr::memmem::find(value, text).is_some(),
            Comparison::Regex => false, // it has one, or was refused
            Comparison::Exists => true,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.written)
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "not " } else { "" };
        write!(f, "{not}{:?} {:?}", self.how, self.texts)
    }
}

type Word = (&'static str, &'static str, (Comparison, bool));

const PLAIN: [Word; 10] = [
    ("begins_with", "BEGINS_WITH", (Comparison::BeginsWith, false)),
    ("does_not_begin_with", "DOES_NOT_BEGIN_WITH", (Comparison::BeginsWith, true)),
    ("contains", "CONTAINS", (Comparison::Contains, false)),
    ("does_not_contain", "DOES_NOT_CONTAIN", (Comparison::Contains, true)),
    ("ends_with", "ENDS_WITH", (Comparison::EndsWith, false)),
    ("does_not_end_with", "DOES_NOT_END_WITH", (Comparison::EndsWith, true)),
    ("equals", "EQUALS", (Comparison::Equals, false)),
    ("does_not_equal", "DOES_NOT_EQUAL", (Comparison::Equals, true)),
    ("regex_match", "REGEX_MATCH", (Comparison::Regex, false)),
    ("regex_does_not_match", "REGEX_DOES_NOT_MATCH", (Comparison::Regex, true)),
];

const FIELD: [Word; 12] = [
    ("begins_with", "HDR_BEGINS_WITH", (Comparison::BeginsWith, false)),
    ("does_not_begin_with", "HDR_DOES_NOT_BEGIN_WITH", (Comparison::BeginsWith, true)),
    ("contains", "HDR_CONTAINS", (Comparison::Contains, false)),
    ("does_not_contain", "HDR_DOES_NOT_CONTAIN", (Comparison::Contains, true)),
    ("ends_with", "HDR_ENDS_WITH", (Comparison::EndsWith, false)),
    ("does_not_end_with", "HDR_DOES_NOT_END_WITH", (Comparison::EndsWith, true)),
    ("equals", "HDR_EQUALS", (Comparison::Equals, false)),
    ("does_not_equal", "HDR_DOES_NOT_EQUAL", (Comparison::Equals, true)),
    ("regex_match", "HDR_REGEX_MATCH", (Comparison::Regex, false)),
    ("regex_does_not_match", "HDR_REGEX_DOES_NOT_MATCH", (Comparison::Regex, true)),
    ("exists", "HDR_EXISTS", (Comparison::Exists, false)),
    ("does_not_exist", "HDR_DOES_NOT_EXIST", (Comparison::Exists, true)),
];

/// Of one text, in bytes.
const LONGEST: usize = 1024;
/// Of a compiled regular expression, in bytes, and of what it remembers while it looks.
const REGEX_SIZE: usize = 256 << 10;
