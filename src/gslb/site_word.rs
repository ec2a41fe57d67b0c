//! What sites say of their own virtual services. Kept over reloads: of a site, what it said last counts until it says
//! something else, or nothing several times in a row.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::names::{ClusterUuid, VsUuid};

/// The words of all other sites.
#[derive(Default)]
pub struct SiteWords(Mutex<HashMap<ClusterUuid, Arc<SiteWord>>>);

/// The word of one site.
#[derive(Default)]
pub struct SiteWord {
    said: ArcSwapOption<Said>,
    /// How often it was asked in vain since.
    misses: AtomicU32,
}

/// What a site answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// It is being emptied.
    pub is_leaving: bool,
    /// Its virtual services that are members, each with the reason why it is down, if it is.
    pub virtual_services: HashMap<VsUuid, Option<String>>,
}

/// What follows for one virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Up,
    Down,
    /// Its site is being emptied.
    Leaving,
    /// Its site was asked several times and does not answer.
    Silent,
}

impl SiteWords {
    pub fn of(&self, site: &ClusterUuid) -> Arc<SiteWord> {
        self.0.lock().entry(site.clone()).or_default().clone()
    }
}

impl SiteWord {
    /// It answered.
    pub fn hear(&self, said: Said) {
        self.said.store(Some(Arc::new(said)));
        self.misses.store(0, Relaxed);
    }

    /// It did not. Whether that has just become too often.
    pub fn miss(&self) -> bool {
        self.misses.fetch_add(1, Relaxed) + 1 == PATIENCE
    }

    /// Whether it does not answer any more.
    pub fn is_silent(&self) -> bool {
        self.misses.load(Relaxed) >= PATIENCE
    }

    /// What it says of a virtual service; `None`: nothing yet.
    pub fn about(&self, vs: &VsUuid) -> Option<Word> {
        if self.is_silent() {
            return Some(Word::Silent);
        }
        let said = self.said.load();
        let said = said.as_ref()?;
        Some(match said.virtual_services.get(vs) {
            Some(None) if said.is_leaving => Word::Leaving,
            Some(None) => Word::Up,
            _ => Word::Down,
        })
    }

    /// Why it is not up, for people.
    pub fn reason(&self, vs: &VsUuid) -> Option<String> {
        match self.about(vs)? {
            Word::Up => None,
            Word::Leaving => Some("its site is being drained".into()),
            Word::Silent => Some("its site does not answer".into()),
            Word::Down => {
                let said = self.said.load();
                let why = said.as_ref().and_then(|said| said.virtual_services.get(vs).cloned());
                why.unwrap_or_else(|| Some("its site has no such virtual service at work".into()))
            }
        }
    }
}

/// So many questions in vain, and a site counts as silent. One may be lost where a site restarts.
const PATIENCE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(is_leaving: bool, why: Option<&str>) -> Said {
        let virtual_services = HashMap::from([("vs".into(), why.map(str::to_owned))]);
        Said { is_leaving, virtual_services }
    }

    #[test]
    fn the_last_word_counts_until_a_site_was_silent_several_times() {
        let words = SiteWords::default();
        let word = words.of(&"cluster-a".into());
        let vs = VsUuid::from("vs");
        assert_eq!(word.about(&vs), None, "it was not asked yet");
        for (answer, found, reason) in [
            (said(false, None), Word::Up, None),
            (said(true, None), Word::Leaving, Some("its site is being drained")),
            (said(true, Some("no server is up")), Word::Down, Some("no server is up")),
            (Said::default(), Word::Down, Some("its site has no such virtual service at work")),
            (said(false, None), Word::Up, None),
        ] {
            word.hear(answer);
            assert_eq!((word.about(&vs), word.reason(&vs).as_deref()), (Some(found), reason));
        }
        assert!(!word.miss() && !word.miss());
        assert_eq!(word.about(&vs), Some(Word::Up), "one or two may be lost");
        assert!(word.miss());
        assert!(!word.miss(), "that is no news");
        assert_eq!(words.of(&"cluster-a".into()).about(&vs), Some(Word::Silent));
        word.hear(said(false, None));
        assert_eq!(word.about(&vs), Some(Word::Up));
    }
}
