//! GSLB site persistence as a rule: who began at another site is served there.
//!
//! At `http_request` it proves a hop from a peer, reads the site cookie, and asks the policy. What is proxied goes
//! to the SP pool with a signed hop header; what is served here loses the cookie on its way to the app server,
//! and gets a new one on the answer where it had none that holds. If home cannot be reached, or says that it
//! cannot serve, the configured recovery acts on that very request.

use std::sync::Arc;

use super::https_redirect::HttpsRedirect;
use crate::prelude::*;

/// The rule of one virtual service that is a member of a site-persistent GSLB service.
pub struct SitePersistence {
    site: SiteSetup,
    /// The virtual service's own pool; without a server up, a hop is refused.
    pool: Option<PoolName>,
    redirect: Option<HttpsRedirect>,
    counters: OutcomeCounters,
    /// Cookies sealed with the active key.
    seals: IntCounter,
    metrics: Metrics,
    vs: VsName,
}

/// What was decided about one request; kept with it until it ends.
#[derive(Clone, Copy)]
struct Decided {
    decision: Decision,
    /// A peer sent it, and proved so.
    from_peer: bool,
}

impl SitePersistence {
    /// The rule, if the virtual service takes part in site persistence.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        let site = setup.site?.clone();
        let vs = setup.virtual_service;
        let counters = OutcomeCounters::new(setup.metrics, &site.membership.service.name, &vs.name);
        let redirect = HttpsRedirect::of(setup);
        let seals = setup.metrics.site_cookie_seals.with_label_values(&[site.membership.active_key_id()]);
        let (metrics, vs, pool) = (setup.metrics.clone(), vs.name.clone(), vs.pool.clone());
        Some(Self { site, pool, redirect, counters, seals, metrics, vs }.into_rule())
    }

    /// How the request came here. A peer that proves itself is believed who the client is.
    fn arrival(&self, request: &mut Request<'_>) -> Arrival {
        // Looked for in one pass, because nearly no request of a client has one.
        if request.headers().keys().all(|name| *name != HOP && *name != CDN_LOOP) {
            return Arrival::Client;
        }
        let membership = &self.site.membership;
        let mut values = request.headers().get_all(&HOP).iter();
        let header = match (values.next(), values.next()) {
            (Some(header), None) => header.to_str().ok(),
            _ => None,
        };
        let proof = header.map(|header| {
            let signed = (request.method().as_str(), request.host(), request.path_and_query());
            let certified = request.ssl().and_then(|tls| tls.site());
            let now = request.clock().unix_seconds();
            membership.verify_hop(header, signed, certified, now, &self.site.replay)
        });
        if let Some(Err(refusal)) = &proof {
            self.count_refused(*refusal);
        }
        match proof {
            Some(Ok(hop)) => {
                let secure = hop.scheme == ClientScheme::Https;
                request.trust_client(hop.client, secure, hop.tls_session.map(Vec::from));
                Arrival::Peer
            }
            Some(Err(HopRefusal::WrongSite)) => Arrival::Misdirected,
            _ => {
                let fields = request.headers().get_all(&CDN_LOOP).iter().map(|field| field.as_bytes());
                match carries_loop_token(fields, &membership.loop_token) {
                    true => Arrival::Looped,
                    false => Arrival::Client,
                }
            }
        }
    }

    /// Counts a hop header that was no proof. Resolved only now: honest peers send none.
    fn count_refused(&self, refusal: HopRefusal) {
        let (service, reason) = (&self.site.membership.service.name, refusal.to_string());
        let labels = [service.as_str(), self.vs.as_str(), reason.as_str()];
        self.metrics.sp_hops_refused.with_label_values(&labels).inc();
    }

    fn own_pool_is_up(&self, exchange: &Exchange) -> bool {
        let Some(pool) = &self.pool else { return true };
        exchange.pools().named(pool.as_str()).is_ok_and(|pool| pool.active_servers().next().is_some())
    }

    /// The peer that the request is on its way to. A rule that ran later may have sent it elsewhere.
    fn home_of(&self, exchange: &Exchange) -> Option<&PeerMember> {
        let Decided { decision: Decision::Proxy { to, .. }, .. } = exchange.get()? else { return None };
        exchange.goes_to(&self.site.sp_pool).then(|| self.site.membership.peer(to)).flatten()
    }

    /// What follows when home cannot have the request, which is `resendable` or has been begun.
    fn after_failure(decided: Decided, resendable: bool) -> Decided {
        let decision = match decided.decision.after_failure() {
            Decision::Local { .. } if !resendable => Decision::Abort,
            next => next,
        };
        Decided { decision, ..decided }
    }
}

