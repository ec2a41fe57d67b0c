//! A GSLB service over all its sites: what each of them tells of itself, put together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GslbConfigured, GslbMember, GslbRuntime, OperState, OperStatus};

/// What one site tells of a GSLB service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SitePart {
    pub site_name: String,
    /// Why it is missing from the sums, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sp_oper_status: Option<OperStatus>,
    /// Requests that entered there, by what became of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction_proxied: Option<f64>,
}

/// Another site, and what it answered about itself or why it did not.
pub struct Answer {
    pub site_name: String,
    pub cluster_uuid: String,
    pub told: Result<GslbRuntime, String>,
}

impl GslbRuntime {
    /// Adds to what the site `own` tells what the others do.
    pub fn with_sites(mut self, own: &str, others: Vec<Answer>) -> Self {
        let mut parts = vec![SitePart::of(own.to_owned(), &self)];
        let mut in_sync = true;
        for Answer { site_name, cluster_uuid, told } in others {
            match told {
                Ok(told) => {
                    in_sync &= told.checksum == self.checksum;
                    self.add_members(&cluster_uuid, &told);
                    parts.push(SitePart::of(site_name, &told));
                }
                Err(why) => parts.push(SitePart::missing(site_name, why)),
            }
        }
        let all_told = parts.iter().all(|part| part.missing.is_none());
        self.services_state = match (in_sync, all_told && parts.len() > 1) {
            (false, _) => Some("Services-Out-Of-Sync".into()),
            (true, true) => Some("Services-In-Sync".into()),
            (true, false) => None,
        };
        self.requests = BTreeMap::new();
        for (outcome, count) in parts.iter().flat_map(|part| &part.requests) {
            *self.requests.entry(outcome.clone()).or_default() += count;
        }
        self.fraction_proxied = Self::fraction_proxied(&self.requests);
        self.sp_oper_status = joined(&parts).unwrap_or(self.sp_oper_status);
        self.advice = self.advice();
        self.sites = parts;
        self
    }

    /// A site knows the names and pools of its own members.
    fn add_members(&mut self, cluster_uuid: &str, told: &Self) {
        let is_its = |member: &&GslbMember| member.cluster_uuid == cluster_uuid;
        let theirs: Vec<_> = told.groups.iter().flat_map(|group| &group.members).filter(is_its).collect();
        for member in self.groups.iter_mut().flat_map(|group| &mut group.members) {
            let same =
                |it: &&&GslbMember| it.cluster_uuid == member.cluster_uuid && it.vs_uuid == member.vs_uuid;
            if let Some(it) = theirs.iter().find(same) {
                member.vs_name = it.vs_name.clone();
                member.sp_pools = it.sp_pools.clone();
            }
        }
    }

    fn advice(&self) -> Option<String> {
        let fraction = self.fraction_proxied.filter(|fraction| *fraction >= MUCH)?;
        let GslbConfigured { ttl, .. } = self.configured.as_ref()?;
        (entered(&self.requests) >= ENOUGH).then(|| {
            let ttl = humantime::format_duration(*ttl);
            format!(
                "{:.0} % of the requests cross between sites: consider a ttl above {ttl}",
                fraction * 100.0
            )
        })
    }

    /// The share of requests that were sent on, over all but those that peers sent here, to four digits.
    pub fn fraction_proxied(requests: &BTreeMap<String, u64>) -> Option<f64> {
        let proxied = requests.get(PROXIED).copied().unwrap_or(0);
        let entered = entered(requests);
        (entered > 0).then(|| (proxied as f64 / entered as f64 * 1e4).round() / 1e4)
    }
}

impl SitePart {
    fn of(site_name: String, told: &GslbRuntime) -> Self {
        Self {
            site_name,
            missing: None,
            sp_oper_status: Some(told.sp_oper_status.clone()),
            requests: told.requests.clone(),
            fraction_proxied: told.fraction_proxied,
        }
    }

    fn missing(site_name: String, why: String) -> Self {
        let missing = Some(why);
        Self { site_name, missing, sp_oper_status: None, requests: BTreeMap::new(), fraction_proxied: None }
    }
}

/// Down where one site says so, else up where one says so; what no site knows stays unknown.
fn joined(parts: &[SitePart]) -> Option<OperStatus> {
    let statuses = || parts.iter().filter_map(|part| part.sp_oper_status.as_ref());
    let first = |state| statuses().find(|status| status.state == state);
    let worst =
        first(OperState::OperDown).or_else(|| first(OperState::OperUp)).or_else(|| statuses().next())?;
    let last_changed_time = statuses().filter_map(|status| status.last_changed_time).max();
    Some(OperStatus { last_changed_time, ..worst.clone() })
}

