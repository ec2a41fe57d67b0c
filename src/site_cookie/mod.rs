//! The site cookie and the signed hop header: what sites tell each other through clients and about requests.
//!
//! The cookie is a routing hint. It names the client's home site to every site that holds the key, and
//! nothing to anyone else. The hop header proves to home that a request was proxied by a peer. Both are
//! engines over bytes: they know no HTTP library, no configuration and no clock; who is a member of a
//! service, and what follows from a cookie, is decided by their callers.
//!
//! Avi calls the cookie the GSLB site cookie and the member's identity in it `prst_hdr_val`; F5 would call it
//! an encrypted persistence cookie. The format here is our own, `1S`, in the shape of Avi's.

mod claims;
mod format;
mod hop;
mod hop_header;
mod key_care;
mod keys;
mod last_opened;
mod replay;
mod server_tag;

pub use claims::{Claims, Opened, member_id};
pub use format::{Codec, Refusal};
pub use hop::{HopError, HopKeys};
pub use hop_header::{ClientScheme, HOP_HEADER, HOP_REFUSED_HEADER, HomeRefusal, Hop, HopFields, HopRefusal};
pub use key_care::{KeyConcern, KeyFile};
pub use keys::{Key, KeyFileError, KeyRing, KeyRingError, KeyState, Secret, write_new_secret};
pub use last_opened::LastOpened;
pub use replay::ReplayGuard;
pub use server_tag::ServerTags;

/// Hands `put` every field with its length before it (16 bits, big-endian), so that no two lists of fields
/// give the same bytes. `false`, and nothing of that field, where one is longer than its length can say.
fn length_prefixed(fields: &[&[u8]], mut put: impl FnMut(&[u8])) -> bool {
    fields.iter().all(|field| {
        let Ok(length) = u16::try_from(field.len()) else { return false };
        put(&length.to_be_bytes());
        put(field);
        true
    })
}
