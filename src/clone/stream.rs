//! A copy whose body is too large to wait in memory: it has a connection of its own, which carries the body
//! while it arrives and ends with the answer.
//!
//! The app's path puts chunks into a queue that the budget bounds. When the member takes them more slowly than
//! the client sends and the budget is used up, the copy is given up, or cut and marked so at its end.

use std::{collections::VecDeque, mem, pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    runtime::Handle,
    select,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    answer::{Answer, Framer},
    budget::Charge,
    copy::{Framing, TRUNCATED},
    count::{DropReason, Loss, Outcome, Reply},
    member::{Member, StreamSlot, WRITE_TIMEOUT},
};
use crate::config::OnOverflow;

/// The queue between a tap and the task that writes its body.
pub(super) struct Stream {
    member: Arc<Member>,
    chunked: bool,
    queue: Mutex<Queue>,
    wake: Notify,
}

struct Queue {
    chunks: VecDeque<Chunk>,
    /// Bytes that are still to come, where the length was announced.
    expected: Option<u64>,
    end: Option<End>,
}

struct Chunk {
    bytes: Bytes,
    _charge: Charge,
}

/// How a body ended on the app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// There was no room for the rest.
    Cut,
    Aborted(Loss),
}

impl Stream {
    /// Starts a copy; `head` is without framing. `None` for the length: it is not known.
    pub fn start(
        member: &Arc<Member>,
        slot: StreamSlot,
        mut head: Vec<u8>,
        head_request: bool,
        length: Option<u64>,
    ) -> Arc<Self> {
        let may_be_cut = member.settings.on_overflow == OnOverflow::Truncate;
        let framing = match length {
            Some(length) if !may_be_cut => Framing::Length(length),
            _ => Framing::Chunked { may_be_cut },
        };
        head.extend_from_slice(b"Connection: close\r\n");
        framing.write(&mut head);
        let stream = Arc::new(Self {
            member: member.clone(),
            chunked: matches!(framing, Framing::Chunked { .. }),
            queue: Mutex::new(Queue { chunks: VecDeque::new(), expected: length, end: None }),
            wake: Notify::new(),
        });
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(stream.clone().run(head, head_request, slot))),
            Err(_) => stream.abort(Loss::Closed),
        }
        stream
    }

    /// Queues a chunk, if there is room for it.
    pub fn data(&self, bytes: &Bytes) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() || bytes.is_empty() {
            return;
        }
        let left = queue.expected.map(|expected| expected.checked_sub(bytes.len() as u64));
        if left == Some(None) {
            queue.abort(Loss::ClientAborted);
        } else if let Some(_charge) = Charge::take(&self.member.share, bytes.len() + size_of::<Chunk>()) {
            queue.expected = left.flatten();
            // A small chunk may be a slice that keeps a large buffer alive.
            let small = bytes.len() < COPIED_CHUNK;
            let bytes = if small { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
            queue.chunks.push_back(Chunk { bytes, _charge });
        } else {
            match self.member.settings.on_overflow {
                OnOverflow::Drop => queue.abort(Loss::Budget),
                OnOverflow::Truncate => queue.end = Some(End::Cut),
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// The body is complete.
    pub fn end(&self) {
        let mut queue = self.queue.lock();
        if queue.end.is_none() {
            match queue.expected {
                None | Some(0) => queue.end = Some(End::Whole),
                Some(_) => queue.abort(Loss::ClientAborted),
            }
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// The body will not be complete; one that ended already stays as it is.
    pub fn abort(&self, loss: Loss) {
        let mut queue = self.queue.lock();
        if queue.end.is_none() {
            queue.abort(loss);
        }
        drop(queue);
        self.wake.notify_one();
    }

    async fn run(self: Arc<Self>, head: Vec<u8>, head_request: bool, _slot: StreamSlot) {
        match self.send(head, head_request).await {
            Ok(outcome) => self.member.counts.ended(outcome),
            Err(reason) => self.member.counts.dropped(reason),
        }
        self.queue.lock().abort(Loss::Closed);
    }

    /// The whole life of the copy; `Err`: it never left.
    async fn send(&self, head: Vec<u8>, head_request: bool) -> Result<Outcome, DropReason> {
        let mut socket = self.member.connect().await.map_err(|_| DropReason::Connect)?;
        match self.aborted() {
            Some(Loss::Budget) => return Err(DropReason::Budget),
            Some(Loss::Unfinished) => return Err(DropReason::Unfinished),
            Some(_) => return Err(DropReason::ClientAborted),
            None => {}
        }
        let (mut reader, mut writer) = socket.split();
        let mut answer = pin!(read_answer(&mut reader, head_request));
        let mut body = pin!(self.write(&mut writer, head));
        let mut early = None;
        let sent = loop {
            // In no order, so that an answer without end does not keep the body from being written.
            select! {
                answer = &mut answer, if early.is_none() => match answer {
                    Ok(answer) => early = Some(answer),
                    Err(loss) => break Err(loss),
                },
                sent = &mut body => break sent,
            }
        };
        let at_once = |answer: Answer| Reply { status: answer.status, took: Duration::ZERO };
        let loss = match sent {
            Ok(end) => {
                let reply = match early {
                    Some(answer) => Ok(at_once(answer)),
                    None => self.late(answer).await,
                };
                return Ok(match (reply, end) {
                    (Ok(reply), End::Cut) => Outcome::Truncated(reply),
                    (Ok(reply), _) => Outcome::Answered(reply),
                    (Err(loss), _) => Outcome::Unanswered(loss),
                });
            }
            Err(loss) => self.aborted().unwrap_or(loss),
        };
        Ok(match early {
            // A member may answer and close without wanting the rest.
            Some(answer) if loss == Loss::Closed => Outcome::Answered(at_once(answer)),
            _ => Outcome::Failed(loss),
        })
    }

    /// Waits for the answer to a copy that has been sent.
    async fn late(&self, answer: impl Future<Output = Result<Answer, Loss>>) -> Result<Reply, Loss> {
        let sent = Instant::now();
        let answer = timeout(self.member.settings.answer_timeout, answer).await;
        let answer = answer.unwrap_or(Err(Loss::AnswerTimeout))?;
        Ok(Reply { status: answer.status, took: sent.elapsed() })
    }

    /// Writes the copy; how its body ended.
    async fn write(&self, writer: &mut WriteHalf<'_>, head: Vec<u8>) -> Result<End, Loss> {
        write_all(writer, &head[..]).await?;
        let mut length = 0;
        loop {
            let (chunks, end) = self.next().await;
            for Chunk { bytes, _charge } in chunks {
                length += bytes.len();
                if self.chunked {
                    let size = format!("{:x}\r\n", bytes.len());
                    write_all(writer, Buf::chain(size.as_bytes(), bytes).chain(&b"\r\n"[..])).await?;
                } else {
                    write_all(writer, bytes).await?;
                }
            }
            match end {
                None => {}
                Some(End::Aborted(loss)) => return Err(loss),
                Some(end) => {
                    if self.chunked {
                        let cut = if end == End::Cut {
                            format!("{TRUNCATED}: {length}\r\n")
                        } else {
                            String::new()
                        };
                        write_all(writer, format!("0\r\n{cut}\r\n").as_bytes()).await?;
                    }
                    return Ok(end);
                }
            }
        }
    }

    /// Waits for chunks or the end.
    async fn next(&self) -> (VecDeque<Chunk>, Option<End>) {
        loop {
            {
                let mut queue = self.queue.lock();
                if queue.end.is_some() || !queue.chunks.is_empty() {
                    return (mem::take(&mut queue.chunks), queue.end);
                }
            }
            self.wake.notified().await;
        }
    }

    fn aborted(&self) -> Option<Loss> {
        match self.queue.lock().end {
            Some(End::Aborted(loss)) => Some(loss),
            _ => None,
        }
    }
}

impl Queue {
    fn abort(&mut self, loss: Loss) {
        self.chunks.clear();
        self.end = Some(End::Aborted(loss));
    }
}

/// Writes it all; a member that takes nothing for long has lost it.
async fn write_all(writer: &mut WriteHalf<'_>, mut bytes: impl Buf) -> Result<(), Loss> {
    while bytes.has_remaining() {
        match timeout(WRITE_TIMEOUT, writer.write_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Err(Loss::Closed),
            Err(_) => return Err(Loss::WriteTimeout),
        }
    }
    Ok(())
}

/// Reads one answer to its end.
async fn read_answer(reader: &mut ReadHalf<'_>, head_request: bool) -> Result<Answer, Loss> {
    let mut framer = Framer::default();
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let length = reader.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return framer.close().ok_or(Loss::Closed);
        }
        match framer.next(&mut &buffer[..length], head_request) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(_) => return Err(Loss::NotHttp),
        }
    }
}

const READ_BUFFER: usize = 4 * 1024;

/// Chunks below this size are copied rather than shared.
const COPIED_CHUNK: usize = 2 * 1024;
