//! Why a request with a certain site cookie goes where it goes: the policy's decision, in words, and what it rests on.
//!
//! It asks what the proxy asks, of the same parts, for a request that comes from a client. Rules may decide otherwise
//! later, and `http_to_https` before.

use std::{sync::Arc, time::Duration};

use super::{
    pools::{pool_status, server_status},
    view::{Explanation, Home, OperState, OperStatus, Recovery, SiteCookie, Timestamp},
};
use crate::{
    config::Config,
    gslb::{Arrival, Cookie, Decision, MemberId, OnFailure, Sites, Standing, decide},
    pool::Pool,
    rule::SiteSetup,
    site_cookie::{Claims, Refusal},
    snapshot::{Live, VirtualService},
};

/// What becomes of a request with a site cookie: its value, or `NAME=VALUE`. `None`: no virtual service of this name is
/// enabled.
pub fn explain(live: &Live, vs: &str, cookie: &str) -> Option<Explanation> {
    let snapshot = live.snapshot();
    let vs = snapshot.virtual_service(vs)?;
    Some(explanation(vs, &snapshot.config, cookie, live.clock.unix_seconds()))
}

fn explanation(vs: &VirtualService, config: &Config, cookie: &str, now: u64) -> Explanation {
    let Some(site) = &vs.site else {
        return Explanation {
            virtual_service: vs.name().to_string(),
            gslb_service: None,
            decision: "served here".into(),
            reason: "this virtual service is in no site-persistent GSLB service: no cookie counts".into(),
            outcome: None,
            recovery: None,
            home: None,
            cookie: None,
        };
    };
    let value = cookie.split_once('=').map_or(cookie, |(_, value)| value).trim();
    Case { vs, config, site, value, now }.explanation()
}

/// A cookie at a virtual service.
struct Case<'a> {
    vs: &'a VirtualService,
    config: &'a Config,
    site: &'a SiteSetup,
    value: &'a str,
    now: u64,
}

impl Sites for Case<'_> {
    fn peer(&self, peer: &MemberId) -> Standing {
        self.site.standing(peer, self.now)
    }

    fn own(&self) -> Standing {
        self.site.own_standing(self.now)
    }

    fn serves_here(&self) -> bool {
        self.vs.pool.as_ref().is_none_or(|pool| pool.active_servers().next().is_some())
    }

    fn elsewhere(&self) -> Option<MemberId> {
        self.site.peer_in_service(self.now).map(|peer| peer.id)
    }
}

