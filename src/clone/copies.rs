//! Copies in the order in which they leave, one behind the other in one buffer, so that many leave with one write.

use std::collections::VecDeque;

use super::count::{Loss, Outcome, Reply};
use crate::preface::Preface;

#[derive(Default)]
pub(super) struct Copies {
    /// What their connection has to begin with, where it is for one client: that of all of them.
    pub preface: Option<Preface>,
    bytes: Vec<u8>,
    /// How much of `bytes` was written.
    written: usize,
    /// Where the first of `each` begins.
    first: usize,
    each: VecDeque<Copy>,
}

/// One copy, as its answer needs it.
#[derive(Clone, std::marker::Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copy {
    pub length: usize,
    /// Asked with HEAD, so that the answer has no body.
    pub head_request: bool,
    /// Its body was cut.
    pub cut: bool,
    /// Copies for other clients cannot be in one buffer with it.
    pub apart: bool,
    /// It was sent whole before, and this is how its answer was lost then.
    pub lost: Option<Loss>,
}

impl Copy {
    /// What it costs of the budget: its bytes, and what keeps them.
    pub fn charge(self) -> usize {
        self.length + size_of::<Self>() + if self.apart { OWN_BUFFER } else { 0 }
    }

    pub fn answered(self, reply: Reply) -> Outcome {
        if self.cut { Outcome::Truncated(reply) } else { Outcome::Answered(reply) }
    }
}

impl Copies {
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// Whether no more copies should join, so that the buffer is never large to move.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Appends a copy whose bytes `write` appends, and sets its length. If `write` refuses, nothing was appended.
    pub fn push_with<E>(
        &mut self,
        mut copy: Copy,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        admit: impl FnOnce(Copy) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.bytes.len();
        let pushed = write(&mut self.bytes).and_then(|()| {
            copy.length = self.bytes.len() - before;
            admit(copy)
        });
        match pushed {
            Ok(()) => self.each.push_back(copy),
            Err(_) => self.bytes.truncate(before),
        }
        pushed
    }

    pub fn push(&mut self, copy: Copy, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.each.push_back(copy);
    }

    /// The first copy and its bytes.
    pub fn front(&self) -> Option<(Copy, &[u8])> {
        let copy = *self.each.front()?;
        Some((copy, &self.bytes[self.first..self.first + copy.length]))
    }

    /// The bytes of at most `copies` copies that are not written yet.
    pub fn next(&self, copies: usize) -> &[u8] {
        let length: usize = self.each.iter().take(copies).map(|copy| copy.length).sum();
        &self.bytes[self.written.min(self.first + length)..self.first + length]
    }

    /// Whether the first copy has left in part.
    pub fn is_partly_written(&self) -> bool {
        self.written > self.first
    }

    /// Notes that `bytes` more were written, and tells `whole` of the copies that are whole with them.
    pub fn wrote(&mut self, bytes: usize, mut whole: impl FnMut(Copy, &[u8])) {
        self.written += bytes;
        while let Some((copy, bytes)) = self.front()
            && self.first + copy.length <= self.written
        {
            whole(copy, bytes);
            self.first += copy.length;
            self.each.pop_front();
        }
        self.let_go();
    }

    /// Takes out the first copy.
    pub fn pop(&mut self) -> Option<Copy> {
        let copy = self.each.pop_front()?;
        self.first += copy.length;
        self.written = self.first;
        self.let_go();
        Some(copy)
    }

    /// Puts others before what is left, of which nothing must be written in part.
    pub fn put_back(&mut self, mut before: Copies) {
        if before.is_empty() {
            return;
        }
        before.bytes.extend_from_slice(&self.bytes[self.first..]);
        before.each.append(&mut self.each);
        before.preface = self.preface.take();
        *self = before;
    }

    /// Lets go of what has left: all of a buffer in which nothing is left, which can then be filled again, and
    /// the beginning of one of which the larger part has left, for nothing is charged for that any more. What
    /// is moved is less than what was written since the last move.
    fn let_go(&mut self) {
        if self.each.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BUFFER);
            self.each.shrink_to(KEPT_COPIES);
            (self.written, self.first) = (0, 0);
        } else if self.first > KEPT_BUFFER && self.first > self.bytes.len() / 2 {
            self.bytes.drain(..self.first);
            self.bytes.shrink_to(KEPT_BUFFER);
            self.written -= self.first;
            self.first = 0;
        }
    }
}

/// Bytes of a buffer that are kept though nothing is charged for them.
const KEPT_BUFFER: usize = 64 * 1024;

const KEPT_COPIES: usize = 256;

/// What a buffer is, with one copy in it.
const OWN_BUFFER: usize = size_of::<Copies>() + 4 * size_of::<Copy>() + LONGEST_PREFACE;

/// Of version 1: its longest line has 107 bytes.
const LONGEST_PREFACE: usize = 128;

/// Beyond this a buffer takes no more copies: to grow it means to move it, while a request waits.
const FULL: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_of_a_large_batch_is_let_go_before_its_last_copy_is() {
        const LENGTH: usize = 10_000;
        let mut copies = Copies { bytes: Vec::with_capacity(100 * LENGTH), ..Copies::default() };
        for n in 0..100 {
            copies.push(Copy { length: LENGTH, ..Copy::default() }, &[n; LENGTH]);
        }
        let mut whole = 0;
        for n in 0..99 {
            assert_eq!(copies.next(1), [n; LENGTH]);
            copies.wrote(LENGTH - 1, |_, _| whole += 1);
            assert_eq!((copies.next(1), copies.is_partly_written()), (&[n][..], true));
            copies.wrote(1, |_, bytes| {
                assert_eq!(bytes, [n; LENGTH]);
                whole += 1;
            });
            let left = (100 - whole) * LENGTH;
            assert!(copies.bytes.capacity() <= 2 * left + 2 * KEPT_BUFFER, "{}", copies.bytes.capacity());
        }
        assert_eq!(copies.next(2), [99; LENGTH]);
        assert!(copies.pop().is_some() && copies.is_empty());
    }

    #[test]
    fn what_is_put_back_leaves_before_what_is_left() {
        let of = |text: &str| Copy { length: text.len(), ..Copy::default() };
        let mut copies = Copies::default();
        for text in ["one", "three", "four"] {
            copies.push(of(text), text.as_bytes());
        }
        copies.wrote(3, |_, _| {});
        let mut lost = Copies::default();
        for text in ["one", "two"] {
            lost.push(of(text), text.as_bytes());
        }
        copies.put_back(lost);
        copies.put_back(Copies::default());
        let mut order = Vec::new();
        while let Some((_, bytes)) = copies.front() {
            order.push(String::from_utf8(bytes.to_vec()).expect("text"));
            copies.pop();
        }
        assert_eq!(order, ["one", "two", "three", "four"]);
    }

    #[test]
    fn a_copy_that_is_refused_leaves_no_bytes() {
        let mut copies = Copies::default();
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"GET");
            Ok(())
        };
        assert_eq!(copies.push_with(Copy::default(), write, |_| Err("no room")), Err("no room"));
        assert_eq!(
            copies.push_with(Copy::default(), write, |copy| if copy.length == 3 { Ok(()) } else { Err("") }),
            Ok(())
        );
        assert_eq!(copies.next(9), b"GET");
    }
}
