//! Members that speak HTTP/2, well and badly.

mod member;

use h2::{Reason, server};
use http::Response;
pub(super) use member::serve;
use member::{answer, answering, read, speak};

use super::*;

fn http2() -> CloneSection {
    CloneSection { http2: true, ..section() }
}

#[tokio::test(start_paused = true)]
async fn many_copies_share_few_connections_and_few_writes_in_http2() {
    let mut origin = answering(server::Builder::new(), b"thanks").await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..100 {
        for session in 0..20 {
            bench.get(origin.addr, session, seq);
        }
        tokio::task::yield_now().await;
    }
    let requests = origin.requests(2000).await;
    bench.settled(2000).await;
    assert_eq!(bench.answered(), 2000);
    assert!(origin.accepted() <= 4, "{} connections", origin.accepted());
    let reads = origin.reads.load(SeqCst);
    assert!(reads < 1000, "{reads} reads for 2000 copies");
    for session in 0..20 {
        let own: Vec<_> = requests.iter().filter(|got| got.session().0 == session).collect();
        assert!(own.iter().map(|got| got.session().1).eq(0..100), "in order");
        assert!(own.iter().all(|got| got.connection == own[0].connection), "on one lane");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_http2_says_what_it_says_in_http1() {
    let mut origin = answering(server::Builder::new(), b"").await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Unknown);
    tap.data(&Bytes::from_static(b"abc"));
    tap.end();
    let got = origin.request().await;
    assert_eq!(got.body, b"abc");
    assert!(got.head.starts_with("POST /1/1 a.com\r\n"), "{}", got.head);
    for field in [
        "user-agent: \"test\"",
        "content-length: \"3\"",
        "x-homing-clone: \"vs=vs;session=",
        "x-forwarded-proto: \"http\"",
    ] {
        assert!(got.head.contains(field), "{field} in {}", got.head);
    }
    bench.settled(1).await;
}

#[tokio::test(start_paused = true)]
async fn answers_in_http2_are_counted_by_status_and_by_how_long_they_took() {
    let origin = Origin::new(|incoming| async move {
        let (mut connection, requests, number) = speak(incoming, &server::Builder::new()).await;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let status = request.uri().path().rsplit('/').next().expect("a path").to_owned();
                read(request, number, &requests).await;
                sleep(Duration::from_secs(2)).await;
                let response = Response::builder().status(&*status).body(()).expect("a status");
                respond.send_response(response, true).expect("the stream is open");
            });
        }
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for (copy, (status, length)) in [(204, 0), (404, 10), (200, 100_000), (503, 200_000)].iter().enumerate() {
        let kind = BodyKind::Length(*length);
        let mut tap = bench.tap(origin.addr, 1, *status, Method::POST, kind).expect("there is room");
        tap.data(&vec![0; *length as usize].into());
        tap.end();
        bench.settled(copy + 1).await;
    }
    let classes = ["2xx", "4xx", "5xx"].map(|class| bench.answers(class));
    assert_eq!((bench.answered(), classes), (4, [2, 1, 1]));
    let within =
        |seconds: &str| bench.count("homing_clone_answer_seconds_bucket", &[&format!("le=\"{seconds}\"")]);
    assert_eq!((within("1"), within("30")), (0, 4), "each took two seconds");
}

