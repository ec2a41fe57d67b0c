//! One HTTP/2 connection of a lane (RFC 9113): a stream for each copy, and many of them with one write.
//!
//! It keeps what HTTP/1.1 lanes promise: requests begin in the order of the lane, the [`Pace`] is the same but for
//! slow answers, which hold up no others here, and what was sent whole and lost is not sent again unless that is
//! asked for. Copies that the member says it has not begun with go on the next connection.
//!
//! A copy stays charged to the budget until it has ended, for it may wait for the member's window. A member that
//! gives none costs those copies, never the app. Large bodies have connections of their own in HTTP/2 too, so that
//! they do not use up the window that small copies share.

mod exchange;
mod request;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use exchange::{Exchange, Unanswered};
pub(super) use exchange::{loss, read_answer, send};
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{
    SendStream,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::uri::Scheme;
pub(super) use request::parse;
use tokio::{
    select,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    connection::Ended,
    copies::{Copies, Copy},
    count::{DropReason, Loss, Outcome, Reply},
    member::{Member, WRITE_TIMEOUT},
    pace::Pace,
    transport::Transport,
};

/// Begins to speak HTTP/2.
pub(super) async fn handshake(
    transport: Transport,
) -> Result<(SendRequest<Bytes>, Connection<Transport, Bytes>), h2::Error> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD).max_send_buffer_size(SEND_BUFFER);
    builder.handshake(transport).await
}

/// Sends copies until the connection ends, or has been idle for long.
pub(super) async fn run(transport: Transport, member: &Member, lane: usize, copies: &mut Copies) -> Ended {
    let scheme = transport.scheme();
    let Ok((requests, mut connection)) = handshake(transport).await else { return Ended::Uselessly };
    let mut sender = Sender::new(requests, scheme, member, lane, copies);
    let mut under_way = FuturesUnordered::new();
    let mut tick = interval(member.settings.tick());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        if sender.copies.is_empty()
            && member.lanes[lane].fetch_more_or_wait(sender.copies)
            && under_way.is_empty()
        {
            break None;
        }
        // All that may begin does, before the connection writes.
        while let Some((exchange, answer, body)) = sender.begin(under_way.len()) {
            under_way.push(exchange.run(answer, body, member.settings.answer_timeout));
        }
        if sender.closing && under_way.is_empty() {
            break Some(Loss::Closed);
        }
        select! {
            biased;
            Some((exchange, ended)) = under_way.next(), if !under_way.is_empty() => {
                sender.ended(exchange, ended, None);
                if let Err(Unanswered::Whole(loss) | Unanswered::InPart(loss)) = ended
                    && sender.is_silent()
                {
                    break Some(loss);
                }
            }
            ended = &mut connection => break Some(ended.map_or_else(|error| loss(&error), |()| Loss::Closed)),
            () = member.lanes[lane].wake.notified(), if sender.copies.is_empty() => {
                // Requests that are ready to run now join the same write.
                tokio::task::yield_now().await;
            }
            _ = tick.tick() => if under_way.is_empty() && let Some(end) = sender.overdue() {
                break end;
            },
        }
    };
    let idle = match end {
        None => Some(connection),
        Some(_) => {
            // What is under way ends with it.
            drop(connection);
            while let Some((exchange, ended)) = under_way.next().await {
                sender.ended(exchange, ended, end);
            }
            None
        }
    };
    let useless = sender.was_asked() && sender.pace.answers() == 0 || end == Some(Loss::NotHttp);
    sender.finish(end);
    if let Some(connection) = idle {
        // Without requests and their sender it says goodbye and ends.
        let _ = timeout(FAREWELL, connection).await;
    }
    if useless { Ended::Uselessly } else { Ended::Usefully }
}

/// Begins copies on a connection and accounts for them.
struct Sender<'a> {
    requests: SendRequest<Bytes>,
    scheme: Scheme,
    member: &'a Member,
    lane: usize,
    copies: &'a mut Copies,
    pace: Pace,
    /// Copies that were begun.
    begun: u64,
    /// The connection takes no more.
    closing: bool,
    /// For the next connection, by the order in which they were begun.
    again: BTreeMap<u64, (Copy, Bytes)>,
    /// Copies that were lost with the connection.
    lost: usize,
    /// When a copy was begun or an answer was complete.
    progress: Instant,
    answered: Instant,
}

/// A stream's end that takes the body, and the body.
type Body = Option<(SendStream<Bytes>, Bytes)>;

