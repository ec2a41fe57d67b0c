//! How servers are spoken to, and what happens when they do not answer as they should.

mod connections;
mod deadlines;
mod kept;
mod proofs;
mod retries;
mod sources;

use crate::support::{client::Request, origin::Mode};

/// Requests whose answers end in all ways that leave the connection to a server whole, each with what the app does.
fn answered_whole() -> [(Mode, Request); 5] {
    [
        (Mode::Ok, Request::get("/")),
        (Mode::Ok, Request::new("HEAD", "/")),
        (Mode::Status(204), Request::get("/")),
        (Mode::Ok, Request::post("/", "body")),
        (Mode::Raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()), Request::get("/")),
    ]
}
