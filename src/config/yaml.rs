//! A YAML file as a tree in which every node knows its line.
//!
//! serde_yaml gives the values and saphyr the lines: two parses of one text, walked side by side.
//! Aliases are followed; what stands behind one has the line of the alias. Tags are refused.

use std::{cell::Cell, collections::HashMap, fmt, path::Path, sync::Arc};

use saphyr_parser::{Event, Parser};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;

use super::problem::{Place, Report, Wrong, shown};

/// A value, its line, and what is in it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Null, a flag, a number or a text.
    Scalar(Value),
    List(Vec<Node>),
    /// In the order of the file; a key that is written twice is here twice.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Node,
}

/// The most values in a file once its aliases are followed.
const VALUES: usize = 2_000_000;

impl Node {
    /// Parses the text of a file. The error carries its line.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, Wrong)> {
        let marks = marks(text)?;
        let values = Cell::new(0);
        let mut node =
            Values(&values).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
                let message = error.to_string();
                let what = message.split(" at line ").next().unwrap_or_default();
                let line = error.location().map_or(1, |location| location.line());
                (
                    line,
                    Wrong::new(
                        format!("not YAML as homing reads it: {}", without_quotes(what)),
                        HOW_TO_WRITE,
                    ),
                )
            })?;
        Lines { marks: marks.into_iter(), line: 1 }.place(&mut node)?;
        Ok(node)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Value::Null))
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// What a message calls this value: `5` is a number, `x` is a text, a list, a mapping.
    pub(super) fn described(&self) -> String {
        match &self.data {
            Data::Scalar(Value::Number(number)) => format!("`{number}` is a number"),
            Data::Scalar(Value::Bool(flag)) => format!("`{flag}` is a flag"),
            Data::Scalar(Value::String(text)) => format!("{} is a text", shown(text)),
            Data::Scalar(_) => "there is no value".into(),
            Data::List(_) => "a list is written".into(),
            Data::Map(_) => "a mapping is written".into(),
        }
    }

    /// The value as serde_yaml has it, for what is handed on as it stands.
    pub(super) fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Sequence(items.iter().map(Self::to_value).collect()),
            Data::Map(entries) => Value::Mapping(
                entries.iter().map(|entry| (entry.key.as_str().into(), entry.value.to_value())).collect(),
            ),
        }
    }

    /// Reports every key that is written twice in its mapping.
    pub(super) fn report_duplicates(&self, file: &Arc<Path>, path: &str, report: &Report) {
        // Paths of everything in a large file take their time, and hardly any file needs them.
        if !self.has_duplicates() {
            return;
        }
        match &self.data {
            Data::Scalar(_) => {}
            Data::List(items) => {
                for (n, item) in items.iter().enumerate() {
                    item.report_duplicates(file, &format!("{path}[{}]", item.label(n)), report);
                }
            }
            Data::Map(entries) => {
                let mut first = HashMap::new();
                for Entry { key, line, value } in entries {
                    let path = joined(path, key);
                    value.report_duplicates(file, &path, report);
                    if let Some(first) = first.insert(key, *line) {
                        let place = Place { file: file.clone(), line: *line, path };
                        let what = format!("the key {} is written twice, first in line {first}", shown(key));
                        report.problem(place, what, "keep one of them");
                    }
                }
            }
        }
    }

    fn has_duplicates(&self) -> bool {
        match &self.data {
            Data::Scalar(_) => false,
            Data::List(items) => items.iter().any(Self::has_duplicates),
            Data::Map(entries) => {
                let mut keys: Vec<_> = entries.iter().map(|entry| &entry.key).collect();
                keys.sort_unstable();
                keys.windows(2).any(|pair| pair[0] == pair[1])
                    || entries.iter().any(|entry| entry.value.has_duplicates())
            }
        }
    }

    /// How a path names this item of a list: by its name, else by its number.
    pub(super) fn label(&self, number: usize) -> String {
        let readable = |name: &&str| {
            !name.is_empty() && name.len() <= 60 && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        self.name().filter(readable).map_or(number.to_string(), str::to_string)
    }

    /// The `name` of a mapping that has one.
    pub(super) fn name(&self) -> Option<&str> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().find(|entry| entry.key == "name").and_then(|entry| entry.value.text())
    }
}

