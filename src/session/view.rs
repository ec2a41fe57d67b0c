//! The table as operators see it and change it. Looking at a session is not using it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Entry, SessionKey, SessionTable, tables::Table};
use crate::names::same_name;

/// One key of the table and its entry, as operators see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    pub table: String,
    /// The key's hash, 32 hex digits.
    pub key: String,
    /// Names the session to analysers, whichever of its keys this is.
    pub session: u64,
    /// The server, `ip:port`, or the text.
    pub value: String,
    /// How it came by its value.
    pub why: Why,
    /// Since it has its value.
    pub since: Duration,
    /// Since the entry was made.
    pub age: Duration,
    /// Since its idle timeout began; nothing while it is in use.
    pub idle: Duration,
    /// Until it ends if nobody uses it. While it is in use it does not end.
    pub expires_in: Duration,
    /// Requests that were assigned.
    pub requests: u64,
    /// Requests and tunnels in flight, and connections that it belongs to.
    pub in_use: u32,
}

/// How a session came by its server or its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The server was chosen when the session began.
    Chosen,
    /// It was chosen because the one before was not to be kept.
    Moved,
    /// An operator said so.
    Ordered,
    /// A rule set it.
    Rule,
}

/// Why a session did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    #[error("table `{table}` has no session under this key; it may have ended")]
    Unknown { table: String },
    #[error(
        "table `{table}` has a text under this key, not a server; a rule set it, and only a rule may change it"
    )]
    NoServer { table: String },
}

/// A session that was looked for.
struct Found {
    key: SessionKey,
    table: Arc<Table>,
    entry: Arc<Entry>,
}

impl Why {
    /// For people, as the end of a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen when the session began",
            Self::Moved => "chosen when the server before was not up",
            Self::Ordered => "ordered by an operator",
            Self::Rule => "set by a rule",
        }
    }
}

impl SessionTable {
    /// At most `most` of what is in the table, whichever they are, by table and key. `table` is compared without
    /// case; `key` is the key itself or its hash as [`SessionView::key`] shows it, and is looked up without a
    /// walk. No session lives longer for being looked at.
    pub fn view(
        &self,
        table: Option<&str>,
        key: Option<&str>,
        most: usize,
        now: Instant,
    ) -> Vec<SessionView> {
        let now = self.millis(now);
        let wanted = |name: &str| table.is_none_or(|table| same_name(table, name));
        let row = |hash: &SessionKey, entry: &Entry| {
            let table = self.tables.of(hash);
            if wanted(&table.name) { entry.view(now, &table.name, hash) } else { None }
        };
        let mut rows: Vec<SessionView> = match key {
            None => self.store.iter().filter_map(|(hash, entry)| row(&hash, &entry)).take(most).collect(),
            Some(key) => {
                let found = self.keys(wanted, key);
                found.filter_map(|hash| row(&hash, &*self.store.get(&hash)?)).take(most).collect()
            }
        };
        rows.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
        rows.dedup_by(|a, b| (&a.table, &a.key) == (&b.table, &b.key));
        rows
    }

    /// The living session that analysers know by this number, under one of its keys. Walks the table until it is
    /// met, so not on a thread that serves requests.
    pub fn numbered(&self, session: u64, now: Instant) -> Option<SessionView> {
        let now = self.millis(now);
        let mut entries = self.store.iter().filter(|(_, entry)| entry.session() == session);
        entries.find_map(|(key, entry)| entry.view(now, &self.tables.of(&key).name, &key))
    }

    /// Gives a living session another server, whichever it has, as one step: no request of the session falls in
    /// between, and all of its keys see it. `table` and `key` are as in [`SessionTable::view`]. The session does
    /// not live longer for it. What it is now.
    ///
    /// Requests that were assigned before keep their server, whose copies of them are still to arrive there. Those
    /// that follow go to the new one and are numbered on: of a session's `seq` the old server has those up to some
    /// number, the new one those above it, and either may get its own first. If the new server is not to be kept,
    /// the next request moves the session on.
    pub fn move_to(
        &self,
        table: &str,
        key: &str,
        server: SocketAddr,
        now: Instant,
    ) -> Result<SessionView, MoveError> {
        let now = self.millis(now);
        let unknown = || MoveError::Unknown { table: table.to_owned() };
        let found = self.find(table, key, now).ok_or_else(unknown)?;
        if !found.entry.move_to(server, now, &self.tables) {
            return Err(MoveError::NoServer { table: found.table.name.to_string() });
        }
        self.sharing.note(&found.key, &found.entry);
        found.view(now).ok_or_else(unknown)
    }

