//! What is written about requests, and where: the access log of a node, and what each virtual service wants in it.

use std::{path::PathBuf, time::Duration};

use super::{
    files::Source,
    problem::{Wrong, shown},
    read::Object,
    units::{self, days, milliseconds, seconds},
    words,
    yaml::Node,
};

/// The access log. Without one, nothing is written about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub path: LogPath,
    pub format: LogFormat,
    /// Bytes of lines that may wait to be written; beyond it lines are dropped and counted.
    pub buffer: usize,
    /// Whether queries are written, which may hold secrets; default false.
    pub query: bool,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    Stdout,
    Stderr,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One object on a line, with every field.
    Json,
    /// Apache's Common Log Format.
    Common,
    /// The same with referer and user agent.
    Combined,
}

/// Which requests of a virtual service get a line, and how much of them. Significant ones always do: those that
/// failed, and slow ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalyticsPolicy {
    /// Share of the requests that are not significant, in thousandths.
    pub sample_permille: u16,
    /// The most lines in a second for requests that are not significant; 0: no limit.
    pub throttle: u32,
    /// A server that takes longer than this to begin its answer makes the request significant.
    pub slow_request: Duration,
    pub full_client_logs: FullClientLogs,
}

/// Lines that have the request's and the answer's header fields, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullClientLogs {
    pub enabled: bool,
    /// From when the policy was put in force; zero: until it is disabled.
    pub duration: Duration,
    /// The most such lines in a second; 0: no limit.
    pub throttle: u32,
}

/// The form of homing's own log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFormat {
    #[default]
    Text,
    Json,
}

impl AccessLog {
    /// `None`: the section says that there is none.
    pub(super) fn read(o: &mut Object<'_>) -> Option<Self> {
        let formats = [
            ("json", "JSON", LogFormat::Json),
            ("common", "COMMON", LogFormat::Common),
            ("combined", "COMBINED", LogFormat::Combined),
        ];
        let source = o.source;
        let path = o.required("path", |node| path(node, source));
        let format = o.field("format", words::choice(&formats)).unwrap_or(LogFormat::Json);
        let buffer = o.field("buffer", units::size(64 << 10..=1 << 30)).unwrap_or(4 << 20);
        let query = o.field("query", units::flag).unwrap_or(false);
        Some(Self { path: path??, format, buffer, query })
    }
}

fn path(node: &Node, source: &Source<'_>) -> Result<Option<LogPath>, Wrong> {
    Ok(match words::text(node)?.as_str() {
        "none" => None,
        "stdout" => Some(LogPath::Stdout),
        "stderr" => Some(LogPath::Stderr),
        file if file.ends_with('/') || file.contains('\0') => {
            let help =
                "write a file's name such as `/var/log/homing/access.log`, `stdout`, `stderr` or `none`";
            return Err(Wrong::new(format!("{} is no file's name", shown(file)), help));
        }
        file => Some(LogPath::File(source.beside(file))),
    })
}

impl AnalyticsPolicy {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        Self {
            sample_permille: o.field("sample", units::permille).unwrap_or(default.sample_permille),
            throttle: o.field("throttle", units::whole(0..=u32::MAX)).unwrap_or(default.throttle),
            slow_request: o
                .field("slow_request", units::duration(milliseconds(1)..=days(1)))
                .unwrap_or(default.slow_request),
            full_client_logs: o
                .object("full_client_logs", FullClientLogs::read)
                .unwrap_or(default.full_client_logs),
        }
    }
}

impl Default for AnalyticsPolicy {
    fn default() -> Self {
        Self {
            sample_permille: 1000,
            throttle: 0,
            slow_request: seconds(1),
            full_client_logs: FullClientLogs::default(),
        }
    }
}

impl FullClientLogs {
    fn read(o: &mut Object<'_>) -> Self {
        let default = Self::default();
        Self {
            enabled: o.field("enabled", units::flag).unwrap_or(default.enabled),
            duration: o
                .field("duration", units::duration(Duration::ZERO..=days(365)))
                .unwrap_or(default.duration),
            throttle: o.field("throttle", units::whole(0..=u32::MAX)).unwrap_or(default.throttle),
        }
    }
}

impl Default for FullClientLogs {
    fn default() -> Self {
        Self { enabled: false, duration: seconds(1800), throttle: 10 }
    }
}

impl EventFormat {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let formats = [("text", "TEXT", Self::Text), ("json", "JSON", Self::Json)];
        o.field("format", words::choice(&formats)).unwrap_or_default()
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
