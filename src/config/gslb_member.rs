//! The members of GSLB services: which virtual service of which site each is, and where clients find it.

use std::net::IpAddr;

use super::{
    Location, SitePersistenceMode,
    gslb::PlacedMember,
    gslb_choosing::MemberAddresses,
    problem::shown,
    read::Object,
    site_redirect::{self, Persistent},
    units, words,
};
use crate::names::{ClusterUuid, VsUuid};

/// A virtual service of a GSLB service.
#[derive(Clone, Debug, PartialEq)]
pub struct GslbMember {
    /// Empty where the site is a third party's, in a service that redirects.
    pub cluster_uuid: ClusterUuid,
    /// Of a third party's site, its `fqdn`.
    pub vs_uuid: VsUuid,
    /// Absent where DNS answers with a CNAME, the `fqdn`.
    pub ip: Option<IpAddr>,
    /// What clients from outside get instead.
    pub public_ip: Option<IpAddr>,
    /// The name that leads to this site alone.
    pub fqdn: Option<String>,
    /// Never empty.
    pub services: Vec<MemberPort>,
    pub ratio: u16,
    /// The lowest first, for the algorithm `preference_order`.
    pub preference_order: u8,
    /// Instead of the site's.
    pub location: Option<Location>,
    pub enabled: bool,
    /// Raising it makes older cookies of this member expired.
    pub drain_epoch: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPort {
    pub port: u16,
    pub enable_ssl: bool,
}

impl GslbMember {
    pub(super) fn read(
        o: &mut Object<'_>,
        persistent: Option<Persistent<'_>>,
        placed: &mut Vec<PlacedMember>,
    ) -> Option<Self> {
        let fqdn = site_redirect::read_fqdn(o, persistent);
        let addresses = MemberAddresses::read(o, persistent.is_some(), fqdn.is_some());
        let identity = Self::read_identity(o, persistent, fqdn.as_deref(), &addresses);
        let services = o.required_objects("services", MemberPort::read);
        let ratio = o.field("ratio", units::whole(1..=20)).unwrap_or(1);
        let preference_order = o.field("preference_order", units::whole(1..=128)).unwrap_or(1);
        let location = o.object("location", Location::read).flatten();
        let enabled = o.field("enabled", units::flag).unwrap_or(true);
        let drain_epoch = o.field("drain_epoch", units::whole(0..=u32::MAX)).unwrap_or(0);
        let (cluster_uuid, vs_uuid) = identity?;
        let MemberAddresses { ip, public_ip } = addresses?;
        let member = Self {
            cluster_uuid,
            vs_uuid,
            ip,
            public_ip,
            fqdn,
            services,
            ratio,
            preference_order,
            location,
            enabled,
            drain_epoch,
        };
        if !member.is_third_party() {
            let redirects = persistent.is_some_and(|it| it.mode == SitePersistenceMode::Redirect);
            placed.push(PlacedMember {
                cluster_uuid: member.cluster_uuid.clone(),
                vs_uuid: member.vs_uuid.clone(),
                tls: (!member.services.is_empty())
                    .then(|| member.services.iter().any(|service| service.enable_ssl)),
                redirected_to: member.fqdn.clone().filter(|_| redirects),
                place: o.place.clone(),
            });
        }
        Some(member)
    }

    /// Which virtual service of which site it is. A third party's has neither, and is known by its name or address.
    fn read_identity(
        o: &mut Object<'_>,
        persistent: Option<Persistent<'_>>,
        fqdn: Option<&str>,
        addresses: &Option<MemberAddresses>,
    ) -> Option<(ClusterUuid, VsUuid)> {
        let ip = addresses.as_ref().and_then(|addresses| addresses.ip);
        let unnamed = !o.has("cluster_uuid") && !o.has("vs_uuid");
        let third_party = !o.has("cluster_uuid") || !o.has("vs_uuid");
        let redirects = persistent.is_some_and(|it| it.mode == SitePersistenceMode::Redirect);
        let uuids = (o.field("cluster_uuid", words::identifier), o.field("vs_uuid", words::identifier));
        let (cluster_uuid, vs_uuid) = match (persistent, ip) {
            _ if unnamed && redirects => (Some("".to_owned()), fqdn.map(str::to_owned)),
            (None, ip) if unnamed => {
                let known_by = fqdn.map(str::to_owned).or_else(|| ip.map(|ip| ip.to_string()));
                (Some("".to_owned()), known_by)
            }
            (Some(Persistent { service, .. }), Some(ip)) if third_party => {
                let what = format!(
                    "GSLB service {} has site persistence, and its member {ip} is no virtual service of a site",
                    shown(service)
                );
                let help = "name its `cluster_uuid` and `vs_uuid`, take it out, write `site_persistence_mode: \
                            redirect`, or switch site persistence off";
                o.wrong("ip", what, help);
                uuids
            }
            _ => {
                o.is_missed("cluster_uuid");
                o.is_missed("vs_uuid");
                uuids
            }
        };
        Some((ClusterUuid::from(cluster_uuid?), VsUuid::from(vs_uuid?)))
    }

    /// Whether its site is none of the federation's: clients may be redirected there, and nothing else.
    pub fn is_third_party(&self) -> bool {
        self.cluster_uuid.as_str().is_empty()
    }
}

impl MemberPort {
    fn read(o: &mut Object<'_>) -> Option<Self> {
        let port = o.required("port", units::port);
        let enable_ssl = o.field("enable_ssl", units::flag).unwrap_or(false);
        Some(Self { port: port?, enable_ssl })
    }
}
