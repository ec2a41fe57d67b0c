//! Health monitors: how a server's health is probed.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use super::{
    problem::{Wrong, shown},
    read::{FileKind, Object},
    shape::Shape,
    table::Table,
    units::{self, hours, milliseconds, seconds},
    words,
    yaml::Node,
};
use crate::names::MonitorName;

/// An active probe. Defaults are Avi's: every 10 s, 4 s to answer, 2 successes or 2 failures to change state.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthMonitor {
    pub name: MonitorName,
    pub is_federated: bool,
    pub kind: MonitorType,
    pub send_interval: Duration,
    pub receive_timeout: Duration,
    /// Successes in a row that bring a server up.
    pub successful_checks: u32,
    /// Failures in a row that take a server down.
    pub failed_checks: u32,
    /// Probe this port instead of the server's.
    pub monitor_port: Option<u16>,
    pub maintenance: Maintenance,
    /// Of `https`: refuse a certificate that requests refuse, where those verify at all.
    pub verify: bool,
}

/// How a server says in its answer that it is in maintenance: it keeps the sessions that it has and gets no new ones.
/// By default it cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    pub codes: ResponseCodes,
    /// Anywhere in the first 64 KiB of the body.
    pub text: Option<String>,
}

/// What is probed.
#[derive(Clone, Debug, PartialEq)]
pub enum MonitorType {
    /// An ICMP echo request is answered: the machine is there, whatever runs on it.
    Ping,
    /// A connection is accepted.
    Tcp,
    /// A request is answered with one of the codes.
    Http { request: HttpRequest, codes: ResponseCodes },
    /// The same over TLS.
    Https { request: HttpRequest, codes: ResponseCodes },
}

/// `http_request: GET /healthz [HTTP/1.1]`, header lines may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Accepted status classes (`http_2xx`, …; `http_any`) as bits, bit `n` for class `n`, and single codes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ResponseCodes {
    pub classes: u8,
    pub codes: Vec<u16>,
}

impl ResponseCodes {
    /// From a list such as `[http_2xx, 404]`; `None`: it is left out or wrong.
    pub(super) fn read(o: &mut Object<'_>, key: &'static str) -> Option<Self> {
        let mut codes = Self::default();
        o.list(key, response_code)?.into_iter().for_each(|code| codes.add(code));
        Some(codes)
    }

    pub fn contains(&self, code: u16) -> bool {
        self.classes & (1 << (code / 100).min(7)) != 0 || self.codes.contains(&code)
    }

    /// As they are written in YAML.
    pub fn words(&self) -> Vec<String> {
        let classes = (1..=5).filter(|class| self.classes & (1 << class) != 0);
        classes.map(|class| format!("http_{class}xx")).chain(self.codes.iter().map(u16::to_string)).collect()
    }
}

impl HealthMonitor {
    pub(super) fn read(o: &mut Object<'_>, kind: FileKind, monitors: &mut Table<Arc<Self>>) {
        let name = o.name();
        let is_federated = o.is_federated(kind);
        let intervals = || units::duration(milliseconds(1)..=hours(1));
        let monitor = Self {
            name: name.as_deref().unwrap_or_default().into(),
            is_federated,
            kind: MonitorType::read(o),
            send_interval: o.field("send_interval", intervals()).unwrap_or(seconds(10)),
            receive_timeout: o.field("receive_timeout", intervals()).unwrap_or(seconds(4)),
            successful_checks: o.field("successful_checks", units::whole(1..=50)).unwrap_or(2),
            failed_checks: o.field("failed_checks", units::whole(1..=50)).unwrap_or(2),
            monitor_port: o.field("monitor_port", units::port),
            maintenance: Maintenance::read(o),
            verify: o.field("verify", units::flag).unwrap_or(true),
        };
        let asks = !matches!(monitor.kind, MonitorType::Ping | MonitorType::Tcp);
        for key in ["maintenance_code", "maintenance_response"].into_iter().filter(|key| o.has(key) && !asks)
        {
            o.wrong(
                key,
                "a monitor of this type reads no answer",
                "leave the key out, or write `type: http`",
            );
        }
        if o.has("verify") && !matches!(monitor.kind, MonitorType::Https { .. }) {
            o.wrong(
                "verify",
                "a monitor of this type sees no certificate",
                "leave it out, or write `type: https`",
            );
        }
        if o.has("monitor_port") && monitor.kind == MonitorType::Ping {
            o.wrong("monitor_port", "a ping goes to no port", "leave it out, or write `type: tcp`");
        }
        if let Some(name) = name {
            monitors.define(o, "name", &name, Arc::new(monitor));
        }
    }
}

