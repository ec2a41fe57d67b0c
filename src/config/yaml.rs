//! A YAML file as a tree in which every node knows its line.
//!
//! serde_yaml gives the values and saphyr's events the lines: two parses of one text, walked side by side.
//! Aliases are followed; what stands behind one has the line of the alias. Tags are refused.

use std::{cell::Cell, collections::HashMap, fmt, path::Path, sync::Arc};

use saphyr_parser::{Event, Parser, ScanError, Span, StrInput};
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
        Lines { events: Events(Parser::new_from_str(text)), line: 1 }.place(&mut node)?;
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

    /// How a path names this item of a list: by its name, else by its number.
    pub(super) fn label(&self, number: usize) -> String {
        let Data::Map(entries) = &self.data else { return number.to_string() };
        let name = entries.iter().find(|entry| entry.key == "name").and_then(|entry| entry.value.text());
        let readable = |name: &&str| {
            !name.is_empty() && name.len() <= 60 && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        name.filter(readable).map_or(number.to_string(), str::to_string)
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

    fn visit_bool<E>(self, flag: bool) -> Result<Data, E> {
        Ok(Data::Scalar(flag.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Data, E> {
        Ok(Data::Scalar(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Data, E> {
        Ok(Data::Scalar(number.into()))
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

/// saphyr's events without those that carry no value.
struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Iterator for Events<'a> {
    type Item = Result<(Event<'a>, Span), ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next_event()? {
                Ok((
                    Event::Nothing
                    | Event::StreamStart
                    | Event::StreamEnd
                    | Event::DocumentStart(_)
                    | Event::DocumentEnd,
                    _,
                )) => {}
                event => return Some(event),
            }
        }
    }
}

/// Gives every node of the tree the line of its event.
struct Lines<'a> {
    events: Events<'a>,
    /// Of the last event.
    line: usize,
}

impl<'a> Lines<'a> {
    fn place(&mut self, node: &mut Node) -> Result<(), (usize, Wrong)> {
        let event = self.next()?;
        node.line = self.line;
        match (event, &mut node.data) {
            (Some(Event::Scalar(..)), Data::Scalar(_)) => {}
            // An empty file has a value, null, and no event.
            (None, Data::Scalar(_)) => {}
            (Some(Event::Alias(_)), _) => self.place_alias(node),
            (Some(Event::SequenceStart(..)), Data::List(items)) => {
                for item in items {
                    self.place(item)?;
                }
                self.end(&Event::SequenceEnd)?;
            }
            (Some(Event::MappingStart(..)), Data::Map(entries)) => {
                for entry in entries {
                    match self.next()? {
                        Some(Event::Scalar(..) | Event::Alias(_)) => entry.line = self.line,
                        _ => return Err(self.two_readings()),
                    }
                    self.place(&mut entry.value)?;
                }
                self.end(&Event::MappingEnd)?;
            }
            _ => return Err(self.two_readings()),
        }
        Ok(())
    }

    fn place_alias(&self, node: &mut Node) {
        node.line = self.line;
        match &mut node.data {
            Data::Scalar(_) => {}
            Data::List(items) => items.iter_mut().for_each(|item| self.place_alias(item)),
            Data::Map(entries) => {
                for entry in entries {
                    entry.line = self.line;
                    self.place_alias(&mut entry.value);
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<Event<'a>>, (usize, Wrong)> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(Some(event))
            }
            Some(Err(error)) => {
                let what = format!("not YAML as homing reads it: {}", without_quotes(error.info()));
                Err((error.marker().line(), Wrong::new(what, HOW_TO_WRITE)))
            }
        }
    }

    fn end(&mut self, expected: &Event<'_>) -> Result<(), (usize, Wrong)> {
        match self.next()? {
            Some(event) if event == *expected => Ok(()),
            _ => Err(self.two_readings()),
        }
    }

    fn two_readings(&self) -> (usize, Wrong) {
        (
            self.line,
            Wrong::new(
                "YAML that can be read in two ways",
                "write it more plainly, with quotes around texts",
            ),
        )
    }
}
