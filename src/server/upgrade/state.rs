//! What a process has learnt that no configuration says: health, what requests say of servers, and the orders of
//! operators.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    names::ClusterUuid,
    pool::{Health, Judgement, Order, Pool, Server},
    snapshot::Live,
};

#[derive(Default, Serialize, Deserialize)]
pub(super) struct State {
    servers: Vec<ServerState>,
    /// Sites that are being emptied, and until when, Unix seconds.
    drains: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
struct ServerState {
    pool: String,
    addr: SocketAddr,
    health: Health,
    since: SystemTime,
    order: Option<Order>,
    judgement: Option<Judgement>,
}

impl State {
    pub fn of(live: &Live) -> Self {
        let (snapshot, now) = (live.snapshot(), live.clock.now());
        let servers =
            snapshot.pools.iter().flat_map(|pool| pool.servers().iter().map(move |server| (pool, server)));
        let server = |(pool, server): (&Arc<Pool>, &Arc<Server>)| {
            let (health, since) = server.known_health();
            ServerState {
                pool: pool.name().to_string(),
                addr: server.addr(),
                health,
                since,
                order: server.last_order(),
                judgement: server.judgement(now),
            }
        };
        let drains = live.drains.all().into_iter().map(|(site, until)| (site.to_string(), until)).collect();
        Self { servers: servers.map(server).collect(), drains }
    }

    /// Puts it in force for what is there under the same names.
    pub fn apply(self, live: &Live) {
        let snapshot = live.snapshot();
        for state in self.servers {
            let Some(pool) = snapshot.pool(&state.pool) else { continue };
            let Some(server) = pool.server(state.addr) else { continue };
            if server.is_watched() {
                server.set_health(state.health, state.since);
            }
            if let Some(judgement) = state.judgement.filter(|_| pool.config().inline.is_some()) {
                server.adopt(judgement, live.clock.now(), live.clock.wall());
            }
            if let Some(Order { state, by, at }) = state.order {
                server.order(state, &by, at);
            }
        }
        for (site, until) in self.drains {
            live.drains.drain_until(&ClusterUuid::from(site.as_str()), until);
        }
    }
}
