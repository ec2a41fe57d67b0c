//! The copies of one request: taps that get what the app gets, once, whatever the number of attempts.

use bytes::Bytes;
use pingora::{Error, ErrorSource, http::RequestHeader, proxy::Session};

use super::{
    exchange::{Ctx, Routed},
    forward::asks_for_tunnel,
    notes::CopyEnd,
    peer::preface_of,
};
use crate::{
    clone::{BodyKind, CopyHead, DropReason, MARK, MarkKeys, SkipReason, Tap, is_copy},
    rule::{CloneEvent, CloneOrder, host},
};

/// The taps of a request.
#[derive(Default)]
pub(super) struct Copies {
    opened: bool,
    /// Each with the order that it carries out.
    taps: Vec<(Tap, CloneOrder)>,
    /// Bytes of the body that the taps have.
    given: u64,
    /// Bytes of the body that this attempt has seen. A retry replays what earlier attempts read.
    seen: u64,
}

impl Copies {
    pub(super) fn new_attempt(&mut self) {
        self.seen = 0;
    }

    /// Gives the taps what they have not had yet of a chunk. `dropped` hears of the copies that are given up.
    pub(super) fn data(
        &mut self,
        chunk: Option<&Bytes>,
        end: bool,
        mut dropped: impl FnMut(&CloneOrder, DropReason),
    ) {
        if self.taps.is_empty() {
            return;
        }
        if let Some(chunk) = chunk {
            let known = self.given.saturating_sub(self.seen).min(chunk.len() as u64);
            self.seen += chunk.len() as u64;
            self.given = self.given.max(self.seen);
            let fresh = chunk.slice(known as usize..);
            for (tap, order) in self.taps.iter_mut().filter(|_| !fresh.is_empty()) {
                if let Some(reason) = tap.data(&fresh) {
                    dropped(order, reason);
                }
            }
        }
        if end {
            self.close(Tap::end, dropped);
        }
    }

    /// The request is over; a body that did not end aborts its copies.
    pub(super) fn finish(&mut self, error: Option<&Error>, dropped: impl FnMut(&CloneOrder, DropReason)) {
        let by_client = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        self.close(if by_client { Tap::abort } else { Tap::unfinished }, dropped);
    }

    fn close(
        &mut self,
        how: fn(Tap) -> Option<DropReason>,
        mut dropped: impl FnMut(&CloneOrder, DropReason),
    ) {
        for (tap, order) in self.taps.drain(..) {
            if let Some(reason) = how(tap) {
                dropped(&order, reason);
            }
        }
    }
}

/// Opens the taps that rules ordered, once, and not while the request is on its way to another site.
pub(super) fn open(session: &mut Session, ctx: &mut Ctx) {
    let Some(Routed { vs, exchange, notes }) = ctx.routed.as_deref_mut() else { return };
    if ctx.copies.opened || !exchange.clones_allowed() {
        return;
    }
    for (pool, reason) in std::mem::take(&mut exchange.never_ordered) {
        notes.iter_mut().for_each(|notes| notes.not_copied(&pool, reason));
        vs.chain.clone_dropped(&mut CloneEvent::never_ordered(exchange, &pool, reason));
    }
    if exchange.clones.is_empty() {
        return;
    }
    ctx.copies.opened = true;
    let orders = std::mem::take(&mut exchange.clones);
    let empty = session.is_body_empty();
    let head = session.req_header();
    let unwanted = match (is_copy(&head.headers), asks_for_tunnel(head)) {
        (true, _) => Some(SkipReason::Loop),
        (false, true) => Some(SkipReason::Upgrade),
        (false, false) => None,
    };
    let body = match (empty, content_length(&head.headers)) {
        (true, _) => BodyKind::None,
        (false, Some(length)) => BodyKind::Length(length),
        (false, None) => BodyKind::Unknown,
    };
    let client = exchange.introduction().x_forwarded_for;
    for order in orders {
        let Some(lanes) = vs.clone_pool(&order.pool) else { continue };
        if let Some(reason) = unwanted {
            lanes.skip(reason);
            notes.iter_mut().for_each(|notes| notes.copied(&order, CopyEnd::Skipped(reason)));
            continue;
        }
        vs.chain.clone_selected(&mut CloneEvent::selected(exchange, &order));
        let mut digits = Default::default();
        let copy = CopyHead {
            method: &head.method,
            target: target(head),
            host: host(head),
            headers: &head.headers,
            client: client.to_str().unwrap_or_default(),
            secure: exchange.is_secure(),
            session: order.session,
            seq: order.seq,
            request_id: exchange.request_id().text(&mut digits),
            drop_cookies: vs.own_cookies(),
            body,
        };
        let preface = lanes.proxy_protocol().map(|version| preface_of(version, exchange));
        let tap = lanes.tap(order.server, &copy, preface);
        let end = tap.as_ref().map_or_else(|reason| CopyEnd::Dropped(*reason), |_| CopyEnd::Sent);
        notes.iter_mut().for_each(|notes| notes.copied(&order, end));
        match tap {
            // Complete as it is; no body will follow.
            Ok(tap) if empty => drop(tap.end()),
            Ok(tap) => ctx.copies.taps.push((tap, order)),
            Err(reason) => vs.chain.clone_dropped(&mut CloneEvent::dropped(exchange, &order, reason)),
        }
    }
}

/// A request is taken for a copy only where homing marked it. What a client writes is taken off, before a rule, the
/// server or a member sees it.
pub(super) fn remove_forged_mark(head: &mut RequestHeader, keys: &MarkKeys) {
    if is_copy(&head.headers) && !keys.is_genuine(&head.headers) {
        head.remove_header(&MARK);
    }
}

/// Path and query. Byte for byte where the client sent nothing else: the parsed form replaces what is not UTF-8.
fn target(head: &RequestHeader) -> &[u8] {
    match head.raw_path() {
        target @ [b'/' | b'*', ..] => target,
        _ => head.uri.path_and_query().map_or(b"/", |target| target.as_str().as_bytes()),
    }
}

pub(super) fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_copied_byte_for_byte_and_without_what_names_the_host() {
        for (sent, copied) in [
            (&b"/a?b=%20"[..], &b"/a?b=%20"[..]),
            (b"/caf\xe9?\xff", b"/caf\xe9?\xff"),
            (b"*", b"*"),
            (b"http://a.com/b?c", b"/b?c"),
            (b"http://a.com", b"/"),
        ] {
            let head = RequestHeader::build("GET", sent, None).expect("a valid head");
            assert_eq!(target(&head), copied, "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn a_target_that_a_rule_wrote_is_copied_as_written() {
        let mut head = RequestHeader::build("GET", b"/\xff", None).expect("a valid head");
        head.set_uri("/new?x".parse().expect("a valid target"));
        assert_eq!(target(&head), b"/new?x");
    }
}
