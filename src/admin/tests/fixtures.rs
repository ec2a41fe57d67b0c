//! An admin API that shows examples.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::{view::example, *};
use crate::{
    config::{Admin, AdminListen},
    pool::AdminState,
};

/// What there is to show.
pub struct Example {
    missing: Vec<String>,
    reload: view::Reload,
}

impl Source for Example {
    fn metrics(&self) -> String {
        "homing_build_info 1\n".into()
    }

    fn missing(&self) -> Vec<String> {
        self.missing.clone()
    }

    fn virtual_services(&self) -> Vec<view::VirtualService> {
        example::virtual_services()
    }

    fn pools(&self) -> Vec<view::Pool> {
        example::pools()
    }

    fn gslb_services(&self) -> Vec<view::GslbRuntime> {
        vec![example::gslb_runtime()]
    }

    fn gslb_service_configs(&self) -> Vec<view::GslbServiceConfig> {
        vec![example::gslb_service_config()]
    }

    fn explain_choice(&self, question: &ChoiceQuestion) -> Option<view::ChoiceExplanation> {
        (question.name == "a.com").then(example::choice_explanation)
    }

    fn resume_members(&self, service: &str, member: Option<&str>, _: &str) -> Option<view::Resumed> {
        let resumed = member.iter().map(|name| name.to_string()).collect();
        (service == "gs-1").then(|| view::Resumed { gslb_service: "gs-1".into(), resumed })
    }

    fn site_health(&self) -> view::SiteHealth {
        example::site_health()
    }

    fn sites(&self) -> Vec<view::Site> {
        example::sites().into()
    }

    fn drain(&self, site: &str, _: Duration) -> Option<view::Site> {
        example::sites().into_iter().find(|known| known.name == site)
    }

    fn undrain(&self, site: &str) -> Option<view::Site> {
        self.drain(site, Duration::ZERO)
    }

    fn configuration(&self) -> view::Configuration {
        example::configuration()
    }

    async fn reload(&self) -> view::Reload {
        self.reload.clone()
    }

    fn site_name(&self) -> String {
        "site_A".into()
    }

    fn peers(&self, _: &str) -> Vec<Peer> {
        vec![Peer { site_name: "site_B".into(), cluster_uuid: "cluster-b".into(), admin: None }]
    }

    fn explain(&self, vs: &str, _: &str) -> Option<view::Explanation> {
        (vs == "pay@site_A").then(example::explanation)
    }

    fn site_cookie_keys(&self) -> Vec<view::SiteCookieKey> {
        example::site_cookie_keys()
    }

    fn session_tables(&self) -> Vec<view::SessionTable> {
        example::sessions().tables
    }

    fn session_entries(&self, table: &str, key: Option<&str>) -> Vec<view::SessionEntry> {
        let mut entries = example::sessions().entries;
        match (table, key) {
            ("ssl", _) => vec![],
            (_, Some("alice")) => entries.split_off(1),
            (_, Some(_)) => vec![],
            (_, None) => std::iter::repeat_n(entries.remove(0), view::Sessions::MOST + 1).collect(),
        }
    }

    fn explain_sessions(&self, wanted: &Wanted) -> Result<Vec<view::Explained>, SessionError> {
        self.delete_session(wanted, "").map(|found| vec![found])
    }

    fn move_session(
        &self,
        wanted: &Wanted,
        server: SocketAddr,
        force: bool,
        _by: &str,
    ) -> Result<view::Explained, SessionError> {
        match force {
            true => self.delete_session(wanted, ""),
            false => Err(SessionError::Draining { server, pool: "MY_CLONEPOOL".into() }),
        }
    }

    fn delete_session(&self, wanted: &Wanted, _by: &str) -> Result<view::Explained, SessionError> {
        match (&wanted.scope, wanted.token.as_str()) {
            (Scope::Table(name), _) => Err(SessionError::UnknownTable { name: name.clone(), known: vec![] }),
            (_, "alice") => Ok(example::explained()),
            _ => Err(SessionError::NoSession { tables: vec!["t".into()], tokens: vec![] }),
        }
    }

    fn order_server(
        &self,
        pool: &str,
        server: &str,
        _state: AdminState,
        by: &str,
    ) -> Result<view::Server, ServerError> {
        match pool {
            "pay" if by.starts_with("127.0.0.1:") => Ok(example::draining()),
            _ => Err(ServerError::UnknownServer {
                pool: pool.into(),
                server: server.into(),
                known: vec!["127.0.0.1:11301".into()],
            }),
        }
    }
}

/// A running admin API; stops when dropped.
pub struct Running {
    pub port: u16,
    pub terms: CurrentTerms,
    _stop: tokio_util::sync::DropGuard,
}

impl Running {
    pub async fn start(listen: &str, missing: &[&str], terms: Terms) -> Self {
        Self::start_with(listen, missing, terms, example::reload()).await
    }

    pub async fn start_with(listen: &str, missing: &[&str], terms: Terms, reload: view::Reload) -> Self {
        let listen = AdminListen::Tcp(listen.parse().expect("an address"));
        let admin = Admin { listen, ..Admin::default() };
        let listener = AdminListener::bind(&admin).await.expect("a free port").expect("not none");
        let port = listener.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let missing = missing.iter().map(|text| text.to_string()).collect();
        let source = Arc::new(Example { missing, reload });
        let current = CurrentTerms::default();
        current.set(terms);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, source, current.clone(), stop.clone()));
        Self { port, terms: current, _stop: stop.drop_guard() }
    }

    /// Sends a request line and header lines; returns status and the whole answer.
    pub async fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it accepts");
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let host = if headers.contains("Host: ") { "" } else { "Host: localhost\r\n" };
        let request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer)
    }
}

/// Terms with the token of a file, and names.
pub fn terms(token_file: Option<&std::path::Path>, domain_names: &[&str]) -> Terms {
    let domain_names = domain_names.iter().map(|name| name.to_string()).collect();
    let admin = Admin { token_file: token_file.map(Into::into), domain_names, ..Admin::default() };
    Terms::read(&admin).unwrap_or_else(|error| panic!("{error}"))
}
