//! The admin API under attack.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    client::{Connection, Request},
    config::Site,
    origin::Origin,
    soon,
};

#[tokio::test]
async fn a_flood_of_the_admin_api_leaves_room_for_a_health_check() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).with(|yaml| yaml["threads"] = 1.into()).start().await;
    let mut held = Vec::new();
    for n in 0..300 {
        // Some send nothing, some a byte now and then, some a request and are idle.
        let mut stream = TcpStream::connect(homing.admin).await.expect("the kernel takes it");
        match n % 3 {
            0 => {}
            1 => stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.expect("the kernel takes it"),
            _ => stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .expect("the kernel takes it"),
        }
        held.push(stream);
        if n % 50 == 49 {
            let health = soon("a health check is answered", homing.get("/healthz")).await;
            assert_eq!(health.status, 200, "with {n} connections that want nothing");
            assert_eq!(Request::get("/").send(homing.addr).await.status, 200);
        }
    }
    let files = std::fs::read_dir(format!("/proc/{}/fd", homing.pid())).expect("it runs").count();
    assert!(files < 150, "{files} files are open");
}

#[tokio::test]
async fn what_is_too_large_for_the_admin_api_is_refused() {
    let app = Origin::start("app").await;
    let homing = Site::new(&[&app]).start().await;
    let before = homing.memory();
    for (head, piece, pieces) in [
        (
            "POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n",
            vec![b'x'; 1 << 20],
            64,
        ),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", vec![b'x'; 1 << 20], 64),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n".repeat(200_000), 64),
    ] {
        let mut stream = TcpStream::connect(homing.admin).await.expect("it accepts");
        stream.write_all(head.as_bytes()).await.expect("the kernel takes it");
        let mut sent = 0;
        while sent < pieces && stream.write_all(&piece).await.is_ok() {
            sent += 1;
        }
        assert!(sent < pieces, "it reads no further than it has to: {head}");
        let mut client = Connection::open(homing.addr).await;
        assert_eq!(client.ask(&Request::get("/")).await.status, 200);
    }
    assert_eq!(homing.get("/healthz").await.status, 200);
    let grown = homing.memory().saturating_sub(before);
    assert!(grown < 30_000, "{grown} KiB more");
}
