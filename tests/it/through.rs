//! What crosses the hop between sites unharmed: in clear, and over TLS, where it is HTTP/2 and where sites prove
//! themselves to each other by certificates, or may still do without.

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};

use crate::{
    routing::websocket,
    site_tls::with_tls,
    site_trust::with_certificate,
    sites::OUTCOMES,
    support::{
        certs::{Ca, cert_for},
        client::{Connection, Request},
        config::{Federation, Site, parse},
        eventually,
        homing::Homing,
        http2::Http2,
        origin::{HALF_AN_ANSWER, Mode, Origin},
        rpc::{RpcServer, UNKNOWN},
        site_cookie::{A, B, Cookie},
        soon,
        tls::{self, Profile, TlsClient},
    },
};

#[tokio::test]
async fn a_websocket_crosses_either_hop() {
    for hop in HOPS {
        let app = Origin::start("b").await;
        let sites = Sites::start(hop, |fed| fed.site_b(&[&app])).await;
        let mut client = sites.open().await;
        client.send(&as_of_b(websocket())).await.expect("the request is read");
        assert_eq!(client.head().await.expect("an answer").status(), 101, "{hop:?}");
        for round in 0..64 {
            let message = [round; 60_000];
            client.wire.write(message).await.expect("the tunnel takes bytes");
            let echoed = soon("an echo", client.wire.exactly(message.len())).await;
            assert_eq!(echoed.expect("the tunnel gives bytes"), &message[..], "{hop:?}");
        }
        drop(client);
        eventually("the app at home sees the tunnel's end", async || app.open() == 0).await;
    }
}

