//! The session table as a row of parts, which go into a file or over a socket alike.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    config::Config,
    session::{Restoring, Saved, SessionTable},
};

/// Some of the table.
#[derive(Serialize, Deserialize)]
pub(super) enum Part {
    /// The names of its tables, before any session that is in one of them.
    Directory(Vec<(u16, String)>),
    Sessions(Vec<Saved>),
}

/// Makes parts of what the table gives.
pub(super) struct Outgoing {
    table: Arc<SessionTable>,
    /// How many tables were named already.
    named: usize,
}

impl Outgoing {
    pub fn of(table: &Arc<SessionTable>) -> Self {
        Self { table: table.clone(), named: 0 }
    }

    /// Sessions that the table has just given, after the names that they need.
    pub fn with(&mut self, sessions: Vec<Saved>) -> impl Iterator<Item = Part> + use<> {
        let directory = self.table.directory();
        let is_longer = directory.len() > self.named;
        self.named = directory.len();
        let directory = is_longer.then_some(Part::Directory(directory));
        let sessions = (!sessions.is_empty()).then_some(Part::Sessions(sessions));
        directory.into_iter().chain(sessions)
    }
}

/// Puts parts into a table, but for sessions whose server is in no pool any more.
pub(super) struct Incoming {
    restoring: Restoring,
    servers: Vec<SocketAddr>,
    clock: Clock,
}

impl Incoming {
    pub fn into(table: &Arc<SessionTable>, config: &Config, clock: &Clock) -> Self {
        let servers = config.pools.iter().flat_map(|pool| &pool.servers).map(|server| server.addr);
        Self::with(table, &servers.collect::<Vec<_>>(), clock)
    }

    /// The same for certain servers.
    pub fn with(table: &Arc<SessionTable>, servers: &[SocketAddr], clock: &Clock) -> Self {
        let mut servers = servers.to_vec();
        servers.sort_unstable();
        Self { restoring: table.restore(), servers, clock: clock.clone() }
    }

    /// Takes a part that was made `ago`. How many keys it had.
    pub fn put(&mut self, part: &Part, ago: Duration) -> usize {
        match part {
            Part::Directory(directory) => {
                self.restoring.directory(directory);
                0
            }
            Part::Sessions(sessions) => {
                let (now, servers) = (self.clock.now(), &self.servers);
                for saved in sessions {
                    self.restoring.put(saved, ago, now, |server| servers.binary_search(&server).is_ok());
                }
                sessions.len()
            }
        }
    }
}
