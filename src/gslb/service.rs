//! A GSLB service as one virtual service of this site sees it: who it is itself, who its peers are, and how
//! it reads and makes the cookies that name them.
//!
//! Made once when a configuration is loaded; nothing here changes afterwards. The health of peers is the SP
//! pool's, and what follows from a cookie is the policy's.
//!
//! Avi calls a member by its `cluster_uuid` and `vs_uuid`.

use std::{net::SocketAddr, sync::Arc};

use thiserror::Error;

use super::{Cookie, Drains, GRACEFUL_DISABLE_TIMEOUT, MemberId, SetCookie, cookie_values};
use crate::{
    config::{Gslb, GslbMember, GslbService, GslbSitePersistence, HmDownRecovery, Site, VirtualService},
    names::{ClusterUuid, SiteName, VsUuid},
    site_cookie::{Claims, Codec, HopError, HopKeys, KeyRing, KeyRingError, ServerTags},
};

/// The membership of one virtual service of this site in a site-persistent GSLB service.
pub struct Membership {
    pub service: Arc<GslbService>,
    /// The profile of the service.
    pub profile: Arc<GslbSitePersistence>,
    /// This virtual service's own identity.
    pub own: MemberId,
    /// The members on other sites, each once.
    pub peers: Vec<PeerMember>,
    /// The token that marks requests of the federation in `CDN-Loop` and `Via`: `homing-<federation id>`.
    pub loop_token: String,
    /// Signs and proves hops to and from the peers.
    pub hop: HopKeys,
    own_cluster: ClusterUuid,
    own_enabled: bool,
    own_epoch: u32,
    /// When this configuration was loaded, Unix seconds: from then on, what it disables has been disabled.
    loaded_at: u64,
    codec: Codec,
    set_cookie: SetCookie,
    /// With two-level stickiness: the app servers here that cookies can name.
    server_tags: Option<ServerTags>,
}

/// What the site cookies of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadCookie {
    pub cookie: Cookie,
    /// The app server here that a cookie of ours names.
    pub server: Option<SocketAddr>,
    /// Tells a valid cookie from all others, uniformly distributed; else 0.
    pub serial: u64,
}

/// A virtual service of the same GSLB service on another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMember {
    pub id: MemberId,
    pub site: SiteName,
    pub cluster_uuid: ClusterUuid,
    pub vs_uuid: VsUuid,
    /// Where requests for it are sent: its TLS port where every peer has one, else its plain port.
    pub addr: SocketAddr,
    pub enable_ssl: bool,
    pub enabled: bool,
    /// A cookie of an older epoch is expired.
    pub drain_epoch: u32,
}

impl Membership {
    /// The membership of a virtual service, with the servers of its app, in a configuration that is loaded at `now`,
    /// Unix seconds; `None` where it is no member, or the service is disabled or not site-persistent.
    pub fn of(
        vs: &VirtualService,
        servers: &[SocketAddr],
        site: &Site,
        gslb: &Gslb,
        now: u64,
    ) -> Result<Option<Self>, MembershipError> {
        let (Some(own_cluster), Some(own_vs)) = (&site.cluster_uuid, &vs.uuid) else { return Ok(None) };
        for service in gslb.services.iter().filter(|service| service.enabled) {
            let Some(profile) = &service.site_persistence else { continue };
            let mut members = service.groups.iter().flat_map(|group| &group.members);
            let own = members.find(|member| member.cluster_uuid == *own_cluster && member.vs_uuid == *own_vs);
            if let Some(own) = own {
                return Self::in_service(own, servers, service, profile, gslb, now).map(Some);
            }
        }
        Ok(None)
    }