#[tokio::test]
async fn a_grpc_call_keeps_its_trailers_over_either_tls_hop_to_servers_with_tls_and_without() {
    let (plain, tls) = (RpcServer::start().await, RpcServer::start_tls(&cert_for(&["app"])).await);
    for (hop, server) in TLS_HOPS.into_iter().flat_map(|hop| [(hop, &plain), (hop, &tls)]) {
        let sites = Sites::start(hop, |fed| in_front_of(server, fed)).await;
        let client = sites.http2().await;
        let mut call = Call::begin(&client, "/echo").await;
        for message in ["first", "second"] {
            assert_eq!(call.exchange(message).await, message, "before the next one is sent");
        }
        let trailers = call.end().await.expect("the call ends with trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["grpc-message"], "all is well");
        let heads = server.heads();
        let head = heads.last().expect("the call came");
        assert_eq!((head.uri.path(), &head.headers["te"]), ("/echo", &"trailers".parse().expect("a value")));
        assert_eq!(head.uri.authority().expect("HTTP/2 has one").as_str(), "a.com", "Host is kept");
        assert!(!head.headers.contains_key("homing-hop"), "the hop ends at home");
        sites.b.settles(OUTCOMES, &[("outcome", "from_peer")], 1.0).await;
        assert_eq!(sites.b.metric("homing_sp_hops_refused_total", &[]).await, 0.0, "{hop:?}: it is proven");
    }
}

#[tokio::test]
async fn a_grpc_answer_may_be_a_head_alone() {
    let server = RpcServer::start().await;
    let sites = Sites::start(Hop::Tls, |fed| in_front_of(&server, fed)).await;
    let client = sites.http2().await;
    let request = as_of_b(Request::post(UNKNOWN, "a message"));
    let answer = client.ask(&request).await;
    assert_eq!((answer.status, answer.header("grpc-status"), answer.body.len()), (200, Some("12"), 0));
}

#[tokio::test]
async fn a_call_that_a_server_refused_untouched_is_made_again_whatever_its_method() {
    let server = RpcServer::start().await;
    let homing = in_front(Site::new(&[]), &server).start().await;
    server.refuse(2);
    let answer = Request::post("/", "a message").send(homing.addr).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"a message"[..]));
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_is_given_up_at_home() {
    let server = RpcServer::start().await;
    let sites = Sites::start(Hop::MutualTls, |fed| in_front_of(&server, fed)).await;
    let client = sites.http2().await;
    let mut call = Call::begin(&client, "/echo").await;
    assert_eq!(call.exchange("hello").await, "hello");
    drop(call);
    eventually("the server at home sees it", async || server.cancelled() == 1).await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_or_in_it_is_gone_at_home() {
    for hop in HOPS {
        let app = Origin::start("b").await;
        app.set(Mode::NeverAnswer);
        let sites = Sites::start(hop, |fed| fed.site_b(&[&app])).await;
        let mut client = sites.open().await;
        client.send(&as_of_b(Request::get("/"))).await.expect("the request is read");
        app.began(1).await;
        assert_eq!(app.open(), 1);
        drop(client);
        eventually("the app's connection ends", async || app.open() == 0).await;

        app.set(Mode::Raw(HALF_AN_ANSWER));
        let mut client = sites.open().await;
        client.send(&as_of_b(Request::get("/"))).await.expect("the request is read");
        client.head().await.expect("the answer begins");
        assert_eq!(app.open(), 1);
        drop(client);
        eventually("the app's connection ends", async || app.open() == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_send_its_body_is_told_so_by_the_app_at_home() {
    for hop in HOPS {
        let app = Origin::start("b").await;
        let sites = Sites::start(hop, |fed| fed.site_b(&[&app])).await;
        let mut client = sites.open().await;
        told_to_go_on(&mut client, as_of_b(Request::new("POST", "/"))).await;
        let record = app.requests().remove(0);
        assert_eq!((record.header("expect"), record.body_len), (Some("100-continue"), 4), "{hop:?}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_an_http_2_server_is_told_to_go_on() {
    let server = RpcServer::start().await;
    let homing = in_front(Site::new(&[]), &server).start().await;
    let mut client = Connection::open(homing.addr).await;
    let body = told_to_go_on(&mut client, Request::new("POST", "/")).await;
    assert_eq!(body, "body");
    assert!(!server.heads()[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn an_event_is_seen_before_the_next_one_is_made() {
    for hop in HOPS {
        let app = Origin::start("b").await;
        app.set(Mode::Steps(3));
        let sites = Sites::start(hop, |fed| fed.site_b(&[&app])).await;
        let mut client = sites.open().await;
        client.send(&as_of_b(Request::get("/events"))).await.expect("the request is read");
        let head = client.head().await.expect("the head comes before any event");
        let mut framing = client.framing(&head);
        for event in ["step 1", "step 2", "step 3"] {
            app.release(1);
            let piece = soon("an event", client.wire.piece(&mut framing)).await.expect("the answer goes on");
            assert_eq!(piece, Some(event.into()), "{hop:?}: before the next one is released");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Plain,
    /// Home shows the certificate of its app, and the signed header alone says who asks.
    Tls,
    /// Both show certificates of the federated PKI profile, on the name `sp.<site>`.
    MutualTls,
}

pub const HOPS: [Hop; 2] = [Hop::Plain, Hop::MutualTls];
const TLS_HOPS: [Hop; 2] = [Hop::Tls, Hop::MutualTls];

/// Two sites that know each other to be up; requests come in at site_A, in clear or over TLS as the hop is.
pub struct Sites {
    pub hop: Hop,
    pub a: Homing,
    pub b: Homing,
    _app_a: Origin,
}

impl Sites {
    pub async fn start(hop: Hop, site_b: impl FnOnce(&Federation) -> Site) -> Self {
        let app_a = Origin::start("a").await;
        let ca = Ca::new("ours");
        let fed = match hop {
            Hop::Plain => Federation::new(),
            Hop::Tls | Hop::MutualTls => Federation::new().over_tls(),
        };
        let secured = |site, name: &str, member| match hop {
            Hop::Plain => site,
            Hop::Tls => with_tls(site, &format!("{name}.sites.test"), &ca, &ca),
            Hop::MutualTls => with_certificate(site, &ca, name, member),
        };
        let b = secured(site_b(&fed), "site_B", B).start().await;
        let a = secured(fed.site_a(&[&app_a]), "site_A", A).start().await;
        a.sees("SP-gs-web@site_A", b.addr, true).await;
        Self { hop, a, b, _app_a: app_a }
    }

    pub async fn open(&self) -> Connection {
        match self.hop {
            Hop::Plain => Connection::open(self.a.addr).await,
            Hop::Tls | Hop::MutualTls => tls::open(self.a.addr).await,
        }
    }

    async fn http2(&self) -> Http2 {
        let profile = Profile { http2: true, ..Profile::TLS13 };
        Http2::over(TlsClient::new(profile).connect(self.a.addr, "a.com").await).await
    }
}

/// site_B in front of an HTTP/2 server.
fn in_front_of(server: &RpcServer, fed: &Federation) -> Site {
    in_front(fed.site_b(&[]), server)
}

fn in_front(site: Site, server: &RpcServer) -> Site {
    site.with(|yaml| {
        let pool = &mut yaml["pools"][0];
        pool["servers"] = parse(&format!("[{{ip: {}, port: {}}}]", server.addr.ip(), server.addr.port()));
        pool["enable_http2"] = true.into();
        if server.tls {
            pool["enable_ssl"] = true.into();
            pool["verify"] = false.into();
        }
    })
}

/// The same request from a client whose home is site_B.
pub fn as_of_b(request: Request) -> Request {
    request.cookie(&format!("FOO={}", Cookie::of(B).seal()))
}

/// Sends a head that asks first, then, once that is answered, the body; returns the answer's.
async fn told_to_go_on(client: &mut Connection, request: Request) -> Bytes {
    let request = request.header("Expect", "100-continue").header("Content-Length", "4");
    client.send(&request).await.expect("homing reads the head");
    let go_on = soon("100 Continue", client.wire.head()).await.expect("an answer").expect("a head");
    assert_eq!(go_on.status(), 100);
    client.wire.write("body").await.expect("homing reads the body");
    let answer = client.answer().await.expect("an answer");
    assert_eq!(answer.status, 200);
    answer.body
}

/// A gRPC call that goes on in both directions.
struct Call {
    request: SendStream<Bytes>,
    response: RecvStream,
}

impl Call {
    async fn begin(client: &Http2, path: &str) -> Self {
        let request = as_of_b(Request::new("POST", path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let (response, request) = client.begin(&request, false).await;
        let response: Response<_> = soon("the answer begins", response).await.expect("the stream lives");
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].as_bytes()),
            (200, &b"application/grpc"[..])
        );
        Self { request, response: response.into_body() }
    }

    /// Sends a message and waits for what comes back.
    async fn exchange(&mut self, message: &str) -> Bytes {
        self.request.send_data(message.to_owned().into(), false).expect("the stream takes bytes");
        soon("a message", self.response.data()).await.expect("the answer goes on").expect("the stream lives")
    }

    /// Sends the end and waits for it.
    async fn end(mut self) -> Option<HeaderMap> {
        self.request.send_data(Bytes::new(), true).expect("the stream ends");
        while let Some(piece) = soon("the end", self.response.data()).await {
            assert!(piece.expect("the stream lives").is_empty(), "nothing more was sent");
        }
        soon("trailers", self.response.trailers()).await.expect("the stream lives")
    }
}
