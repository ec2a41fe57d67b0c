//! Where the admin API listens.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{files::Source, read::Object, words};

/// The admin API's listener and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: AdminListen,
    /// Asked for beyond loopback by everything but `/metrics`, `/healthz` and `/readyz`.
    pub token_file: Option<PathBuf>,
}

/// `127.0.0.1:9901` (the default), `unix:PATH` or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
    None,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: AdminListen::Tcp((Ipv4Addr::LOCALHOST, 9901).into()), token_file: None }
    }
}

impl Admin {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let source = o.source;
        let listen = o.field("listen", |node| listen(&words::text(node)?, source));
        let listen = listen.unwrap_or_else(|| Self::default().listen);
        let token_file = o.file("token_file").map(|(path, token)| {
            if token.trim_ascii().is_empty() {
                o.wrong("token_file", "the file is empty", "write a token into it");
            }
            o.warn_if_others_read("token_file", &path);
            path
        });
        let beyond_loopback = matches!(listen, AdminListen::Tcp(addr) if !addr.ip().is_loopback());
        if beyond_loopback && !o.has("token_file") {
            let what = "beyond loopback only /metrics, /healthz and /readyz answer without a token";
            o.dubious("listen", what, "add `token_file` if more is wanted");
        }
        Self { listen, token_file }
    }
}

fn listen(text: &str, source: &Source<'_>) -> Result<AdminListen, super::problem::Wrong> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(AdminListen::Unix(source.beside(path))),
        None if text == "none" => Ok(AdminListen::None),
        None => words::socket_address(text).map(AdminListen::Tcp).map_err(|mut wrong| {
            wrong.help.push_str(", `unix:PATH` or `none`");
            wrong
        }),
    }
}
