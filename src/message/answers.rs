//! All that a server sends on one connection: answers, interim ones before a final one for each request, and nothing
//! else.

use super::{Chunks, head::Head};

/// Follows the answers of one connection, one request after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    state: State,
    request: Request,
}

/// What has to be known of a request to know where its answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// Its answer is a head alone.
    Head,
    #[default]
    Other,
}

/// Why an answer cannot be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the status line is not one of HTTP/1.0 or HTTP/1.1")]
    StatusLine,
    #[error("a line of the head ends otherwise than in CR LF")]
    LineEnd,
    #[error("the head has a control character")]
    Control,
    #[error("a line of the head does not begin with a field's name and a colon right behind it")]
    FieldName,
    #[error("a line of the head is folded")]
    Folded,
    #[error("Content-Length is not one number")]
    Length,
    #[error("Transfer-Encoding is other than `chunked`, or of HTTP/1.0")]
    Coding,
    #[error("there are both Content-Length and Transfer-Encoding")]
    TwoFramings,
    #[error("the head is larger than 128 KiB")]
    HeadTooLarge,
    #[error("the chunks are malformed")]
    Chunks,
    #[error("there is more than was asked for")]
    Unasked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No answer is due.
    #[default]
    Over,
    Head(Head),
    /// In a body of this many more bytes.
    Length(u64),
    Chunks(Chunks),
    /// What follows has no end but the connection's.
    UntilClosed,
    Broken(Fault),
}

impl Answers {
    /// A request begins: what follows is its answer.
    pub fn asked(&mut self, request: Request) {
        if self.are_over() {
            (self.state, self.request) = (State::Head(Head::default()), request);
        }
    }

    /// Whether no answer is due, and none was broken.
    pub fn are_over(&self) -> bool {
        self.state == State::Over
    }

    /// What was wrong: nothing more is read then.
    pub fn fault(&self) -> Option<Fault> {
        match self.state {
            State::Broken(fault) => Some(fault),
            _ => None,
        }
    }

    /// Reads on. Returns how many of the bytes are good: fewer than there are if there is a [`fault`](Self::fault).
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match &mut self.state {
                State::UntilClosed => rest.len(),
                State::Length(left) => skip(left, rest),
                State::Chunks(chunks) => chunks.read(rest),
                State::Head(head) => head.read(rest),
                State::Over => {
                    self.state = State::Broken(Fault::Unasked);
                    return at;
                }
                State::Broken(_) => return at,
            };
            if let Some(next) = self.next() {
                self.state = next;
            }
        }
        at
    }

    /// What follows the part that was read last, where that has ended.
    fn next(&self) -> Option<State> {
        match &self.state {
            State::Length(0) => Some(State::Over),
            State::Chunks(chunks) if chunks.are_whole() => Some(State::Over),
            State::Chunks(chunks) if chunks.are_bad() => Some(State::Broken(Fault::Chunks)),
            State::Head(head) if head.is_whole() => Some(self.after(head)),
            State::Head(head) => head.fault().map(State::Broken),
            _ => None,
        }
    }

    /// RFC 9112, section 6.3.
    fn after(&self, head: &Head) -> State {
        match head.status {
            101 => State::UntilClosed,
            100..200 => State::Head(Head::default()),
            204 | 304 => State::Over,
            _ if self.request == Request::Head => State::Over,
            _ if head.is_chunked => State::Chunks(Chunks::default()),
            _ => match head.length {
                Some(0) => State::Over,
                Some(length) => State::Length(length),
                None => State::UntilClosed,
            },
        }
    }
}

/// Counts down by what is there.
fn skip(left: &mut u64, bytes: &[u8]) -> usize {
    let there = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= there as u64;
    there
}
