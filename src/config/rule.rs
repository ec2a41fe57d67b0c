//! Rules as named in YAML.

use std::sync::Arc;

use super::{
    problem::{listed, nearest, shown},
    read::Object,
    table::Table,
    words,
};
use crate::names::RuleName;

/// `rules: [{ name: canary, rule: canary_by_header, on_error: fail_open, config: {…} }]`
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// The object's name, which virtual services refer to by `rule_refs`.
    pub name: RuleName,
    /// The registered rule; default: the object's name.
    pub rule: RuleName,
    pub on_error: OnError,
    /// Handed to the rule's factory as it stands.
    pub config: serde_yaml::Value,
}

/// What happens to a request when a rule errs or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// The request goes on as if the rule were not there.
    #[default]
    FailOpen,
    /// The request is answered with 500, the connection refused.
    FailClosed,
}

impl RuleSpec {
    /// `registered`: the rules that this program has.
    pub(super) fn read(
        o: &mut Object<'_>,
        registered: &[&str],
        rules: &mut Table<Arc<RuleSpec>>,
    ) -> Option<Arc<RuleSpec>> {
        let actions = [("fail_open", "", OnError::FailOpen), ("fail_closed", "", OnError::FailClosed)];
        let name = o.name();
        let explicit = o.field("rule", words::name);
        let key = if o.has("rule") { "rule" } else { "name" };
        let rule = explicit.or(name.clone());
        if let Some(rule) = rule.as_deref().filter(|rule| !registered.contains(rule)) {
            let mut known = registered.to_vec();
            known.sort_unstable();
            let help = match nearest(rule, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "registered: {}; run the program that has it, or register it there with `Homing::builder()`",
                    listed(known)
                ),
            };
            o.wrong(key, format!("rule {} is not registered in this program", shown(rule)), help);
        }
        let rule = Arc::new(Self {
            name: name.as_deref().unwrap_or_default().into(),
            rule: rule.unwrap_or_default().into(),
            on_error: o.field("on_error", words::choice(&actions)).unwrap_or_default(),
            config: o.anything("config"),
        });
        rules.define(o, "name", &name?, rule.clone());
        Some(rule)
    }
}
