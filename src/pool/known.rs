//! What monitors and requests have found out about a server, and what follows from it.

use std::{
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Ejection, State, distrust::Distrust, past::Past};

/// Kept over reloads.
pub(super) struct Known {
    /// What `pick` reads; it follows from the facts.
    standing: AtomicU8,
    pub facts: Mutex<Facts>,
    pub distrust: Distrust,
    /// When it did not agree to HTTP/2 last.
    declined_http2: Mutex<Option<Instant>>,
}

pub(super) struct Facts {
    pub health: Health,
    pub ejection: Option<Ejection>,
    /// When one of these was another last,
    pub changed: SystemTime,
    /// and what is said of that beside them.
    pub said: Option<String>,
    pub past: Past,
}

/// Which requests a server may have, as far as its health goes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// All.
    All,
    /// Those of the sessions that it has.
    Own,
    None,
}

/// What is known of a server's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// No result yet, or no monitor: counts as up, as with HAProxy and Pingora.
    Unchecked,
    /// All monitors passed.
    Up,
    /// With the reason that an operator reads.
    Down { reason: String },
    /// It says itself that it wants no new sessions.
    Maintenance { reason: String },
}

impl Known {
    pub fn new(now: SystemTime) -> Self {
        let facts = Facts {
            health: Health::Unchecked,
            ejection: None,
            changed: now,
            said: None,
            past: Past::default(),
        };
        Self {
            standing: AtomicU8::new(Standing::All as u8),
            facts: Mutex::new(facts),
            distrust: Distrust::default(),
            declined_http2: Mutex::default(),
        }
    }

    pub fn declined_http2(&self, now: Instant) {
        *self.declined_http2.lock() = Some(now);
    }

    pub fn declines_http2(&self, now: Instant) -> bool {
        let last = *self.declined_http2.lock();
        last.is_some_and(|last| now.saturating_duration_since(last) < DECLINED)
    }

    pub fn stands(&self, standing: Standing) -> bool {
        self.standing.load(Relaxed) == standing as u8
    }

    /// One of the facts is another now.
    pub fn changed(&self, facts: &mut Facts, monitored: bool, now: SystemTime) {
        facts.changed = now;
        self.standing.store(facts.standing() as u8, Relaxed);
        let (state, reason) = facts.verdict(monitored);
        facts.past.note(state, &reason, now);
    }
}

impl Facts {
    fn standing(&self) -> Standing {
        match (&self.ejection, &self.health) {
            (Some(_), _) | (None, Health::Down { .. }) => Standing::None,
            (None, Health::Maintenance { .. }) => Standing::Own,
            (None, Health::Unchecked | Health::Up) => Standing::All,
        }
    }

    /// The state that follows from them, and why.
    pub fn verdict(&self, monitored: bool) -> (State, String) {
        if let Health::Down { reason } = &self.health {
            return (State::Down, reason.clone());
        }
        if let Some(Ejection { reason, time, .. }) = &self.ejection {
            return (State::Down, format!("ejected for {}: {reason}", humantime::format_duration(*time)));
        }
        let reason = match (&self.health, &self.said) {
            (Health::Maintenance { reason }, _) => format!("in maintenance, keeps its sessions: {reason}"),
            (_, Some(said)) => said.clone(),
            (Health::Unchecked, _) if monitored => "not checked yet".to_owned(),
            (Health::Unchecked, _) => "not monitored".to_owned(),
            _ => "monitors passed".to_owned(),
        };
        (State::Up, reason)
    }
}

/// How long a server that did not agree to HTTP/2 is not asked for it again; it may have been upgraded.
const DECLINED: Duration = Duration::from_secs(600);
