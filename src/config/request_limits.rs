//! How large a client's request may be, and how slow its body.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    read::Object,
    units::{self, days, milliseconds, seconds},
};

/// What a virtual service takes of a client. Of a head nobody knows yet which virtual service it is for, so those that
/// share a listener must agree on [`HeadLimits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    pub head: HeadLimits,
    /// Bytes; `None`: as many as it likes.
    pub client_max_body_size: Option<u64>,
    /// The longest silence within a body; default 60 s.
    pub client_body_timeout: Duration,
    /// Bytes in a second, over the time that a body was waited for, once that is longer than the timeout; 0: none.
    /// Default 256.
    pub client_body_min_rate: u32,
}

/// The sizes of a request's head, in bytes. Lines count with their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The target: path and query, or URL. Default 8 KiB, as nginx has it.
    pub client_max_uri_size: usize,
    /// One field's line. Default 12 KiB, as Avi has it.
    pub client_max_header_size: usize,
    /// Fields. Default 100, as Envoy and HAProxy have it.
    pub max_header_count: usize,
    /// All of it. Default 48 KiB, as Avi has it.
    pub client_max_request_size: usize,
}

impl RequestLimits {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let body = o.field("client_max_body_size", units::size(1..=LARGEST_BODY));
        Self {
            head: HeadLimits::read(o),
            client_max_body_size: body.map(|bytes| bytes as u64),
            client_body_timeout: o
                .field("client_body_timeout", units::duration(milliseconds(1)..=days(1)))
                .unwrap_or(default.client_body_timeout),
            client_body_min_rate: o
                .field("client_body_min_rate", units::size(0..=FASTEST_RATE))
                .map_or(default.client_body_min_rate, |bytes| bytes as u32),
        }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            client_max_body_size: None,
            client_body_timeout: seconds(60),
            client_body_min_rate: 256,
        }
    }
}

impl HeadLimits {
    fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let whole = o.field("client_max_request_size", units::size(HEAD_SIZES));
        let mut size = |key, default| o.field(key, units::size(PART_SIZES)).unwrap_or(default);
        Self {
            client_max_uri_size: size("client_max_uri_size", default.client_max_uri_size),
            client_max_header_size: size("client_max_header_size", default.client_max_header_size),
            max_header_count: o
                .field("max_header_count", units::whole(1..=MOST_FIELDS))
                .map_or(default.max_header_count, usize::from),
            client_max_request_size: whole.unwrap_or(default.client_max_request_size),
        }
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            client_max_uri_size: 8 << 10,
            client_max_header_size: 12 << 10,
            max_header_count: 100,
            client_max_request_size: 48 << 10,
        }
    }
}

const PART_SIZES: RangeInclusive<usize> = 64..=512 << 10;
/// Pingora takes twice as much.
const HEAD_SIZES: RangeInclusive<usize> = 1 << 10..=512 << 10;
/// What Pingora reads.
const MOST_FIELDS: u16 = 256;
const LARGEST_BODY: usize = 1024 << 30;
const FASTEST_RATE: usize = 1 << 20;
