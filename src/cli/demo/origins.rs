//! The servers behind the demo's sites: apps that name themselves, and clone members that tell what they saw.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write as _,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// The servers of one site, on free ports of the loopback address.
pub(super) struct Servers {
    pub(super) apps: Vec<SocketAddr>,
    pub(super) clones: Vec<SocketAddr>,
}

impl Servers {
    /// Starts two apps and three clone members. They end with the runtime.
    pub(super) async fn start(site: &'static str, seen: &Arc<Seen>) -> io::Result<Self> {
        let mut apps = Vec::new();
        for n in 1..=2 {
            let name: Arc<str> = format!("app-{n} of {site}").into();
            apps.push(serve(move |request| app(name.clone(), request)).await?);
        }
        let mut clones = Vec::new();
        for n in 1..=3 {
            let (name, seen): (Arc<str>, _) = (format!("{site} clone-{n}").into(), seen.clone());
            seen.add_member(&name);
            clones.push(serve(move |request| clone_member(name.clone(), seen.clone(), request)).await?);
        }
        Ok(Self { apps, clones })
    }
}

/// What the clone members of both sites saw.
#[derive(Default)]
pub(super) struct Seen(Mutex<Tally>);

#[derive(Default)]
struct Tally {
    /// Copies per session, per member.
    members: BTreeMap<Arc<str>, BTreeMap<String, u64>>,
    announced: bool,
}

impl Seen {
    /// From now on a session's first copy is printed; what came while the demo started is not.
    pub(super) fn announce(&self) {
        self.0.lock().announced = true;
    }

    fn add_member(&self, member: &Arc<str>) {
        self.0.lock().members.entry(member.clone()).or_default();
    }

    /// Counts a copy; the first of a session is worth a line.
    fn count(&self, member: &Arc<str>, session: String, what: &str) {
        let mut tally = self.0.lock();
        let announced = tally.announced;
        let sessions = tally.members.entry(member.clone()).or_default();
        if sessions.len() >= MOST_SESSIONS && !sessions.contains_key(&session) {
            return;
        }
        let copies = sessions.entry(session.clone()).or_insert(0);
        *copies += 1;
        if *copies == 1 && announced {
            drop(tally);
            // Nobody reads: the demo goes on.
            let _ = super::print(format!("{member} has a new session, {session}: copy of {what}\n"));
        }
    }

    /// A line per member.
    fn page(&self) -> String {
        let tally = self.0.lock();
        tally.members.iter().fold(String::new(), |mut page, (member, sessions)| {
            let sessions: Vec<_> =
                sessions.iter().map(|(name, copies)| format!("{name}: {copies}")).collect();
            let sessions = if sessions.is_empty() { "nothing yet".into() } else { sessions.join(", ") };
            writeln!(page, "{member} saw {sessions}").expect("a String takes every write");
            page
        })
    }
}

async fn app(name: Arc<str>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes().len()) else {
        return text(StatusCode::BAD_REQUEST, "the body was cut\n");
    };
    let cookies = cookies(&head.headers).unwrap_or_else(|| "none".into());
    let body = if body == 0 { String::new() } else { format!(", {body} bytes") };
    text(StatusCode::OK, format!("{name}: {} {}{body}, cookies: {cookies}\n", head.method, head.uri))
}

async fn clone_member(name: Arc<str>, seen: Arc<Seen>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Some(mark) = head.headers.get(CLONE_HEADER) else {
        // Not a copy: a probe, or a person.
        return text(StatusCode::OK, seen.page());
    };
    if body.collect().await.is_ok() {
        let mark = String::from_utf8_lossy(mark.as_bytes());
        let hash = mark.split(';').find_map(|part| part.strip_prefix("session=")).unwrap_or("?");
        let session = cookies(&head.headers).unwrap_or_else(|| format!("session {hash}"));
        seen.count(&name, session, &format!("{} {}", head.method, head.uri));
    }
    text(StatusCode::NO_CONTENT, "")
}

fn cookies(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::COOKIE);
    let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join("; "))
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Serves HTTP/1.1 on a free port.
async fn serve<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> io::Result<SocketAddr>
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                // A connection that ends early is the peer's affair.
                let _ = http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(addr)
}

const CLONE_HEADER: &str = "x-homing-clone";

/// A demo counts so many sessions per member.
const MOST_SESSIONS: usize = 1_000;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("it accepts");
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn an_app_names_itself_its_site_and_what_it_got() {
        let servers = Servers::start("site_A", &Arc::default()).await.expect("free ports");
        for (at, request, answer) in [
            (
                0,
                "GET /cart/1 HTTP/1.1\r\nCookie: SID=ann",
                "app-1 of site_A: GET /cart/1, cookies: SID=ann\n",
            ),
            (1, "GET / HTTP/1.1", "app-2 of site_A: GET /, cookies: none\n"),
            (0, "POST / HTTP/1.1\r\nContent-Length: 0", "app-1 of site_A: POST /, cookies: none\n"),
        ] {
            let got = ask(servers.apps[at], request).await;
            assert!(got.ends_with(&format!("\r\n\r\n{answer}")), "{got}");
        }
    }

    #[tokio::test]
    async fn the_clone_members_tell_which_sessions_each_saw() {
        let seen = Arc::new(Seen::default());
        let servers = Servers::start("site_A", &seen).await.expect("free ports");
        let copy = "X-Homing-Clone: vs=pay@site_A;session=1a2b;seq=1;id=x";
        for (at, cookie) in [(0, "\r\nCookie: SID=ann"), (0, "\r\nCookie: SID=ann"), (2, "")] {
            let answer = ask(servers.clones[at], &format!("GET / HTTP/1.1\r\n{copy}{cookie}")).await;
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        }
        let page = ask(servers.clones[1], "GET /seen HTTP/1.1").await;
        let lines = "site_A clone-1 saw SID=ann: 2\nsite_A clone-2 saw nothing yet\nsite_A clone-3 saw session 1a2b: 1\n";
        assert!(page.ends_with(lines), "{page}");
    }
}
