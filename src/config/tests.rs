//! The configuration as a whole: refused ones against golden files, the examples, and the reference.

mod fixtures;
mod schema;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;

use self::fixtures::FILES;
use super::{
    AdminListen, Config, Disk, Files, Gslb, LbAlgorithm, Loaded, MonitorType, Problem, Problems, Token, load,
    load_from,
    yaml::{Data, Entry, Node},
};

const RULES: [&str; 2] = ["canary_by_header", "maintenance"];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn load_text(text: &str) -> Result<Loaded, Problems> {
    let mut files = FILES.clone();
    files.insert("homing.yaml".into(), text.into());
    load_from(&files, Path::new("homing.yaml"), &RULES)
}

/// `federation-*.yaml` replaces the federation of `conf/two-sites/site-a.yaml`, any other is a node's own file.
fn load_golden(file: &Path) -> Result<Loaded, Problems> {
    let name = PathBuf::from(file.file_name().expect("a golden file has a name"));
    let content = fs::read_to_string(file).expect("a golden file is text");
    let mut files = FILES.clone();
    files.insert(name.clone(), content.into());
    if !name.starts_with("federation.yaml") && name.to_string_lossy().starts_with("federation-") {
        let site = fs::read_to_string(project("conf/two-sites/site-a.yaml")).expect("it is in the project");
        let site = site.replace("federation.yaml", &name.to_string_lossy());
        files.insert("site-a.yaml".into(), site.into());
        return load_from(&files, Path::new("site-a.yaml"), &RULES);
    }
    load_from(&files, &name, &RULES)
}

