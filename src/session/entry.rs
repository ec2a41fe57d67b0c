//! One session: its value, its deadlines and its counts, behind one short lock.
//!
//! A lock is held for some tens of nanoseconds, or while a new session's server is chosen. Everything that must
//! be seen by all of an entry's keys happens here: a move to another server, an expiry followed by a new life,
//! the numbering of requests. Times are milliseconds since a year before the table began.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    How, Policy, Refresh, SessionKey, SessionView, Why,
    state::{Deadlines, State},
    tables::Tables,
};

/// A session's entry in the table. What it holds is asked of the table; this is a handle.
pub struct Entry {
    /// When it was used last, in [`TICK`]s, for who looks for what may leave. Written under the lock.
    used: AtomicU32,
    /// Requests and tunnels in flight, and open connections. It grows under the lock.
    in_use: AtomicU32,
    state: Mutex<State>,
}

/// How much an entry deserves to stay: the least is what nobody uses and was used longest ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    pub in_use: bool,
    used: u32,
}

/// What came of an attempt to use an entry.
pub(super) enum Attempt<T> {
    Done(T),
    /// Done, and nothing is left in the entry: take it out.
    Vacated(T),
    /// The entry had ended: take it out and try again.
    Gone,
}

/// A request's part in a session.
pub(super) struct Claim {
    pub server: SocketAddr,
    pub how: How,
    pub seq: u64,
    pub session: u64,
}

impl Entry {
    /// An entry that holds nothing yet, under its first key.
    pub(super) fn vacant(key: &SessionKey, now: u64) -> Self {
        Self {
            used: AtomicU32::new(ticks(now)),
            in_use: AtomicU32::new(0),
            state: Mutex::new(State::vacant(key, now)),
        }
    }

    /// See [`super::SessionTable::assign`].
    pub(super) fn assign(
        &self,
        now: u64,
        policy: &Policy,
        tables: &Tables,
        keep: &impl Fn(SocketAddr) -> bool,
        choose: &mut Option<impl FnOnce() -> Option<SocketAddr>>,
    ) -> Attempt<Option<Claim>> {
        let mut state = self.state.lock();
        if !self.begin(&mut state, now, tables) {
            return Attempt::Gone;
        }
        let known = state.server();
        let (server, how) = match known.filter(|server| keep(*server)) {
            Some(server) => (server, How::Kept),
            None => match choose.take().and_then(|choose| choose()) {
                Some(server) if known == Some(server) => (server, How::Kept),
                Some(server) => (server, if known.is_some() { How::Moved } else { How::New }),
                None if state.value.is_none() => {
                    state.gone = true;
                    return Attempt::Vacated(None);
                }
                None => return Attempt::Done(None),
            },
        };
        let why = match how {
            How::New => Some(Why::Chosen),
            How::Moved => Some(Why::Moved),
            How::Kept => None,
        };
        if let Some(why) = why {
            state.give(server, why, now, tables);
        }
        state.by_connection = matches!(policy.refresh, Refresh::Connection { .. });
        if how != How::Kept || !matches!(policy.refresh, Refresh::Connection { is_new: false }) {
            state.restarted = state.restarted.max(now);
        }
        state.deadlines = Deadlines::new(policy.timeout, policy.lifetime);
        state.requests += 1;
        self.in_use.fetch_add(1, Ordering::Relaxed);
        self.note_use(now);
        Attempt::Done(Some(Claim { server, how, seq: state.requests, session: state.session }))
    }

    /// See [`super::SessionTable::add`].
    pub(super) fn set_text(
        &self,
        now: u64,
        timeout: Duration,
        text: &mut Option<String>,
        tables: &Tables,
    ) -> Attempt<()> {
        let mut state = self.state.lock();
        if !self.begin(&mut state, now, tables) {
            return Attempt::Gone;
        }
        let text = text.take().expect("an entry that took the text was not gone");
        state.set(text.into(), timeout, now, tables);
        self.note_use(now);
        Attempt::Done(())
    }

    /// See [`super::SessionTable::get_or_add`].
    pub(super) fn text_or(
        &self,
        now: u64,
        timeout: Duration,
        make: &mut Option<impl FnOnce() -> String>,
        tables: &Tables,
    ) -> Attempt<String> {
        let mut state = self.state.lock();
        if !self.begin(&mut state, now, tables) {
            return Attempt::Gone;
        }
        let text = match state.text() {
            Some(text) => text,
            None => {
                let make = make.take().expect("an entry that was given a text was not gone");
                let text = make();
                state.set(text.as_str().into(), timeout, now, tables);
                text
            }
        };
        state.restarted = state.restarted.max(now);
        self.note_use(now);
        Attempt::Done(text)
    }

