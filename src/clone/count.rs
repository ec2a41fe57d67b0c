//! What became of every copy. Each request of a virtual service with a clone ends in exactly one of: skipped,
//! dropped, answered, unanswered, failed, truncated.

use std::{net::SocketAddr, sync::Arc};

use prometheus::IntCounter;

use crate::metrics::Metrics;

macro_rules! reasons {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$what])* $variant,)* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in metrics and logs.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    /// Why a request was not meant to be copied.
    pub enum SkipReason {
        /// Its session is not in the sample.
        SampledOut = "sampled_out",
        /// A rule, or what the clone section says, excludes it.
        Filtered = "filtered",
        /// It was sent to its home site, which copies it.
        Proxied = "proxied",
        /// It is a copy itself.
        Loop = "loop",
        /// It asks for another protocol, whose bytes are not copied.
        Upgrade = "upgrade",
    }
}

reasons! {
    /// Why a copy never left.
    pub enum DropReason {
        /// The bytes that may wait are used up.
        Budget = "budget",
        /// The member could not be reached.
        Connect = "connect",
        /// Connections to the member ended again and again before an answer.
        Stalled = "stalled",
        /// Too many bodies are streamed to the member already.
        Streams = "streams",
        /// The client went away before the request's end.
        ClientAborted = "client_aborted",
        /// No member is up.
        NoServer = "no_server",
        /// The server is not a member of the pool.
        UnknownServer = "unknown_server",
        /// The member could be reached, but TLS with it could not be made.
        Tls = "tls",
        /// Its host or target cannot be written in HTTP/1.1.
        Malformed = "malformed",
    }
}

reasons! {
    /// Why a copy that left was not answered, or did not leave whole.
    pub(super) enum Loss {
        /// The member closed or reset the connection.
        Closed = "closed",
        /// The member reset the copy's HTTP/2 stream.
        Reset = "reset",
        AnswerTimeout = "answer_timeout",
        WriteTimeout = "write_timeout",
        /// The answer is not HTTP/1.
        NotHttp = "not_http",
        /// An answer came that nothing asked for, or before its request was whole.
        UnexpectedAnswer = "unexpected_answer",
        ClientAborted = "client_aborted",
        Budget = "budget",
    }
}

/// How a copy that left ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    /// Answered, but its body was cut.
    Truncated,
    /// Sent whole, and the connection ended first.
    Unanswered(Loss),
    /// Not sent whole.
    Failed(Loss),
}

/// Counters of one clone section, resolved once.
pub(super) struct PoolCounts {
    dropped: Vec<IntCounter>,
    skipped: Vec<IntCounter>,
}

impl PoolCounts {
    pub fn new(metrics: &Metrics, vs: &str, pool: &str) -> Arc<Self> {
        let dropped =
            |reason: &DropReason| metrics.clone_dropped.with_label_values(&[vs, pool, reason.as_str()]);
        let skipped =
            |reason: &SkipReason| metrics.clone_skipped.with_label_values(&[vs, pool, reason.as_str()]);
        Arc::new(Self {
            dropped: DropReason::ALL.iter().map(dropped).collect(),
            skipped: SkipReason::ALL.iter().map(skipped).collect(),
        })
    }

    pub fn dropped(&self, reason: DropReason, copies: usize) {
        self.dropped[reason as usize].inc_by(copies as u64);
    }

    pub fn skipped(&self, reason: SkipReason) {
        self.skipped[reason as usize].inc();
    }
}

/// Counters of one member, resolved once.
pub(super) struct MemberCounts {
    answered: IntCounter,
    truncated: IntCounter,
    unanswered: Vec<IntCounter>,
    failed: Vec<IntCounter>,
}

impl MemberCounts {
    pub fn new(metrics: &Metrics, vs: &str, pool: &str, server: SocketAddr) -> Self {
        let server = server.to_string();
        let copies = |outcome, reason| {
            metrics.clone_copies.with_label_values(&[vs, pool, server.as_str(), outcome, reason])
        };
        let by_loss = |outcome| Loss::ALL.iter().map(|loss| copies(outcome, loss.as_str())).collect();
        Self {
            answered: copies("answered", ""),
            truncated: copies("truncated", ""),
            unanswered: by_loss("unanswered"),
            failed: by_loss("failed"),
        }
    }

    pub fn ended(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered => &self.answered,
            Outcome::Truncated => &self.truncated,
            Outcome::Unanswered(loss) => &self.unanswered[loss as usize],
            Outcome::Failed(loss) => &self.failed[loss as usize],
        }
        .inc();
    }
}
