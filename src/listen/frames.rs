//! The frames of an HTTP/2 client, followed as they go by (RFC 9113, section 4.1).
//!
//! The HTTP/2 library takes any number of frames that cost it little each and the client nothing: PING, SETTINGS,
//! PRIORITY, window updates of a byte, requests that are reset at once. [`Frames`] has an allowance for them, which
//! time, bodies and requests that were served fill up again. And the library overlooks pseudo-header fields among
//! trailers: such trailers are handed to it as ones that do not end their stream, which it refuses. So are first frames
//! that are not SETTINGS, as SETTINGS of a stream, and paths with a fragment, as ones with a byte that no path may have.
//!
//! It looks at frames' heads and at HEADERS, skips all else, and keeps nothing but the beginning of a frame that it
//! has to see whole.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

use super::header_block::{has_pseudo_field, spoil_fragment};

/// Reads from a client through [`Frames`].
pub(super) struct Reader {
    pub frames: Frames,
    held: Vec<u8>,
    /// How many of the bytes that are held may be handed on.
    ready: usize,
}

impl Reader {
    /// A connection of which these bytes were read already.
    pub fn new(mut frames: Frames, read: &[u8]) -> Self {
        let mut held = read.to_vec();
        let ready = frames.look(&mut held);
        Self { frames, held, ready }
    }

    pub fn poll_read(
        &mut self,
        mut stream: Pin<&mut (impl AsyncRead + ?Sized)>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(stream.as_mut().poll_read(cx, buf))?;
            let read = &mut buf.filled_mut()[before..];
            let on = self.frames.look(read);
            if on == read.len() {
                return Poll::Ready(Ok(()));
            }
            self.held = read[on..].to_vec();
            buf.set_filled(before + on);
            if on > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        while self.ready == 0 {
            let mut space = [MaybeUninit::<u8>::uninit(); READ];
            let mut more = ReadBuf::uninit(&mut space);
            ready!(stream.as_mut().poll_read(cx, &mut more))?;
            self.held.extend_from_slice(more.filled());
            // At the end of the stream nothing can become whole any more.
            self.ready = match more.filled() {
                [] => self.held.len(),
                _ => self.frames.look(&mut self.held),
            };
        }
        let on = self.ready.min(buf.remaining());
        buf.put_slice(&self.held[..on]);
        self.held.drain(..on);
        self.ready -= on;
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Follows one connection from its preface on.
pub(super) struct Frames {
    /// Bytes of the present frame, or of the preface, still to come.
    left: usize,
    /// The newest stream of the client's.
    newest: u32,
    /// Streams whose end the client has not sent yet.
    unfinished: Vec<u32>,
    /// Its SETTINGS have come, which are to be the first of its frames.
    begun: bool,
    /// What the allowance began with and never exceeds.
    most: u32,
    spent: u32,
    since: Instant,
    /// Bytes that were written to the client and are not credited yet.
    written: usize,
    flooded: bool,
}

impl Frames {
    pub fn new(allowance: u32, now: Instant) -> Self {
        Self {
            left: PREFACE_LENGTH,
            newest: 0,
            unfinished: Vec::new(),
            begun: false,
            most: allowance,
            spent: 0,
            since: now,
            written: 0,
            flooded: false,
        }
    }

    /// Looks at bytes that follow those before. Says how many of them may be handed on: the others are the beginning
    /// of a frame that has to be seen whole, and come again with what follows them.
    pub fn look(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let skipped = self.left.min(bytes.len() - at);
            self.left -= skipped;
            at += skipped;
            let Some(head) = Head::read(&bytes[at..]) else { return at };
            let end = at + HEAD_LENGTH + head.length;
            if head.kind == HEADERS && head.length <= LONGEST_FRAME {
                let Some(frame) = bytes.get_mut(at..end) else { return at };
                let is_trailers = self.is_trailers(&head);
                let block = head.block(&mut frame[HEAD_LENGTH..]);
                if !is_trailers {
                    spoil_fragment(block);
                } else if has_pseudo_field(block) {
                    frame[FLAGS] &= !END_STREAM;
                }
            }
            if !self.begun {
                self.begun = true;
                if head.kind != SETTINGS {
                    bytes[at + KIND] = SETTINGS;
                    bytes[at + HEAD_LENGTH - 1] |= 1;
                }
            }
            self.count(&head);
            self.left = HEAD_LENGTH + head.length;
        }
    }

    /// So many bytes were written to the client.
    pub fn wrote(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(bytes);
    }

    /// A request was accepted: it was no waste.
    pub fn served(&mut self, requests: u32) {
        self.spent = self.spent.saturating_sub(requests);
    }

    /// Whether the allowance is used up, for good.
    pub fn is_flooded(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.spent > self.most && !self.flooded {
            let now = now();
            let tenths =
                now.saturating_duration_since(self.since).as_millis() * u128::from(self.most) / 10_000;
            let credit = tenths + (std::mem::take(&mut self.written) / BYTES_PER_FRAME) as u128;
            self.since = now;
            self.spent = self.spent.saturating_sub(u32::try_from(credit).unwrap_or(u32::MAX));
            self.flooded = self.spent > self.most;
        }
        self.flooded
    }

    fn is_trailers(&self, head: &Head) -> bool {
        head.kind == HEADERS && head.ends_stream() && self.unfinished.contains(&head.stream)
    }

    fn count(&mut self, head: &Head) {
        let cost = match head.kind {
            DATA if head.length > 0 || head.ends_stream() => 0,
            RST_STREAM => RESET_COST,
            _ => 1,
        };
        if head.kind == HEADERS && head.stream > self.newest {
            self.newest = head.stream;
            if !head.ends_stream() && self.unfinished.len() < MOST_UNFINISHED {
                self.unfinished.push(head.stream);
            }
        } else if !self.unfinished.is_empty() && (head.ends_stream() || head.kind == RST_STREAM) {
            self.unfinished.retain(|stream| *stream != head.stream);
        }
        self.spent = self.spent.saturating_add(cost);
    }
}

/// The head of a frame.
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_LENGTH>()?;
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([d & 0x7f, e, f, g]) })
    }

    fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The fields of a HEADERS frame, without padding and priority.
    fn block<'a>(&self, payload: &'a mut [u8]) -> &'a mut [u8] {
        let has = |flag| self.flags & flag != 0;
        let padding = if has(PADDED) { payload.first().copied().unwrap_or(0) } else { 0 };
        let begin = usize::from(has(PADDED)) + if has(PRIORITIZED) { 5 } else { 0 };
        let end = payload.len().saturating_sub(padding.into());
        payload.get_mut(begin..end).unwrap_or_default()
    }
}

