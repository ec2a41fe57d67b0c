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

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_when_a_member_stops_reading_goes_on_the_next_connection() {
    let origin = Origin::new(|mut incoming| async move {
        for _ in 0..100 {
            if incoming.request().await.is_none() {
                return;
            }
            incoming.answer(NO_CONTENT).await;
        }
        if incoming.number == 0 {
            std::future::pending::<()>().await;
        }
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let mut section = section();
    section.pipeline_depth = NonZeroUsize::new(1000).unwrap();
    let bench = Bench::new(&section, &[origin.addr]);
    let body = Bytes::from(vec![b'x'; 60_000]);
    let mut made = 0;
    while bench.dropped("budget") == 0 {
        if let Some(mut tap) = bench.tap(origin.addr, 1, made, Method::POST, BodyKind::Unknown) {
            tap.data(&body);
            tap.end();
        }
        made += 1;
        tokio::task::yield_now().await;
    }
    bench.settled(made as usize).await;
    let (unanswered, failed) =
        (bench.copies("unanswered", "write_timeout"), bench.copies("failed", "write_timeout"));
    assert!(unanswered > 0, "sent whole, but not read");
    assert_eq!(failed, 1, "sent in part");
    assert_eq!(bench.answered(), made as usize - unanswered - failed - bench.dropped("budget"));
    assert!(bench.answered() > 110, "the rest arrived on another connection: {}", bench.answered());
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
