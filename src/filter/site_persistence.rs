//! GSLB site persistence as a rule: who began at another site is served there.
//!
//! At `http_request` it proves a hop from a peer, opens the site cookie, and asks the policy. What is proxied
//! goes to the SP pool with a signed hop header; what is served here loses the cookie on its way to the app
//! server and gets a new one on the answer where it had none that holds. If home cannot be reached, or says that
//! its pool is down, the configured recovery acts on that very request.

use std::sync::Arc;

use crate::prelude::*;

/// The rule of one virtual service that is a member of a site-persistent GSLB service.
pub struct SitePersistence {
    site: SiteSetup,
    /// The virtual service's own pool; without servers up, a hop is refused.
    pool: Option<PoolName>,
    counters: Vec<(Outcome, IntCounter)>,
}

/// What was decided about one request; kept with it until it ends.
#[derive(Clone)]
struct Decided {
    outcome: Outcome,
    /// Set the cookie on the answer.
    issue: bool,
    /// The request came from a peer and was proven.
    from_peer: bool,
    /// The peer that it goes to, unless that fails.
    home: Option<Arc<PeerMember>>,
}

impl SitePersistence {
    /// The rule, if the virtual service takes part in site persistence.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        let site = setup.site?.clone();
        let (service, vs) = (site.membership.service_name().as_str(), setup.virtual_service.name.as_str());
        let counter = |outcome: Outcome| setup.metrics.sp_requests.with_label_values(&[service, vs, outcome.as_str()]);
        let counters = Outcome::ALL.iter().map(|outcome| (*outcome, counter(*outcome))).collect();
        Some(Self { pool: setup.virtual_service.pool.clone(), counters, site }.into_rule())
    }

    /// Proves that the request comes from a peer, and then believes it who the client is. `Err`: an answer.
    fn prove_hop(&self, request: &mut Request<'_>) -> Result<Hop, Reply> {
        let mut values = request.headers().get_all(HOP_HEADER).iter();
        let header = match (values.next(), values.next()) {
            (Some(header), None) => header.to_str().ok(),
            _ => None,
        };
        let now = request.clock().unix_seconds();
        let proof = header.map(|header| {
            let (method, target) = (request.method().as_str(), request.path_and_query());
            self.site.membership.verify_hop(header, method, request.host(), target, now)
        });
        match proof {
            Some(Ok(hop)) => {
                if !self.own_pool_is_up(request) {
                    return Err(refusal(HomeRefusal::PoolDown));
                }
                let secure = hop.scheme == ClientScheme::Https;
                request.trust_client(hop.client, secure, hop.tls_session.map(Vec::from));
                Ok(Hop::Proven)
            }
            Some(Err(HopRefusal::WrongSite)) => Err(refusal(HomeRefusal::WrongSite)),
            _ if self.has_been_here(request) => Ok(Hop::Loop),
            _ => Ok(Hop::None),
        }
    }

    /// Whether our own federation's mark is on a request that proves no hop.
    fn has_been_here(&self, request: &Request<'_>) -> bool {
        let own = self.site.membership.cdn_loop_token();
        let fields = request.headers().get_all(CDN_LOOP).iter().filter_map(|field| field.to_str().ok());
        fields.flat_map(|field| field.split(',')).any(|token| token.split(';').next().unwrap_or("").trim() == own)
    }

    fn own_pool_is_up(&self, exchange: &Exchange) -> bool {
        let Some(pool) = &self.pool else { return true };
        exchange.pools().named(pool.as_str()).is_ok_and(|pool| pool.active_servers().next().is_some())
    }

    /// The home site failed this request before its body was lost: what the recovery says.
    fn recover(&self, decided: &mut Decided) -> Recovery {
        match self.site.recovery() {
            HmDownRecovery::PickNewServer => {
                *decided = Decided { outcome: Outcome::Rehomed, issue: true, home: None, from_peer: false };
                Recovery::ServeHere
            }
            HmDownRecovery::AbortConnection => {
                decided.outcome = Outcome::Aborted;
                decided.home = None;
                Recovery::Abort
            }
            HmDownRecovery::ContinuePersistentServer => Recovery::KeepTrying,
        }
    }
}

/// What a request proves about where it comes from.
enum Hop {
    None,
    Proven,
    /// It has our federation's mark, and no proof.
    Loop,
}

enum Recovery {
    ServeHere,
    Abort,
    KeepTrying,
}