    fn in_service(
        own: &GslbMember,
        servers: &[SocketAddr],
        service: &Arc<GslbService>,
        profile: &Arc<GslbSitePersistence>,
        gslb: &Gslb,
        now: u64,
    ) -> Result<Self, MembershipError> {
        let options = &profile.cookie;
        let keys = KeyRing::new(options.keys.clone())
            .map_err(|source| MembershipError::Keys { profile: profile.name.clone(), source })?;
        let sites = gslb.sites.iter().map(|site| site.cluster_uuid.to_string());
        let hop = HopKeys::new(&keys, service.uuid.as_str(), own.cluster_uuid.as_str(), sites)
            .map_err(|source| MembershipError::Hop { service: service.name.to_string(), source })?;

        let members = service.groups.iter().flat_map(|group| &group.members);
        let others: Vec<_> = members.filter(|member| member.cluster_uuid != own.cluster_uuid).collect();
        // A pool speaks TLS or does not, so sites that have it on their side only are asked in clear.
        let tls = others.iter().all(|member| member.services.iter().any(|port| port.enable_ssl));
        let mut peers: Vec<PeerMember> = Vec::new();
        for member in others {
            let peer = PeerMember::new(member, tls, gslb);
            if peers.iter().all(|known| known.id != peer.id) {
                peers.push(peer);
            }
        }
        Ok(Self {
            own: MemberId::of(&own.cluster_uuid, &own.vs_uuid),
            peers,
            loop_token: format!("homing-{}", gslb.federation_id),
            hop,
            own_cluster: own.cluster_uuid.clone(),
            own_enabled: own.enabled,
            own_epoch: own.drain_epoch,
            loaded_at: now,
            codec: Codec::new(&keys, service.uuid.as_str(), &options.name, options.domain.as_deref()),
            set_cookie: SetCookie::new(options),
            server_tags: options
                .server_tag
                .then(|| ServerTags::new(&keys, service.uuid.as_str(), servers.iter().copied())),
            service: service.clone(),
            profile: profile.clone(),
        })
    }

    /// The name of the site cookie.
    pub fn cookie_name(&self) -> &str {
        &self.profile.cookie.name
    }

    /// What happens to a session whose home is down.
    pub fn recovery(&self) -> HmDownRecovery {
        self.profile.recovery
    }

    /// A peer by its identity.
    pub fn peer(&self, id: &MemberId) -> Option<&PeerMember> {
        self.peers.iter().find(|peer| peer.id == *id)
    }

    /// Until when this site's sessions may stay, Unix seconds, if it is being emptied.
    pub fn own_until(&self, drains: &Drains) -> Option<u64> {
        self.until(&self.own_cluster, self.own_enabled, drains)
    }

    /// The same of a peer.
    pub fn peer_until(&self, peer: &PeerMember, drains: &Drains) -> Option<u64> {
        self.until(&peer.cluster_uuid, peer.enabled, drains)
    }

    fn until(&self, cluster: &ClusterUuid, enabled: bool, drains: &Drains) -> Option<u64> {
        let disabled = (!enabled).then(|| self.loaded_at.saturating_add(GRACEFUL_DISABLE_TIMEOUT.as_secs()));
        disabled.into_iter().chain(drains.until(cluster)).min()
    }

