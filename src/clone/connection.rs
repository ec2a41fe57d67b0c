//! One connection of a lane: copies are pipelined on it (RFC 9112 section 9.3.2), and their answers counted.
//!
//! How many copies may be under way grows from one by one with each answer, so that a member that closes after
//! an answer loses none, and a connection that had to be closed after n answers makes the next one stop for a
//! moment after n. What was sent whole when the connection ends is unanswered and not sent again; what was
//! sent in part has failed; what was not sent goes on the next connection.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    answer::{Answer, Framer},
    count::{Loss, Outcome, Reply},
    lane::{Copies, Copy, Lane},
    member::{Member, WRITE_TIMEOUT},
};

/// What a lane has learned of its member.
#[derive(Default)]
pub(super) struct Habits {
    /// Answers after which the member closed its last connection.
    answers_per_connection: Option<u64>,
}

/// How a connection served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It brought answers, or nothing was asked of it.
    Usefully,
    Uselessly,
}

/// Sends copies until the connection ends, or has been idle for long.
pub(super) async fn run(
    mut stream: TcpStream,
    member: &Member,
    lane: usize,
    copies: &mut Copies,
    habits: &mut Habits,
) -> Ended {
    let mut connection = Connection {
        member,
        lane,
        copies,
        sent: VecDeque::new(),
        window: 1,
        used: false,
        answers: 0,
        limit: habits.answers_per_connection,
        framer: Framer::default(),
        progress: Instant::now(),
        awaited: Instant::now(),
    };
    let end = connection.serve(&mut stream).await;
    connection.account(end);
    *habits = connection.habits(end);
    let in_demand = connection.used || !connection.copies.is_empty();
    if in_demand && connection.answers == 0 { Ended::Uselessly } else { Ended::Usefully }
}

struct Connection<'a> {
    member: &'a Member,
    lane: usize,
    copies: &'a mut Copies,
    /// Sent whole, and not answered yet.
    sent: VecDeque<Sent>,
    /// How many copies may be under way.
    window: usize,
    /// Something was written.
    used: bool,
    answers: u64,
    /// Answers after which to see whether the member closes.
    limit: Option<u64>,
    framer: Framer,
    /// When bytes were written or an answer was complete.
    progress: Instant,
    /// Since when the answer that comes next is awaited.
    awaited: Instant,
}

/// A copy that is awaiting its answer.
struct Sent {
    copy: Copy,
    at: Instant,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was idle, and nothing is lost.
    Idle,
    Lost(Loss),
}

