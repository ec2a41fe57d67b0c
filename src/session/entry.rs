//! One session: its value, its deadlines and its counts, behind one short lock.
//!
//! A lock is held for some tens of nanoseconds, or while a new session's server is chosen. Everything that must be seen by all of an entry's keys happens here: a move to another server, an expiry
//! followed by a new life, the numbering of requests. Times are milliseconds since the table began.

use std::{net::SocketAddr, time::Duration};

use parking_lot::Mutex;

use super::{How, SessionKey, SessionView, tables::Tables};

/// A session's entry in the table. What it holds is asked of the table; this is a handle.
pub struct Entry {
    state: Mutex<State>,
}

struct State {
    value: Value,
    /// Names the session to others: half of the hash of its first key.
    session: u64,
    created: u64,
    used: u64,
    requests: u64,
    deadlines: Deadlines,
    in_use: u32,
    /// Keys of the table that name this entry.
    keys: u32,
    /// The table that counts this session for its server.
    table: u16,
}

/// What an entry holds.
enum Value {
    /// Nothing yet: whoever locks the entry first decides.
    Vacant,
    /// Nothing any more: the entry has left the table, or is about to, and must not be revived.
    Gone,
    Server(SocketAddr),
    Text(Box<str>),
}

/// Idle timeout and lifetime in milliseconds, in few bytes because there are many entries.
#[derive(Clone, Copy)]
pub(super) struct Deadlines {
    timeout: u32,
    /// `u32::MAX`: none.
    lifetime: u32,
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
    pub(super) fn vacant(key: &SessionKey, now: u64, deadlines: Deadlines) -> Self {
        Self {
            state: Mutex::new(State {
                value: Value::Vacant,
                session: key.short(),
                created: now,
                used: now,
                requests: 0,
                deadlines,
                in_use: 0,
                keys: 1,
                table: key.table(),
            }),
        }
    }

    /// See [`super::SessionTable::assign`].
    pub(super) fn assign(
        &self,
        now: u64,
        deadlines: Deadlines,
        tables: &Tables,
        keep: &impl Fn(SocketAddr) -> bool,
        choose: &mut Option<impl FnOnce() -> Option<SocketAddr>>,
    ) -> Attempt<Option<Claim>> {
        let mut state = self.state.lock();
        let Some(state) = state.living(now, tables) else { return Attempt::Gone };
        let known = state.server();
        let (server, how) = match known.filter(|server| keep(*server)) {
            Some(server) => (server, How::Kept),
            None => match choose.take().and_then(|choose| choose()) {
                Some(server) if known == Some(server) => (server, How::Kept),
                Some(server) => (server, if known.is_some() { How::Moved } else { How::New }),
                None if matches!(state.value, Value::Vacant) => {
                    state.value = Value::Gone;
                    return Attempt::Vacated(None);
                }
                None => return Attempt::Done(None),
            },
        };
        if how != How::Kept {
            state.replace(Value::Server(server), tables);
        }
        state.used = state.used.max(now);
        state.deadlines = deadlines;
        state.requests += 1;
        state.in_use += 1;
        Attempt::Done(Some(Claim { server, how, seq: state.requests, session: state.session }))
    }

    /// See [`super::SessionTable::add`].
    pub(super) fn set_text(
        &self,
        now: u64,
        deadlines: Deadlines,
        text: &mut Option<String>,
        tables: &Tables,
    ) -> Attempt<()> {
        let mut state = self.state.lock();
        let Some(state) = state.living(now, tables) else { return Attempt::Gone };
        let text = text.take().expect("an entry that took the text was not gone");
        state.replace(Value::Text(text.into()), tables);
        state.used = state.used.max(now);
        state.deadlines = deadlines;
        Attempt::Done(())
    }

    /// See [`super::SessionTable::get_or_add`].
    pub(super) fn text_or(
        &self,
        now: u64,
        deadlines: Deadlines,
        make: &mut Option<impl FnOnce() -> String>,
        tables: &Tables,
    ) -> Attempt<String> {
        let mut state = self.state.lock();
        let Some(state) = state.living(now, tables) else { return Attempt::Gone };
        let text = match state.text() {
            Some(text) => text,
            None => {
                let make = make.take().expect("an entry that was given a text was not gone");
                let text = make();
                state.replace(Value::Text(text.as_str().into()), tables);
                state.deadlines = deadlines;
                text
            }
        };
        state.used = state.used.max(now);
        Attempt::Done(text)
    }

    /// What it holds, if it has not ended.
    pub(super) fn value(&self, now: u64) -> Option<String> {
        let state = self.state.lock();
        if state.has_ended(now) { None } else { state.text() }
    }

    /// See [`super::SessionTable::touch`].
    pub(super) fn touch(&self, now: u64) {
        let mut state = self.state.lock();
        if !state.has_ended(now) {
            state.used = state.used.max(now);
        }
    }

    /// One use is over.
    pub(super) fn release(&self) {
        self.state.lock().in_use -= 1;
    }

    /// When it was used last; `None`: it is gone.
    pub(super) fn last_used(&self) -> Option<u64> {
        let state = self.state.lock();
        (!matches!(state.value, Value::Gone)).then_some(state.used)
    }

