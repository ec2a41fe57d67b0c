//! The table as another process takes it over: from a file after a restart, or from the one that it replaces.
//!
//! Keys travel as the hashes that they are, with the seed that made them, so that no token is ever written down.
//! Times travel as ages. Several keys of one session stay one entry, because all of them carry its number.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Entry, Journal, SessionKey, SessionTable, Why,
    state::{Deadlines, State, Value},
};

/// One key and its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    key: (u64, u64),
    session: u64,
    value: SavedValue,
    why: Why,
    requests: u64,
    /// Milliseconds ago.
    created: u64,
    placed: u64,
    restarted: u64,
    deadlines: (u32, u32),
    by_connection: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedValue {
    Server(SocketAddr),
    Text(Box<str>),
}

/// Puts into a table what another had.
pub struct Restoring {
    table: Arc<SessionTable>,
    /// The numbers of the other's tables, here.
    numbers: HashMap<u16, u16>,
    /// Sessions that came by another key than their first one, which has not come.
    without_first: HashMap<(u64, u16), Arc<Entry>>,
}

impl SessionTable {
    /// The names of the tables that were named, by number.
    pub fn directory(&self) -> Vec<(u16, String)> {
        self.tables.directory()
    }

    /// Everything that lives, some thousand keys at a time. Walks the table, so not on a thread that serves requests.
    pub fn save(&self, now: Instant) -> impl Iterator<Item = Vec<Saved>> {
        let now = self.millis(now);
        let all = move |keys: Vec<(SessionKey, Arc<Entry>)>| {
            keys.iter().filter_map(|(key, entry)| saved(key, entry, now)).collect()
        };
        self.store.groups().map(all)
    }

    /// The same of what is in use.
    pub fn save_used(&self, now: Instant) -> impl Iterator<Item = Vec<Saved>> {
        let now = self.millis(now);
        let used = move |keys: Vec<(SessionKey, Arc<Entry>)>| {
            let used = keys.iter().filter(|(_, entry)| entry.is_in_use());
            used.filter_map(|(key, entry)| saved(key, entry, now)).collect()
        };
        self.store.groups().map(used)
    }

    /// Begins to take over what another table had, whose keys were hashed with the same seed.
    pub fn restore(self: &Arc<Self>) -> Restoring {
        Restoring { table: self.clone(), numbers: HashMap::new(), without_first: HashMap::new() }
    }
}

impl Journal {
    /// What was used, as it is now; nothing if nothing is within `patience`. `now` is asked after the wait.
    pub fn save(&self, patience: Duration, now: impl Fn() -> Instant) -> Vec<Saved> {
        let mut used = self.read(AT_A_TIME, patience);
        let now = self.table().millis(now());
        // What was used several times is saved once, for its last use.
        let mut last = HashMap::new();
        for (at, (key, _)) in used.iter().enumerate() {
            last.insert(key.halves(), at);
        }
        let mut at = 0..;
        used.retain(|(key, _)| last[&key.halves()] == at.next().expect("numbers do not end"));
        used.iter().filter_map(|(key, entry)| saved(key, entry, now)).collect()
    }
}

impl Restoring {
    /// Learns the other's numbers of its tables.
    pub fn directory(&mut self, directory: &[(u16, String)]) {
        for (number, name) in directory {
            self.numbers.insert(*number, self.table.tables.number(name));
        }
    }

