//! The rate limit, and who is exempt from it.

use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::fixtures::{Ask, Heard, Server};
use crate::dns::Over;

const LIMITED: &str = "listen: [127.0.0.1:53]\n  rate_limit: { responses_per_second: 5, slip: 2 }";

/// Of 25 queries at once: whole answers, truncated ones, and silences.
fn of_25(server: &Server, ask: &Ask, from: &str, over: Over) -> [usize; 3] {
    let packet = ask.bytes();
    let mut counted = [0; 3];
    for _ in 0..25 {
        let answer = server.asks_from(&packet, from, over, Duration::ZERO);
        let what = match answer.map(|answer| Heard::read(&answer, &packet)) {
            Some(heard) if heard.truncation => {
                assert!(heard.answers.is_empty() && heard.authorities.is_empty());
                1
            }
            Some(_) => 0,
            None => 2,
        };
        counted[what] += 1;
    }
    counted
}

#[test]
fn a_flood_of_answers_is_held_back_and_true_clients_are_sent_to_tcp() {
    let server = Server::with(LIMITED);
    let app = Ask::new("app.foo.com", RecordType::A);
    assert_eq!(of_25(&server, &app, "192.0.2.1:4000", Over::Udp), [5, 10, 10]);
    assert_eq!(of_25(&server, &app, "192.0.2.2:4000", Over::Tcp), [25, 0, 0], "TCP is not limited");
    let names = (0..5).map(|n| Ask::new(&format!("{n}.app.foo.com"), RecordType::A));
    let whole: usize = names.map(|ask| of_25(&server, &ask, "192.0.2.1:4000", Over::Udp)[0]).sum();
    assert_eq!(whole, 5, "names that do not exist count together");
    let names = (0..5).map(|n| Ask::new(&format!("{n}.wild.foo.com"), RecordType::A));
    let whole: usize = names.map(|ask| of_25(&server, &ask, "192.0.2.1:4000", Over::Udp)[0]).sum();
    assert_eq!(whole, 5, "and those that one service has");
    let page = server.metrics.page();
    for line in [
        r#"homing_gslb_dns_rate_limited_total{action="dropped"} 130"#,
        r#"homing_gslb_dns_rate_limited_total{action="truncated"} 130"#,
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert_eq!(
        of_25(&Server::new(), &app, "192.0.2.1:4000", Over::Udp),
        [25, 0, 0],
        "no limit is the default"
    );
}

#[test]
fn a_client_that_shows_its_cookie_is_not_limited() {
    let server = Server::with(LIMITED);
    let app = || Ask::new("app.foo.com", RecordType::A);
    let from = "192.0.2.1:4000";
    let packet = app().option(10, &[9; 8]).bytes();
    let answer = server.asks_from(&packet, from, Over::Udp, Duration::ZERO).expect("an answer");
    let cookie = &answer[answer.len() - 24..];
    assert_eq!(of_25(&server, &app().option(10, cookie), from, Over::Udp), [25, 0, 0]);
    assert_eq!(
        of_25(&server, &app().option(10, cookie), "192.0.2.2:4000", Over::Udp)[0],
        4,
        "of another address"
    );
    assert_eq!(of_25(&server, &app().option(10, &[9; 24]), from, Over::Udp)[0], 0, "a false one");
}
