//! The table as operators see it and change it. Looking at a session is not using it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        rows
    }

    /// Gives a living session another server, whichever it has, as one step: no request of the session falls in
    /// between, and all of its keys see it. `table` and `key` are as in [`SessionTable::view`]. The session does
    /// not live longer for it. What it is now.
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
        found.view(now).ok_or_else(unknown)
    }

    /// Ends a session, under all of its keys; its next request begins another. Requests in flight are not
    /// disturbed. `table` and `key` are as in [`SessionTable::view`]. What it was; `None`: there is none.
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
