//! The schema says what the readers do: the same keys, the same words, the same shapes.

use serde_yaml::Value;

use super::{
    super::{
        FileKind,
        schema::{outline, schema},
        shape::{Outline, Shape},
    },
    *,
};

const KINDS: [FileKind; 2] = [FileKind::Site, FileKind::Federation];

fn validator(kind: FileKind) -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema(kind)).expect("it is a schema")
}

fn json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).expect("a configuration is what JSON has")
}

fn parse(path: &Path) -> Value {
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_examples_and_the_reference_are_of_the_schema() {
    for (file, kind) in [
        ("conf/homing.yaml", FileKind::Site),
        ("conf/reference.yaml", FileKind::Site),
        ("conf/two-sites/site-a.yaml", FileKind::Site),
        ("conf/two-sites/site-b.yaml", FileKind::Site),
        ("conf/reference-federation.yaml", FileKind::Federation),
        ("conf/two-sites/federation.yaml", FileKind::Federation),
    ] {
        let wrong: Vec<_> =
            validator(kind).iter_errors(&json(&parse(&project(file)))).map(|it| it.to_string()).collect();
        assert!(wrong.is_empty(), "{file}: {wrong:#?}");
    }
}

#[test]
fn the_schema_has_the_keys_of_the_reference_and_tells_what_they_are_for() {
    fn keys(outline: &Outline, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
        found.entry(path.into()).or_default().extend(outline.keys.iter().map(|(key, _)| (*key).to_owned()));
        for (key, shape) in &outline.keys {
            shapes(shape, &format!("{path}.{key}"), found);
        }
    }
    fn shapes(shape: &Shape, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
        match shape {
            Shape::Object(outline) => keys(outline, path, found),
            Shape::List(of) => shapes(of, path, found),
            Shape::Either(both) => {
                shapes(&both.0, path, found);
                shapes(&both.1, path, found);
            }
            // Whoever adds a parser of another kind has it say what it takes, by `Wrong::expecting`.
            Shape::Anything => assert_eq!(path, ".rules.config", "nobody knows what this takes"),
            _ => {}
        }
    }
    let reference = Reference::open();
    for (kind, tree) in KINDS.into_iter().zip(&reference.trees) {
        let (mut told, mut written) = (BTreeMap::new(), BTreeMap::<_, BTreeSet<_>>::new());
        keys(&outline(kind), "", &mut told);
        mappings(tree, "", &mut |path, entries| {
            written.entry(path.into()).or_default().extend(entries.iter().map(|entry| entry.key.clone()));
        });
        if kind == FileKind::Federation {
            // Keys of monitors are shown in full in the other file.
            told.remove(".health_monitors");
            written.remove(".health_monitors");
        }
        assert_eq!(told, written, "{kind:?}");
    }
    let site = schema(FileKind::Site);
    let port = &site["properties"]["pools"]["items"]["properties"]["servers"]["items"]["properties"]["port"];
    assert_eq!(port["description"], "1–65535; left out: default_server_port");
    assert_eq!(port["maximum"], 65_535);
    assert_eq!(
        site["properties"]["virtual_services"]["items"]["required"],
        serde_json::json!(["name", "services"])
    );
}

/// A file with the value at one of its keys replaced: at every path once, by each of `samples`.
fn each_change(tree: &Value, samples: &[Value], visit: &mut dyn FnMut(Value, &str)) {
    let mut paths = BTreeSet::new();
    changes_below(tree, "", samples, &mut paths, visit);
}

fn changes_below(
    node: &Value,
    path: &str,
    samples: &[Value],
    paths: &mut BTreeSet<String>,
    visit: &mut dyn FnMut(Value, &str),
) {
    match node {
        Value::Mapping(entries) => {
            for (key, value) in entries {
                let name = key.as_str().expect("keys are texts");
                let path = format!("{path}.{name}");
                let with = |value: Value| {
                    let mut changed = entries.clone();
                    changed.insert(key.clone(), value);
                    Value::Mapping(changed)
                };
                if paths.insert(path.clone()) {
                    samples.iter().for_each(|sample| visit(with(sample.clone()), name));
                }
                let visit = &mut |changed, name: &str| visit(with(changed), name);
                changes_below(value, &path, samples, paths, visit);
            }
        }
        Value::Sequence(items) => {
            for (n, item) in items.iter().enumerate() {
                let with = |value: Value| {
                    let mut changed = items.clone();
                    changed[n] = value;
                    Value::Sequence(changed)
                };
                let visit = &mut |changed, name: &str| visit(with(changed), name);
                changes_below(item, path, samples, paths, visit);
            }
        }
        _ => {}
    }
}

/// What the readers make of the reference with one of its files changed.
fn read(kind: FileKind, changed: &Value) -> Result<Loaded, Problems> {
    let mut files = FILES.clone();
    for (name, its_kind) in REFERENCE.into_iter().zip(KINDS) {
        let text = match its_kind == kind {
            true => serde_yaml::to_string(changed).unwrap(),
            false => fs::read_to_string(project("conf").join(name)).unwrap(),
        };
        files.insert(name.into(), text.into());
    }
    load_from(&files, Path::new(REFERENCE[0]), &RULES)
}

#[test]
fn what_the_readers_take_the_schema_takes_and_what_is_of_another_shape_neither_does() {
    let samples: Value = serde_yaml::from_str("[x, 7, true, null, [x], {x: y}]").unwrap();
    let samples = samples.as_sequence().unwrap();
    for kind in KINDS {
        let (validator, mut taken, mut refused) = (validator(kind), 0, 0);
        let tree = parse(&project("conf").join(REFERENCE[usize::from(kind == FileKind::Federation)]));
        each_change(&tree, samples, &mut |changed, key| {
            let fits = validator.is_valid(&json(&changed));
            match read(kind, &changed) {
                Ok(_) => {
                    taken += 1;
                    assert!(fits, "the readers take this {key}, the schema does not:\n{changed:#?}");
                }
                Err(problems) => {
                    // What a value means is not the schema's to say.
                    let of_shape = |problem: &&Problem| {
                        [
                            "is meant",
                            "are meant",
                            "is not known here",
                            "has no unit",
                            "unknown key",
                            "is missing",
                        ]
                        .iter()
                        .any(|part| problem.what.contains(part))
                            && problem.place.path.split(['.', '[']).any(|part| part == key)
                    };
                    if let Some(problem) = problems.iter().find(of_shape) {
                        refused += 1;
                        assert!(!fits, "the readers say {problem}, the schema takes it:\n{changed:#?}");
                    }
                }
            }
        });
        assert!(taken > 50 && refused > 200, "{kind:?}: {taken} taken, {refused} refused");
    }
}

#[test]
fn a_key_that_the_readers_do_not_know_the_schema_does_not_know_either() {
    for kind in KINDS {
        let (validator, mut strangers) = (validator(kind), 0);
        let tree = parse(&project("conf").join(REFERENCE[usize::from(kind == FileKind::Federation)]));
        each_stranger(&tree, "", &mut |changed| {
            strangers += 1;
            assert!(!validator.is_valid(&json(&changed)), "{changed:#?}");
        });
        assert!(strangers > 10, "{strangers}");
    }
}

/// A tree with one more key in one of its mappings, for each of them.
fn each_stranger(node: &Value, path: &str, visit: &mut dyn FnMut(Value)) {
    match node {
        Value::Mapping(entries) if !path.ends_with(".config") && !path.ends_with(".set_headers") => {
            let mut with = entries.clone();
            with.insert("stranger".into(), 1.into());
            visit(Value::Mapping(with));
            for (key, value) in entries {
                let path = format!("{path}.{}", key.as_str().expect("keys are texts"));
                each_stranger(value, &path, &mut |changed| {
                    let mut with = entries.clone();
                    with.insert(key.clone(), changed);
                    visit(Value::Mapping(with));
                });
            }
        }
        Value::Sequence(items) => {
            for (n, item) in items.iter().enumerate() {
                each_stranger(item, path, &mut |changed| {
                    let mut with = items.clone();
                    with[n] = changed;
                    visit(Value::Sequence(with));
                });
            }
        }
        _ => {}
    }
}

#[test]
fn every_word_of_a_choice_is_taken_short_and_long() {
    let reference = schema(FileKind::Site);
    let pools = &reference["properties"]["pools"]["items"]["properties"];
    let words = pools["lb_algorithm"]["enum"].as_array().expect("a choice");
    assert!(words.contains(&"LB_ALGORITHM_RANDOM".into()) && words.len() == 11, "{words:?}");
    for word in words.iter().filter_map(|word| word.as_str()) {
        let hashes = word.to_ascii_lowercase().ends_with("consistent_hash");
        let hash = if hashes { ", lb_algorithm_hash: consistent_hash_uri" } else { "" };
        let text = format!("pools: [{{ name: a, lb_algorithm: {word}{hash} }}]");
        assert!(load_text(&text).is_ok(), "{word}");
    }
}
