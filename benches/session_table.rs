//! The session table with a million sessions: what it holds of memory, and how long a request waits for it.
//!
//! `cargo bench --bench session_table`. A request's part is all that it does with the table: the keyed hash of its
//! token, the look-up, the assignment and its end. It is measured for a few busy sessions and for all at random, for
//! the processor's caches matter more than the code.

use std::{
    env, fs,
    hint::black_box,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use homing::{
    metrics::Metrics,
    session::{Assigned, Policy, Refresh, SessionTable},
};

/// As the binary has it: memory is measured, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SESSIONS: u64 = 1_000_000;
const BUSY: [u64; 4] = [1_000, 10_000, 100_000, SESSIONS];
const THREADS: u64 = 8;
const TABLE: &str = "clone:pay@site_A:analysers";
const POLICY: Policy =
    Policy { timeout: Duration::from_secs(300), lifetime: None, refresh: Refresh::Request };

struct Filled {
    table: SessionTable,
    now: Instant,
}

impl Filled {
    fn new() -> Self {
        let (metrics, now) = (Metrics::new(), Instant::now());
        let filled = Self { table: SessionTable::new(SESSIONS, [7; 16], &metrics, now), now };
        let before = resident_bytes();
        for session in 0..SESSIONS {
            filled.request(session);
        }
        let grown = resident_bytes() - before;
        assert_eq!(filled.table.len() as u64, SESSIONS);
        println!(
            "{SESSIONS} sessions: {:.1} MiB, {} bytes for each; {} ns to begin one",
            grown as f64 / f64::from(1 << 20),
            grown / SESSIONS,
            now.elapsed().as_nanos() / u128::from(SESSIONS),
        );
        filled
    }

    fn request(&self, session: u64) -> Assigned {
        let key = self.table.key(TABLE, &token(session));
        // Four members, which a session keeps.
        let server = SocketAddr::from(([10, 0, 0, (session % 4) as u8], 80));
        self.table.assign(&key, &POLICY, self.now, |_| true, || Some(server)).expect("there is a server")
    }
}

/// A cookie as apps set it.
fn token(session: u64) -> [u8; 27] {
    let mut token = *b"cookie:SID=0000000000000000";
    let random = spread(session);
    for (n, digit) in token[11..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(random >> (4 * n) & 15) as usize];
    }
    token
}

/// Numbers in no order.
fn spread(n: u64) -> u64 {
    let n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

/// Memory of this process, by the kernel's count of pages.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux tells a process's memory");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn requests(c: &mut Criterion) {
    let filled = Filled::new();
    let mut turn = 0;
    let mut next = move || {
        turn += 1;
        spread(turn)
    };
    let mut group = c.benchmark_group("session_table");
    group.bench_function("a token and its key", |b| {
        b.iter(|| black_box(filled.table.key(TABLE, &token(next() % SESSIONS))));
    });
    for busy in BUSY {
        group.bench_function(format!("a request of one of {busy} sessions"), |b| {
            b.iter(|| black_box(filled.request(next() % busy)));
        });
        group.bench_function(format!("a request of one of {busy} sessions, {THREADS} threads"), |b| {
            b.iter_custom(|requests| at_once(&filled, requests, busy));
        });
    }
    group.bench_function("a new session in a full table", |b| {
        b.iter(|| black_box(filled.request(SESSIONS + next() / 2)));
    });
    group.bench_function("a new session in a full table that gains a second token", |b| {
        b.iter(|| {
            let (first, second) = (SESSIONS + next() / 2, SESSIONS + next() / 2);
            let session = filled.request(first);
            filled.table.bind(filled.table.key(TABLE, &token(second)), &session.entry, filled.now);
        });
    });
    group.finish();
}

/// How long so many requests take that come from several threads.
fn at_once(filled: &Filled, requests: u64, sessions: u64) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for n in 0..requests.div_ceil(THREADS) {
                    black_box(filled.request(spread(n * THREADS + thread) % sessions));
                }
            });
        }
    });
    start.elapsed()
}

fn all(c: &mut Criterion) {
    // Without this, `cargo test --benches` would fill the table only to see that it can.
    if env::args().any(|arg| arg == "--bench") {
        requests(c);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
