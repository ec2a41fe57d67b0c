//! The app path's end of a copy: it is told of the request's body as that goes by, and never waits.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    budget::Charge,
    copy::Framing,
    count::{DropReason, Loss},
    lane::{Copy, Lane},
    member::Member,
    stream::Stream,
};
use crate::config::OnOverflow;

/// A copy whose request is not complete. Dropped before [`Tap::end`] or [`Tap::unfinished`], the copy is given
/// up: the client went away. Nothing here blocks, waits, or fails the request.
pub struct Tap(State);

enum State {
    /// The copy needs nothing more.
    Done,
    /// The body waits in memory until it is complete.
    Gathering(Gathering),
    Streaming(Arc<Stream>),
}

/// A copy that shares a lane once its body is complete.
pub(super) struct Gathering {
    pub member: Arc<Member>,
    pub lane: usize,
    /// Without framing.
    pub head: Vec<u8>,
    pub head_request: bool,
    /// What is known of the body's length.
    pub length: Option<u64>,
    body: Vec<u8>,
    /// There was no room for the rest of the body.
    cut: bool,
    charge: Charge,
}

impl Tap {
    pub(super) fn done() -> Self {
        Self(State::Done)
    }

    pub(super) fn streaming(stream: Arc<Stream>) -> Self {
        Self(State::Streaming(stream))
    }

    pub(super) fn gathering(gathering: Gathering) -> Self {
        Self(State::Gathering(gathering))
    }

    /// The next bytes of the request's body. A body that is sent to another server again is told only once.
    pub fn data(&mut self, bytes: &Bytes) {
        match &mut self.0 {
            State::Done => {}
            State::Streaming(stream) => stream.data(bytes),
            State::Gathering(gathering) => match gathering.data(bytes) {
                Ok(true) => {}
                Ok(false) => self.stream(bytes),
                Err(reason) => self.give_up(reason),
            },
        }
    }

    /// The request is complete.
    pub fn end(mut self) {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Done => {}
            State::Streaming(stream) => stream.end(),
            State::Gathering(gathering) => gathering.end(),
        }
    }

    /// The request was answered, or failed, before its body had come whole: the copy is given up.
    pub fn unfinished(mut self) {
        match &self.0 {
            State::Done => {}
            State::Streaming(stream) => stream.abort(Loss::Unfinished),
            State::Gathering(_) => self.give_up(DropReason::Unfinished),
        }
        self.0 = State::Done;
    }

    /// A body that turns out to be large goes on a connection of its own.
    fn stream(&mut self, bytes: &Bytes) {
        let State::Gathering(gathering) = std::mem::replace(&mut self.0, State::Done) else { return };
        let Gathering { member, head, head_request, length, body, charge, .. } = gathering;
        let Some(slot) = member.stream_slot() else {
            return member.counts.dropped(DropReason::Streams);
        };
        let stream = Stream::start(&member, slot, head, head_request, length);
        drop(charge);
        stream.data(&body.into());
        stream.data(bytes);
        self.0 = State::Streaming(stream);
    }

    fn give_up(&mut self, reason: DropReason) {
        if let State::Gathering(gathering) = std::mem::replace(&mut self.0, State::Done) {
            gathering.member.counts.dropped(reason);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        match &self.0 {
            State::Done => {}
            State::Streaming(stream) => stream.abort(Loss::ClientAborted),
            State::Gathering(_) => self.give_up(DropReason::ClientAborted),
        }
    }
}

impl Gathering {
    /// Takes room for the head. The body takes room as it comes: what a client only announces keeps nobody out.
    pub fn begin(
        member: &Arc<Member>,
        lane: usize,
        head: Vec<u8>,
        head_request: bool,
        length: Option<u64>,
    ) -> Result<Self, DropReason> {
        let charge = Charge::take(&member.share, cost(&head, 0)).ok_or(DropReason::Budget)?;
        let member = member.clone();
        Ok(Self { member, lane, head, head_request, length, body: Vec::new(), cut: false, charge })
    }

    /// Adds to the body; `Ok(false)`: it would become too large to wait.
    fn data(&mut self, bytes: &Bytes) -> Result<bool, DropReason> {
        if self.cut {
            return Ok(true);
        }
        let length = self.body.len() + bytes.len();
        if length > self.member.settings.inline_body_bytes {
            return Ok(false);
        }
        if !self.charge.cover(cost(&self.head, length)) {
            self.cut = true;
            return match self.member.settings.on_overflow {
                OnOverflow::Truncate => Ok(true),
                OnOverflow::Drop => Err(DropReason::Budget),
            };
        }
        self.body.extend_from_slice(bytes);
        Ok(true)
    }

    fn end(self) {
        let Self { member, lane, head, head_request, body, cut, charge, .. } = self;
        let length = body.len() as u64;
        let framing = if cut { Framing::CutTo(length) } else { Framing::Length(length) };
        let copy = Copy { length: 0, head_request, cut };
        let queued = Lane::push(&member, lane, copy, charge.hand_over(), |out| {
            out.extend_from_slice(&head);
            framing.write(out);
            out.extend_from_slice(&body);
            Ok(())
        });
        if let Err(reason) = queued {
            member.counts.dropped(reason);
        }
    }
}

/// What a copy costs of the budget while its body comes.
fn cost(head: &[u8], body: usize) -> usize {
    head.len() + body + FRAMING
}

/// Room for the framing fields and for what keeps the copy.
const FRAMING: usize = 128;
