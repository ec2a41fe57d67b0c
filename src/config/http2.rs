//! What an HTTP/2 client may do.

use super::{read::Object, units};

/// HTTP/2 settings of clients' connections; they belong to a listener, and virtual services that share one agree on
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at once on one connection; default 100.
    pub max_concurrent_streams: u32,
    /// Bytes of a request's header fields, each counted with 32 more (RFC 9113, 6.5.2); default 64 KiB.
    pub max_header_list_size: u32,
    /// Frames that are neither a request nor its body, at once; a tenth of them per second after that. Default 1000.
    pub max_control_frames: u32,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3); default false.
    pub prior_knowledge: bool,
}

impl Http2 {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        let header_list = o.field("max_header_list_size", units::size(1 << 10..=16 << 20));
        Self {
            max_concurrent_streams: o
                .field("max_concurrent_streams", units::whole(1..=10_000))
                .unwrap_or(default.max_concurrent_streams),
            max_header_list_size: header_list
                .map_or(default.max_header_list_size, |size| u32::try_from(size).expect("16 MiB at most")),
            max_control_frames: o
                .field("max_control_frames", units::whole(100..=10_000_000))
                .unwrap_or(default.max_control_frames),
            prior_knowledge: o.field("prior_knowledge", units::flag).unwrap_or(default.prior_knowledge),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            max_header_list_size: 64 << 10,
            max_control_frames: 1000,
            prior_knowledge: false,
        }
    }
}
