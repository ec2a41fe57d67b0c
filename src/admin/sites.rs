//! The sites of the federation: how many sessions have their home here, and emptying a site.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::view::{DrainState, Site, Timestamp};
use crate::{
    config,
    names::{ClusterUuid, same_name},
    rule::SiteSetup,
    snapshot::{Live, Snapshot},
};

/// Every site, in the order of the federation's file.
pub(super) fn sites(live: &Live) -> Vec<Site> {
    let snapshot = live.snapshot();
    let Some(gslb) = &snapshot.config.gslb else { return Vec::new() };
    gslb.sites.iter().map(|site| view(site, live, &snapshot)).collect()
}

/// Empties a site, of which sessions may stay for `how_long`; `None`: there is no such site.
pub(super) fn drain(live: &Live, name: &str, how_long: Duration) -> Option<Site> {
    let (snapshot, site) = find(live, name)?;
    live.drains.drain(&site.cluster_uuid, live.clock.unix_seconds(), how_long);
    let how_long = humantime::format_duration(how_long).to_string();
    tracing::info!(site = site.name.as_str(), how_long, "site is being drained");
    Some(view(&site, live, &snapshot))
}

/// Puts a site into service again; `None`: there is no such site.
pub(super) fn undrain(live: &Live, name: &str) -> Option<Site> {
    let (snapshot, site) = find(live, name)?;
    if live.drains.undrain(&site.cluster_uuid) {
        tracing::info!(site = site.name.as_str(), "site is in service again");
    }
    Some(view(&site, live, &snapshot))
}

/// How far a member has been emptied, and its deadline; `None`: it is in service.
pub(super) fn progress(until: Option<u64>, now: u64) -> Option<(DrainState, Timestamp)> {
    let until = until?;
    let state = if now < until { DrainState::Draining } else { DrainState::Drained };
    Some((state, (UNIX_EPOCH + Duration::from_secs(until)).into()))
}

fn find(live: &Live, name: &str) -> Option<(Arc<Snapshot>, config::SiteRef)> {
    let snapshot = live.snapshot();
    let sites = &snapshot.config.gslb.as_ref()?.sites;
    let site = sites.iter().find(|site| same_name(site.name.as_str(), name))?.clone();
    Some((snapshot, site))
}

fn view(site: &config::SiteRef, live: &Live, snapshot: &Snapshot) -> Site {
    let now = live.clock.unix_seconds();
    let is_own = is_own(&site.cluster_uuid, snapshot);
    let progress = progress(live.drains.until(&site.cluster_uuid), now);
    Site {
        name: site.name.to_string(),
        cluster_uuid: site.cluster_uuid.to_string(),
        is_own,
        drain_state: progress.map_or(DrainState::InService, |(state, _)| state),
        drain_until: progress.map(|(_, until)| until),
        pinned_sessions: is_own.then(|| members(snapshot).map(|member| member.census.sessions(now)).sum()),
    }
}

fn is_own(cluster: &ClusterUuid, snapshot: &Snapshot) -> bool {
    snapshot.config.site.cluster_uuid.as_ref() == Some(cluster)
}

fn members(snapshot: &Snapshot) -> impl Iterator<Item = &SiteSetup> {
    snapshot.virtual_services.iter().filter_map(|vs| vs.site.as_ref())
}
