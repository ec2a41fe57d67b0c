//! GSLB site persistence as a rule: who began at another site is served there.
//!
//! At `http_request` it proves a hop from a peer, reads the site cookie, and asks the policy. What is proxied goes
//! to the SP pool with a signed hop header. With `site_persistence_mode: redirect` it is answered with the way home,
//! which the client goes by itself; browsers' WebSockets do not follow. What is served here loses the cookie on its
//! way to the app server, and gets a new one on the answer where it had none that holds. If home cannot be reached,
//! breaks off, or says that it cannot serve, the configured recovery acts on that very request. With two-level
//! stickiness the cookie brings the client to its app server, too.

use std::sync::Arc;

use super::{https_redirect::HttpsRedirect, location::location, own_cookie};
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
    /// Its cookie is ours,
    ours: bool,
    /// and names this app server.
    server: Option<SocketAddr>,
}

/// How sites stand at the time of a request.
struct Surroundings<'a> {
    rule: &'a SitePersistence,
    exchange: &'a Exchange,
    now: u64,
}

impl Sites for Surroundings<'_> {
    fn peer(&self, peer: &MemberId) -> Standing {
        self.rule.site.standing(peer, self.now)
    }

    fn own(&self) -> Standing {
        self.rule.site.own_standing(self.now)
    }

    fn serves_here(&self) -> bool {
        let Some(pool) = &self.rule.pool else { return true };
        self.exchange.pools().named(pool.as_str()).is_ok_and(|pool| pool.active_servers().next().is_some())
    }

    fn elsewhere(&self) -> Option<MemberId> {
        self.rule.site.peer_in_service(self.now).map(|peer| peer.id)
    }
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
                named_by(&hop.rid).into_iter().for_each(|id| request.trust_request_id(id));
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

    fn read_cookie(&self, request: &Request<'_>, now: u64) -> ReadCookie {
        let mut cookies = own_cookie::fields(request.headers()).peekable();
        let membership = &self.site.membership;
        if cookies.peek().is_none() {
            return membership.read_cookie(cookies, now);
        }
        request
            .with_connection_value(|last: &mut LastOpened| membership.read_cookie_again(cookies, now, last))
    }

    fn surroundings<'a>(&'a self, exchange: &'a Exchange) -> Surroundings<'a> {
        Surroundings { rule: self, exchange, now: exchange.clock().unix_seconds() }
    }

    /// What clients call the site of a peer.
    fn public_name(&self, peer: &MemberId) -> Option<&PublicName> {
        self.site.membership.peer(peer)?.public.as_ref()
    }

    /// The peer that the request is on its way to. A rule that ran later may have sent it elsewhere.
    fn peer_of(&self, exchange: &Exchange) -> Option<&PeerMember> {
        let peer = exchange.get::<Decided>()?.decision.peer()?;
        exchange.goes_to(&self.site.sp_pool).then(|| self.site.membership.peer(peer)).flatten()
    }

    /// Takes the site cookie off what an app server, or a peer that is to become home, gets.
    fn remove_site_cookie(&self, send: &mut RequestSend<'_>) -> RuleResult {
        own_cookie::remove(send, self.site.membership.cookie_name())
    }

    /// The `Set-Cookie` value that is due with an answer of this site.
    fn due_cookie(&self, decided: &Decided, response: &Response<'_>) -> Option<String> {
        // An error of our own makes this site nobody's home.
        let own_error = response.server().is_none() && response.status() >= 500;
        let Decision::Local { issue, .. } = decided.decision else { return None };
        let membership = &self.site.membership;
        let served_by = response.server().filter(|server| membership.can_name(*server)).or(decided.server);
        let moved = decided.ours && served_by != decided.server;
        (!own_error && (issue || moved)).then(|| {
            let now = response.clock().unix_seconds();
            self.seals.inc();
            membership.issue_cookie(now, response.random_bytes(), response.is_secure(), served_by)
        })
    }
}

/// The decision after a failure, for a request that is `resendable` or has been begun.
fn resent(decision: Decision, resendable: bool) -> Decision {
    match decision {
        Decision::Local { .. } if !resendable => Decision::Abort,
        next => next,
    }
}

/// Why a peer sends the request back, if it does.
fn refusal(response: &Response<'_>) -> Option<HomeRefusal> {
    match response.header(HOP_REFUSED_HEADER) {
        // A word that a later version knows means, too, that the peer has not served it.
        Some(word) => Some(HomeRefusal::of(word).unwrap_or(HomeRefusal::PoolDown)),
        // Nobody there has this Host any more (RFC 9110, 15.5.20), so the request was not acted on.
        None => (response.status() == 421).then_some(HomeRefusal::WrongSite),
    }
}

