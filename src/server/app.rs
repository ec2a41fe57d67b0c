//! The proxy as Pingora's HTTP app, one for each thread, with connections to servers of its own.

use std::{mem::ManuallyDrop, ptr, sync::Arc, time::Duration};

use pingora::{
    connectors::{ConnectorOptions, TransportConnector},
    proxy::{ProcessCustomSession, ProxyServiceBuilder},
    server::configuration::ServerConf,
    time::fast_timeout::set_fast_timeout_to_tokio_threshold,
};

use crate::{
    proxy::{App, Connector, Proxy},
    snapshot::Live,
};

/// Makes apps that have one TLS context for their HTTP/1 connections in common.
pub(super) struct Apps {
    live: Arc<Live>,
    conf: Arc<ServerConf>,
    transport: Arc<TransportConnector>,
}

impl Apps {
    pub fn new(live: &Arc<Live>) -> Self {
        let conf =
            ServerConf { upstream_keepalive_pool_size: KEPT_CONNECTIONS_PER_THREAD, ..ServerConf::default() };
        // Pingora keeps a timer that is not needed any more until it would have fired; tokio forgets it at once.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        let transport = TransportConnector::new(Some(ConnectorOptions::from_server_conf(&conf)));
        Self { live: live.clone(), conf: Arc::new(conf), transport: Arc::new(transport) }
    }

    /// The app of one thread.
    pub fn app(&self) -> Arc<App> {
        let nothing_else: ProcessCustomSession<Proxy, Connector> =
            Arc::new(|_, _, _| Box::pin(std::future::ready(None)));
        let connector = Connector::new(self.transport.clone());
        let service = ProxyServiceBuilder::new(&self.conf, Proxy::new(self.live.clone()))
            .custom(connector, nothing_else)
            .build();
        // Pingora makes an app with a connector inside a service only, and lends it; homing has no use for the rest.
        let mut service = ManuallyDrop::new(service);
        let app = ptr::from_mut(service.app_logic_mut().expect("a service has its app until it is started"));
        // SAFETY: it points to an app, which is moved out of it here once: the service is neither used nor dropped
        // any more.
        Arc::new(unsafe { ptr::read(app) })
    }
}

/// Idle connections to servers that are kept for reuse.
const KEPT_CONNECTIONS_PER_THREAD: usize = 1024;
