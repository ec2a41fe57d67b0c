//! What a clone section copies: which requests, and how much of each under which path.

use std::fmt;

use http::Method;

use super::{
    problem::{Wrong, shown},
    read::Object,
    units, words,
    yaml::Node,
};

/// Which requests are copied, and what of them. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Empty: all.
    pub methods: Vec<Method>,
    /// Empty: all.
    pub paths: Vec<PathPattern>,
    /// Bodies are left out. Such a copy has `Content-Length: 0` and `X-Homing-Truncated: 0`, and counts as truncated.
    pub headers_only: bool,
    /// A longer body is cut to this length, which `X-Homing-Truncated` says: a header, or a trailer of a body that
    /// is streamed. Such a copy counts as truncated.
    pub max_body_bytes: Option<usize>,
    pub rewrite_path_prefix: Option<PathPrefix>,
}

/// A path, or all that begin with one, written `/api/*`. Compared byte by byte with what the client sent: neither
/// side is decoded, so that `/%61pi/` is not `/api/`. What must not be missed is not for a list of paths to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    Exact(String),
    Prefix(String),
}

/// Copies of requests below `from` go below `to`. Whole segments: `/api` is not the beginning of `/apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix {
    pub from: String,
    pub to: String,
}

impl Copied {
    pub(super) fn read(o: &mut Object<'_>) -> Self {
        let copied = Self {
            methods: o.list("methods", method).unwrap_or_default(),
            paths: o.list("paths", PathPattern::parse).unwrap_or_default(),
            headers_only: o.field("headers_only", units::flag).unwrap_or(false),
            max_body_bytes: o.field("max_body_bytes", units::size(1..=1 << 40)),
            rewrite_path_prefix: o.object("rewrite_path_prefix", PathPrefix::read).flatten(),
        };
        for key in ["methods", "paths"] {
            o.not_empty(key, "nothing would be copied: write at least one, or leave the key out for all");
        }
        if copied.headers_only && copied.max_body_bytes.is_some() {
            o.wrong("max_body_bytes", "no effect beside `headers_only: true`", "leave one of the two out");
        }
        copied
    }

    /// Whether a request is one of those that are copied; `path` is without its query.
    pub fn includes(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

impl fmt::Display for PathPattern {
    /// As it is written in YAML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}*"),
        }
    }
}

impl PathPattern {
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix),
        }
    }

    fn parse(node: &Node) -> Result<Self, Wrong> {
        let text = words::text(node)?;
        let (path, exact) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, false),
            None => (text.as_str(), true),
        };
        if !is_path(path) || path.contains('*') {
            let help =
                "write a path such as `/login`, or `/api/*` for all that begin with it, without a query";
            return Err(Wrong::new(format!("{} matches no path", shown(&text)), help));
        }
        let path = path.to_owned();
        Ok(if exact { Self::Exact(path) } else { Self::Prefix(path) })
    }
}

impl PathPrefix {
    fn read(o: &mut Object<'_>) -> Option<Self> {
        let from = o.required("from", path);
        let to = o.required("to", path);
        let prefix = Self { from: from?, to: to? };
        if prefix.from.ends_with('/') != prefix.to.ends_with('/') {
            let what = format!("only one of {} and {} ends with `/`", shown(&prefix.from), shown(&prefix.to));
            o.wrong("to", what, "write both with it, or both without");
        }
        Some(prefix)
    }

    /// What follows the prefix in a target that it applies to.
    pub fn rest_of<'a>(&self, target: &'a [u8]) -> Option<&'a [u8]> {
        let rest = target.strip_prefix(self.from.as_bytes())?;
        let whole = self.from.ends_with('/') || matches!(rest.first(), None | Some(b'/' | b'?'));
        whole.then_some(rest)
    }
}

/// Methods have no case to forgive (RFC 9110, 9.1); those that are in small letters are most likely meant otherwise.
pub(super) fn method(node: &Node) -> Result<Method, Wrong> {
    let text = words::text(node)?;
    let wrong = |help: &str| Wrong::new(format!("{} is no method", shown(&text)), help);
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(wrong(&format!("write `{}`", text.to_ascii_uppercase())));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| wrong("write a name such as `GET`"))
}

fn path(node: &Node) -> Result<String, Wrong> {
    let text = words::text(node)?;
    if is_path(&text) {
        return Ok(text);
    }
    Err(Wrong::new(format!("{} is no path", shown(&text)), "write one such as `/api`, without a query"))
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Option<PathPattern> {
        PathPattern::parse(&Node::parse(&format!("'{text}'")).ok()?).ok()
    }

    #[test]
    fn a_path_matches_exactly_and_a_star_at_its_end_all_that_begin_so() {
        for (text, path, matches) in [
            ("/login", "/login", true),
            ("/login", "/login/", false),
            ("/login", "/Login", false),
            ("/api/*", "/api/", true),
            ("/api/*", "/api/v1/x", true),
            ("/api/*", "/api", false),
            ("/api/*", "/%61pi/", false),
            ("/api*", "/apis", true),
            ("/*", "/", true),
        ] {
            assert_eq!(pattern(text).map(|it| it.matches(path)), Some(matches), "{text} {path}");
        }
        for text in ["api", "*", "", "/a*b", "/a**", "/a?b=c", "/a b", "/#x"] {
            assert_eq!(pattern(text), None, "{text}");
        }
    }

    #[test]
    fn both_the_method_and_the_path_decide_and_an_empty_list_is_all() {
        let copied = |methods: &[Method], paths: &[&str]| Copied {
            methods: methods.to_vec(),
            paths: paths.iter().filter_map(|text| pattern(text)).collect(),
            ..Copied::default()
        };
        for (methods, paths, included) in [
            (&[][..], &[][..], true),
            (&[Method::GET], &[], true),
            (&[Method::POST], &[], false),
            (&[Method::POST, Method::GET], &["/b", "/a/*"], true),
            (&[Method::GET], &["/b"], false),
            (&[Method::POST], &["/a/*"], false),
        ] {
            let copied = copied(methods, paths);
            assert_eq!(copied.includes(&Method::GET, "/a/1"), included, "{methods:?} {paths:?}");
        }
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        for (from, target, rest) in [
            ("/api", "/api", Some("")),
            ("/api", "/api/x?y", Some("/x?y")),
            ("/api", "/api?x", Some("?x")),
            ("/api", "/apis", None),
            ("/api/", "/api/x", Some("x")),
            ("/api/", "/api", None),
            ("/", "/x", Some("x")),
            ("/", "*", None),
        ] {
            let prefix = PathPrefix { from: from.into(), to: "/".into() };
            assert_eq!(prefix.rest_of(target.as_bytes()), rest.map(str::as_bytes), "{from} {target}");
        }
    }
}
