//! Every request of a virtual service with clone sections ends in one outcome of each section, whatever clients,
//! servers and clone members do.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use crate::{
    routing::websocket,
    support::{
        certs::cert_for,
        client::{Connection, Request},
        config::{CLONES, Site, parse},
        eventually, eventually_within,
        homing::Homing,
        http2::{Http2, send_all},
        net,
        origin::{Mode, Origin},
        soon,
        tls::{Profile, TlsClient},
    },
};

#[tokio::test]
async fn outcomes_add_up_to_requests_whatever_the_members_do() {
    let (app, clone, deaf) =
        (Origin::start("app").await, Origin::start("clone").await, Origin::start("deaf").await);
    deaf.set(Mode::NeverRead);
    let plain = net::free_addr();
    let homing = site(&app, &clone, &deaf, plain).start().await;
    let mark = a_mark(&homing, &clone).await;
    let client = Client { homing: &homing, plain, app: &app, mark };
    let mut requests = 1;
    for mode in [
        Mode::Ok,
        Mode::Status(500),
        Mode::Raw(Bytes::from_static(b"\r\n\r\n220 mail.example ESMTP\r\n")),
        Mode::RawClose(Bytes::new()),
        Mode::NeverAnswer,
    ] {
        clone.set(mode);
        requests += client.well_behaved().await + client.not_to_be_copied().await + client.aborting().await;
        client.settle(requests, &[CLONES]).await;
    }

    clone.set(Mode::Ok);
    requests += client.while_the_member_dies(&clone).await;
    requests += client.well_behaved().await;
    clone.up().await;

    app.down().await;
    requests += client.that_nobody_serves().await + client.not_to_be_copied().await;
    client.settle(requests, &[CLONES, "half", "tight", "empty", "off"]).await;

    let reasons = async |name: &str, pool: &str, reasons: &[&str]| {
        for reason in reasons {
            let labels = [("vs", "web"), ("pool", pool), ("reason", *reason)];
            assert!(homing.metric(name, &labels).await > 0.0, "{name} of {pool} has {reason}");
        }
    };
    reasons("homing_clone_skipped_total", CLONES, &["upgrade", "loop", "filtered"]).await;
    reasons("homing_clone_dropped_total", CLONES, &["connect", "client_aborted", "unfinished"]).await;
    reasons("homing_clone_copies_total", CLONES, &["closed", "not_http", "answer_timeout", "client_aborted"])
        .await;
    reasons("homing_clone_dropped_total", "tight", &["budget"]).await;
    reasons("homing_clone_dropped_total", "off", &["no_server"]).await;
    reasons("homing_clone_dropped_total", "empty", &["no_server"]).await;
    reasons("homing_clone_skipped_total", "half", &["sampled_out"]).await;
    let answers = homing.metric("homing_clone_answers_total", &[("pool", CLONES)]).await;
    assert_eq!(answers, homing.metric("homing_clone_answer_seconds_count", &[("pool", CLONES)]).await);
    assert!(homing.metric("homing_clone_answers_total", &[("code_class", "5xx")]).await > 0.0);
}

