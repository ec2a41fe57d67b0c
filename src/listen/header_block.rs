//! Looking into an HTTP/2 header block (RFC 7541) for one thing, without decoding it.

/// Whether a field of a block (RFC 7541, section 6) is a pseudo-header field, by its place in the static table or by its
/// name. What the client has put into the dynamic table is not looked up: the library drops such a field.
pub(super) fn has_pseudo_field(mut block: &[u8]) -> bool {
    while let Some(&first) = block.first() {
        let (prefix, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            // The size of the dynamic table.
            0x20.. => (5, false),
            _ => (4, true),
        };
        let Some(index) = integer(&mut block, prefix) else { return false };
        let is_size = first & 0xe0 == 0x20;
        if !is_size && (1..=LAST_PSEUDO_FIELD).contains(&index) {
            return true;
        }
        if is_literal && index == 0 {
            let Some(name) = string(&mut block) else { return false };
            if matches!(name, (false, [b':', ..]) | (true, [COLON_IN_HUFFMAN..=COLON_IN_HUFFMAN_AND_1, ..])) {
                return true;
            }
        }
        if is_literal && string(&mut block).is_none() {
            return false;
        }
    }
    false
}

/// RFC 7541, 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let mask = (1 << prefix) - 1;
    let mut number = usize::from(first & mask as u8);
    if number == mask {
        for shift in (0..28).step_by(7) {
            let (next, after) = rest.split_first()?;
            rest = after;
            number += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                *block = rest;
                return Some(number);
            }
        }
        return None;
    }
    *block = rest;
    Some(number)
}

/// Whether it is in Huffman's code, and its bytes (RFC 7541, 5.2).
fn string<'a>(block: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let coded = block.first()? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (string, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some((coded, string))
}

/// `:status`, the last pseudo-header field of the static table.
const LAST_PSEUDO_FIELD: usize = 14;
/// 1011100 and a bit of the next character.
const COLON_IN_HUFFMAN: u8 = 0xb8;
const COLON_IN_HUFFMAN_AND_1: u8 = 0xb9;