impl MonitorType {
    fn read(o: &mut Object<'_>) -> Self {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Ping,
            Tcp,
            Http,
            Https,
        }
        let kinds = [
            ("ping", "HEALTH_MONITOR_PING", Kind::Ping),
            ("tcp", "HEALTH_MONITOR_TCP", Kind::Tcp),
            ("http", "HEALTH_MONITOR_HTTP", Kind::Http),
            ("https", "HEALTH_MONITOR_HTTPS", Kind::Https),
        ];
        let kind = o.required("type", words::choice(&kinds));
        let request = o.field("http_request", HttpRequest::parse).unwrap_or_default();
        let codes = ResponseCodes::read(o, "http_response_code");
        if codes == Some(ResponseCodes::default()) {
            o.wrong("http_response_code", "no code means up", "write at least one, as in `[http_2xx]`");
        }
        let codes = codes.unwrap_or(ResponseCodes { classes: 0b1100, codes: Vec::new() });
        if let Some(Kind::Ping | Kind::Tcp) = kind {
            for key in ["http_request", "http_response_code"].into_iter().filter(|key| o.has(key)) {
                o.wrong(
                    key,
                    "a monitor of this type sends no HTTP request",
                    "leave the key out, or write `type: http`",
                );
            }
        }
        match kind {
            Some(Kind::Http) => Self::Http { request, codes },
            Some(Kind::Https) => Self::Https { request, codes },
            Some(Kind::Ping) => Self::Ping,
            Some(Kind::Tcp) | None => Self::Tcp,
        }
    }
}

impl MonitorType {
    /// As it is written in YAML.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Tcp => "tcp",
            Self::Http { .. } => "http",
            Self::Https { .. } => "https",
        }
    }

    /// What is sent, and what is to be answered; `None`: nothing.
    pub fn exchange(&self) -> Option<(&HttpRequest, &ResponseCodes)> {
        match self {
            Self::Ping | Self::Tcp => None,
            Self::Http { request, codes } | Self::Https { request, codes } => Some((request, codes)),
        }
    }
}

impl Maintenance {
    fn read(o: &mut Object<'_>) -> Self {
        let codes = ResponseCodes::read(o, "maintenance_code").unwrap_or_default();
        Self { codes, text: o.field("maintenance_response", words::text) }
    }
}

impl Default for HttpRequest {
    fn default() -> Self {
        Self { method: Method::GET, target: "/".into(), headers: Vec::new() }
    }
}

impl HttpRequest {
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let text = words::text(node)?;
        let mut lines = text.trim_end().lines();
        let line = lines.next().unwrap_or_default();
        let wrong = || {
            let help = "write a method and a path, as in `GET /healthz`, then header lines if any";
            Wrong::new(format!("{} is not a request line", shown(line)), help)
        };
        let mut words = line.split_ascii_whitespace();
        let method =
            words.next().and_then(|word| Method::from_bytes(word.as_bytes()).ok()).ok_or_else(wrong)?;
        let is_path = |word: &&str| word.starts_with('/') && word.parse::<http::Uri>().is_ok();
        let target = words.next().filter(is_path).ok_or_else(wrong)?.to_string();
        if words.next().is_some_and(|version| !version.starts_with("HTTP/1.")) || words.next().is_some() {
            return Err(wrong());
        }
        let headers = lines.map(header_line).collect::<Result<_, _>>()?;
        Ok(Self { method, target, headers })
    }
}

fn header_line(line: &str) -> Result<(HeaderName, HeaderValue), Wrong> {
    let (name, value) = line.split_once(':').ok_or_else(|| {
        Wrong::new("a header line without a colon", "write `Name: value` on each further line")
    })?;
    Ok((words::header_name(name)?, words::header_value(value.trim())?))
}

enum Code {
    Class(u16),
    Any,
    Single(u16),
}

fn response_code(node: &Node) -> Result<Code, Wrong> {
    let code = units::whole(100..=599);
    let words = words::choice(&[
        ("http_any", "HTTP_ANY", 0),
        ("http_1xx", "HTTP_1XX", 1),
        ("http_2xx", "HTTP_2XX", 2),
        ("http_3xx", "HTTP_3XX", 3),
        ("http_4xx", "HTTP_4XX", 4),
        ("http_5xx", "HTTP_5XX", 5),
    ]);
    if node.text().is_some() {
        return words(node).map(|class| if class == 0 { Code::Any } else { Code::Class(class) });
    }
    let shape = || Shape::either(Shape::taken_by(&words), Shape::taken_by(&code));
    code(node).map(Code::Single).map_err(|wrong| wrong.expecting(shape()))
}

impl ResponseCodes {
    fn add(&mut self, code: Code) {
        match code {
            Code::Any => self.classes = 0b11_1110,
            Code::Class(class) => self.classes |= 1 << class,
            Code::Single(code) => self.codes.push(code),
        }
    }
}
