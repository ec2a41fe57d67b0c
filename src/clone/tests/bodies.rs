//! Bodies: small ones that wait, large ones that stream, and those that do not end.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_small_body_arrives_whole_however_it_came() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for (kind, pieces, length) in [
        (BodyKind::Length(6), &["abc", "def"][..], 6),
        (BodyKind::Unknown, &["abc", "", "d"], 4),
        (BodyKind::Unknown, &[], 0),
        (BodyKind::Length(0), &[], 0),
        (BodyKind::None, &[], 0),
    ] {
        let mut tap = bench.post(origin.addr, 1, kind);
        for piece in pieces {
            tap.data(&Bytes::from_static(piece.as_bytes()));
        }
        tap.end();
        let got = origin.request().await;
        assert_eq!(got.body, pieces.concat().as_bytes());
        assert!(got.head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{}", got.head);
    }
    bench.settled(5).await;
    assert_eq!((bench.answered(), origin.accepted()), (5, 1), "all on one lane");
}

#[tokio::test(start_paused = true)]
async fn a_large_body_streams_on_a_connection_of_its_own_while_it_arrives() {
    for (kind, framing) in [
        (BodyKind::Length(300_000), "Content-Length: 300000"),
        (BodyKind::Unknown, "Transfer-Encoding: chunked"),
    ] {
        let mut origin = Origin::answering(NO_CONTENT).await;
        let bench = Bench::new(&section(), &[origin.addr]);
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&vec![b'a'; 100_000].into());
        eventually("the beginning to arrive", || origin.reads.load(SeqCst) > 0 && bench.buffered() == 0)
            .await;
        bench.get(origin.addr, 1, 2);
        assert_eq!(origin.request().await.session(), (1, 2), "the lane is free meanwhile");
        tap.data(&vec![b'b'; 199_999].into());
        tap.data(&Bytes::from_static(b"c"));
        tap.end();
        let got = origin.request().await;
        assert!(got.head.contains(framing), "{}", got.head);
        assert_eq!((got.body.len(), got.body[99_999], got.body[100_000]), (300_000, b'a', b'b'));
        assert_eq!(got.body.last(), Some(&b'c'));
        bench.settled(2).await;
        assert_eq!((bench.answered(), origin.accepted()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_client_vanishes_is_given_up_and_the_lane_goes_on() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);

    let mut small = bench.post(origin.addr, 1, BodyKind::Length(10));
    small.data(&Bytes::from_static(b"abc"));
    drop(small);
    assert_eq!(bench.dropped("client_aborted"), 1);

    let mut large = bench.post(origin.addr, 1, BodyKind::Unknown);
    large.data(&vec![0; 100_000].into());
    eventually("the beginning to leave", || origin.reads.load(SeqCst) > 0 && bench.buffered() == 0).await;
    drop(large);
    eventually("the copy to fail", || bench.copies("failed", "client_aborted") == 1).await;
    origin.all_closed().await;

    let mut short = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    short.data(&vec![0; 50_000].into());
    eventually("the beginning to leave", || bench.buffered() == 0).await;
    short.end();
    eventually("the copy to fail", || bench.copies("failed", "client_aborted") == 2).await;

    bench.get(origin.addr, 1, 4);
    assert_eq!(origin.request().await.session(), (1, 4), "nothing of the others arrived as a request");
    bench.settled(4).await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_that_the_member_does_not_read_is_given_up_at_the_budget() {
    let stuck = Origin::new(|incoming| async move {
        let _held = incoming;
        std::future::pending().await
    })
    .await;
    let mut section = section();
    section.max_buffered_bytes = 256 << 10;
    let bench = Bench::new(&section, &[stuck.addr]);
    let mut tap = bench.post(stuck.addr, 1, BodyKind::Unknown);
    for _ in 0..1000 {
        tap.data(&vec![0; 64 << 10].into());
        assert!(bench.buffered() <= 256 << 10);
        tokio::task::yield_now().await;
    }
    tap.end();
    bench.settled(1).await;
    assert_eq!(bench.copies("failed", "budget"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_answers_a_large_body_early_and_closes_has_answered() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.more().await;
        incoming.answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
    while bench.ended() == 0 {
        tap.data(&vec![0; 100_000].into());
        sleep(Duration::from_millis(1)).await;
    }
    tap.end();
    bench.settled(1).await;
    assert_eq!(bench.answered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_room_is_cut_and_says_so_where_that_is_wanted() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.on_overflow = OnOverflow::Truncate;
    section.max_buffered_bytes = 40_000;
    let bench = Bench::new(&section, &[origin.addr]);
    for (kind, kept) in [(BodyKind::Unknown, 30_000), (BodyKind::Length(60_000), 30_000)] {
        let mut tap = bench.post(origin.addr, 1, kind);
        tap.data(&vec![b'x'; 30_000].into());
        tap.data(&vec![b'x'; 30_000].into());
        tap.end();
        let got = origin.request().await;
        assert_eq!(got.body.len(), kept);
        assert!(got.head.contains(&format!("X-Homing-Truncated: {kept}\r\n")), "{}", got.head);
    }
    bench.settled(2).await;

    let mut tap = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    tap.data(&vec![b'x'; 30_000].into());
    tap.data(&vec![b'x'; 70_000].into());
    tap.end();
    let got = origin.request().await;
    assert!(got.head.contains("Trailer: X-Homing-Truncated\r\n"), "{}", got.head);
    assert_eq!(&got.body[30_000..], b"X-Homing-Truncated: 30000");
    bench.settled(3).await;
    assert_eq!(bench.copies("truncated", ""), 3);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_announced_and_do_not_come_leave_the_budget_to_others() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.max_buffered_bytes = 1 << 20;
    let bench = Bench::new(&section, &[origin.addr]);
    let stalled: Vec<_> =
        (0..256).map(|session| bench.post(origin.addr, session, BodyKind::Length(64 << 10))).collect();
    bench.get(origin.addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2));
    drop(stalled);
    bench.settled(257).await;
    assert_eq!((bench.answered(), bench.dropped("client_aborted")), (1, 256));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_bodies_stream_at_a_time() {
    let origin = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.connections_per_server = NonZeroUsize::MIN;
    let bench = Bench::new(&section, &[origin.addr]);
    let large = || bench.tap(origin.addr, 1, 1, Method::POST, BodyKind::Length(100_000));
    let taps: Vec<_> = (0..STREAMS_PER_LANE + 1).map(|_| large()).collect();
    assert_eq!(taps.iter().flatten().count(), STREAMS_PER_LANE);
    assert_eq!(bench.dropped("streams"), 1);
    drop(taps);
    bench.settled(STREAMS_PER_LANE + 1).await;
    assert!(large().is_some(), "there is room again");
}
