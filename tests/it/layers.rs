//! The layers of the crate: a module imports only what lies below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From the bottom; modules of one layer do not import one another, except in the top one.
const LAYERS: [&[&str]; 10] = [
    &["names", "metrics", "site_cookie", "clock", "buckets", "limits", "message"],
    &["config"],
    &["session", "tls", "listen", "preface", "access_log"],
    &["pool", "clone", "gslb"],
    &["rule"],
    &["filter"],
    &["snapshot"],
    &["proxy", "admin", "dns"],
    &["server"],
    &["cli", "main"],
];

/// All that the topmost layer may import of the crate.
const CLI_MAY: [&str; 5] = ["cli", "config", "site_cookie", "admin", "server"];

#[test]
fn modules_import_only_from_the_layers_below() {
    let layer = layers();
    let mut wrong = Vec::new();
    for (module, imports) in imports() {
        if module == "lib" {
            continue;
        }
        let own = layer.get(module.as_str()).unwrap_or_else(|| panic!("{module} has a layer"));
        for (import, file) in imports {
            if import == module || import == "prelude" {
                continue;
            }
            let other =
                layer.get(import.as_str()).unwrap_or_else(|| panic!("{import}, used by {file}, has a layer"));
            let may = match *own == LAYERS.len() - 1 {
                true => CLI_MAY.contains(&import.as_str()),
                false => other < own,
            };
            if !may {
                wrong.push(format!("{file} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not from below:\n{}", wrong.join("\n"));
}

#[test]
fn the_test_sees_the_imports() {
    let imports = imports();
    let of_config = imports["config"].iter().map(|(import, _)| import.as_str()).collect::<BTreeSet<_>>();
    assert!(of_config.contains("names"), "{of_config:?}");
    assert_eq!(
        named("use crate::{\n    a::B,\n    c,\n};\nfn f() { crate::d::e(); }\nuse crate::f;\n// crate::g\n"),
        BTreeSet::from(["a", "c", "d", "f"].map(str::to_owned))
    );
}

#[test]
fn unsafe_code_is_in_tls_and_where_the_allocator_and_the_app_are_had_alone() {
    for file in sources(&source_dir()) {
        // Pingora gives an app with a connector of one's own away inside a service only.
        let may = module_of(&file) == "tls" || file.ends_with("main.rs") || file.ends_with("server/app.rs");
        let text = fs::read_to_string(&file).expect("sources are text");
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let has = code
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .any(|word| word == "unsafe");
        assert!(may || !has, "{} is unsafe", file.display());
    }
}

fn layers() -> BTreeMap<&'static str, usize> {
    LAYERS
        .iter()
        .enumerate()
        .flat_map(|(n, modules)| modules.iter().map(move |module| (*module, n)))
        .collect()
}

/// Of every module, what its files import, with the file that does.
fn imports() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut imports = BTreeMap::<_, BTreeSet<_>>::new();
    for file in sources(&source_dir()) {
        let text = fs::read_to_string(&file).expect("sources are text");
        let found = named(&text).into_iter().map(|import| (import, file.display().to_string()));
        imports.entry(module_of(&file)).or_default().extend(found);
    }
    imports
}

/// The modules of the crate that a file names after `crate::` (in the binary, `homing::`), comments aside.
fn named(text: &str) -> BTreeSet<String> {
    let code =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for path in code.split("crate::").skip(1).chain(code.split("use homing::").skip(1)) {
        match path.strip_prefix('{') {
            None => found.extend(first_name(path)),
            Some(list) => found.extend(top_level_items(list).into_iter().filter_map(first_name)),
        }
    }
    found
}

/// The items of a use list that has just been opened.
fn top_level_items(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
                if c == '}' {
                    return items;
                }
            }
            _ => {}
        }
    }
    items
}

fn first_name(path: &str) -> Option<String> {
    let end =
        path.trim_start().find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.trim_start().len());
    let name = &path.trim_start()[..end];
    name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| name.to_owned())
}

/// `src/pool/lease.rs` and `src/pool.rs` belong to `pool`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source_dir()).expect("sources lie in src");
    let first = inside.components().next().expect("a file has a name");
    Path::new(first.as_os_str()).with_extension("").display().to_string()
}

pub fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(dir).expect("src can be read").map(|entry| entry.expect("src can be read").path());
    let (dirs, files) = entries.partition::<Vec<_>, _>(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    files.chain(dirs.iter().flat_map(|dir| sources(dir))).collect()
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
