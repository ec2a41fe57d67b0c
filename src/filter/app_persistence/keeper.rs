//! Who keeps the sessions of one pool: its profile, what it remembers them by, and what it counts.

use std::{net::SocketAddr, sync::Arc};

use super::memory::Memory;
use crate::prelude::*;

pub(super) struct Keeper {
    pub pool: PoolName,
    pub profile: Arc<PersistenceProfile>,
    pub memory: Memory,
    /// In the order of [`Outcome::ALL`].
    outcomes: [IntCounter; Outcome::ALL.len()],
    metrics: Metrics,
}

/// What a session's server is to its pool now.
pub(super) enum Standing {
    /// It serves the sessions that it has.
    Up,
    /// It should, and does not.
    Down,
    /// It was taken out: removed, or disabled.
    Gone,
}

/// What became of a request's session.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Kept,
    Moved,
    New,
    Nameless,
    Aborted,
}

impl Outcome {
    pub const ALL: [Self; 5] = [Self::Kept, Self::Moved, Self::New, Self::Nameless, Self::Aborted];

    /// As metrics have it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Moved => "moved",
            Self::New => "new",
            Self::Nameless => "none",
            Self::Aborted => "aborted",
        }
    }
}

impl Keeper {
    /// The keeper of a pool, if it has a profile.
    pub fn of(pool: &Pool, metrics: &Metrics) -> Option<Self> {
        let profile = pool.config().persistence.clone()?;
        let counter = |outcome: Outcome| {
            metrics.persistence.with_label_values(&[pool.name().as_str(), outcome.as_str()])
        };
        Some(Self {
            pool: pool.name().clone(),
            memory: Memory::of(pool, &profile),
            profile,
            outcomes: Outcome::ALL.map(counter),
            metrics: metrics.clone(),
        })
    }

    /// How a server of this name stands.
    pub fn standing(&self, exchange: &Exchange, server: SocketAddr) -> Standing {
        let pool = exchange.pools().named(self.pool.as_str()).ok();
        match pool.and_then(|pool| pool.server(server)) {
            Some(server) if server.is_up() => Standing::Up,
            Some(server)
                if server.is_enabled_in_configuration() && server.admin_state() != AdminState::Disabled =>
            {
                Standing::Down
            }
            _ => Standing::Gone,
        }
    }

    /// Whether a session stays at this server.
    pub fn keeps(&self, exchange: &Exchange, server: SocketAddr) -> bool {
        match self.standing(exchange, server) {
            Standing::Up => true,
            Standing::Down => self.profile.recovery != HmDownRecovery::PickNewServer,
            Standing::Gone => false,
        }
    }

    /// A session that is known by its TLS session does not end while a connection of it is open. A hop's connection is
    /// the peer's, and shared by its clients.
    pub fn hold_with_connection(&self, exchange: &Exchange, assigned: &Arc<Assigned>) {
        if !matches!(self.profile.by, PersistBy::Tls { .. }) || exchange.is_carried() {
            return;
        }
        exchange.with_connection_value(|HeldOpen(held)| {
            if held.iter().all(|(pool, _)| *pool != self.pool) {
                held.push((self.pool.clone(), assigned.clone()));
            }
        });
    }

    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }

    /// Counts a cookie that was not believed. Resolved only now: honest clients bring few.
    pub fn count_refused(&self, reason: &'static str) {
        self.metrics.persistence_cookies_refused.with_label_values(&[self.pool.as_str(), reason]).inc();
    }
}

/// Sessions that an open connection is a part of, by pool.
#[derive(Clone, Default)]
struct HeldOpen(Vec<(PoolName, Arc<Assigned>)>);
