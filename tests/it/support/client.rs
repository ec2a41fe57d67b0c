//! HTTP/1.1 clients: one connection, one request, or a browser that keeps its cookies.

use std::{collections::BTreeMap, io, net::SocketAddr};

use bytes::Bytes;
use tokio::net::{TcpSocket, TcpStream};

use super::{
    soon,
    wire::{Framing, Head, Headers, Io, Wire},
};

/// A request, by default for `a.com`.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Option<Bytes>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, host: Some("a.com".to_owned()), headers: Vec::new(), body: None }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Bytes>) -> Self {
        Self { body: Some(body.into()), ..Self::new("POST", target) }
    }

    pub fn host(self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn cookie(self, value: &str) -> Self {
        self.header("Cookie", value)
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = &self.host {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", self.body.as_deref().unwrap_or_default()].concat()
    }

    /// Sends it on a connection of its own.
    pub async fn send(&self, to: SocketAddr) -> Answer {
        Connection::open(to).await.ask(self).await
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The recording server that answered, see [`super::origin`]; empty where it was not one.
    pub fn server(&self) -> &str {
        self.header("x-server").unwrap_or("")
    }

    /// The `Set-Cookie` field of a name.
    pub fn set_cookie(&self, name: &str) -> Option<&str> {
        let is_it = |field: &&str| field.split_once('=').is_some_and(|(n, _)| n.trim() == name);
        self.headers.all("set-cookie").into_iter().find(is_it)
    }

    /// The value that it gives a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.set_cookie(name)?.split_once('=')?;
        rest.split(';').next()
    }

    /// The site cookie of the tests' federation.
    pub fn site_cookie(&self) -> Option<&str> {
        self.cookie(super::site_cookie::NAME)
    }
}

/// A client's connection.
pub struct Connection {
    pub wire: Wire,
    /// The method of the request that is being answered: `HEAD` has no body.
    method: String,
}

impl Connection {
    pub async fn open(to: SocketAddr) -> Self {
        match soon("connect", TcpStream::connect(to)).await {
            Ok(stream) => Self::over(stream),
            Err(error) => panic!("cannot connect to {to}: {error}"),
        }
    }

    /// The same from another address of this machine.
    pub async fn open_from(from: std::net::IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        Ok(Self::over(soon("connect", socket.connect(to)).await?))
    }

    pub fn over(io: impl Io + 'static) -> Self {
        Self { wire: Wire::new(io), method: String::new() }
    }

    /// A request and its whole answer.
    pub async fn ask(&mut self, request: &Request) -> Answer {
        match self.try_ask(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("no whole answer to {} {}: {error}", request.method, request.target),
        }
    }

    pub async fn try_ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request).await?;
        self.answer().await
    }

    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.method = request.method.clone();
        soon("send a request", self.wire.write(request.bytes())).await
    }

    /// A whole answer; informational ones before it are passed over.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head().await?;
        let body = soon("the answer's body", self.wire.body(self.framing(&head))).await?;
        Ok(Answer { status: head.status(), headers: head.headers, body })
    }

    /// The head of an answer; informational ones but 101 are passed over.
    pub async fn head(&mut self) -> io::Result<Head> {
        loop {
            let head = soon("an answer", self.wire.head()).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if head.status() == 101 || head.status() >= 200 {
                return Ok(head);
            }
        }
    }

    /// How the body after this head is framed.
    pub fn framing(&self, head: &Head) -> Framing {
        match head.status() {
            101 | 204 | 304 => Framing::Length(0),
            _ if self.method == "HEAD" => Framing::Length(0),
            _ => head.framing().unwrap_or(Framing::UntilClosed),
        }
    }

    /// Waits until the other side closes; whatever it still says is returned.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        loop {
            match soon("the connection is closed", self.wire.bytes()).await {
                Ok(bytes) if !bytes.is_empty() => rest.extend_from_slice(&bytes),
                _ => return rest,
            }
        }
    }
}

/// A client that keeps cookies by name, as a browser does for one site.
#[derive(Default)]
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Asks with every cookie it has, and keeps what it is given.
    pub async fn get(&mut self, at: SocketAddr, target: &str) -> Answer {
        let mut request = Request::get(target);
        if !self.cookies.is_empty() {
            let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
            request = request.cookie(&cookies.collect::<Vec<_>>().join("; "));
        }
        let answer = request.send(at).await;
        for field in answer.headers.all("set-cookie") {
            let pair = field.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.trim().to_owned(), value.to_owned());
            }
        }
        answer
    }
}
