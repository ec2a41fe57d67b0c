//! What an entry knows of its session, to be changed under the entry's lock.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{SessionKey, Why, tables::Tables};

pub(super) struct State {
    /// Nothing: whoever locks the entry first decides.
    pub value: Option<Arc<Value>>,
    /// Names the session to others: half of the hash of its first key.
    pub session: u64,
    pub created: u64,
    /// When it got its value.
    pub placed: u64,
    /// When its idle timeout began.
    pub restarted: u64,
    pub requests: u64,
    pub deadlines: Deadlines,
    /// Keys of the table that name this entry.
    pub keys: u16,
    /// The table that counts this session for its server.
    pub table: u16,
    pub why: Why,
    /// Only new connections restart its idle timeout.
    pub by_connection: bool,
    /// It has left the table, or is about to, and must not be revived.
    pub gone: bool,
}

/// What an entry holds; one and the same for all sessions of a server.
pub(super) enum Value {
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

impl State {
    /// A state that holds nothing yet.
    pub fn vacant(key: &SessionKey, now: u64) -> Self {
        Self {
            value: None,
            session: key.hash(),
            created: now,
            placed: now,
            restarted: now,
            requests: 0,
            deadlines: Deadlines::new(Duration::ZERO, None),
            keys: 1,
            table: key.table(),
            why: Why::Chosen,
            by_connection: false,
            gone: false,
        }
    }

    /// When it ends if its idle timeout began at `restarted`.
    pub fn ends_at(&self, restarted: u64) -> u64 {
        let idle = restarted.saturating_add(u64::from(self.deadlines.timeout));
        match self.deadlines.lifetime {
            u32::MAX => idle,
            lifetime => idle.min(self.created.saturating_add(u64::from(lifetime))),
        }
    }

    /// The server, also where a rule wrote it as text.
    pub fn server(&self) -> Option<SocketAddr> {
        match self.value.as_deref()? {
            Value::Server(server) => Some(*server),
            Value::Text(text) => text.parse().ok(),
        }
    }

    pub fn text(&self) -> Option<String> {
        match self.value.as_deref()? {
            Value::Server(server) => Some(server.to_string()),
            Value::Text(text) => Some(text.to_string()),
        }
    }

    /// The session has another server.
    pub fn give(&mut self, server: SocketAddr, why: Why, now: u64, tables: &Tables) {
        let value = tables.numbered(self.table).join(server);
        self.hold(Some(value), tables);
        (self.why, self.placed) = (why, now);
    }

    /// A rule sets a text.
    pub fn set(&mut self, text: Box<str>, timeout: Duration, now: u64, tables: &Tables) {
        self.hold(Some(Arc::new(Value::Text(text))), tables);
        (self.why, self.placed) = (Why::Rule, now);
        self.restarted = self.restarted.max(now);
        self.by_connection = false;
        self.deadlines = Deadlines::new(timeout, None);
    }

    /// It is over, for all keys.
    pub fn end(&mut self, tables: &Tables) {
        self.hold(None, tables);
        self.gone = true;
    }

    /// Changes the value; the server of the one before has lost a session.
    pub fn hold(&mut self, value: Option<Arc<Value>>, tables: &Tables) {
        let before = std::mem::replace(&mut self.value, value);
        if let Some(Value::Server(server)) = before.as_deref() {
            tables.numbered(self.table).leave(*server);
        }
    }
}

impl Deadlines {
    /// In milliseconds, `u32::MAX` for no lifetime.
    pub fn in_millis(&self) -> (u32, u32) {
        (self.timeout, self.lifetime)
    }

    pub fn from_millis((timeout, lifetime): (u32, u32)) -> Self {
        Self { timeout, lifetime }
    }

    pub fn new(timeout: Duration, lifetime: Option<Duration>) -> Self {
        let millis = |of: Duration| u32::try_from(of.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1);
        Self { timeout: millis(timeout), lifetime: lifetime.map_or(u32::MAX, millis) }
    }
}
