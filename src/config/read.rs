//! Reads the objects of a YAML tree field by field, and goes on after a problem to find the next.
//!
//! An [`Object`] remembers the keys that its reader asked for: a key that nobody asked for is unknown, so what
//! a reader asks for *is* the list of known keys, and there is no second one.

mod elsewhere;
mod lists;

use super::{
    files::Source,
    problem::{Place, Wrong, listed, nearest, shown},
    shape::{Outline, Shape},
    units, words,
    yaml::{Data, Entry, Node, joined},
};
pub(super) use elsewhere::Reference;

/// Which of the two files an object stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A node's own file.
    Site,
    /// The file that is the same on every site.
    Federation,
}

/// A mapping whose fields are being read.
pub(super) struct Object<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) place: Place,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
    /// Where the reader only tells what it takes.
    outline: Option<Outline>,
}

impl<'a> Object<'a> {
    /// Reads the whole of a file, which has to be a mapping.
    pub(super) fn read_root<T>(
        source: &'a Source<'a>,
        tree: &'a Node,
        read: impl FnOnce(&mut Object<'a>) -> T,
    ) -> Option<T> {
        tree.report_duplicates(&source.file, "", source.report);
        Self::read(source, tree, String::new(), read)
    }

    fn read<T>(
        source: &'a Source<'a>,
        node: &'a Node,
        path: String,
        read: impl FnOnce(&mut Object<'a>) -> T,
    ) -> Option<T> {
        let place = Place { file: source.file.clone(), line: node.line, path };
        let Data::Map(entries) = &node.data else {
            let what = format!("{} where a mapping is meant", node.described());
            source.report.problem(place, what, "write `key: value` lines");
            return None;
        };
        let mut object = Object { source, place, entries, asked: Vec::new(), outline: None };
        let value = read(&mut object);
        object.report_unknown();
        Some(value)
    }

    /// What a reader takes.
    pub(super) fn outline<T>(source: &'a Source<'a>, read: impl FnOnce(&mut Object<'a>) -> T) -> Outline {
        let (place, outline) = (source.place(0), Some(Outline::default()));
        let mut object = Object { source, place, entries: &[], asked: Vec::new(), outline };
        read(&mut object);
        object.outline.unwrap_or_default()
    }

    /// Adds to what the reader takes, if that is asked; then there is nothing to read.
    fn tells(&mut self, key: &'static str, shape: impl FnOnce(&'a Source<'a>) -> Shape) -> bool {
        let source = self.source;
        self.outline.as_mut().map(|outline| outline.add(key, shape(source))).is_some()
    }

    fn report_unknown(&self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let place = Place { line: entry.line, ..self.place.clone() };
            let what = format!("unknown key {}", shown(&entry.key));
            let help = if entry.key == "<<" {
                "merge keys are not supported: write the keys out, or give a whole object an anchor".into()
            } else if let Some(near) = nearest(&entry.key, &self.asked) {
                format!("did you mean `{near}`?")
            } else {
                format!("known: {}", listed(self.asked.iter().copied()))
            };
            self.source.report.problem(place, what, help);
        }
    }

    /// The value of a key; one without a value counts as left out.
    fn value(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        self.entry(key).map(|entry| &entry.value).filter(|value| !value.is_null())
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| !entry.value.is_null())
    }

    /// The text of a key, before it is read.
    pub(super) fn peek(&self, key: &str) -> Option<&'a str> {
        self.entry(key)?.value.text()
    }

