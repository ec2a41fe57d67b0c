//! The named tables: their numbers, how many entries each has, and how many sessions each of its servers has.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec};

use super::SessionKey;
use crate::metrics::Metrics;

/// Every table that was ever named.
pub(super) struct Tables {
    /// Replaced when a table is named for the first time.
    directory: ArcSwap<Directory>,
    growing: Mutex<()>,
    entries: IntGaugeVec,
}

pub(super) struct Table {
    pub name: Box<str>,
    /// Keys in the table.
    pub entries: IntGauge,
    /// Sessions by server.
    pub servers: Mutex<HashMap<SocketAddr, u64>>,
}

#[derive(Clone)]
struct Directory {
    numbers: HashMap<Box<str>, u16>,
    tables: Vec<Arc<Table>>,
}

impl Tables {
    pub fn new(metrics: &Metrics) -> Self {
        let directory =
            Directory { numbers: HashMap::new(), tables: vec![Table::new(OTHER, &metrics.session_entries)] };
        Self {
            directory: ArcSwap::from_pointee(directory),
            growing: Mutex::new(()),
            entries: metrics.session_entries.clone(),
        }
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
            return 0;
        }
        let number = u16::try_from(directory.tables.len()).expect("MAX_TABLES fits into 16 bits");
        directory.numbers.insert(name.into(), number);
        directory.tables.push(Table::new(name, &self.entries));
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

    /// Keys in all tables.
    pub fn entries(&self) -> usize {
        let entries: i64 = self.directory.load().tables.iter().map(|table| table.entries.get()).sum();
        usize::try_from(entries).unwrap_or(0)
    }
}

impl Table {
    fn new(name: &str, entries: &IntGaugeVec) -> Arc<Self> {
        let entries = entries.with_label_values(&[name]);
        Arc::new(Self { name: name.into(), entries, servers: Mutex::default() })
    }

    /// A session came to this server.
    pub fn join(&self, server: SocketAddr) {
        *self.servers.lock().entry(server).or_default() += 1;
    }

    /// A session left this server.
    pub fn leave(&self, server: SocketAddr) {
        let mut servers = self.servers.lock();
        if let Some(sessions) = servers.get_mut(&server) {
            *sessions -= 1;
            if *sessions == 0 {
                servers.remove(&server);
            }
        }
    }
}

/// Rules name tables as they like. Those beyond this number keep their entries apart from one another, for the
/// name is hashed with the key, but are counted and shown as one, so that metrics stay bounded.
const MAX_TABLES: usize = 1000;

const OTHER: &str = "other";