#[tokio::test]
async fn answers_longer_than_any_window_leave_the_connection_usable() {
    static LONG: [u8; 300_000] = [b'x'; 300_000];
    let origin = answering(server::Builder::new(), &LONG).await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..50 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(50).await;
    assert_eq!((bench.answered(), origin.accepted()), (50, 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_streams_are_opened_than_the_member_allows() {
    let mut settings = server::Builder::new();
    settings.max_concurrent_streams(3);
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, open) = (most.clone(), now.clone());
    let origin = Origin::new(move |incoming| {
        let (settings, seen, open) = (settings.clone(), seen.clone(), open.clone());
        async move {
            let (mut connection, requests, number) = speak(incoming, &settings).await;
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (requests, seen, open) = (requests.clone(), seen.clone(), open.clone());
                tokio::spawn(async move {
                    seen.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    read(request, number, &requests).await;
                    sleep(Duration::from_millis(5)).await;
                    open.fetch_sub(1, SeqCst);
                    answer(respond, b"");
                });
            }
        }
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..60 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(60).await;
    assert_eq!((bench.answered(), origin.accepted(), most.load(SeqCst)), (60, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn what_a_member_that_goes_away_has_not_begun_with_goes_on_the_next_connection_in_order() {
    let mut origin = Origin::new(|mut incoming| async move {
        if incoming.number > 0 {
            return serve(incoming, server::Builder::new(), b"").await;
        }
        const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        incoming.stream.write_all(SETTINGS).await.expect("it reads");
        incoming.more().await;
        for stream in [1, 3] {
            const STATUS_204: u8 = 0x89;
            let headers = [0, 0, 1, 1, 5, 0, 0, 0, stream, STATUS_204];
            incoming.stream.write_all(&headers).await.expect("it reads");
            incoming.more().await;
        }
        // Two answers opened the window to three; the last of them that it wants is stream 3.
        const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
        incoming.stream.write_all(GOAWAY).await.expect("it reads");
        while incoming.more().await.is_some() {}
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..20 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(20).await;
    assert_eq!((bench.answered(), origin.accepted()), (20, 2));
    let second: Vec<_> = origin.requests(18).await.iter().map(|got| got.session().1).collect();
    assert!(second.iter().copied().eq(2..20), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_shuts_down_gracefully_again_and_again_loses_no_copy() {
    let origin = Origin::new(|incoming| async move {
        let (mut connection, requests, number) = speak(incoming, &server::Builder::new()).await;
        let mut count = 0;
        while let Some(Ok((request, respond))) = connection.accept().await {
            let _ =
                requests.send(Got { connection: number, head: request.uri().to_string(), body: Vec::new() });
            answer(respond, b"");
            count += 1;
            if count == 10 {
                connection.graceful_shutdown();
            }
        }
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..200 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(200).await;
    assert_eq!(bench.answered(), 200);
    assert!(origin.accepted() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_gives_no_window_costs_the_bodies_and_nothing_else() {
    let mut settings = server::Builder::new();
    settings.initial_window_size(0);
    let origin = Origin::new(move |incoming| {
        let settings = settings.clone();
        async move {
            let (mut connection, _, _) = speak(incoming, &settings).await;
            let mut held = Vec::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                match request.body().is_end_stream() {
                    true => answer(respond, b""),
                    false => held.push((request, respond)),
                }
            }
        }
    })
    .await;
    let mut section = http2();
    section.max_buffered_bytes = 100_000;
    let bench = Bench::new(&section, &[origin.addr]);
    for seq in 0..10 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(10).await;
    let body = Bytes::from(vec![b'x'; 30_000]);
    for session in [1, 1, 1, 1, 5] {
        if let Some(mut tap) = bench.tap(origin.addr, session, 20, Method::POST, BodyKind::Length(30_000)) {
            tap.data(&body);
            tap.end();
        }
        assert!(bench.buffered() <= 100_000);
    }
    bench.settled(15).await;
    assert_eq!(
        (bench.answered(), bench.copies("failed", "write_timeout"), bench.dropped("budget")),
        (10, 3, 2)
    );
    for seq in 30..40 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(25).await;
    assert_eq!((bench.answered(), origin.accepted()), (20, 1), "the connection lives");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_member_resets_costs_one_copy() {
    let origin = Origin::new(|incoming| async move {
        let (mut connection, _, _) = speak(incoming, &server::Builder::new()).await;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            match request.uri().path().ends_with('7') {
                true => respond.send_reset(Reason::INTERNAL_ERROR),
                false => answer(respond, b""),
            }
        }
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..20 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(20).await;
    assert_eq!((bench.answered(), bench.copies("unanswered", "reset"), origin.accepted()), (18, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_answers_in_http2_is_given_up() {
    let origin = Origin::new(|incoming| async move {
        let (mut connection, _, _) = speak(incoming, &server::Builder::new()).await;
        let mut held = Vec::new();
        while let Some(Ok(request)) = connection.accept().await {
            held.push(request);
        }
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..10 {
        bench.get(origin.addr, 1, seq);
    }
    bench.settled(10).await;
    assert_eq!((bench.copies("unanswered", "answer_timeout"), bench.dropped("stalled")), (3, 7));
    origin.all_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_speaks_only_http1_is_found_out() {
    let origin = Origin::new(|mut incoming| async move {
        incoming.more().await;
        incoming.answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let bench = Bench::new(&http2(), &[origin.addr]);
    for seq in 0..5 {
        bench.get(origin.addr, 1, seq);
    }
    let mut large = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    large.data(&vec![0; 100_000].into());
    large.end();
    bench.settled(6).await;
    assert_eq!((bench.copies("unanswered", "not_http"), bench.dropped("stalled")), (3, 2));
    // Closed with bytes unread, its answer may be lost on the way.
    assert_eq!(bench.count("homing_clone_copies_total", &["outcome=\"failed\""]), 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_body_has_an_http2_connection_of_its_own() {
    for kind in [BodyKind::Length(300_000), BodyKind::Unknown] {
        let mut origin = answering(server::Builder::new(), b"").await;
        let bench = Bench::new(&http2(), &[origin.addr]);
        bench.get(origin.addr, 1, 1);
        origin.request().await;
        let mut tap = bench.post(origin.addr, 1, kind);
        for byte in [b'a', b'b', b'c'] {
            tap.data(&vec![byte; 100_000].into());
            tokio::task::yield_now().await;
        }
        tap.end();
        let got = origin.request().await;
        assert_eq!((got.body.len(), got.body[99_999], got.body[100_000]), (300_000, b'a', b'b'));
        assert_eq!((got.body.last(), got.connection), (Some(&b'c'), 1));
        bench.settled(2).await;
        assert_eq!(bench.answered(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_in_http2_that_is_cut_or_given_up_is_counted_so() {
    let mut origin = answering(server::Builder::new(), b"").await;
    let mut section = http2();
    section.on_overflow = OnOverflow::Truncate;
    section.max_buffered_bytes = 40_000;
    let bench = Bench::new(&section, &[origin.addr]);
    let mut tap = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    tap.data(&vec![b'x'; 30_000].into());
    tap.data(&vec![b'x'; 70_000].into());
    tap.end();
    let got = origin.request().await;
    assert_eq!(&got.body[30_000..], b"x-homing-truncated: 30000");
    bench.settled(1).await;
    assert_eq!(bench.copies("truncated", ""), 1);

    let mut tap = bench.post(origin.addr, 1, BodyKind::Length(100_000));
    tap.data(&vec![b'x'; 30_000].into());
    eventually("it to leave", || bench.buffered() == 0).await;
    drop(tap);
    bench.settled(2).await;
    assert_eq!(bench.copies("failed", "client_aborted"), 1);
    origin.all_closed().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_in_http2_is_sent_again_once_where_that_is_wanted() {
    for (retry_lost, lost) in [(false, 3), (true, 0)] {
        let mut origin = Origin::new(|incoming| async move {
            if incoming.number > 0 {
                return serve(incoming, server::Builder::new(), b"").await;
            }
            let (mut connection, _, _) = speak(incoming, &server::Builder::new()).await;
            for _ in 0..2 {
                if let Some(Ok((_, respond))) = connection.accept().await {
                    answer(respond, b"");
                }
            }
            // Three are under way now; none of them has an answer when it ends.
            let _held = [connection.accept().await, connection.accept().await];
        })
        .await;
        let bench = Bench::new(&CloneSection { retry_lost, ..http2() }, &[origin.addr]);
        for seq in 0..20 {
            bench.get(origin.addr, 1, seq);
        }
        bench.settled(20).await;
        assert_eq!((bench.copies("unanswered", "closed"), bench.answered()), (lost, 20 - lost));
        let second = origin.requests(18 - lost).await;
        assert!(second.iter().map(|got| got.session().1).eq(2 + lost as u64..20), "in order");
    }
}
