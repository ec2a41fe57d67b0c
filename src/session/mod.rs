//! The session table: what a session was told before it is told again. iRules' `session` and `table` commands
//! and persistence records on BIG-IP, stick tables on HAProxy.
//!
//! An entry is found by the name of a table and a key. It holds a server, for clone pools, or a text, for
//! rules. Only a keyed hash of the key is kept, so that the table never holds a token, and no client can choose
//! where it falls. Several keys may name one entry ([`SessionTable::bind`]).
//!
//! An entry ends when nobody used it for its idle timeout, when its lifetime is over, or when the table is full
//! and it is the one that was used longest ago; never by the first two while it is in use ([`Assigned`]).
//! Times come from the caller, so that looking at an entry is not using it. What the table does *not* do: ask
//! whether a server is up, choose one, or share entries between nodes.

mod entry;
mod store;
mod tables;

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

pub use entry::Entry;
use entry::{Attempt, Claim, Deadlines};
use siphasher::sip128::{Hasher128, SipHasher13};
use store::Store;
use tables::Tables;

use crate::{metrics::Metrics, names::same_name};

/// The session table of one instance: many named tables under one bound.
pub struct SessionTable {
    store: Store,
    tables: Arc<Tables>,
    seed: [u8; 16],
    start: Instant,
}

/// A key in a named table: a keyed hash, of which the last 16 bits are the table's number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey(u128);

/// How long an assignment lives; both are exact to the millisecond and end at 49 days.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The longest time without a request.
    pub timeout: Duration,
    /// The longest life, however busy.
    pub lifetime: Option<Duration>,
}

/// A session and its server. The entry is in use, and does not expire, until this is dropped.
pub struct Assigned {
    /// For [`SessionTable::bind`].
    pub entry: Arc<Entry>,
    pub server: SocketAddr,
    pub how: How,
    /// The number of this request within the session: 1, 2, 3, …
    pub seq: u64,
    /// Names the session to analysers, whichever of its keys it was found by.
    pub session: u64,
}

/// How a session came by its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The session is new, or had expired.
    New,
    /// It has the server that it had.
    Kept,
    /// The server that it had was not to be kept.
    Moved,
}

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
    /// Since the entry was made.
    pub age: Duration,
    /// Since it was used; nothing while it is in use.
    pub idle: Duration,
    /// Until it ends if nobody uses it.
    pub expires_in: Duration,
    /// Requests that were assigned.
    pub requests: u64,
    /// Requests and tunnels in flight.
    pub in_use: u32,
}

impl SessionTable {
    /// A table of at most `capacity` entries. `hash_seed` is random for every process; `now` is the earliest
    /// time that the table will be told.
    pub fn new(capacity: u64, hash_seed: [u8; 16], metrics: &Metrics, now: Instant) -> Self {
        let tables = Arc::new(Tables::new(metrics));
        let removed_from = tables.clone();
        let store = Store::new(capacity, move |key, entry: Arc<Entry>| {
            removed_from.of(key).entries.dec();
            entry.lose_key(&removed_from);
        });
        Self { store, tables, seed: hash_seed, start: now }
    }

    /// The key that `key` is in the table `table`.
    pub fn key(&self, table: &str, key: &[u8]) -> SessionKey {
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        hasher.write_usize(table.len());
        hasher.write(table.as_bytes());
        hasher.write(key);
        SessionKey::new(hasher.finish128().as_u128(), self.tables.number(table))
    }

    /// The value under a key, which this does not refresh: iRules' `session lookup`.
    pub fn lookup(&self, table: &str, key: &[u8], now: Instant) -> Option<String> {
        self.store.get(&self.key(table, key))?.value(self.millis(now))
    }

    /// Sets a value with an idle timeout: iRules' `session add`.
    pub fn add(&self, table: &str, key: &[u8], value: String, timeout: Duration, now: Instant) {
        let (key, now) = (self.key(table, key), self.millis(now));
        let deadlines = Deadlines::new(timeout, None);
        let mut value = Some(value);
        self.with_entry(&key, now, deadlines, |entry| {
            entry.set_text(now, deadlines, &mut value, &self.tables)
        });
    }

    /// Removes a key: iRules' `session delete`. Whether there was one. Other keys of its entry stay.
    pub fn delete(&self, table: &str, key: &[u8]) -> bool {
        self.store.remove_if(&self.key(table, key), |_| true)
    }

    /// The value under a key, refreshed, or the one that `make` gives; of simultaneous callers one makes it.
    pub fn get_or_add(
        &self,
        table: &str,
        key: &[u8],
        timeout: Duration,
        now: Instant,
        make: impl FnOnce() -> String,
    ) -> String {
        let (key, now) = (self.key(table, key), self.millis(now));
        let deadlines = Deadlines::new(timeout, None);
        let mut make = Some(make);
        self.with_entry(&key, now, deadlines, |entry| entry.text_or(now, deadlines, &mut make, &self.tables))
    }

