//! Looks after the keys of the site cookies while homing runs, and says once what an operator should do.

use std::{
    collections::{BTreeSet, HashSet},
    time::SystemTime,
};

use crate::{config::Gslb, metrics::Metrics, site_cookie::KeyConcern};

/// What has been said so far. It outlives configurations, so that a reload repeats nothing.
#[derive(Debug, Default)]
pub struct KeyWatch {
    told: HashSet<(String, KeyConcern)>,
    /// The keys on the metrics page, by their ids.
    shown: BTreeSet<String>,
}

impl KeyWatch {
    /// Looks at every key: sets the metrics, and logs a concern that is new. Returns how many are.
    pub fn look(&mut self, gslb: Option<&Gslb>, metrics: &Metrics, now: SystemTime) -> usize {
        let mut new = 0;
        let mut here = BTreeSet::new();
        for (profile, key) in gslb.iter().flat_map(|gslb| gslb.site_cookie_keys()) {
            let kid = key.kid();
            let seals = metrics.site_cookie_seals.with_label_values(&[&kid]).get();
            for concern in KeyConcern::ALL {
                let caused = key.causes(concern, seals, now);
                let gauge =
                    metrics.site_cookie_key_concerns.with_label_values(&[kid.as_str(), concern.as_str()]);
                gauge.set(caused.into());
                if !caused {
                    self.told.remove(&(kid.clone(), concern));
                } else if self.told.insert((kid.clone(), concern)) {
                    new += 1;
                    tracing::warn!(profile = %profile.name, key = kid, "site cookie key: {concern}");
                }
            }
            here.insert(kid);
        }
        for gone in self.shown.difference(&here) {
            for concern in KeyConcern::ALL {
                // That it is not there any more is not worth an error.
                let labels = [gone.as_str(), concern.as_str()];
                let _ = metrics.site_cookie_key_concerns.remove_label_values(&labels);
            }
            self.told.retain(|(kid, _)| kid != gone);
        }
        self.shown = here;
        new
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        clock::Clock,
        config::GslbSitePersistence,
        gslb::fixtures::{self, NOW},
        site_cookie::{Key, KeyFile},
    };

    const KID: &str = "509ceebd-0913-4a";
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// The tests' federation; `change` what its key is like.
    fn gslb(change: impl FnOnce(&mut Key)) -> Gslb {
        let mut gslb = fixtures::gslb();
        let service = Arc::make_mut(&mut gslb.services[0]);
        let mut profile = GslbSitePersistence::clone(service.site_persistence.as_ref().expect("it has one"));
        change(&mut profile.cookie.keys[0]);
        service.site_persistence = Some(Arc::new(profile));
        gslb
    }

    fn concern(metrics: &Metrics, concern: &str) -> i64 {
        metrics.site_cookie_key_concerns.with_label_values(&[KID, concern]).get()
    }

    #[test]
    fn a_concern_is_told_once_and_shown_for_as_long_as_it_lasts() {
        let (clock, metrics) = (Clock::virtual_at(Duration::from_secs(NOW)), Metrics::new());
        let mut watch = KeyWatch::default();
        let aging = gslb(|key| key.file.modified = Some(clock.wall()));
        assert_eq!(watch.look(Some(&aging), &metrics, clock.wall()), 0);
        assert_eq!(concern(&metrics, "age"), 0);
        clock.advance(8 * DAY);
        assert_eq!(watch.look(Some(&aging), &metrics, clock.wall()), 1);
        assert_eq!(watch.look(Some(&aging), &metrics, clock.wall()), 0, "once");
        assert_eq!(concern(&metrics, "age"), 1);
        metrics.site_cookie_seals.with_label_values(&[KID]).inc_by((1 << 31) + 1);
        assert_eq!(watch.look(Some(&aging), &metrics, clock.wall()), 1, "another concern is told too");
        let fresh = gslb(|key| key.file = KeyFile { modified: Some(clock.wall()), used_by_others: true });
        assert_eq!(watch.look(Some(&fresh), &metrics, clock.wall()), 1);
        let shown = ["age", "seals", "file_mode"].map(|word| concern(&metrics, word));
        assert_eq!(shown, [0, 1, 1]);
        assert_eq!(watch.look(Some(&aging), &metrics, clock.wall()), 1, "what came back is told again");
    }

    #[test]
    fn a_key_that_is_gone_leaves_the_metrics_page() {
        let metrics = Metrics::new();
        let mut watch = KeyWatch::default();
        watch.look(Some(&fixtures::gslb()), &metrics, SystemTime::UNIX_EPOCH);
        assert!(metrics.page().contains("homing_site_cookie_key_concerns{"));
        watch.look(None, &metrics, SystemTime::UNIX_EPOCH);
        assert!(!metrics.page().contains("homing_site_cookie_key_concerns{"), "{}", metrics.page());
    }
}
