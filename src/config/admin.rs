//! Where the admin API listens, and where those of other sites do.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use super::{
    files::Source,
    problem::{Wrong, shown},
    read::Object,
    words,
    yaml::Node,
};

/// The admin API's listener and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: AdminListen,
    /// Asked for beyond loopback by everything but `/metrics`, `/healthz` and `/readyz`.
    pub token_file: Option<PathBuf>,
    /// By which it may be asked on loopback, beside addresses and `localhost`.
    pub domain_names: Vec<String>,
    /// The name or number of the group that may use the Unix socket.
    pub socket_group: Option<String>,
}

/// The shortest token that is taken, in bytes. What guards against guessing is its length.
pub const SHORTEST_TOKEN: usize = 16;

/// `127.0.0.1:9901` (the default), `unix:PATH` or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    Tcp(SocketAddr),
    Unix(PathBuf),
    None,
}

/// Where a running homing's admin API listens: `http://HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminUrl {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

/// An `--admin` that is neither.
#[derive(Debug, thiserror::Error)]
#[error("give http://HOST:PORT or unix:PATH")]
pub struct NotAnAdminUrl;

/// How another site's admin API is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAdmin {
    pub url: AdminUrl,
    /// What it asks for beyond loopback.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: AdminListen::Tcp((Ipv4Addr::LOCALHOST, 9901).into()),
            token_file: None,
            domain_names: Vec::new(),
            socket_group: None,
        }
    }
}

impl Admin {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let source = o.source;
        let listen = o.field("listen", |node| listen(&words::text(node)?, source));
        let listen = listen.unwrap_or_else(|| Self::default().listen);
        let token_file = token_file(o, "token_file", SHORTEST_TOKEN);
        let socket_group = o.field("socket_group", words::text);
        if socket_group.is_some() && !matches!(listen, AdminListen::Unix(_)) {
            let what = "a group for no Unix socket";
            o.dubious("socket_group", what, "write `listen: unix:PATH`, or leave it out");
        }
        let domain_names = o.list("domain_names", words::host).unwrap_or_default();
        Self { listen, token_file, domain_names, socket_group }
    }
}

impl PeerAdmin {
    /// Of the site that is being read.
    pub(super) fn read(o: &mut Object<'_>) -> Option<Self> {
        let url = o.field("admin_url", admin_url);
        let token_file = token_file(o, "admin_token_file", 1);
        if token_file.is_some() && !o.has("admin_url") {
            o.wrong("admin_token_file", "a token for no `admin_url`", "add `admin_url: …`, or leave it out");
        }
        Some(Self { url: url?, token_file })
    }
}

fn token_file(o: &mut Object<'_>, key: &'static str, shortest: usize) -> Option<PathBuf> {
    let (path, token) = o.file(key)?;
    match token.trim_ascii().len() {
        0 => {
            o.wrong(key, "the file is empty", "write a token into it, such as `openssl rand -hex 32` prints")
        }
        length if length < shortest => {
            let what = format!("the file's token has {length} characters, which can be guessed");
            o.wrong(key, what, format!("use at least {shortest}, such as `openssl rand -hex 32` prints"));
        }
        _ => {}
    }
    o.warn_if_others_read(key, &path);
    Some(path)
}

fn admin_url(node: &Node) -> Result<AdminUrl, Wrong> {
    let text = words::text(node)?;
    let help = "write it as in `http://10.0.0.12:9901`, or `unix:PATH`";
    text.parse().map_err(|_| Wrong::new(format!("{} is no URL of an admin API", shown(&text)), help))
}

fn listen(text: &str, source: &Source<'_>) -> Result<AdminListen, Wrong> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(AdminListen::Unix(source.beside(path))),
        None if text == "none" => Ok(AdminListen::None),
        None => words::socket_address(text).map(AdminListen::Tcp).map_err(|mut wrong| {
            wrong.help.push_str(", `unix:PATH` or `none`");
            wrong
        }),
    }
}

impl FromStr for AdminUrl {
    type Err = NotAnAdminUrl;

    fn from_str(text: &str) -> Result<Self, NotAnAdminUrl> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(_)) if !authority.contains(['/', '@', '?', ' ']) => Ok(Self::Tcp(authority.into())),
            _ => Err(NotAnAdminUrl),
        }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_url_names_a_port_or_a_socket() {
        for (text, shown) in [
            ("http://127.0.0.1:9901", Some("http://127.0.0.1:9901")),
            ("http://[::1]:9901/", Some("http://[::1]:9901")),
            ("localhost:9901", Some("http://localhost:9901")),
            ("unix:/run/homing.sock", Some("unix:/run/homing.sock")),
            ("unix:", None),
            ("http://localhost", None),
            ("http://:9901", None),
            ("https://localhost:9901", None),
            ("http://localhost:99010", None),
            ("http://localhost:9901/api", None),
            ("", None),
        ] {
            let got = text.parse::<AdminUrl>().map(|url| url.to_string());
            assert_eq!(got.ok().as_deref(), shown, "{text}");
        }
    }
}
