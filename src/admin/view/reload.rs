//! What a reload did, and which configuration is in force.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Timestamp, duration};

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// As it was given to `homing run`.
    pub file: String,
    /// When the one in force was loaded.
    pub loaded: Timestamp,
    /// It is loaded again when its files change.
    pub watch: bool,
    /// What the file says and only a restart puts in force.
    pub needs_restart: Vec<String>,
    /// Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<Reload>,
}

/// One reload. One that failed has changed nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reload {
    pub result: ReloadResult,
    /// `signal`, `admin`, `watch`.
    pub trigger: String,
    pub time: Timestamp,
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub duration: Duration,
    /// In short, what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Everything that is wrong, a line each: `FILE:LINE: path: what is wrong; how to mend it`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The same of what is dubious.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the file says and only a restart puts in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// By section of the file (`pools`, `virtual_services`, …), and `listeners`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, Changes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    Success,
    Failure,
}

impl ReloadResult {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What a reload did to the objects of one kind: their names, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
    pub unchanged: Vec<String>,
}

impl Changes {
    /// Compares objects by name.
    pub fn between<T>(
        old: impl IntoIterator<Item = (String, T)>,
        new: impl IntoIterator<Item = (String, T)>,
        same: impl Fn(&T, &T) -> bool,
    ) -> Self {
        let mut old: BTreeMap<_, _> = old.into_iter().collect();
        let mut changes = Self::default();
        for (name, new) in new.into_iter().collect::<BTreeMap<_, _>>() {
            let list = match old.remove(&name) {
                None => &mut changes.added,
                Some(old) if same(&old, &new) => &mut changes.unchanged,
                Some(_) => &mut changes.changed,
            };
            list.push(name);
        }
        changes.removed.extend(old.into_keys());
        changes
    }

    /// `1 added (x), 2 unchanged`; the names of what stayed are left out.
    pub fn in_words(&self) -> String {
        let named = [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)];
        let named = named.into_iter().filter(|(_, names)| !names.is_empty());
        let named = named.map(|(what, names)| format!("{} {what} ({})", names.len(), names.join(", ")));
        let unchanged = Some(&self.unchanged).filter(|names| !names.is_empty());
        named
            .chain(unchanged.map(|names| format!("{} unchanged", names.len())))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether there are no such objects.
    pub fn is_empty(&self) -> bool {
        self.is_of_none() && self.unchanged.is_empty()
    }

    /// Whether all objects are as they were.
    pub fn is_of_none(&self) -> bool {
        [&self.added, &self.removed, &self.changed].iter().all(|names| names.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_compared_by_name() {
        let objects = |objects: &[(&str, u8)]| {
            objects.iter().map(|(name, value)| (name.to_string(), *value)).collect::<Vec<_>>()
        };
        let old = objects(&[("goes", 1), ("stays", 1), ("turns", 1), ("also", 3)]);
        let new = objects(&[("turns", 2), ("comes", 1), ("stays", 1), ("also", 3)]);
        let changes = Changes::between(old, new, |a, b| a == b);
        assert_eq!(changes.in_words(), "1 added (comes), 1 removed (goes), 1 changed (turns), 2 unchanged");
        assert_eq!(changes.unchanged, ["also", "stays"]);
        assert!(Changes::between(objects(&[]), objects(&[]), |a, b| a == b).is_empty());
    }
}
