//! What a rule does with a request.

use http::HeaderName;

use super::{
    HttpMatch, Scope,
    port_redirect::check_target,
    template::{Template, Variable},
};
use crate::{
    config::{
        ErrorBody,
        problem::{Wrong, listed, shown},
        read::Object,
        units, words,
        yaml::Node,
    },
    names::PoolName,
};

/// The actions of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpAction {
    /// It is answered here, and no later rule is asked.
    pub answer: Option<HttpAnswer>,
    pub rewrite: Option<Rewrite>,
    pub pool: Option<PoolName>,
    pub clones: Option<CloneChoice>,
    /// Of the request, as its server sees it.
    pub request_fields: Vec<FieldEdit>,
    /// Of the answer, ours or a server's.
    pub response_fields: Vec<FieldEdit>,
}

/// An answer without a server.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAnswer {
    Redirect(Redirect),
    Respond { status: u16, body: Option<ErrorBody> },
}

/// The way to another URL; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub secure: Option<bool>,
    pub host: Option<Template>,
    pub port: Option<u16>,
    pub path: Option<Template>,
    pub keep_query: bool,
    pub status: u16,
}

/// Another target or host, for the server alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewrite {
    pub host: Option<Template>,
    pub path: Option<Template>,
    pub keep_query: bool,
}

/// Which of the virtual service's clone sections count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloneChoice {
    Nobody,
    /// The one of this pool.
    Pool(PoolName),
}

/// A change of a header.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldEdit {
    pub name: HeaderName,
    pub action: HeaderAction,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HeaderAction {
    /// One value in place of all that there are.
    Set(Template),
    /// One more value.
    Add(Template),
    Remove,
}

impl HttpAction {
    pub(super) fn read(o: &mut Object<'_>, scope: &Scope<'_>, matches: &HttpMatch) -> Self {
        let templates = Templates { matches };
        let redirect = o.object("redirect_action", |o| Redirect::read(o, scope, &templates));
        let respond = o.object("respond_action", |o| {
            let status = o.required("status_code", units::whole(200..=599));
            let body = ErrorBody::read(o);
            Some(HttpAnswer::Respond { status: status?, body })
        });
        let pool = o.object("switching_action", |o| o.required_reference("pool_ref"));
        let action = Self {
            rewrite: o.object("rewrite_url_action", |o| Rewrite::read(o, &templates)),
            pool: pool.flatten().and_then(|reference| (scope.resolve_pool)(&reference)),
            clones: o.field("clone_action", |node| CloneChoice::parse(node, scope)),
            request_fields: o.objects("hdr_action", |o| FieldEdit::read(o, &templates)),
            response_fields: o.objects("response_hdr_action", |o| FieldEdit::read(o, &templates)),
            answer: redirect.map(HttpAnswer::Redirect).or(respond.flatten()),
        };
        check_together(o);
        action
    }

    /// The keys of the actions that it has.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let (redirect, respond) = match &self.answer {
            None => (false, false),
            Some(HttpAnswer::Redirect(_)) => (true, false),
            Some(HttpAnswer::Respond { .. }) => (false, true),
        };
        let has = [
            redirect,
            respond,
            self.rewrite.is_some(),
            self.pool.is_some(),
            self.clones.is_some(),
            !self.request_fields.is_empty(),
            !self.response_fields.is_empty(),
        ];
        ACTIONS.into_iter().zip(has).filter(|(_, has)| *has).map(|(word, _)| word)
    }
}

/// A rule does something, and nothing in vain.
fn check_together(o: &Object<'_>) {
    if !ACTIONS.iter().any(|key| o.has(key)) {
        let help = format!("write one of {}", listed(ACTIONS));
        o.source.report.problem(o.place.clone(), "a rule that does nothing", help);
    }
    let Some(answer) = ["redirect_action", "respond_action"].into_iter().find(|key| o.has(key)) else {
        return;
    };
    let in_vain = ["respond_action", "rewrite_url_action", "switching_action", "clone_action", "hdr_action"];
    for key in in_vain.into_iter().filter(|key| *key != answer && o.has(key)) {
        o.wrong(
            key,
            format!("no effect beside `{answer}`"),
            "leave one of the two out, or make it another rule",
        );
    }
}

impl Redirect {
    fn read(o: &mut Object<'_>, scope: &Scope<'_>, templates: &Templates<'_>) -> Self {
        let protocols = [("http", "HTTP", false), ("https", "HTTPS", true)];
        let redirect = Self {
            secure: o.field("protocol", words::choice(&protocols)),
            host: o.field("host", |node| templates.host(node)),
            port: o.field("port", units::port),
            path: o.field("path", |node| templates.path(node)),
            keep_query: o.field("keep_query", units::flag).unwrap_or(true),
            status: o.field("status_code", redirect_status).unwrap_or(302),
        };
        if !["protocol", "host", "port", "path"].iter().any(|key| o.has(key)) {
            let what = "a redirect to where the request already is";
            o.source.report.problem(o.place.clone(), what, "write one of protocol, host, port, path");
        }
        if let (Some(true), None, Some(port)) = (redirect.secure, &redirect.host, redirect.port) {
            check_target(o, scope.vs, scope.services, port);
        }
        redirect
    }
}

