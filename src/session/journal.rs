//! What happens to sessions while two processes serve them: the old one of an upgrade, and the new one.
//!
//! The old one writes a journal of the keys that it uses, from before it hands its table over until its last
//! connection is gone. Nobody who uses the table waits for whoever reads the journal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{Entry, SessionKey, SessionTable};

/// Keys that were used since the journal was begun, in order. No key is missed that a walk of the table begun later
/// does not meet as it is then.
pub struct Journal {
    table: Arc<SessionTable>,
    used: Receiver<Used>,
}

/// A key and the entry that it named.
pub(super) type Used = (SessionKey, Arc<Entry>);

/// Whether another process serves the same sessions.
#[derive(Default)]
pub(super) struct Sharing {
    is_shared: AtomicBool,
    has_journal: AtomicBool,
    journal: Mutex<Option<Sender<Used>>>,
}

impl Sharing {
    /// To be called after the entry was changed: a walk that begins when the journal has begun either sees the change,
    /// or this sees the journal, for both take the entry's lock.
    pub fn note(&self, key: &SessionKey, entry: &Arc<Entry>) {
        if self.has_journal.load(Relaxed) {
            self.write(key, entry);
        }
    }

    #[cold]
    fn write(&self, key: &SessionKey, entry: &Arc<Entry>) {
        if let Some(journal) = &*self.journal.lock() {
            let _ = journal.send((*key, entry.clone()));
        }
    }
}

impl SessionTable {
    /// Begins a journal. There is one at a time: the one before gets nothing more.
    pub fn journal(self: &Arc<Self>) -> Journal {
        let (sender, used) = channel();
        *self.sharing.journal.lock() = Some(sender);
        self.sharing.has_journal.store(true, Relaxed);
        Journal { table: self.clone(), used }
    }

    /// Whether another process serves the same sessions just now, so that a server for a new session should be
    /// chosen by what both know.
    pub fn is_shared(&self) -> bool {
        self.sharing.is_shared.load(Relaxed)
    }

    /// Another process begins to serve the same sessions, or has ended.
    pub fn set_shared(&self, is_shared: bool) {
        self.sharing.is_shared.store(is_shared, Relaxed);
    }
}

impl Journal {
    /// At most `most` of what was written; waits at most `patience` for the first. A key that was used several times
    /// may be there as often.
    pub(super) fn read(&self, most: usize, patience: Duration) -> Vec<Used> {
        match self.used.recv_timeout(patience) {
            Ok(first) => std::iter::once(first).chain(self.used.try_iter()).take(most).collect(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }

    /// The table that it is of.
    pub(super) fn table(&self) -> &SessionTable {
        &self.table
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.table.sharing.has_journal.store(false, Relaxed);
        *self.table.sharing.journal.lock() = None;
    }
}
