//! Bodies that the section wants only in part, or not at all.

use super::*;

fn section_that(change: impl FnOnce(&mut CloneSection)) -> CloneSection {
    let mut section = section();
    change(&mut section);
    section
}

#[tokio::test(start_paused = true)]
async fn a_body_beyond_its_bound_is_cut_and_says_so_and_leaves_before_the_rest_comes() {
    let section = section_that(|section| section.copied.max_body_bytes = Some(4));
    for kind in [BodyKind::Length(9), BodyKind::Unknown] {
        let mut origin = Origin::answering(NO_CONTENT).await;
        let bench = Bench::new(&section, &[origin.addr]);
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&Bytes::from_static(b"abc"));
        tap.data(&Bytes::from_static(b"def"));
        let got = origin.request().await;
        assert_eq!(got.body, b"abcd", "{kind:?}");
        assert!(got.head.contains("\r\nContent-Length: 4\r\nX-Homing-Truncated: 4\r\n"), "{}", got.head);
        tap.data(&Bytes::from_static(b"ghi"));
        drop(tap);
        bench.settled(1).await;
        assert_eq!(bench.copies("truncated", ""), 1, "{kind:?}: what the client does then is all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_within_its_bound_is_whole() {
    let section = section_that(|section| section.copied.max_body_bytes = Some(4));
    for kind in [BodyKind::Length(4), BodyKind::Unknown] {
        let mut origin = Origin::answering(NO_CONTENT).await;
        let bench = Bench::new(&section, &[origin.addr]);
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&Bytes::from_static(b"abcd"));
        tap.end();
        let got = origin.request().await;
        assert_eq!((&got.body[..], got.head.contains("Truncated")), (&b"abcd"[..], false), "{kind:?}");
        bench.settled(1).await;
        assert_eq!(bench.answered(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_beyond_its_bound_is_cut_and_a_trailer_says_so() {
    let section = section_that(|section| section.copied.max_body_bytes = Some(150_000));
    // The test's member keeps trailers behind the body.
    for (kind, length, trailers, outcome) in [
        (BodyKind::Length(300_000), 150_000, "X-Homing-Truncated: 150000", "truncated"),
        (BodyKind::Unknown, 150_000, "X-Homing-Truncated: 150000", "truncated"),
        (BodyKind::Length(100_000), 100_000, "", "answered"),
    ] {
        let mut origin = Origin::answering(NO_CONTENT).await;
        let bench = Bench::new(&section, &[origin.addr]);
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&vec![b'a'; 100_000].into());
        if outcome == "truncated" {
            tap.data(&vec![b'b'; 200_000].into());
        }
        tap.end();
        let got = origin.request().await;
        assert_eq!(&got.body[length..], trailers.as_bytes(), "{kind:?}");
        assert_eq!(got.head.contains("Trailer: X-Homing-Truncated"), outcome == "truncated", "{}", got.head);
        bench.settled(1).await;
        assert_eq!(bench.copies(outcome, ""), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_headers_only_leaves_at_once_and_says_that_there_was_a_body() {
    let section = section_that(|section| section.copied.headers_only = true);
    for kind in [BodyKind::Length(300_000), BodyKind::Length(5), BodyKind::Unknown] {
        let mut origin = Origin::answering(NO_CONTENT).await;
        let bench = Bench::new(&section, &[origin.addr]);
        let mut tap = bench.post(origin.addr, 1, kind);
        let got = origin.request().await;
        assert!(got.head.contains("\r\nContent-Length: 0\r\nX-Homing-Truncated: 0\r\n"), "{}", got.head);
        tap.data(&Bytes::from_static(b"abcde"));
        drop(tap);
        bench.get(origin.addr, 1, 2);
        let got = origin.request().await;
        assert!(!got.head.contains("Truncated") && !got.head.contains("Content-Length"), "{}", got.head);
        bench.settled(2).await;
        assert_eq!((bench.copies("truncated", ""), bench.answered()), (1, 1), "{kind:?}");
    }
}
