//! Members that stall, close, vanish or talk nonsense.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_member_that_never_reads_costs_the_budget_and_nothing_else() {
    let stuck = Origin::new(|incoming| async move {
        let _held = incoming;
        std::future::pending().await
    })
    .await;
    let mut healthy = Origin::answering(NO_CONTENT).await;
    let mut section = section();
    section.max_buffered_bytes = 1 << 20;
    let bench = Bench::new(&section, &[stuck.addr, healthy.addr]);
    let body = Bytes::from(vec![b'x'; 50_000]);
    let mut made = 0;
    for session in 0..1000 {
        made += 1;
        let Some(mut tap) =
            bench.tap(stuck.addr, session, 1, Method::POST, BodyKind::Length(body.len() as u64))
        else {
            continue;
        };
        tap.data(&body);
        tap.end();
        assert!(bench.buffered() <= 1 << 20);
        if session % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(bench.dropped("budget") > 900, "{}", bench.dropped("budget"));
    for seq in 0..100 {
        bench.get(healthy.addr, seq, 1);
        made += 1;
    }
    healthy.requests(100).await;
    eventually("the healthy member's answers", || bench.answered() == 100).await;
    bench.settled(made).await;
    let asked = bench.copies("unanswered", "answer_timeout");
    assert_eq!(asked + bench.dropped("budget") + bench.dropped("stalled"), 1000);
    assert!((4..=12).contains(&asked), "each of four lanes asks one by one, three times at most: {asked}");
}

