//! Changes of headers, with the values that they have for one request; and how they are put into force.

use super::Plan;
use crate::prelude::*;

/// A change for one request, with its value.
pub(super) struct Edit {
    name: HeaderName,
    change: Change,
}

enum Change {
    Set(String),
    Add(String),
    Remove,
}

impl Edit {
    pub(super) fn new(field: &FieldEdit, fill: impl Fn(&Template) -> String) -> Self {
        let change = match &field.action {
            HeaderAction::Set(value) => Change::Set(fill(value)),
            HeaderAction::Add(value) => Change::Add(fill(value)),
            HeaderAction::Remove => Change::Remove,
        };
        Self { name: field.name.clone(), change }
    }
}

impl Plan {
    pub(super) fn apply_to_request(&self, send: &mut RequestSend<'_>) -> RuleResult {
        if let Some(target) = &self.target {
            send.set_path_and_query(target)?;
        }
        if let Some(host) = &self.host {
            send.set_host(host)?;
        }
        for Edit { name, change } in &self.request {
            match change {
                Change::Set(value) => send.set_header(name.as_str(), value)?,
                Change::Add(value) => send.append_header(name.as_str(), value)?,
                Change::Remove => drop(send.remove_header(name.as_str())),
            }
        }
        Ok(())
    }

    pub(super) fn apply_to_response(&self, response: &mut Response<'_>) -> RuleResult {
        for Edit { name, change } in &self.response {
            match change {
                Change::Set(value) => response.set_header(name.as_str(), value)?,
                Change::Add(value) => response.append_header(name.as_str(), value)?,
                Change::Remove => drop(response.remove_header(name.as_str())),
            }
        }
        Ok(())
    }
}