impl Case<'_> {
    fn explanation(&self) -> Explanation {
        let membership = &self.site.membership;
        let pair = format!("{}={}", membership.cookie_name(), self.value);
        let cookie = membership.read_cookie([pair.as_bytes()], self.now).cookie;
        let (said, verdict) = membership.inspect_cookie(self.value.as_bytes(), self.now);
        let home = said.and_then(|said| self.home(&MemberId::from(said.member_id)));
        let mut decision = decide(cookie, Arrival::Client, self, membership.recovery());
        if membership.redirects() {
            decision = decision.redirecting(|_| false);
        }
        Explanation {
            virtual_service: self.vs.name().to_string(),
            gslb_service: Some(membership.service.name.to_string()),
            decision: self.in_words(decision),
            reason: self.reason(cookie, verdict.err(), said.as_ref(), home.as_ref()),
            outcome: Some(decision.outcome().as_str().to_owned()),
            recovery: self.recovery(cookie),
            home,
            cookie: Some(self.cookie(said.as_ref())),
        }
    }

    fn in_words(&self, decision: Decision) -> String {
        match decision {
            Decision::Local { issue: false, .. } => "served here".into(),
            Decision::Local { issue: true, .. } => "served here, and the answer brings a new cookie".into(),
            Decision::Proxy { to, .. } => match self.site.membership.peer(&to) {
                Some(peer) => format!("proxied to {} ({})", peer.site, peer.addr),
                None => "proxied".into(),
            },
            Decision::Begin { at, .. } => match self.site.membership.peer(&at) {
                Some(peer) => {
                    format!("this site is being emptied: the session begins at {} ({})", peer.site, peer.addr)
                }
                None => "this site is being emptied: the session begins elsewhere".into(),
            },
            Decision::Redirect { to } => {
                match self.site.membership.peer(&to).and_then(|peer| peer.public.as_ref()) {
                    Some(name) => format!("redirected to {}", name.fqdn),
                    None => "redirected".into(),
                }
            }
            Decision::Abort => "answered 503".into(),
            Decision::Refuse(refusal) => format!("refused with {}", refusal.status()),
        }
    }

    fn reason(
        &self,
        cookie: Cookie,
        refusal: Option<Refusal>,
        said: Option<&Claims>,
        home: Option<&Home>,
    ) -> String {
        match (cookie, refusal, home) {
            (Cookie::Ours { stale }, ..) => {
                let stale = if stale { "; the cookie is due to be renewed" } else { "" };
                format!("this site is the client's home{stale}{}", self.own_pool_down())
            }
            (Cookie::Peers(_), _, Some(home)) => {
                let OperStatus { state, reason, .. } = &home.oper_status;
                let state = match state {
                    OperState::OperUp => "is up",
                    OperState::OperDown => "is down",
                    OperState::OperDisabled => "is disabled",
                    OperState::OperUnknown => "has not been probed, so it counts as up",
                };
                let why = reason.as_ref().filter(|_| state == "is down").map(|why| format!(": {why}"));
                format!("{} is the client's home, and {state}{}", home.site_name, why.unwrap_or_default())
            }
            (_, Some(refusal), _) => {
                let why = refusal.why(said, self.now);
                format!("the cookie is like none: {why}{}", self.own_pool_down())
            }
            _ => "there is no cookie".into(),
        }
    }

    /// Said after a reason to serve here.
    fn own_pool_down(&self) -> String {
        let down = self.vs.pool.as_ref().filter(|pool| pool.checked() && pool.up_count() == 0);
        down.map(|pool| format!("; but pool {} has no server up", pool.name())).unwrap_or_default()
    }

    fn recovery(&self, cookie: Cookie) -> Option<Recovery> {
        let Cookie::Peers(to) = cookie else { return None };
        let recovery = self.site.membership.recovery();
        let on_failure = OnFailure::from(recovery);
        let next = match on_failure {
            OnFailure::KeepTrying => "home is asked again, then answered 503".into(),
            _ => self.in_words(Decision::Proxy { to, on_failure }.after_failure(self)),
        };
        Some(Recovery { server_hm_down_recovery: recovery.as_str().into(), if_home_fails: next })
    }

    /// The member that the cookie names.
    fn home(&self, id: &MemberId) -> Option<Home> {
        let membership = &self.site.membership;
        let mut members = membership.service.groups.iter().flat_map(|group| &group.members);
        let member = members.find(|it| MemberId::of(&it.cluster_uuid, &it.vs_uuid) == *id)?;
        let mut sites = self.config.gslb.iter().flat_map(|gslb| &gslb.sites);
        let site = sites.find(|site| site.cluster_uuid == member.cluster_uuid);
        let peer = membership.peer(id).and_then(|peer| self.site.sp_pool.server(peer.addr));
        let status = match peer {
            Some(peer) => Some(probed(&self.site.sp_pool, server_status(peer))),
            None => self.vs.pool.as_ref().map(|own| probed(own, pool_status(own))),
        };
        Some(Home {
            site_name: site.map(|site| site.name.to_string()).unwrap_or_default(),
            is_this_site: *id == membership.own,
            vs_uuid: member.vs_uuid.to_string(),
            prst_hdr_val: id.to_string(),
            ip: member.ip?,
            drain_epoch: member.drain_epoch,
            oper_status: status.unwrap_or_else(|| OperStatus::new(OperState::OperUp)),
        })
    }

    fn cookie(&self, said: Option<&Claims>) -> SiteCookie {
        let key_id: String = self.value.chars().skip(TAG_LEN).take(KEY_ID_LEN).collect();
        let mut keys = self.site.membership.profile.cookie.keys.iter();
        let key = keys.find(|key| key.kid() == key_id);
        let seconds = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
        let expires = |exp: u64| match exp.checked_sub(self.now) {
            _ if exp == 0 => "never".into(),
            None | Some(0) => format!("{} ago", seconds(self.now - exp)),
            Some(left) => format!("in {}", seconds(left)),
        };
        SiteCookie {
            key_uuid: key.map(|key| key.uuid.clone()),
            key_state: key.map(|key| key.state.as_str().to_owned()),
            issued: said.map(|said| Timestamp { secs: said.iat, usecs: 0 }),
            age: said.map(|said| seconds(self.now.saturating_sub(said.iat))),
            expires: said.map(|said| expires(said.exp)),
            drain_epoch: said.map(|said| said.drain_epoch),
            key_id,
        }
    }
}

/// A state that is a guess until the first probes are answered.
fn probed(pool: &Arc<Pool>, status: OperStatus) -> OperStatus {
    if pool.checked() { status } else { OperStatus::new(OperState::OperUnknown) }
}

/// What a value begins with, see `site_cookie`: `1S`, and the id of its key.
const TAG_LEN: usize = 2;
const KEY_ID_LEN: usize = 16;
