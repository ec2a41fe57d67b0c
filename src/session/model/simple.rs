//! A session table as simple as can be: keys that name entries, and seconds.

use std::{collections::HashMap, net::SocketAddr};

use super::TIMEOUT;
use crate::session::Why;

/// What the table should be: keys that name entries.
pub struct Model {
    pub now: u64,
    pub capacity: usize,
    pub keys: HashMap<u8, usize>,
    pub entries: Vec<Entry>,
}

#[derive(Clone)]
pub struct Entry {
    pub value: String,
    pub why: Why,
    pub created: u64,
    pub used: u64,
    pub restarted: u64,
    pub by_connection: bool,
    pub lifetime: Option<u64>,
    pub requests: u64,
    pub in_use: u32,
    /// Found over or removed: keys that still name it find nothing.
    pub gone: bool,
}

impl Entry {
    pub fn new(now: u64) -> Self {
        Self {
            value: String::new(),
            why: Why::Chosen,
            created: now,
            used: now,
            restarted: now,
            by_connection: false,
            lifetime: None,
            requests: 0,
            in_use: 0,
            gone: false,
        }
    }

    pub fn is_over(&self, now: u64) -> bool {
        let idle = now >= self.restarted + TIMEOUT;
        let old = self.lifetime.is_some_and(|lifetime| now >= self.created + lifetime);
        self.gone || (self.in_use == 0 && (idle || old))
    }

    pub fn set(&mut self, value: String, now: u64) {
        (self.value, self.why, self.lifetime) = (value, Why::Rule, None);
        (self.used, self.restarted, self.by_connection) = (now, now, false);
    }
}

impl Model {
    /// The entry that a key names, if it has not ended.
    pub fn living(&self, key: u8) -> Option<usize> {
        self.keys.get(&key).copied().filter(|entry| !self.entries[*entry].is_over(self.now))
    }

    /// The entry to write to: what the key names, in a new life if it had ended, or a new one.
    pub fn entry(&mut self, key: u8) -> &mut Entry {
        let named = self.keys.get(&key).copied().filter(|entry| !self.entries[*entry].gone);
        let named = named.unwrap_or_else(|| {
            self.entries.push(Entry::new(self.now));
            self.entries.len() - 1
        });
        self.keys.insert(key, named);
        if self.entries[named].is_over(self.now) {
            self.entries[named] = Entry::new(self.now);
        }
        &mut self.entries[named]
    }

    /// The keys of which one has to leave for a key that is not there: those that deserve least to stay.
    pub fn may_leave(&self, newcomer: u8) -> Vec<u8> {
        if self.keys.contains_key(&newcomer) || self.keys.len() < self.capacity {
            return Vec::new();
        }
        let standing = |entry: &usize| (self.entries[*entry].in_use > 0, self.entries[*entry].used);
        let least = self.keys.values().map(standing).min();
        self.keys.iter().filter(|(_, entry)| Some(standing(entry)) == least).map(|(key, _)| *key).collect()
    }

    /// A key left; with its last key an entry is gone.
    pub fn lose(&mut self, key: u8) -> bool {
        let lost = self.keys.remove(&key);
        if let Some(entry) = lost.filter(|entry| !self.is_named(*entry)) {
            self.entries[entry].gone = true;
        }
        lost.is_some()
    }

    pub fn is_named(&self, entry: usize) -> bool {
        self.keys.values().any(|other| *other == entry)
    }

    /// No server could be assigned.
    pub fn left_without(&mut self, key: u8) {
        if self.living(key).is_none()
            && let Some(entry) = self.keys.remove(&key)
        {
            self.entries[entry].gone = true;
        }
    }

    pub fn bind(&mut self, key: u8, entry: usize) {
        let free = self.keys.get(&key).is_none_or(|known| self.entries[*known].is_over(self.now));
        if free && self.keys.get(&key) != Some(&entry) && !self.entries[entry].gone {
            self.lose(key);
            self.keys.insert(key, entry);
        }
    }

    pub fn sweep(&mut self) {
        let now = self.now;
        for entry in self.entries.iter_mut().filter(|entry| entry.in_use > 0) {
            entry.used = now;
            if !entry.by_connection {
                entry.restarted = now;
            }
        }
        let over = |entry: &usize| self.entries[*entry].is_over(now);
        let over: Vec<u8> = self.keys.iter().filter(|(_, entry)| over(entry)).map(|(key, _)| *key).collect();
        for key in over {
            self.lose(key);
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Sessions by server: of all that hold one, also those that nobody has found to be over.
    pub fn sessions(&self) -> HashMap<SocketAddr, u64> {
        let mut sessions = HashMap::new();
        let held =
            (0..self.entries.len()).filter(|entry| self.is_named(*entry) && !self.entries[*entry].gone);
        for server in held.filter_map(|entry| self.entries[entry].value.parse().ok()) {
            *sessions.entry(server).or_default() += 1;
        }
        sessions
    }
}
