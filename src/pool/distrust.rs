//! What requests have found out about TLS with a server: that it fails is news once in a while, and why is kept, for
//! lines about requests that fail for it later.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;

use super::Server;
use crate::clock::Episode;

/// Kept over reloads.
#[derive(Default)]
pub(super) struct Distrust {
    episode: Episode,
    why: Mutex<Option<Arc<str>>>,
}

impl Server {
    /// A request did not reach it because TLS failed. Says whether that is news, in which case it is to be found out
    /// why, anew.
    pub fn tls_failed(&self, now: Instant) -> bool {
        let Distrust { episode, why } = &self.known.distrust;
        let is_news = episode.seen(now);
        if is_news {
            *why.lock() = None;
        }
        is_news
    }

    /// This is why TLS with it fails. It is in its past from now on, too.
    pub fn explain_tls_failure(&self, why: &str, now: SystemTime) {
        *self.known.distrust.why.lock() = Some(why.into());
        let mut facts = self.known.facts.lock();
        let (state, _) = facts.verdict(false);
        facts.past.note(state, why, now);
    }

    /// Why TLS with it failed when a request found out last; `None`: it is not known, or did not fail.
    pub fn tls_failure(&self) -> Option<Arc<str>> {
        self.known.distrust.why.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        config::LbAlgorithm,
        pool::{State, fixture},
    };

    #[test]
    fn a_failure_is_news_once_and_its_reason_is_kept_until_there_is_other_news() {
        let pool = fixture::pool(LbAlgorithm::RoundRobin, &[1]);
        let (server, begin) = (&pool.servers()[0], Instant::now());
        assert!(server.tls_failed(begin));
        assert_eq!(server.tls_failure(), None);
        server.explain_tls_failure("certificate has expired", UNIX_EPOCH);
        assert!(!server.tls_failed(begin + Duration::from_secs(5)));
        assert_eq!(server.tls_failure().as_deref(), Some("certificate has expired"));
        let past: Vec<_> = server.past().into_iter().map(|change| (change.state, change.reason)).collect();
        assert_eq!(past, [(State::Up, "certificate has expired".to_owned())]);
        assert!(server.tls_failed(begin + Duration::from_secs(3600)));
        assert_eq!(server.tls_failure(), None, "it may be another one by now");
    }
}
