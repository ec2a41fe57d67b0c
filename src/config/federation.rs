//! The file that is the same on every site: GSLB services, and the profiles, monitors and sites they need.
//!
//! Checks here are of the federation itself, and of its members against this site's virtual services. Avi lists
//! most of them as the restrictions of site persistence.

use std::{collections::HashMap, sync::Arc};

use super::{
    Gslb, GslbService, GslbSitePersistence, HealthMonitor, Pool, Site, SiteMode, SiteRef,
    gslb::{Defined, PlacedMember, PlacedService, Referable, Unfederated},
    gslb_choosing::{self, Choosing},
    pki::PkiProfile,
    problem::{Place, Report, listed, shown},
    read::{FileKind, Object},
    site_redirect::serves,
    table::Table,
    units::written_duration,
    virtual_service::Placed,
    words,
};

/// The federation as read, with what the checks against the site need.
pub(super) struct Federation {
    /// Absent: there are no `gslb` objects.
    pub(super) gslb: Option<Gslb>,
    sites: Table<SiteRef>,
    services: Vec<PlacedService>,
    pki_profiles: Vec<PkiProfile>,
    /// Names of its persistence profiles.
    pub(super) profiles: Vec<String>,
    place: Place,
}

impl Federation {
    /// Reads the federation file; its monitors join the site's.
    pub(super) fn read(
        o: &mut Object<'_>,
        monitors: &mut Table<Arc<HealthMonitor>>,
        unfederated: &Unfederated<'_>,
        checksum: String,
    ) -> Self {
        let mut profiles = Table::new("application persistence profile");
        let mut sites = Table::new("site with cluster_uuid");
        let mut site_names = Table::new("site");
        let mut defined = Defined::default();
        let mut pki_profiles = Vec::new();
        o.each("health_monitors", |o| HealthMonitor::read(o, FileKind::Federation, monitors));
        o.each("application_persistence_profiles", |o| GslbSitePersistence::read(o, &mut profiles));
        o.each("pki_profiles", |o| pki_profiles.push(PkiProfile::read(o)));
        let head = o.object("gslb", |o| {
            let federation_id = o.required("federation_id", words::identifier).unwrap_or_default();
            let members = o.required_objects("sites", |o| SiteRef::read(o, &mut sites, &mut site_names));
            (federation_id, members, Choosing::read(o, &site_names))
        });
        let services = o.objects("gslb_services", |o| {
            o.is_federated(FileKind::Federation);
            let known = Referable { monitors, profiles: &profiles, unfederated };
            GslbService::read(o, &known, &mut defined)
        });
        if head.is_none() && !o.has("gslb") {
            let what = match first_object(o) {
                Some((kind, name)) => {
                    format!("`gslb` is missing, and federated {kind} {} needs a federation", shown(name))
                }
                None => "`gslb` is missing: federated objects need a federation".into(),
            };
            o.source.report.problem(o.place.clone(), what, "write `gslb:` with `federation_id` and `sites`");
        }
        if let Some((_, _, choosing)) = &head {
            gslb_choosing::check(o, &services, choosing);
        }
        let gslb = head.map(|(federation_id, sites, choosing)| Gslb {
            federation_id,
            sites,
            private_networks: choosing.private_networks,
            topology: choosing.topology,
            geo_database: choosing.geo_database,
            services: services.iter().map(|placed| placed.service.clone()).collect(),
            ca_certs: pki_profiles.first().and_then(|profile: &PkiProfile| profile.ca_certs.clone()),
            site_tls: None,
            checksum,
        });
        let profiles = profiles.names().map(str::to_owned).collect();
        Self { gslb, sites, services, pki_profiles, profiles, place: o.place.clone() }
    }

    /// Whether sites ask for one another over TLS.
    pub(super) fn has_tls(&self) -> bool {
        let mut persistent = self.services.iter().filter(|placed| placed.service.site_persistence.is_some());
        persistent.any(|placed| placed.members.iter().any(|member| member.tls == Some(true)))
    }

    /// The one PKI profile.
    pub(super) fn pki_profile(&self) -> Option<&PkiProfile> {
        self.pki_profiles.first()
    }

