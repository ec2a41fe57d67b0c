//! The rules of one virtual service, run in order at each event.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::FutureExt;
use prometheus::IntCounterVec;

use super::{
    ClientConn, CloneEvent, ConnectionState, Decisions, Exchange, Finished, LbEvent, Request, RequestData,
    RequestSend, Response, ResponseData, Rule, RuleResult,
};
use crate::{config::OnError, metrics::Metrics, names::RuleName};

/// The rules of a virtual service.
pub struct Chain {
    entries: Vec<ChainEntry>,
    errors: IntCounterVec,
}

/// One rule of a chain.
pub struct ChainEntry {
    pub name: RuleName,
    pub rule: Arc<dyn Rule>,
    pub on_error: OnError,
}

/// A rule failed whose `on_error` is `fail_closed`: the request must not go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

impl Chain {
    pub fn new(entries: Vec<ChainEntry>, metrics: &Metrics) -> Self {
        Self { entries, errors: metrics.rule_errors.clone() }
    }

    /// Whether there are no rules to run.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Runs `client_accepted` and, on TLS, `clientssl_handshake`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub async fn client_accepted(&self, connection: &ConnectionState) -> Result<(), Stopped> {
        for entry in &self.entries {
            let mut conn = ClientConn::new(connection);
            let result = guarded(entry.rule.client_accepted(&mut conn)).await;
            self.judge(entry, "client_accepted", result)?;
        }
        if connection.tls().is_none() || connection.is_rejected() {
            return Ok(());
        }
        for entry in &self.entries {
            let mut conn = ClientConn::new(connection);
            let result = guarded(entry.rule.clientssl_handshake(&mut conn)).await;
            self.judge(entry, "clientssl_handshake", result)?;
        }
        Ok(())
    }

    /// Runs `http_request` until a rule answers.
    ///
    /// # Errors
    /// A rule failed closed.
    pub async fn http_request(&self, request: &mut Request<'_>) -> Result<(), Stopped> {
        for (n, entry) in self.entries.iter().enumerate() {
            request.runs(n);
            let result = guarded(entry.rule.http_request(request)).await;
            self.judge(entry, "http_request", result)?;
            if request.reply.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Runs `http_request_data`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn http_request_data(&self, data: &mut RequestData<'_>) -> Result<(), Stopped> {
        self.each("http_request_data", |_, rule| rule.http_request_data(data))
    }

    /// Runs `lb_selected`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn lb_selected(&self, lb: &mut LbEvent<'_>) -> Result<(), Stopped> {
        self.each("lb_selected", |n, rule| {
            lb.runs(n);
            rule.lb_selected(lb)
        })
    }

    /// Runs `lb_failed`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn lb_failed(&self, lb: &mut LbEvent<'_>) -> Result<(), Stopped> {
        self.each("lb_failed", |n, rule| {
            lb.runs(n);
            rule.lb_failed(lb)
        })
    }

    /// Runs `http_request_send`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn http_request_send(&self, send: &mut RequestSend<'_>) -> Result<(), Stopped> {
        self.each("http_request_send", |_, rule| rule.http_request_send(send))
    }

    /// Runs `clone_selected` of every rule. No request is stopped for its copies.
    pub fn clone_selected(&self, clone: &mut CloneEvent<'_>) {
        for entry in &self.entries {
            let _ = self.one(entry, "clone_selected", |rule| rule.clone_selected(clone));
        }
    }

    /// Runs `clone_dropped` of every rule. No request is stopped for its copies.
    pub fn clone_dropped(&self, clone: &mut CloneEvent<'_>) {
        for entry in &self.entries {
            let _ = self.one(entry, "clone_dropped", |rule| rule.clone_dropped(clone));
        }
    }

    /// Runs `http_response`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub async fn http_response(&self, response: &mut Response<'_>) -> Result<(), Stopped> {
        for (n, entry) in self.entries.iter().enumerate() {
            response.runs(n);
            let result = guarded(entry.rule.http_response(response)).await;
            self.judge(entry, "http_response", result)?;
        }
        Ok(())
    }

    /// Runs `http_response_data`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn http_response_data(&self, data: &mut ResponseData<'_>) -> Result<(), Stopped> {
        self.each("http_response_data", |_, rule| rule.http_response_data(data))
    }

    /// Runs `http_finished` of every rule: nothing is left that could be stopped.
    pub fn http_finished(&self, finished: &mut Finished<'_>) {
        for entry in &self.entries {
            let _ = self.one(entry, "http_finished", |rule| rule.http_finished(finished));
        }
    }

    /// What the rules decided about a request, each with its rule's name, where that was kept.
    pub(crate) fn decisions<'a>(
        &'a self,
        exchange: &'a Exchange,
    ) -> impl Iterator<Item = (&'a RuleName, &'a str)> {
        let made = exchange.decisions.as_deref().map(Decisions::made).unwrap_or_default();
        made.iter().filter_map(|(n, decision)| Some((&self.entries.get(*n)?.name, &**decision)))
    }

    /// Runs `client_closed` of every rule: nothing is left that could be stopped.
    pub fn client_closed(&self, connection: &ConnectionState) {
        for entry in &self.entries {
            let _ =
                self.one(entry, "client_closed", |rule| rule.client_closed(&mut ClientConn::new(connection)));
        }
    }

    fn each(
        &self,
        event: &'static str,
        mut run: impl FnMut(usize, &dyn Rule) -> RuleResult,
    ) -> Result<(), Stopped> {
        let mut entries = self.entries.iter().enumerate();
        entries.try_for_each(|(n, entry)| self.one(entry, event, |rule| run(n, rule)))
    }

    fn one(
        &self,
        entry: &ChainEntry,
        event: &'static str,
        run: impl FnOnce(&dyn Rule) -> RuleResult,
    ) -> Result<(), Stopped> {
        let result = catch_unwind(AssertUnwindSafe(|| run(&*entry.rule)));
        self.judge(entry, event, result)
    }

    fn judge(
        &self,
        entry: &ChainEntry,
        event: &'static str,
        result: Result<RuleResult, Box<dyn Any + Send>>,
    ) -> Result<(), Stopped> {
        match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => tracing::warn!(rule = %entry.name, event, %error, "rule failed"),
            Err(panic) => {
                tracing::error!(rule = %entry.name, event, panic = panic_text(&*panic), "rule panicked");
            }
        }
        self.errors.with_label_values(&[entry.name.as_str(), event]).inc();
        match entry.on_error {
            OnError::FailOpen => Ok(()),
            OnError::FailClosed => Err(Stopped),
        }
    }
}

