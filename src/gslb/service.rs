//! A GSLB service as one virtual service of this site sees it: who it is itself, who its peers are, and how
//! it reads and makes the cookies that name them.
//!
//! Made once when a configuration is loaded; nothing here changes afterwards. The health of peers is the SP
//! pool's, and what follows from a cookie is the policy's.
//!
//! Avi calls a member by its `cluster_uuid` and `vs_uuid`.

use std::{net::SocketAddr, sync::Arc};

use thiserror::Error;

use super::{Cookie, MemberId, SetCookie, cookie_values};
use crate::{
    config::{Gslb, GslbMember, GslbService, GslbSitePersistence, HmDownRecovery, Site, VirtualService},
    names::{ClusterUuid, SiteName, VsUuid},
    site_cookie::{
        Claims, Codec, Hop, HopError, HopKeys, HopRefusal, KeyRing, KeyRingError, KeyState, ReplayGuard,
    },
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
    /// A peer also proves itself by a certificate.
    needs_certificate: bool,
    active_key_id: String,
    own_epoch: u32,
    codec: Codec,
    set_cookie: SetCookie,
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
    /// The membership of a virtual service; `None` where it is no member, or the service is disabled or not
    /// site-persistent.
    pub fn of(vs: &VirtualService, site: &Site, gslb: &Gslb) -> Result<Option<Self>, MembershipError> {
        let (Some(own_cluster), Some(own_vs)) = (&site.cluster_uuid, &vs.uuid) else { return Ok(None) };
        for service in gslb.services.iter().filter(|service| service.enabled) {
            let Some(profile) = &service.site_persistence else { continue };
            let mut members = service.groups.iter().flat_map(|group| &group.members);
            let own = members.find(|member| member.cluster_uuid == *own_cluster && member.vs_uuid == *own_vs);
            if let Some(own) = own {
                return Self::in_service(own, service, profile, gslb).map(Some);
            }
        }
        Ok(None)
    }

    fn in_service(
        own: &GslbMember,
        service: &Arc<GslbService>,
        profile: &Arc<GslbSitePersistence>,
        gslb: &Gslb,
    ) -> Result<Self, MembershipError> {
        let options = &profile.cookie;
        let keys = KeyRing::new(options.keys.clone())
            .map_err(|source| MembershipError::Keys { profile: profile.name.clone(), source })?;
        let sites = gslb.sites.iter().map(|site| site.cluster_uuid.to_string());
        let hop = HopKeys::new(&keys, service.uuid.as_str(), own.cluster_uuid.as_str(), sites)
            .map_err(|source| MembershipError::Hop { service: service.name.to_string(), source })?;

        let active = options.keys.iter().find(|key| key.state == KeyState::Active);
        let active_key_id = active.expect("a key ring has an active key").kid();

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
            needs_certificate: tls && gslb.site_tls.as_ref().is_some_and(|site_tls| site_tls.required),
            active_key_id,
            own_epoch: own.drain_epoch,
            codec: Codec::new(&keys, service.uuid.as_str(), &options.name, options.domain.as_deref()),
            set_cookie: SetCookie::new(options),
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

    /// The id of the key that seals.
    pub fn active_key_id(&self) -> &str {
        &self.active_key_id
    }

    /// Proves a hop: its header, and where sites have certificates, that the connection's names the same site.
    /// `signed` is method, authority and path with query; `certified` the cluster that the certificate names.
    pub fn verify_hop(
        &self,
        header: &str,
        signed: (&str, &str, &str),
        certified: Option<&str>,
        now: u64,
        replay: &ReplayGuard,
    ) -> Result<Hop, HopRefusal> {
        // Before the header is looked at, so that who has only overheard it cannot use up its id.
        if self.needs_certificate && certified.is_none() {
            return Err(HopRefusal::NoCertificate);
        }
        let (method, authority, path_and_query) = signed;
        let hop = self.hop.verify(header, method, authority, path_and_query, now, replay)?;
        if self.needs_certificate && certified != Some(hop.src.as_str()) {
            return Err(HopRefusal::NoCertificate);
        }
        Ok(hop)
    }

    /// Reads the site cookie out of the `Cookie` fields of a request, at `now` (Unix seconds).
    pub fn read_cookie<'a>(&self, fields: impl IntoIterator<Item = &'a [u8]>, now: u64) -> Cookie {
        let epoch_of = |member: &[u8; 32]| self.epoch_of(&MemberId::from(*member));
        match self.codec.open_best(cookie_values(fields, self.cookie_name()), now, epoch_of) {
            None => Cookie::None,
            Some(Err(refusal)) => Cookie::Refused(refusal),
            Some(Ok(opened)) => match MemberId::from(opened.claims.member_id) {
                home if home == self.own => Cookie::Ours { stale: opened.is_stale(now) },
                home => Cookie::Peers(home),
            },
        }
    }

    /// The `Set-Cookie` value that makes this member the client's home from `now` on. `nonce` is random;
    /// `secure`: the client came over TLS.
    pub fn issue_cookie(&self, now: u64, nonce: [u8; 12], secure: bool) -> String {
        let lifetime = self.profile.cookie.timeout;
        let claims = Claims {
            member_id: *self.own.as_bytes(),
            drain_epoch: self.own_epoch,
            iat: now,
            exp: lifetime.map_or(0, |lifetime| now.saturating_add(lifetime.as_secs())),
            server_tag: [0; 8],
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

#[cfg(test)]
mod tests {
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
            Membership::of(vs, site, gslb).expect("a good federation").is_none()
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
        let error = Membership::of(&fixtures::vs(A), &fixtures::site(A), &gslb).err().expect("no active key");
        assert!(
            error.to_string().starts_with("application_persistence_profiles `gap-1`: keys: none"),
            "{error}"
        );
    }

    #[test]
    fn a_cookie_means_home_to_its_issuer_and_a_peer_to_the_others() {
        let (a, b) = (fixtures::membership(A), fixtures::membership(B));
        let cookie = value(&a.issue_cookie(NOW, [1; 12], false));
        assert_eq!(a.read_cookie([&cookie[..]], NOW), Cookie::Ours { stale: false });
        assert_eq!(b.read_cookie([&cookie[..]], NOW), Cookie::Peers(a.own));
        assert_eq!(a.read_cookie([&cookie[..]], NOW + 4 * 3600 + 1), Cookie::Ours { stale: true });
        assert_eq!(a.read_cookie([&cookie[..]], NOW + 8 * 3600), Cookie::Refused(Refusal::Expired));
        assert_eq!(a.read_cookie([&b"SID=1"[..]], NOW), Cookie::None);
        assert_eq!(a.read_cookie([&b"FOO=\xff"[..]], NOW), Cookie::Refused(Refusal::Undecryptable));
        let newer = value(&b.issue_cookie(NOW + 1, [2; 12], true));
        assert_eq!(a.read_cookie([&cookie[..], b"x=1", &newer], NOW), Cookie::Peers(b.own));
    }

    #[test]
    fn a_raised_drain_epoch_expires_older_cookies_everywhere() {
        let a = fixtures::membership(A);
        let cookie = value(&a.issue_cookie(NOW, [1; 12], false));
        for site in [A, B] {
            let drained =
                fixtures::membership_in(site, &fixtures::gslb_with(|members| members[0].drain_epoch = 1));
            assert_eq!(drained.read_cookie([&cookie[..]], NOW), Cookie::Refused(Refusal::Expired));
        }
    }

    #[test]
    fn a_member_that_left_is_nobodys_home() {
        let cookie = value(&fixtures::membership(A).issue_cookie(NOW, [1; 12], false));
        let left = fixtures::membership_in(B, &fixtures::gslb_with(|members| drop(members.remove(0))));
        assert_eq!(left.read_cookie([&cookie[..]], NOW), Cookie::Refused(Refusal::WrongService));
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