#[test]
fn each_refused_configuration_says_everything_that_is_wrong_with_it() {
    let folder = project("tests/golden/config");
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the folder is there").map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    assert!(files.len() >= 15, "golden files are missing from {}", folder.display());
    for file in files {
        let problems = load_golden(&file).expect_err(&format!("{} is accepted", file.display()));
        let (found, golden) = (format!("{problems}\n"), file.with_extension("txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &found).expect("the folder can be written");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(found, expected, "{} (UPDATE_GOLDEN=1 writes what is found)", golden.display());
    }
}

#[test]
fn the_two_example_sites_load() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["site-a.yaml", "site-b.yaml", "federation.yaml"] {
        fs::copy(project("conf/two-sites").join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("site-cookie.key"), "0f".repeat(32)).unwrap();
    for site in ["site_A", "site_B"] {
        let file = folder.path().join(site.to_lowercase().replace('_', "-") + ".yaml");
        let Loaded { config, .. } = load(&file, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.site.name.as_str(), site);
        assert_eq!(config.pools[0].algorithm, LbAlgorithm::RoundRobin);
        assert_eq!(config.pools[1].servers.len(), 3);
        assert!(matches!(config.pools[0].monitors[0].kind, MonitorType::Http { .. }));
        let vs = &config.virtual_services[0];
        assert_eq!(vs.clones[0].tokens[0], Token::Cookie("SID".into()));
        assert_eq!(vs.pool.as_ref().map(|pool| pool.as_str()), Some("pay"));
        let gslb = config.gslb.expect("there is a federation");
        let persistence = gslb.services[0].site_persistence.as_ref().expect("it is enabled");
        assert_eq!(persistence.cookie.keys[0].secret.expose(), &[0x0f; 32]);
        assert_eq!(gslb.services[0].groups[0].priority, 13);
    }
}

#[test]
fn the_default_profile_is_the_one_of_that_name_if_there_is_one() {
    let vs = "pools: [{name: a}]\nvirtual_services: [{name: a, pool_ref: a, services: [{address: \"::1\", port: 80}]";
    let redirects = |text: &str| load_text(text).unwrap().config.virtual_services[0].profile.http_to_https;
    let defined = "\napplication_profiles: [{name: System-HTTP, http_to_https: true}]";
    assert!(!redirects(&format!("{vs}}}]")));
    assert!(!redirects(&format!("{vs}, application_profile_ref: System-HTTP}}]")));
    assert!(redirects(&format!("{vs}}}]{defined}")));
    assert!(redirects(&format!("{vs}, application_profile_ref: System-HTTP}}]{defined}")));
}

#[test]
fn several_virtual_services_bring_their_certificates_to_one_listener() {
    let vs = |name: &str| {
        format!(
            "- {{name: {name}, pool_ref: a, domain_names: [{name}], ssl_key_and_certificate_ref: c, services: [{{address: 10.0.0.1, port: 443, enable_ssl: true}}]}}\n"
        )
    };
    let head = "ssl_keys_and_certificates: [{name: c, certificate_file: a-com.pem, key_file: a-com.key}]\npools: [{name: a}]\n";
    let text = format!("{head}virtual_services:\n{}{}", vs("a.com"), vs("b.com"));
    let Loaded { config, .. } = load_text(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.virtual_services.iter().all(|vs| vs.services[0].tls.is_some()));
}

#[test]
fn the_small_configuration_loads_without_a_warning() {
    let Loaded { config, warnings } = load(&project("conf/homing.yaml"), &[]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.admin.listen, AdminListen::Tcp("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(config.virtual_services[0].services[0].addr, "127.0.0.1:8080".parse().unwrap());
    assert!(config.virtual_services[0].clones.is_empty());
}

#[test]
fn what_is_commented_out_in_the_small_configuration_loads_too() {
    let text = fs::read_to_string(project("conf/homing.yaml")).unwrap();
    let (head, objects) = text.split_once("\nadmin:").expect("it begins with a comment");
    let objects = objects
        .replace("\n  # Analysers", "\n  ## Analysers")
        .replace("\n  # ", "\n  ")
        .replace("\n    # ", "\n    ");
    let Loaded { config, .. } =
        load_text(&format!("{head}\nadmin:{objects}")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.virtual_services[0].clones.len(), 1);
    assert_eq!(config.pools.len(), 2);
}

#[test]
fn an_empty_section_counts_as_left_out() {
    let Loaded { config, .. } = load_text("pools:\nvirtual_services:\nadmin: ~\n").unwrap();
    assert!(config.pools.is_empty() && config.virtual_services.is_empty());
    assert_eq!(config.site.name.as_str(), "local");
}

#[test]
fn an_alias_stands_for_what_it_names() {
    let text = "pools:\n- &pay\n  name: pay\n  servers: &servers [{ip: 10.0.0.1}]\n- {name: two, servers: *servers}\n";
    let Loaded { config, .. } = load_text(text).unwrap();
    assert_eq!(config.pools[0].servers, config.pools[1].servers);
    let problems = load_text(&format!("{text}- *pay\n")).unwrap_err();
    let expected = "homing.yaml:6: pools[pay].name: pool `pay` is defined twice, first in line 3";
    assert!(problems.to_string().starts_with(expected), "{problems}");
}

#[test]
fn avis_long_spelling_of_values_is_accepted() {
    let text = "pools: [{name: pay, lb_algorithm: LB_ALGORITHM_RANDOM}]";
    assert_eq!(load_text(text).unwrap().config.pools[0].algorithm, LbAlgorithm::Random);
}

#[test]
fn a_long_list_of_problems_ends_with_their_number() {
    let text = format!("pools:\n{}", "- {nam: x, name: y}\n".repeat(60));
    let printed = load_text(&text).unwrap_err().to_string();
    assert_eq!(printed.lines().count(), 51);
    assert!(printed.ends_with("\nand 69 more"), "{printed}");
}

#[test]
fn files_that_are_too_large_or_not_there_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("homing.yaml");
    let missing = load(&file, &[]).unwrap_err().to_string();
    assert!(missing.contains("homing.yaml:1: ") && missing.contains("does not exist"), "{missing}");
    fs::write(&file, vec![b'#'; super::LARGEST_FILE as usize + 1]).unwrap();
    assert_eq!(Disk.read(&file).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    assert!(load(&file, &[]).unwrap_err().to_string().contains("file too large"));
}

#[test]
fn deep_and_multiplying_yaml_is_refused() {
    let bomb: String =
        (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(10))).collect();
    let texts =
        ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), format!("a0: &a0 [x]\n{bomb}")];
    for text in texts {
        assert!(load_text(&text).is_err());
    }
}

proptest! {
    #[test]
    fn loading_never_panics(text in "\\PC{0,200}") {
        let _ = load_text(&text);
    }

    #[test]
    fn loading_what_looks_like_yaml_never_panics(text in r#"([a-z<*&!?|>#%@"'\[\]{},:\-]{0,4}[ \n\t]{0,3}){0,40}"#) {
        let _ = load_text(&text);
    }

    #[test]
    fn damage_to_the_reference_never_panics(at in 0_usize..12_000, with in "\\PC{0,3}", cut in 0_usize..4) {
        let text = fs::read_to_string(project("conf/reference.yaml")).unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.min(characters.len());
        let end = (at + cut).min(characters.len());
        characters.splice(at..end, with.chars());
        let _ = load_text(&characters.into_iter().collect::<String>());
    }
}

/// The reference: a node's own file and the federation's, as text and as trees.
struct Reference {
    texts: [String; 2],
    trees: [Node; 2],
}

const REFERENCE: [&str; 2] = ["reference.yaml", "reference-federation.yaml"];

impl Reference {
    fn open() -> Self {
        let texts = REFERENCE.map(|file| fs::read_to_string(project("conf").join(file)).unwrap());
        let trees =
            texts.each_ref().map(|text| Node::parse(text).unwrap_or_else(|(line, _)| panic!("line {line}")));
        Self { texts, trees }
    }

    /// Writes the trees out again, and loads them.
    fn load(trees: &[Node; 2]) -> Result<Config, Problems> {
        let mut files = FILES.clone();
        for (name, tree) in REFERENCE.iter().zip(trees) {
            files.insert(name.into(), serde_yaml::to_string(&tree.to_value()).unwrap().into());
        }
        let mut config = load_from(&files, Path::new(REFERENCE[0]), &RULES)?.config;
        // They are of the text, whatever that means.
        config.checksum.clear();
        config.gslb = config.gslb.map(|gslb| Arc::new(Gslb { checksum: String::new(), ..(*gslb).clone() }));
        Ok(config)
    }
}

/// Calls `visit` with every mapping of a tree, its path without numbers and names.
fn mappings(node: &Node, path: &str, visit: &mut impl FnMut(&str, &[Entry])) {
    match &node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter().for_each(|item| mappings(item, path, visit)),
        // What is in these is the user's.
        Data::Map(_) if path.ends_with(".config") || path.ends_with(".set_headers") => {}
        Data::Map(entries) => {
            visit(path, entries);
            for entry in entries {
                mappings(&entry.value, &format!("{path}.{}", entry.key), visit);
            }
        }
    }
}

