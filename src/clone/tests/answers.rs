//! Answers: what is counted of them, and every odd way in which they come.

use super::*;

#[tokio::test(start_paused = true)]
async fn answers_are_counted_by_status_and_by_how_long_they_took() {
    let origin = Origin::new(|mut incoming| async move {
        for status in ["200 OK", "204 No Content", "404 Not Found", "500 Oops", "799 What"] {
            incoming.request().await;
            sleep(Duration::from_secs(2)).await;
            incoming.answer(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
        bench.settled(seq as usize + 1).await;
    }
    let classes = ["2xx", "4xx", "5xx", "other"].map(|class| bench.answers(class));
    assert_eq!((bench.answered(), classes), (5, [2, 1, 1, 1]));
    let within =
        |seconds: &str| bench.count("homing_clone_answer_seconds_bucket", &[&format!("le=\"{seconds}\"")]);
    assert_eq!((within("1"), within("30"), within("+Inf")), (0, 5, 5), "each took two seconds");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_copy_that_was_sent_again_took_as_long_as_since_then() {
    let origin = Origin::new(|mut incoming| async move {
        if incoming.number == 0 {
            incoming.request().await;
            incoming.answer(NO_CONTENT).await;
            incoming.request().await;
            sleep(Duration::from_secs(12)).await;
            return;
        }
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&CloneSection { retry_lost: true, ..section() }, &[origin.addr]);
    for seq in 0..2 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(2).await;
    assert_eq!((bench.answered(), origin.accepted()), (2, 2));
    assert_eq!(bench.count("homing_clone_answer_seconds_bucket", &["le=\"10\""]), 2);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_streamed_copy_is_counted_too_and_an_early_one_took_no_time() {
    let origin = Origin::new(|mut incoming| async move {
        let early = incoming.number == 0;
        if early {
            incoming.answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").await;
        }
        incoming.request().await;
        if !early {
            sleep(Duration::from_secs(2)).await;
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for copy in 0..2 {
        let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
        tap.data(&vec![0; 100_000].into());
        eventually("the beginning to arrive", || bench.buffered() == 0).await;
        tap.data(&vec![0; 100_000].into());
        tap.end();
        bench.settled(copy + 1).await;
    }
    assert_eq!((bench.answered(), bench.answers("2xx"), bench.answers("4xx")), (2, 1, 1));
    let within =
        |seconds: &str| bench.count("homing_clone_answer_seconds_bucket", &[&format!("le=\"{seconds}\"")]);
    assert_eq!((within("0.0001"), within("1"), within("30")), (1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn interim_answers_are_passed_over() {
    const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 102 Processing\r\nContent-Length: 7\r\n\r\nHTTP/1.1 199 Whatever\r\n\r\n";
    let origin = Origin::new(|mut incoming| async move {
        incoming.answer("HTTP/1.1 100 Continue\r\n\r\n").await;
        while incoming.request().await.is_some() {
            incoming.answer(INTERIM).await;
            sleep(Duration::from_secs(1)).await;
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
    tap.data(&vec![0; 100_000].into());
    tap.end();
    bench.settled(1).await;
    assert_eq!((bench.answers("2xx"), bench.answers("1xx")), (1, 0), "a streamed copy's");
}

#[tokio::test(start_paused = true)]
async fn interim_answers_leave_a_lane_in_step() {
    let origin = Origin::new(|mut incoming| async move {
        while incoming.request().await.is_some() {
            incoming.answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n").await;
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    for seq in 0..20 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(20).await;
    assert_eq!((bench.answers("2xx"), bench.answers("1xx"), origin.accepted()), (20, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn interim_answers_without_end_are_not_waited_for() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.request().await;
        while incoming.stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    bench.get(origin.addr, 1, 1);
    bench.settled(1).await;
    assert_eq!(bench.copies("unanswered", "answer_timeout"), 1);
    origin.all_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_after_answers_with_a_body() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 11\r\n\r\nhello world",
    ] {
        let origin = Origin::answering(answer).await;
        let bench = Bench::new(&section(), &[origin.addr]);
        for seq in 0..50 {
            bench.get(origin.addr, 1, seq);
            if seq % 10 == 0 {
                bench.settled(seq as usize + 1).await;
            }
        }
        bench.settled(50).await;
        assert_eq!((bench.answered(), origin.accepted()), (50, 1), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_64_kib_is_an_answer_and_one_without_end_is_none() {
    for (length, answers) in [(60_000, true), (100_000, false)] {
        let origin = Origin::new(move |mut incoming| async move {
            while incoming.request().await.is_some() {
                let head =
                    format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(length));
                incoming.answer(&head).await;
            }
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        bench.get(origin.addr, 1, 1);
        bench.settled(1).await;
        let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
        tap.data(&vec![0; 100_000].into());
        tap.end();
        bench.settled(2).await;
        let none = bench.copies("unanswered", "not_http");
        assert_eq!((bench.answered(), none), if answers { (2, 0) } else { (0, 2) }, "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_a_byte_a_second_is_waited_for_until_the_timeout() {
    for (answer, outcome) in [
        ("HTTP/1.1 204 N\r\n\r\n", ("answered", "")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ("unanswered", "answer_timeout")),
    ] {
        let origin = Origin::new(move |mut incoming| async move {
            incoming.request().await;
            for byte in answer.bytes() {
                sleep(Duration::from_secs(1)).await;
                if incoming.stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
            incoming.request().await;
        })
        .await;
        let bench = Bench::new(&section(), &[origin.addr]);
        bench.get(origin.addr, 1, 1);
        bench.settled(1).await;
        assert_eq!(bench.copies(outcome.0, outcome.1), 1, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_streamed_copy_is_not_waited_for_without_end() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        incoming.request().await;
        while incoming.stream.write_all(b"1\r\nx\r\n").await.is_ok() {
            sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
    tap.data(&vec![0; 1_000_000].into());
    tap.end();
    bench.settled(1).await;
    assert_eq!(bench.copies("unanswered", "answer_timeout"), 1);
    origin.all_closed().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_a_small_copy_leaves_the_lane_to_the_next() {
    let mut origin = Origin::new(|mut incoming| async move {
        if incoming.number == 0 {
            incoming.more().await;
            incoming.answer("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n").await;
            return;
        }
        while incoming.request().await.is_some() {
            incoming.answer(NO_CONTENT).await;
        }
    })
    .await;
    let bench = Bench::new(&section(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Length(60_000));
    tap.data(&vec![b'x'; 60_000].into());
    tap.end();
    bench.settled(1).await;
    bench.get(origin.addr, 1, 2);
    assert_eq!(origin.request().await.session(), (1, 2), "no rest of a body is taken for a request");
    bench.settled(2).await;
}
