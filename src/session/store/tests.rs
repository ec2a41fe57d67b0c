//! The table when it is full.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use super::slots::SAMPLE;
use crate::{
    metrics::Metrics,
    session::{Assigned, How, Policy, Refresh, SessionKey, SessionTable},
};

const POLICY: Policy =
    Policy { timeout: Duration::from_secs(1 << 20), lifetime: None, refresh: Refresh::Request };

/// A full table, in which time goes on by a second with each new session.
struct Full {
    table: SessionTable,
    metrics: Metrics,
    start: Instant,
    capacity: u64,
    sessions: u64,
}

impl Full {
    fn new(capacity: u64) -> Self {
        let (metrics, start) = (Metrics::new(), Instant::now());
        let table = SessionTable::new(capacity, [7; 16], &metrics, start);
        let mut full = Self { table, metrics, start, capacity, sessions: 0 };
        full.come(capacity);
        full
    }

    /// So many new sessions come.
    fn come(&mut self, sessions: u64) {
        for _ in 0..sessions {
            self.sessions += 1;
            drop(self.request(self.sessions));
        }
    }

    fn key(&self, session: u64) -> SessionKey {
        self.table.key("clone", &session.to_be_bytes())
    }

    fn request(&self, session: u64) -> Assigned {
        let now = self.start + Duration::from_secs(self.sessions);
        let server = SocketAddr::from(([10, 0, 0, (session % 4) as u8], 80));
        self.table.assign(&self.key(session), &POLICY, now, |_| true, || Some(server)).expect("a server")
    }

    fn has(&self, session: u64) -> bool {
        self.table.store.get(&self.key(session)).is_some()
    }

    fn evictions(&self) -> u64 {
        self.metrics.session_evictions.with_label_values(&["clone"]).get()
    }
}