    /// Ends a session, under all of its keys; its next request begins another, whose `seq` starts at 1. Requests
    /// in flight are not disturbed. `table` and `key` are as in [`SessionTable::view`]. What it was; `None`: there is none.
    pub fn remove(&self, table: &str, key: &str, now: Instant) -> Option<SessionView> {
        let now = self.millis(now);
        let found = self.find(table, key, now)?;
        let was = found.view(now)?;
        found.entry.end(&self.tables);
        self.store.remove_if(&found.key, |known| Arc::ptr_eq(known, &found.entry));
        Some(was)
    }

    /// The tables that were named, and how many keys each holds.
    pub fn tables(&self) -> Vec<(String, u64)> {
        let count = |table: &Table| u64::try_from(table.entries.get()).unwrap_or(0);
        self.tables.all().iter().map(|table| (table.name.to_string(), count(table))).collect()
    }

    /// A living session of a table.
    fn find(&self, table: &str, key: &str, now: u64) -> Option<Found> {
        let wanted = |name: &str| same_name(table, name);
        self.keys(wanted, key).find_map(|key| {
            let (entry, table) = (self.store.get(&key)?, self.tables.of(&key));
            let living = wanted(&table.name) && !entry.has_ended(now);
            living.then_some(Found { key, table, entry })
        })
    }

    /// What `key` may be: a key of one of the wanted tables, or the hash of one.
    fn keys(&self, wanted: impl Fn(&str) -> bool, key: &str) -> impl Iterator<Item = SessionKey> {
        let tables = self.tables.all();
        let named = tables.iter().filter(|table| wanted(&table.name));
        let mut keys: Vec<_> = named.map(|table| self.key(&table.name, key.as_bytes())).collect();
        keys.extend(SessionKey::parse(key));
        keys.into_iter()
    }
}