    /// Reads the site cookie out of the `Cookie` fields of a request, at `now` (Unix seconds).
    pub fn read_cookie<'a>(&self, fields: impl IntoIterator<Item = &'a [u8]>, now: u64) -> ReadCookie {
        let epoch_of = |member: &[u8; 32]| self.epoch_of(&MemberId::from(*member));
        let opened = match self.codec.open_best(cookie_values(fields, self.cookie_name()), now, epoch_of) {
            None => return ReadCookie { cookie: Cookie::None, server: None, serial: 0 },
            Some(Err(refusal)) => {
                return ReadCookie { cookie: Cookie::Refused(refusal), server: None, serial: 0 };
            }
            Some(Ok(opened)) => opened,
        };
        match MemberId::from(opened.claims.member_id) {
            home if home == self.own => ReadCookie {
                cookie: Cookie::Ours { stale: opened.is_stale(now) },
                server: self.server_tags.as_ref().and_then(|tags| tags.server(&opened.claims.server_tag)),
                serial: opened.serial,
            },
            home => ReadCookie { cookie: Cookie::Peers(home), server: None, serial: opened.serial },
        }
    }

    /// Whether cookies can name this server: it is one of the app's, and there is two-level stickiness.
    pub fn can_name(&self, server: SocketAddr) -> bool {
        self.server_tags.as_ref().is_some_and(|tags| tags.tag(server) != NO_SERVER)
    }

    /// The `Set-Cookie` value that makes this member the client's home from `now` on, and `server` its app server.
    /// `nonce` is random; `secure`: the client came over TLS.
    pub fn issue_cookie(
        &self,
        now: u64,
        nonce: [u8; 12],
        secure: bool,
        server: Option<SocketAddr>,
    ) -> String {
        let tag = |server| self.server_tags.as_ref().map(|tags| tags.tag(server));
        let lifetime = self.profile.cookie.timeout;
        let claims = Claims {
            member_id: *self.own.as_bytes(),
            drain_epoch: self.own_epoch,
            iat: now,
            exp: lifetime.map_or(0, |lifetime| now.saturating_add(lifetime.as_secs())),
            server_tag: server.and_then(tag).unwrap_or(NO_SERVER),
        };
        self.set_cookie.render(&self.codec.seal(&claims, nonce), secure)
    }

    fn epoch_of(&self, id: &MemberId) -> Option<u32> {
        if *id == self.own {
            return Some(self.own_epoch);
        }
        self.peer(id).map(|peer| peer.drain_epoch)
    }
}

impl PeerMember {
    /// `tls`: prefer a TLS port, else a plain one.
    fn new(member: &GslbMember, tls: bool, gslb: &Gslb) -> Self {
        let site = gslb.sites.iter().find(|site| site.cluster_uuid == member.cluster_uuid);
        let port = member.services.iter().find(|port| port.enable_ssl == tls).or(member.services.first());
        let port = port.expect("a member has at least one service");
        Self {
            id: MemberId::of(&member.cluster_uuid, &member.vs_uuid),
            site: site.expect("a member's site is one of the federation's").name.clone(),
            cluster_uuid: member.cluster_uuid.clone(),
            vs_uuid: member.vs_uuid.clone(),
            addr: SocketAddr::new(member.ip, port.port),
            enable_ssl: port.enable_ssl,
            enabled: member.enabled,
            drain_epoch: member.drain_epoch,
        }
    }
}

/// Why a virtual service cannot take part in its GSLB service.
#[derive(Debug, Error)]
pub enum MembershipError {
    #[error("application_persistence_profiles `{profile}`: {source}")]
    Keys { profile: String, source: KeyRingError },
    #[error("gslb_services `{service}`: {source}")]
    Hop { service: String, source: HopError },
}