#[async_trait]
impl Rule for SitePersistence {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        let membership = &self.site.membership;
        let arrival = self.arrival(request);
        let from_peer = arrival == Arrival::Peer;
        let cookies = request.headers().iter().filter(|(name, _)| **name == COOKIE);
        let cookies = cookies.map(|(_, field)| field.as_bytes());
        let cookie = membership.read_cookie(cookies, request.clock().unix_seconds());
        let is_up = |home: &MemberId| membership.peer(home).is_some_and(|peer| self.site.is_up(peer.addr));
        let mut decision = decide(cookie, arrival, is_up, membership.recovery());
        if from_peer && !self.own_pool_is_up(request) {
            decision = Decision::Refuse(HomeRefusal::PoolDown);
        }
        let redirect = match (&self.redirect, decision) {
            (None, _) | (_, Decision::Refuse(_)) => None,
            (Some(redirect), _) => redirect.reply(request)?,
        };
        if let Some(reply) = redirect {
            // The cookie is for the answer over TLS.
            decision = Decision::Local { outcome: here(decision.outcome()), issue: false };
            request.respond(reply);
        }
        request.insert(Decided { decision, from_peer });
        match decision {
            Decision::Local { .. } => {}
            Decision::Proxy { to, .. } => {
                let home = membership.peer(&to).ok_or_else(|| RuleError::new("the home is no peer"))?;
                request.server_of(&self.site.sp_pool, home.addr);
            }
            Decision::Abort => request.respond(home_is_away()),
            Decision::Refuse(refusal) => request.respond(refused(refusal)?),
        }
        Ok(())
    }

    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        let Some(decided) = lb.get::<Decided>().copied() else { return Ok(()) };
        if self.home_of(lb).is_none() {
            if decided.from_peer && lb.server().is_none() {
                lb.insert(Decided { decision: Decision::Refuse(HomeRefusal::PoolDown), ..decided });
                lb.respond(refused(HomeRefusal::PoolDown)?);
            }
            return Ok(());
        }
        let next = Self::after_failure(decided, lb.is_resendable());
        lb.insert(next);
        match next.decision {
            Decision::Local { .. } => lb.reselect_here(),
            Decision::Proxy { .. } if lb.is_resendable() && lb.failures() < MAX_TRIES => lb.reselect(),
            _ => lb.respond(home_is_away()),
        }
        Ok(())
    }

    fn http_request_send(&self, send: &mut RequestSend<'_>) -> RuleResult {
        let membership = &self.site.membership;
        let Some(home) = self.home_of(send) else {
            let cookies =
                send.headers().iter().find(|(name, _)| **name == COOKIE).map(|(_, cookies)| cookies);
            let rest = cookies.map(|cookies| {
                without_cookie(cookies.as_bytes(), membership.cookie_name()).map(|rest| rest.into_owned())
            });
            match rest {
                Some(Some(rest)) => send.set_header("cookie", rest)?,
                Some(None) => drop(send.remove_header("cookie")),
                None => {}
            }
            return Ok(());
        };
        let fields = HopFields {
            dst: home.cluster_uuid.as_str(),
            ts: send.clock().unix_seconds(),
            rid: &format!("{}-{:08x}", send.request_id(), send.random_below(1 << 32)),
            client: send.client_ip(),
            scheme: if send.is_secure() { ClientScheme::Https } else { ClientScheme::Http },
            tls_session: send.tls_session_id().map(|id| membership.hop.tls_session(id)),
        };
        let hop = membership.hop.sign(&fields, send.method().as_str(), send.host(), send.path_and_query())?;
        send.append_header("Via", format!("1.1 {}", membership.loop_token))?;
        send.append_header(CDN_LOOP.as_str(), &membership.loop_token)?;
        send.set_header(HOP_HEADER, &hop)
    }

    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        let Some(decided) = response.get::<Decided>().copied() else { return Ok(()) };
        if self.home_of(response).is_some() {
            if response.server().is_some() && response.header(HOP_REFUSED_HEADER).is_some() {
                let next = Self::after_failure(decided, response.is_resendable());
                response.insert(next);
                match next.decision {
                    Decision::Local { .. } => response.retry_here(),
                    Decision::Proxy { .. } => {}
                    _ => response.respond(home_is_away()),
                }
            }
            return Ok(());
        }
        // An error of our own makes this site nobody's home.
        let own_error = response.server().is_none() && response.status() >= 500;
        if let Decision::Local { issue: true, .. } = decided.decision
            && !own_error
        {
            let membership = &self.site.membership;
            let nonce = response.random_bytes();
            let cookie =
                membership.issue_cookie(response.clock().unix_seconds(), nonce, response.is_secure());
            self.seals.inc();
            response.append_header("Set-Cookie", &cookie)?;
            if let Some(private) = private_cache_control(response.joined("cache-control").as_deref()) {
                response.set_header("Cache-Control", &*private)?;
            }
        }
        Ok(())
    }

    fn http_finished(&self, finished: &mut Finished<'_>) -> RuleResult {
        if let Some(decided) = finished.get::<Decided>() {
            let outcome = decided.decision.outcome();
            let sent_home = finished.server.is_some() && self.home_of(finished).is_some();
            self.counters.count(if sent_home { outcome } else { here(outcome) });
        }
        Ok(())
    }
}

/// The outcome of a request that was not sent home after all: a rule answered it, or chose another pool.
fn here(outcome: Outcome) -> Outcome {
    if outcome == Outcome::Proxied { Outcome::Local } else { outcome }
}

fn home_is_away() -> Reply {
    Reply::new(503).body("the site of this session is away\n")
}

/// What this site cannot serve, as its peer understands it.
fn refused(refusal: HomeRefusal) -> Result<Reply, RuleError> {
    Reply::new(refusal.status()).header(HOP_REFUSED_HEADER, refusal.as_str())
}

static HOP: HeaderName = HeaderName::from_static(HOP_HEADER);
static COOKIE: HeaderName = HeaderName::from_static("cookie");
/// RFC 8586.
static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// A home that is to be kept is asked this often before the request fails.
const MAX_TRIES: usize = 3;
