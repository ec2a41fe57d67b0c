//! Lanes: what members that behave get, and over how many connections and writes.

use super::*;

#[tokio::test(start_paused = true)]
async fn many_copies_share_few_connections_and_few_writes_and_sessions_stay_in_order() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..500 {
        for session in 0..20 {
            bench.get(origin.addr, session, seq);
        }
        tokio::task::yield_now().await;
    }
    let requests = origin.requests(10_000).await;
    bench.settled(10_000).await;
    assert_eq!(bench.answered(), 10_000);
    assert_eq!(origin.accepted(), 4, "each lane has its sessions");
    let reads = origin.reads.load(SeqCst);
    assert!(reads < 2500, "{reads} reads for 10,000 copies");
    for session in 0..20 {
        let own: Vec<_> = requests.iter().filter(|got| got.session().0 == session).collect();
        assert!(own.iter().map(|got| got.session().1).eq(0..500), "in order");
        assert!(own.iter().all(|got| got.connection == own[0].connection), "on one lane");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_every_framing_leave_the_lane_in_step() {
    const ANSWERS: [&str; 4] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        NO_CONTENT,
    ];
    let origin = Origin::new(|mut incoming| async move {
        for answer in ANSWERS.iter().cycle() {
            if incoming.request().await.is_none() {
                return;
            }
            // In pieces, so that heads and chunks are cut.
            for piece in answer.as_bytes().chunks(7) {
                incoming.answer(str::from_utf8(piece).unwrap()).await;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..40 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(40).await;
    assert_eq!((bench.answered(), origin.accepted()), (40, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_is_known_to_have_no_body() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..3 {
        bench.tap(origin.addr, 1, seq, Method::HEAD, BodyKind::None).expect("a tap").end();
    }
    bench.settled(3).await;
    assert_eq!((bench.answered(), origin.accepted()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lane_learns_after_how_many_answers_its_member_closes() {
    let origin = Origin::new(|mut incoming| async move {
        for left in (0..20).rev() {
            if incoming.request().await.is_none() {
                return;
            }
            let close = if left == 0 { "Connection: close\r\n" } else { "" };
            incoming.answer(&format!("HTTP/1.1 204 No Content\r\n{close}\r\n")).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..1000 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(1000).await;
    let lost = bench.copies("unanswered", "closed");
    assert!(lost > 0 && lost < 64, "only the first connection lost copies: {lost}");
    assert_eq!(bench.answered(), 1000 - lost);
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_closes_and_opens_again() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    origin.request().await;
    assert_eq!(origin.open.load(SeqCst), 1);
    origin.all_closed().await;
    bench.get(origin.addr, 1, 2);
    origin.request().await;
    bench.settled(2).await;
    assert_eq!((bench.answered(), origin.accepted()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_retired_pool_keeps_no_idle_lane_but_still_copies() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    origin.request().await;
    let before = tokio::time::Instant::now();
    bench.retired.cancel();
    origin.all_closed().await;
    assert!(before.elapsed() < Duration::from_secs(3));
    bench.get(origin.addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2));
    bench.settled(2).await;
    assert_eq!(bench.answered(), 2);
}

#[tokio::test(start_paused = true)]
async fn copies_that_cannot_be_made_are_counted_by_reason() {
    let origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(SocketAddr::from(([192, 0, 2, 1], 9)), 1, 1);
    assert_eq!(bench.dropped("unknown_server"), 1);
    bench.pool.skip(SkipReason::SampledOut);
    assert_eq!(bench.count("homing_clone_skipped_total", &["reason=\"sampled_out\""]), 1);
}

#[tokio::test(start_paused = true)]
async fn copies_that_fill_many_buffers_before_a_lane_runs_stay_in_order() {
    let mut origin = Origin::answering(NO_CONTENT).await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..300 {
        let mut tap =
            bench.tap(origin.addr, 1, seq, Method::POST, BodyKind::Length(20_000)).expect("there is room");
        tap.data(&vec![b'x'; 20_000].into());
        tap.end();
    }
    assert!(bench.buffered() > 300 * 20_000);
    bench.settled(300).await;
    assert!(origin.requests(300).await.iter().map(|got| got.session().1).eq(0..300));
}

#[test]
fn copies_from_many_threads_are_all_accounted_for() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let origin = Origin::answering(NO_CONTENT).await;
        let bench = Arc::new(Bench::new(&section(), &[origin.addr]));
        let tasks = (0..8).map(|session| {
            let (bench, addr) = (bench.clone(), origin.addr);
            tokio::spawn(async move {
                for seq in 0..500 {
                    bench.get(addr, session, seq);
                    if seq % 50 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("it ends well");
        }
        bench.settled(4000).await;
        assert_eq!(bench.answered(), 4000);
        assert!(origin.accepted() <= 4);
    });
}