    /// An entry as another process had it, under its first key here.
    pub(super) fn restored(state: State) -> Self {
        Self {
            used: AtomicU32::new(ticks(state.restarted)),
            in_use: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }

    /// Takes in what another process did with the session meanwhile. Of two values the later one stands.
    pub(super) fn merge(&self, theirs: State, tables: &Tables) {
        let mut state = self.state.lock();
        let mut theirs = theirs;
        if state.gone {
            return theirs.hold(None, tables);
        }
        state.created = state.created.min(theirs.created);
        state.requests = state.requests.max(theirs.requests);
        if theirs.restarted > state.restarted {
            (state.restarted, state.deadlines) = (theirs.restarted, theirs.deadlines);
            state.by_connection = theirs.by_connection;
            self.note_use(theirs.restarted);
        }
        if theirs.placed > state.placed || state.value.is_none() {
            (state.placed, state.why) = (theirs.placed, theirs.why);
            std::mem::swap(&mut state.value, &mut theirs.value);
        }
        theirs.hold(None, tables);
    }

    /// Calls `read` with its state, if it holds something and has not ended; an entry in use counts as used now.
    pub(super) fn read<T>(&self, now: u64, read: impl FnOnce(&State, u64) -> T) -> Option<T> {
        let state = self.state.lock();
        if state.value.is_none() || self.is_over(&state, now) {
            return None;
        }
        let restarts = self.is_in_use() && !state.by_connection;
        Some(read(&state, if restarts { now } else { state.restarted }))
    }

    /// What it holds, if it has not ended.
    pub(super) fn value(&self, now: u64) -> Option<String> {
        let state = self.state.lock();
        if self.is_over(&state, now) { None } else { state.text() }
    }

    /// See [`super::SessionTable::touch`].
    pub(super) fn touch(&self, now: u64) {
        let mut state = self.state.lock();
        if self.is_over(&state, now) {
            return;
        }
        if !state.by_connection {
            state.restarted = state.restarted.max(now);
        }
        self.note_use(now);
    }

    /// One use is over.
    pub(super) fn release(&self) {
        self.in_use.fetch_sub(1, Ordering::Release);
    }

    /// See [`super::SessionTable::move_to`]; `false`: what it holds is no server, and stays.
    pub(super) fn move_to(&self, server: SocketAddr, now: u64, tables: &Tables) -> bool {
        let mut state = self.state.lock();
        let holds_server = !self.is_over(&state, now) && state.server().is_some();
        if holds_server {
            state.give(server, Why::Ordered, now, tables);
        }
        holds_server
    }

    /// Another key is about to name it; `false`: it is gone, or has all the keys that it may have.
    pub(super) fn gain_key(&self) -> bool {
        let mut state = self.state.lock();
        let may = !state.gone && state.keys < u16::MAX;
        state.keys += u16::from(may);
        may
    }

    /// A key that named it has left the table.
    pub(super) fn lose_key(&self, tables: &Tables) {
        let mut state = self.state.lock();
        state.keys -= 1;
        if state.keys == 0 {
            state.end(tables);
        }
    }

    /// How much it deserves to stay in a full table.
    pub(super) fn standing(&self) -> Standing {
        Standing { in_use: self.in_use.load(Ordering::Acquire) > 0, used: self.used.load(Ordering::Relaxed) }
    }

    /// Lets a key go that was found with this standing, unless it was used since. With its last key it ends.
    pub(super) fn leave(&self, found: Standing, tables: &Tables) -> bool {
        let mut state = self.state.lock();
        let leaves = self.standing() <= found;
        if leaves && state.keys == 1 {
            state.end(tables);
        }
        leaves
    }

    /// Whether it is gone, or over and unused.
    pub(super) fn has_ended(&self, now: u64) -> bool {
        self.is_over(&self.state.lock(), now)
    }

    /// Ends it for all of its keys if it is over; whether it is. An entry in use counts as used now.
    pub(super) fn end_if_over(&self, now: u64, tables: &Tables) -> bool {
        let mut state = self.state.lock();
        let over = self.is_over(&state, now);
        if over {
            state.end(tables);
        } else if self.is_in_use() {
            self.note_use(now);
            if !state.by_connection {
                state.restarted = state.restarted.max(now);
            }
        }
        over
    }

    /// Ends it for all of its keys.
    pub(super) fn end(&self, tables: &Tables) {
        self.state.lock().end(tables);
    }

    /// What names the session to analysers.
    pub(super) fn session(&self) -> u64 {
        self.state.lock().session
    }

    /// What an operator sees of it; `None`: it has ended.
    pub(super) fn view(&self, now: u64, table: &str, key: &SessionKey) -> Option<SessionView> {
        let state = self.state.lock();
        let value = if self.is_over(&state, now) { None } else { state.text() }?;
        let restarts = self.is_in_use() && !state.by_connection;
        let restarted = if restarts { now } else { state.restarted };
        let since = |then: u64| Duration::from_millis(now.saturating_sub(then));
        Some(SessionView {
            table: table.to_owned(),
            key: key.to_string(),
            session: state.session,
            value,
            why: state.why,
            since: since(state.placed),
            age: since(state.created),
            idle: since(restarted),
            expires_in: Duration::from_millis(state.ends_at(restarted).saturating_sub(now)),
            requests: state.requests,
            in_use: self.in_use.load(Ordering::Acquire),
        })
    }

    /// Makes the state one to work on: a new life if the last one is over. `false`: it must not be revived.
    fn begin(&self, state: &mut State, now: u64, tables: &Tables) -> bool {
        if !state.gone && self.is_over(state, now) {
            state.hold(None, tables);
            (state.created, state.requests) = (now, 0);
        }
        !state.gone
    }

    fn is_over(&self, state: &State, now: u64) -> bool {
        state.gone || (!self.is_in_use() && now >= state.ends_at(state.restarted))
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire) > 0
    }

