//! The table against a simple one, under random operations with virtual time, with room for all and with little.

mod simple;

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use simple::Model;

use super::{Assigned, How, MoveError, Policy, Refresh, SessionTable, Why};
use crate::metrics::Metrics;

#[derive(Clone, Debug)]
enum Op {
    /// Assign with these servers up, and this one chosen if another is needed.
    Assign {
        key: u8,
        down: u8,
        choice: Option<u8>,
        held: bool,
        refresh: Refresh,
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
    MoveTo {
        key: u8,
        server: u8,
    },
    Remove {
        key: u8,
    },
    Advance(u64),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS;
    let refresh = prop_oneof![
        3 => Just(Refresh::Request),
        1 => any::<bool>().prop_map(|is_new| Refresh::Connection { is_new }),
    ];
    let assign = (key.clone(), 0..4_u8, prop::option::weighted(0.9, 1..4_u8), any::<bool>(), refresh);
    let assign =
        assign.prop_map(|(key, down, choice, held, refresh)| Op::Assign { key, down, choice, held, refresh });
    prop_oneof![
        8 => assign,
        2 => any::<usize>().prop_map(Op::Release),
        2 => key.clone().prop_map(|key| Op::Bind { key }),
        1 => (key.clone(), 0..4_u8).prop_map(|(key, text)| Op::Add { key, text }),
        1 => (key.clone(), 0..4_u8).prop_map(|(key, text)| Op::GetOrAdd { key, text }),
        2 => key.clone().prop_map(|key| Op::Lookup { key }),
        1 => key.clone().prop_map(|key| Op::Delete { key }),
        1 => (key.clone(), 1..4_u8).prop_map(|(key, server)| Op::MoveTo { key, server }),
        1 => key.prop_map(|key| Op::Remove { key }),
        3 => (1..200_u64).prop_map(Op::Advance),
        2 => Just(Op::Sweep),
    ]
}

const KEYS: u8 = 6;
const TIMEOUT: u64 = 300;
const LIFETIME: u64 = 1000;

fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn text(n: u8) -> String {
    format!("text {n}")
}

/// A held assignment, and the model's entry of it.
struct Held(Assigned, usize);

/// The table and its model, side by side.
struct Both {
    table: SessionTable,
    model: Model,
    held: Vec<Held>,
    start: Instant,
}

impl Both {
    fn new(capacity: usize) -> Self {
        let start = Instant::now();
        let table = SessionTable::new(capacity as u64, [3; 16], &Metrics::new(), start);
        let model = Model { now: 0, capacity, keys: HashMap::new(), entries: Vec::new() };
        Self { table, model, held: Vec::new(), start }
    }

    fn run(&mut self, op: &Op) {
        let now = self.start + Duration::from_secs(self.model.now);
        let at = self.model.now;
        match *op {
            Op::Assign { key, down, choice, held, refresh } => self.assign(key, down, choice, held, refresh),
            Op::Release(which) if !self.held.is_empty() => {
                let Held(assigned, entry) = self.held.swap_remove(which % self.held.len());
                drop(assigned);
                self.model.entries[entry].in_use -= 1;
            }
            Op::Bind { key } => {
                let Some(Held(assigned, entry)) = self.held.last() else { return };
                let (entry, handle) = (*entry, assigned.entry.clone());
                self.making_room(key, |table| table.bind(table.key("t", &[key]), &handle, now));
                self.model.bind(key, entry);
            }
            Op::Add { key, text: n } => {
                self.making_room(key, |table| {
                    table.add("t", &[key], text(n), Duration::from_secs(TIMEOUT), now);
                });
                self.model.entry(key).set(text(n), at);
            }
            Op::GetOrAdd { key, text: n } => {
                let got = self.making_room(key, |table| {
                    table.get_or_add("t", &[key], Duration::from_secs(TIMEOUT), now, || text(n))
                });
                let entry = self.model.entry(key);
                if entry.value.is_empty() {
                    entry.set(text(n), at);
                }
                (entry.used, entry.restarted) = (at, at);
                assert_eq!(got, entry.value);
            }
            Op::Lookup { key } => {
                let expected = self.model.living(key).map(|entry| self.model.entries[entry].value.clone());
                assert_eq!(self.table.lookup("t", &[key], now), expected);
            }
            Op::Delete { key } => assert_eq!(self.table.delete("t", &[key]), self.model.lose(key)),
            Op::MoveTo { key, server: n } => self.move_to(key, n, now),
            Op::Remove { key } => {
                let living = self.model.living(key);
                assert_eq!(self.table.remove("t", &typed(key), now).is_some(), living.is_some());
                if let Some(entry) = living {
                    self.model.keys.remove(&key);
                    self.model.entries[entry].gone = true;
                }
            }
            Op::Advance(seconds) => self.model.now += seconds,
            Op::Sweep => {
                let before = self.model.len();
                self.model.sweep();
                assert_eq!(self.table.sweep(now), before - self.model.len());
            }
            Op::Release(_) => {}
        }
    }