/// A virtual service with a section for each way in which a pool may be: at work, hardly any room, switched off,
/// without members, and for half of the sessions. Its plain port redirects to its TLS port.
fn site(app: &Origin, clone: &Origin, deaf: &Origin, plain: SocketAddr) -> Site {
    let patient = |site: Site| {
        site.with(|yaml| {
            for pool in yaml["pools"].as_sequence_mut().expect("pools are a list").iter_mut().skip(1) {
                pool["read_timeout"] = "200ms".into();
            }
        })
    };
    let site = Site::new(&[app])
        .tls(&cert_for(&["a.com"]))
        .http("http_to_https: true")
        .pool(CLONES, &[clone])
        .pool("half", &[clone])
        .pool("tight", &[deaf])
        .pool("empty", &[])
        .pool("off", &[deaf])
        .vs(
            "clone",
            &format!(
                "[{{pool_ref: {CLONES}, tokens: ['cookie:SID']}},
                  {{pool_ref: half, tokens: ['cookie:SID'], sample: 50%}},
                  {{pool_ref: tight, tokens: ['cookie:SID'], max_buffered_bytes: 32KiB}},
                  {{pool_ref: empty, tokens: [source_ip]}},
                  {{pool_ref: off, tokens: [source_ip]}}]"
            ),
        )
        .with(|yaml| {
            let pools = yaml["pools"].as_sequence_mut().expect("pools are a list");
            pools.last_mut().expect("the last is off")["enabled"] = false.into();
            let services = &mut yaml["virtual_services"][0]["services"];
            let service = parse(&format!("{{address: {}, port: {}}}", plain.ip(), plain.port()));
            services.as_sequence_mut().expect("services are a list").push(service);
        });
    patient(site)
}

/// The mark of a copy that a member got, of a request that is made for it.
async fn a_mark(homing: &Homing, member: &Origin) -> String {
    let tls = TlsClient::new(Profile::TLS13).connect(homing.addr, "a.com").await;
    assert_eq!(Connection::over(tls).ask(&Request::get("/")).await.status, 200);
    member.got(1).await[0].header("x-homing-clone").expect("a copy has a mark").to_owned()
}

/// Makes requests of a kind, and says how many.
struct Client<'a> {
    homing: &'a Homing,
    plain: SocketAddr,
    app: &'a Origin,
    /// Of a copy, for requests that are copies come back.
    mark: String,
}

