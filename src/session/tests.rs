//! The table as its callers see it.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(300);
const POLICY: Policy = Policy { timeout: TIMEOUT, lifetime: None, refresh: Refresh::Request };

fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn table_of(capacity: u64) -> (SessionTable, Metrics, Instant) {
    let (metrics, now) = (Metrics::new(), Instant::now());
    (SessionTable::new(capacity, [7; 16], &metrics, now), metrics, now)
}

/// Assigns with every server taken as up, and `fresh` chosen for who has none.
fn assign(table: &SessionTable, key: &SessionKey, fresh: u8, now: Instant) -> Assigned {
    table.assign(key, &POLICY, now, |_| true, || Some(server(fresh))).expect("there is a server")
}

#[test]
fn a_session_keeps_its_server_until_it_is_down_and_does_not_flap_back() {
    let (table, _, now) = table_of(100);
    let key = table.key("clone", b"SID=1");
    let steps = [
        ("the first request chooses", 1, None, server(1), How::New),
        ("the next keeps", 2, None, server(1), How::Kept),
        ("a down server is left", 2, Some(server(1)), server(2), How::Moved),
        ("and not returned to", 1, None, server(2), How::Kept),
    ];
    for (seq, (step, choice, down, expected, how)) in (1..).zip(steps) {
        let got = table.assign(&key, &POLICY, now, |s| Some(s) != down, || Some(server(choice)));
        let got = got.expect(step);
        assert_eq!((got.server, got.how, got.seq), (expected, how, seq), "{step}");
    }
}

#[test]
fn a_touch_puts_off_a_sessions_end_and_counts_and_makes_none() {
    let (table, _, now) = table_of(100);
    let key = table.key("clone", b"SID=1");
    table.touch("clone", b"SID=1", now);
    assert_eq!(table.len(), 0, "no session is made");
    drop(assign(&table, &key, 1, now));
    table.touch("clone", b"SID=1", now + seconds(200));
    let next = assign(&table, &key, 2, now + seconds(400));
    assert_eq!((next.server, next.how, next.seq), (server(1), How::Kept, 2));
    drop(next);
    table.touch("clone", b"SID=1", now + seconds(700));
    assert_eq!(assign(&table, &key, 2, now + seconds(700)).how, How::New, "what has ended is not revived");
}

