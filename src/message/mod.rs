//! HTTP/1 messages byte by byte (RFC 9112), as strictly as the RFC lets a proxy be.
//!
//! Pingora's parser mends what it can, so that what homing sees is well formed and may not be what was sent. What stands
//! here reads the same bytes before it does: [`Chunks`] a chunked body, of clients and of servers, and [`Answers`] all
//! that a server sends on a connection. Neither keeps or allocates anything, and both take bytes in pieces of any size.

mod answers;
mod chunks;
mod head;
#[cfg(test)]
mod tests;

pub use answers::{Answers, Fault, Request};
pub use chunks::Chunks;

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// What a field value and a quoted string may hold: no controls but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

const TOKEN: [bool; 256] = {
    let (mut table, others, mut byte) = ([false; 256], b"!#$%&'*+-.^_`|~", 0);
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut other = 0;
    while other < others.len() {
        table[others[other] as usize] = true;
        other += 1;
    }
    table
};