#[async_trait]
impl Rule for SitePersistence {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        let membership = &self.site.membership;
        let hop = match self.prove_hop(request) {
            Ok(hop) => hop,
            Err(reply) => {
                request.insert(Decided { outcome: Outcome::FromPeer, issue: false, from_peer: true, home: None });
                request.respond(reply);
                return Ok(());
            }
        };
        let now = request.clock().unix_seconds();
        let cookie = membership.open_cookie(request.cookies(membership.cookie_name()), now);
        let origin = match hop {
            Hop::None => Origin::Client,
            Hop::Proven => Origin::Peer,
            Hop::Loop => Origin::Loop,
        };
        let decision = membership.decide(origin, cookie, now, |peer| self.site.is_up(peer.addr));
        let from_peer = matches!(hop, Hop::Proven);
        match decision {
            Decision::Local { outcome, issue } => {
                request.insert(Decided { outcome, issue, from_peer, home: None });
            }
            Decision::Proxy { peer } => {
                request.server_of(&self.site.sp_pool, peer.addr);
                request.clone_none();
                request.insert(Decided { outcome: Outcome::Proxied, issue: false, from_peer, home: Some(peer) });
            }
            Decision::Abort => {
                request.insert(Decided { outcome: Outcome::Aborted, issue: false, from_peer, home: None });
                request.respond(Reply::new(503).body("the site of this session is down\n"));
            }
        }
        Ok(())
    }

    fn lb_failed(&self, lb: &mut LbEvent<'_>) -> RuleResult {
        let resendable = lb.is_resendable();
        let Some(decided) = lb.get_mut::<Decided>() else { return Ok(()) };
        if decided.home.is_none() {
            if decided.from_peer && lb.server().is_none() {
                lb.respond(refusal(HomeRefusal::PoolDown));
            }
            return Ok(());
        }
        match self.recover(decided) {
            Recovery::ServeHere if resendable => lb.reselect_default(),
            Recovery::KeepTrying if resendable && lb.failures() < MAX_TRIES => lb.reselect(),
            _ => lb.respond(Reply::new(503).body("the site of this session cannot be reached\n")),
        }
        Ok(())
    }

    fn http_request_send(&self, send: &mut RequestSend<'_>) -> RuleResult {
        let membership = &self.site.membership;
        let Some(home) = send.get::<Decided>().and_then(|decided| decided.home.clone()) else {
            let cookies = send.headers().get("cookie").and_then(|cookies| cookies.to_str().ok());
            match cookies.map(|cookies| membership.without_cookie(cookies)) {
                Some(Some(rest)) => send.set_header("cookie", &rest)?,
                Some(None) => drop(send.remove_header("cookie")),
                None => {}
            }
            return Ok(());
        };
        let fields = HopFields {
            dst: &home.cluster_uuid,
            ts: send.clock().unix_seconds(),
            rid: &format!("{}-{:08x}", send.request_id(), send.random_below(1 << 32)),
            client: send.client_ip(),
            scheme: if send.is_secure() { ClientScheme::Https } else { ClientScheme::Http },
            tls_session: send.tls_session_id().map(|id| membership.carried_session(id)),
        };
        let hop = membership.sign_hop(&fields, send.method().as_str(), send.host(), send.path_and_query())?;
        send.set_header(HOP_HEADER, &hop)?;
        send.append_header("Via", "1.1 homing")?;
        send.append_header(CDN_LOOP, membership.cdn_loop_token())
    }

    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        let refused = response.header(HOP_REFUSED_HEADER).is_some();
        let resendable = response.is_resendable();
        let from_server = response.server().is_some();
        let Some(decided) = response.get_mut::<Decided>() else { return Ok(()) };
        if decided.home.is_some() && refused && from_server {
            match self.recover(decided) {
                Recovery::ServeHere if resendable => {
                    response.retry_default();
                    return Ok(());
                }
                Recovery::ServeHere | Recovery::Abort => {
                    response.respond(Reply::new(503).body("the site of this session is down\n"));
                    return Ok(());
                }
                Recovery::KeepTrying => {}
            }
        }
        let Some(Decided { issue: true, .. }) = response.get::<Decided>() else { return Ok(()) };
        let membership = &self.site.membership;
        let now = response.clock().unix_seconds();
        let nonce = response.with_rng(|rng| {
            let mut nonce = [0; 12];
            rng.fill_bytes(&mut nonce);
            nonce
        });
        response.append_header("Set-Cookie", &membership.set_cookie(now, nonce, response.is_secure()))?;
        if let Some(private) = membership.cache_control(response.header("cache-control")) {
            response.set_header("Cache-Control", &private)?;
        }
        Ok(())
    }

    fn http_finished(&self, finished: &mut Finished<'_>) -> RuleResult {
        let Some(decided) = finished.get::<Decided>() else { return Ok(()) };
        if let Some((_, counter)) = self.counters.iter().find(|(outcome, _)| *outcome == decided.outcome) {
            counter.inc();
        }
        Ok(())
    }
}

/// What home cannot serve, as the peer understands it.
fn refusal(refusal: HomeRefusal) -> Reply {
    Reply::new(refusal.status())
        .header(HOP_REFUSED_HEADER, refusal.as_str())
        .unwrap_or_else(|_| Reply::new(refusal.status()))
}

/// RFC 8586.
const CDN_LOOP: &str = "cdn-loop";

/// A home that is to be kept is asked this often before the request fails.
const MAX_TRIES: usize = 3;
