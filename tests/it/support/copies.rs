//! What clone members got, read as an analyser would: by the mark that every copy carries.

use std::collections::BTreeMap;

use super::{
    eventually,
    origin::{Origin, Record},
};

/// The mark of a copy: `vs=<name>;session=<hash>;seq=<n>;id=<request id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub vs: String,
    pub session: String,
    pub seq: u64,
    pub id: String,
}

impl Mark {
    /// Fails the test when the copy is not marked, or not in this form.
    pub fn of(copy: &Record) -> Self {
        let fields = copy.headers.all("x-homing-clone");
        assert_eq!(fields.len(), 1, "a copy is marked once: {copy:?}");
        let mut parts = BTreeMap::new();
        for part in fields[0].split(';') {
            let (name, value) = part.trim().split_once('=').expect("a mark is a list of name=value");
            parts.insert(name, value.to_owned());
        }
        let mut part =
            |name| parts.remove(name).unwrap_or_else(|| panic!("a mark has {name}: {}", fields[0]));
        let seq = part("seq").parse().expect("seq is a number");
        Self { vs: part("vs"), session: part("session"), seq, id: part("id") }
    }
}

/// Waits until the members together got this many copies; returns them as (member, copy).
pub async fn copies(members: &[&Origin], n: usize) -> Vec<(String, Record)> {
    let total = || members.iter().map(|member| member.requests().len()).sum::<usize>();
    eventually(&format!("{n} copies arrive"), async || total() >= n).await;
    let of = |member: &&Origin| {
        member.requests().into_iter().map(|copy| (member.name.clone(), copy)).collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

/// Who got the copies of which session, when a request's path is `/<session>/…`.
pub fn by_session(copies: &[(String, Record)]) -> BTreeMap<String, Vec<String>> {
    let mut sessions = BTreeMap::<String, Vec<String>>::new();
    for (member, copy) in copies {
        let session = copy.target.split('/').nth(1).unwrap_or_default();
        sessions.entry(session.to_owned()).or_default().push(member.clone());
    }
    sessions
}