    /// Takes over a key that was saved `ago`, unless its session has ended meanwhile or `keep` does not want its
    /// server. What the table knows of the session already, it learns the rest of.
    pub fn put(&mut self, saved: &Saved, ago: Duration, now: Instant, keep: impl Fn(SocketAddr) -> bool) {
        let Some(number) = self.numbers.get(&saved.table()) else { return };
        let (table, now, number) = (self.table.clone(), self.table.millis(now), *number);
        if matches!(saved.value, SavedValue::Server(server) if !keep(server)) {
            return;
        }
        let key = SessionKey::numbered(saved.key, number);
        let then = now.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
        let mut state = saved.state(&key, then);
        if now >= state.ends_at(state.restarted) {
            return;
        }
        state.value = Some(saved.value(number, &table));
        if let Some(known) = table.store.get(&key) {
            return known.merge(state, &table.tables);
        }
        let first = key.hash() == saved.session;
        let entry = match first {
            true => self.without_first.remove(&(saved.session, number)),
            false => {
                let waiting = self.without_first.get(&(saved.session, number)).cloned();
                waiting.or_else(|| table.store.hashed(saved.session, number))
            }
        };
        if let Some(entry) = entry.filter(|entry| entry.gain_key()) {
            entry.merge(state, &table.tables);
            return self.insert(&key, &entry);
        }
        let entry = Arc::new(Entry::restored(state));
        if !first {
            self.without_first.insert((saved.session, number), entry.clone());
        }
        self.insert(&key, &entry);
    }

    /// Puts a key that the entry counts already.
    fn insert(&self, key: &SessionKey, entry: &Arc<Entry>) {
        let mut is_new = false;
        self.table.store.get_or_insert(key, || {
            is_new = true;
            self.table.tables.of(key).entries.inc();
            entry.clone()
        });
        if !is_new {
            // Somebody was quicker.
            entry.lose_key(&self.table.tables);
        }
    }
}

impl Saved {
    /// The number of its table, as the other had it.
    fn table(&self) -> u16 {
        SessionKey::table_of(self.key)
    }

    /// Without its value.
    fn state(&self, key: &SessionKey, then: u64) -> State {
        let at = |ago: u64| then.saturating_sub(ago);
        State {
            session: self.session,
            created: at(self.created),
            placed: at(self.placed),
            restarted: at(self.restarted),
            requests: self.requests,
            deadlines: Deadlines::from_millis(self.deadlines),
            why: self.why,
            by_connection: self.by_connection,
            ..State::vacant(key, then)
        }
    }

    fn value(&self, number: u16, table: &SessionTable) -> Arc<Value> {
        match &self.value {
            SavedValue::Server(server) => table.tables.numbered(number).join(*server),
            SavedValue::Text(text) => Arc::new(Value::Text(text.clone())),
        }
    }
}

fn saved(key: &SessionKey, entry: &Entry, now: u64) -> Option<Saved> {
    entry.read(now, |state, restarted| {
        let ago = |then: u64| now.saturating_sub(then);
        let value = match state.value.as_deref()? {
            Value::Server(server) => SavedValue::Server(*server),
            Value::Text(text) => SavedValue::Text(text.clone()),
        };
        Some(Saved {
            key: key.halves(),
            session: state.session,
            value,
            why: state.why,
            requests: state.requests,
            created: ago(state.created),
            placed: ago(state.placed),
            restarted: ago(restarted),
            deadlines: state.deadlines.in_millis(),
            by_connection: state.by_connection,
        })
    })?
}

