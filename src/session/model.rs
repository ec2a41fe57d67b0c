//! The table against a simple one, under random operations with virtual time.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{Assigned, How, Policy, SessionTable};
use crate::metrics::Metrics;

#[derive(Clone, Debug)]
enum Op {
    /// Assign with these servers up, and this one chosen if another is needed.
    Assign {
        key: u8,
        down: u8,
        choice: Option<u8>,
        held: bool,
    },
    Release(usize),
    /// Bind a key to the session that was assigned last and is held.
    Bind {
        key: u8,
    },
    Add {
        key: u8,
        text: u8,
    },
    GetOrAdd {
        key: u8,
        text: u8,
    },
    Lookup {
        key: u8,
    },
    Delete {
        key: u8,
    },
    Advance(u64),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..4_u8;
    let assign = (key.clone(), 0..4_u8, prop::option::weighted(0.9, 1..4_u8), any::<bool>());
    prop_oneof![
        6 => assign.prop_map(|(key, down, choice, held)| Op::Assign { key, down, choice, held }),
        2 => any::<usize>().prop_map(Op::Release),
        2 => key.clone().prop_map(|key| Op::Bind { key }),
        1 => (key.clone(), 0..4_u8).prop_map(|(key, text)| Op::Add { key, text }),
        1 => (key.clone(), 0..4_u8).prop_map(|(key, text)| Op::GetOrAdd { key, text }),
        2 => key.clone().prop_map(|key| Op::Lookup { key }),
        1 => key.prop_map(|key| Op::Delete { key }),
        3 => (1..200_u64).prop_map(Op::Advance),
        2 => Just(Op::Sweep),
    ]
}

const TIMEOUT: u64 = 300;
const LIFETIME: u64 = 1000;

/// What the table should be: keys that name entries.
#[derive(Default)]
struct Model {
    now: u64,
    keys: HashMap<u8, usize>,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    value: String,
    created: u64,
    used: u64,
    lifetime: Option<u64>,
    requests: u64,
    in_use: u32,
    /// Found over, and not given a new life: keys that still name it find nothing.
    gone: bool,
}

impl Entry {
    fn new(now: u64) -> Self {
        let value = String::new();
        Self { value, created: now, used: now, lifetime: None, requests: 0, in_use: 0, gone: false }
    }

    fn is_over(&self, now: u64) -> bool {
        let idle = now >= self.used + TIMEOUT;
        let old = self.lifetime.is_some_and(|lifetime| now >= self.created + lifetime);
        self.gone || (self.in_use == 0 && (idle || old))
    }
}

impl Model {
    /// The entry that a key names, if it has not ended.
    fn living(&self, key: u8) -> Option<usize> {
        self.keys.get(&key).copied().filter(|entry| !self.entries[*entry].is_over(self.now))
    }