/// `pools[pay]` and `name` make `pools[pay].name`.
pub(super) fn joined(path: &str, key: &str) -> String {
    let key = shown(key);
    let key = key.trim_matches('`');
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

const HOW_TO_WRITE: &str = "mend the line; texts with special characters go into quotes";

/// serde's messages quote values in double quotes or backticks; what is in them may be a secret.
fn without_quotes(message: &str) -> &str {
    message.find(['"', '`']).map_or(message, |at| message[..at].trim_end_matches([' ', ':']))
}

/// Builds the tree from serde_yaml, and counts its values.
#[derive(Clone, Copy)]
struct Values<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > VALUES {
            return Err(D::Error::custom(format_args!("more than {VALUES} values")));
        }
        from.deserialize_any(self).map(|data| Node { line: 0, data })
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Data, E> {
        Ok(Data::Scalar(flag.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Data, E> {
        Ok(Data::Scalar(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Data, E> {
        Ok(Data::Scalar(number.into()))
    }

    // Whole numbers of this size are out of every range; roughly how large they are is enough to say so.
    fn visit_i128<E>(self, number: i128) -> Result<Data, E> {
        Ok(Data::Scalar((number as f64).into()))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Data, E> {
        Ok(Data::Scalar((number as f64).into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Data, E> {
        Ok(Data::Scalar(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Scalar(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let key = match key.data {
                Data::Scalar(Value::String(text)) => text,
                Data::Scalar(Value::Number(number)) => number.to_string(),
                Data::Scalar(Value::Bool(flag)) => flag.to_string(),
                Data::Scalar(_) => String::new(),
                Data::List(_) | Data::Map(_) => return Err(A::Error::custom("a key that is not a text")),
            };
            map.push(Entry { key, line: 0, value: entries.next_value_seed(self)? });
        }
        Ok(Data::Map(map))
    }
}

/// What saphyr's parser finds, as far as the lines of a tree need it.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Scalar,
    Alias,
    List,
    Map,
    End,
}

/// The marks of a text with their lines. Refuses what a configuration cannot be; what is nested too deep before
/// libyaml spends quadratic time on it.
fn marks(text: &str) -> Result<Vec<(Mark, usize)>, (usize, Wrong)> {
    const DEPTH: usize = 64;
    let mut parser = Parser::new_from_str(text);
    let mut marks = Vec::new();
    let mut depth = 0;
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let what = format!("not YAML as homing reads it: {}", without_quotes(error.info()));
            (error.marker().line(), Wrong::new(what, HOW_TO_WRITE))
        })?;
        let line = span.start.line();
        let mark = match event {
            Event::Scalar(.., Some(tag))
            | Event::SequenceStart(_, Some(tag))
            | Event::MappingStart(_, Some(tag))
                if !tag.is_yaml_core_schema() =>
            {
                return Err((line, Wrong::new("a YAML tag", "leave out the word that begins with `!`")));
            }
            Event::DocumentStart(_) if documents > 0 => {
                return Err((line, Wrong::new("a second YAML document", "keep one, and leave `---` out")));
            }
            Event::Scalar(..) => Mark::Scalar,
            Event::Alias(_) => Mark::Alias,
            Event::SequenceStart(..) => Mark::List,
            Event::MappingStart(..) => Mark::Map,
            Event::SequenceEnd | Event::MappingEnd => Mark::End,
            Event::DocumentStart(_) => {
                documents += 1;
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
        };
        match mark {
            Mark::List | Mark::Map => depth += 1,
            Mark::End => depth -= 1,
            Mark::Scalar | Mark::Alias => {}
        }
        if depth > DEPTH {
            let what = format!("lists and mappings nested more than {DEPTH} deep");
            return Err((line, Wrong::new(what, "no object of a configuration is that deep")));
        }
        marks.push((mark, line));
    }
    Ok(marks)
}

/// Gives every node of the tree the line of its mark.
struct Lines {
    marks: std::vec::IntoIter<(Mark, usize)>,
    /// Of the last mark.
    line: usize,
}

impl Lines {
    fn place(&mut self, node: &mut Node) -> Result<(), (usize, Wrong)> {
        let mark = self.next();
        node.line = self.line;
        match (mark, &mut node.data) {
            // An empty file has a value, null, and no mark.
            (Some(Mark::Scalar) | None, Data::Scalar(_)) => Ok(()),
            (Some(Mark::Alias), _) => {
                place_alias(node, self.line);
                Ok(())
            }
            (Some(Mark::List), Data::List(items)) => {
                items.iter_mut().try_for_each(|item| self.place(item))?;
                self.expect(&[Mark::End])
            }
            (Some(Mark::Map), Data::Map(entries)) => {
                for entry in entries {
                    self.expect(&[Mark::Scalar, Mark::Alias])?;
                    entry.line = self.line;
                    self.place(&mut entry.value)?;
                }
                self.expect(&[Mark::End])
            }
            _ => Err(self.two_readings()),
        }
    }

    fn next(&mut self) -> Option<Mark> {
        let (mark, line) = self.marks.next()?;
        self.line = line;
        Some(mark)
    }

    fn expect(&mut self, marks: &[Mark]) -> Result<(), (usize, Wrong)> {
        if self.next().is_some_and(|mark| marks.contains(&mark)) { Ok(()) } else { Err(self.two_readings()) }
    }

    fn two_readings(&self) -> (usize, Wrong) {
        let help = "write it more plainly, with quotes around texts";
        (self.line, Wrong::new("YAML that can be read in two ways", help))
    }
}

/// All that stands behind an alias is found on the line of the alias.
fn place_alias(node: &mut Node, line: usize) {
    node.line = line;
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| place_alias(item, line)),
        Data::Map(entries) => {
            for entry in entries {
                entry.line = line;
                place_alias(&mut entry.value, line);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::{Node, Wrong};

    pub fn node(yaml: &str) -> Node {
        Node::parse(yaml).unwrap_or_else(|_| panic!("{yaml} is not YAML"))
    }

    /// What `parse` makes of a YAML value.
    pub fn read<T>(parse: impl Fn(&Node) -> Result<T, Wrong>, yaml: &str) -> Option<T> {
        parse(&node(yaml)).ok()
    }
}
