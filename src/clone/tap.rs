//! The app path's end of a copy: it is told of the request's body as that goes by, and never waits.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    budget::Charge,
    copies::Copy,
    copy::Framing,
    count::{DropReason, Loss},
    lane::Lane,
    member::Member,
    stream::Stream,
};
use crate::{config::OnOverflow, preface::Preface};

/// A copy whose request is not complete. Dropped before [`Tap::end`] or [`Tap::unfinished`], the copy is given up:
/// the client went away. Nothing here blocks, waits, or fails the request.
pub struct Tap {
    state: State,
    /// How much more of the body is copied.
    room: u64,
}

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
    pub preface: Option<Preface>,
    /// Without framing.
    pub head: Vec<u8>,
    pub head_request: bool,
    /// What is known of the body's length.
    pub length: Option<u64>,
    body: Vec<u8>,
    /// There was no room for the rest of the body, or it is not wanted.
    cut: bool,
    charge: Charge,
}

impl Tap {
    pub(super) fn done() -> Self {
        Self { state: State::Done, room: 0 }
    }

    /// `most`: a longer body is cut.
    pub(super) fn streaming(stream: Arc<Stream>, most: u64) -> Self {
        Self { state: State::Streaming(stream), room: most }
    }

    /// `most`: a longer body is cut.
    pub(super) fn gathering(gathering: Gathering, most: u64) -> Self {
        Self { state: State::Gathering(gathering), room: most }
    }

    /// The next bytes of the request's body. A body that is sent to another server again is told only once. Says
    /// why, if the copy is dropped here.
    pub fn data(&mut self, bytes: &Bytes) -> Option<DropReason> {
        let after = self.room.checked_sub(bytes.len() as u64);
        let room = std::mem::replace(&mut self.room, after.unwrap_or(0));
        match after {
            Some(_) => self.pass(bytes),
            None => self.pass(&bytes.slice(..room as usize)).or_else(|| self.cut()),
        }
    }

    fn pass(&mut self, bytes: &Bytes) -> Option<DropReason> {
        match &mut self.state {
            State::Done => None,
            State::Streaming(stream) => {
                stream.data(bytes);
                None
            }
            State::Gathering(gathering) => match gathering.data(bytes) {
                Ok(true) => None,
                Ok(false) => self.stream(bytes),
                Err(reason) => self.give_up(reason),
            },
        }
    }

    /// The request is complete. Says why, if the copy is dropped here.
    pub fn end(mut self) -> Option<DropReason> {
        match self.take() {
            State::Done => None,
            State::Streaming(stream) => {
                stream.end();
                None
            }
            State::Gathering(gathering) => gathering.end(),
        }
    }

    /// The client went away before the request was complete. Says so, if the copy is dropped and not just failed.
    pub fn abort(mut self) -> Option<DropReason> {
        self.stop(DropReason::ClientAborted, Loss::ClientAborted)
    }

    /// The request was answered, or failed, before its body had come whole. Says so, if the copy is dropped and not
    /// just failed.
    pub fn unfinished(mut self) -> Option<DropReason> {
        self.stop(DropReason::Unfinished, Loss::Unfinished)
    }

    /// The body will not be complete: a copy that waits is dropped, one that may have left in part has failed.
    fn stop(&mut self, reason: DropReason, loss: Loss) -> Option<DropReason> {
        if let State::Streaming(stream) = &self.state {
            stream.abort(loss);
        }
        self.give_up(reason)
    }

    /// What has come of the body is all that is copied: the copy need not wait for the request's end.
    fn cut(&mut self) -> Option<DropReason> {
        match self.take() {
            State::Done => None,
            State::Streaming(stream) => {
                stream.cut();
                None
            }
            State::Gathering(gathering) => Gathering { cut: true, ..gathering }.end(),
        }
    }

    /// A body that turns out to be large goes on a connection of its own.
    fn stream(&mut self, bytes: &Bytes) -> Option<DropReason> {
        let State::Gathering(gathering) = self.take() else { return None };
        let Gathering { member, preface, head, head_request, length, body, charge, .. } = gathering;
        let Some(slot) = member.stream_slot() else {
            member.counts.dropped(DropReason::Streams);
            return Some(DropReason::Streams);
        };
        let stream = Stream::start(&member, slot, preface, head, head_request, length);
        drop(charge);
        stream.data(&body.into());
        stream.data(bytes);
        self.state = State::Streaming(stream);
        None
    }

    fn give_up(&mut self, reason: DropReason) -> Option<DropReason> {
        let State::Gathering(gathering) = self.take() else { return None };
        gathering.member.counts.dropped(reason);
        Some(reason)
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Done)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop(DropReason::ClientAborted, Loss::ClientAborted);
    }
}

impl Gathering {
    /// Takes room for the head. The body takes room as it comes: what a client only announces keeps nobody out.
    pub fn begin(
        member: &Arc<Member>,
        lane: usize,
        preface: Option<Preface>,
        head: Vec<u8>,
        head_request: bool,
        length: Option<u64>,
    ) -> Result<Self, DropReason> {
        let charge = Charge::take(&member.share, cost(&head, 0)).ok_or(DropReason::Budget)?;
        let member = member.clone();
        let (body, cut) = Default::default();
        Ok(Self { member, lane, preface, head, head_request, length, body, cut, charge })
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

    fn end(self) -> Option<DropReason> {
        let Self { member, lane, preface, head, head_request, body, cut, charge, .. } = self;
        let length = body.len() as u64;
        let framing = if cut { Framing::CutTo(length) } else { Framing::Length(length) };
        let copy = Copy { head_request, cut, apart: preface.is_some(), ..Copy::default() };
        let queued = Lane::push(&member, lane, copy, preface.as_ref(), charge.hand_over(), |out| {
            out.extend_from_slice(&head);
            framing.write(out);
            out.extend_from_slice(&body);
            Ok(())
        });
        let reason = queued.err()?;
        member.counts.dropped(reason);
        Some(reason)
    }
}

/// What a copy costs of the budget while its body comes.
fn cost(head: &[u8], body: usize) -> usize {
    head.len() + body + FRAMING
}

/// Room for the framing fields and for what keeps the copy.
const FRAMING: usize = 128;
