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
        self.store.for_each(|key, entry| {
            if entry.has_ended_else_refresh(now) {
                ended.push(*key);
            }
        });
        let end = |key: &&SessionKey| self.store.remove_if(key, |entry| entry.end(now, &self.tables));
        let removed = ended.iter().filter(end).count();
        self.store.settle();
        removed
    }

    /// What is in the table, by table and key. `table` is compared without case; `key` is the key itself or
    /// its hash as [`SessionView::key`] shows it. Looking refreshes nothing.
    pub fn view(&self, table: Option<&str>, key: Option<&str>, now: Instant) -> Vec<SessionView> {
        let now = self.millis(now);
        let mut rows = Vec::new();
        self.store.for_each(|hash, entry| {
            let name = &self.tables.of(hash).name;
            let wanted = table.is_none_or(|table| same_name(table, name))
                && key.is_none_or(|key| {
                    hash.to_string().eq_ignore_ascii_case(key) || self.key(name, key.as_bytes()) == *hash
                });
            if wanted {
                rows.extend(entry.view(now, name, hash));
            }
        });
        rows.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
        rows
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
mod tests {
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(300);
    const POLICY: Policy = Policy { timeout: TIMEOUT, lifetime: None };

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn table_of(capacity: u64) -> (SessionTable, Metrics, Instant) {
        let (metrics, now) = (Metrics::new(), Instant::now());
        (SessionTable::new(capacity, [7; 16], &metrics, now), metrics, now)
    }

    /// Assigns with every server taken as up, and `fresh` chosen for who has none.
    fn assign(table: &SessionTable, key: &SessionKey, fresh: u8, now: Instant) -> Assigned {
        table.assign(key, &POLICY, now, |_| true, || Some(server(fresh))).expect("there is a server")
    }

    #[test]
    fn a_session_keeps_its_server_until_it_is_down_and_does_not_flap_back() {
        let (table, _, now) = table_of(100);
        let key = table.key("clone", b"SID=1");
        let steps = [
            ("the first request chooses", 1, None, server(1), How::New),
            ("the next keeps", 2, None, server(1), How::Kept),
            ("a down server is left", 2, Some(server(1)), server(2), How::Moved),
            ("and not returned to", 1, None, server(2), How::Kept),
        ];
        for (seq, (step, choice, down, expected, how)) in (1..).zip(steps) {
            let got = table.assign(&key, &POLICY, now, |s| Some(s) != down, || Some(server(choice)));
            let got = got.expect(step);
            assert_eq!((got.server, got.how, got.seq), (expected, how, seq), "{step}");
        }
    }

    #[test]
    fn no_server_up_assigns_nothing_and_forgets_nothing() {
        let (table, metrics, now) = table_of(100);
        let key = table.key("clone", b"SID=1");
        assert!(table.assign(&key, &POLICY, now, |_| true, || None).is_none());
        assert_eq!(table.len(), 0, "a vacant entry does not stay");
        assert!(metrics.page().contains(r#"homing_session_entries{table="clone"} 0"#));

        assign(&table, &key, 1, now);
        assert!(table.assign(&key, &POLICY, now, |_| false, || None).is_none());
        let back = assign(&table, &key, 2, now);
        assert_eq!((back.server, back.how, back.seq), (server(1), How::Kept, 2));
    }

    #[test]
    fn an_entry_ends_when_idle_or_when_its_life_is_over_but_not_while_in_use() {
        let (table, _, now) = table_of(100);
        let key = table.key("clone", b"SID=1");
        let policy = Policy { timeout: TIMEOUT, lifetime: Some(seconds(1000)) };
        let at = |s, fresh| {
            table.assign(&key, &policy, now + seconds(s), |_| true, || Some(server(fresh))).expect("a server")
        };
        assert_eq!(at(0, 1).server, server(1));
        assert_eq!(at(299, 2).server, server(1), "refreshed in time");
        assert_eq!(at(299 + 300, 2).server, server(2), "idle for its timeout");
        let tunnel = at(600, 3);
        assert_eq!(at(3000, 4).server, server(2), "in use, beyond timeout and lifetime");
        drop(tunnel);
        let next = at(3001, 5);
        assert_eq!((next.server, next.seq, next.how), (server(5), 1, How::New), "its life is over");
    }

    #[test]
    fn the_end_of_a_long_use_starts_the_idle_timeout() {
        let (table, _, now) = table_of(100);
        let key = table.key("clone", b"SID=1");
        let tunnel = assign(&table, &key, 1, now);
        table.sweep(now + seconds(3600));
        drop(tunnel);
        assert_eq!(table.sweep(now + seconds(3600 + 299)), 0);
        assert_eq!(table.sweep(now + seconds(3600 + 300)), 1);
    }

    #[test]
    fn a_session_that_gains_a_token_is_one_session() {
        let (table, _, now) = table_of(100);
        let (address, cookie) = (table.key("clone", b"10.0.0.9"), table.key("clone", b"SID=1"));
        let login = assign(&table, &address, 1, now);
        table.bind(cookie, &login.entry);
        let moved = table.assign(&cookie, &POLICY, now, |s| s != server(1), || Some(server(2)));
        let moved = moved.expect("a server");
        assert_eq!((moved.server, moved.seq, moved.session), (server(2), 2, login.session));
        assert_eq!(assign(&table, &address, 3, now).server, server(2), "the move is seen through both keys");
        assert_eq!(table.sessions_per_server("clone"), HashMap::from([(server(2), 1)]));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_token_of_a_living_session_is_not_taken_over() {
        let (table, _, now) = table_of(100);
        let (a, b) = (table.key("clone", b"a"), table.key("clone", b"b"));
        assign(&table, &b, 2, now);
        let later = assign(&table, &a, 1, now + seconds(1));
        table.bind(b, &later.entry);
        assert_eq!(assign(&table, &b, 9, now + seconds(1)).server, server(2));
        let much_later = assign(&table, &a, 1, now + seconds(301));
        table.bind(b, &much_later.entry);
        assert_eq!(assign(&table, &b, 9, now + seconds(301)).server, server(1), "but of an ended one it is");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn rules_add_look_up_and_delete_as_irules_do() {
        let (table, _, now) = table_of(100);
        let text = |table: &SessionTable, at| table.lookup("ssl", b"id", now + seconds(at));
        assert_eq!(text(&table, 0), None);
        table.add("ssl", b"id", "10.0.0.1:80".into(), TIMEOUT, now);
        assert_eq!(text(&table, 299).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(text(&table, 300), None, "looking did not refresh it");
        table.add("ssl", b"id", "again".into(), TIMEOUT, now + seconds(400));
        assert_eq!(text(&table, 401).as_deref(), Some("again"));
        assert_eq!(table.lookup("other", b"id", now), None, "tables are apart");
        assert!(table.delete("ssl", b"id"));
        assert!(!table.delete("ssl", b"id"));
        assert_eq!(text(&table, 401), None);
        let made =
            |value: &str, at| table.get_or_add("ssl", b"id", TIMEOUT, now + seconds(at), || value.to_owned());
        assert_eq!((made("first", 500), made("second", 799), made("third", 1098)), three("first"));
        assert_eq!(made("fourth", 1098 + 300), "fourth");
    }

    fn three(text: &str) -> (String, String, String) {
        (text.to_owned(), text.to_owned(), text.to_owned())
    }

    #[test]
    fn simultaneous_first_requests_of_a_session_get_one_server() {
        let (table, _, now) = table_of(10_000);
        let chosen = AtomicUsize::new(0);
        let got: Vec<Vec<(SocketAddr, u64)>> = thread::scope(|scope| {
            let worker = |worker: u8| {
                let (table, chosen) = (&table, &chosen);
                move || {
                    let assign = |session: u32| {
                        let key = table.key("clone", &session.to_be_bytes());
                        let choose = || {
                            chosen.fetch_add(1, Ordering::Relaxed);
                            Some(server(worker))
                        };
                        let assigned = table.assign(&key, &POLICY, now, |_| true, choose);
                        let assigned = assigned.expect("a server");
                        (assigned.server, assigned.seq)
                    };
                    (0..1000).map(assign).collect()
                }
            };
            let workers: Vec<_> = (0..8).map(|n| scope.spawn(worker(n))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker ends well")).collect()
        });
        for session in 0..1000 {
            let servers: HashSet<_> = got.iter().map(|requests| requests[session].0).collect();
            let mut numbers: Vec<_> = got.iter().map(|requests| requests[session].1).collect();
            numbers.sort_unstable();
            assert_eq!(servers.len(), 1, "session {session} was split");
            assert_eq!(numbers, (1..=8).collect::<Vec<_>>(), "session {session}");
        }
        assert_eq!(chosen.into_inner(), 1000, "each choice was asked for once");
        assert_eq!(table.len(), 1000);
    }

    #[test]
    fn expiry_sweeps_and_assignments_race_without_splitting_or_miscounting() {
        let (table, _, now) = table_of(10_000);
        let alive = Policy { timeout: Duration::from_millis(2), lifetime: None };
        thread::scope(|scope| {
            for worker in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for step in 0..2000 {
                        let now = now + Duration::from_millis(step);
                        let key = table.key("clone", &(step / 10 % 7).to_be_bytes());
                        let ours = table.assign(&key, &alive, now, |_| true, || Some(server(worker)));
                        let same = table.assign(&key, &alive, now, |_| true, || Some(server(99)));
                        let (ours, same) = (ours.expect("a server"), same.expect("a server"));
                        assert_eq!(ours.server, same.server, "a session in use was split");
                        table.sweep(now);
                    }
                });
            }
        });
        let end = now + seconds(60);
        table.sweep(end);
        assert_eq!((table.len(), table.view(None, None, end).len()), (0, 0));
        assert!(table.sessions_per_server("clone").is_empty());
    }

    #[test]
    fn a_full_table_takes_new_sessions_and_lets_the_longest_unused_go() {
        let (table, metrics, now) = table_of(100);
        for session in 0..1000_u32 {
            assign(&table, &table.key("clone", &session.to_be_bytes()), 1, now);
            table.store.settle();
        }
        assert_eq!(table.len(), 100);
        assert!(metrics.page().contains(r#"homing_session_entries{table="clone"} 100"#));
        assert_eq!(table.sessions_per_server("clone"), HashMap::from([(server(1), 100)]));
        let last = assign(&table, &table.key("clone", &999_u32.to_be_bytes()), 2, now);
        assert_eq!(last.how, How::Kept, "the newest is in");
    }

    #[test]
    fn a_view_finds_by_table_and_by_key_or_hash_and_refreshes_nothing() {
        let (table, _, now) = table_of(100);
        let held = assign(&table, &table.key("clone:vs", b"SID=1"), 1, now);
        table.add("ssl", b"id", "text".into(), TIMEOUT, now);
        let later = now + seconds(100);
        let all = table.view(None, None, later);
        assert_eq!(all.iter().map(|row| row.value.as_str()).collect::<Vec<_>>(), ["10.0.0.1:80", "text"]);
        assert_eq!(
            (all[0].requests, all[0].in_use, all[0].idle, all[0].expires_in),
            (1, 1, seconds(0), TIMEOUT)
        );
        assert_eq!((all[1].in_use, all[1].idle, all[1].expires_in), (0, seconds(100), seconds(200)));
        assert_eq!(all[1].age, seconds(100));
        drop(held);
        for (by_table, by_key, found) in [
            (Some("SSL"), None, 1),
            (Some("none"), None, 0),
            (None, Some("SID=1"), 1),
            (None, Some(all[1].key.as_str()), 1),
            (Some("ssl"), Some("SID=1"), 0),
        ] {
            assert_eq!(table.view(by_table, by_key, later).len(), found, "{by_table:?} {by_key:?}");
        }
        assert!(table.view(None, None, now + TIMEOUT).is_empty(), "what has ended is not shown");
    }

    #[test]
    fn tables_beyond_the_bound_are_counted_as_one_and_kept_apart() {
        let (table, metrics, now) = table_of(10_000);
        for n in 0..1500 {
            table.add(&format!("t{n}"), b"key", n.to_string(), TIMEOUT, now);
        }
        assert_eq!(table.lookup("t1400", b"key", now).as_deref(), Some("1400"));
        assert_eq!(table.lookup("t1499", b"key", now).as_deref(), Some("1499"));
        assert!(metrics.page().contains(r#"homing_session_entries{table="other"} 501"#));
    }
}
