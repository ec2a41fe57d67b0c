//! The configuration's files as JSON Schema (draft 2020-12), for editors: they complete keys, show what a key is
//! for, and mark what is wrong while it is written.
//!
//! Keys and shapes are told by the readers ([`Outline`]), what they are for by the reference in `conf`. A schema
//! knows the form of a file; what its values mean together, such as a name that nothing has, `homing check` knows.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use super::{
    Disk,
    federation::Federation,
    files::Source,
    gslb::Unfederated,
    load::read_site,
    problem::Report,
    read::{FileKind, Object},
    shape::{Outline, Shape},
    table::Table,
    yaml::{Data, Entry, Node},
};

/// The schema of a file.
pub fn schema(kind: FileKind) -> Value {
    let (title, own) = match kind {
        FileKind::Site => ("homing: a node's own file", SITE),
        FileKind::Federation => ("homing: the file that is the same on every site", FEDERATION),
    };
    let mut comments = Comments::read(SITE);
    comments.0.extend(Comments::read(own).0);
    let Value::Object(mut schema) = object(&outline(kind), "", &comments) else {
        unreachable!("the schema of an object is an object");
    };
    schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".into(), title.into());
    Value::Object(schema)
}

/// What a file's reader takes. Nothing is read: there is no key that could name a file.
pub(super) fn outline(kind: FileKind) -> Outline {
    let report = Report::default();
    let source = Source { file: Path::new("").into(), files: &Disk, report: &report };
    match kind {
        FileKind::Site => Object::outline(&source, |o| drop(read_site(o, &[]))),
        FileKind::Federation => Object::outline(&source, |o| {
            let unfederated = Unfederated { monitors: Vec::new(), profiles: Vec::new() };
            drop(Federation::read(o, &mut Table::new("health monitor"), &unfederated, String::new()));
        }),
    }
}

/// `path`: the keys that lead to the object.
fn object(outline: &Outline, path: &str, comments: &Comments) -> Value {
    let properties = outline.keys.iter().map(|(key, shape)| {
        let path = format!("{path}.{key}");
        let mut schema = value(shape, &path, comments);
        if outline.not_empty.contains(key) {
            schema["minItems"] = 1.into();
        }
        if !outline.required.contains(key) {
            schema = or_nothing(schema);
        }
        if let Some(comment) = comments.0.get(&path) {
            schema["description"] = comment.as_str().into();
        }
        ((*key).to_owned(), schema)
    });
    let properties: Map<_, _> = properties.collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !outline.required.is_empty() {
        schema["required"] = outline.required.iter().copied().collect();
    }
    schema
}

fn value(shape: &Shape, path: &str, comments: &Comments) -> Value {
    match shape {
        Shape::Anything => json!({}),
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::Matching(pattern) => json!({ "type": "string", "pattern": pattern }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Number { least, most } => json!({ "type": "number", "minimum": least, "maximum": most }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Either(both) => {
            let (one, other) = both.as_ref();
            json!({ "anyOf": [value(one, path, comments), value(other, path, comments)] })
        }
        Shape::List(of) => json!({ "type": "array", "items": value(of, path, comments) }),
        Shape::Object(outline) => object(outline, path, comments),
        Shape::Map(of) => json!({ "type": "object", "additionalProperties": value(of, path, comments) }),
    }
}

/// A key without a value counts as left out.
fn or_nothing(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type") {
        schema["type"] = json!([kind, "null"]);
    } else if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(Value::Array(either)) = schema.get_mut("anyOf") {
        either.push(json!({ "type": "null" }));
    }
    schema
}

/// What the reference says of each key, by the keys that lead to it: `.pools.servers.port`.
struct Comments(BTreeMap<String, String>);

impl Comments {
    fn read(reference: &str) -> Self {
        let mut comments = Self(BTreeMap::new());
        if let Ok(tree) = Node::parse(reference) {
            comments.add(&tree, "", &reference.lines().collect::<Vec<_>>());
        }
        comments
    }

    fn add(&mut self, node: &Node, path: &str, lines: &[&str]) {
        match &node.data {
            Data::Scalar(_) => {}
            Data::List(items) => items.iter().for_each(|item| self.add(item, path, lines)),
            Data::Map(entries) => {
                for Entry { key, line, value } in entries {
                    let path = format!("{path}.{key}");
                    self.add(value, &path, lines);
                    let comment = line.checked_sub(1).and_then(|n| lines.get(n)?.split_once(" #"));
                    let comment = comment.map(|(_, comment)| comment.trim());
                    if let Some(comment) = comment.filter(|it| !["as above", "as below"].contains(it)) {
                        self.0.entry(path).or_insert_with(|| comment.to_owned());
                    }
                }
            }
        }
    }
}

const SITE: &str = include_str!("../../conf/reference.yaml");
const FEDERATION: &str = include_str!("../../conf/reference-federation.yaml");
