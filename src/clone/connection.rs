//! One connection of a lane: copies are pipelined on it (RFC 9112 section 9.3.2), and their answers counted.
//!
//! How many may be under way is for [`Pace`] to say. What was sent whole when the connection ends is unanswered and
//! not sent again, unless `retry_lost` asks for that; what was sent in part has failed; what was not sent goes on
//! the next connection.

use std::collections::VecDeque;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    select,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    answer::{Answer, Framer},
    copies::{Copies, Copy},
    count::{Loss, Outcome, Reply},
    lane::Lane,
    member::{Member, WRITE_TIMEOUT},
    pace::Pace,
    transport::Transport,
};

/// How a connection served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It brought answers, or nothing was asked of it.
    Usefully,
    /// The next one should wait a little.
    Uselessly,
}

/// Sends copies until the connection ends, or has been idle for long.
pub(super) async fn run(transport: Transport, member: &Member, lane: usize, copies: &mut Copies) -> Ended {
    let mut connection = Connection {
        member,
        lane,
        copies,
        sent: VecDeque::new(),
        kept: member.settings.retry_lost.then(Copies::default),
        pace: Pace::new(member.lanes[lane].habits.lock().clone(), member.settings.depth),
        used: false,
        framer: Framer::default(),
        progress: Instant::now(),
        awaited: Instant::now(),
    };
    let end = match transport {
        Transport::Plain(mut stream) => {
            let (reader, writer) = stream.split();
            connection.serve(reader, writer).await
        }
        Transport::Tls(stream) => {
            let (reader, writer) = tokio::io::split(stream);
            connection.serve(reader, writer).await
        }
    };
    let in_demand = connection.used || !connection.copies.is_empty();
    let useless = in_demand && connection.pace.answers() == 0;
    connection.end(end);
    let nonsense = matches!(end, End::Lost(Loss::NotHttp | Loss::UnexpectedAnswer));
    if useless || nonsense { Ended::Uselessly } else { Ended::Usefully }
}

struct Connection<'a> {
    member: &'a Member,
    lane: usize,
    copies: &'a mut Copies,
    /// Sent whole, and not answered yet.
    sent: VecDeque<Sent>,
    /// The bytes of what is in `sent`, where they are sent again.
    kept: Option<Copies>,
    pace: Pace,
    /// Something was written.
    used: bool,
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
    /// It was idle for long, or what comes next needs another; nothing is lost.
    Idle,
    Lost(Loss),
}

impl Connection<'_> {
    async fn serve(
        &mut self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> End {
        let mut buffer = vec![0; READ_BUFFER];
        let mut tick = interval(self.member.settings.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.copies.is_empty()
                && self.member.lanes[self.lane].fetch_more_or_wait(self.copies)
                && self.sent.is_empty()
            {
                return End::Idle;
            }
            let next = self.copies.next(self.pace.allowed(self.sent.len()));
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

    fn wrote(&mut self, length: usize) {
        self.used = true;
        self.progress = Instant::now();
        if self.sent.is_empty() {
            self.awaited = self.progress;
        }
        let (sent, kept, share, at) = (&mut self.sent, &mut self.kept, &self.member.share, self.progress);
        self.copies.wrote(length, |copy, bytes| {
            match kept {
                Some(kept) => kept.push(copy, bytes),
                None => share.give_back(copy.charge()),
            }
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
        }
        // Where there is always something to read, no tick comes.
        self.answer_overdue(now)
    }

    /// Counts the answer to the copy that was sent first.
    fn answered(&mut self, answer: Answer, now: Instant) {
        let Some(Sent { copy, at }) = self.sent.pop_front() else { return };
        if let Some(kept) = &mut self.kept {
            kept.pop();
            self.member.share.give_back(copy.charge());
        }
        self.member.counts.ended(copy.answered(Reply { status: answer.status, took: now - at }));
        self.pace.answered(now - self.awaited);
        self.progress = now;
        self.awaited = now;
    }

    /// The member ended the connection, which may be the end of an answer.
    fn closed(&mut self) -> End {
        if let Some(answer) = self.framer.close() {
            self.answered(answer, Instant::now());
        }
        End::Lost(Loss::Closed)
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

    /// Counts what the end of the connection lost, or leaves it to the next one.
    fn end(mut self, end: End) {
        let loss = match end {
            End::Idle => None,
            End::Lost(loss) => Some(loss),
        };
        *self.lane().habits.lock() = self.pace.habits_after(loss, self.sent.len());
        let loss = loss.unwrap_or(Loss::Closed);
        if self.copies.is_partly_written() {
            let copy = self.copies.pop().expect("what is partly written is there");
            self.member.share.give_back(copy.charge());
            self.member.counts.ended(Outcome::Failed(loss));
        }
        let mut again = Copies::default();
        for Sent { copy, .. } in self.sent.drain(..) {
            let Some(kept) = &mut self.kept else {
                self.member.counts.ended(Outcome::Unanswered(loss));
                continue;
            };
            if let (None, Some((_, bytes))) = (copy.lost, kept.front()) {
                again.push(Copy { lost: Some(loss), ..copy }, bytes);
            } else {
                self.member.share.give_back(copy.charge());
                self.member.counts.ended(Outcome::Unanswered(loss));
            }
            kept.pop();
        }
        self.copies.put_back(again);
    }
}

/// Many answers with one read.
const READ_BUFFER: usize = 16 * 1024;
