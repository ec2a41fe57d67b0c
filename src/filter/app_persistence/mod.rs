//! App persistence as a rule: a session stays at the server of the pool at which it began.
//!
//! At `http_request` it learns by what the session is known, and prefers the server that it has. Which server a new
//! session gets is the balancer's choice: `lb_selected` takes note of it, and of requests that begin one session at
//! the same time all go where the first went. A session whose server is down, full or gone gets the one that the
//! balancer chose in its place, unless the profile says otherwise; a server that drains keeps its own. Where a cookie
//! of ours carries the server, the answer brings it, and no table is needed.
//!
//! It runs after users' rules, which may choose another pool, whose profile then counts, or say `persist_none`. It knows
//! nothing of site and clone persistence, which choose among others.
//!
//! BIG-IP has persistence profiles, HAProxy `stick` and `cookie`.

mod keeper;
mod memory;

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::own_cookie;
use crate::prelude::*;
use keeper::{Keeper, Outcome, Standing};
use memory::{Asked, Known, Memory};

/// The rule of one virtual service.
pub struct AppPersistence {
    /// The virtual service's own pool.
    own: Option<PoolName>,
    /// Of each pool with a profile to which requests may go.
    keepers: HashMap<PoolName, Keeper>,
}

/// What is known of a request's session at one pool; kept with the request.
struct Session {
    pool: PoolName,
    known: Known,
    /// Its use of the session table, where it has an entry.
    assigned: Option<Arc<Assigned>>,
    /// It was refused because its server is down.
    aborted: bool,
}

impl AppPersistence {
    /// The rule, if the virtual service's pool has a profile, or one that its rules may choose.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        let vs = setup.virtual_service;
        let chooses = !vs.rules.is_empty() || !vs.http_rules.is_empty();
        let pools = setup.services.pools().all();
        let within_reach = pools.filter(|pool| chooses || vs.pool.as_ref() == Some(pool.name()));
        let keepers = within_reach
            .filter_map(|pool| Some((pool.name().clone(), Keeper::of(pool, setup.metrics)?)))
            .collect::<HashMap<_, _>>();
        (!keepers.is_empty()).then(|| Self { own: vs.pool.clone(), keepers }.into_rule())
    }

    /// Who keeps the sessions of the pool that a request is to go to; `None`: nobody does.
    fn keeper(&self, exchange: &Exchange) -> Option<&Keeper> {
        self.keepers.get(exchange.persistent_pool(self.own.as_ref())?)
    }

    /// The session of a request at the pool of this keeper.
    fn session<'a>(&self, exchange: &'a Exchange, keeper: &Keeper) -> Option<&'a Session> {
        exchange.get::<Session>().filter(|session| session.pool == keeper.pool)
    }

    /// Learns of the session. Where it is in the table its entry is in use from then on, until the request is over;
    /// that of a TLS session until its connection is.
    fn learn(&self, keeper: &Keeper, exchange: &Exchange, asked: &Asked<'_>) -> Session {
        let (known, assigned) =
            keeper.memory.recall(exchange, asked, |server| keeper.keeps(exchange, server));
        if let Known::Refused(refusal) = known {
            keeper.count_refused(refusal);
        }
        let assigned = assigned.map(Arc::new);
        assigned.iter().for_each(|assigned| keeper.hold_with_connection(exchange, assigned));
        Session { pool: keeper.pool.clone(), known, assigned, aborted: false }
    }
}