#[test]
fn no_server_up_assigns_nothing_and_forgets_nothing() {
    let (table, metrics, now) = table_of(100);
    let key = table.key("clone", b"SID=1");
    assert!(table.assign(&key, &POLICY, now, |_| true, || None).is_none());
    assert_eq!(table.len(), 0, "a vacant entry does not stay");
    assert!(metrics.page().contains(r#"homing_session_entries{table="clone"} 0"#));

    assign(&table, &key, 1, now);
    assert!(table.assign(&key, &POLICY, now, |_| false, || None).is_none());
    let back = assign(&table, &key, 2, now);
    assert_eq!((back.server, back.how, back.seq), (server(1), How::Kept, 2));
}

#[test]
fn an_entry_ends_when_idle_or_when_its_life_is_over_but_not_while_in_use() {
    let (table, _, now) = table_of(100);
    let key = table.key("clone", b"SID=1");
    let policy = Policy { lifetime: Some(seconds(1000)), ..POLICY };
    let at = |s, fresh| {
        table.assign(&key, &policy, now + seconds(s), |_| true, || Some(server(fresh))).expect("a server")
    };
    assert_eq!(at(0, 1).server, server(1));
    assert_eq!(at(299, 2).server, server(1), "refreshed in time");
    assert_eq!(at(299 + 300, 2).server, server(2), "idle for its timeout");
    let tunnel = at(600, 3);
    assert_eq!(at(3000, 4).server, server(2), "in use, beyond timeout and lifetime");
    drop(tunnel);
    let next = at(3001, 5);
    assert_eq!((next.server, next.seq, next.how), (server(5), 1, How::New), "its life is over");
}

#[test]
fn the_end_of_a_long_use_starts_the_idle_timeout() {
    let (table, _, now) = table_of(100);
    let key = table.key("clone", b"SID=1");
    let tunnel = assign(&table, &key, 1, now);
    table.sweep(now + seconds(3600));
    drop(tunnel);
    assert_eq!(table.sweep(now + seconds(3600 + 299)), 0);
    assert_eq!(table.sweep(now + seconds(3600 + 300)), 1);
}

#[test]
fn where_only_new_connections_refresh_a_session_it_ends_whatever_it_is_asked_but_not_in_use() {
    let (table, _, now) = table_of(100);
    let key = table.key("clone", b"SID=1");
    let at = |s, is_new, fresh| {
        let policy = Policy { refresh: Refresh::Connection { is_new }, ..POLICY };
        let assigned = table.assign(&key, &policy, now + seconds(s), |_| true, || Some(server(fresh)));
        assigned.expect("a server")
    };
    assert_eq!(at(0, true, 1).server, server(1));
    assert_eq!(at(200, false, 2).server, server(1));
    assert_eq!(at(300, false, 2).server, server(2), "a request did not put off its end");
    assert_eq!(at(500, true, 3).server, server(2), "a new life has all its time");
    assert_eq!(at(799, false, 3).server, server(2), "a connection put it off");
    table.touch("clone", b"SID=1", now + seconds(799));
    let tunnel = at(800, false, 3);
    assert_eq!(tunnel.server, server(3));
    assert_eq!(table.sweep(now + seconds(5000)), 0, "it is in use");
    assert_eq!(at(5000, false, 4).server, server(3));
    let row = table.view(None, None, 1, now + seconds(5000)).remove(0);
    assert_eq!((row.idle, row.expires_in), (seconds(4200), seconds(0)));
    drop(tunnel);
    assert_eq!(table.sweep(now + seconds(5000)), 1, "the end of a use did not put it off either");
}

#[test]
fn a_session_that_gains_a_token_is_one_session() {
    let (table, _, now) = table_of(100);
    let (address, cookie) = (table.key("clone", b"10.0.0.9"), table.key("clone", b"SID=1"));
    let login = assign(&table, &address, 1, now);
    table.bind(cookie, &login.entry, now);
    let moved = table.assign(&cookie, &POLICY, now, |s| s != server(1), || Some(server(2)));
    let moved = moved.expect("a server");
    assert_eq!((moved.server, moved.seq, moved.session), (server(2), 2, login.session));
    assert_eq!(assign(&table, &address, 3, now).server, server(2), "the move is seen through both keys");
    assert_eq!(table.sessions_per_server("clone"), HashMap::from([(server(2), 1)]));
    assert_eq!(table.len(), 2);
}

#[test]
fn a_token_of_a_living_session_is_not_taken_over() {
    let (table, _, now) = table_of(100);
    let (a, b) = (table.key("clone", b"a"), table.key("clone", b"b"));
    assign(&table, &b, 2, now);
    let later = assign(&table, &a, 1, now + seconds(1));
    table.bind(b, &later.entry, now + seconds(1));
    assert_eq!(assign(&table, &b, 9, now + seconds(1)).server, server(2));
    let much_later = assign(&table, &a, 1, now + seconds(301));
    table.bind(b, &much_later.entry, now + seconds(301));
    assert_eq!(assign(&table, &b, 9, now + seconds(301)).server, server(1), "but of an ended one it is");
    assert_eq!(table.len(), 2);
}

#[test]
fn rules_add_look_up_and_delete_as_irules_do() {
    let (table, _, now) = table_of(100);
    let text = |table: &SessionTable, at| table.lookup("ssl", b"id", now + seconds(at));
    assert_eq!(text(&table, 0), None);
    table.add("ssl", b"id", "10.0.0.1:80".into(), TIMEOUT, now);
    assert_eq!(text(&table, 299).as_deref(), Some("10.0.0.1:80"));
    assert_eq!(text(&table, 300), None, "looking did not refresh it");
    table.add("ssl", b"id", "again".into(), TIMEOUT, now + seconds(400));
    assert_eq!(text(&table, 401).as_deref(), Some("again"));
    assert_eq!(table.lookup("other", b"id", now), None, "tables are apart");
    assert!(table.delete("ssl", b"id"));
    assert!(!table.delete("ssl", b"id"));
    assert_eq!(text(&table, 401), None);
    let made =
        |value: &str, at| table.get_or_add("ssl", b"id", TIMEOUT, now + seconds(at), || value.to_owned());
    assert_eq!((made("first", 500), made("second", 799), made("third", 1098)), three("first"));
    assert_eq!(made("fourth", 1098 + 300), "fourth");
}

fn three(text: &str) -> (String, String, String) {
    (text.to_owned(), text.to_owned(), text.to_owned())
}

#[test]
fn simultaneous_first_requests_of_a_session_get_one_server() {
    let (table, _, now) = table_of(10_000);
    let chosen = AtomicUsize::new(0);
    let got: Vec<Vec<(SocketAddr, u64)>> = thread::scope(|scope| {
        let worker = |worker: u8| {
            let (table, chosen) = (&table, &chosen);
            move || {
                let assign = |session: u32| {
                    let key = table.key("clone", &session.to_be_bytes());
                    let choose = || {
                        chosen.fetch_add(1, Ordering::Relaxed);
                        Some(server(worker))
                    };
                    let assigned = table.assign(&key, &POLICY, now, |_| true, choose);
                    let assigned = assigned.expect("a server");
                    (assigned.server, assigned.seq)
                };
                (0..1000).map(assign).collect()
            }
        };
        let workers: Vec<_> = (0..8).map(|n| scope.spawn(worker(n))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends well")).collect()
    });
    for session in 0..1000 {
        let servers: HashSet<_> = got.iter().map(|requests| requests[session].0).collect();
        let mut numbers: Vec<_> = got.iter().map(|requests| requests[session].1).collect();
        numbers.sort_unstable();
        assert_eq!(servers.len(), 1, "session {session} was split");
        assert_eq!(numbers, (1..=8).collect::<Vec<_>>(), "session {session}");
    }
    assert_eq!(chosen.into_inner(), 1000, "each choice was asked for once");
    assert_eq!(table.len(), 1000);
}

#[test]
fn expiry_sweeps_and_assignments_race_without_splitting_or_miscounting() {
    let (table, _, now) = table_of(10_000);
    let alive = Policy { timeout: Duration::from_millis(2), ..POLICY };
    thread::scope(|scope| {
        for worker in 0..4 {
            let table = &table;
            scope.spawn(move || {
                for step in 0..2000 {
                    let now = now + Duration::from_millis(step);
                    let key = table.key("clone", &(step / 10 % 7).to_be_bytes());
                    let ours = table.assign(&key, &alive, now, |_| true, || Some(server(worker)));
                    let same = table.assign(&key, &alive, now, |_| true, || Some(server(99)));
                    let (ours, same) = (ours.expect("a server"), same.expect("a server"));
                    assert_eq!(ours.server, same.server, "a session in use was split");
                    table.sweep(now);
                }
            });
        }
    });
    let end = now + seconds(60);
    table.sweep(end);
    assert_eq!((table.len(), table.view(None, None, usize::MAX, end).len()), (0, 0));
    assert!(table.sessions_per_server("clone").is_empty());
}

#[test]
fn a_view_finds_by_table_and_by_key_or_hash_and_refreshes_nothing() {
    let (table, _, now) = table_of(100);
    let held = assign(&table, &table.key("clone:vs", b"SID=1"), 1, now);
    table.add("ssl", b"id", "text".into(), TIMEOUT, now);
    let later = now + seconds(100);
    let all = table.view(None, None, usize::MAX, later);
    assert_eq!(all.iter().map(|row| row.value.as_str()).collect::<Vec<_>>(), ["10.0.0.1:80", "text"]);
    assert_eq!((all[0].requests, all[0].in_use, all[0].idle, all[0].expires_in), (1, 1, seconds(0), TIMEOUT));
    assert_eq!((all[1].in_use, all[1].idle, all[1].expires_in), (0, seconds(100), seconds(200)));
    assert_eq!(all[1].age, seconds(100));
    drop(held);
    for (by_table, by_key, found) in [
        (Some("SSL"), None, 1),
        (Some("none"), None, 0),
        (None, Some("SID=1"), 1),
        (None, Some(all[1].key.as_str()), 1),
        (Some("ssl"), Some("SID=1"), 0),
        (Some("clone:vs"), Some(all[1].key.as_str()), 0),
        (None, Some(all[1].key.to_uppercase().as_str()), 1),
        (None, Some("ffffffffffffffffffffffffffffffff"), 0),
        (Some("none"), Some("SID=1"), 0),
    ] {
        assert_eq!(table.view(by_table, by_key, usize::MAX, later).len(), found, "{by_table:?} {by_key:?}");
    }
    assert!(table.view(None, None, usize::MAX, now + TIMEOUT).is_empty(), "what has ended is not shown");
}

#[test]
fn a_view_stops_at_its_bound_and_makes_no_table() {
    let (table, _, now) = table_of(10_000);
    for n in 0..1000 {
        table.add("t", &[n as u8, (n >> 8) as u8], n.to_string(), TIMEOUT, now);
    }
    table.add("u", b"key", "v".into(), TIMEOUT, now);
    let keys = |rows: Vec<SessionView>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
    let some = keys(table.view(Some("t"), None, 10, now));
    assert_eq!(some.len(), 10);
    assert!(some.is_sorted());
    assert_eq!(keys(table.view(None, Some("key"), 10, now)).len(), 1);
    assert!(table.view(Some("nowhere"), Some("key"), 10, now).is_empty());
    let tables: Vec<_> = table.tables().into_iter().map(|(name, _)| name).collect();
    assert_eq!(tables, ["t", "u"], "looking makes none");
}

#[test]
fn tables_beyond_the_bound_are_counted_as_one_and_kept_apart() {
    let (table, metrics, now) = table_of(10_000);
    for n in 0..1500 {
        table.add(&format!("t{n}"), b"key", n.to_string(), TIMEOUT, now);
    }
    assert_eq!(table.lookup("t1400", b"key", now).as_deref(), Some("1400"));
    assert_eq!(table.lookup("t1499", b"key", now).as_deref(), Some("1499"));
    table.add("other", b"key", "its own".into(), TIMEOUT, now);
    assert_eq!(table.lookup("other", b"key", now).as_deref(), Some("its own"), "though it is named so");
    assert!(metrics.page().contains(r#"homing_session_entries{table="other"} 502"#));
    let counted: u64 = table.tables().into_iter().map(|(_, entries)| entries).sum();
    assert_eq!(counted, 1501);
}
