//! A copy whose body is too large to wait in memory: it has a connection of its own, which carries the body
//! while it arrives and ends with the answer.
//!
//! The app's path puts chunks into a queue that the budget bounds. When the member takes them more slowly than
//! the client sends and the budget is used up, the copy is given up, or cut and marked so at its end.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    mem,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::SendStream;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    runtime::Handle,
    select,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    answer::Framer,
    budget::Charge,
    copy::{Framing, TRUNCATED},
    count::{DropReason, Loss, Outcome, Reply},
    http2,
    member::{Member, StreamSlot, WRITE_TIMEOUT},
    transport::{Link, Transport},
};
use crate::{config::OnOverflow, preface::Preface};

/// The queue between a tap and the task that writes its body.
pub(super) struct Stream {
    member: Arc<Member>,
    preface: Option<Preface>,
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
    /// Starts a copy; `head` is without framing. `None` for the length: it is not known, or not all is wanted.
    pub fn start(
        member: &Arc<Member>,
        slot: StreamSlot,
        preface: Option<Preface>,
        mut head: Vec<u8>,
        head_request: bool,
        length: Option<u64>,
    ) -> Arc<Self> {
        let limited = length.is_none() && member.settings.max_body_bytes < u64::MAX;
        let may_be_cut = limited || member.settings.on_overflow == OnOverflow::Truncate;
        let framing = match length {
            Some(length) if !may_be_cut => Framing::Length(length),
            _ => Framing::Chunked { may_be_cut },
        };
        head.extend_from_slice(b"Connection: close\r\n");
        framing.write(&mut head);
        let stream = Arc::new(Self {
            member: member.clone(),
            preface,
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

    /// No more of the body is wanted. Only for one whose length was not announced.
    pub fn cut(&self) {
        let mut queue = self.queue.lock();
        if queue.end.is_none() {
            queue.end = Some(End::Cut);
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
        let link = self.member.connect(self.preface.as_ref()).await;
        let Link { transport, http2 } = link.map_err(|error| error.reason())?;
        match self.aborted() {
            Some(Loss::Budget) => return Err(DropReason::Budget),
            Some(Loss::Unfinished) => return Err(DropReason::Unfinished),
            Some(_) => return Err(DropReason::ClientAborted),
            None => {}
        }
        if http2 {
            return self.send_http2(transport, head.into()).await;
        }
        let (mut reader, mut writer) = tokio::io::split(transport);
        let answer = read_answer(&mut reader, head_request);
        Ok(self.converse(answer, self.write(&mut writer, head)).await)
    }

    async fn send_http2(&self, transport: Transport, head: Bytes) -> Result<Outcome, DropReason> {
        let (request, _) = http2::parse(&head, &transport.scheme()).ok_or(DropReason::Malformed)?;
        let (mut requests, connection) =
            http2::handshake(transport).await.map_err(|_| DropReason::Connect)?;
        let begun = requests.send_request(request, false);
        let (answer, mut body) = begun.map_err(|_| DropReason::Connect)?;
        let answer = async { http2::read_answer(answer).await.map_err(|error| http2::loss(&error)) };
        let connection = async {
            // What is to be known of its end, the answer and the body know.
            let _ = connection.await;
            pending().await
        };
        select! {
            outcome = self.converse(answer, self.write_http2(&mut body)) => Ok(outcome),
            never = connection => match never {},
        }
    }

    /// Sends the body and waits for the answer, of which its status is kept.
    async fn converse(
        &self,
        answer: impl Future<Output = Result<u16, Loss>>,
        body: impl Future<Output = Result<End, Loss>>,
    ) -> Outcome {
        let mut answer = pin!(answer);
        let mut body = pin!(body);
        let mut early = None;
        let sent = loop {
            // In no order, so that an answer without end does not keep the body from being written.
            select! {
                status = &mut answer, if early.is_none() => match status {
                    Ok(status) => early = Some(Reply { status, took: Duration::ZERO }),
                    Err(loss) => break Err(loss),
                },
                sent = &mut body => break sent,
            }
        };
        match sent {
            Ok(end) => {
                let reply = match early {
                    Some(reply) => Ok(reply),
                    None => self.late(answer).await,
                };
                match (reply, end) {
                    (Ok(reply), End::Cut) => Outcome::Truncated(reply),
                    (Ok(reply), _) => Outcome::Answered(reply),
                    (Err(loss), _) => Outcome::Unanswered(loss),
                }
            }
            Err(loss) => match (early, self.aborted().unwrap_or(loss)) {
                // A member may answer and close without wanting the rest.
                (Some(reply), Loss::Closed | Loss::Reset) => Outcome::Answered(reply),
                (_, loss) => Outcome::Failed(loss),
            },
        }
    }

    /// Waits for the answer to a copy that has been sent.
    async fn late(&self, answer: impl Future<Output = Result<u16, Loss>>) -> Result<Reply, Loss> {
        let sent = Instant::now();
        let status = timeout(self.member.settings.answer_timeout, answer).await;
        let status = status.unwrap_or(Err(Loss::AnswerTimeout))?;
        Ok(Reply { status, took: sent.elapsed() })
    }

    /// Writes the copy; how its body ended.
    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin), head: Vec<u8>) -> Result<End, Loss> {
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

    /// Sends the body on an HTTP/2 stream; how it ended.
    async fn write_http2(&self, stream: &mut SendStream<Bytes>) -> Result<End, Loss> {
        let mut length = 0;
        loop {
            let (chunks, end) = self.next().await;
            for Chunk { bytes, _charge } in chunks {
                length += bytes.len();
                http2::send(stream, bytes, false).await?;
            }
            let ended = match end {
                None => continue,
                Some(End::Aborted(loss)) => return Err(loss),
                Some(End::Whole) => stream.send_data(Bytes::new(), true),
                Some(End::Cut) => {
                    let name = HeaderName::from_static("x-homing-truncated");
                    stream.send_trailers(HeaderMap::from_iter([(name, HeaderValue::from(length))]))
                }
            };
            return ended.map_err(|error| http2::loss(&error)).and(end.ok_or(Loss::Closed));
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
async fn write_all(writer: &mut (impl AsyncWrite + Unpin), mut bytes: impl Buf) -> Result<(), Loss> {
    while bytes.has_remaining() {
        match timeout(WRITE_TIMEOUT, writer.write_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return Err(Loss::Closed),
            Err(_) => return Err(Loss::WriteTimeout),
        }
    }
    Ok(())
}

/// Reads one answer to its end; its status.
async fn read_answer(reader: &mut (impl AsyncRead + Unpin), head_request: bool) -> Result<u16, Loss> {
    let mut framer = Framer::default();
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let length = reader.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return framer.close().map(|answer| answer.status).ok_or(Loss::Closed);
        }
        match framer.next(&mut &buffer[..length], head_request) {
            Ok(Some(answer)) => return Ok(answer.status),
            Ok(None) => {}
            Err(_) => return Err(Loss::NotHttp),
        }
    }
}

const READ_BUFFER: usize = 4 * 1024;

/// Chunks below this size are copied rather than shared.
const COPIED_CHUNK: usize = 2 * 1024;
