//! Rules as named in YAML.

use crate::names::RuleName;

/// `rules: [{ name: canary, rule: canary_by_header, on_error: fail_open, config: {…} }]`
#[derive(Clone, Debug)]
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