/// In real time while bytes move: what the kernel takes a moment for would else seem to take for ever.
#[tokio::test]
async fn what_was_not_sent_when_a_member_stops_reading_goes_on_the_next_connection() {
    /// So many that more may be under way afterwards than the sockets' buffers hold.
    const READ: usize = 1500;
    const MADE: usize = READ + 1500;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(128 << 10).expect("a size that is allowed");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let origin = Origin::on(socket.listen(16).expect("it listens"), |mut incoming| async move {
        let reads = if incoming.number == 0 { READ } else { usize::MAX };
        for _ in 0..reads {
            if incoming.request().await.is_none() {
                return;
            }
            incoming.answer(NO_CONTENT).await;
        }
        std::future::pending().await
    });
    let mut section = section();
    section.pipeline_depth = NonZeroUsize::new(10_000).unwrap();
    let bench = Bench::new(&section, &[origin.addr]);
    let body = Bytes::from(vec![b'x'; 10_000]);
    let copy = |seq: usize| {
        if let Some(mut tap) = bench.tap(origin.addr, 1, seq as u64, Method::POST, BodyKind::Unknown) {
            tap.data(&body);
            tap.end();
        }
    };
    (0..READ).for_each(&copy);
    bench.settled(READ).await;
    (READ..MADE).for_each(&copy);
    let timed_out = |outcome| bench.copies(outcome, "write_timeout");
    tokio::time::pause();
    eventually("the connection to be given up", || timed_out("failed") > 0).await;
    tokio::time::resume();
    bench.settled(MADE).await;
    let unanswered = timed_out("unanswered");
    assert!(unanswered > 0, "sent whole, but not read");
    assert_eq!(timed_out("failed"), 1, "sent in part");
    assert_eq!(bench.answered(), MADE - unanswered - 1);
    assert!(bench.answered() > READ, "the rest arrived on another connection");
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_gone_costs_its_copies_and_gets_the_next_when_it_is_back() {
    // Bound and not listening: nobody else can take the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let addr = socket.local_addr().expect("it is bound");
    let bench = Bench::new(&section(), &[addr]);
    bench.get(addr, 1, 1);
    let mut large = bench.post(addr, 1, BodyKind::Length(100_000));
    large.data(&vec![0; 100_000].into());
    large.end();
    bench.settled(2).await;
    assert_eq!(bench.dropped("connect"), 2);

    let behave = |mut incoming: Incoming| async move {
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    };
    let mut origin = Origin::on(socket.listen(16).expect("it listens"), behave);
    bench.get(addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2));
    bench.settled(3).await;
    assert_eq!(bench.answered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_closes_after_each_answer_loses_no_copy() {
    for answer in
        [NO_CONTENT, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nx"]
    {
        let origin = Origin::new(move |mut incoming| async move {
            if incoming.request().await.is_some() {
                incoming.answer(answer).await;
            }
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..50 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(50).await;
        assert_eq!((bench.answered(), origin.accepted()), (50, 50), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_answers_is_asked_one_by_one_and_then_given_up() {
    let mut origin =
        Origin::new(|mut incoming| async move { while incoming.request().await.is_some() {} }).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..10 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(10).await;
    assert_eq!((bench.copies("unanswered", "answer_timeout"), bench.dropped("stalled")), (3, 7));
    let asked: Vec<_> = origin.requests(3).await.iter().map(Got::session).collect();
    assert_eq!(asked, [(1, 0), (1, 1), (1, 2)], "none was sent again");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_not_waited_for() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.request().await;
        incoming.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while incoming.stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    bench.settled(1).await;
    assert_eq!(bench.copies("unanswered", "answer_timeout"), 1);
    origin.all_closed().await;
}

#[tokio::test]
async fn an_answer_that_never_ends_and_never_pauses_is_not_waited_for() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.request().await;
        incoming.answer("HTTP/1.1 200 OK\r\n\r\n").await;
        while incoming.stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
    })
    .await;
    let mut members = members(&[origin.addr]);
    members.read_timeout = Duration::from_millis(50);
    let bench = Bench::of(&section(), &members);
    bench.get(origin.addr, 1, 1);
    bench.settled(1).await;
    assert_eq!(bench.copies("unanswered", "answer_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_ends_the_connection() {
    for (answer, reason) in [("SSH-2.0-x\r\n", "not_http"), ("", "closed")] {
        let origin = Origin::new(move |mut incoming| async move {
            incoming.request().await;
            incoming.answer(answer).await;
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..5 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(5).await;
        assert_eq!((bench.copies("unanswered", reason), bench.dropped("stalled")), (3, 2), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_accepts_and_closes_is_not_hammered() {
    let origin = Origin::new(|incoming| async move { drop(incoming) }).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(5).await;
    assert!(origin.accepted() <= 6, "{} connections", origin.accepted());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nothing_asked_for_ends_the_connection_and_loses_nothing() {
    let origin = Origin::new(|mut incoming| async move {
        while incoming.request().await.is_some() {
            incoming.answer(&NO_CONTENT.repeat(2)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
        bench.settled(seq as usize + 1).await;
    }
    assert_eq!((bench.answered(), origin.accepted()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_ends_its_direction_has_not_answered() {
    for answers in [false, true] {
        let origin = Origin::new(move |mut incoming| async move {
            if answers {
                incoming.request().await;
                incoming.answer(NO_CONTENT).await;
            }
            let _ = incoming.stream.shutdown().await;
            while incoming.more().await.is_some() {}
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..3 {
            bench.get(origin.addr, 1, seq);
        }
        let mut large = bench.post(origin.addr, 1, BodyKind::Unknown);
        large.data(&vec![0; 100_000].into());
        large.end();
        bench.settled(4).await;
        assert_eq!(bench.answered(), if answers { 4 } else { 0 });
        origin.all_closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_reads_a_byte_a_second_costs_a_large_copy_and_no_more_than_the_budget() {
    let origin = Origin::new(|mut incoming| async move {
        while matches!(incoming.stream.read(&mut [0]).await, Ok(1)) {
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Length(12 << 20));
    for _ in 0..12 {
        tap.data(&vec![0; 1 << 20].into());
    }
    tap.end();
    assert!(bench.buffered() >= 11 << 20, "what the member has not taken waits, and not the request");
    bench.settled(1).await;
    assert_eq!(bench.copies("failed", "write_timeout"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_resets_a_body_half_way_has_failed_its_copy_alone() {
    let mut origin = Origin::new(|mut incoming| async move {
        while incoming.buffer.len() < 50_000 {
            if incoming.buffer.starts_with(b"GET") {
                break;
            }
            incoming.more().await;
        }
        if incoming.buffer.starts_with(b"POST") {
            // Unread bytes make this a reset.
            return;
        }
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut large = bench.post(origin.addr, 1, BodyKind::Length(10 << 20));
    for _ in 0..10 {
        large.data(&vec![0; 1 << 20].into());
        tokio::task::yield_now().await;
    }
    large.end();
    bench.get(origin.addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2));
    bench.settled(2).await;
    assert_eq!((bench.copies("failed", "closed"), bench.answered()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_machine_does_not_answer_costs_its_copies_after_the_connect_timeout() {
    // A queue of connections that nobody accepts and that is full: the next is not answered.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let listener = socket.listen(1).expect("it listens");
    let addr = listener.local_addr().expect("it is bound");
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(addr)).await {
        waiting.push(connected.expect("the queue takes it"));
    }
    let bench = Bench::new(&section(), &[addr]);
    for seq in 0..10 {
        bench.get(addr, 1, seq);
    }
    let mut large = bench.post(addr, 1, BodyKind::Length(100_000));
    large.data(&vec![0; 100_000].into());
    large.end();
    drop(bench.post(addr, 1, BodyKind::Length(100_000)));
    bench.settled(12).await;
    assert_eq!(bench.dropped("connect"), 12);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_killed_under_load_loses_what_was_under_way_and_every_copy_is_counted_once() {
    for survives in [0, 5, 15] {
        let (killed, mut times) = tokio::sync::watch::channel(0);
        times.mark_unchanged();
        let origin = Origin::new(move |mut incoming| {
            let mut killed = times.clone();
            async move {
                let serve = async {
                    while incoming.request().await.is_some() {
                        incoming.answer(NO_CONTENT).await;
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = killed.changed() => {}
                }
            }
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        let mut large: Vec<_> =
            (0..8).map(|session| bench.post(origin.addr, session, BodyKind::Length(1 << 20))).collect();
        let mut small = 0;
        for round in 0..16 {
            for tap in &mut large {
                tap.data(&vec![b'x'; 64 << 10].into());
            }
            for session in 0..20 {
                bench.get(origin.addr, session, round);
                let mut post = bench.post(origin.addr, session, BodyKind::Unknown);
                post.data(&vec![b'y'; 10_000].into());
                post.end();
                small += 2;
            }
            if round >= survives {
                killed.send_modify(|times| *times += 1);
            }
            tokio::task::yield_now().await;
        }
        for tap in large {
            tap.end();
        }
        bench.settled(small + 8).await;
        assert!(bench.answered() < small + 8, "something was lost");
    }
}

#[tokio::test(start_paused = true)]
async fn copies_under_way_when_their_pool_is_removed_end_and_are_counted() {
    let mut origin = Origin::new(|mut incoming| async move {
        while incoming.request().await.is_some() {
            sleep(Duration::from_secs(5)).await;
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
    }
    let mut small = bench.post(origin.addr, 2, BodyKind::Length(6));
    small.data(&Bytes::from_static(b"abc"));
    let mut large = bench.post(origin.addr, 3, BodyKind::Length(200_000));
    large.data(&vec![0; 100_000].into());
    assert_eq!(origin.request().await.session(), (1, 0), "one is at the member");
    bench.retired.cancel();
    sleep(Duration::from_secs(2)).await;
    small.data(&Bytes::from_static(b"def"));
    small.end();
    large.data(&vec![0; 100_000].into());
    large.end();
    bench.settled(7).await;
    assert_eq!(bench.answered(), 7);
    origin.all_closed().await;
}
