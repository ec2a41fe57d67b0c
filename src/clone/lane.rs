//! A lane: the order in which copies of some sessions go to one member, on one connection at a time.
//!
//! The app's path appends a copy's bytes to one buffer and wakes the lane's task at most once per burst. The
//! task swaps that buffer for an empty one and writes many copies with one system call. It is started by the
//! first copy and ends when its connection has been idle for long, so an unused lane costs nothing.
//!
//! Under the lane's lock a copy's bytes are written, or a buffer changes hands: nothing that a member can delay.
//! Buffers stay small enough to be moved when they grow; when one is full the next is begun.
//!
//! Where connections begin with a PROXY header each is for one client, and so is a buffer. A lane still has one
//! connection at a time, which keeps the order; it ends when the next copy is for another client.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    connection::{self, Ended},
    copies::{Copies, Copy},
    count::{DropReason, Outcome},
    http2,
    member::Member,
    pace::Habits,
};
use crate::preface::Preface;

#[derive(Default)]
pub(super) struct Lane {
    queue: Mutex<Queue>,
    pub wake: Notify,
    /// Learned by the task, for the next connection.
    pub habits: Mutex<Habits>,
}

#[derive(Default)]
struct Queue {
    /// Buffers that take no more, from the oldest.
    full: VecDeque<Copies>,
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

impl Lane {
    /// Queues a copy whose bytes `write` appends; its length is set here. Of what it costs, `charged` is taken
    /// from the member's share already; the copy keeps the charge, or gives it back if it is refused. `write`
    /// runs under the lane's lock.
    pub fn push(
        member: &Arc<Member>,
        lane: usize,
        copy: Copy,
        preface: Option<&Preface>,
        charged: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let this = &member.lanes[lane];
        let mut queue = this.queue.lock();
        let joins = !queue.copies.is_full() && queue.copies.preface.as_ref() == preface;
        if !queue.copies.is_empty() && !joins {
            let full = mem::take(&mut queue.copies);
            queue.full.push_back(full);
        }
        if queue.copies.is_empty() && queue.copies.preface.as_ref() != preface {
            queue.copies.preface = preface.cloned();
        }
        let admit = |copy: Copy| {
            if member.share.adjust(charged, copy.charge()) { Ok(()) } else { Err(DropReason::Budget) }
        };
        if let Err(reason) = queue.copies.push_with(copy, write, admit) {
            member.share.give_back(charged);
            return Err(reason);
        }
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
        self.queue.lock().fetch_or_wait(into)
    }

    /// The same for a connection, on which all copies left that were in `into`. `true`: those that are queued need
    /// another connection.
    pub fn fetch_more_or_wait(&self, into: &mut Copies) -> bool {
        let mut queue = self.queue.lock();
        let needs_another = !queue.is_empty() && queue.first().preface != into.preface;
        if needs_another {
            queue.task = Task::Busy;
        } else {
            queue.fetch_or_wait(into);
        }
        needs_another
    }

    /// Ends the task, unless something is queued.
    fn leave(&self) -> bool {
        let mut queue = self.queue.lock();
        let empty = queue.is_empty();
        queue.task = if empty { Task::Absent } else { Task::Busy };
        empty
    }
}

impl Queue {
    fn fetch_or_wait(&mut self, into: &mut Copies) -> bool {
        let any = !self.is_empty();
        self.task = if any { Task::Busy } else { Task::Waiting };
        match self.full.pop_front() {
            Some(full) => *into = full,
            None if any => mem::swap(&mut self.copies, into),
            None => {}
        }
        any
    }

    fn first(&self) -> &Copies {
        self.full.front().unwrap_or(&self.copies)
    }

    fn is_empty(&self) -> bool {
        self.full.is_empty() && self.copies.is_empty()
    }
}

/// The lane's task: a connection after the other, as long as there are copies.
async fn run(member: Arc<Member>, lane: usize) {
    let this = &member.lanes[lane];
    let mut copies = Copies::default();
    let mut failures = 0;
    loop {
        if copies.is_empty() && !this.fetch_or_wait(&mut copies) {
            if this.leave() {
                return;
            }
            continue;
        }
        let link = member.connect(copies.preface.as_ref()).await;
        let ended = match link {
            Ok(link) if link.http2 => http2::run(link.transport, &member, lane, &mut copies).await,
            Ok(link) => connection::run(link.transport, &member, lane, &mut copies).await,
            Err(error) => {
                drop_all(&member, lane, &mut copies, error.reason());
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
            match copy.lost {
                Some(loss) => member.counts.ended(Outcome::Unanswered(loss)),
                None => member.counts.dropped(reason),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_failures_and_is_spread_by_chance() {
        for (failures, shortest, longest) in
            [(1, 50, 100), (2, 100, 200), (5, 800, 1600), (6, 1000, 2000), (u32::MAX, 1000, 2000)]
        {
            let millis = |chance| pause(failures, chance).as_millis();
            assert_eq!((millis(0.0), millis(1.0)), (shortest, longest), "{failures} failures");
        }
    }
}