impl<'a> Sender<'a> {
    fn new(
        requests: SendRequest<Bytes>,
        scheme: Scheme,
        member: &'a Member,
        lane: usize,
        copies: &'a mut Copies,
    ) -> Self {
        let now = Instant::now();
        Self {
            requests,
            scheme,
            member,
            lane,
            copies,
            pace: Pace::new(member.lanes[lane].habits.lock().clone(), member.settings.depth),
            begun: 0,
            closing: false,
            again: BTreeMap::new(),
            lost: 0,
            progress: now,
            answered: now,
        }
    }

    /// Begins with the next copy, if so many under way leave room for it.
    fn begin(&mut self, under_way: usize) -> Option<(Exchange, ResponseFuture, Body)> {
        while !self.closing
            && self.pace.allowed(under_way) > 0
            && under_way < self.requests.current_max_send_streams()
        {
            let (copy, bytes) = self.copies.front()?;
            let bytes = Bytes::copy_from_slice(bytes);
            let Some((request, head)) = parse(&bytes, &self.scheme) else {
                self.copies.pop();
                self.member.share.give_back(copy.charge());
                self.member.counts.dropped(DropReason::Malformed);
                continue;
            };
            let body = bytes.slice(head..);
            // Refused are all requests: the member goes away, or the connection has no more numbers for streams.
            let Ok((answer, stream)) = self.requests.send_request(request, body.is_empty()) else {
                self.closing = true;
                break;
            };
            self.copies.pop();
            self.begun += 1;
            self.progress = Instant::now();
            let body = (!body.is_empty()).then_some((stream, body));
            return Some((Exchange { number: self.begun, copy, bytes }, answer, body));
        }
        None
    }

    /// Counts a copy that ended, with the connection if that has an `end`, or leaves it to the next one.
    fn ended(&mut self, exchange: Exchange, ended: Result<Reply, Unanswered>, end: Option<Loss>) {
        let Exchange { number, copy, bytes } = exchange;
        let of_connection = |loss| if loss == Loss::Closed { end.unwrap_or(loss) } else { loss };
        let outcome = match ended {
            Ok(reply) => {
                self.answered = Instant::now();
                self.progress = self.answered;
                // Slow answers hold up no others here.
                self.pace.answered(Duration::ZERO);
                copy.answered(reply)
            }
            Err(Unanswered::Untouched) => {
                self.again.insert(number, (copy, bytes));
                return;
            }
            Err(Unanswered::InPart(loss)) => Outcome::Failed(of_connection(loss)),
            Err(Unanswered::Whole(Loss::Closed))
                if self.member.settings.retry_lost && copy.lost.is_none() =>
            {
                let lost = Some(of_connection(Loss::Closed));
                self.again.insert(number, (Copy { lost, ..copy }, bytes));
                return;
            }
            Err(Unanswered::Whole(loss)) => Outcome::Unanswered(of_connection(loss)),
        };
        self.lost += usize::from(ended.is_err() && end.is_some());
        self.member.share.give_back(copy.charge());
        self.member.counts.ended(outcome);
    }

    /// Whether the member has answered nothing for long.
    fn is_silent(&self) -> bool {
        self.answered.elapsed() >= self.member.settings.answer_timeout
    }

    fn was_asked(&self) -> bool {
        self.begun > 0 || !self.copies.is_empty()
    }

    /// Whether to end the connection while nothing is under way.
    fn overdue(&self) -> Option<Option<Loss>> {
        let still = self.progress.elapsed();
        if !self.copies.is_empty() {
            // The member allows no streams.
            return (still >= WRITE_TIMEOUT).then_some(Some(Loss::WriteTimeout));
        }
        let over = self.member.retired.is_cancelled() || still >= self.member.settings.idle_timeout;
        over.then_some(None)
    }

    /// Leaves to the next connection what is for that one, and what it should know.
    fn finish(self, end: Option<Loss>) {
        let mut again = Copies::default();
        for (copy, bytes) in self.again.into_values() {
            again.push(copy, &bytes);
        }
        self.copies.put_back(again);
        *self.member.lanes[self.lane].habits.lock() = self.pace.habits_after(end, self.lost);
    }
}

/// The longest head of an answer that is read.
const MAX_HEAD: u32 = 64 * 1024;

/// What a streamed body may have waiting in its connection beyond what is charged.
const SEND_BUFFER: usize = 64 * 1024;

/// How long an idle connection may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(100);
