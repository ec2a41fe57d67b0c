//! Lines as they are written, and what clients cannot do to them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn line() -> Line<'static> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_273_225_123);
    let client = Client::Here("192.0.2.7:4711".parse().expect("an address"));
    Line {
        vs: "pay@site_A",
        method: "GET",
        host: "a.com:8080",
        path: "/cart",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_sent: 512,
        request_id: "00000000000000ff",
        ..Line::unread(time, client, Duration::from_micros(1500))
    }
}

fn json(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    line.write_json(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn apache(line: &Line<'_>) -> [String; 2] {
    [text::write_common, text::write_combined].map(|write| {
        let mut out = Vec::new();
        write(line, &mut out);
        String::from_utf8(out).expect("it is ASCII")
    })
}

#[test]
fn a_short_line_has_what_is_always_known() {
    assert_eq!(
        json(&line()),
        concat!(
            r#"{"time":"2026-11-21T15:00:25.123Z","vs":"pay@site_A","client":"192.0.2.7:4711","method":"GET","#,
            r#""host":"a.com:8080","path":"/cart","protocol":"HTTP/1.1","status":200,"bytes_received":0,"#,
            r#""bytes_sent":512,"total_ms":1.5,"request_id":"00000000000000ff","significant":false,"retries":0}"#
        )
    );
    assert_eq!(
        apache(&line()),
        [
            r#"192.0.2.7 - - [21/Nov/2026:15:00:25 +0000] "GET /cart HTTP/1.1" 200 512"#,
            r#"192.0.2.7 - - [21/Nov/2026:15:00:25 +0000] "GET /cart HTTP/1.1" 200 512 "-" "-""#,
        ]
    );
}

#[test]
fn a_full_line_has_every_field() {
    let mut fields = HeaderMap::new();
    fields.insert("x-a", HeaderValue::from_static("1"));
    let headers = Some(Headers { fields: &fields, query: false });
    let server = "10.0.0.1:80".parse().expect("an address");
    let line = Line {
        client: Client::Told("2001:db8::1".parse().expect("an address")),
        query: Some("q=1"),
        protocol: "HTTP/2",
        status: 0,
        bytes_sent: 0,
        timings: Timings {
            queue: Some(Duration::from_micros(1)),
            connect: Some(Duration::from_micros(20)),
            first_byte: Some(Duration::from_micros(1234)),
            total: Duration::from_secs(60),
        },
        significant: true,
        reason: Some(Reason::ServerTimeout),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        peer: Some(server),
        pool: Some("pay"),
        server: Some(server),
        server_connection_reused: Some(true),
        retries: 2,
        servers_tried: &[server],
        persistence: Some("kept"),
        tls: Some(Tls {
            version: "TLSv1.3",
            cipher: "C",
            sni: Some("a.com"),
            resumed: true,
            client_subject: Some("CN=alice"),
        }),
        site: Some(SiteOutcome { outcome: "proxied", decision: "proxy", home: Some("site_B") }),
        clones: vec![CloneOutcome {
            pool: "clones",
            server: Some(server),
            session: 0xabc,
            seq: 7,
            assigned: Some("kept"),
            outcome: "dropped",
            reason: Some("budget"),
        }],
        rules: vec![RuleDecision { rule: "canary", decision: "pool" }],
        user_agent: Some("curl/8"),
        referer: Some("https://b.com/"),
        request_headers: headers,
        response_headers: headers,
        ..line()
    };
    let json = json(&line);
    for part in [
        r#""client":"2001:db8::1","#,
        r#""path":"/cart","query":"q=1","protocol":"HTTP/2","status":0,"#,
        r#""queue_ms":0.001,"connect_ms":0.02,"first_byte_ms":1.234,"total_ms":60000.0,"#,
        r#""significant":true,"reason":"server_timeout","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
        r#""peer":"10.0.0.1:80","pool":"pay","server":"10.0.0.1:80","server_connection_reused":true,"retries":2,"#,
        r#""servers_tried":["10.0.0.1:80"],"persistence":"kept","#,
        r#""tls":{"version":"TLSv1.3","cipher":"C","sni":"a.com","resumed":true,"client_subject":"CN=alice"},"#,
        r#""site":{"outcome":"proxied","decision":"proxy","home":"site_B"},"#,
        r#""clones":[{"pool":"clones","server":"10.0.0.1:80","session":"0000000000000abc","seq":7,"#,
        r#""assigned":"kept","outcome":"dropped","reason":"budget"}],"#,
        r#""rules":[{"rule":"canary","decision":"pool"}],"user_agent":"curl/8","referer":"https://b.com/","#,
        r#""request_headers":{"x-a":"1"},"response_headers":{"x-a":"1"}}"#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
    let [common, combined] = apache(&line);
    assert_eq!(common, r#"2001:db8::1 - - [21/Nov/2026:15:00:25 +0000] "GET /cart?q=1 HTTP/2.0" - -"#);
    assert_eq!(combined, format!(r#"{common} "https://b.com/" "curl/8""#));
}

#[test]
fn each_reason_has_a_word_of_its_own() {
    let words: BTreeMap<_, _> = Reason::ALL.iter().map(|reason| (reason.as_str(), reason)).collect();
    assert_eq!(words.len(), Reason::ALL.len());
}

#[test]
fn a_log_that_is_configured_as_before_stays_the_one_that_it_is() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = |buffer| config::AccessLog {
        path: config::LogPath::File(folder.path().join("access.log")),
        format: LogFormat::Json,
        buffer,
        query: false,
    };
    let (current, metrics) = (CurrentLog::default(), Metrics::new());
    let prepare = |config: Option<&_>| current.prepare(config, &metrics).expect("it can be opened");
    assert!(!current.is_on() && current.load().is_none());
    let log = prepare(Some(&config(1 << 20)));
    current.set(log.clone());
    let log = log.expect("there is one");
    assert!(Arc::ptr_eq(&log, &prepare(Some(&config(1 << 20))).expect("there is one")));
    assert!(!Arc::ptr_eq(&log, &prepare(Some(&config(1 << 21))).expect("there is one")));
    log.write(&line());
    assert!(log.flush(Duration::from_secs(10)));
    current.set(prepare(None));
    assert!(!current.is_on());
    let written = std::fs::read_to_string(folder.path().join("access.log")).expect("it was written");
    assert_eq!(written, json(&line()) + "\n");
    assert_eq!((metrics.access_log_written.get(), metrics.access_log_dropped.get()), (1, 0));
}

#[test]
fn a_file_that_cannot_be_opened_says_how_to_mend_it() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let error = |path: &str| {
        let config = config::AccessLog {
            path: config::LogPath::File(folder.path().join(path)),
            format: LogFormat::Json,
            buffer: 1 << 20,
            query: false,
        };
        AccessLog::open(&config, &Metrics::new()).err().expect("it cannot be opened").to_string()
    };
    let missing = error("no/access.log");
    assert!(missing.ends_with(&format!("mkdir -p {}/no", folder.path().display())), "{missing}");
    assert!(error("").ends_with("name a file in it"));
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_forges_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..6) {
        let sent = text::readable(&bytes);
        let mut fields = HeaderMap::new();
        let mut line = line();
        match at {
            0 => line.path = &sent,
            1 => line.query = Some(&sent),
            2 => line.host = &sent,
            3 => line.user_agent = Some(&sent),
            4 => line.referer = Some(&sent),
            _ => {
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    fields.insert("x-a", value);
                }
                line.request_headers = Some(Headers { fields: &fields, query: true });
            }
        }
        let json = json(&line);
        prop_assert!(json.bytes().all(|byte| byte >= 0x20), "{json:?}");
        let value: Value = serde_json::from_str(&json).expect("it is JSON");
        let key = ["path", "query", "host", "user_agent", "referer", ""][at];
        if let Some(value) = value.get(key) {
            prop_assert_eq!(value.as_str(), Some(&*sent));
        }
        let [common, combined] = apache(&line);
        for (text, quotes) in [(common, 2), (combined, 6)] {
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
            prop_assert_eq!(text.bytes().filter(|byte| *byte == b'"').count(), quotes, "{}", text);
            prop_assert!(!text.contains('\\') || text.contains(r"\x"), "{}", text);
        }
    }
}