#[async_trait]
impl Rule for AppPersistence {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        let Some(keeper) = self.keeper(request) else { return Ok(()) };
        let asked = Asked { headers: request.headers(), query: request.query() };
        let mut session = self.learn(keeper, request, &asked);
        if let Some(server) = session.known.server() {
            match keeper.standing(request, server) {
                // One that is gone is not had, and the balancer chooses; that the session moved is told then.
                Standing::Up | Standing::Gone => request.prefer_of(&keeper.pool, server),
                Standing::Down => match keeper.profile.recovery {
                    HmDownRecovery::PickNewServer => request.prefer_of(&keeper.pool, server),
                    HmDownRecovery::ContinuePersistentServer => request.insist_on(&keeper.pool, server),
                    HmDownRecovery::AbortConnection => {
                        session.aborted = true;
                        request.respond(server_is_down());
                    }
                },
            }
        }
        request.insert(session);
        Ok(())
    }

    fn lb_selected(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        let (Some(keeper), Some(selected)) = (self.keeper(lb), lb.server()) else { return Ok(()) };
        if self.session(lb, keeper).is_none() {
            // It was on its way elsewhere when it came, to another site or another pool.
            let session = self.learn(keeper, lb, &Asked { headers: lb.headers(), query: lb.query() });
            let server = session.known.server().filter(|server| keeper.keeps(lb, *server));
            lb.insert(session);
            if let Some(server) = server.filter(|server| *server != selected) {
                lb.reselect_server(server);
                return Ok(());
            }
        }
        let Some(session) = self.session(lb, keeper) else { return Ok(()) };
        let assigned = session.assigned.as_ref().map(|assigned| assigned.server);
        if assigned == Some(selected) {
            return Ok(());
        }
        // What the session has, and was asked for, could not be had.
        let keeps = |server| Some(server) != assigned && keeper.keeps(lb, server);
        let Some(now) = keeper.memory.assign(lb, &session.known, selected, keeps) else { return Ok(()) };
        let server = now.server;
        let now = Arc::new(now);
        keeper.hold_with_connection(lb, &now);
        if let Some(session) = lb.get_mut::<Session>() {
            session.assigned = Some(now);
        }
        if server != selected {
            lb.reselect_server(server);
        }
        Ok(())
    }

    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        let Some(keeper) = self.keeper(lb) else { return Ok(()) };
        let server = self.session(lb, keeper).and_then(|session| session.known.server());
        let stays = keeper.profile.recovery != HmDownRecovery::PickNewServer;
        if stays && server.is_some() && lb.server() == server {
            if let Some(session) = lb.get_mut::<Session>() {
                session.aborted = true;
            }
            lb.respond(server_is_down());
        }
        Ok(())
    }

    fn http_request_send(&self, send: &mut RequestSend<'_>) -> RuleResult {
        match self.keeper(send).map(|keeper| &keeper.memory) {
            Some(Memory::Cookie(cookie)) => own_cookie::remove(send, cookie.name()),
            _ => Ok(()),
        }
    }

    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        let (Some(keeper), Some(server)) = (self.keeper(response), response.server()) else { return Ok(()) };
        let Some(session) = self.session(response, keeper) else { return Ok(()) };
        match &keeper.memory {
            Memory::Cookie(cookie) => match cookie.due(response, &session.known, server) {
                Some(cookie) => own_cookie::hand_out(response, &cookie),
                None => Ok(()),
            },
            Memory::Table(table) => {
                let learned = table.learn(response, server);
                if let Some(session) = response.get_mut::<Session>().filter(|_| learned) {
                    session.known.begin();
                }
                Ok(())
            }
        }
    }

    fn http_finished(&self, finished: &mut Finished<'_>) -> RuleResult {
        let session = finished.get::<Session>();
        let keeper = session.and_then(|session| self.keepers.get(&session.pool));
        if let (Some(session), Some(keeper)) = (session, keeper)
            && let Some(outcome) = session.outcome(finished.server)
        {
            keeper.count(outcome);
        }
        Ok(())
    }
}

impl Session {
    /// What became of it; `None`: its request reached no server.
    fn outcome(&self, server: Option<SocketAddr>) -> Option<Outcome> {
        if self.aborted {
            return Some(Outcome::Aborted);
        }
        let server = server?;
        Some(match (&self.known, self.known.server()) {
            (Known::Nothing, _) => Outcome::Nameless,
            (_, None) => Outcome::New,
            (_, Some(had)) if had == server => Outcome::Kept,
            (_, Some(_)) => Outcome::Moved,
        })
    }
}

fn server_is_down() -> Reply {
    Reply::new(503).body("the server of this session is down\n")
}