impl Connection<'_> {
    async fn serve(&mut self, stream: &mut TcpStream) -> End {
        let (mut reader, mut writer) = stream.split();
        let mut buffer = vec![0; READ_BUFFER];
        let mut tick = interval(self.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.copies.is_empty() {
                self.member.lanes[self.lane].fetch_or_wait(self.copies);
            }
            let next = self.copies.next(self.allowed());
            let writing = !next.is_empty();
            // Reading comes first, so that a connection that has ended is not written to.
            select! {
                biased;
                read = reader.read(&mut buffer) => match read {
                    Ok(length @ 1..) => match self.read(&buffer[..length]) {
                        None => {}
                        Some(end) => return end,
                    },
                    Ok(0) | Err(_) => return self.closed(),
                },
                written = writer.write(next), if writing => match written {
                    Ok(length) => self.wrote(length),
                    Err(_) => return self.closed(),
                },
                () = self.lane().wake.notified(), if self.copies.is_empty() => {
                    // Requests that are ready to run now join the same write.
                    tokio::task::yield_now().await;
                }
                _ = tick.tick() => if let Some(end) = self.overdue(writing) {
                    return end;
                },
            }
        }
    }

    fn lane(&self) -> &Lane {
        &self.member.lanes[self.lane]
    }

    /// How many of the copies that are not sent may be.
    fn allowed(&self) -> usize {
        let free = self.window.saturating_sub(self.sent.len());
        match self.limit {
            Some(limit) => {
                let begun = self.answers + self.sent.len() as u64;
                free.min(usize::try_from(limit.saturating_sub(begun)).unwrap_or(usize::MAX))
            }
            None => free,
        }
    }

    fn wrote(&mut self, length: usize) {
        self.used = true;
        self.progress = Instant::now();
        if self.sent.is_empty() {
            self.awaited = self.progress;
        }
        let (sent, share, at) = (&mut self.sent, &self.member.share, self.progress);
        self.copies.wrote(length, |copy| {
            share.give_back(copy.charge());
            sent.push_back(Sent { copy, at });
        });
    }

    /// Counts the answers that are complete with `input`.
    fn read(&mut self, mut input: &[u8]) -> Option<End> {
        let now = Instant::now();
        while !input.is_empty() {
            let Some(sent) = self.sent.front() else {
                return Some(End::Lost(Loss::UnexpectedAnswer));
            };
            let Ok(answer) = self.framer.next(&mut input, sent.copy.head_request) else {
                return Some(End::Lost(Loss::NotHttp));
            };
            let Some(answer) = answer else { break };
            self.answered(answer, now);
            if answer.closes {
                return Some(End::Lost(Loss::Closed));
            }
            self.window = (self.window + 1).min(self.member.settings.depth);
            if self.limit.is_some_and(|limit| self.answers >= limit) {
                self.limit = None;
            }
        }
        // Where there is always something to read, no tick comes.
        self.answer_overdue(now)
    }

    /// Counts the answer to the copy that was sent first.
    fn answered(&mut self, answer: Answer, now: Instant) {
        let Some(Sent { copy, at }) = self.sent.pop_front() else { return };
        let reply = Reply { status: answer.status, took: now.saturating_duration_since(at) };
        self.member.counts.ended(copy.answered(reply));
        self.answers += 1;
        self.progress = now;
        self.awaited = now;
    }

    /// The member ended the connection, which may be the end of an answer.
    fn closed(&mut self) -> End {
        if let Some(answer) = self.framer.close() {
            self.answered(answer, Instant::now());
            return End::Lost(Loss::Closed);
        }
        if self.sent.is_empty() && !self.copies.is_partly_written() {
            End::Idle
        } else {
            End::Lost(Loss::Closed)
        }
    }

    /// Whether something took too long.
    fn overdue(&self, writing: bool) -> Option<End> {
        let now = Instant::now();
        let settings = &self.member.settings;
        if let Some(end) = self.answer_overdue(now) {
            return Some(end);
        }
        if writing && now - self.progress >= WRITE_TIMEOUT {
            return Some(End::Lost(Loss::WriteTimeout));
        }
        let idle = self.sent.is_empty() && self.copies.is_empty();
        let over = self.member.retired.is_cancelled() || now - self.progress >= settings.idle_timeout;
        (idle && over).then_some(End::Idle)
    }

    fn answer_overdue(&self, now: Instant) -> Option<End> {
        let overdue = !self.sent.is_empty() && now - self.awaited >= self.member.settings.answer_timeout;
        overdue.then_some(End::Lost(Loss::AnswerTimeout))
    }

    /// How often to look for what is overdue.
    fn tick(&self) -> Duration {
        let settings = &self.member.settings;
        (settings.answer_timeout.min(settings.idle_timeout) / 4).clamp(MIN_TICK, MAX_TICK)
    }

    /// Counts what the end of the connection lost.
    fn account(&mut self, end: End) {
        let loss = match end {
            End::Idle => Loss::Closed,
            End::Lost(loss) => loss,
        };
        for _ in self.sent.drain(..) {
            self.member.counts.ended(Outcome::Unanswered(loss));
        }
        if self.copies.is_partly_written() {
            let copy = self.copies.pop().expect("what is partly written is there");
            self.member.share.give_back(copy.charge());
            self.member.counts.ended(Outcome::Failed(loss));
        }
    }

    fn habits(&self, end: End) -> Habits {
        let closed_by_member = end == End::Lost(Loss::Closed) && self.answers > 0;
        Habits { answers_per_connection: if closed_by_member { Some(self.answers) } else { self.limit } }
    }
}

/// Many answers with one read.
const READ_BUFFER: usize = 16 * 1024;

const MIN_TICK: Duration = Duration::from_millis(10);

const MAX_TICK: Duration = Duration::from_secs(1);
