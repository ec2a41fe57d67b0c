//! The asking side of the admin API, for commands and for other sites: one request over TCP or a Unix socket.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use zeroize::Zeroizing;

use super::view;
use crate::config::AdminUrl;

/// Asks one running homing.
pub struct Client {
    url: AdminUrl,
    token: Option<Zeroizing<String>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "homing does not answer at {url}: {why}; is it running? set --admin or HOMING_ADMIN to its admin.listen"
    )]
    Unreachable { url: AdminUrl, why: String },
    #[error("{url} does not answer as homing's admin API does: {why}; is --admin right?")]
    NotHoming { url: AdminUrl, why: String },
    #[error("{0}; give --token-file or set HOMING_ADMIN_TOKEN_FILE")]
    Unauthorized(String),
    /// What homing itself says: no such object, no such path.
    #[error("{0}")]
    Refused(String),
    #[error("--token-file {0} cannot be read: {1}")]
    Token(PathBuf, #[source] io::Error),
}

impl Client {
    pub fn new(url: AdminUrl, token_file: Option<&Path>) -> Result<Self, Error> {
        let read = |path: &Path| match fs::read_to_string(path) {
            Ok(text) => Ok(Zeroizing::new(text.trim().to_owned())),
            Err(error) => Err(Error::Token(path.to_owned(), error)),
        };
        Ok(Self { url, token: token_file.map(read).transpose()? })
    }

    /// The view at `path`, which is already percent-encoded.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.view(Method::GET, path).await
    }

    /// Changes what `path` says, and the view of what was changed.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.view(Method::POST, path).await
    }

    /// Has what is at `path` removed, and returns the view of what it was.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.view(Method::DELETE, path).await
    }

    /// Has the configuration loaded again. A reload that homing refuses is an answer too.
    pub async fn reload(&self) -> Result<view::Reload, Error> {
        let (status, body) = self.ask_in_time(Method::POST, "/api/v1/reload", RELOAD_TIMEOUT).await?;
        match status {
            StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => self.read(&body),
            status => Err(self.refused(status, &body)),
        }
    }

    /// What this homing still waits for before it should get traffic, each as a sentence; empty: it is ready.
    pub async fn missing(&self) -> Result<Vec<String>, Error> {
        let (status, body) = self.ask_in_time(Method::GET, "/readyz", ANSWER_TIMEOUT).await?;
        match status {
            StatusCode::OK => Ok(Vec::new()),
            StatusCode::SERVICE_UNAVAILABLE => {
                Ok(String::from_utf8_lossy(&body).lines().map(str::to_owned).collect())
            }
            status => Err(self.refused(status, &body)),
        }
    }

    async fn view<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Error> {
        let (status, body) = self.ask_in_time(method, path, ANSWER_TIMEOUT).await?;
        match status {
            StatusCode::OK => self.read(&body),
            status => Err(self.refused(status, &body)),
        }
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| self.not_homing(error.to_string()))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        match (status, serde_json::from_slice::<view::Failure>(body)) {
            (StatusCode::UNAUTHORIZED, Ok(failure)) => Error::Unauthorized(failure.error),
            (_, Ok(failure)) => Error::Refused(failure.error),
            (status, Err(_)) => self.not_homing(format!("status {status}")),
        }
    }

    async fn ask_in_time(
        &self,
        method: Method,
        path: &str,
        longest: Duration,
    ) -> Result<(StatusCode, Bytes), Error> {
        match timeout(longest, self.ask(method, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", longest.as_secs()))),
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let unreachable = |error: io::Error| self.unreachable(reason(&error));
        match &self.url {
            AdminUrl::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
                self.exchange(stream, authority, method, path).await
            }
            AdminUrl::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                self.exchange(stream, "localhost", method, path).await
            }
        }
    }

    async fn exchange<IO>(
        &self,
        stream: IO,
        host: &str,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Bytes), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |error: hyper::Error| self.not_homing(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Its error is the request's, which is awaited below.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(|error| Error::Refused(format!("request cannot be made: {error}")))?;
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| self.not_homing(error.to_string()))?;
        Ok((head.status, body.to_bytes()))
    }

    fn unreachable(&self, why: String) -> Error {
        Error::Unreachable { url: self.url.clone(), why }
    }

    fn not_homing(&self, why: String) -> Error {
        Error::NotHoming { url: self.url.clone(), why }
    }
}

