//! What lies in docker/: that alert rules and the board ask only for metrics that exist, and that the composed example
//! is one piece.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use homing::metrics::{Description, Metrics};
use serde_yaml::Value;

use crate::{
    layers::sources,
    support::homing::{run, run_in},
};

#[test]
fn alerts_and_the_board_ask_only_for_metrics_that_exist() {
    let metrics: BTreeMap<_, _> =
        Metrics::new().descriptions().into_iter().map(|it| (it.name.clone(), it)).collect();
    let alerts = yaml("prometheus/alerts.yml");
    let board: Value = serde_yaml::from_str(&read("grafana/dashboards/homing.json")).expect("JSON is YAML");
    let mut asked = BTreeSet::new();
    for expression in [&alerts, &board].into_iter().flat_map(|file| values_of(file, &["expr", "definition"]))
    {
        let selectors = selectors(&expression);
        assert!(!selectors.is_empty() || expression.starts_with("up{"), "{expression}");
        let known: Vec<_> =
            selectors.iter().map(|(name, _)| described(&metrics, name, &expression)).collect();
        for ((_, labels), metric) in selectors.iter().zip(&known) {
            let strange = labels.iter().find(|label| !has_label(metric, label));
            assert_eq!(strange, None, "{} has no such label: {expression}", metric.name);
        }
        for label in groupings(&expression) {
            assert!(known.iter().any(|metric| has_label(metric, &label)), "{label}: {expression}");
        }
        asked.extend(known.iter().map(|metric| metric.name.clone()));
    }
    assert!(asked.len() > 30, "the expressions were found: {asked:?}");
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do() {
    let alerts = yaml("prometheus/alerts.yml");
    let rules = list(&alerts["groups"][0]["rules"]);
    assert!(rules.len() > 10);
    for rule in rules {
        let name = text(&rule["alert"]);
        assert!(["page", "ticket"].contains(&text(&rule["labels"]["severity"])), "{name}");
        for part in ["summary", "description"] {
            assert!(text(&rule["annotations"][part]).len() > 20, "{name}: {part}");
        }
    }
}

#[test]
fn images_are_pinned_and_what_is_mounted_is_there() {
    let compose = yaml("compose.yaml");
    for (name, service) in services(&compose) {
        let image = text(&service["image"]);
        let ours = image == "${HOMING_IMAGE:-homing:latest}";
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
        assert!(ours || tag.contains('.'), "{name}: {image} names no release");
        for volume in list(&service["volumes"]) {
            let (source, _) = text(volume).split_once(':').expect("a source and a place");
            match source.strip_prefix("./") {
                Some(path) => assert!(docker().join(path).exists(), "{name}: {source}"),
                None => assert!(compose["volumes"].get(source).is_some(), "{name}: {source}"),
            }
        }
    }
}

#[tokio::test]
async fn the_composed_sites_have_good_configurations_whose_servers_are_there() {
    let compose = yaml("compose.yaml");
    let addresses = addresses(&compose);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let secrets = dir.path().display().to_string();
    for file in ["site-a.yaml", "site-b.yaml", "federation.yaml"] {
        let text = read(&format!("compose/{file}")).replace("/var/lib/homing", &secrets);
        fs::write(dir.path().join(file), text).expect("written");
    }
    for secret in ["site-cookie.key", "admin.token"] {
        let file = dir.path().join(secret).display().to_string();
        let made = run(&["keys", "new", "--keep", "--out", &file]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    for site in ["site-a", "site-b"] {
        let file = format!("{site}.yaml");
        let check = run_in(dir.path(), &["check", "--config", &file]).await;
        assert_eq!((check.code, &*check.stderr), (Some(0), ""), "{check:?}");
        let networks = &addresses[site];
        for pool in list(&yaml(&format!("compose/{file}"))["pools"]) {
            for server in list(&pool["servers"]) {
                let ip = text(&server["ip"]);
                let there = addresses.iter().any(|(_, others)| {
                    others.iter().any(|(network, at)| at == ip && networks.contains_key(network))
                });
                assert!(there, "{site}: {ip} is a service on a network of its own");
            }
        }
    }
    let federation = yaml("compose/federation.yaml");
    for group in list(&federation["gslb_services"][0]["groups"]) {
        let ip = text(&group["members"][0]["ip"]);
        let site = addresses.iter().find(|(_, networks)| networks.values().any(|at| at == ip));
        assert!(site.is_some_and(|(name, _)| name.starts_with("site-")), "{ip} is a site");
    }
}

#[tokio::test]
async fn the_images_own_configuration_is_good() {
    let file = docker().join("homing.yaml").display().to_string();
    let check = run(&["check", "--config", &file]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
}

/// Service → network → address; no address twice.
fn addresses(compose: &Value) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut seen = BTreeSet::new();
    let mut addresses = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (name, service) in services(compose) {
        for (network, settings) in service["networks"].as_mapping().into_iter().flatten() {
            let Some(ip) = settings["ipv4_address"].as_str() else { continue };
            let subnet = text(&compose["networks"][network]["ipam"]["config"][0]["subnet"]);
            let prefix = subnet.strip_suffix("0/24").expect("networks of the example have 256 addresses");
            assert!(ip.starts_with(prefix), "{name}: {ip} is in {subnet}");
            assert!(seen.insert(ip.to_owned()), "{ip} is given twice");
            addresses.entry(name.clone()).or_default().insert(text(network).to_owned(), ip.to_owned());
        }
    }
    addresses
}

fn services(compose: &Value) -> Vec<(String, Value)> {
    let services = compose["services"].as_mapping().expect("there are services");
    services.iter().map(|(name, service)| (text(name).to_owned(), service.clone())).collect()
}

/// Every string under one of these keys, at any depth.
fn values_of(value: &Value, keys: &[&str]) -> Vec<String> {
    match value {
        Value::Mapping(entries) => entries
            .iter()
            .flat_map(|(key, value)| match value.as_str() {
                Some(text) if key.as_str().is_some_and(|key| keys.contains(&key)) => vec![text.to_owned()],
                _ => values_of(value, keys),
            })
            .collect(),
        Value::Sequence(items) => items.iter().flat_map(|item| values_of(item, keys)).collect(),
        _ => Vec::new(),
    }
}

/// The metrics of ours that a PromQL expression selects, each with the labels that it matches.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_name) {
        let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |length| start + length);
        let (name, after) = (&rest[start..end], &rest[end..]);
        rest = after;
        if name.starts_with("homing_") || name.starts_with("process_") {
            let matchers = after.strip_prefix('{').and_then(|it| it.split_once('}'));
            let matchers = matchers.map_or("", |(matchers, _)| matchers);
            let labels = matchers.split(',').filter(|it| !it.is_empty());
            let labels = labels.filter_map(|it| it.split(['=', '!']).next()).map(str::to_owned);
            found.push((name.to_owned(), labels.collect()));
        }
    }
    found
}