fn entered(requests: &BTreeMap<String, u64>) -> u64 {
    requests.iter().filter(|(outcome, _)| *outcome != FROM_PEER).map(|(_, count)| count).sum()
}

/// The outcome of a request that was sent on to another site.
const PROXIED: &str = "proxied";

/// The outcome of a request that a peer sent here: it was counted where it entered.
const FROM_PEER: &str = "from_peer";

/// From this share of proxied requests on, a longer TTL is advised.
const MUCH: f64 = 0.2;

/// Of fewer requests a share says little.
const ENOUGH: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::example;

    fn requests(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(name, count)| (name.to_string(), *count)).collect()
    }

    fn told(site: &str, told: Result<GslbRuntime, String>) -> Answer {
        Answer { site_name: site.into(), cluster_uuid: format!("cluster-of-{site}"), told }
    }

    #[test]
    fn requests_from_peers_do_not_count_twice_in_the_fraction() {
        let count = |pairs: &[(&str, u64)]| GslbRuntime::fraction_proxied(&requests(pairs));
        assert_eq!(count(&[("new", 3), ("proxied", 1), ("from_peer", 96)]), Some(0.25));
        assert_eq!(count(&[("new", 2)]), Some(0.0));
        assert_eq!(count(&[("local", 2), ("proxied", 1)]), Some(0.3333));
        assert_eq!(count(&[("from_peer", 7)]), None);
        assert_eq!(count(&[]), None);
    }

    #[test]
    fn what_sites_tell_is_summed_and_each_names_its_own_members() {
        let here = example::gslb_runtime();
        let mut there = example::gslb_runtime();
        there.requests = requests(&[("new", 2), ("proxied", 6), ("from_peer", 1)]);
        there.groups[1].members[0].vs_name = Some("pay@site_B".into());
        there.groups[0].members[0].vs_name = Some("not theirs to tell".into());
        there.sp_oper_status.state = OperState::OperDown;
        let all = here.with_sites("site_A", vec![told("site_B", Ok(there))]);
        assert_eq!(all.requests, requests(&[("new", 5), ("local", 4), ("proxied", 7), ("from_peer", 10)]));
        assert_eq!(all.fraction_proxied, Some(0.4375));
        let names: Vec<_> = all.groups.iter().map(|group| group.members[0].vs_name.as_deref()).collect();
        assert_eq!(names, [Some("pay@site_A"), Some("pay@site_B")]);
        assert_eq!(all.sp_oper_status.state, OperState::OperDown, "one site is enough");
        assert_eq!(all.services_state.as_deref(), Some("Services-In-Sync"));
        assert_eq!((all.sites.len(), all.advice), (2, None), "16 requests say little");
    }

    #[test]
    fn a_site_that_does_not_answer_is_one_line() {
        let here = example::gslb_runtime();
        let all = here.clone().with_sites("site_A", vec![told("site_B", Err("connection refused".into()))]);
        assert_eq!((&all.requests, &all.sp_oper_status), (&here.requests, &here.sp_oper_status));
        assert_eq!(all.sites[1].missing.as_deref(), Some("connection refused"));
        assert_eq!(all.services_state, None, "nobody knows");
    }

    #[test]
    fn sites_with_other_files_are_out_of_sync() {
        let other = GslbRuntime { checksum: Some("other".into()), ..example::gslb_runtime() };
        let others = vec![told("site_B", Ok(other)), told("site_C", Err("away".into()))];
        let all = example::gslb_runtime().with_sites("site_A", others);
        assert_eq!(all.services_state.as_deref(), Some("Services-Out-Of-Sync"));
    }

    #[test]
    fn a_longer_ttl_is_advised_where_much_crosses() {
        for (local, proxied, advised) in [(80, 20, true), (81, 19, false), (79, 20, false), (0, 100, true)] {
            let mut here = example::gslb_runtime();
            here.requests = requests(&[("local", local), ("proxied", proxied), ("from_peer", 1000)]);
            let advice = here.with_sites("site_A", vec![]).advice;
            assert_eq!(advice.is_some(), advised, "{local} local, {proxied} proxied");
            assert!(advice.is_none_or(|advice| advice.contains("a ttl above 30s")));
        }
    }
}
