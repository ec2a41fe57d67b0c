//! The access log: a line for each request, written by a thread of its own.
//!
//! A request's end makes a [`Line`] of what is known, turns it into text and leaves it in a queue of so many bytes;
//! the writer takes all that is there and writes it at once. A request never waits for a disk, a pipe or a
//! terminal: what finds no room is dropped and counted. What could not be written (a full disk) waits in the queue
//! and is tried again, so that nothing is lost but what the queue cannot hold.
//!
//! | file | what |
//! |---|---|
//! | `line.rs`, `reason.rs` | what is known of a request, as JSON |
//! | `text.rs` | the same in Apache's formats |
//! | `headers.rs` | header fields that may be written |
//! | `analytics.rs` | which requests get a line |
//! | `queue.rs`, `writer.rs`, `sink.rs` | the way to the file |
//!
//! What is no HTTP at all is refused before there is a request, and has no line.
//!
//! Whatever clients send, a line stays one line: see `text.rs`, and JSON's strings.
//!
//! Known elsewhere as: nginx's `access_log … buffer=`, Envoy's file access log, Avi's client logs.

mod analytics;
mod headers;
mod line;
mod queue;
mod reason;
mod sink;
mod text;
mod writer;

pub use analytics::Analytics;
pub use headers::{Headers, without_query};
pub use line::{Client, CloneOutcome, Line, RuleDecision, SiteOutcome, Timings, Tls};
pub use reason::Reason;
pub use sink::OpenError;
pub use text::readable;

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use prometheus::IntCounter;

use crate::{
    config::{self, LogFormat},
    metrics::Metrics,
};
use queue::Queue;
use sink::Sink;

/// One access log that is open. When the last holder lets it go, what is queued is written and the writer ends.
pub struct AccessLog {
    config: config::AccessLog,
    queue: Arc<Queue>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Opens it and starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened, or a thread cannot be had.
    pub fn open(config: &config::AccessLog, metrics: &Metrics) -> Result<Self, OpenError> {
        let sink = Sink::open(&config.path)?;
        let queue = Arc::new(Queue::new(config.buffer));
        writer::start(queue.clone(), sink, config.path.clone(), metrics).map_err(OpenError::Thread)?;
        Ok(Self { config: config.clone(), queue, dropped: metrics.access_log_dropped.clone() })
    }

    /// Queues a line.
    pub fn write(&self, line: &Line<'_>) {
        thread_local! {
            /// Lines are made here, so that none has to grow a buffer of its own.
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            match self.config.format {
                LogFormat::Json => line.write_json(scratch),
                LogFormat::Common => text::write_common(line, scratch),
                LogFormat::Combined => text::write_combined(line, scratch),
            }
            scratch.push(b'\n');
            if !self.queue.push(scratch) {
                self.dropped.inc();
            }
        });
    }

    pub fn config(&self) -> &config::AccessLog {
        &self.config
    }

    /// Writes what is queued to the file that was open, then opens it again by its name: after a rotation.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Waits until what is queued is written, at most for so long; blocks. Says whether it was.
    pub fn flush(&self, longest: Duration) -> bool {
        self.queue.flush(longest)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The access log in force, which a reload may change.
#[derive(Default)]
pub struct CurrentLog {
    /// Whether there is one: what requests ask first, and mostly only.
    on: AtomicBool,
    log: ArcSwapOption<AccessLog>,
}

impl CurrentLog {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn load(&self) -> Option<Arc<AccessLog>> {
        if self.is_on() { self.log.load_full() } else { None }
    }

    /// The log of a configuration: the one in force, where nothing about it changes, else a new one.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn prepare(
        &self,
        config: Option<&config::AccessLog>,
        metrics: &Metrics,
    ) -> Result<Option<Arc<AccessLog>>, OpenError> {
        let Some(config) = config else { return Ok(None) };
        match self.load() {
            Some(same) if same.config == *config => Ok(Some(same)),
            _ => Ok(Some(Arc::new(AccessLog::open(config, metrics)?))),
        }
    }

    /// Puts one in force.
    pub fn set(&self, log: Option<Arc<AccessLog>>) {
        self.on.store(log.is_some(), Ordering::Relaxed);
        self.log.store(log);
    }
}

#[cfg(test)]
mod tests;
