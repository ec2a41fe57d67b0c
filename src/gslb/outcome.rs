//! What became of a request, in one word, and how often: the words of `homing_sp_requests_total`, of logs and of
//! `show`.

use prometheus::IntCounter;

use super::Decision;
use crate::{
    metrics::Metrics,
    names::{GslbServiceName, SiteName, VsName},
    site_cookie::Refusal,
};

macro_rules! outcomes {
    ($($(#[$doc:meta])* $outcome:ident = $word:literal,)*) => {
        /// What became of a request. Every request of a site-persistent virtual service has exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $outcome,)*
        }

        impl Outcome {
            /// Every outcome, in the order of the variants.
            pub const ALL: &[Self] = &[$(Self::$outcome,)*];

            /// The word in metrics, logs and `show`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$outcome => $word,)*
                }
            }
        }
    };
}

outcomes! {
    /// No cookie: served here, which is the client's home from now on.
    New = "new",
    /// Our cookie: served here.
    Local = "local",
    /// A peer's cookie: sent home. Or no cookie, and this site takes no new sessions: sent to a peer.
    Proxied = "proxied",
    /// A peer's cookie: the client was told to go home by itself.
    Redirected = "redirected",
    /// Home was away: served here, which is the client's home from now on.
    Rehomed = "rehomed",
    /// Home was away: answered 503.
    Aborted = "aborted",
    /// It had crossed the federation before, or home's own name led here: served here.
    Loop = "loop",
    /// Cookie refused: past its lifetime or its member's drain epoch, or its home has been emptied.
    Expired = "expired",
    /// Cookie refused: sealed in the future.
    Future = "future",
    /// Cookie refused: sealed with a key that is not ours.
    UnknownKey = "unknown_key",
    /// Cookie refused: not a cookie that was ever sealed.
    Undecryptable = "undecryptable",
    /// Cookie refused: of a member that the service does not have.
    WrongService = "wrong_service",
    /// Proxied here by a peer, which counted it where it entered.
    FromPeer = "from_peer",
}

/// What the access log is told of a request.
#[derive(Clone, Debug)]
pub struct Ending {
    pub outcome: Outcome,
    pub decision: Decision,
    /// The site that it was sent to.
    pub home: Option<SiteName>,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Undecryptable => Self::Undecryptable,
            Refusal::UnknownKey => Self::UnknownKey,
            Refusal::Future => Self::Future,
            Refusal::Expired => Self::Expired,
            Refusal::WrongService => Self::WrongService,
        }
    }
}

/// The counters of one virtual service, resolved once.
#[derive(Clone)]
pub struct OutcomeCounters(Vec<IntCounter>);

impl OutcomeCounters {
    pub fn new(metrics: &Metrics, service: &GslbServiceName, vs: &VsName) -> Self {
        let counter = |outcome: &Outcome| {
            metrics.sp_requests.with_label_values(&[service.as_str(), vs.as_str(), outcome.as_str()])
        };
        Self(Outcome::ALL.iter().map(counter).collect())
    }

    /// Counts one request.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }

    /// How many requests had this outcome.
    pub fn value(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_counted_under_its_own_word() {
        for refusal in [
            Refusal::Undecryptable,
            Refusal::UnknownKey,
            Refusal::Future,
            Refusal::Expired,
            Refusal::WrongService,
        ] {
            assert_eq!(Outcome::from(refusal).as_str(), refusal.to_string());
        }
    }

    #[test]
    fn counters_are_kept_apart_by_outcome() {
        let metrics = Metrics::new();
        let counters = OutcomeCounters::new(&metrics, &"gs-1".into(), &"pay@site_A".into());
        for (times, outcome) in Outcome::ALL.iter().enumerate() {
            (0..times).for_each(|_| counters.count(*outcome));
        }
        let page = metrics.page();
        for (times, outcome) in Outcome::ALL.iter().enumerate() {
            let labels = format!(r#"outcome="{}",service="gs-1",vs="pay@site_A""#, outcome.as_str());
            assert!(page.contains(&format!("homing_sp_requests_total{{{labels}}} {times}\n")), "{labels}");
            assert_eq!(counters.value(*outcome), times as u64);
        }
    }
}