impl Found {
    fn view(&self, now: u64) -> Option<SessionView> {
        self.entry.view(now, &self.table.name, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{
        metrics::Metrics,
        session::{Assigned, How, Policy, Refresh},
    };

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    fn assign(table: &SessionTable, key: &[u8], fresh: u8, now: Instant) -> Assigned {
        let policy = Policy { timeout: Duration::from_secs(300), lifetime: None, refresh: Refresh::Request };
        let up = |known| known != server(9);
        table.assign(&table.key("clone:vs", key), &policy, now, up, || Some(server(fresh))).expect("a server")
    }

    fn table() -> (SessionTable, Instant) {
        let now = Instant::now();
        (SessionTable::new(100, [7; 16], &Metrics::new(), now), now)
    }

    #[test]
    fn a_session_is_moved_for_all_its_keys_and_lives_no_longer_for_it() {
        let (table, start) = table();
        let login = assign(&table, b"source_ip=10.0.0.9", 1, start);
        table.bind(table.key("clone:vs", b"cookie:SID=1"), &login.entry, start);
        drop(login);
        let now = start + Duration::from_secs(100);
        let moved = table.move_to("CLONE:vs", "cookie:SID=1", server(2), now).expect("it lives");
        assert_eq!((moved.value.as_str(), moved.why, moved.requests), ("10.0.0.2:80", Why::Ordered, 1));
        assert_eq!((moved.since, moved.age), (Duration::ZERO, Duration::from_secs(100)));
        assert_eq!(moved.expires_in, Duration::from_secs(200));
        assert_eq!(table.sessions_per_server("clone:vs"), HashMap::from([(server(2), 1)]));
        let next = assign(&table, b"source_ip=10.0.0.9", 3, now);
        assert_eq!((next.server, next.how, next.seq), (server(2), How::Kept, 2));
        drop(next);
        let by_hash = table.move_to("clone:vs", &moved.key, server(4), now).expect("its hash names it too");
        assert_eq!((by_hash.value.as_str(), by_hash.session), ("10.0.0.4:80", moved.session));
    }

    #[test]
    fn a_session_that_is_not_there_or_holds_a_text_is_not_moved() {
        let (table, now) = table();
        drop(assign(&table, b"old", 1, now));
        table.add("ssl", b"text", "a text".into(), Duration::from_secs(1000), now);
        table.add("ssl", b"server", server(1).to_string(), Duration::from_secs(1000), now);
        let now = now + Duration::from_secs(300);
        for (name, key, said) in [
            ("clone:vs", "old", "table `clone:vs` has no session under this key; it may have ended"),
            ("clone:vs", "new", "table `clone:vs` has no session under this key; it may have ended"),
            ("none", "old", "table `none` has no session under this key; it may have ended"),
            (
                "ssl",
                "text",
                "table `ssl` has a text under this key, not a server; a rule set it, and only a rule may change it",
            ),
        ] {
            let refused = table.move_to(name, key, server(2), now).expect_err("it is refused");
            assert_eq!(refused.to_string(), said);
        }
        let moved = table.move_to("ssl", "server", server(2), now).expect("a rule wrote a server");
        assert_eq!(moved.value, "10.0.0.2:80");
        assert_eq!(table.lookup("ssl", b"server", now).as_deref(), Some("10.0.0.2:80"));
        let names: Vec<_> = table.tables().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["clone:vs", "ssl"], "asking makes no table");
    }

    #[test]
    fn a_session_is_removed_under_all_its_keys_also_while_it_is_in_use() {
        let (table, now) = table();
        let tunnel = assign(&table, b"source_ip=10.0.0.9", 1, now);
        table.bind(table.key("clone:vs", b"cookie:SID=1"), &tunnel.entry, now);
        let was = table.remove("clone:vs", "cookie:SID=1", now).expect("it lives");
        assert_eq!((was.value.as_str(), was.in_use), ("10.0.0.1:80", 1));
        assert_eq!(table.remove("clone:vs", "cookie:SID=1", now), None);
        assert!(table.sessions_per_server("clone:vs").is_empty());
        assert!(table.view(None, None, usize::MAX, now).is_empty());
        let next = assign(&table, b"source_ip=10.0.0.9", 2, now);
        assert_eq!((next.server, next.how, next.seq), (server(2), How::New, 1));
        drop((tunnel, next));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_session_is_found_by_the_number_that_analysers_know() {
        let (table, now) = table();
        let login = assign(&table, b"source_ip=10.0.0.9", 1, now);
        table.bind(table.key("clone:vs", b"cookie:SID=1"), &login.entry, now);
        let session = login.session;
        drop((login, assign(&table, b"source_ip=10.0.0.8", 2, now)));
        assert!(table.delete("clone:vs", b"source_ip=10.0.0.9"), "the key that it is numbered by is gone");
        let found = table.numbered(session, now).expect("it lives");
        assert_eq!((found.session, found.value.as_str()), (session, "10.0.0.1:80"));
        assert_eq!(found.key, table.key("clone:vs", b"cookie:SID=1").to_string());
        assert_eq!(table.numbered(session ^ 1, now), None);
        assert_eq!(table.numbered(session, now + Duration::from_secs(300)), None, "it has ended");
    }

    #[test]
    fn a_view_says_how_a_session_came_by_its_server_and_since_when() {
        let (table, start) = table();
        let seconds = Duration::from_secs;
        let row = |now| {
            table.view(Some("clone:vs"), Some("k"), 1, now).pop().map(|row| (row.why, row.since, row.age))
        };
        drop(assign(&table, b"k", 9, start));
        assert_eq!(row(start + seconds(10)), Some((Why::Chosen, seconds(10), seconds(10))));
        drop(assign(&table, b"k", 2, start + seconds(20)));
        assert_eq!(row(start + seconds(25)), Some((Why::Moved, seconds(5), seconds(25))));
        drop(assign(&table, b"k", 3, start + seconds(30)));
        assert_eq!(row(start + seconds(30)), Some((Why::Moved, seconds(10), seconds(30))), "it stayed");
        table.move_to("clone:vs", "k", server(4), start + seconds(40)).expect("it lives");
        assert_eq!(row(start + seconds(41)), Some((Why::Ordered, seconds(1), seconds(41))));
        table.add("clone:vs", b"k", "text".into(), seconds(300), start + seconds(50));
        assert_eq!(row(start + seconds(50)), Some((Why::Rule, seconds(0), seconds(50))));
    }
}
