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
    ClientConn, ConnectionState, Finished, LbEvent, Request, RequestData, RequestSend, Response, ResponseData, Rule,
    RuleResult,
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

    /// Runs `client_accepted` and, on TLS, `clientssl_handshake`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub async fn client_accepted(&self, connection: &ConnectionState) -> Result<(), Stopped> {
        for entry in &self.entries {
            let mut conn = ClientConn::new(connection);
            let result = guarded(entry.rule.client_accepted(&mut conn)).await;
            drop(conn);
            self.judge(entry, "client_accepted", result)?;
        }
        if connection.tls().is_none() || connection.is_rejected() {
            return Ok(());
        }
        for entry in &self.entries {
            let mut conn = ClientConn::new(connection);
            let result = guarded(entry.rule.clientssl_handshake(&mut conn)).await;
            drop(conn);
            self.judge(entry, "clientssl_handshake", result)?;
        }
        Ok(())
    }

    /// Runs `http_request` until a rule answers.
    ///
    /// # Errors
    /// A rule failed closed.
    pub async fn http_request(&self, request: &mut Request<'_>) -> Result<(), Stopped> {
        for entry in &self.entries {
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
        self.each("http_request_data", |rule| rule.http_request_data(data))
    }

    /// Runs `lb_selected`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn lb_selected(&self, lb: &mut LbEvent<'_>) -> Result<(), Stopped> {
        self.each("lb_selected", |rule| rule.lb_selected(lb))
    }

    /// Runs `lb_failed`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn lb_failed(&self, lb: &mut LbEvent<'_>) -> Result<(), Stopped> {
        self.each("lb_failed", |rule| rule.lb_failed(lb))
    }

    /// Runs `http_request_send`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub fn http_request_send(&self, send: &mut RequestSend<'_>) -> Result<(), Stopped> {
        self.each("http_request_send", |rule| rule.http_request_send(send))
    }

    /// Runs `http_response`.
    ///
    /// # Errors
    /// A rule failed closed.
    pub async fn http_response(&self, response: &mut Response<'_>) -> Result<(), Stopped> {
        for entry in &self.entries {
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
        self.each("http_response_data", |rule| rule.http_response_data(data))
    }

    /// Runs `http_finished`. Nothing is left that could be stopped.
    pub fn http_finished(&self, finished: &mut Finished<'_>) {
        let _ = self.each("http_finished", |rule| rule.http_finished(finished));
    }

    /// Runs `client_closed`. Nothing is left that could be stopped.
    pub fn client_closed(&self, connection: &ConnectionState) {
        let _ = self.each("client_closed", |rule| rule.client_closed(&mut ClientConn::new(connection)));
    }

    fn each(&self, event: &'static str, mut run: impl FnMut(&dyn Rule) -> RuleResult) -> Result<(), Stopped> {
        for entry in &self.entries {
            let result = catch_unwind(AssertUnwindSafe(|| run(&*entry.rule)));
            self.judge(entry, event, result)?;
        }
        Ok(())
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
