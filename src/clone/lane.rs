//! A lane: the order in which copies of some sessions go to one member, on one connection at a time.
//!
//! The app's path appends a copy's bytes to one buffer and wakes the lane's task at most once per burst. The
//! task swaps that buffer for an empty one and writes many copies with one system call. It is started by the
//! first copy and ends when its connection has been idle for long, so an unused lane costs nothing.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    connection::{self, Ended},
    count::{DropReason, Outcome, Reply},
    member::Member,
};

#[derive(Default)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    pub wake: Notify,
}

#[derive(Default)]
struct Queue {
    copies: Copies,
    task: Task,
}

#[derive(Default, PartialEq, Eq)]
enum Task {
    #[default]
    Absent,
    /// It will look into the queue before it waits.
    Busy,
    /// It waits to be woken.
    Waiting,
}

/// Copies in the order in which they leave, one behind the other in one buffer.
#[derive(Default)]
pub(super) struct Copies {
    bytes: Vec<u8>,
    /// How much of `bytes` was written.
    written: usize,
    /// Where the first of `each` begins.
    first: usize,
    each: VecDeque<Copy>,
}

/// One copy, as its answer needs it.
#[derive(Clone, std::marker::Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copy {
    pub length: usize,
    /// Asked with HEAD, so that the answer has no body.
    pub head_request: bool,
    /// Its body was cut.
    pub cut: bool,
}

impl Copy {
    /// What it costs of the budget: its bytes, and what keeps them.
    pub fn charge(self) -> usize {
        self.length + size_of::<Self>()
    }

    pub fn answered(self, reply: Reply) -> Outcome {
        if self.cut { Outcome::Truncated(reply) } else { Outcome::Answered(reply) }
    }
}

impl Lane {
    /// Queues a copy whose bytes `write` appends; its length is set here. Of what it costs, `charged` is taken
    /// from the member's share already; the copy keeps the charge, or gives it back if it is refused. `write`
    /// runs under the lane's lock.
    pub fn push(
        member: &Arc<Member>,
        lane: usize,
        mut copy: Copy,
        charged: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let this = &member.lanes[lane];
        let mut queue = this.queue.lock();
        let before = queue.copies.bytes.len();
        let written = write(&mut queue.copies.bytes).and_then(|()| {
            copy.length = queue.copies.bytes.len() - before;
            if member.share.adjust(charged, copy.charge()) { Ok(()) } else { Err(DropReason::Budget) }
        });
        if let Err(reason) = written {
            queue.copies.bytes.truncate(before);
            member.share.give_back(charged);
            return Err(reason);
        }
        queue.copies.each.push_back(copy);
        let task = mem::replace(&mut queue.task, Task::Busy);
        drop(queue);
        match task {
            Task::Absent => match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(run(member.clone(), lane))),
                Err(_) => this.queue.lock().task = Task::Absent,
            },
            Task::Waiting => this.wake.notify_one(),
            Task::Busy => {}
        }
        Ok(())
    }

    /// Moves what is queued to `into`, which must be empty. `false`: there is nothing, and the next copy wakes.
    pub fn fetch_or_wait(&self, into: &mut Copies) -> bool {
        let mut queue = self.queue.lock();
        let any = !queue.copies.is_empty();
        if any {
            mem::swap(&mut queue.copies, into);
        }
        queue.task = if any { Task::Busy } else { Task::Waiting };
        any
    }

    /// Ends the task, unless something is queued.
    fn leave(&self) -> bool {
        let mut queue = self.queue.lock();
        let empty = queue.copies.is_empty();
        queue.task = if empty { Task::Absent } else { Task::Busy };
        empty
    }
}

impl Copies {
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The bytes of at most `copies` copies that are not written yet.
    pub fn next(&self, copies: usize) -> &[u8] {
        let length: usize = self.each.iter().take(copies).map(|copy| copy.length).sum();
        &self.bytes[self.written.min(self.first + length)..self.first + length]
    }

    /// Whether the first copy has left in part.
    pub fn is_partly_written(&self) -> bool {
        self.written > self.first
    }

