//! The session table: what a session was told before it is told again. iRules' `session` and `table` commands
//! and persistence records on BIG-IP, stick tables on HAProxy.
//!
//! An entry is found by the name of a table and a key. It holds a server, for clone pools, or a text, for
//! rules. Only a keyed hash of the key is kept, so that the table never holds a token, and no client can choose
//! where it falls. Several keys may name one entry ([`SessionTable::bind`]).
//!
//! An entry ends when nobody used it for its idle timeout, or when its lifetime is over; never while it is in
//! use ([`Assigned`]). A full table takes every new key: one that nobody uses and that was used about the longest
//! ago leaves for it, which is counted. Times come from the caller, so that looking at an entry is not using it.
//! What the table does *not* do: ask whether a server is up, choose one, or share entries between nodes.

mod entry;
mod journal;
mod key;
mod saved;
mod state;
mod store;
mod tables;
mod view;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

pub use entry::Entry;
use entry::{Attempt, Claim};
pub use journal::Journal;
pub use key::SessionKey;
pub use saved::{Restoring, Saved};
use store::Store;
use tables::Tables;
pub use view::{MoveError, SessionView, Why};

use crate::metrics::Metrics;

/// The session table of one instance: many named tables under one bound.
pub struct SessionTable {
    store: Store,
    tables: Arc<Tables>,
    start: Instant,
    sharing: journal::Sharing,
}

/// How long an assignment lives; both times are exact to the millisecond and end at 49 days.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The idle timeout.
    pub timeout: Duration,
    /// The longest life, however busy.
    pub lifetime: Option<Duration>,
    pub refresh: Refresh,
}

/// What restarts the idle timeout of an assignment. No entry ends while it is in use, whatever restarts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// Every request, and the end of what was in flight.
    #[default]
    Request,
    /// Only a new connection, as persistence records on BIG-IP that a rule sets when a connection is made.
    Connection {
        /// The request is the first of its connection.
        is_new: bool,
    },
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

impl SessionTable {
    /// A table of at most `capacity` keys, which is at least 1. `hash_seed` is random for every process; `now` is
    /// the earliest time that the table will be told.
    pub fn new(capacity: u64, hash_seed: [u8; 16], metrics: &Metrics, now: Instant) -> Self {
        let tables = Arc::new(Tables::new(metrics, hash_seed));
        let store = Store::new(capacity, tables.clone());
        Self { store, tables, start: now, sharing: journal::Sharing::default() }
    }

    /// What its keys are hashed with.
    pub fn seed(&self) -> &[u8; 16] {
        self.tables.seed()
    }

    /// The key that `key` is in the table `table`.
    pub fn key(&self, table: &str, key: &[u8]) -> SessionKey {
        self.tables.key(table, key)
    }

    /// The value under a key, which this does not refresh: iRules' `session lookup`.
    pub fn lookup(&self, table: &str, key: &[u8], now: Instant) -> Option<String> {
        self.store.get(&self.key(table, key))?.value(self.millis(now))
    }

    /// Sets a value with an idle timeout: iRules' `session add`.
    pub fn add(&self, table: &str, key: &[u8], value: String, timeout: Duration, now: Instant) {
        let (key, now) = (self.key(table, key), self.millis(now));
        let mut value = Some(value);
        self.with_entry(&key, now, |entry| entry.set_text(now, timeout, &mut value, &self.tables));
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
        let mut make = Some(make);
        self.with_entry(&key, now, |entry| entry.text_or(now, timeout, &mut make, &self.tables))
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
        let mut choose = Some(choose);
        self.with_entry(key, now, |entry| {
            let claim = entry.assign(now, policy, &self.tables, &keep, &mut choose);
            claim.map(|claim| {
                let Claim { server, how, seq, session } = claim?;
                Some(Assigned { entry: entry.clone(), server, how, seq, session })
            })
        })
    }

    /// Puts off the end of a living session, as a request does, and counts none.
    pub fn touch(&self, table: &str, key: &[u8], now: Instant) {
        let key = self.key(table, key);
        if let Some(entry) = self.store.get(&key) {
            entry.touch(self.millis(now));
            self.sharing.note(&key, &entry);
        }
    }

    /// Gives a session a second key: both find the same entry from now on, and a later move is seen through
    /// both. A key that already names a living session stays with it, and a session has at most 65,535 keys.
    pub fn bind(&self, key: SessionKey, entry: &Arc<Entry>, now: Instant) {
        let (now, table) = (self.millis(now), self.tables.of(&key));
        self.store.put_if(&key, entry, |known| {
            let free = known.is_none_or(|known| !Arc::ptr_eq(known, entry) && known.has_ended(now));
            let bound = free && entry.gain_key();
            if bound {
                table.entries.inc();
            }
            bound
        });
        self.sharing.note(&key, entry);
    }

    /// Removes what has ended, and refreshes what is in use. Walks the whole table, so call it every few
    /// seconds, and not from a thread that serves requests. How many keys were removed.
    pub fn sweep(&self, now: Instant) -> usize {
        let now = self.millis(now);
        self.store.remove_all(|entry| entry.end_if_over(now, &self.tables))
    }

    /// How many sessions of a table each server has, for choosing the one with the fewest.
    pub fn sessions_per_server(&self, table: &str) -> HashMap<SocketAddr, u64> {
        self.tables.numbered(self.tables.number(table)).sessions()
    }

    /// How many keys the table holds.
    pub fn len(&self) -> usize {
        self.store.len()
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
        mut attempt: impl FnMut(&Arc<Entry>) -> Attempt<T>,
    ) -> T {
        loop {
            let entry = self.store.get_or_insert(key, || {
                self.tables.of(key).entries.inc();
                Arc::new(Entry::vacant(key, now))
            });
            let outcome = attempt(&entry);
            if let Attempt::Done(value) = outcome {
                self.sharing.note(key, &entry);
                return value;
            }
            self.store.remove_if(key, |known| Arc::ptr_eq(known, &entry));
            if let Attempt::Vacated(value) = outcome {
                return value;
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = u64::try_from(now.saturating_duration_since(self.start).as_millis());
        PAST.saturating_add(since.unwrap_or(u64::MAX))
    }
}

/// The time at which the table begins, in milliseconds: sessions that another process had began before. It is the
/// longest that a lifetime can be.
const PAST: u64 = 366 * 86_400_000;

impl Drop for Assigned {
    fn drop(&mut self) {
        self.entry.release();
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