    /// The server of a session: the one that it has if `keep` takes it, else the one that `choose` gives.
    /// Simultaneous callers of one session get the same server. `None`: `choose` had none, and the session
    /// keeps what it had. Both are called under the entry's lock and must not call this table's other methods,
    /// but for [`SessionTable::sessions_per_server`].
    pub fn assign(
        &self,
        key: &SessionKey,
        policy: &Policy,
        now: Instant,
        keep: impl Fn(SocketAddr) -> bool,
        choose: impl FnOnce() -> Option<SocketAddr>,
    ) -> Option<Assigned> {
        let now = self.millis(now);
        let deadlines = Deadlines::new(policy.timeout, policy.lifetime);
        let mut choose = Some(choose);
        self.with_entry(key, now, deadlines, |entry| {
            let claim = entry.assign(now, deadlines, &self.tables, &keep, &mut choose);
            claim.map(|claim| {
                let Claim { server, how, seq, session } = claim?;
                Some(Assigned { entry: entry.clone(), server, how, seq, session })
            })
        })
    }

    /// Puts off the end of a living session, as a request does, and counts none.
    pub fn touch(&self, table: &str, key: &[u8], now: Instant) {
        if let Some(entry) = self.store.get(&self.key(table, key)) {
            entry.touch(self.millis(now));
        }
    }

    /// Gives a session a second key: both find the same entry from now on, and a later move is seen through
    /// both. A key that already names a living session stays with it.
    pub fn bind(&self, key: SessionKey, entry: &Arc<Entry>) {
        let Some(used) = entry.last_used() else { return };
        let table = self.tables.of(&key);
        self.store.put_if(key, entry, |known| {
            let free = known.is_none_or(|known| !Arc::ptr_eq(known, entry) && known.has_ended(used));
            let bound = free && entry.gain_key();
            if bound {
                table.entries.inc();
            }
            bound
        });
    }

    /// Removes what has ended, and refreshes what is in use. Walks the whole table, so call it every few
    /// seconds, and not from a thread that serves requests. How many keys were removed.
    pub fn sweep(&self, now: Instant) -> usize {
        let now = self.millis(now);
        let mut ended = Vec::new();
        for (key, entry) in self.store.entries() {
            if entry.has_ended_else_refresh(now) {
                ended.push(*key);
            }
        }
        let end = |key: &&SessionKey| self.store.remove_if(key, |entry| entry.end(now, &self.tables));
        let removed = ended.iter().filter(end).count();
        self.store.settle();
        removed
    }

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
            None => self.store.entries().filter_map(|(hash, entry)| row(&hash, &entry)).take(most).collect(),
            Some(key) => {
                let tables = self.tables.all();
                let named = tables.iter().filter(|table| wanted(&table.name));
                let hashes = named.map(|table| self.key(&table.name, key.as_bytes()));
                let found = hashes.chain(SessionKey::parse(key));
                found.filter_map(|hash| row(&hash, &*self.store.get(&hash)?)).take(most).collect()
            }
        };
        rows.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
        rows
    }

    /// The tables that were named, and how many keys each holds.
    pub fn tables(&self) -> Vec<(String, u64)> {
        self.tables
            .all()
            .iter()
            .map(|table| (table.name.to_string(), table.entries.get().max(0) as u64))
            .collect()
    }

    /// How many sessions of a table each server has, for choosing the one with the fewest.
    pub fn sessions_per_server(&self, table: &str) -> HashMap<SocketAddr, u64> {
        self.tables.numbered(self.tables.number(table)).servers.lock().clone()
    }

    /// How many keys the table holds.
    pub fn len(&self) -> usize {
        self.tables.entries()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `attempt` on the entry of a key, made vacant if there is none. An entry that ended while it was on
    /// its way here is taken out, and the attempt made on another.
    fn with_entry<T>(
        &self,
        key: &SessionKey,
        now: u64,
        deadlines: Deadlines,
        mut attempt: impl FnMut(&Arc<Entry>) -> Attempt<T>,
    ) -> T {
        loop {
            let entry = self.store.get_or_insert(key, || {
                self.tables.of(key).entries.inc();
                Arc::new(Entry::vacant(key, now, deadlines))
            });
            let outcome = attempt(&entry);
            if let Attempt::Done(value) = outcome {
                return value;
            }
            self.store.remove_if(key, |known| Arc::ptr_eq(known, &entry));
            if let Attempt::Vacated(value) = outcome {
                return value;
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

impl SessionKey {
    fn new(hash: u128, table: u16) -> Self {
        Self(hash & !u128::from(u16::MAX) | u128::from(table))
    }

    /// A key as it is displayed. Nothing says that its table is there.
    fn parse(text: &str) -> Option<Self> {
        let is_key = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_key { u128::from_str_radix(text, 16).ok().map(Self) } else { None }
    }

    fn table(&self) -> u16 {
        (self.0 & u128::from(u16::MAX)) as u16
    }

    fn short(&self) -> u64 {
        (self.0 >> 64) as u64
    }
}

impl Hash for SessionKey {
    /// The key is a keyed hash already: its first half will do.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short());
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.entry.release();
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
