//! Lines on their way to the writer: so many bytes, and never a wait for who brings one.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Lines that wait, and what is asked of the writer.
pub(super) struct Queue {
    state: Mutex<State>,
    /// For the writer: there is something to do.
    work: Condvar,
    /// For who flushes: all is written.
    idle: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes that the writer has taken and not written yet.
    taken: usize,
    hurry: bool,
    reopen: bool,
    closed: bool,
}

/// What the writer is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Write these lines; with `reopen`, open the file again after them.
    Write { reopen: bool },
    /// Nothing is left, and nothing will come.
    End,
}

impl Queue {
    pub fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), idle: Condvar::new(), capacity }
    }

    /// Adds a line; `false`: there is no room for it.
    pub fn push(&self, line: &[u8]) -> bool {
        let mut state = self.state.lock();
        let before = state.waiting.len();
        if before + state.taken + line.len() > self.capacity {
            return false;
        }
        state.waiting.extend_from_slice(line);
        // The writer is told of the first line and of a full batch, not of those between.
        let tell = before == 0 || (before < BATCH && state.waiting.len() >= BATCH);
        drop(state);
        if tell {
            self.work.notify_one();
        }
        true
    }

    /// Waits for lines, and after the first a moment for more; they are then in `batch`, which was empty.
    pub fn take(&self, batch: &mut Vec<u8>) -> Task {
        let mut state = self.state.lock();
        let idle = |state: &State| state.waiting.is_empty() && !state.reopen && !state.closed;
        while idle(&state) {
            self.work.wait(&mut state);
        }
        let due = Instant::now() + GATHER;
        while state.waiting.len() < BATCH && !state.hurry && !state.reopen && !state.closed {
            if self.work.wait_until(&mut state, due).timed_out() {
                break;
            }
        }
        state.hurry = false;
        if state.closed && state.waiting.is_empty() && !state.reopen {
            return Task::End;
        }
        std::mem::swap(&mut state.waiting, batch);
        state.taken = batch.len();
        Task::Write { reopen: std::mem::take(&mut state.reopen) }
    }

    /// The writer has written so much of what it took.
    pub fn wrote(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.taken -= bytes;
        if state.taken == 0 && state.waiting.is_empty() {
            self.idle.notify_all();
        }
    }

    /// Waits before another attempt; ends early when the file is to be opened again. Says what is asked.
    pub fn pause(&self, longest: Duration) -> Asked {
        let mut state = self.state.lock();
        self.work.wait_while_for(&mut state, |state| !state.reopen, longest);
        Asked { reopen: std::mem::take(&mut state.reopen), close: state.closed }
    }

    pub fn reopen(&self) {
        self.state.lock().reopen = true;
        self.work.notify_one();
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    /// Waits until all is written, at most for so long; whether it was.
    pub fn flush(&self, longest: Duration) -> bool {
        let mut state = self.state.lock();
        state.hurry = true;
        self.work.notify_one();
        let busy = |state: &mut State| state.taken > 0 || !state.waiting.is_empty();
        !self.idle.wait_while_for(&mut state, busy, longest).timed_out()
    }
}

/// What was asked of the writer while it waited.
pub(super) struct Asked {
    pub reopen: bool,
    pub close: bool,
}

/// Written at once, without waiting for more.
const BATCH: usize = 64 << 10;
/// How long a line may wait for others, to be written with them.
const GATHER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_find_no_room_are_refused_until_what_was_taken_is_written() {
        let queue = Queue::new(10);
        assert!(queue.push(b"12345\n") && !queue.push(b"12345\n") && queue.push(b"123\n"));
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Task::Write { reopen: false });
        assert_eq!(batch, b"12345\n123\n");
        assert!(!queue.push(b"1\n"), "what is taken takes room");
        queue.wrote(6);
        assert!(queue.push(b"12345\n") && !queue.push(b"1\n"));
        queue.wrote(4);
        assert!(queue.push(b"1\n"));
    }

    #[test]
    fn what_is_queued_is_taken_before_the_end() {
        let queue = Queue::new(10);
        assert!(queue.push(b"1\n"));
        queue.reopen();
        queue.close();
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Task::Write { reopen: true });
        batch.clear();
        queue.wrote(2);
        assert_eq!(queue.take(&mut batch), Task::End);
        assert!(queue.flush(Duration::ZERO), "all is written");
    }
}