async fn guarded(event: impl Future<Output = RuleResult>) -> Result<RuleResult, Box<dyn Any + Send>> {
    AssertUnwindSafe(event).catch_unwind().await
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::rule::{Reply, RuleError, Simulator};

    /// Does at `http_request` what it is made for.
    enum Does {
        Nothing,
        Err,
        Panic,
        Respond(u16),
    }

    struct Probe {
        does: Does,
        asked: Arc<Mutex<Vec<&'static str>>>,
        name: &'static str,
    }

    #[async_trait]
    impl Rule for Probe {
        async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
            self.asked.lock().expect("no rule panics with the lock").push(self.name);
            match self.does {
                Does::Nothing => Ok(()),
                Does::Err => Err(RuleError::new("as it was told to")),
                Does::Panic => panic!("as it was told to"),
                Does::Respond(status) => {
                    request.respond(Reply::new(status));
                    Ok(())
                }
            }
        }

        fn client_closed(&self, _conn: &mut ClientConn<'_>) -> RuleResult {
            Err(RuleError::new("as it was told to"))
        }
    }

    /// The status of a request and the rules that were asked, of a first rule and a second that does nothing.
    async fn run(does: Does, on_error: OnError) -> (u16, Vec<&'static str>, Metrics) {
        let asked = Arc::default();
        let entry = |name: &'static str, does| ChainEntry {
            name: name.into(),
            rule: Arc::new(Probe { does, asked: Arc::clone(&asked), name }),
            on_error,
        };
        let simulator = Simulator::with_chain(vec![entry("first", does), entry("second", Does::Nothing)]);
        let status = simulator.connect(None).await.get("/").await.status();
        let asked = asked.lock().expect("no rule panics with the lock").clone();
        (status, asked, simulator.metrics().clone())
    }

    #[tokio::test]
    async fn errors_and_panics_are_counted_and_on_error_decides() {
        let both = vec!["first", "second"];
        for (does, on_error, status, asked, errors) in [
            (Does::Nothing, OnError::FailClosed, 200, both.clone(), 0),
            (Does::Err, OnError::FailOpen, 200, both.clone(), 1),
            (Does::Err, OnError::FailClosed, 500, vec!["first"], 1),
            (Does::Panic, OnError::FailOpen, 200, both, 1),
            (Does::Panic, OnError::FailClosed, 500, vec!["first"], 1),
            (Does::Respond(418), OnError::FailOpen, 418, vec!["first"], 0),
        ] {
            let (got, got_asked, metrics) = run(does, on_error).await;
            assert_eq!((got, got_asked), (status, asked));
            assert_eq!(metrics.rule_errors.with_label_values(&["first", "http_request"]).get(), errors);
        }
    }

    #[tokio::test]
    async fn an_event_that_cannot_be_stopped_reaches_every_rule() {
        let simulator = Simulator::with_chain(
            ["first", "second"]
                .map(|name| ChainEntry {
                    name: name.into(),
                    rule: Arc::new(Probe { does: Does::Nothing, asked: Arc::default(), name }),
                    on_error: OnError::FailClosed,
                })
                .into(),
        );
        simulator.connect(None).await.close();
        for name in ["first", "second"] {
            assert_eq!(
                simulator.metrics().rule_errors.with_label_values(&[name, "client_closed"]).get(),
                1,
                "{name}"
            );
        }
    }
}
