//! Members with habits: a lane finds them out, loses little by it, and keeps the order of each session.

use super::*;

/// Answers what comes one by one, and what came with it as `rest` says.
async fn one_by_one(rest: Rest) -> Origin {
    Origin::new(move |mut incoming| async move {
        while incoming.request().await.is_some() {
            let more = !std::mem::take(&mut incoming.buffer).is_empty();
            incoming.answer(NO_CONTENT).await;
            if more && rest == Rest::Closes {
                return;
            }
        }
    })
    .await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It is thrown away and not answered.
    Ignored,
    /// The connection is closed.
    Closes,
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_pipeline_is_soon_asked_one_by_one() {
    for (rest, most) in [(Rest::Ignored, 64), (Rest::Closes, 2)] {
        let origin = one_by_one(rest).await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..200 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(200).await;
        let lost = 200 - bench.answered();
        assert!((1..=most).contains(&lost), "{lost} were lost before it was known: {rest:?}");
        for seq in 200..250 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(250).await;
        assert_eq!(250 - bench.answered(), lost, "then none: {rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn little_is_under_way_to_a_member_that_answers_slowly() {
    let origin = Origin::new(|mut incoming| async move {
        for _ in 0..8 {
            if incoming.request().await.is_none() {
                return;
            }
            sleep(Duration::from_secs(2)).await;
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..50 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(50).await;
    let lost = bench.copies("unanswered", "closed");
    assert!(lost <= 1 && bench.answered() == 50 - lost, "{lost} of 50 were lost");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_answers_more_than_it_is_asked_is_backed_off_from() {
    for more in ["HTTP/1.1 204 No Content\r\n\r\n", "220 mail.example ESMTP\r\n"] {
        let origin = Origin::new(move |mut incoming| async move {
            while incoming.request().await.is_some() {
                incoming.answer(&format!("{NO_CONTENT}{more}")).await;
            }
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..10 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(10).await;
        assert_eq!((bench.answered(), bench.dropped("stalled"), origin.accepted()), (3, 7, 3));
    }
}

/// A member that answers two requests on its first connection, reads the three that follow, and closes.
async fn forgetful() -> Origin {
    Origin::new(move |mut incoming| async move {
        if incoming.number == 0 {
            for answer in [NO_CONTENT, NO_CONTENT, "", "", ""] {
                incoming.request().await;
                incoming.answer(answer).await;
            }
            return;
        }
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_with_a_connection_is_sent_again_once_where_that_is_wanted() {
    for (retry_lost, lost) in [(false, 3), (true, 0)] {
        let mut origin = forgetful().await;
        let bench = Bench::new(&CloneSection { retry_lost, ..section() }, &[origin.addr]);
        for seq in 0..20 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(20).await;
        assert_eq!((bench.copies("unanswered", "closed"), bench.answered()), (lost, 20 - lost));
        let got = origin.requests(5 + 18 - lost).await;
        let second = got.iter().filter(|got| got.connection == 1).map(|got| got.session().1);
        assert!(second.eq(2 + lost as u64..20), "in order");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_twice_is_counted_once_and_not_sent_a_third_time() {
    let mut origin = Origin::new(|mut incoming| async move {
        incoming.request().await;
    })
    .await;
    let bench = Bench::new(&CloneSection { retry_lost: true, ..section() }, &[origin.addr]);
    for seq in 0..10 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(10).await;
    assert_eq!((bench.copies("unanswered", "closed"), bench.dropped("stalled")), (2, 8));
    let sent: Vec<_> = origin.requests(3).await.iter().map(|got| got.session().1).collect();
    assert_eq!(sent, [0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn copies_that_may_be_sent_again_stay_charged_until_they_are_answered() {
    let origin = Origin::new(|mut incoming| async move {
        while incoming.request().await.is_some() {
            sleep(Duration::from_millis(500)).await;
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&CloneSection { retry_lost: true, ..section() }, &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    let charged = bench.buffered();
    eventually("it to arrive", || origin.reads.load(SeqCst) == 1).await;
    assert!(charged > 0 && bench.buffered() == charged);
    bench.settled(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_in_order_over_connections_that_end_without_warning() {
    for retry_lost in [false, true] {
        let mut origin = Origin::new(|mut incoming| async move {
            for _ in 0..5 + incoming.number % 7 {
                if incoming.request().await.is_none() {
                    return;
                }
                incoming.answer(NO_CONTENT).await;
            }
        })
        .await;
        let bench = Bench::new(&CloneSection { retry_lost, ..section() }, &[origin.addr]);
        for seq in 0..100 {
            (0..5).for_each(|session| bench.get(origin.addr, session, seq));
            if seq % 10 == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        bench.settled(500).await;
        let answered = bench.answered();
        assert!(answered > 250, "{answered}");
        let got = origin.requests(answered).await;
        for session in 0..5 {
            let own: Vec<_> = got.iter().map(Got::session).filter(|got| got.0 == session).collect();
            assert!(own.is_sorted(), "{own:?}");
        }
    }
}
