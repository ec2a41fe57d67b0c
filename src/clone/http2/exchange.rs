//! One copy on an HTTP/2 stream: its body goes as fast as the member gives window, and its answer is read to its
//! end and forgotten, which gives the window back.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use tokio::{
    pin, select,
    time::{Instant, timeout},
};

use crate::clone::{
    copies::Copy,
    count::{Loss, Reply},
    member::WRITE_TIMEOUT,
};

/// A copy under way.
pub(super) struct Exchange {
    /// In the order of sending.
    pub number: u64,
    pub copy: Copy,
    /// Head and body, in case they have to be sent again.
    pub bytes: Bytes,
}

/// How a copy ended that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The member says that it has not begun with it (RFC 9113 section 6.8).
    Untouched,
    Whole(Loss),
    InPart(Loss),
}

impl Exchange {
    /// Sends the body, waits for the answer, and says how it ended.
    pub async fn run(
        self,
        answer: ResponseFuture,
        body: Option<(SendStream<Bytes>, Bytes)>,
        answer_timeout: Duration,
    ) -> (Self, Result<Reply, Unanswered>) {
        let ended = converse(answer, body, answer_timeout).await;
        (self, ended)
    }
}

async fn converse(
    answer: ResponseFuture,
    body: Option<(SendStream<Bytes>, Bytes)>,
    answer_timeout: Duration,
) -> Result<Reply, Unanswered> {
    let answer = read_answer(answer);
    pin!(answer);
    if let Some((mut stream, body)) = body {
        select! {
            biased;
            // A member may answer without wanting the rest.
            status = &mut answer => {
                let status = status.map_err(|error| unanswered(&error, Unanswered::InPart))?;
                return Ok(Reply { status, took: Duration::ZERO });
            }
            sent = send(&mut stream, body, true) => sent.map_err(Unanswered::InPart)?,
        }
    }
    let sent = Instant::now();
    match timeout(answer_timeout, answer).await {
        Ok(Ok(status)) => Ok(Reply { status, took: sent.elapsed() }),
        Ok(Err(error)) => Err(unanswered(&error, Unanswered::Whole)),
        Err(_) => Err(Unanswered::Whole(Loss::AnswerTimeout)),
    }
}

/// Reads an answer to its end; its status.
pub(in crate::clone) async fn read_answer(answer: ResponseFuture) -> Result<u16, h2::Error> {
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    Ok(status)
}

/// Hands `bytes` over as the member gives window for them; one that gives none for long has lost them.
pub(in crate::clone) async fn send(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    last: bool,
) -> Result<(), Loss> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let window = match timeout(WRITE_TIMEOUT, poll_fn(|context| stream.poll_capacity(context))).await {
            Ok(Some(Ok(window))) => window.min(bytes.len()),
            Ok(Some(Err(error))) => return Err(loss(&error)),
            Ok(None) => return Err(why_closed(stream)),
            Err(_) => return Err(Loss::WriteTimeout),
        };
        let piece = bytes.split_to(window);
        stream.send_data(piece, last && bytes.is_empty()).map_err(|error| loss(&error))?;
    }
    Ok(())
}

/// Why a stream takes nothing more.
fn why_closed(stream: &mut SendStream<Bytes>) -> Loss {
    match stream.poll_reset(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) => Loss::Reset,
        Poll::Ready(Err(error)) => loss(&error),
        Poll::Pending => Loss::Closed,
    }
}

fn unanswered(error: &h2::Error, sent: impl FnOnce(Loss) -> Unanswered) -> Unanswered {
    match error.is_go_away() && error.is_remote() {
        true => Unanswered::Untouched,
        false => sent(loss(error)),
    }
}

/// What an error of a stream or a connection means for copies.
pub(in crate::clone) fn loss(error: &h2::Error) -> Loss {
    if error.is_library() {
        Loss::NotHttp
    } else if error.is_reset() {
        Loss::Reset
    } else {
        Loss::Closed
    }
}