    fn note_use(&self, now: u64) {
        self.used.fetch_max(ticks(now), Ordering::Relaxed);
    }
}

impl<T> Attempt<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Attempt<U> {
        match self {
            Attempt::Done(value) => Attempt::Done(f(value)),
            Attempt::Vacated(value) => Attempt::Vacated(f(value)),
            Attempt::Gone => Attempt::Gone,
        }
    }
}

fn ticks(now: u64) -> u32 {
    u32::try_from(now / TICK).unwrap_or(u32::MAX)
}

/// Milliseconds; 32 bits of them are eight years.
const TICK: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small_for_there_are_many() {
        let counted = size_of::<Entry>() + 2 * size_of::<usize>();
        assert!(counted <= 96, "{counted} bytes with the counts of its Arc");
    }

    #[test]
    fn an_entry_that_was_found_over_is_not_revived_by_who_still_holds_it() {
        let tables = Tables::new(&crate::metrics::Metrics::new(), [1; 16]);
        let policy = Policy { timeout: Duration::from_secs(1), lifetime: None, refresh: Refresh::Request };
        let entry = Entry::vacant(&tables.key("t", b"key"), 0);
        let assign = |now| {
            let choose = || Some(SocketAddr::from(([10, 0, 0, 1], 80)));
            entry.assign(now, &policy, &tables, &|_| true, &mut Some(choose))
        };
        assert!(matches!(assign(0), Attempt::Done(Some(Claim { seq: 1, .. }))));
        assert!(!entry.end_if_over(5000, &tables), "it is in use");
        entry.release();
        assert!(matches!(assign(6000), Attempt::Done(Some(Claim { seq: 1, .. }))), "a new life in time");
        entry.release();
        assert!(entry.end_if_over(9000, &tables));
        assert!(matches!(assign(9000), Attempt::Gone));
        assert!(!entry.gain_key());
    }

    #[test]
    fn an_entry_that_was_used_since_it_was_found_does_not_leave() {
        let tables = Tables::new(&crate::metrics::Metrics::new(), [1; 16]);
        let policy = Policy { timeout: Duration::from_secs(1), lifetime: None, refresh: Refresh::Request };
        let entry = Entry::vacant(&tables.key("t", b"key"), 0);
        let found = entry.standing();
        let choose = || Some(SocketAddr::from(([10, 0, 0, 1], 80)));
        entry.assign(0, &policy, &tables, &|_| true, &mut Some(choose));
        assert!(!entry.leave(found, &tables), "it is in use");
        entry.release();
        entry.note_use(TICK);
        assert!(!entry.leave(found, &tables), "it was used later");
        assert!(entry.leave(entry.standing(), &tables));
        assert!(!entry.gain_key(), "its last key left");
    }
}