    /// Notes that `bytes` more were written, and tells `whole` of the copies that are whole with them.
    pub fn wrote(&mut self, bytes: usize, mut whole: impl FnMut(Copy)) {
        self.written += bytes;
        while let Some(copy) =
            self.each.front().copied().filter(|copy| self.first + copy.length <= self.written)
        {
            self.first += copy.length;
            self.each.pop_front();
            whole(copy);
        }
        self.let_go();
    }

    /// Takes out the first copy.
    pub fn pop(&mut self) -> Option<Copy> {
        let copy = self.each.pop_front()?;
        self.first += copy.length;
        self.written = self.first;
        self.let_go();
        Some(copy)
    }

    /// Lets go of what has left: all of a buffer in which nothing is left, which can then be filled again, and
    /// the beginning of one of which the larger part has left, for nothing is charged for that any more. What
    /// is moved is less than what was written since the last move.
    fn let_go(&mut self) {
        if self.each.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BUFFER);
            self.each.shrink_to(KEPT_COPIES);
            (self.written, self.first) = (0, 0);
        } else if self.first > KEPT_BUFFER && self.first > self.bytes.len() / 2 {
            self.bytes.drain(..self.first);
            self.bytes.shrink_to(KEPT_BUFFER);
            self.written -= self.first;
            self.first = 0;
        }
    }
}

/// The lane's task: a connection after the other, as long as there are copies.
async fn run(member: Arc<Member>, lane: usize) {
    let this = &member.lanes[lane];
    let mut copies = Copies::default();
    let mut habits = connection::Habits::default();
    let mut failures = 0;
    loop {
        if copies.is_empty() && !this.fetch_or_wait(&mut copies) && this.leave() {
            return;
        }
        let ended = match member.connect().await {
            Ok(stream) => connection::run(stream, &member, lane, &mut copies, &mut habits).await,
            Err(_) => {
                drop_all(&member, lane, &mut copies, DropReason::Connect);
                Ended::Uselessly
            }
        };
        match ended {
            Ended::Usefully => failures = 0,
            Ended::Uselessly => {
                failures += 1;
                if failures % MAX_USELESS == 0 {
                    drop_all(&member, lane, &mut copies, DropReason::Stalled);
                }
                tokio::time::sleep(pause(failures, rand::random())).await;
            }
        }
    }
}

/// Gives up everything that waits.
fn drop_all(member: &Member, lane: usize, copies: &mut Copies, reason: DropReason) {
    loop {
        while let Some(copy) = copies.pop() {
            member.share.give_back(copy.charge());
            member.counts.dropped(reason);
        }
        if !member.lanes[lane].fetch_or_wait(copies) {
            return;
        }
    }
}

/// How long to wait after so many failures in a row; `chance` from 0 to 1 spreads the lanes.
fn pause(failures: u32, chance: f64) -> Duration {
    let longest = FIRST_PAUSE * 2_u32.pow(failures.saturating_sub(1).min(16));
    longest.min(LONGEST_PAUSE).mul_f64(0.5 + chance / 2.0)
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connections in a row that brought no answer before what waits is given up.
const MAX_USELESS: u32 = 3;

/// Bytes of a lane's buffer that are kept though nothing is charged for them.
const KEPT_BUFFER: usize = 64 * 1024;

const KEPT_COPIES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_of_a_large_batch_is_let_go_before_its_last_copy_is() {
        const LENGTH: usize = 10_000;
        let mut copies = Copies { bytes: Vec::with_capacity(100 * LENGTH), ..Copies::default() };
        for n in 0..100 {
            copies.bytes.extend_from_slice(&[n; LENGTH]);
            copies.each.push_back(Copy { length: LENGTH, ..Copy::default() });
        }
        let mut whole = 0;
        for n in 0..99 {
            assert_eq!(copies.next(1), [n; LENGTH]);
            copies.wrote(LENGTH - 1, |_| whole += 1);
            assert_eq!((copies.next(1), copies.is_partly_written()), (&[n][..], true));
            copies.wrote(1, |_| whole += 1);
            let left = (100 - whole) * LENGTH;
            assert!(copies.bytes.capacity() <= 2 * left + 2 * KEPT_BUFFER, "{}", copies.bytes.capacity());
        }
        assert_eq!(copies.next(2), [99; LENGTH]);
        assert!(copies.pop().is_some() && copies.is_empty());
    }
}