    /// The entry to write to: what the key names, in a new life if it had ended, or a new one.
    fn entry(&mut self, key: u8) -> &mut Entry {
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

    /// No server could be assigned.
    fn left_without(&mut self, key: u8) {
        if self.living(key).is_none()
            && let Some(entry) = self.keys.remove(&key)
        {
            self.entries[entry].gone = true;
        }
    }

    fn bind(&mut self, key: u8, entry: usize) {
        let named = |entry| self.keys.values().any(|other| *other == entry);
        let at = self.entries[entry].used;
        let free = self.keys.get(&key).is_none_or(|known| self.entries[*known].is_over(at));
        if named(entry) && free {
            self.keys.insert(key, entry);
        }
    }

    fn sweep(&mut self) {
        let now = self.now;
        for entry in self.entries.iter_mut().filter(|entry| entry.in_use > 0) {
            entry.used = now;
        }
        let entries = &self.entries;
        self.keys.retain(|_, entry| !entries[*entry].is_over(now));
    }

    fn len(&self) -> usize {
        self.keys.len()
    }
}

fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn text(n: u8) -> String {
    format!("text {n}")
}

/// A held assignment, and the model's entry of it.
struct Held(Assigned, usize);

fn run(ops: Vec<Op>) {
    let (metrics, start) = (Metrics::new(), Instant::now());
    let table = SessionTable::new(1000, [3; 16], &metrics, start);
    let mut model = Model::default();
    let mut held: Vec<Held> = Vec::new();
    let policy =
        Policy { timeout: Duration::from_secs(TIMEOUT), lifetime: Some(Duration::from_secs(LIFETIME)) };
    for op in ops {
        let now = start + Duration::from_secs(model.now);
        match op {
            Op::Assign { key, down, choice, held: keep } => {
                let up = |known: SocketAddr| known != server(down);
                let got = table.assign(&table.key("t", &[key]), &policy, now, up, || choice.map(server));
                let known = model.living(key).map(|entry| model.entries[entry].value.clone());
                let known: Option<SocketAddr> = known.and_then(|value| value.parse().ok());
                let expected = match (known.filter(|known| up(*known)), choice.map(server)) {
                    (Some(known), _) => Some((known, How::Kept)),
                    (None, Some(choice)) if known == Some(choice) => Some((choice, How::Kept)),
                    (None, Some(choice)) if known.is_some() => Some((choice, How::Moved)),
                    (None, Some(choice)) => Some((choice, How::New)),
                    (None, None) => None,
                };
                assert_eq!(got.as_ref().map(|got| (got.server, got.how)), expected);
                let Some(got) = got else {
                    model.left_without(key);
                    continue;
                };
                let at = model.now;
                let entry = model.entry(key);
                (entry.value, entry.used, entry.lifetime) = (got.server.to_string(), at, Some(LIFETIME));
                entry.requests += 1;
                assert_eq!(got.seq, entry.requests);
                if keep {
                    entry.in_use += 1;
                    held.push(Held(got, model.keys[&key]));
                }
            }
            Op::Release(which) if !held.is_empty() => {
                let Held(assigned, entry) = held.swap_remove(which % held.len());
                drop(assigned);
                model.entries[entry].in_use -= 1;
            }
            Op::Bind { key } => {
                let Some(Held(assigned, entry)) = held.last() else { continue };
                table.bind(table.key("t", &[key]), &assigned.entry);
                model.bind(key, *entry);
            }
            Op::Add { key, text: n } => {
                table.add("t", &[key], text(n), Duration::from_secs(TIMEOUT), now);
                let at = model.now;
                let entry = model.entry(key);
                (entry.value, entry.used, entry.lifetime) = (text(n), at, None);
            }
            Op::GetOrAdd { key, text: n } => {
                let got = table.get_or_add("t", &[key], Duration::from_secs(TIMEOUT), now, || text(n));
                let at = model.now;
                let entry = model.entry(key);
                if entry.value.is_empty() {
                    (entry.value, entry.lifetime) = (text(n), None);
                }
                entry.used = at;
                assert_eq!(got, entry.value);
            }
            Op::Lookup { key } => {
                let expected = model.living(key).map(|entry| model.entries[entry].value.clone());
                assert_eq!(table.lookup("t", &[key], now), expected);
            }
            Op::Delete { key } => {
                assert_eq!(table.delete("t", &[key]), model.keys.remove(&key).is_some());
            }
            Op::Advance(seconds) => model.now += seconds,
            Op::Sweep => {
                let before = model.len();
                model.sweep();
                assert_eq!(table.sweep(now), before - model.len());
            }
            Op::Release(_) => {}
        }
        check(&table, &model, start);
    }
}

/// Whatever can be seen of the table is as the model says.
fn check(table: &SessionTable, model: &Model, start: Instant) {
    assert_eq!(table.len(), model.len());
    let rows = table.view(None, None, usize::MAX, start + Duration::from_secs(model.now));
    let mut seen: Vec<_> = rows.iter().map(|row| (row.value.clone(), row.requests, row.in_use)).collect();
    let living = model.keys.keys().filter_map(|key| model.living(*key));
    let mut expected: Vec<_> = living
        .map(|entry| &model.entries[entry])
        .map(|entry| (entry.value.clone(), entry.requests, entry.in_use))
        .collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

proptest! {
    #[test]
    fn the_table_is_what_a_simple_one_is(ops in prop::collection::vec(op(), 1..120)) {
        run(ops);
    }
}
