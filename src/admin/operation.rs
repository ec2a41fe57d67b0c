//! One thing that the admin API can be asked: its path, what it takes, and the shape of what it answers. The
//! router and the description are made of the same list of these.

use std::{convert::Infallible, sync::Arc};

use axum::{handler::Handler, http::Method, routing::MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// A path with a method, which `handler` answers from a source `S`.
pub(super) struct Operation<S> {
    pub(super) method: Method,
    /// As axum and OpenAPI write it: `/pools/{name}`.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Parameter>,
    pub(super) answer: Answer,
    /// Another status than 200 with an answer of the same shape, and when.
    pub(super) also: Option<(u16, &'static str)>,
    /// It answers everyone, whoever asks.
    pub(super) is_open: bool,
    pub(super) handler: MethodRouter<Arc<S>, Infallible>,
}

/// What may stand in a query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) is_required: bool,
}

/// The shape of an answer.
pub(super) enum Answer {
    Text,
    Json(fn(&mut SchemaGenerator) -> Schema),
}

impl<S: Send + Sync + 'static> Operation<S> {
    pub(super) fn get<H: Handler<T, Arc<S>>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::GET, path, axum::routing::get(handler))
    }

    pub(super) fn post<H: Handler<T, Arc<S>>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::POST, path, axum::routing::post(handler))
    }

    pub(super) fn delete<H: Handler<T, Arc<S>>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::DELETE, path, axum::routing::delete(handler))
    }

    fn new(method: Method, path: &'static str, handler: MethodRouter<Arc<S>>) -> Self {
        let (summary, answer) = ("", Answer::Text);
        Self { method, path, summary, query: Vec::new(), answer, also: None, is_open: false, handler }
    }

    /// It answers a JSON view.
    pub(super) fn shows<V: JsonSchema>(self, summary: &'static str) -> Self {
        Self { summary, answer: Answer::Json(SchemaGenerator::subschema_for::<V>), ..self }
    }

    /// It answers a text, to everyone.
    pub(super) fn says(self, summary: &'static str) -> Self {
        Self { summary, answer: Answer::Text, is_open: true, ..self }
    }

    /// Its query may have this.
    pub(super) fn takes(mut self, name: &'static str, what: &'static str) -> Self {
        self.query.push(Parameter { name, what, is_required: false });
        self
    }

    /// Its query has to have this.
    pub(super) fn needs(mut self, name: &'static str, what: &'static str) -> Self {
        self.query.push(Parameter { name, what, is_required: true });
        self
    }

    pub(super) fn or(self, status: u16, when: &'static str) -> Self {
        Self { also: Some((status, when)), ..self }
    }

    /// The names in its path: of `/pools/{name}`, `name`.
    pub(super) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// `POST /api/v1/sessions/move?token=&server=`, without the `GET` that goes without saying.
    pub(super) fn in_short(&self) -> String {
        let method = if self.method == Method::GET { String::new() } else { format!("{} ", self.method) };
        let query: Vec<_> = self.query.iter().map(|parameter| format!("{}=", parameter.name)).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        format!("{method}{}{query}", self.path)
    }
}
