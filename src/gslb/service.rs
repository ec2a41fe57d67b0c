//! A GSLB service as one virtual service of this site sees it: who it is itself, who its peers are, and how
//! it reads and makes the cookies that name them.
//!
//! Made once when a configuration is loaded; nothing here changes afterwards. The health of peers is the SP
//! pool's, and what follows from a cookie is the policy's.
//!
//! Avi calls a member by its `cluster_uuid` and `vs_uuid`.

use std::{net::SocketAddr, sync::Arc};

use thiserror::Error;

use super::{Cookie, Drains, MemberId, SetCookie, cookie_values};
use crate::{
    config::{
        Gslb, GslbMember, GslbService, GslbSitePersistence, HmDownRecovery, MemberPort, Site,
        SitePersistenceMode, VirtualService,
    },
    names::{ClusterUuid, SiteName, VsUuid},
    site_cookie::{
        Claims, Codec, Hop, HopError, HopKeys, HopRefusal, KeyRing, KeyRingError, KeyState, LastOpened,
        Opened, Refusal, ReplayGuard, ServerTags,
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
    own_cluster: ClusterUuid,
    own_epoch: u32,
    /// The disabled members, and since when they are, Unix seconds.
    disabled: Vec<(MemberId, u64)>,
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
    /// Its site's own name and ports, where clients may be redirected to them.
    pub public: Option<PublicName>,
    pub enabled: bool,
    /// A cookie of an older epoch is expired.
    pub drain_epoch: u32,
}

/// What clients call a site that they are redirected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicName {
    pub fqdn: String,
    ports: Vec<MemberPort>,
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

        let active = options.keys.iter().find(|key| key.state == KeyState::Active);
        let active_key_id = active.expect("a key ring has an active key").kid();

        let members = service.groups.iter().flat_map(|group| &group.members);
        let others: Vec<_> =
            members.clone().filter(|member| member.cluster_uuid != own.cluster_uuid).collect();
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
            own_cluster: own.cluster_uuid.clone(),
            own_epoch: own.drain_epoch,
            disabled: members
                .filter(|member| !member.enabled)
                .map(|member| (MemberId::of(&member.cluster_uuid, &member.vs_uuid), now))
                .collect(),
            codec: Codec::new(&keys, service.uuid.as_str(), &options.name, options.domain.as_deref()),
            set_cookie: SetCookie::new(options),
            server_tags: options
                .server_tag
                .then(|| ServerTags::new(&keys, service.uuid.as_str(), servers.iter().copied())),
            service: service.clone(),
            profile: profile.clone(),
        })
    }

    /// The same after a reload: what was disabled before has been so since then.
    pub fn following(mut self, before: &Self) -> Self {
        for (member, since) in &mut self.disabled {
            *since = before.disabled_since(member).unwrap_or(*since);
        }
        self
    }

    /// The name of the site cookie.
    pub fn cookie_name(&self) -> &str {
        &self.profile.cookie.name
    }

    /// What happens to a session whose home is down.
    pub fn recovery(&self) -> HmDownRecovery {
        self.profile.recovery
    }

    /// Whether clients whose home is a peer are redirected there instead of proxied.
    pub fn redirects(&self) -> bool {
        self.service.site_persistence_mode == SitePersistenceMode::Redirect
    }

    /// A peer by its identity.
    pub fn peer(&self, id: &MemberId) -> Option<&PeerMember> {
        self.peers.iter().find(|peer| peer.id == *id)
    }

    /// Until when this site's sessions may stay, Unix seconds, if it is being emptied.
    pub fn own_until(&self, drains: &Drains) -> Option<u64> {
        self.until(&self.own, &self.own_cluster, drains)
    }

    /// The same of a peer.
    pub fn peer_until(&self, peer: &PeerMember, drains: &Drains) -> Option<u64> {
        self.until(&peer.id, &peer.cluster_uuid, drains)
    }

    fn until(&self, member: &MemberId, cluster: &ClusterUuid, drains: &Drains) -> Option<u64> {
        let grace = self.service.graceful_disable_timeout.as_secs();
        let disabled = self.disabled_since(member).map(|since| since.saturating_add(grace));
        disabled.into_iter().chain(drains.until(cluster)).min()
    }

    fn disabled_since(&self, member: &MemberId) -> Option<u64> {
        self.disabled.iter().find(|(disabled, _)| disabled == member).map(|(_, since)| *since)
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
    pub fn read_cookie<'a>(&self, fields: impl IntoIterator<Item = &'a [u8]>, now: u64) -> ReadCookie {
        self.read_cookie_again(fields, now, &mut LastOpened::default())
    }

    /// The same for a connection that may have brought the cookie before.
    pub fn read_cookie_again<'a>(
        &self,
        fields: impl IntoIterator<Item = &'a [u8]>,
        now: u64,
        last: &mut LastOpened,
    ) -> ReadCookie {
        let epoch_of = |member: &[u8; 32]| self.epoch_of(&MemberId::from(*member));
        let values = cookie_values(fields, self.cookie_name());
        let opened = match self.codec.open_best(values, now, epoch_of, last) {
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

    /// What one value of the site cookie says, for people, and whether it holds at `now`.
    pub fn inspect_cookie(&self, value: &[u8], now: u64) -> (Option<Claims>, Result<Opened, Refusal>) {
        let said = self.codec.unseal(value).ok().map(|opened| opened.claims);
        (said, self.codec.open(value, now, |member| self.epoch_of(&MemberId::from(*member))))
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
        let site = site.map(|site| site.name.clone());
        let third_party = || SiteName::from(member.vs_uuid.as_str());
        Self {
            id: MemberId::of(&member.cluster_uuid, &member.vs_uuid),
            site: site.unwrap_or_else(third_party),
            cluster_uuid: member.cluster_uuid.clone(),
            vs_uuid: member.vs_uuid.clone(),
            addr: SocketAddr::new(
                member.ip.expect("a member of a site-persistent service has an address"),
                port.port,
            ),
            enable_ssl: port.enable_ssl,
            public: member.fqdn.clone().map(|fqdn| PublicName { fqdn, ports: member.services.clone() }),
            enabled: member.enabled,
            drain_epoch: member.drain_epoch,
        }
    }
}

impl PublicName {
    /// Scheme, name and port as in a URL. A client that speaks TLS keeps it where the site has it, and so does one
    /// that does not.
    pub fn origin(&self, secure: bool) -> String {
        let fitting = self.ports.iter().find(|port| port.enable_ssl == secure);
        let MemberPort { port, enable_ssl } =
            fitting.or(self.ports.first()).expect("a member has at least one service");
        match (enable_ssl, port) {
            (true, 443) => format!("https://{}", self.fqdn),
            (true, port) => format!("https://{}:{port}", self.fqdn),
            (false, 80) => format!("http://{}", self.fqdn),
            (false, port) => format!("http://{}:{port}", self.fqdn),
        }
    }

    /// Whether a request's `Host` is this name.
    pub fn is(&self, host: &str) -> bool {
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(&self.fqdn)
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
mod tests;
