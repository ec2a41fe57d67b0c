//! The named tables: their numbers, how many keys each has, and how many sessions each of its servers has.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{SessionKey, state::Value};
use crate::metrics::Metrics;

/// Every table that was ever named.
pub(super) struct Tables {
    /// Replaced when a table is named for the first time.
    directory: ArcSwap<Directory>,
    growing: Mutex<()>,
    counts: Counts,
}

pub(super) struct Table {
    pub name: Box<str>,
    /// Keys in the table.
    pub entries: IntGauge,
    /// Keys that had to leave because the session table was full.
    pub evictions: IntCounter,
    servers: Mutex<HashMap<SocketAddr, Sessions>>,
}

/// The sessions of a server: how many, and the value that they share.
struct Sessions {
    number: u64,
    value: Arc<Value>,
}

/// Where the counts of tables come from.
struct Counts {
    entries: IntGaugeVec,
    evictions: IntCounterVec,
}

#[derive(Clone)]
struct Directory {
    /// Asked for every request: in a map with a quicker hash than the standard one.
    numbers: hashbrown::HashMap<Box<str>, u16>,
    tables: Vec<Arc<Table>>,
}

impl Tables {
    pub fn new(metrics: &Metrics) -> Self {
        let counts =
            Counts { entries: metrics.session_entries.clone(), evictions: metrics.session_evictions.clone() };
        let directory = Directory {
            numbers: hashbrown::HashMap::from([(OTHER.into(), SHARED)]),
            tables: vec![Table::new(OTHER, &counts)],
        };
        Self { directory: ArcSwap::from_pointee(directory), growing: Mutex::new(()), counts }
    }

    /// The number of the table of that name, which is made if it is the first time.
    pub fn number(&self, name: &str) -> u16 {
        if let Some(number) = self.directory.load().numbers.get(name) {
            return *number;
        }
        let _growing = self.growing.lock();
        let mut directory = Directory::clone(&self.directory.load());
        if let Some(number) = directory.numbers.get(name) {
            return *number;
        }
        if directory.tables.len() >= MAX_TABLES {
            return SHARED;
        }
        let number = u16::try_from(directory.tables.len()).expect("MAX_TABLES fits into 16 bits");
        directory.numbers.insert(name.into(), number);
        directory.tables.push(Table::new(name, &self.counts));
        self.directory.store(Arc::new(directory));
        number
    }

    pub fn numbered(&self, number: u16) -> Arc<Table> {
        self.directory.load().tables[usize::from(number)].clone()
    }

    /// The table of a key.
    pub fn of(&self, key: &SessionKey) -> Arc<Table> {
        self.numbered(key.table())
    }

    /// Every table, but for the one of those beyond the number while it is empty.
    pub fn all(&self) -> Vec<Arc<Table>> {
        let directory = self.directory.load();
        let (other, named) = directory.tables.split_first().expect("there is always the table of the others");
        let other = Some(other).filter(|other| other.entries.get() > 0);
        named.iter().chain(other).cloned().collect()
    }
}

impl Table {
    fn new(name: &str, counts: &Counts) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            entries: counts.entries.with_label_values(&[name]),
            evictions: counts.evictions.with_label_values(&[name]),
            servers: Mutex::default(),
        })
    }

    /// A session came to this server; what it holds from now on.
    pub fn join(&self, server: SocketAddr) -> Arc<Value> {
        let mut servers = self.servers.lock();
        let sessions = servers
            .entry(server)
            .or_insert_with(|| Sessions { number: 0, value: Arc::new(Value::Server(server)) });
        sessions.number += 1;
        sessions.value.clone()
    }

    /// A session left this server.
    pub fn leave(&self, server: SocketAddr) {
        let mut servers = self.servers.lock();
        if let Some(sessions) = servers.get_mut(&server) {
            sessions.number -= 1;
            if sessions.number == 0 {
                servers.remove(&server);
            }
        }
    }

    /// How many sessions each server has.
    pub fn sessions(&self) -> HashMap<SocketAddr, u64> {
        self.servers.lock().iter().map(|(server, sessions)| (*server, sessions.number)).collect()
    }
}

/// Rules name tables as they like. Those beyond this number keep their entries apart from one another, for the
/// name is hashed with the key, but are counted and shown as one, so that metrics stay bounded.
const MAX_TABLES: usize = 1000;

const OTHER: &str = "other";

/// The number that those share.
pub(super) const SHARED: u16 = 0;
