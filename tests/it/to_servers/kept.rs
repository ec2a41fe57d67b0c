//! Connections that are kept: how many, and what becomes of a request whose connection the server has closed.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::connections::in_front_of;
use crate::support::{
    client::{Connection, Request},
    config::APP,
    eventually,
    homing::Homing,
    net,
    origin::{Mode, Origin},
    soon,
};

/// Requests that are all in flight at once, and over.
async fn burst(homing: &Homing, app: &Origin, many: usize) {
    app.set(Mode::Held);
    let mut clients = Vec::new();
    for _ in 0..many {
        let mut client = Connection::open(homing.addr).await;
        client.send(&Request::get("/")).await.expect("it is read");
        clients.push(client);
    }
    let busy = [("pool", APP), ("state", "busy")];
    homing.settles("homing_pool_server_connections", &busy, many as f64).await;
    app.release(many);
    for mut client in clients {
        assert_eq!(client.answer().await.expect("an answer").status, 200);
    }
    homing.settles("homing_pool_server_connections", &busy, 0.0).await;
}

async fn idle_are(homing: &Homing, app: &Origin, many: u64) {
    let idle = [("pool", APP), ("state", "idle")];
    homing.settles("homing_pool_server_connections", &idle, many as f64).await;
    eventually("the others are closed", async || app.open() == many).await;
    let pool = homing.json(&format!("/api/v1/pools/{APP}")).await;
    let server = &pool["servers"][0];
    assert_eq!([&server["connections"], &server["idle_connections"]], [many, many], "{server}");
}

#[tokio::test]
async fn as_many_idle_connections_are_kept_for_a_server_as_its_pool_says() {
    let app = Origin::start("app").await;
    let site = in_front_of(app.addr, "{max_idle_connections_per_server: 2}");
    let homing = site.start().await;
    for _ in 0..2 {
        burst(&homing, &app, 5).await;
        idle_are(&homing, &app, 2).await;
    }
    assert_eq!(app.connections(), 5 + 3, "two were used again");
    let more = site.with(|yaml| yaml["pools"][0]["max_idle_connections_per_server"] = 3.into());
    homing.reloaded(&more).await;
    burst(&homing, &app, 5).await;
    idle_are(&homing, &app, 3).await;
}

#[tokio::test]
async fn any_number_of_idle_connections_is_kept_where_the_pool_says_nothing() {
    let app = Origin::start("app").await;
    let homing = in_front_of(app.addr, "{}").start().await;
    burst(&homing, &app, 5).await;
    idle_are(&homing, &app, 5).await;
}

/// Takes a POST of four bytes, and answers it.
async fn serve(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = soon("a connection", listener.accept()).await.expect("homing connects");
    let (mut got, mut space) = (Vec::new(), [0; 1024]);
    while !got.ends_with(b"\r\n\r\nbody") {
        let read = soon("a request", stream.read(&mut space)).await.expect("the connection is there");
        assert!(read > 0, "half a request: {}", got.escape_ascii());
        got.extend_from_slice(&space[..read]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("homing reads");
    stream
}

#[tokio::test]
async fn a_post_outlives_the_kept_connection_that_the_server_closes_as_it_comes() {
    let listener = TcpListener::bind(net::free_addr()).await.expect("the address is free");
    let addr = listener.local_addr().expect("a bound socket has an address");
    let homing = in_front_of(addr, "{max_retries: 0}").start().await;
    let mut client = Connection::open(homing.addr).await;
    let post = Request::post("/", "body");
    client.send(&post).await.expect("it is read");
    for _ in 0..5 {
        let kept = serve(&listener).await;
        assert_eq!(client.answer().await.expect("an answer").body, "ok");
        // While homing stands still both come: the end of the connection, and a request for it.
        homing.signal(libc::SIGSTOP);
        drop(kept);
        client.send(&post).await.expect("the socket takes it");
        homing.signal(libc::SIGCONT);
    }
    serve(&listener).await;
    assert_eq!(client.answer().await.expect("an answer").body, "ok");
}
