//! `http_rules` of a virtual service as a rule: redirects, answers, rewriting, choice of pool and of copies, headers.
//!
//! What is for the server alone (path, host, headers) is worked out when the request comes and put into force with
//! each attempt: rules that run later, persistence, copies and logs see what the client sent. A request that another
//! site serves meets that site's rules; here it is only redirected or answered, before it travels.

mod asked;
mod edit;
mod redirect;

use std::sync::Arc;

use self::{asked::Asked, edit::Edit};
use crate::prelude::*;

/// The rules of one virtual service.
pub struct HttpRules {
    rules: Vec<Counted>,
}

/// A rule and its counter.
struct Counted {
    rule: HttpRule,
    hits: IntCounter,
}

/// What is still to be done about a request after it was asked for.
#[derive(Default)]
struct Plan {
    host: Option<String>,
    /// Path and query.
    target: Option<String>,
    request: Vec<Edit>,
    response: Vec<Edit>,
}

/// What rules have decided so far; the first to decide on something has the last word.
#[derive(Default)]
struct Decided<'r> {
    plan: Plan,
    rewrite: Option<&'r Rewrite>,
    pool: Option<&'r PoolName>,
    clones: Option<&'r CloneChoice>,
    fitted: Vec<&'r str>,
    reply: Option<Reply>,
}

/// The clone section that a request is left to; the others do not copy it.
pub(super) struct OnlyClones(pub(super) PoolName);

impl HttpRules {
    /// The rule, where there is something for it to do.
    pub fn for_virtual_service(setup: &Setup<'_>) -> Option<Arc<dyn Rule>> {
        let vs = setup.virtual_service;
        let counted = |rule: &HttpRule| Counted {
            hits: setup.metrics.http_rule_hits.with_label_values(&[vs.name.as_str(), &rule.name]),
            rule: rule.clone(),
        };
        let rules: Vec<_> = vs.http_rules.iter().map(counted).collect();
        (!rules.is_empty()).then(|| Self { rules }.into_rule())
    }

    fn decide(&self, request: &Request<'_>) -> Result<Decided<'_>, RuleError> {
        let asked = Asked::of(request);
        let mut decided = Decided::default();
        for Counted { rule: HttpRule { name, matches, action }, hits } in &self.rules {
            if !asked.fits(matches) {
                continue;
            }
            let path = matches.path.as_ref();
            if let Some(answer) = &action.answer {
                let Some(reply) = asked.answer(answer, path)? else { continue };
                decided.reply = Some(reply);
            }
            hits.inc();
            decided.fitted.push(name);
            let plan = &mut decided.plan;
            if let (Some(rewrite), None) = (&action.rewrite, decided.rewrite) {
                decided.rewrite = Some(rewrite);
                plan.target = rewrite.path.as_ref().map(|to| asked.target(to, rewrite.keep_query, path));
                plan.host = rewrite.host.as_ref().map(|to| asked.text(to, path));
            }
            decided.pool = decided.pool.or(action.pool.as_ref());
            decided.clones = decided.clones.or(action.clones.as_ref());
            let edit = |field| Edit::new(field, |value| asked.text(value, path));
            plan.request.extend(action.request_fields.iter().map(edit));
            plan.response.extend(action.response_fields.iter().map(edit));
            if decided.reply.is_some() {
                break;
            }
        }
        Ok(decided)
    }
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.host.is_none() && self.target.is_none() && self.request.is_empty() && self.response.is_empty()
    }
}

#[async_trait]
impl Rule for HttpRules {
    async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
        let Decided { plan, pool, clones, reply, fitted, .. } = self.decide(request)?;
        fitted.into_iter().for_each(|name| request.note(name));
        if !plan.is_empty() {
            request.insert(Arc::new(plan));
        }
        if let Some(reply) = reply {
            request.respond(reply);
            return Ok(());
        }
        match clones {
            None => {}
            Some(CloneChoice::Nobody) => request.clone_none(),
            Some(CloneChoice::Pool(pool)) => request.insert(OnlyClones(pool.clone())),
        }
        pool.map_or(Ok(()), |pool| request.pool_here(pool.as_str()))
    }

    fn http_request_send(&self, send: &mut RequestSend<'_>) -> RuleResult {
        if send.goes_elsewhere() {
            return Ok(());
        }
        send.get().cloned().map_or(Ok(()), |plan: Arc<Plan>| plan.apply_to_request(send))
    }

    async fn http_response(&self, response: &mut Response<'_>) -> RuleResult {
        if response.goes_elsewhere() && response.server().is_some() {
            return Ok(());
        }
        response.get().cloned().map_or(Ok(()), |plan: Arc<Plan>| plan.apply_to_response(response))
    }
}
