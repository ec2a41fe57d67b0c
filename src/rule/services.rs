//! What every context offers: pools, the session table, chance and time.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::RuleError;
use crate::{
    clock::Clock,
    names::PoolName,
    pool::Pool,
    session::{Assigned, Policy, Refresh, SessionTable},
};

/// The parts of a running instance that rules may use. iRules reach them by commands such as `active_members`,
/// `LB::status` and `session`.
pub struct Services {
    pools: HashMap<PoolName, Arc<Pool>>,
    sessions: Arc<SessionTable>,
    clock: Clock,
    chance: Chance,
}

/// Where random choices come from.
pub enum Chance {
    /// The thread's generator, seeded by the machine.
    System,
    /// A generator of our own, for the simulator and for tests.
    Seeded(Box<Mutex<StdRng>>),
}

impl Services {
    /// `seed`: `None` for the machine's randomness.
    pub fn new(
        pools: HashMap<PoolName, Arc<Pool>>,
        sessions: Arc<SessionTable>,
        clock: Clock,
        seed: Option<u64>,
    ) -> Self {
        let chance = match seed {
            None => Chance::System,
            Some(seed) => Chance::Seeded(Box::new(Mutex::new(StdRng::seed_from_u64(seed)))),
        };
        Self { pools, sessions, clock, chance }
    }

    /// Pools and the state of their servers.
    pub fn pools(&self) -> Pools<'_> {
        Pools(self)
    }

    /// The session table: iRules' `session` and `table`.
    pub fn session(&self) -> Sessions<'_> {
        Sessions(self)
    }

    /// The time; a simulated one in the simulator.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A random index below `n`, which must not be 0: iRules' `int(rand()*n)`.
    pub fn random_below(&self, n: usize) -> usize {
        self.with_rng(|rng| rng.random_range(0..n))
    }

    /// Random bytes: nonces, identifiers.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.with_rng(|rng| rng.fill_bytes(&mut bytes));
        bytes
    }

    /// Runs `f` with a random generator.
    pub fn with_rng<T>(&self, f: impl FnOnce(&mut dyn rand::RngCore) -> T) -> T {
        match &self.chance {
            Chance::System => f(&mut rand::rng()),
            Chance::Seeded(rng) => f(&mut *rng.lock()),
        }
    }

    pub(crate) fn named_pool(&self, name: &str) -> Result<&Arc<Pool>, RuleError> {
        self.pools.get(name).ok_or_else(|| {
            let mut known: Vec<_> = self.pools.keys().map(PoolName::as_str).collect();
            known.sort_unstable();
            RuleError::new(format!("pool `{name}` is not defined; known: {}", known.join(", ")))
        })
    }

    pub(crate) fn named_member(&self, pool: &str, server: SocketAddr) -> Result<PoolName, RuleError> {
        let pool = self.named_pool(pool)?;
        match pool.server(server) {
            Some(_) => Ok(pool.name().clone()),
            None => Err(RuleError::new(format!("pool `{}` has no server {server}", pool.name()))),
        }
    }
}

/// The pools of the configuration.
#[derive(Clone, Copy)]
pub struct Pools<'a>(&'a Services);

impl<'a> Pools<'a> {
    /// The servers that may get new sessions (enabled, up, not draining): iRules' `active_members -list`.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn active_servers(&self, pool: &str) -> Result<Vec<SocketAddr>, RuleError> {
        Ok(self.0.named_pool(pool)?.active_servers().map(|server| server.addr()).collect())
    }

    /// Whether the server is in the pool, enabled and up, and so may keep its sessions: iRules'
    /// `LB::status pool … member … eq "up"`. One that drains is up.
    pub fn is_up(&self, pool: &str, server: SocketAddr) -> bool {
        self.0.pools.get(pool).and_then(|pool| pool.server(server)).is_some_and(|server| server.is_up())
    }

    /// Every pool of the configuration, in no order.
    pub fn all(&self) -> impl Iterator<Item = &'a Arc<Pool>> + use<'a> {
        self.0.pools.values()
    }

    /// A pool as an engine sees it.
    ///
    /// # Errors
    /// There is no such pool.
    pub fn named(&self, pool: &str) -> Result<&'a Arc<Pool>, RuleError> {
        self.0.named_pool(pool)
    }
}

/// The session table of the instance.
#[derive(Clone, Copy)]
pub struct Sessions<'a>(&'a Services);

impl Sessions<'_> {
    /// The value under a key, which this does not refresh: iRules' `session lookup`.
    pub fn lookup(&self, kind: &str, key: &[u8]) -> Option<String> {
        self.0.sessions.lookup(kind, key, self.now())
    }

    /// Sets a value with an idle timeout: iRules' `session add`.
    pub fn add(&self, kind: &str, key: &[u8], value: impl Into<String>, timeout: Duration) {
        self.0.sessions.add(kind, key, value.into(), timeout, self.now());
    }

    /// Removes a value: iRules' `session delete`. Whether there was one.
    pub fn delete(&self, kind: &str, key: &[u8]) -> bool {
        self.0.sessions.delete(kind, key)
    }

    /// The value under a key, refreshed, or the one that `make` gives; of simultaneous callers one makes it.
    pub fn get_or_add(
        &self,
        kind: &str,
        key: &[u8],
        timeout: Duration,
        make: impl FnOnce() -> String,
    ) -> String {
        self.0.sessions.get_or_add(kind, key, timeout, self.now(), make)
    }

    /// Puts off the end of a session, if there is one.
    pub fn touch(&self, kind: &str, key: &[u8]) {
        self.0.sessions.touch(kind, key, self.now());
    }

    /// The server of a session: the one that it has if `keep` takes it, else the one that `choose` gives.
    /// Simultaneous callers of one session get the same server. `None`: `choose` had none.
    pub fn assign(
        &self,
        kind: &str,
        key: &[u8],
        assign: Assign,
        keep: impl Fn(SocketAddr) -> bool,
        choose: impl FnOnce() -> Option<SocketAddr>,
    ) -> Option<Assigned> {
        let key = self.0.sessions.key(kind, key);
        let Assign { timeout, lifetime, refresh } = assign;
        let policy = Policy { timeout, lifetime, refresh };
        self.0.sessions.assign(&key, &policy, self.now(), keep, choose)
    }

    /// How many sessions of a table each server has.
    pub fn per_server(&self, kind: &str) -> HashMap<SocketAddr, u64> {
        self.0.sessions.sessions_per_server(kind)
    }

    /// Gives a session a second key: both find the same entry from now on.
    pub fn bind(&self, kind: &str, key: &[u8], session: &Assigned) {
        self.0.sessions.bind(self.0.sessions.key(kind, key), &session.entry, self.now());
    }

    /// Whether another process serves the same sessions just now, as in an upgrade. What it learns it tells, a moment
    /// later: a rule that chooses a server for a new session should choose by the session's key then.
    pub fn is_shared(&self) -> bool {
        self.0.sessions.is_shared()
    }

    fn now(&self) -> Instant {
        self.0.clock.now()
    }
}

/// How long an assignment lives.
#[derive(Clone, Copy, Debug)]
pub struct Assign {
    /// Idle timeout.
    pub timeout: Duration,
    /// The longest life, however busy.
    pub lifetime: Option<Duration>,
    /// What restarts the idle timeout.
    pub refresh: Refresh,
}