/// The labels that an expression groups by.
fn groupings(expression: &str) -> Vec<String> {
    let groups = expression.split("by (").skip(1).filter_map(|it| it.split(')').next());
    groups.flat_map(|group| group.split(',')).map(|label| label.trim().to_owned()).collect()
}

fn described<'a>(
    metrics: &'a BTreeMap<String, Description>,
    name: &str,
    expression: &str,
) -> &'a Description {
    let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let histogram = family.and_then(|family| metrics.get(family)).filter(|it| it.kind == "histogram");
    histogram.or_else(|| metrics.get(name)).unwrap_or_else(|| panic!("{name} is no metric: {expression}"))
}

#[test]
fn the_image_is_built_of_all_that_the_sources_include() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).expect("it is there");
    let (src, dockerfile) = (fs::canonicalize(root.join("src")).expect("it is there"), read("Dockerfile"));
    let mut included = 0;
    for source in sources(&src) {
        let text = fs::read_to_string(&source).expect("it is text");
        let names = text.split("include_str!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for name in names {
            let file = source.parent().expect("it is in src").join(name);
            let file = fs::canonicalize(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            if file.starts_with(&src) {
                continue;
            }
            let file = file.strip_prefix(src.parent().expect("src is in the root")).expect("it is ours");
            let file = file.to_str().expect("it is text");
            assert!(dockerfile.contains(file), "docker/Dockerfile copies no {file}");
            assert!(ignored.lines().any(|line| line == format!("!{file}")), ".dockerignore keeps {file} out");
            included += 1;
        }
    }
    assert!(included > 0, "the schema is made of the reference");
}

fn has_label(metric: &Description, label: &str) -> bool {
    let scrapes = ["instance", "job"].contains(&label) || (label == "le" && metric.kind == "histogram");
    scrapes || metric.labels.iter().any(|known| known == label)
}

fn yaml(file: &str) -> Value {
    let mut yaml: Value = serde_yaml::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    // Twice: what is merged in merges something in itself.
    for _ in 0..2 {
        yaml.apply_merge().unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    yaml
}

fn read(file: &str) -> String {
    fs::read_to_string(docker().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is no text"))
}
