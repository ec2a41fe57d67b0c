//! How a member of a GSLB service stands, as far as one site knows, and which sites an operator is emptying.
//!
//! A site is emptied before it is worked on: until a deadline its sessions go on while new ones start elsewhere, then
//! its sessions are re-homed. `homing gslb drain` does it while running, `enabled: false` in the federation's file
//! does it with its `graceful_disable_timeout`.
//!
//! Who knows of it, and for how long:
//!
//! | | known to | survives a reload | survives a restart |
//! |---|---|---|---|
//! | `homing gslb drain` | the node that was told; peers learn of the deadline by being refused | yes | no |
//! | `enabled: false` | every node that has loaded the file | yes, with the time since when | yes; its time begins anew |
//! | a raised `drain_epoch` | every node that has loaded the file | yes | yes |
//!
//! So a command is for work on a site that ends with its nodes being started again; what is to last, or to hold on
//! every node at once, belongs into the federation's file.
//!
//! BIG-IP says "disabled" for a member that keeps its persistent sessions, Avi "graceful disable".

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::names::ClusterUuid;

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Takes sessions and keeps them.
    InService,
    /// Keeps its sessions until a deadline and takes no new ones.
    Leaving,
    /// Its sessions begin anew elsewhere: its cookies are void.
    Left,
    /// Its monitors say that it is down.
    Down,
}

/// What the standing of a member depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its monitors have not failed; a disabled member has none.
    pub is_up: bool,
    /// Until when its sessions may stay, Unix seconds; `None`: nobody empties it.
    pub until: Option<u64>,
}

impl Standing {
    /// The standing of a member at `now`, Unix seconds. Whoever has left has left, up or not.
    pub fn of(facts: Facts, now: u64) -> Self {
        match facts.until {
            Some(until) if now >= until => Self::Left,
            _ if !facts.is_up => Self::Down,
            Some(_) => Self::Leaving,
            None => Self::InService,
        }
    }
}

/// The sites that are being emptied by command; of one process, over reloads. Asked at every request, so asking
/// takes no lock.
#[derive(Default)]
pub struct Drains(ArcSwap<HashMap<ClusterUuid, u64>>);

impl Drains {
    /// Empties a site: its sessions may stay for `how_long` from `now` on, Unix seconds. Returns the deadline. Once
    /// more is another deadline.
    pub fn drain(&self, site: &ClusterUuid, now: u64, how_long: Duration) -> u64 {
        let until = now.saturating_add(how_long.as_secs());
        self.drain_until(site, until);
        until
    }

    /// The same until a deadline, Unix seconds.
    pub fn drain_until(&self, site: &ClusterUuid, until: u64) {
        self.change(|drains| {
            drains.insert(site.clone(), until);
        });
    }

    /// The sites that are being emptied, and until when.
    pub fn all(&self) -> Vec<(ClusterUuid, u64)> {
        self.0.load().iter().map(|(site, until)| (site.clone(), *until)).collect()
    }

    /// Puts a site into service again; whether it was being emptied. Cookies that have not been replaced meanwhile
    /// are good again.
    pub fn undrain(&self, site: &ClusterUuid) -> bool {
        let was_drained = self.until(site).is_some();
        self.change(|drains| {
            drains.remove(site);
        });
        was_drained
    }

    /// Until when the sessions of a site may stay, Unix seconds; `None`: it is not being emptied.
    pub fn until(&self, site: &ClusterUuid) -> Option<u64> {
        self.0.load().get(site).copied()
    }

    fn change(&self, change: impl Fn(&mut HashMap<ClusterUuid, u64>)) {
        self.0.rcu(|drains| {
            let mut changed = HashMap::clone(drains);
            change(&mut changed);
            Arc::new(changed)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_keeps_its_sessions_until_the_deadline_and_is_left_from_then_on() {
        use Standing::{Down, InService, Leaving, Left};
        for (is_up, until, now, standing) in [
            (true, None, 100, InService),
            (false, None, 100, Down),
            (true, Some(200), 199, Leaving),
            (true, Some(200), 200, Left),
            (false, Some(200), 199, Down),
            (false, Some(200), 200, Left),
        ] {
            assert_eq!(Standing::of(Facts { is_up, until }, now), standing, "{is_up} {until:?} {now}");
        }
    }

    #[test]
    fn sites_are_drained_one_by_one_and_the_last_word_counts() {
        let (a, b) = (ClusterUuid::from("cluster-a"), ClusterUuid::from("cluster-b"));
        let drains = Drains::default();
        assert_eq!(drains.until(&a), None);
        assert_eq!(drains.drain(&a, 1000, Duration::from_secs(60)), 1060);
        assert_eq!((drains.until(&a), drains.until(&b)), (Some(1060), None));
        drains.drain(&a, 1001, Duration::ZERO);
        assert_eq!(drains.until(&a), Some(1001));
        assert!(drains.undrain(&a));
        assert!(!drains.undrain(&a), "nothing is left to undo");
        assert_eq!(drains.until(&a), None);
    }
}