#[async_trait]
impl Rule for SitePersistence {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        let membership = &self.site.membership;
        let arrival = self.arrival(request);
        let from_peer = arrival == Arrival::Peer;
        let surroundings = self.surroundings(request);
        let ReadCookie { cookie, server, serial } = self.read_cookie(request, surroundings.now);
        let ours = matches!(cookie, Cookie::Ours { .. });
        if ours {
            self.site.census.saw(serial, surroundings.now);
        }
        let mut decision = decide(cookie, arrival, &surroundings, membership.recovery());
        let redirect = match (&self.redirect, decision) {
            (None, _) | (_, Decision::Refuse(_)) => None,
            // Its client speaks to the peer, whose ports are others.
            (Some(_), _) if from_peer => None,
            (Some(redirect), _) => redirect.reply(request)?,
        };
        if let Some(reply) = redirect {
            // The cookie is for the answer over TLS.
            decision = Decision::Local { outcome: decision.outcome_here(), issue: false };
            request.respond(reply);
        } else if membership.redirects() {
            let asks_for =
                |home: &MemberId| self.public_name(home).is_some_and(|name| name.is(request.host()));
            decision = decision.redirecting(asks_for);
        }
        request.insert(Decided { decision, from_peer, ours, server });
        match decision {
            Decision::Local { .. } => server.into_iter().for_each(|server| request.prefer(server)),
            Decision::Proxy { to: peer, .. } | Decision::Begin { at: peer, .. } => {
                let peer = membership.peer(&peer).ok_or_else(|| RuleError::new("the home is no peer"))?;
                request.server_of(&self.site.sp_pool, peer.addr);
            }
            Decision::Redirect { to } => {
                let home = self.public_name(&to).ok_or_else(|| RuleError::new("the home has no name"))?;
                let location = location(&home.origin(request.is_secure()), request)?;
                request.respond(Reply::new(307).header("Location", &location)?);
            }
            Decision::Abort => request.respond(home_is_away()),
            Decision::Refuse(refusal) => request.respond(refused(refusal)?),
        }
        Ok(())
    }

    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        let Some(decided) = lb.get::<Decided>().copied() else { return Ok(()) };
        if self.peer_of(lb).is_none() {
            if decided.from_peer && lb.server().is_none() {
                lb.insert(Decided { decision: Decision::Refuse(HomeRefusal::PoolDown), ..decided });
                lb.respond(refused(HomeRefusal::PoolDown)?);
            }
            return Ok(());
        }
        let next = resent(decided.decision.after_failure(&self.surroundings(lb)), lb.is_resendable());
        let decision = match next {
            Decision::Proxy { .. } if !lb.is_resendable() || lb.failures() >= MAX_TRIES => Decision::Abort,
            next => next,
        };
        lb.insert(Decided { decision, ..decided });
        match decision {
            Decision::Local { .. } => lb.reselect_here(),
            Decision::Proxy { .. } => lb.reselect(),
            _ => lb.respond(home_is_away()),
        }
        Ok(())
    }

    fn http_request_send(&self, send: &mut RequestSend<'_>) -> RuleResult {
        let membership = &self.site.membership;
        let Some(home) = self.peer_of(send) else { return self.remove_site_cookie(send) };
        if let Some(Decided { decision: Decision::Begin { .. }, .. }) = send.get() {
            self.remove_site_cookie(send)?;
        }
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
        if self.peer_of(response).is_some() {
            let refusal = refusal(response).filter(|_| response.server().is_some());
            if let Some(why) = refusal {
                let next = decided.decision.after_refusal(why, &self.surroundings(response));
                let decision = resent(next, response.is_resendable());
                response.insert(Decided { decision, ..decided });
                match decision {
                    Decision::Local { .. } => response.retry_here(),
                    Decision::Proxy { .. } => {}
                    _ => response.respond(home_is_away()),
                }
            }
            return Ok(());
        }
        match self.due_cookie(&decided, response) {
            Some(cookie) => own_cookie::hand_out(response, &cookie),
            None => Ok(()),
        }
    }

    fn http_finished(&self, finished: &mut Finished<'_>) -> RuleResult {
        if let Some(decided) = finished.get::<Decided>() {
            let decision = decided.decision;
            let sent = finished.server.is_some() && self.peer_of(finished).is_some();
            let outcome = if sent { decision.outcome() } else { decision.outcome_here() };
            self.counters.count(outcome);
            let home = match decision {
                Decision::Redirect { to } => Some(to),
                decision => decision.peer().copied().filter(|_| sent),
            };
            let home = home.and_then(|home| self.site.membership.peer(&home)).map(|peer| peer.site.clone());
            // For the access log.
            finished.insert(Ending { outcome, decision, home });
        }
        Ok(())
    }
}

/// What the site that a request came from calls it: its hop's id without the number of the attempt.
fn named_by(rid: &str) -> Option<RequestId> {
    let id = rid.rsplit_once('-').filter(|(_, attempt)| attempt.len() == 8).map_or(rid, |(id, _)| id);
    RequestId::given(id)
}

fn home_is_away() -> Reply {
    Reply::new(503).fallback_body("the site of this session is away\n")
}

/// What this site cannot serve, as its peer understands it.
fn refused(refusal: HomeRefusal) -> Result<Reply, RuleError> {
    Reply::new(refusal.status()).header(HOP_REFUSED_HEADER, refusal.as_str())
}

static HOP: HeaderName = HeaderName::from_static(HOP_HEADER);
/// RFC 8586.
static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// A home that is to be kept is asked this often before the request fails.
const MAX_TRIES: usize = 3;