/// What is read at once of the rest of a frame; it is on the stack.
const READ: usize = 4096;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;
const HEAD_LENGTH: usize = 9;
/// Where a head's kind and flags are.
const KIND: usize = 3;
const FLAGS: usize = 4;
/// What a client of HTTP/2 says first.
pub(super) const PREFACE: &[u8; PREFACE_LENGTH] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const PREFACE_LENGTH: usize = 24;
/// The library refuses longer ones.
const LONGEST_FRAME: usize = 16 << 10;
/// Whose trailers are looked at; more at once are refused by the library.
const MOST_UNFINISHED: usize = 10_000;
/// A request that is reset has cost more than a frame: it may be at a server already.
const RESET_COST: u32 = 5;
/// A client that gets so many bytes has reason for a frame.
const BYTES_PER_FRAME: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// What is handed on of bytes that come in pieces.
    fn handed_on(frames: &mut Frames, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut held, mut on) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let taken = frames.look(&mut held);
            on.extend(held.drain(..taken));
        }
        on.extend(held);
        on
    }

    #[test]
    fn trailers_with_a_pseudo_field_do_not_end_their_stream_however_they_arrive() {
        let head = [frame(SETTINGS, 0, 0, b""), frame(HEADERS, 0x4, 1, b"\x82\x87")].concat();
        for (what, block, flags, wrong) in [
            ("an indexed one", &b"\x82"[..], 0, true),
            ("the last of the table", b"\x8e", 0, true),
            ("one by the index of its name", b"\x42\x01x", 0, true),
            ("one by the index of its name, not kept", b"\x02\x01x", 0, true),
            ("one by its name", b"\x00\x05:path\x01/", 0, true),
            ("one by its name in Huffman's code", b"\x40\x84\xb9\x58\xd3\x3f\x01/", 0, true),
            ("one after another field", b"\x40\x01x\x01y\x84", 0, true),
            ("one after a change of the table", b"\x3f\x01\x84", 0, true),
            ("one in padding's frame", b"\x02\x84\0\0", PADDED, true),
            ("one after a priority", b"\0\0\0\0\0\x84", PRIORITIZED, true),
            ("a field", b"\x40\x01x\x01y", 0, false),
            ("a field with a colon in its value", b"\x00\x01x\x05:path", 0, false),
            ("a field of the table", b"\xbe", 0, false),
            ("padding that looks like one", b"\x02\xbe\x84\x84", PADDED, false),
            ("a field that is cut", b"\x00\x7f", 0, false),
            ("nothing", b"", 0, false),
        ] {
            let trailers = frame(HEADERS, END_STREAM | 0x4 | flags, 1, block);
            let mut expected = trailers.clone();
            if wrong {
                expected[FLAGS] &= !END_STREAM;
            }
            let bytes = [&PREFACE[..], &head, &trailers].concat();
            let expected = [&PREFACE[..], &head, &expected].concat();
            for cut in 0..=bytes.len() {
                let mut frames = Frames::new(1000, Instant::now());
                let on = handed_on(&mut frames, &[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(on, expected, "{what}, cut at {cut}");
            }
        }
    }

    #[test]
    fn heads_of_streams_that_are_new_or_ended_are_left_alone() {
        let head = frame(HEADERS, END_STREAM | 0x4, 1, b"\x82\x87\x84");
        let bytes = [&PREFACE[..], &frame(SETTINGS, 0, 0, b""), &head, &head].concat();
        let mut frames = Frames::new(1000, Instant::now());
        assert_eq!(handed_on(&mut frames, &[&bytes]), bytes);
    }

    #[test]
    fn a_first_frame_that_is_not_settings_becomes_some_that_are_refused() {
        let bytes = [&PREFACE[..], &frame(6, 0, 0, &[0; 8])].concat();
        let refused = [&PREFACE[..], &frame(SETTINGS, 0, 1, &[0; 8])].concat();
        assert_eq!(handed_on(&mut Frames::new(1000, Instant::now()), &[&bytes]), refused);
    }

    #[test]
    fn frames_that_are_of_no_use_are_allowed_for_and_no_more() {
        let start = Instant::now();
        let ping = frame(6, 0, 0, &[0; 8]);
        let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
        let empty = frame(DATA, 0, 1, b"");
        let data = frame(DATA, 0, 1, b"x");
        for (what, frame, allowed) in [
            ("PING", &ping, 100),
            ("RST_STREAM", &reset, 20),
            ("empty DATA", &empty, 100),
            ("DATA", &data, 9999),
        ] {
            let mut frames = Frames::new(100, start);
            frames.look(&mut PREFACE.to_vec());
            let mut fits = 0;
            while fits < 9999 && {
                frames.look(&mut frame.clone());
                !frames.is_flooded(|| start)
            } {
                fits += 1;
            }
            assert_eq!(fits, allowed, "{what}");
        }
    }

    #[test]
    fn time_bodies_and_requests_fill_the_allowance() {
        let start = Instant::now();
        let ping = frame(6, 0, 0, &[0; 8]);
        let used_up = || {
            let mut frames = Frames::new(100, start);
            frames.look(&mut PREFACE.to_vec());
            frames.look(&mut ping.repeat(110));
            frames
        };
        assert!(used_up().is_flooded(|| start));
        assert!(!used_up().is_flooded(|| start + Duration::from_secs(1)), "a tenth in a second");
        assert!(used_up().is_flooded(|| start + Duration::from_millis(800)));
        let mut reading = used_up();
        reading.wrote(10 * BYTES_PER_FRAME);
        assert!(!reading.is_flooded(|| start));
        let mut asking = used_up();
        asking.served(10);
        assert!(!asking.is_flooded(|| start));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_handed_on_whole(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(vec![0u8, 1, 5])], 0..300,
            ),
            cut in 0usize..300,
        ) {
            let bytes = [PREFACE, &bytes[..]].concat();
            let cut = cut.min(bytes.len());
            let whole = handed_on(&mut Frames::new(100, Instant::now()), &[&bytes]);
            let pieces = handed_on(&mut Frames::new(100, Instant::now()), &[&bytes[..cut], &bytes[cut..]]);
            prop_assert_eq!(&whole, &pieces);
            prop_assert_eq!(whole.len(), bytes.len());
        }
    }
}