    /// Checks the members of the services against the sites, each other and this site's virtual services.
    pub(super) fn check(
        &self,
        site: (&Site, Place),
        virtual_services: &[Placed],
        pools: &[Arc<Pool>],
        report: &Report,
    ) {
        self.check_pki_profile(report);
        self.check_site(site.0, site.1, report);
        let mut seen: HashMap<_, &PlacedService> = HashMap::new();
        for placed in &self.services {
            let persistent = placed.service.site_persistence.is_some();
            if persistent {
                check_tls(placed, report);
            }
            for (n, member) in placed.members.iter().enumerate() {
                self.check_member_site(placed, member, report);
                let same_site = |other: &&PlacedMember| other.cluster_uuid == member.cluster_uuid;
                if let Some(other) = placed.members[..n].iter().find(same_site).filter(|_| persistent) {
                    let what = format!(
                        "GSLB service {} has site persistence and two members on site {}, {} and {}",
                        named(placed),
                        shown(member.cluster_uuid.as_str()),
                        shown(other.vs_uuid.as_str()),
                        shown(member.vs_uuid.as_str())
                    );
                    report.problem(member.place.clone(), what, "keep one member for each site");
                }
                let Some(first) = seen.insert((&member.cluster_uuid, &member.vs_uuid), placed) else {
                    continue;
                };
                let either_persistent = persistent || first.service.site_persistence.is_some();
                if either_persistent && !std::ptr::eq(first, placed) {
                    let what = format!(
                        "member {} is in two GSLB services, {} and {}, of which one has site persistence",
                        shown(member.vs_uuid.as_str()),
                        named(first),
                        named(placed)
                    );
                    report.problem(
                        member.place.clone(),
                        what,
                        "take it out of one, or make a virtual service for each",
                    );
                }
            }
        }
        if let Some(cluster_uuid) = &site.0.cluster_uuid {
            let with_uuid =
                virtual_services.iter().filter_map(|local| Some((local.vs.uuid.as_ref()?, local)));
            let local: HashMap<_, _> = with_uuid.collect();
            let here = |member: &&PlacedMember| member.cluster_uuid == *cluster_uuid;
            for placed in &self.services {
                for member in placed.members.iter().filter(here) {
                    let local = local.get(&member.vs_uuid).copied();
                    check_local_member(placed, member, local, report);
                    if let Some(local) = local {
                        check_patience(placed, local, pools, report);
                        check_cookies(placed, local, pools, report);
                    }
                }
            }
        }
    }

    fn check_pki_profile(&self, report: &Report) {
        let persistent = self.services.iter().find(|placed| placed.service.site_persistence.is_some());
        match (persistent, self.pki_profiles.as_slice()) {
            (Some(placed), []) => {
                let what = format!(
                    "GSLB service {} has site persistence, but there is no PKI profile",
                    named(placed)
                );
                report.problem(self.place.clone(), what, "add one federated profile under `pki_profiles`");
            }
            (_, [first, second, ..]) => {
                let (one, another) = (shown(&first.name), shown(&second.name));
                let what = format!("{another} is a second federated PKI profile, beside {one}");
                let help = "one serves every GSLB service: merge their `ca_certs` into it";
                report.problem(second.place.clone(), what, help);
            }
            _ => {}
        }
    }

    fn check_site(&self, site: &Site, place: Place, report: &Report) {
        let Some(cluster_uuid) = &site.cluster_uuid else {
            let what = "this site has no cluster_uuid, so the federation cannot know it";
            return report.problem(
                place,
                what,
                format!("write `cluster_uuid: …` under `site`; known: {}", self.known()),
            );
        };
        match self.sites.find(cluster_uuid.as_str()) {
            None => {
                let what = format!("this site, {}, is not in the federation", shown(cluster_uuid.as_str()));
                report.problem(place, what, format!("known: {}", self.known()));
            }
            Some(known) if known.name != site.name => {
                let (ours, theirs) = (shown(site.name.as_str()), shown(known.name.as_str()));
                let what = format!("this site is called {ours}, and {theirs} in the federation");
                report.problem(place, what, "use one name in both files");
            }
            Some(_) => {}
        }
    }

    fn check_member_site(&self, placed: &PlacedService, member: &PlacedMember, report: &Report) {
        match self.sites.find(member.cluster_uuid.as_str()) {
            None if self.gslb.is_some() => {
                let uuid = shown(member.cluster_uuid.as_str());
                let what = format!("a member of GSLB service {} on {uuid}, which is no site", named(placed));
                report.problem(member.place.clone(), what, format!("known: {}", self.known()));
            }
            Some(site) if site.mode == SiteMode::Passive && placed.service.site_persistence.is_some() => {
                let site = shown(site.name.as_str());
                let what = format!(
                    "GSLB service {} has site persistence and a member on site {site}, which is passive",
                    named(placed)
                );
                report.problem(member.place.clone(), what, "make the site `active`, or take the member out");
            }
            _ => {}
        }
    }