/// Calls `change` with the entries of every mapping of a tree.
fn change_mappings(node: &mut Node, path: &str, change: &mut impl FnMut(&mut Vec<Entry>)) {
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| change_mappings(item, path, change)),
        Data::Map(_) if path.ends_with(".config") || path.ends_with(".set_headers") => {}
        Data::Map(entries) => {
            change(entries);
            for entry in entries {
                change_mappings(&mut entry.value, &format!("{path}.{}", entry.key), change);
            }
        }
    }
}

#[test]
fn the_reference_loads() {
    let reference = Reference::open();
    Reference::load(&reference.trees).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn the_reference_has_every_key_that_is_read() {
    let reference = Reference::open();
    for (n, tree) in reference.trees.iter().enumerate() {
        let mut written: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        mappings(tree, "", &mut |path, entries| {
            written.entry(path.into()).or_default().extend(entries.iter().map(|entry| entry.key.clone()));
        });

        // A key that nobody could mean: the answer lists those that are known.
        let mut trees = reference.trees.clone();
        let stranger = Entry {
            key: "zzzzzzzzzzzzzzzz".into(),
            line: 0,
            value: Node { line: 0, data: Data::Scalar(1.into()) },
        };
        change_mappings(&mut trees[n], "", &mut |entries| entries.push(stranger.clone()));
        let problems = Reference::load(&trees).expect_err("there are unknown keys");
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for Problem { place, help, .. } in problems.iter() {
            let keys = help.strip_prefix("known: ").expect("every problem is an unknown key").split(", ");
            let mut path = place.path.clone();
            while let (Some(from), Some(to)) = (path.find('['), path.find(']')) {
                path.replace_range(from..=to, "");
            }
            let path = if path.is_empty() { path } else { format!(".{path}") };
            known.entry(path).or_default().extend(keys.map(str::to_string));
        }
        // Keys of monitors are shown in full in one of the two files.
        if n == 1 {
            known.remove(".health_monitors");
            written.remove(".health_monitors");
        }
        assert_eq!(written, known, "{}", REFERENCE[n]);
    }
}

#[test]
fn the_reference_tells_the_real_defaults() {
    let reference = Reference::open();
    let whole = format!("{:?}", Reference::load(&reference.trees).unwrap());
    for (n, text) in reference.texts.iter().enumerate() {
        let lines: Vec<&str> = text.lines().collect();
        let mut keys = Vec::new();
        mappings(&reference.trees[n], "", &mut |path, entries| {
            keys.extend(entries.iter().map(|entry| (path.to_string(), entry.key.clone(), entry.line)));
        });
        assert!(keys.len() > 50);
        for (path, key, line) in keys {
            let mut trees = reference.trees.clone();
            change_mappings(&mut trees[n], "", &mut |entries| entries.retain(|entry| entry.line != line));
            let without = Reference::load(&trees);
            let place = format!("{}:{line}: {path}.{key}", REFERENCE[n]);
            let (field, comment) =
                lines[line - 1].split_once(" #").unwrap_or_else(|| panic!("{place}: no comment"));
            let mark = comment.rsplit("; ").next().unwrap_or(comment).trim();
            if let Some(default) = mark.strip_prefix("default ") {
                let value = field.split_once(": ").map(|(_, value)| value.trim());
                assert_eq!(value, Some(default), "{place}: the value is not the default");
                assert!(format!("{:?}", without.unwrap()) == whole, "{place}: not the default");
            } else if mark == "required" {
                assert!(without.is_err(), "{place}: not required");
            } else {
                assert!(
                    mark.starts_with("left out: ") || ["as above", "as below"].contains(&mark),
                    "{place}: `{mark}`"
                );
            }
        }
    }
}
