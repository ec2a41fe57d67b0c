//! Error pages: what clients see in the place of homing's one line when something failed. Avi calls the profile so;
//! nginx has `error_page`, HAProxy `errorfile`.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::HeaderValue;

use super::{health_monitor::ResponseCodes, read::Object, table::Table, units, words};

/// Pages that virtual services share.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorPageProfile {
    pub name: String,
    /// Servers' errors get the pages, too. Default false.
    pub intercept_errors: bool,
    /// In the order in which they are looked through.
    pub pages: Vec<ErrorPage>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ErrorPage {
    pub codes: ResponseCodes,
    pub body: ErrorBody,
}

/// A body that homing answers with by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    pub bytes: Bytes,
    pub content_type: HeaderValue,
}

impl ErrorPageProfile {
    pub(super) fn read(o: &mut Object<'_>, profiles: &mut Table<Arc<Self>>) {
        let name = o.name();
        let profile = Self {
            name: name.clone().unwrap_or_default(),
            intercept_errors: o.field("intercept_errors", units::flag).unwrap_or(false),
            pages: o.required_objects("error_pages", |o| {
                o.demand_items("status_code");
                let codes = ResponseCodes::read(o, "status_code");
                let body = ErrorBody::read(o);
                if !o.has("body") && !o.has("file") {
                    let help = "write `body: …` or `file: …`";
                    o.source.report.problem(o.place.clone(), "an error page without a body", help);
                }
                Some(ErrorPage { codes: codes?, body: body? })
            }),
        };
        if let Some(name) = name {
            profiles.define(o, "name", &name, Arc::new(profile));
        }
    }

    /// The page of a status.
    pub fn page(&self, status: u16) -> Option<&ErrorBody> {
        self.pages.iter().find(|page| page.codes.contains(status)).map(|page| &page.body)
    }
}

impl ErrorBody {
    /// From `body` or `file`, and `content_type`. `None`: neither is written, or wrong, which is reported.
    pub(super) fn read(o: &mut Object<'_>) -> Option<Self> {
        let body = o.field("body", words::text);
        let file = o.file("file");
        let written = o.field("content_type", |node| words::header_value(&words::text(node)?));
        if o.has("body") && o.has("file") {
            o.wrong("file", "both `body` and `file`", "leave one of the two out");
        }
        if o.has("content_type") && !o.has("body") && !o.has("file") {
            o.wrong("content_type", "the type of no body", "write `body: …` or `file: …`, or leave it out");
        }
        let (bytes, usual) = match (body, file) {
            (Some(body), _) => (body.into(), TEXT),
            (None, Some((path, content))) => (content.into(), type_of(&path)),
            (None, None) => return None,
        };
        Some(Self { bytes, content_type: written.unwrap_or(HeaderValue::from_static(usual)) })
    }
}

/// By the end of a file's name.
fn type_of(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        _ => TEXT,
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
