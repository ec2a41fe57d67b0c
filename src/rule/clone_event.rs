//! The context of the copies' events: `clone_selected` and `clone_dropped`.

use std::net::SocketAddr;

use super::exchange::{CloneOrder, Exchange};
use crate::{clone::DropReason, names::PoolName, session::How};

holds_exchange!(CloneEvent);

/// Context of `clone_selected` and `clone_dropped`: to observe. What is copied where was decided before.
pub struct CloneEvent<'a> {
    exchange: &'a mut Exchange,
    copy: CopyOf<'a>,
    dropped: Option<DropReason>,
}

/// Which copy an event is about.
enum CopyOf<'a> {
    Ordered(&'a CloneOrder),
    /// It was wanted, and there was no server that could have had it.
    Wanted(&'a PoolName),
}

impl<'a> CloneEvent<'a> {
    pub(crate) fn selected(exchange: &'a mut Exchange, order: &'a CloneOrder) -> Self {
        Self { exchange, copy: CopyOf::Ordered(order), dropped: None }
    }

    pub(crate) fn dropped(exchange: &'a mut Exchange, order: &'a CloneOrder, reason: DropReason) -> Self {
        Self { exchange, copy: CopyOf::Ordered(order), dropped: Some(reason) }
    }

    pub(crate) fn never_ordered(exchange: &'a mut Exchange, pool: &'a PoolName, reason: DropReason) -> Self {
        Self { exchange, copy: CopyOf::Wanted(pool), dropped: Some(reason) }
    }

    /// The clone pool.
    pub fn pool(&self) -> &PoolName {
        match self.copy {
            CopyOf::Ordered(order) => &order.pool,
            CopyOf::Wanted(pool) => pool,
        }
    }

    /// The member, if one was chosen.
    pub fn server(&self) -> Option<SocketAddr> {
        self.order().map(|order| order.server)
    }

    /// How the member came to have the copy: its session is new, has it still, or moved to it. `None`: no session,
    /// for a rule or chance chose.
    pub fn how(&self) -> Option<How> {
        self.order()?.how
    }

    /// What names the session in the mark of its copies; `None`: the copy is of none.
    pub fn session_number(&self) -> Option<u64> {
        self.order().filter(|order| order.seq > 0).map(|order| order.session)
    }

    /// The copy's number in its session: 1, 2, 3, …; `None`: it is of none.
    pub fn seq(&self) -> Option<u64> {
        self.order().map(|order| order.seq).filter(|seq| *seq > 0)
    }

    /// Why the copy was dropped; `None` at `clone_selected`.
    pub fn drop_reason(&self) -> Option<DropReason> {
        self.dropped
    }

    fn order(&self) -> Option<&'a CloneOrder> {
        match self.copy {
            CopyOf::Ordered(order) => Some(order),
            CopyOf::Wanted(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::rule::{ClientConn, Request, Rule, RuleError, RuleResult, Simulator};

    /// Orders copies as a request's path says, writes down what it hears, and fails then.
    #[derive(Clone, Default)]
    struct Observer(Arc<Mutex<Vec<String>>>);

    impl Observer {
        fn note(&self, event: &str, clone: &CloneEvent<'_>) -> RuleResult {
            let server = clone.server().map(|server| server.to_string());
            let reason = clone.drop_reason().map(DropReason::as_str);
            self.0.lock().push(format!("{event} {} {server:?} {reason:?}", clone.pool()));
            assert_eq!((clone.how(), clone.session_number(), clone.seq()), (None, None, None));
            Err(RuleError::new("as it was told to"))
        }
    }

    #[async_trait]
    impl Rule for Observer {
        async fn client_accepted(&self, conn: &mut ClientConn<'_>) -> RuleResult {
            conn.clone_to("c", SocketAddr::from(([192, 0, 2, 1], 80)))?;
            if conn.ssl().is_some() {
                conn.clone_none();
            }
            Ok(())
        }

        async fn http_request(&self, request: &mut Request<'_>) -> RuleResult {
            match request.path() {
                "/none" => request.clone_none(),
                "/never" => request.clone_never_ordered(&"d".into(), DropReason::NoServer),
                _ => {}
            }
            Ok(())
        }

        fn clone_selected(&self, clone: &mut CloneEvent<'_>) -> RuleResult {
            self.note("selected", clone)
        }

        fn clone_dropped(&self, clone: &mut CloneEvent<'_>) -> RuleResult {
            self.note("dropped", clone)
        }
    }

    fn simulator(observer: &Observer) -> Simulator {
        Simulator::new(observer.clone()).pool("c", ["192.0.2.1:80"])
    }

    /// What is heard of a request, which is answered whatever the rule makes of its copies.
    async fn heard(simulator: &Simulator, observer: &Observer, path: &str) -> Vec<String> {
        assert_eq!(simulator.connect(None).await.get(path).await.status(), 200);
        std::mem::take(&mut observer.0.lock())
    }

    #[tokio::test]
    async fn rules_hear_of_copies_and_of_those_that_are_dropped_and_stop_nothing() {
        let observer = Observer::default();
        let selected = r#"selected c Some("192.0.2.1:80") None"#;
        let sound = simulator(&observer);
        assert_eq!(heard(&sound, &observer, "/").await, [selected]);
        assert_eq!(
            heard(&sound, &observer, "/never").await,
            [r#"dropped d None Some("no_server")"#, selected]
        );
        assert_eq!(heard(&sound, &observer, "/none").await, [""; 0]);
        assert_eq!(sound.metrics().rule_errors.with_label_values(&["simulated", "clone_selected"]).get(), 2);

        let full = simulator(&observer).dropping_clones(DropReason::Budget);
        let dropped = r#"dropped c Some("192.0.2.1:80") Some("budget")"#;
        assert_eq!(heard(&full, &observer, "/").await, [selected, dropped]);
        assert_eq!(full.metrics().rule_errors.with_label_values(&["simulated", "clone_dropped"]).get(), 1);
    }

    #[tokio::test]
    async fn a_connection_may_refuse_the_copies_of_all_its_requests() {
        let observer = Observer::default();
        let simulator = simulator(&observer);
        let tls = crate::tls::TlsFacts {
            session_id: [1; 16],
            sni: None,
            cipher: "TLS_AES_128_GCM_SHA256",
            version: "TLSv1.3",
            resumed: false,
            alpn: None,
            site: None,
            client_certificate: None,
        };
        assert_eq!(simulator.connect(None).await.get("/").await.clones().len(), 1);
        assert_eq!(simulator.connect(Some(tls)).await.get("/").await.clones().len(), 0);
        assert_eq!(observer.0.lock().len(), 1);
    }
}