#[test]
fn a_full_table_takes_every_new_session_keeps_its_bound_and_counts_who_leaves() {
    let mut full = Full::new(3000);
    assert_eq!((full.table.len(), full.evictions()), (3000, 0), "nobody leaves while there is room");
    for come in 1..=5000 {
        full.come(1);
        assert!(full.has(full.sessions), "the newest is in");
        assert_eq!((full.table.len(), full.evictions()), (3000, come));
    }
    assert_eq!(full.table.sessions_per_server("clone").values().sum::<u64>(), 3000);
    assert_eq!(full.table.tables(), [("clone".to_owned(), 3000)]);
    assert!(full.metrics.page().contains(r#"homing_session_evictions_total{table="clone"} 5000"#));
}

#[test]
fn in_a_table_no_larger_than_a_sample_exactly_the_longest_unused_leaves() {
    let capacity = SAMPLE as u64;
    let mut full = Full::new(capacity);
    for _ in 0..200 {
        full.come(1);
        let there = |session: &u64| full.has(*session);
        assert!((full.sessions + 1 - capacity..=full.sessions).all(|session| there(&session)));
    }
}

#[test]
fn nearly_all_who_leave_are_among_the_longest_unused() {
    let mut full = Full::new(4000);
    full.come(4000);
    let mut there: Vec<u64> = (1..=full.sessions).filter(|session| full.has(*session)).collect();
    let mut ranks = Vec::new();
    for _ in 0..8000 {
        full.come(1);
        let leaves = there.iter().position(|session| !full.has(*session)).expect("one left");
        ranks.push(leaves as f64 / full.capacity as f64);
        there.remove(leaves);
        there.push(full.sessions);
    }
    ranks.sort_by(f64::total_cmp);
    // 0 is the longest unused of all, 1 the newest.
    let (median, late, latest) = (ranks[4000], ranks[7920], ranks[7999]);
    assert!(median < 0.05 && late < 0.2 && latest < 0.4, "{median} {late} {latest}");
}

#[test]
fn a_session_in_regular_use_stays_however_many_new_ones_come() {
    let mut full = Full::new(4000);
    // Each is used again when half as many as the table holds have come.
    let regular: Vec<u64> = (1..=200).map(|n| n * 20).collect();
    for round in 0..17 {
        for session in &regular {
            let request = full.request(*session);
            assert!(round == 0 || request.how == How::Kept, "session {session}, round {round}");
            drop(request);
            full.come(10);
        }
    }
    assert!(full.sessions > 8 * full.capacity, "the table was filled many times over");
}

#[test]
fn looking_at_a_session_does_not_keep_it() {
    let mut full = Full::new(SAMPLE as u64);
    for left in 1..=100_u64 {
        let now = full.start + Duration::from_secs(full.sessions);
        assert!(full.table.lookup("clone", &left.to_be_bytes(), now).is_some());
        let key = full.key(left).to_string();
        assert_eq!(full.table.view(Some("clone"), Some(&key), 1, now).len(), 1);
        full.table.view(None, None, usize::MAX, now);
        full.come(1);
        assert!(!full.has(left), "the longest unused");
    }
}

#[test]
fn sessions_in_use_stay_as_long_as_others_may_leave() {
    let mut full = Full::new(1000);
    let in_use: Vec<Assigned> = (1..=900).map(|session| full.request(session)).collect();
    full.come(3000);
    assert!((1..=900).all(|session| full.has(session)), "a tenth of the table makes room for all");
    drop(in_use);
    full.come(3000);
    assert!(!(1..=900).any(|session| full.has(session)));
}

#[test]
fn when_all_are_in_use_a_new_session_comes_in_and_nobody_who_lost_its_place_is_disturbed() {
    let mut full = Full::new(50);
    let mut in_use: HashMap<u64, Assigned> =
        (1..=50).map(|session| (session, full.request(session))).collect();
    for _ in 0..50 {
        full.sessions += 1;
        in_use.insert(full.sessions, full.request(full.sessions));
        assert_eq!(full.table.len(), 50);
    }
    assert!((1..=50).all(|session| !full.has(session)), "the longest unused of those in use left");
    let lost = &in_use[&1];
    full.table.bind(full.key(1), &lost.entry, full.start);
    assert!(!full.has(1), "who left is not bound to a key again");
    in_use.clear();
    full.come(50);
    assert_eq!(full.table.sessions_per_server("clone").values().sum::<u64>(), 50);
}

#[test]
fn a_session_with_several_keys_ends_when_the_last_of_them_left() {
    let mut full = Full::new(SAMPLE as u64);
    let session = full.request(full.sessions);
    full.table.bind(full.key(1000), &session.entry, full.start);
    let (first, second) = (full.sessions, 1000);
    drop(session);
    assert!(full.has(first) && full.has(second));
    full.come(SAMPLE as u64 - 1);
    assert!(full.has(first) != full.has(second), "one of them had to leave");
    let left = if full.has(first) { first } else { second };
    let request = full.request(left);
    assert_eq!((request.how, request.seq), (How::Kept, 3), "the session is there by the other");
    drop(request);
}

#[test]
fn threads_that_fill_a_table_keep_its_bound_and_its_counts() {
    let (metrics, now) = (Metrics::new(), Instant::now());
    let table = SessionTable::new(500, [7; 16], &metrics, now);
    let request = |session: u64| {
        let server = SocketAddr::from(([10, 0, 0, (session % 4) as u8], 80));
        let key = table.key("clone", &session.to_be_bytes());
        table.assign(&key, &POLICY, now, |_| true, || Some(server)).expect("a server")
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let (request, table) = (&request, &table);
            scope.spawn(move || {
                for n in 0..5000 {
                    let session = request(n * 4 + thread);
                    table.bind(table.key("other", &n.to_be_bytes()), &session.entry, now);
                    assert!(table.len() <= 500);
                    drop(request(n / 2));
                    let again = request(n * 4 + thread);
                    assert!(again.how == How::Kept && again.seq > session.seq, "it was in use");
                }
            });
        }
    });
    let keys: u64 = table.tables().into_iter().map(|(_, keys)| keys).sum();
    assert_eq!((table.len(), keys), (500, 500));
    let sessions: HashSet<u64> =
        table.view(None, None, usize::MAX, now).into_iter().map(|row| row.session).collect();
    assert_eq!(table.sessions_per_server("clone").values().sum::<u64>(), sessions.len() as u64);
    assert!(table.view(None, None, usize::MAX, now).iter().all(|row| row.in_use == 0));
}