impl Client<'_> {
    async fn connect(&self) -> Connection {
        Connection::over(TlsClient::new(Profile::TLS13).connect(self.homing.addr, "a.com").await)
    }

    async fn http2(&self) -> Http2 {
        let client = TlsClient::new(Profile { http2: true, ..Profile::TLS13 });
        Http2::over(client.connect(self.homing.addr, "a.com").await).await
    }

    /// Without and with bodies: small, large, of unknown length, over either version.
    async fn well_behaved(&self) -> usize {
        let mut client = self.connect().await;
        let http2 = self.http2().await;
        let mut made = 0;
        for session in 0..4 {
            let session = format!("SID={session}");
            for request in [
                Request::get("/"),
                Request::new("HEAD", "/"),
                Request::post("/small", "body"),
                Request::post("/gathered", vec![b'x'; 60_000]),
                Request::post("/streamed", vec![b'x'; 300_000]),
            ] {
                let request = request.cookie(&session);
                assert_eq!(client.ask(&request).await.status, 200, "{request:?}");
                made += 1;
                if request.method != "HEAD" {
                    assert_eq!(http2.ask(&request).await.status, 200, "{request:?} over HTTP/2");
                    made += 1;
                }
            }
            for chunks in ["0\r\n\r\n".to_owned(), format!("30d40\r\n{}\r\n0\r\n\r\n", "x".repeat(200_000))] {
                let head = Request::new("POST", "/chunked").header("Transfer-Encoding", "chunked");
                client.send(&head.cookie(&session)).await.expect("the head is read");
                client.wire.write(chunks).await.expect("the body is read");
                assert_eq!(client.answer().await.expect("an answer").status, 200);
                made += 1;
            }
        }
        made
    }

    /// Tunnels, copies that come back, and what a rule answers.
    async fn not_to_be_copied(&self) -> usize {
        let mut tunnel = self.connect().await;
        tunnel.send(&websocket()).await.expect("the request is read");
        tunnel.head().await.expect("an answer");
        let mut client = self.connect().await;
        let copy = Request::get("/").header("X-Homing-Clone", &self.mark);
        client.try_ask(&copy).await.expect("an answer");
        assert_eq!(Request::get("/").send(self.plain).await.status, 301);
        3
    }

    /// Clients that go away within a body, and one whose chunks are none.
    async fn aborting(&self) -> usize {
        let lengths = [1_000, 300_000].map(|length| ("Content-Length", length.to_string(), "half"));
        let chunked = ("Transfer-Encoding", "chunked".to_owned(), "4\r\nhalf\r\n");
        let malformed = ("Transfer-Encoding", "chunked".to_owned(), "4\r\nhalf\r\nwhat?\r\n\r\n");
        let all = lengths.into_iter().chain([chunked, malformed]);
        for (name, value, begun) in all.clone() {
            let mut client = self.connect().await;
            let head = Request::new("POST", "/aborted").header(name, &value).cookie("SID=1");
            client.send(&head).await.expect("the head is read");
            client.wire.write(begun).await.expect("the body is read");
            if begun.contains("what") {
                assert_eq!(client.answer().await.expect("an answer").status, 400);
            }
        }
        let begun = || {
            let requests = self.app.started();
            requests.iter().filter(|request| request.target == "/reset" && request.body_len > 0).count()
        };
        let before = begun();
        let http2 = self.http2().await;
        let (_, mut body) = http2.begin(&Request::new("POST", "/reset").cookie("SID=2"), false).await;
        body.send_data(Bytes::from(vec![b'x'; 10_000]), false).expect("the stream takes bytes");
        eventually("the body has begun", async || begun() > before).await;
        body.send_reset(h2::Reason::CANCEL);
        all.count() + 1
    }

    /// A member that is killed within a body, while others come.
    async fn while_the_member_dies(&self, member: &Origin) -> usize {
        member.take();
        let mut large = self.connect().await;
        let head = Request::new("POST", "/large").header("Content-Length", "1000000").cookie("SID=1");
        large.send(&head).await.expect("the head is read");
        large.wire.write(vec![b'x'; 500_000]).await.expect("the body is read");
        let http2 = self.http2().await;
        let (answer, mut body) = http2.begin(&Request::new("POST", "/large").cookie("SID=2"), false).await;
        eventually("the copy is under way", async || {
            member.started().iter().any(|copy| copy.target == "/large" && copy.body_len > 0)
        })
        .await;
        member.down().await;
        let meanwhile = self.well_behaved().await;
        large.wire.write(vec![b'x'; 500_000]).await.expect("the body is read");
        assert_eq!(large.answer().await.expect("an answer").status, 200);
        send_all(&mut body, vec![b'x'; 300_000].into()).await;
        assert_eq!(soon("an answer", answer).await.expect("the stream is answered").status(), 200);
        meanwhile + 2
    }

    /// Requests for an app whose servers are gone.
    async fn that_nobody_serves(&self) -> usize {
        for request in
            [Request::get("/"), Request::post("/", "body"), Request::post("/", vec![b'x'; 300_000])]
        {
            let answer = self.connect().await.ask(&request.cookie("SID=1")).await;
            assert!((500..600).contains(&answer.status), "{answer:?}");
        }
        3
    }

    /// Waits until these pools' sections have one outcome for each request.
    async fn settle(&self, requests: usize, pools: &[&str]) {
        let requests = requests as f64;
        eventually("every request is over", async || {
            self.homing.metric("homing_requests_total", &[("vs", "web")]).await == requests
        })
        .await;
        for pool in pools.iter().copied() {
            let mut outcomes = 0.0;
            let settled = async || {
                outcomes = 0.0;
                for name in ["copies", "dropped", "skipped"] {
                    let name = format!("homing_clone_{name}_total");
                    outcomes += self.homing.metric(&name, &[("vs", "web"), ("pool", pool)]).await;
                }
                outcomes >= requests
            };
            eventually_within(PATIENCE, &format!("{requests} outcomes of {pool}"), settled).await;
            assert_eq!(outcomes, requests, "{pool}: none is counted twice");
            let kept = async || self.homing.metric("homing_clone_buffered_bytes", &[("pool", pool)]).await;
            eventually("nothing is kept", async || kept().await == 0.0).await;
        }
    }
}

/// A member that takes no byte is given up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(40);