/// Journal lines that are made ready in one go.
const AT_A_TIME: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::Metrics,
        session::{Assigned, How, Policy, Refresh},
    };

    const SEED: [u8; 16] = [7; 16];

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    fn table(now: Instant) -> Arc<SessionTable> {
        Arc::new(SessionTable::new(10_000, SEED, &Metrics::new(), now))
    }

    fn assign(table: &SessionTable, key: &[u8], fresh: u8, now: Instant) -> Assigned {
        let lifetime = Some(Duration::from_secs(1000));
        let policy = Policy { timeout: Duration::from_secs(300), lifetime, refresh: Refresh::Request };
        let keep = |known| known != server(9);
        table
            .assign(&table.key("clone:vs", key), &policy, now, keep, || Some(server(fresh)))
            .expect("a server")
    }

    /// Takes over all of `old`, in this order of its keys, `ago` after it was saved.
    fn taken_over(
        old: &SessionTable,
        saved_at: Instant,
        ago: Duration,
        reversed: bool,
    ) -> (Arc<SessionTable>, Instant) {
        let now = Instant::now();
        let new = table(now);
        new.add("a table of its own", b"k", "v".into(), Duration::from_secs(1000), now);
        let mut all: Vec<_> = old.save(saved_at).flatten().collect();
        all.sort_by_key(|saved| saved.key.0 != saved.session);
        if reversed {
            all.reverse();
        }
        let mut restoring = new.restore();
        restoring.directory(&old.directory());
        for saved in &all {
            restoring
                .put(saved, ago, now, |server| server.ip() != SocketAddr::from(([10, 0, 0, 5], 80)).ip());
        }
        (new, now)
    }

    #[test]
    fn sessions_go_on_where_they_were_with_their_keys_their_numbers_and_their_deadlines() {
        let start = Instant::now();
        let old = table(start);
        let login = assign(&old, b"source_ip=10.0.0.9", 1, start);
        for key in ["cookie:SID=1", "cookie:SID=2"] {
            old.bind(old.key("clone:vs", key.as_bytes()), &login.entry, start);
        }
        let session = login.session;
        drop(login);
        drop(assign(&old, b"of a server that is no more", 5, start));
        old.add("ssl", b"text", "a text".into(), Duration::from_secs(500), start);
        for reversed in [false, true] {
            let (new, now) =
                taken_over(&old, start + Duration::from_secs(100), Duration::from_secs(50), reversed);
            let rows = new.view(Some("clone:vs"), None, 10, now);
            assert_eq!(rows.len(), 3, "{rows:#?}");
            for row in &rows {
                assert_eq!((row.session, row.requests, row.age), (session, 1, Duration::from_secs(150)));
                assert_eq!((row.expires_in, row.in_use), (Duration::from_secs(150), 0));
            }
            assert_eq!(new.lookup("ssl", b"text", now).as_deref(), Some("a text"));
            assert_eq!(new.sessions_per_server("clone:vs"), HashMap::from([(server(1), 1)]));
            let next = assign(&new, b"cookie:SID=2", 2, now);
            assert_eq!((next.server, next.how, next.seq), (server(1), How::Kept, 2));
            let gone = assign(&new, b"of a server that is no more", 2, now);
            assert_eq!(gone.how, How::New);
            new.move_to("clone:vs", "cookie:SID=1", server(3), now).expect("it lives");
            assert_eq!(assign(&new, b"source_ip=10.0.0.9", 2, now).server, server(3), "it is one session");
        }
    }

    #[test]
    fn what_ended_meanwhile_is_not_taken_over() {
        let start = Instant::now();
        for (used, ago, kept) in [(0, 299, 1), (0, 300, 0), (200, 499, 1), (200, 500, 0)] {
            let old = table(start);
            drop(assign(&old, b"k", 1, start));
            let used = start + Duration::from_secs(used);
            drop(assign(&old, b"k", 1, used));
            let (new, now) = taken_over(&old, used, Duration::from_secs(ago) - (used - start), false);
            assert_eq!(new.view(Some("clone:vs"), None, 9, now).len(), kept, "{ago}");
        }
    }

    #[test]
    fn a_journal_has_what_was_used_and_brings_another_table_up_to_date() {
        let now = Instant::now();
        let old = table(now);
        drop(assign(&old, b"early", 1, now));
        let journal = old.journal();
        let (new, _) = taken_over(&old, now, Duration::ZERO, false);
        let login = assign(&old, b"late", 2, now);
        old.bind(old.key("clone:vs", b"cookie"), &login.entry, now);
        for _ in 0..3 {
            drop(assign(&old, b"early", 9, now));
        }
        let used = journal.save(Duration::ZERO, || now);
        assert_eq!(used.len(), 3, "{used:?}");
        let mut restoring = new.restore();
        restoring.directory(&old.directory());
        used.iter().for_each(|saved| restoring.put(saved, Duration::ZERO, now, |_| true));
        for (key, is_at, seq) in [("late", 2, 2), ("cookie", 2, 3), ("early", 1, 5)] {
            let next = assign(&new, key.as_bytes(), 3, now);
            assert_eq!((next.server, next.seq), (server(is_at), seq), "{key}");
        }
        assert!(journal.save(Duration::ZERO, || now).is_empty());
        drop(journal);
        drop(assign(&old, b"after", 1, now));
        assert!(old.journal().save(Duration::ZERO, || now).is_empty());
    }
}
