//! What requests a rule is for. All that is written has to fit.

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::{
    Scope,
    port_redirect::has,
    texts::{Keys, Kind, Texts},
};
use crate::config::{
    copied::method,
    problem::{Wrong, shown},
    read::Object,
    units, words,
    yaml::Node,
};

/// The requests that a rule is for; what is `None` or empty does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// Ports of the virtual service.
    pub ports: Option<OneOf<u16>>,
    /// Whether the client came over TLS.
    pub secure: Option<bool>,
    pub methods: Option<OneOf<Method>>,
    pub clients: Option<OneOf<IpNet>>,
    /// Without its port.
    pub host: Option<Texts>,
    /// Without the query.
    pub path: Option<Texts>,
    /// All of it, without `?`; empty where there is none.
    pub query: Option<Texts>,
    pub parameters: Vec<FieldMatch<String>>,
    pub headers: Vec<FieldMatch<HeaderName>>,
    pub cookies: Vec<FieldMatch<String>>,
}

/// One of these, or none of them.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOf<T> {
    of: Vec<T>,
    negated: bool,
}

/// A field that requests may have, and what it has to be.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldMatch<Name> {
    pub name: Name,
    pub texts: Texts,
}

impl HttpMatch {
    pub(super) fn read(o: &mut Object<'_>, scope: &Scope<'_>) -> Self {
        let protocols = [("http", "HTTP", false), ("https", "HTTPS", true)];
        let plain = Keys { list: "match_str", kind: Kind::Plain };
        let host = Keys { list: "value", kind: Kind::Host };
        Self {
            ports: o.object("vs_port", |o| OneOf::read(o, "ports", units::port)).inspect(|ports| {
                check_ports(o, ports, scope);
            }),
            secure: o.field("protocol", words::choice(&protocols)),
            methods: o.object("method", |o| OneOf::read(o, "methods", method)),
            clients: o.object("client_ip", |o| OneOf::read(o, "networks", words::network)),
            host: o.object("host_hdr", |o| Texts::read(o, host)).flatten(),
            path: o.object("path", |o| Texts::read(o, plain)).flatten(),
            query: o.object("query", |o| Texts::read(o, plain)).flatten(),
            parameters: o.object_or_objects("query_parameter", |o| FieldMatch::read(o, "name", parameter)),
            headers: o.object_or_objects("hdrs", |o| FieldMatch::read(o, "hdr", words::header_name)),
            cookies: o.object_or_objects("cookie", |o| FieldMatch::read(o, "name", words::cookie_name)),
        }
    }
}

impl HttpMatch {
    /// The keys of what it looks at.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let looks_at = [
            ("vs_port", self.ports.is_some()),
            ("protocol", self.secure.is_some()),
            ("method", self.methods.is_some()),
            ("client_ip", self.clients.is_some()),
            ("host_hdr", self.host.is_some()),
            ("path", self.path.is_some()),
            ("query", self.query.is_some()),
            ("query_parameter", !self.parameters.is_empty()),
            ("hdrs", !self.headers.is_empty()),
            ("cookie", !self.cookies.is_empty()),
        ];
        looks_at.into_iter().filter(|(_, looks)| *looks).map(|(word, _)| word)
    }
}

impl<T> OneOf<T> {
    fn read(o: &mut Object<'_>, list: &'static str, parse: impl Fn(&Node) -> Result<T, Wrong>) -> Self {
        let criteria = [("is_in", "IS_IN", false), ("is_not_in", "IS_NOT_IN", true)];
        let negated = o.field("match_criteria", words::choice(&criteria)).unwrap_or(false);
        Self { of: o.required_list(list, parse), negated }
    }

    /// Whether it fits; `is` says so of one of them.
    pub fn fits(&self, is: impl FnMut(&T) -> bool) -> bool {
        self.of.iter().any(is) != self.negated
    }
}

impl<Name> FieldMatch<Name> {
    fn read(
        o: &mut Object<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<Name, Wrong>,
    ) -> Option<Self> {
        let name = o.required(key, |node| parse(&words::text(node)?));
        let texts = Texts::read(o, Keys { list: "value", kind: Kind::Field });
        Some(Self { name: name?, texts: texts? })
    }
}

/// A port that nobody can come by is a slip of the pen.
fn check_ports(o: &Object<'_>, ports: &OneOf<u16>, scope: &Scope<'_>) {
    let strange = |port: &&u16| !has(scope.services, **port, false) && !has(scope.services, **port, true);
    if let Some(port) = ports.of.iter().find(strange) {
        let what = format!("virtual service {} has no service on port {port}", shown(scope.vs));
        o.wrong("vs_port", what, "name ports of its services");
    }
}

/// The name of a parameter of a query, as it is sent.
fn parameter(name: &str) -> Result<String, Wrong> {
    if name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#".contains(&byte)) {
        return Ok(name.to_owned());
    }
    let help = "write at most 128 visible ASCII characters, as they are sent, without `&`, `=` and `#`";
    Err(Wrong::new(format!("{} cannot be the name of a parameter", shown(name)), help))
}
