//! What became of every copy. Each request of a virtual service with a clone ends in exactly one of: skipped,
//! dropped, answered, unanswered, failed, truncated.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus::{Histogram, IntCounter};

use crate::metrics::{ByClass, Metrics};

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
        /// The request was answered, or failed, before its body had come whole.
        Unfinished = "unfinished",
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
        /// The request was answered, or failed, before its body had come whole.
        Unfinished = "unfinished",
        Budget = "budget",
    }
}

/// How a copy that left ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered(Reply),
    /// Answered, but its body was cut: there was no room for the rest, or it is not wanted.
    Truncated(Reply),
    /// Sent whole, and the connection ended first.
    Unanswered(Loss),
    /// Not sent whole.
    Failed(Loss),
}

/// What is known of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    /// From the copy's last byte to the answer's.
    pub took: Duration,
}

/// Counters of one clone section, resolved once.
pub(super) struct PoolCounts {
    dropped: Vec<IntCounter>,
    skipped: Vec<IntCounter>,
    answer_duration: Histogram,
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
            answer_duration: metrics.clone_answer_duration.with_label_values(&[vs, pool]),
        })
    }

    /// Counts a copy that never left, and of which no member is known.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].inc();
    }

    pub fn skipped(&self, reason: SkipReason) {
        self.skipped[reason as usize].inc();
    }

    /// How many copies were lost of which no member is known, by reason.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let memberless = [DropReason::NoServer, DropReason::UnknownServer];
        memberless.into_iter().map(|reason| (reason.as_str(), self.dropped[reason as usize].get()))
    }
}

/// Counters of one member, resolved once.
pub(super) struct MemberCounts {
    section: Arc<PoolCounts>,
    answered: IntCounter,
    truncated: IntCounter,
    unanswered: Vec<IntCounter>,
    failed: Vec<IntCounter>,
    answers: ByClass,
    /// Part of the section's, for the log: the metric has no label for a server.
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl MemberCounts {
    pub fn new(
        metrics: &Metrics,
        vs: &str,
        pool: &str,
        server: SocketAddr,
        section: &Arc<PoolCounts>,
    ) -> Self {
        let server = server.to_string();
        let copies = |outcome, reason| {
            metrics.clone_copies.with_label_values(&[vs, pool, server.as_str(), outcome, reason])
        };
        let by_loss = |outcome| Loss::ALL.iter().map(|loss| copies(outcome, loss.as_str())).collect();
        Self {
            section: section.clone(),
            answered: copies("answered", ""),
            truncated: copies("truncated", ""),
            unanswered: by_loss("unanswered"),
            failed: by_loss("failed"),
            answers: ByClass::new(|class| {
                metrics.clone_answers.with_label_values(&[vs, pool, server.as_str(), class])
            }),
            dropped: Default::default(),
        }
    }

    /// Counts a copy that left.
    pub fn ended(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(_) => &self.answered,
            Outcome::Truncated(_) => &self.truncated,
            Outcome::Unanswered(loss) => &self.unanswered[loss as usize],
            Outcome::Failed(loss) => &self.failed[loss as usize],
        }
        .inc();
        if let Outcome::Answered(reply) | Outcome::Truncated(reply) = outcome {
            self.answers.count(reply.status);
            self.section.answer_duration.observe(reply.took.as_secs_f64());
        }
    }

    /// Counts a copy that never left for this member.
    pub fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Relaxed);
        self.section.dropped(reason);
    }

    /// How many copies were lost, by reason; a reason may come several times. One that was cut is not lost: it
    /// arrived, and says so itself.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let dropped = DropReason::ALL.iter().map(|reason| (reason.as_str(), &self.dropped[*reason as usize]));
        let left = Loss::ALL.iter().flat_map(|loss| {
            [&self.unanswered, &self.failed].map(|counters| (loss.as_str(), &counters[*loss as usize]))
        });
        dropped
            .map(|(reason, count)| (reason, count.load(Relaxed)))
            .chain(left.map(|(reason, counter)| (reason, counter.get())))
    }
}
