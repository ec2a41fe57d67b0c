//! The access log of a homing, read as a collector would.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    config::{Site, parse},
    eventually,
    homing::Homing,
};

/// A site that writes its access log into `access.log` beside its configuration; `more` are further keys, as YAML.
pub fn logged(site: Site, more: &str) -> Site {
    site.with(|yaml| yaml["access_log"] = parse(&format!("{{path: access.log{more}}}")))
}

/// Where [`logged`] has the log.
pub fn file(homing: &Homing) -> PathBuf {
    homing.dir().join("access.log")
}

/// The lines of a file that are whole, as JSON.
pub fn read(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    whole.lines().map(parse).collect()
}

/// Waits until there are so many lines.
pub async fn lines(homing: &Homing, n: usize) -> Vec<Value> {
    let file = file(homing);
    eventually(&format!("{n} lines are there"), async || read(&file).len() >= n).await;
    let lines = read(&file);
    assert_eq!(lines.len(), n, "{lines:#?}");
    lines
}

/// The only line.
pub async fn line(homing: &Homing) -> Value {
    lines(homing, 1).await.remove(0)
}