    /// The keys that it has, before they are read.
    pub(super) fn keys(&self) -> Vec<&'a str> {
        self.entries.iter().map(|entry| entry.key.as_str()).collect()
    }

    /// The keys of a mapping inside this one, before it is read; `None`: there is none.
    pub(super) fn keys_of(&self, key: &str) -> Option<Vec<&'a str>> {
        let Data::Map(entries) = &self.entry(key)?.value.data else { return None };
        Some(entries.iter().map(|entry| entry.key.as_str()).collect())
    }

    /// The names of the objects in a list, before it is read.
    pub(super) fn names(&self, key: &str) -> Vec<&'a str> {
        let Some(Entry { value: Node { data: Data::List(items), .. }, .. }) = self.entry(key) else {
            return Vec::new();
        };
        items.iter().filter_map(Node::name).collect()
    }

    /// Where the value of a key stands; where the object does, if it is left out.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let line = self.entry(key).map_or(self.place.line, |entry| entry.value.line);
        Place { line, path: joined(&self.place.path, key), ..self.place.clone() }
    }

    /// Reports a problem with the value of a key.
    pub(super) fn wrong(&self, key: &str, what: impl Into<String>, help: impl Into<String>) {
        self.source.report.problem(self.place_of(key), what, help);
    }

    /// Reports what is dubious about the value of a key, and does not stop a start.
    pub(super) fn dubious(&self, key: &str, what: impl Into<String>, help: impl Into<String>) {
        self.source.report.warning(self.place_of(key), what, help);
    }

    /// A key that people look for here and that belongs elsewhere or is not there yet.
    pub(super) fn misplaced(&mut self, key: &'static str, what: &str, help: &str) {
        if self.has(key) {
            self.asked.push(key);
            self.wrong(key, what, help);
        }
    }

    /// A field that may be left out. `None` also when it is wrong: then that is reported.
    pub(super) fn field<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
    ) -> Option<T> {
        if self.outline.is_some() {
            self.tells(key, |_| Shape::taken_by(parse));
            return None;
        }
        let node = self.value(key)?;
        parse(node).map_err(|Wrong { what, help, .. }| self.wrong(key, what, help)).ok()
    }

    /// A field that has to be there. `None`: that is reported.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.demand(key);
        self.field(key, parse)
    }

    fn demand(&mut self, key: &'static str) {
        match &mut self.outline {
            Some(outline) => drop(outline.required.insert(key)),
            None => self.is_missed(key),
        }
    }

    /// Reports a key that is left out, where something else makes it necessary.
    pub(super) fn is_missed(&self, key: &'static str) {
        if !self.has(key) {
            let help = format!("write `{key}: …`");
            self.source.report.problem(self.place.clone(), format!("`{key}` is missing"), help);
        }
    }

    /// A mapping inside this one; `None` if it is left out or wrong.
    pub(super) fn object<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Object<'a>) -> T,
    ) -> Option<T> {
        if self.outline.is_some() {
            self.tells(key, |source| Shape::Object(Self::outline(source, read)));
            return None;
        }
        let node = self.value(key)?;
        Self::read(self.source, node, joined(&self.place.path, key), read)
    }

    /// A plain value, or a mapping in its place.
    pub(super) fn field_or_object<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
        read: impl FnOnce(&mut Object<'a>) -> T,
    ) -> Option<T> {
        if self.outline.is_some() {
            self.tells(key, |source| {
                Shape::either(Shape::taken_by(parse), Shape::Object(Self::outline(source, read)))
            });
            return None;
        }
        match self.entry(key).is_some_and(|entry| matches!(entry.value.data, Data::Map(_))) {
            true => self.object(key, read),
            false => self.field(key, parse),
        }
    }

    pub(super) fn required_object<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Object<'a>) -> T,
    ) -> Option<T> {
        self.demand(key);
        self.object(key, read)
    }

    /// A mapping with keys of the user's choice.
    pub(super) fn map<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str, &Node) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        if self.tells(key, |_| Shape::Map(Box::new(Shape::taken_by(|node| parse("x", node))))) {
            return None;
        }
        let node = self.value(key)?;
        let Data::Map(entries) = &node.data else {
            self.wrong(
                key,
                format!("{} where a mapping is meant", node.described()),
                "write `name: value` lines",
            );
            return None;
        };
        let mut values = Vec::new();
        for entry in entries {
            match parse(&entry.key, &entry.value) {
                Ok(value) => values.push(value),
                Err(Wrong { what, help, .. }) => {
                    let path = joined(&self.place_of(key).path, &entry.key);
                    self.source.report.problem(
                        Place { line: entry.line, path, ..self.place.clone() },
                        what,
                        help,
                    );
                }
            }
        }
        Some(values)
    }

    /// A value of any shape, as serde_yaml has it; null if left out.
    pub(super) fn anything(&mut self, key: &'static str) -> serde_yaml::Value {
        self.tells(key, |_| Shape::Anything);
        self.value(key).map_or(serde_yaml::Value::Null, Node::to_value)
    }

    /// The object's own name.
    pub(super) fn name(&mut self) -> Option<String> {
        self.required("name", words::name)
    }

    /// Avi's mark of objects that are the same on every site; it has to agree with the file.
    pub(super) fn is_federated(&mut self, kind: FileKind) -> bool {
        if kind == FileKind::Federation
            && let Some(outline) = &mut self.outline
        {
            outline.required.insert("is_federated");
        }
        let is_federated = self.field("is_federated", units::flag).unwrap_or(false);
        match (kind, is_federated) {
            (FileKind::Federation, false) => {
                let what = "an object in the federation file that is not federated";
                let help = "write `is_federated: true`, or move the object to the site's own file";
                self.wrong("is_federated", what, help);
            }
            (FileKind::Site, true) => {
                let what = "a federated object in a site's own file";
                self.wrong("is_federated", what, "move the object to the file that `federation` names");
            }
            _ => {}
        }
        is_federated
    }
}
