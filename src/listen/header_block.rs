//! Looking into an HTTP/2 header block (RFC 7541) for single things, without decoding it.
//!
//! What the client has put into the dynamic table is not looked up: it was looked at when it came.

/// Whether a field of a block (RFC 7541, section 6) is a pseudo-header field, by its place in the static table or by its
/// name. The library drops one that is in the dynamic table.
pub(super) fn has_pseudo_field(block: &[u8]) -> bool {
    Fields { block, at: 0 }.any(|field| {
        (1..=LAST_PSEUDO_FIELD).contains(&field.index)
            || field.name.is_some_and(|name| match name.coded {
                false => name.bytes.starts_with(b":"),
                true => matches!(name.bytes.first(), Some(COLON_IN_HUFFMAN..=COLON_IN_HUFFMAN_AND_1)),
            })
    })
}

/// Puts a `>`, which no path may have, in the place of a `#` in `:path`: the library would cut off what follows, and take
/// the request for another one.
pub(super) fn spoil_fragment(block: &mut [u8]) {
    let fragment = Fields { block, at: 0 }.filter(Field::is_path).find_map(|field| {
        let value = field.value?;
        match value.coded {
            false => memchr::memchr(b'#', value.bytes).map(|at| (value.at + at, b'#' ^ b'>')),
            true => hash_in_huffman(value.bytes).map(|bit| {
                let last = bit + HASH_BITS - 1;
                (value.at + last / 8, 0x80 >> (last % 8))
            }),
        }
    });
    if let Some((at, bits)) = fragment {
        block[at] ^= bits;
    }
}

/// What is said of a field, and where. A change of the table's size is one without anything.
#[derive(Default)]
struct Field<'a> {
    /// In the tables, of the field or of its name; 0 where the name is told.
    index: usize,
    name: Option<Text<'a>>,
    /// Where it is told, and whole.
    value: Option<Text<'a>>,
}

impl Field<'_> {
    /// Whether it tells a path.
    fn is_path(&self) -> bool {
        let told = |name: &Text<'_>| match name.coded {
            false => name.bytes == b":path",
            true => name.bytes == PATH_IN_HUFFMAN,
        };
        PATHS.contains(&self.index) || self.name.as_ref().is_some_and(told)
    }
}

struct Text<'a> {
    /// In Huffman's code.
    coded: bool,
    bytes: &'a [u8],
    /// Where they begin in the block.
    at: usize,
}

/// The fields of a block, as far as it is whole.
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let first = *self.block.get(self.at)?;
        let (prefix, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            // The size of the dynamic table.
            0x20.. => {
                self.integer(5)?;
                return Some(Field::default());
            }
            _ => (4, true),
        };
        let mut field = Field { index: self.integer(prefix)?, ..Field::default() };
        if is_literal {
            if field.index == 0 {
                field.name = Some(self.text()?);
            }
            field.value = self.text();
            if field.value.is_none() {
                self.at = self.block.len();
            }
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    /// RFC 7541, 5.1.
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1 << prefix) - 1;
        let mut number = usize::from(self.byte()? & mask as u8);
        if number < mask {
            return Some(number);
        }
        for shift in (0..28).step_by(7) {
            let next = self.byte()?;
            number += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// RFC 7541, 5.2.
    fn text(&mut self) -> Option<Text<'a>> {
        let coded = self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let at = self.at;
        let bytes = self.block.get(at..)?.get(..length)?;
        self.at += length;
        Some(Text { coded, bytes, at })
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.block.get(self.at).copied();
        self.at += 1;
        byte
    }
}