/// A path segment or query value with everything but unreserved characters escaped (RFC 3986).
pub fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

/// The kind of error in words, where it has a kind: `connection refused`.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Thousands of certificates take their time.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UnixListener},
    };

    use super::*;

    fn client(url: &str) -> Client {
        Client::new(url.parse().expect("a URL"), None).expect("no token to read")
    }

    /// Answers one request with `answer`; returns the URL, and the request when it has come.
    async fn answering(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        (
            url,
            tokio::spawn(async move { exchange(listener.accept().await.expect("a client").0, answer).await }),
        )
    }

    async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.expect("a request");
        stream.write_all(answer.as_bytes()).await.expect("an answer");
        String::from_utf8_lossy(&request[..length]).into_owned()
    }

    #[test]
    fn names_are_escaped_for_a_path_or_a_query() {
        assert_eq!(escaped("clone:pay@site_A:a b&c/d"), "clone%3Apay%40site_A%3Aa%20b%26c%2Fd");
        assert_eq!(escaped("ä"), "%C3%A4");
    }

    #[tokio::test]
    async fn an_admin_api_that_is_not_there_is_said_with_the_way_out() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr();
        let url = format!("http://{}", free.expect("its address"));
        let error = client(&url).get::<Vec<view::Pool>>("/api/v1/pools").await.expect_err("nobody listens");
        let expected = format!(
            "homing does not answer at {url}: connection refused; is it running? \
             set --admin or HOMING_ADMIN to its admin.listen"
        );
        assert_eq!(error.to_string(), expected);
        let error = client("unix:/nowhere/homing.sock").get::<()>("/").await.expect_err("nobody listens");
        assert!(error.to_string().contains("at unix:/nowhere/homing.sock: entity not found"), "{error}");
    }

    #[tokio::test]
    async fn what_homing_refuses_is_passed_on_in_its_words() {
        for (answer, message) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{\"error\":\"hello\"}", "hello"),
            (
                "HTTP/1.1 401 No\r\nContent-Length: 13\r\n\r\n{\"error\":\"x\"}",
                "x; give --token-file or set HOMING_ADMIN_TOKEN_FILE",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "does not answer as homing's admin API does"),
            ("HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nhi", "status 502"),
            ("SSH-2.0-OpenSSH\r\n", "does not answer as homing's admin API does"),
        ] {
            let (url, _request) = answering(answer).await;
            let error = client(&url).get::<Vec<view::Pool>>("/").await.expect_err(answer);
            assert!(error.to_string().contains(message), "{answer}: {error}");
        }
    }

    #[tokio::test]
    async fn the_token_goes_along_and_is_read_from_its_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "0123456789abcdef\n").expect("written");
        let (url, request) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await;
        let client = Client::new(url.parse().expect("a URL"), Some(&file)).expect("readable");
        assert_eq!(client.get::<Vec<view::Pool>>("/api/v1/pools").await.expect("an answer"), []);
        let request = request.await.expect("a request").to_lowercase();
        assert!(request.starts_with("get /api/v1/pools http/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: bearer 0123456789abcdef\r\n"), "{request}");
        let missing = Client::new(AdminUrl::Tcp("x:1".into()), Some(&dir.path().join("none")));
        assert!(missing.is_err_and(|error| error.to_string().contains("cannot be read")));
    }

    #[tokio::test]
    async fn a_unix_socket_is_asked_like_a_port() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        tokio::spawn(async move {
            let stream = listener.accept().await.expect("a client").0;
            exchange(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await
        });
        let answer = client(&format!("unix:{}", path.display())).get::<Vec<view::Pool>>("/").await;
        assert_eq!(answer.expect("an answer"), []);
    }
}
