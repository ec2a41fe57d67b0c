//! What is remembered of members over reloads, and, where a file is configured, over restarts: who was down, and who
//! waits for an operator since.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use crate::names::{ClusterUuid, GslbServiceUuid, VsUuid};

/// Which member of which service.
pub type MemoryKey = (GslbServiceUuid, ClusterUuid, VsUuid);

/// The memories of all members.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<MemoryKey, Arc<Memory>>>);

/// What is remembered of one member.
#[derive(Debug, Default)]
pub struct Memory {
    /// It was down before the start, and nobody has heard of it since.
    assumed_down: AtomicBool,
    /// It was down when somebody looked last.
    down: AtomicBool,
    held: AtomicBool,
}

/// What has become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    WentDown,
    CameUp,
}

impl Memories {
    pub fn of(&self, member: &MemoryKey) -> Arc<Memory> {
        self.0.lock().entry(member.clone()).or_default().clone()
    }

    /// Forgets members that are no more.
    pub fn keep(&self, members: &HashSet<MemoryKey>) {
        self.0.lock().retain(|member, _| members.contains(member));
    }
}

impl Memory {
    /// A member as it was before a restart.
    pub fn restore(&self, down: bool, held: bool) {
        self.assumed_down.store(down, Relaxed);
        self.down.store(down, Relaxed);
        self.held.store(held, Relaxed);
    }

    /// It was down before the start, and nothing was found out since.
    pub fn is_assumed_down(&self) -> bool {
        self.assumed_down.load(Relaxed)
    }

    /// Its monitors or its site have had their say.
    pub fn is_known(&self) {
        self.assumed_down.store(false, Relaxed);
    }

    /// It was down when somebody looked last.
    pub fn was_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// It waits for an operator.
    pub fn is_held(&self) -> bool {
        self.held.load(Relaxed)
    }

    /// Takes note of how it stands now. `holds`: a member that was down waits for an operator.
    pub fn look(&self, down: bool, holds: bool) -> Option<Change> {
        let was_down = self.down.swap(down, Relaxed);
        self.held.store(holds && (down || self.is_held()), Relaxed);
        match (was_down, down) {
            (false, true) => Some(Change::WentDown),
            (true, false) => Some(Change::CameUp),
            _ => None,
        }
    }

    /// An operator lets it have clients again; whether it waited for that. One that is down still waits afterwards.
    pub fn resume(&self) -> bool {
        self.held.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_was_down_waits_for_an_operator_where_it_should() {
        let memory = Memory::default();
        assert_eq!((memory.look(false, true), memory.is_held()), (None, false));
        assert_eq!((memory.look(true, true), memory.is_held()), (Some(Change::WentDown), true));
        assert_eq!((memory.look(false, true), memory.is_held()), (Some(Change::CameUp), true));
        assert_eq!((memory.look(false, true), memory.is_held()), (None, true));
        assert!(memory.resume() && !memory.resume());
        assert_eq!((memory.look(false, true), memory.is_held()), (None, false));
        memory.look(true, true);
        assert_eq!((memory.look(false, false), memory.is_held()), (Some(Change::CameUp), false));
    }

    #[test]
    fn what_was_before_a_restart_holds_until_something_is_found_out() {
        let memories = Memories::default();
        let key = ("gs".into(), "cluster".into(), "vs".into());
        memories.of(&key).restore(true, true);
        let memory = memories.of(&key);
        assert!(memory.is_assumed_down() && memory.was_down() && memory.is_held());
        memory.is_known();
        assert!(!memory.is_assumed_down() && memory.was_down());
        memories.keep(&HashSet::new());
        assert!(!memories.of(&key).was_down(), "it left and came anew");
    }
}