/// The bit at which the code of a `#` begins.
fn hash_in_huffman(coded: &[u8]) -> Option<usize> {
    let mut bit = 0;
    while bit + HASH_BITS <= 8 * coded.len() {
        let mut ahead = [0xff; 8];
        let rest = &coded[bit / 8..];
        let length = rest.len().min(ahead.len());
        ahead[..length].copy_from_slice(&rest[..length]);
        let next = (u64::from_be_bytes(ahead) << (bit % 8) >> 32) as u32;
        if next >> (32 - HASH_BITS) == HASH_IN_HUFFMAN {
            return Some(bit);
        }
        bit += CODES.iter().find(|(end, _)| next < *end).map_or(LONGEST_CODE, |(_, length)| *length);
    }
    None
}

/// `:status`, the last pseudo-header field of the static table.
const LAST_PSEUDO_FIELD: usize = 14;
/// Fields of the static table whose name is `:path`.
const PATHS: [usize; 2] = [4, 5];
const PATH_IN_HUFFMAN: &[u8] = b"\xb9\x58\xd3\x3f";
/// 1011100 and a bit of the next character.
const COLON_IN_HUFFMAN: u8 = 0xb8;
const COLON_IN_HUFFMAN_AND_1: u8 = 0xb9;
/// The code of `>` is one more.
const HASH_IN_HUFFMAN: u32 = 0xffa;
const HASH_BITS: usize = 12;
/// Huffman's code is canonical (RFC 7541, appendix B): what is less than this, in 32 bits, and in no line above, begins
/// with a code of this length.
const CODES: [(u32, usize); 20] = [
    (0x50000000, 5),
    (0xb8000000, 6),
    (0xf8000000, 7),
    (0xfe000000, 8),
    (0xff400000, 10),
    (0xffa00000, 11),
    (0xffc00000, 12),
    (0xfff00000, 13),
    (0xfff80000, 14),
    (0xfffe0000, 15),
    (0xfffe6000, 19),
    (0xfffee000, 20),
    (0xffff4800, 21),
    (0xffffb000, 22),
    (0xffffea00, 23),
    (0xfffff600, 24),
    (0xfffff800, 25),
    (0xfffffbc0, 26),
    (0xfffffe20, 27),
    (0xfffffff0, 28),
];
const LONGEST_CODE: usize = 30;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fragment_in_a_path_is_spoilt_however_the_path_is_told() {
        let spoilt = |block: &[u8]| {
            let mut after = block.to_vec();
            spoil_fragment(&mut after);
            (after != block).then_some(after)
        };
        for (what, block, after) in [
            ("by the index of its name", &b"\x82\x44\x04/a#b"[..], Some(&b"\x82\x44\x04/a>b"[..])),
            ("not kept", b"\x04\x02#b", Some(b"\x04\x02>b")),
            ("never to be kept", b"\x15\x02/#", Some(b"\x15\x02/>")),
            ("by its name", b"\x40\x05:path\x02/#", Some(b"\x40\x05:path\x02/>")),
            (
                "by its name in Huffman's code",
                b"\x40\x84\xb9\x58\xd3\x3f\x02/#",
                Some(b"\x40\x84\xb9\x58\xd3\x3f\x02/>"),
            ),
            ("after a change of the table", b"\x3f\x01\x44\x02/#", Some(b"\x3f\x01\x44\x02/>")),
            ("without a fragment", b"\x44\x02/a", None),
            ("of another field", b"\x44\x01/\x41\x02a#\x00\x01x\x01#", None),
            ("cut", b"\x44\x04/#", None),
            ("of the table", b"\x84\x85", None),
            ("", b"", None),
        ] {
            assert_eq!(spoilt(block).as_deref(), after, "{what}");
        }
    }

    #[test]
    fn a_fragment_is_found_in_huffmans_code() {
        for (path, coded, bit) in [
            ("/a#b", &b"\x60\x7f\xf5\x1f"[..], Some(11)),
            ("#", &b"\xff\xaf"[..], Some(0)),
            ("/#", &b"\x63\xfe\xbf"[..], Some(6)),
            (
                "/index.html?q=1#top",
                &b"\x60\xd5\x48\x5f\x2b\xce\x9a\x68\xff\x3b\x40\x1f\xfa\x49\xeb"[..],
                Some(92),
            ),
            (
                "/\x5c{}|~^`<>#!",
                &b"\x63\xff\xf8\x7f\xfe\xff\xf7\xfe\x7f\xf7\xff\xcf\xff\xbf\xff\x3f\xef\xfe\xbf\x8f"[..],
                Some(134),
            ),
            ("/a>b", &b"\x60\x7f\xf7\x1f"[..], None),
            (
                "/index.html?a=b&c=%20",
                &b"\x60\xd5\x48\x5f\x2b\xce\x9a\x68\xff\x07\x04\x7f\x04\x81\x51\x03"[..],
                None,
            ),
            ("/\u{ff}\x01#", &b"\x63\xff\xff\xee\xff\xff\xb1\xff\x5f"[..], Some(55)),
            ("/a!b", &b"\x60\x7f\xc4\x7f"[..], None),
            (">>>", &b"\xff\xbf\xfb\xff\xbf"[..], None),
        ] {
            assert_eq!(hash_in_huffman(coded), bit, "{path}");
        }
        let mut block = b"\x44\x84\x60\x7f\xf5\x1f".to_vec();
        spoil_fragment(&mut block);
        assert_eq!(block, b"\x44\x84\x60\x7f\xf7\x1f", "a path with `>`");
    }

    /// One field as a client may write it, or a change of the table's size, and whether it is a pseudo-header field.
    fn field() -> impl Strategy<Value = (Vec<u8>, bool)> {
        let value = proptest::collection::vec(any::<u8>(), 0..200);
        let name = prop_oneof![
            "[a-z][a-z-]{0,200}".prop_map(|name| (name, false)),
            ":[a-z]{1,9}".prop_map(|name| (name, true))
        ];
        let literal = prop_oneof![Just((0x40u8, 6)), Just((0x00, 4)), Just((0x10, 4))];
        let is_pseudo = |index: usize| (1..=LAST_PSEUDO_FIELD).contains(&index);
        prop_oneof![
            (1usize..5000).prop_map(move |index| (written(0x80, 7, index), is_pseudo(index))),
            (0usize..70_000).prop_map(|size| (written(0x20, 5, size), false)),
            (literal.clone(), 1usize..5000, value.clone()).prop_map(move |((kind, prefix), index, value)| {
                ([written(kind, prefix, index), text(&value)].concat(), is_pseudo(index))
            }),
            (literal, name, value).prop_map(|((kind, _), (name, pseudo), value)| {
                ([vec![kind], text(name.as_bytes()), text(&value)].concat(), pseudo)
            }),
        ]
    }

    /// RFC 7541, 5.1.
    fn written(kind: u8, prefix: u32, number: usize) -> Vec<u8> {
        let mask = (1 << prefix) - 1;
        if number < mask {
            return vec![kind | number as u8];
        }
        let (mut bytes, mut left) = (vec![kind | mask as u8], number - mask);
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes
    }

    fn text(bytes: &[u8]) -> Vec<u8> {
        [written(0, 7, bytes.len()), bytes.to_vec()].concat()
    }

    proptest! {
        #[test]
        fn a_block_has_a_pseudo_field_if_one_of_its_fields_is_one(fields in proptest::collection::vec(field(), 0..8)) {
            let block: Vec<u8> = fields.iter().flat_map(|(field, _)| field.clone()).collect();
            prop_assert_eq!(has_pseudo_field(&block), fields.iter().any(|(_, pseudo)| *pseudo));
        }

        #[test]
        fn what_follows_changes_nothing_about_a_pseudo_field(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), more in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if has_pseudo_field(&bytes) {
                prop_assert!(has_pseudo_field(&[bytes, more].concat()));
            }
        }

        #[test]
        fn no_more_than_one_byte_is_spoilt(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut after = bytes.clone();
            spoil_fragment(&mut after);
            prop_assert!(bytes.iter().zip(&after).filter(|(before, after)| before != after).count() <= 1);
        }
    }
}
