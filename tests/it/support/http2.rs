//! An HTTP/2 client that can do what browsers do: split cookies over fields, run many streams.

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{Response, StatusCode};

use super::{
    client::{Answer, Request},
    soon,
    wire::{Headers, Io},
};

/// A client's connection; its driver runs beside it.
#[derive(Clone)]
pub struct Http2 {
    send: SendRequest<Bytes>,
}

impl Http2 {
    pub async fn over(io: impl Io + 'static) -> Self {
        let (send, connection) =
            soon("an HTTP/2 preface", h2::client::handshake(io)).await.expect("HTTP/2 starts");
        tokio::spawn(connection);
        Self { send }
    }

    /// A request and its whole answer. Every header of the request is a field of its own.
    pub async fn ask(&self, request: &Request) -> Answer {
        let (response, mut body) = self.begin(request, request.body.is_none()).await;
        if let Some(bytes) = &request.body {
            send_all(&mut body, bytes.clone()).await;
        }
        let response = soon("an answer", response).await.expect("the stream is answered");
        finish(response).await
    }

    /// The same of a request without a body; `None`: the server takes no more streams on this connection.
    pub async fn ask_while_open(&self, request: &Request) -> Option<Answer> {
        let mut send = soon("a stream", self.send.clone().ready()).await.ok()?;
        let (response, _) = send.send_request(self.head(request), true).ok()?;
        Some(finish(soon("an answer", response).await.expect("the stream is answered")).await)
    }

    /// [`Http2::ask`] as a future that can be spawned.
    pub fn ask_owned(&self, request: Request) -> impl Future<Output = Answer> + use<> {
        let client = self.clone();
        async move { client.ask(&request).await }
    }

    /// Sends the head; the answer comes with the first future, the body goes into the stream.
    pub async fn begin(
        &self,
        request: &Request,
        ended: bool,
    ) -> (impl Future<Output = Result<Response<RecvStream>, h2::Error>> + use<>, SendStream<Bytes>) {
        let head = self.head(request);
        let mut send = soon("a stream", self.send.clone().ready()).await.expect("the connection lives");
        send.send_request(head, ended).expect("the stream opens")
    }

    fn head(&self, request: &Request) -> http::Request<()> {
        let host = request.host.as_deref().unwrap_or("a.com");
        let mut head = http::Request::builder()
            .method(request.method.as_str())
            .uri(format!("https://{host}{}", request.target))
            .version(http::Version::HTTP_2);
        for (name, value) in &request.headers {
            head = head.header(name.to_lowercase(), value);
        }
        head.body(()).expect("the test's request is valid")
    }
}

/// Sends a body as fast as the windows allow, and ends it.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut body: Bytes) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let capacity = soon("window", std::future::poll_fn(|cx| stream.poll_capacity(cx))).await;
        let capacity = capacity.expect("the stream lives").expect("the stream takes bytes");
        let piece = body.split_to(capacity.min(body.len()));
        stream.send_data(piece, false).expect("the stream takes bytes");
    }
    stream.send_data(Bytes::new(), true).expect("the stream ends");
}

/// The rest of an answer.
pub async fn finish(response: Response<RecvStream>) -> Answer {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = soon("the answer's body", stream.data()).await {
        let piece = piece.expect("the body comes whole");
        body.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len()).expect("the window opens again");
    }
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers = Headers(head.headers.iter().map(field).collect());
    Answer { status: StatusCode::as_u16(&head.status), headers, body: body.into() }
}
