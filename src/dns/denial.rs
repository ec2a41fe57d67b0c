//! Proofs that something is not there: NSEC records of just the question (RFC 4470), made when it is asked, so that nobody
//! can walk through a zone.
//!
//! A name that is there and lacks a type has an NSEC record of its own. For one that is not there two records cover as
//! little as can be: the name below the closest that is there, with all that would be below it, and the wildcard
//! beside it.

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, NSEC},
    rr::{Name, RData, Record, RecordType},
};

/// That `name` is there, and has `types` alone. `None`: no name can follow it, for it is too long.
pub(super) fn of_type(name: &Name, types: &[RecordType], ttl: u32) -> Option<Record> {
    let next = name.prepend_label(&[0_u8][..]).ok()?;
    Some(record(name.clone(), next, types, ttl))
}

/// That nothing is called `name`, which is somewhere below `encloser`, the closest that is there. Fewer records: a name
/// is too long or too strange to have neighbours.
pub(super) fn of_name(name: &Name, encloser: &Name, ttl: u32) -> Vec<Record> {
    let label = name.iter().rev().nth(encloser.iter().count()).unwrap_or_default();
    let mut proofs: Vec<_> =
        [label, WILDCARD].into_iter().filter_map(|label| covering(label, encloser, ttl)).collect();
    if label == WILDCARD {
        proofs.truncate(1);
    }
    proofs
}

/// Covers the name with this label below `encloser`, and everything below it.
fn covering(label: &[u8], encloser: &Name, ttl: u32) -> Option<Record> {
    let label = label.to_ascii_lowercase();
    let room = MOST_BYTES.saturating_sub(encloser.len() + 1).min(MOST_OF_LABEL);
    let before = Name::from_labels([&*before(&label, room)?]).ok()?.append_domain(encloser).ok()?;
    let after = Name::from_labels([&*after(label, room)?]).ok()?.append_domain(encloser).ok()?;
    Some(record(before, after, &[], ttl))
}

/// The last label of at most `room` bytes before this one, in the order of RFC 4034, but for those that would have to end
/// with upper case.
fn before(label: &[u8], room: usize) -> Option<Vec<u8>> {
    let (last, rest) = label.split_last()?;
    let last = match last.checked_sub(1)? {
        // They count as lower case, which is after it.
        b'A'..=b'Z' => b'A' - 1,
        last => last,
    };
    let mut before = [rest, &[last]].concat();
    before.resize(room.max(before.len()), u8::MAX);
    Some(before)
}

/// The first label of at most `room` bytes that is after this one and all names below it.
fn after(mut label: Vec<u8>, room: usize) -> Option<Vec<u8>> {
    if label.len() < room {
        label.push(0);
        return Some(label);
    }
    while label.pop_if(|last| *last == u8::MAX).is_some() {}
    let last = label.last_mut()?;
    *last = match *last + 1 {
        b'A'..=b'Z' => b'Z' + 1,
        next => next,
    };
    Some(label)
}

fn record(name: Name, next: Name, types: &[RecordType], ttl: u32) -> Record {
    let types = types.iter().copied().chain([RecordType::RRSIG, RecordType::NSEC]);
    Record::from_rdata(name, ttl, RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(next, types))))
}

const WILDCARD: &[u8] = b"*";
/// On the wire.
const MOST_BYTES: usize = 254;
const MOST_OF_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(labels: &[&[u8]]) -> Name {
        Name::from_labels(labels.iter().copied()).expect("a name")
    }

    fn next(record: &Record) -> &Name {
        match &record.data {
            RData::DNSSEC(DNSSECRData::NSEC(nsec)) => nsec.next_domain_name(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_covered_with_all_below_it_and_its_siblings_are_not() {
        let encloser = name(&[b"foo", b"com"]);
        let longest = [b'q'; 63];
        let labels: [&[u8]; 9] = [b"x", b"app", b"[", b"a-", b"0", b"~", &longest, b"\x01", b"B"];
        for label in labels {
            for below in [vec![], vec![&b"a"[..]], vec![&b"\xff\xff"[..], b"z"]] {
                let asked = name(&[&below[..], &[label, b"foo", b"com"]].concat());
                let proofs = of_name(&asked, &encloser, 30);
                assert_eq!(proofs.len(), 2, "{asked}");
                let covers = |record: &Record, it: &Name| record.name < *it && it < next(record);
                assert!(covers(&proofs[0], &asked), "{asked}: {} {}", proofs[0].name, next(&proofs[0]));
                assert!(covers(&proofs[1], &name(&[b"*", b"foo", b"com"])), "{asked}");
                for other in [&b"apo"[..], b"apq", b"apz", b"aq", b"w", b"y", b"c", b"1", b"/", b"a"] {
                    let other = name(&[other, b"foo", b"com"]);
                    assert!(proofs.iter().all(|proof| !covers(proof, &other)), "{asked} denies {other}");
                }
                assert!(proofs.iter().all(|proof| !covers(proof, &encloser)), "{asked}");
            }
        }
        assert_eq!(of_name(&name(&[b"*", b"foo", b"com"]), &encloser, 30).len(), 1);
    }

    #[test]
    fn a_name_that_is_there_has_nothing_after_it_but_what_is_below() {
        let asked = name(&[b"app", b"foo", b"com"]);
        let proof = of_type(&asked, &[RecordType::A], 30).expect("it is short");
        assert_eq!(proof.name, asked);
        assert_eq!(*next(&proof), name(&[b"\0", b"app", b"foo", b"com"]));
        let longest = name(&[&[b'a'; 63][..], &[b'a'; 63], &[b'a'; 63], &[b'a'; 61]]);
        assert!(of_type(&longest, &[], 30).is_none());
    }

    #[test]
    fn names_with_little_room_have_neighbours_too() {
        let encloser = name(&[&[b'a'; 63][..], &[b'a'; 63], &[b'a'; 63], &[b'a'; 50]]);
        for label in [&b"x"[..], b"xyzxyzxyz", b"wwwwwwwwww"] {
            let Ok(asked) = Name::from_labels([label]).unwrap().append_domain(&encloser) else {
                panic!("{label:?} is too long")
            };
            for proof in of_name(&asked, &encloser, 30) {
                assert!(proof.name < *next(&proof));
            }
        }
    }
}