    /// The sites as help texts list them.
    fn known(&self) -> String {
        listed(self.sites.names())
    }
}

/// An object of the federation file, and what it is.
fn first_object<'a>(o: &Object<'a>) -> Option<(&'static str, &'a str)> {
    let kinds = [
        ("PKI profile", "pki_profiles"),
        ("health monitor", "health_monitors"),
        ("application persistence profile", "application_persistence_profiles"),
        ("GSLB service", "gslb_services"),
    ];
    kinds.into_iter().find_map(|(kind, key)| Some((kind, *o.names(key).first()?)))
}

fn named(placed: &PlacedService) -> String {
    shown(placed.service.name.as_str())
}

/// Peers are asked with TLS where all of them have it, and in clear where none has: with some of each, requests
/// would cross between sites in clear that came over TLS, or not at all.
fn check_tls(placed: &PlacedService, report: &Report) {
    let first = |tls: bool| placed.members.iter().find(|member| member.tls == Some(tls));
    if let (Some(with), Some(without)) = (first(true), first(false)) {
        let what = format!(
            "GSLB service {} has site persistence, and its member {} has a TLS service, but member {} has none",
            named(placed),
            shown(with.vs_uuid.as_str()),
            shown(without.vs_uuid.as_str())
        );
        let help =
            "add a service with `enable_ssl: true` to this one, or leave the others with plain services only";
        report.problem(without.place.clone(), what, help);
    }
}

/// `local`: the virtual service of this site that is the member.
fn check_local_member(
    placed: &PlacedService,
    member: &PlacedMember,
    local: Option<&Placed>,
    report: &Report,
) {
    let Some(local) = local else {
        let what = format!(
            "GSLB service {} has a member here, {}, which is no virtual service of this site",
            named(placed),
            shown(member.vs_uuid.as_str())
        );
        let help = "give the virtual service this `uuid`, or take the member out";
        return report.warning(member.place.clone(), what, help);
    };
    if let Some(fqdn) = member.redirected_to.as_deref().filter(|fqdn| !serves(&local.vs.domain_names, fqdn)) {
        let what = format!(
            "GSLB service {} redirects clients to {}, which virtual service {} does not serve",
            named(placed),
            shown(fqdn),
            shown(local.vs.name.as_str())
        );
        report.problem(local.place.clone(), what, "add it to `domain_names`");
    }
    let has = |tls: bool| local.vs.services.iter().any(|service| service.tls.is_some() == tls);
    if placed.service.site_persistence.is_some() && has(true) && has(false) && !local.vs.profile.http_to_https
    {
        let what = format!(
            "virtual service {} serves both HTTP and HTTPS, and GSLB service {} has site persistence",
            shown(local.vs.name.as_str()),
            named(placed)
        );
        let help =
            format!("set `http_to_https: true` in application profile {}", shown(&local.vs.profile.name));
        report.problem(local.place.clone(), what, help);
    }
}

/// Of two cookies with one name each would take the place of the other.
fn check_cookies(placed: &PlacedService, local: &Placed, pools: &[Arc<Pool>], report: &Report) {
    let (Some(site), Some(pool)) = (&placed.service.site_persistence, &local.vs.pool) else { return };
    let pool = pools.iter().find(|known| known.name == *pool);
    let profile = pool.and_then(|pool| pool.persistence.as_deref());
    if let Some(profile) = profile.filter(|profile| profile.cookie_name() == Some(&site.cookie.name)) {
        let what = format!(
            "its pool's persistence profile {} and {} of GSLB service {} have the same cookie, {}",
            shown(&profile.name),
            shown(&site.name),
            named(placed),
            shown(&site.cookie.name)
        );
        report.problem(local.place.clone(), what, "choose another `cookie_name` for one of them");
    }
}

/// Peers that lose patience before the home site does take a slow app for a home that is away.
fn check_patience(placed: &PlacedService, local: &Placed, pools: &[Arc<Pool>], report: &Report) {
    let (Some(profile), Some(pool)) = (&placed.service.site_persistence, &local.vs.pool) else { return };
    let pool = pools.iter().find(|known| known.name == *pool);
    if let Some(pool) = pool.filter(|pool| pool.read_timeout >= profile.home_read_timeout) {
        let what = format!(
            "pool {} may be silent for {} (`read_timeout`), and peer sites wait {} for this home",
            shown(pool.name.as_str()),
            written_duration(pool.read_timeout),
            written_duration(profile.home_read_timeout)
        );
        let help = format!("raise `home_read_timeout` of {} above it", shown(&profile.name));
        report.warning(local.place.clone(), what, help);
    }
}