    /// Another key is about to name it; `false`: it is gone.
    pub(super) fn gain_key(&self) -> bool {
        let mut state = self.state.lock();
        let lives = !matches!(state.value, Value::Gone);
        state.keys += u32::from(lives);
        lives
    }

    /// A key that named it has left the table.
    pub(super) fn lose_key(&self, tables: &Tables) {
        let mut state = self.state.lock();
        state.keys -= 1;
        if state.keys == 0 {
            state.replace(Value::Gone, tables);
        }
    }

    /// Whether it is gone, or over and unused.
    pub(super) fn has_ended(&self, now: u64) -> bool {
        self.state.lock().has_ended(now)
    }

    /// The same, and an entry in use counts as used now.
    pub(super) fn has_ended_else_refresh(&self, now: u64) -> bool {
        let mut state = self.state.lock();
        if state.in_use > 0 {
            state.used = state.used.max(now);
        }
        state.has_ended(now)
    }

    /// Ends it for all of its keys, if it is over; whether it is.
    pub(super) fn end(&self, now: u64, tables: &Tables) -> bool {
        let mut state = self.state.lock();
        let over = state.has_ended(now);
        if over {
            state.replace(Value::Gone, tables);
        }
        over
    }

    /// What an operator sees of it; `None`: it has ended.
    pub(super) fn view(&self, now: u64, table: &str, key: &SessionKey) -> Option<SessionView> {
        let state = self.state.lock();
        let value = if state.has_ended(now) { None } else { state.text() }?;
        let used = if state.in_use > 0 { now } else { state.used };
        Some(SessionView {
            table: table.to_owned(),
            key: key.to_string(),
            session: state.session,
            value,
            age: Duration::from_millis(now.saturating_sub(state.created)),
            idle: Duration::from_millis(now.saturating_sub(used)),
            expires_in: Duration::from_millis(state.ends_at(used).saturating_sub(now)),
            requests: state.requests,
            in_use: state.in_use,
        })
    }
}

impl State {
    /// The state to work on: a new life if the last one is over; `None`: it must not be revived.
    fn living(&mut self, now: u64, tables: &Tables) -> Option<&mut Self> {
        if matches!(self.value, Value::Gone) {
            return None;
        }
        if self.has_ended(now) {
            self.replace(Value::Vacant, tables);
            self.created = now;
            self.requests = 0;
        }
        Some(self)
    }

    fn has_ended(&self, now: u64) -> bool {
        matches!(self.value, Value::Gone) || (self.in_use == 0 && now >= self.ends_at(self.used))
    }

    /// When it ends if it was last used at `used`.
    fn ends_at(&self, used: u64) -> u64 {
        let idle = used.saturating_add(u64::from(self.deadlines.timeout));
        match self.deadlines.lifetime {
            u32::MAX => idle,
            lifetime => idle.min(self.created.saturating_add(u64::from(lifetime))),
        }
    }

    /// The server, also where a rule wrote it as text.
    fn server(&self) -> Option<SocketAddr> {
        match &self.value {
            Value::Server(server) => Some(*server),
            Value::Text(text) => text.parse().ok(),
            Value::Vacant | Value::Gone => None,
        }
    }

    fn text(&self) -> Option<String> {
        match &self.value {
            Value::Server(server) => Some(server.to_string()),
            Value::Text(text) => Some(text.to_string()),
            Value::Vacant | Value::Gone => None,
        }
    }

    /// Changes the value, and tells the table which server gained or lost a session.
    fn replace(&mut self, value: Value, tables: &Tables) {
        let table = tables.numbered(self.table);
        if let Value::Server(server) = self.value {
            table.leave(server);
        }
        if let Value::Server(server) = value {
            table.join(server);
        }
        self.value = value;
    }
}

impl Deadlines {
    pub(super) fn new(timeout: Duration, lifetime: Option<Duration>) -> Self {
        let millis = |of: Duration| u32::try_from(of.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1);
        Self { timeout: millis(timeout), lifetime: lifetime.map_or(u32::MAX, millis) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small_for_there_are_many() {
        assert!(size_of::<Entry>() <= 96, "{} bytes", size_of::<Entry>());
    }

    #[test]
    fn an_entry_that_was_found_over_is_not_revived_by_who_still_holds_it() {
        let tables = Tables::new(&crate::metrics::Metrics::new());
        let deadlines = Deadlines::new(Duration::from_secs(1), None);
        let entry = Entry::vacant(&SessionKey::new(1 << 64, tables.number("t")), 0, deadlines);
        let assign = |now| {
            let choose = || Some(SocketAddr::from(([10, 0, 0, 1], 80)));
            entry.assign(now, deadlines, &tables, &|_| true, &mut Some(choose))
        };
        assert!(matches!(assign(0), Attempt::Done(Some(Claim { seq: 1, .. }))));
        assert!(!entry.end(5000, &tables), "it is in use");
        entry.release();
        assert!(matches!(assign(1000), Attempt::Done(Some(Claim { seq: 1, .. }))), "a new life in time");
        entry.release();
        assert!(entry.end(5000, &tables));
        assert!(matches!(assign(5000), Attempt::Gone));
        assert!(!entry.gain_key());
    }
}
