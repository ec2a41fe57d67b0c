//! The scripts' parts: a member that speaks HTTP/2.

use std::{io, pin::Pin, task::Poll};

use h2::{
    RecvStream,
    server::{self, Connection, SendResponse},
};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::*;

/// The member's side of a connection, with how often it had to read.
pub struct Counted(TcpStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if read.is_ready() {
            self.1.fetch_add(1, SeqCst);
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

pub type Requests = mpsc::UnboundedSender<Got>;

/// Speaks HTTP/2 as these settings say.
pub async fn speak(
    incoming: Incoming,
    settings: &server::Builder,
) -> (Connection<Counted, Bytes>, Requests, usize) {
    let io = Counted(incoming.stream, incoming.reads);
    let connection = settings.handshake(io).await.expect("the other side speaks HTTP/2");
    (connection, incoming.requests, incoming.number)
}

/// Reads a request to its end and reports it, as if it had come in HTTP/1.1; its trailers follow the body.
pub async fn read(request: Request<RecvStream>, connection: usize, requests: &Requests) -> Option<()> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.ok()?;
        stream.flow_control().release_capacity(data.len()).ok()?;
        body.extend_from_slice(&data);
    }
    for (name, value) in stream.trailers().await.ok()?.iter().flatten() {
        body.extend(format!("{name}: {}", value.to_str().expect("text")).bytes());
    }
    let fields: String = head.headers.iter().map(|(name, value)| format!("{name}: {value:?}\r\n")).collect();
    let target = head.uri.path_and_query().expect("a path");
    let head = format!("{} {target} {}\r\n{fields}", head.method, head.uri.authority().expect("a host"));
    let _ = requests.send(Got { connection, head, body });
    Some(())
}

pub fn answer(mut respond: SendResponse<Bytes>, body: &'static [u8]) {
    let mut stream = respond.send_response(Response::new(()), body.is_empty()).expect("the stream is open");
    if !body.is_empty() {
        stream.send_data(Bytes::from_static(body), true).expect("the stream is open");
    }
}

/// Answers every request with this body.
pub async fn serve(incoming: Incoming, settings: server::Builder, body: &'static [u8]) {
    let (mut connection, requests, number) = speak(incoming, &settings).await;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let requests = requests.clone();
        tokio::spawn(async move {
            if read(request, number, &requests).await.is_some() {
                answer(respond, body);
            }
        });
    }
}

pub async fn answering(settings: server::Builder, body: &'static [u8]) -> Origin {
    Origin::new(move |incoming| serve(incoming, settings.clone(), body)).await
}
