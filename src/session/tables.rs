//! The named tables: their numbers, how many keys each has, and how many sessions each of its servers has.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{SessionKey, key::TableSeed, state::Value};
use crate::metrics::Metrics;

/// Every table that was ever named.
pub(super) struct Tables {
    /// Replaced when a table is named for the first time.
    directory: ArcSwap<Directory>,
    growing: Mutex<()>,
    counts: Counts,
    seed: [u8; 16],
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
    numbers: hashbrown::HashMap<Box<str>, Named>,
    tables: Vec<Arc<Table>>,
}

/// What makes a key of a table.
#[derive(Clone, Copy)]
struct Named {
    number: u16,
    seed: TableSeed,
}

impl Tables {
    /// `seed` is random.
    pub fn new(metrics: &Metrics, seed: [u8; 16]) -> Self {
        let counts =
            Counts { entries: metrics.session_entries.clone(), evictions: metrics.session_evictions.clone() };
        let directory = Directory {
            numbers: hashbrown::HashMap::from([(
                OTHER.into(),
                Named { number: SHARED, seed: TableSeed::new(&seed, OTHER) },
            )]),
            tables: vec![Table::new(OTHER, &counts)],
        };
        Self { directory: ArcSwap::from_pointee(directory), growing: Mutex::new(()), counts, seed }
    }

    pub fn seed(&self) -> &[u8; 16] {
        &self.seed
    }

    /// The key that `key` is in the table of that name.
    pub fn key(&self, name: &str, key: &[u8]) -> SessionKey {
        let Named { number, seed } = self.named(name);
        SessionKey::new(&seed, number, key)
    }

    /// The number of the table of that name, which is made if it is the first time.
    pub fn number(&self, name: &str) -> u16 {
        self.named(name).number
    }

    fn named(&self, name: &str) -> Named {
        if let Some(named) = self.directory.load().numbers.get(name) {
            return *named;
        }
        let _growing = self.growing.lock();
        let mut directory = Directory::clone(&self.directory.load());
        if let Some(named) = directory.numbers.get(name) {
            return *named;
        }
        let seed = TableSeed::new(&self.seed, name);
        if directory.tables.len() >= MAX_TABLES {
            return Named { number: SHARED, seed };
        }
        let number = u16::try_from(directory.tables.len()).expect("MAX_TABLES fits into 16 bits");
        let named = Named { number, seed };
        directory.numbers.insert(name.into(), named);
        directory.tables.push(Table::new(name, &self.counts));
        self.directory.store(Arc::new(directory));
        named
    }

    /// Every table by its number.
    pub fn directory(&self) -> Vec<(u16, String)> {
        let directory = self.directory.load();
        (0..).zip(directory.tables.iter().map(|table| table.name.to_string())).collect()
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