fn redirect_status(node: &Node) -> Result<u16, Wrong> {
    let status = units::whole(301..=308)(node)?;
    if [301, 302, 303, 307, 308].contains(&status) {
        return Ok(status);
    }
    Err(Wrong::new(format!("{status} is no redirect"), "write one of 301, 302, 303, 307, 308"))
}

impl Rewrite {
    fn read(o: &mut Object<'_>, templates: &Templates<'_>) -> Self {
        let rewrite = Self {
            host: o.field("host_hdr", |node| templates.host(node)),
            path: o.field("path", |node| templates.path(node)),
            keep_query: o.field("keep_query", units::flag).unwrap_or(true),
        };
        if !o.has("host_hdr") && !o.has("path") {
            let what = "a rewriting that changes nothing";
            o.source.report.problem(o.place.clone(), what, "write `host_hdr: …` or `path: …`");
        }
        rewrite
    }
}

impl CloneChoice {
    fn parse(node: &Node, scope: &Scope<'_>) -> Result<Self, Wrong> {
        let text = words::text(node)?;
        if text == "none" {
            return Ok(Self::Nobody);
        }
        let known = scope.clones.iter().find(|pool| pool.as_str() == text);
        known.map(|pool| Self::Pool(pool.clone())).ok_or_else(|| {
            let help = format!(
                "write `none`, or the pool of one: {}",
                listed(scope.clones.iter().map(PoolName::as_str))
            );
            Wrong::new(
                format!("virtual service {} has no clone section for pool {}", shown(scope.vs), shown(&text)),
                help,
            )
        })
    }
}

impl FieldEdit {
    fn read(o: &mut Object<'_>, templates: &Templates<'_>) -> Option<Self> {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Set,
            Add,
            Remove,
        }
        let kinds = [
            ("set", "HTTP_REPLACE_HDR", Kind::Set),
            ("add", "HTTP_ADD_HDR", Kind::Add),
            ("remove", "HTTP_REMOVE_HDR", Kind::Remove),
        ];
        let kind = o.required("action", words::choice(&kinds));
        let name = o.required("hdr", field_name);
        let value = o.field("value", |node| templates.value(node));
        match kind {
            Some(Kind::Remove) if o.has("value") => {
                o.wrong("value", "no effect with `action: remove`", "leave the key out");
            }
            Some(Kind::Set | Kind::Add) => o.is_missed("value"),
            _ => {}
        }
        let action = match kind? {
            Kind::Set => HeaderAction::Set(value?),
            Kind::Add => HeaderAction::Add(value?),
            Kind::Remove => HeaderAction::Remove,
        };
        Some(Self { name: name?, action })
    }
}

/// A header that is neither part of how a message is framed nor homing's own word to its peers.
fn field_name(node: &Node) -> Result<HeaderName, Wrong> {
    let name = words::header_name(&words::text(node)?)?;
    let what = || format!("{} is not a rule's to change", shown(name.as_str()));
    if name == http::header::HOST {
        return Err(Wrong::new(what(), "write `rewrite_url_action: { host_hdr: … }`"));
    }
    if OURS.contains(&name.as_str()) || name.as_str().starts_with("homing-") {
        return Err(Wrong::new(
            what(),
            "leave it out: homing itself says where a message ends and whose it is",
        ));
    }
    Ok(name)
}

/// Reads texts with variables that the rule's match can fill.
struct Templates<'a> {
    matches: &'a HttpMatch,
}

impl Templates<'_> {
    fn read(&self, node: &Node) -> Result<Template, Wrong> {
        let template = Template::parse(&words::text(node)?)?;
        let path = self.matches.path.as_ref();
        for variable in template.variables() {
            match variable {
                Variable::Rest if !path.is_some_and(|path| path.has_rest()) => {
                    let what = "`{rest}` is of a path that begins with something";
                    let help = "match `path` with `match_criteria: begins_with`, or write `{path}`";
                    return Err(Wrong::new(what, help));
                }
                Variable::Group(group) if path.map_or(0, |path| path.groups()) < group => {
                    let what = format!("the match of this rule has no group {group} in its path");
                    let help =
                        "match `path` with `match_criteria: regex_match` and so many groups in parentheses";
                    return Err(Wrong::new(what, help));
                }
                _ => {}
            }
        }
        Ok(template)
    }

    fn path(&self, node: &Node) -> Result<Template, Wrong> {
        let template = self.read(node)?;
        let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if template.is_path() && template.texts().all(fits) {
            return Ok(template);
        }
        let help = "begin with `/` or `{path}`, and write visible ASCII, the rest percent-encoded";
        Err(Wrong::new(format!("{} makes no path", shown(&words::text(node)?)), help))
    }

    fn host(&self, node: &Node) -> Result<Template, Wrong> {
        let template = self.read(node)?;
        let fits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
        if template.texts().all(fits) {
            return Ok(template);
        }
        let help = "write a name such as `www.{host}`; names beyond ASCII in punycode";
        Err(Wrong::new(format!("{} makes no host", shown(&words::text(node)?)), help))
    }

    fn value(&self, node: &Node) -> Result<Template, Wrong> {
        let template = self.read(node)?;
        template.texts().try_for_each(|text| words::header_value(text).map(drop))?;
        Ok(template)
    }
}

const ACTIONS: [&str; 7] = [
    "redirect_action",
    "respond_action",
    "rewrite_url_action",
    "switching_action",
    "clone_action",
    "hdr_action",
    "response_hdr_action",
];

/// Hop-by-hop, or about framing.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "x-homing-clone",
];