/// Whether a request bears a token in its `CDN-Loop` fields (RFC 8586): it has been through the federation
/// before.
pub fn carries_loop_token<'a>(fields: impl IntoIterator<Item = &'a [u8]>, token: &str) -> bool {
    fields.into_iter().flat_map(|field| field.split(|byte| *byte == b',')).any(|info| {
        let id = info.split(|byte| *byte == b';').next().unwrap_or_default();
        id.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

/// The tag of a cookie that names no server.
const NO_SERVER: [u8; 8] = [0; 8];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        gslb::fixtures::{self, A, B, C, NOW},
        site_cookie::Refusal,
    };

    fn value(set_cookie: &str) -> Vec<u8> {
        set_cookie.split(';').next().expect("a pair").as_bytes().to_vec()
    }

    #[test]
    fn a_member_knows_itself_and_its_peers() {
        let membership = fixtures::membership(A);
        assert_eq!(membership.own, MemberId::of(&A.cluster.into(), &A.vs.into()));
        let peers: Vec<_> = membership.peers.iter().map(|peer| (peer.site.as_str(), peer.id)).collect();
        assert_eq!(
            peers,
            [
                ("site_B", MemberId::of(&B.cluster.into(), &B.vs.into())),
                ("site_C", MemberId::of(&C.cluster.into(), &C.vs.into())),
            ]
        );
        let b = membership.peer(&peers[0].1).expect("a peer");
        assert_eq!((b.addr.to_string().as_str(), b.enable_ssl, b.enabled), ("127.0.0.12:18100", false, true));
        let c = membership.peer(&peers[1].1).expect("a peer");
        assert_eq!(
            (c.addr.to_string().as_str(), c.enable_ssl, c.enabled),
            ("127.0.0.13:18100", false, false)
        );
        assert_eq!(membership.peer(&membership.own), None);
        assert_eq!(membership.loop_token, "homing-demo");
    }

    #[test]
    fn a_virtual_service_outside_of_a_persistent_service_has_no_membership() {
        let none = |vs: &VirtualService, site: &Site, gslb: &Gslb| {
            Membership::of(vs, &[], site, gslb, NOW).expect("a good federation").is_none()
        };
        let (vs, site, gslb) = (fixtures::vs(A), fixtures::site(A), fixtures::gslb());
        assert!(!none(&vs, &site, &gslb));
        assert!(none(&VirtualService { uuid: None, ..vs.clone() }, &site, &gslb));
        assert!(none(&fixtures::vs(B), &site, &gslb), "another site's virtual service");
        assert!(none(&vs, &Site { cluster_uuid: None, ..site.clone() }, &gslb));
        let changed = |change: fn(&mut GslbService)| {
            let mut service = (*fixtures::gslb().services[0]).clone();
            change(&mut service);
            Gslb { services: vec![Arc::new(service)], ..fixtures::gslb() }
        };
        assert!(none(&vs, &site, &changed(|service| service.enabled = false)));
        assert!(none(&vs, &site, &changed(|service| service.site_persistence = None)));
    }

    #[test]
    fn keys_that_make_no_ring_are_an_error_that_names_the_profile() {
        let mut gslb = fixtures::gslb();
        let mut service = (*gslb.services[0]).clone();
        let mut profile = (**service.site_persistence.as_ref().expect("it is persistent")).clone();
        profile.cookie.keys.clear();
        service.site_persistence = Some(Arc::new(profile));
        gslb.services = vec![Arc::new(service)];
        let error = Membership::of(&fixtures::vs(A), &[], &fixtures::site(A), &gslb, NOW)
            .err()
            .expect("no active key");
        assert!(
            error.to_string().starts_with("application_persistence_profiles `gap-1`: keys: none"),
            "{error}"
        );
    }

    #[test]
    fn a_cookie_means_home_to_its_issuer_and_a_peer_to_the_others() {
        let (a, b) = (fixtures::membership(A), fixtures::membership(B));
        let cookie = value(&a.issue_cookie(NOW, [1; 12], false, None));
        assert_eq!(a.read_cookie([&cookie[..]], NOW).cookie, Cookie::Ours { stale: false });
        assert_eq!(b.read_cookie([&cookie[..]], NOW).cookie, Cookie::Peers(a.own));
        assert_eq!(a.read_cookie([&cookie[..]], NOW + 4 * 3600 + 1).cookie, Cookie::Ours { stale: true });
        assert_eq!(a.read_cookie([&cookie[..]], NOW + 8 * 3600).cookie, Cookie::Refused(Refusal::Expired));
        assert_eq!(a.read_cookie([&b"SID=1"[..]], NOW).cookie, Cookie::None);
        assert_eq!(a.read_cookie([&b"FOO=\xff"[..]], NOW).cookie, Cookie::Refused(Refusal::Undecryptable));
        let newer = value(&b.issue_cookie(NOW + 1, [2; 12], true, None));
        assert_eq!(a.read_cookie([&cookie[..], b"x=1", &newer], NOW).cookie, Cookie::Peers(b.own));
    }

    #[test]
    fn a_raised_drain_epoch_expires_older_cookies_everywhere() {
        let a = fixtures::membership(A);
        let cookie = value(&a.issue_cookie(NOW, [1; 12], false, None));
        for site in [A, B] {
            let drained =
                fixtures::membership_in(site, &fixtures::gslb_with(|members| members[0].drain_epoch = 1));
            assert_eq!(drained.read_cookie([&cookie[..]], NOW).cookie, Cookie::Refused(Refusal::Expired));
        }
    }

    #[test]
    fn a_member_that_left_is_nobodys_home() {
        let cookie = value(&fixtures::membership(A).issue_cookie(NOW, [1; 12], false, None));
        let left = fixtures::membership_in(B, &fixtures::gslb_with(|members| drop(members.remove(0))));
        assert_eq!(left.read_cookie([&cookie[..]], NOW).cookie, Cookie::Refused(Refusal::WrongService));
    }

    #[test]
    fn a_disabled_member_keeps_its_sessions_for_a_minute_and_a_drain_may_end_it_sooner() {
        let (a, b) = (fixtures::membership(A), fixtures::membership(B));
        let drains = Drains::default();
        let of_c = |membership: &Membership, drains: &Drains| {
            membership.peer_until(membership.peers.last().expect("site_C"), drains)
        };
        assert_eq!(a.own_until(&drains), None);
        assert_eq!(of_c(&a, &drains), Some(NOW + 60), "it is disabled since the configuration was loaded");
        assert_eq!(fixtures::membership(C).own_until(&drains), Some(NOW + 60));
        drains.drain(&C.cluster.into(), NOW, Duration::from_secs(30));
        drains.drain(&A.cluster.into(), NOW, Duration::from_secs(90));
        assert_eq!((of_c(&a, &drains), a.own_until(&drains)), (Some(NOW + 30), Some(NOW + 90)));
        assert_eq!((of_c(&b, &drains), b.own_until(&drains)), (Some(NOW + 30), None));
    }

    #[test]
    fn with_server_tags_a_cookie_names_the_app_server_to_its_home_alone() {
        let gslb = gslb_with_server_tags();
        let servers: [SocketAddr; 2] = [([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()];
        let membership = |site, servers: &[SocketAddr]| {
            let (vs, site) = (fixtures::vs(site), fixtures::site(site));
            let membership = Membership::of(&vs, servers, &site, &gslb, NOW);
            membership.expect("a good federation").expect("a member")
        };
        let (a, b) = (membership(A, &servers), membership(B, &servers));
        let read = |membership: &Membership, cookie: &str| membership.read_cookie([&*value(cookie)], NOW);
        let cookie = a.issue_cookie(NOW, [1; 12], false, Some(servers[1]));
        assert_eq!(read(&a, &cookie).server, Some(servers[1]));
        assert_eq!((read(&b, &cookie).cookie, read(&b, &cookie).server), (Cookie::Peers(a.own), None));
        assert_eq!(read(&membership(A, &servers[..1]), &cookie).server, None, "the server is gone");
        assert_eq!(read(&fixtures::membership(A), &cookie).server, None, "the option is off");
        let stranger = ([10, 0, 0, 3], 80).into();
        assert!(a.can_name(servers[0]) && !a.can_name(stranger));
        assert_eq!(read(&a, &a.issue_cookie(NOW, [2; 12], false, Some(stranger))).server, None);
        assert!(!fixtures::membership(A).can_name(servers[0]));
    }

    fn gslb_with_server_tags() -> Gslb {
        let mut service = (*fixtures::gslb().services[0]).clone();
        let mut profile = (**service.site_persistence.as_ref().expect("it is persistent")).clone();
        profile.cookie.server_tag = true;
        service.site_persistence = Some(Arc::new(profile));
        Gslb { services: vec![Arc::new(service)], ..fixtures::gslb() }
    }

    #[test]
    fn the_loop_token_is_found_among_others() {
        for (fields, found) in [
            (&["homing-demo"][..], true),
            (&["other, Homing-Demo;v=1"], true),
            (&["other", "x;y=homing-demo , homing-demo ; a"], true),
            (&["homing-demo2", "x homing-demo", "x;homing-demo"], false),
            (&[""], false),
            (&[], false),
        ] {
            let fields = || fields.iter().map(|field| field.as_bytes());
            assert_eq!(
                carries_loop_token(fields(), "homing-demo"),
                found,
                "{:?}",
                fields().collect::<Vec<_>>()
            );
        }
    }
}