    fn assign(&mut self, key: u8, down: u8, choice: Option<u8>, held: bool, refresh: Refresh) {
        let at = self.model.now;
        let now = self.start + Duration::from_secs(at);
        let policy = Policy {
            timeout: Duration::from_secs(TIMEOUT),
            lifetime: Some(Duration::from_secs(LIFETIME)),
            refresh,
        };
        let up = |known: SocketAddr| known != server(down);
        let known = self.model.living(key).map(|entry| self.model.entries[entry].value.clone());
        let known: Option<SocketAddr> = known.and_then(|value| value.parse().ok());
        let got = self.making_room(key, |table| {
            table.assign(&table.key("t", &[key]), &policy, now, up, || choice.map(server))
        });
        let expected = match (known.filter(|known| up(*known)), choice.map(server)) {
            (Some(known), _) => Some((known, How::Kept)),
            (None, Some(choice)) if known == Some(choice) => Some((choice, How::Kept)),
            (None, Some(choice)) if known.is_some() => Some((choice, How::Moved)),
            (None, Some(choice)) => Some((choice, How::New)),
            (None, None) => None,
        };
        assert_eq!(got.as_ref().map(|got| (got.server, got.how)), expected);
        let Some(got) = got else { return self.model.left_without(key) };
        let entry = self.model.entry(key);
        match got.how {
            How::New => entry.why = Why::Chosen,
            How::Moved => entry.why = Why::Moved,
            How::Kept => {}
        }
        if got.how != How::Kept || refresh != (Refresh::Connection { is_new: false }) {
            entry.restarted = at;
        }
        entry.by_connection = matches!(refresh, Refresh::Connection { .. });
        (entry.value, entry.used, entry.lifetime) = (got.server.to_string(), at, Some(LIFETIME));
        entry.requests += 1;
        assert_eq!(got.seq, entry.requests);
        if held {
            entry.in_use += 1;
            self.held.push(Held(got, self.model.keys[&key]));
        }
    }

    fn move_to(&mut self, key: u8, n: u8, now: Instant) {
        let living = self.model.living(key);
        let is_server = |entry: usize| self.model.entries[entry].value.parse::<SocketAddr>().is_ok();
        let table = "t".to_owned();
        let expected = match living {
            None => Err(MoveError::Unknown { table }),
            Some(entry) if is_server(entry) => Ok(server(n).to_string()),
            Some(_) => Err(MoveError::NoServer { table }),
        };
        let got = self.table.move_to("T", &typed(key), server(n), now).map(|view| view.value);
        let got = got.map_err(|error| match error {
            // As the operator typed it, for it may be a table that there is not.
            MoveError::Unknown { .. } => MoveError::Unknown { table: "t".to_owned() },
            error => error,
        });
        assert_eq!(got, expected);
        if let (Some(entry), Ok(value)) = (living, expected) {
            (self.model.entries[entry].value, self.model.entries[entry].why) = (value, Why::Ordered);
        }
    }

    /// Does what may add a key; in a full table one of those that may leave has left.
    fn making_room<T>(&mut self, key: u8, act: impl FnOnce(&SessionTable) -> T) -> T {
        let may_leave = self.model.may_leave(key);
        let done = act(&self.table);
        if !may_leave.is_empty() {
            let is_there = |key: u8| self.table.store.get(&self.table.key("t", &[key])).is_some();
            let left: Vec<u8> = self.model.keys.keys().copied().filter(|known| !is_there(*known)).collect();
            assert!(matches!(left[..], [one] if may_leave.contains(&one)), "{left:?}, not of {may_leave:?}");
            self.model.lose(left[0]);
        }
        done
    }

    /// Whatever can be seen of the table is as the model says.
    fn check(&self) {
        let (table, model) = (&self.table, &self.model);
        assert_eq!(table.len(), model.len());
        assert!(table.len() <= model.capacity);
        assert_eq!(table.tables(), [("t".to_owned(), model.len() as u64)]);
        assert_eq!(table.sessions_per_server("t"), model.sessions());
        let rows = table.view(None, None, usize::MAX, self.start + Duration::from_secs(model.now));
        let seen = rows.into_iter().map(|row| (row.value, row.why.as_str(), row.requests, row.in_use));
        let living = model.keys.keys().filter_map(|key| model.living(*key));
        let expected = living
            .map(|entry| &model.entries[entry])
            .map(|entry| (entry.value.clone(), entry.why.as_str(), entry.requests, entry.in_use));
        let sorted = |rows: Vec<_>| {
            let mut rows: Vec<(String, &str, u64, u32)> = rows;
            rows.sort();
            rows
        };
        assert_eq!(sorted(seen.collect()), sorted(expected.collect()));
    }
}

/// A key as an operator would type it.
fn typed(key: u8) -> String {
    char::from(key).into()
}

fn run(capacity: usize, ops: &[Op]) {
    let mut both = Both::new(capacity);
    both.table.key("t", b"");
    for op in ops {
        both.run(op);
        both.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_table_is_what_a_simple_one_is(ops in prop::collection::vec(op(), 1..120)) {
        run(1000, &ops);
    }

    #[test]
    fn a_full_table_lets_go_what_nobody_uses_and_was_used_longest_ago(
        capacity in 1..5_usize,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        run(capacity, &ops);
    }
}
