//! Where the responder listens: what a new configuration asks for is prepared as a whole, and only then applied.

use std::{collections::HashMap, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    rate_limit::RateLimit,
    responder::{Kept, Responder},
    socket::{BindError, Sockets},
    tcp::{self, Connections},
    udp,
};
use crate::{clock::Clock, config::Dns, listen::Inherited, metrics::Metrics};

/// The open ports of an instance, and who answers there.
pub struct Ports {
    /// Those that serve UDP.
    threads: Vec<Handle>,
    clock: Clock,
    connections: Arc<Connections>,
    /// The secret of cookies where none is configured: theirs last as long as the process.
    cookie_secret: [u8; 16],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<SocketAddr, Open>,
    responder: Option<Arc<ArcSwap<Responder>>>,
    rate_limit: Option<Arc<RateLimit>>,
}

/// A port, which is closed when this is dropped.
struct Open {
    _stop: DropGuard,
    /// For a process that takes over.
    sockets: Vec<OwnedFd>,
}

/// All that can fail about a change, done.
pub struct Prepared {
    listen: Vec<SocketAddr>,
    new: Vec<(SocketAddr, Sockets)>,
    responder: Option<Responder>,
    rate_limit: Option<Arc<RateLimit>>,
}

impl Ports {
    /// `threads`: the runtimes that are to serve UDP.
    pub fn new(threads: Vec<Handle>, clock: Clock, metrics: &Metrics, cookie_secret: [u8; 16]) -> Self {
        let connections = Arc::new(Connections::new(metrics));
        Self { threads, clock, connections, cookie_secret, state: Mutex::default() }
    }

    /// Binds the sockets that are neither there yet nor in `inherited`. `build` makes who answers.
    ///
    /// # Errors
    /// A socket cannot be had. Nothing has changed then.
    pub fn prepare(
        &self,
        dns: Option<&Dns>,
        inherited: &mut Inherited,
        build: impl FnOnce(&Dns, &Kept) -> Responder,
    ) -> Result<Prepared, BindError> {
        let state = self.state.lock();
        let listen = dns.map(|dns| dns.listen.clone()).unwrap_or_default();
        let missing = listen.iter().filter(|addr| !state.open.contains_key(addr));
        let bind = |addr: &SocketAddr| Ok((*addr, Sockets::open(*addr, self.threads.len(), inherited)?));
        let new = missing.map(bind).collect::<Result<_, BindError>>()?;
        let rate_limit = dns.and_then(|dns| dns.rate_limit).map(|config| {
            let same = state.rate_limit.clone().filter(|limit| *limit.config() == config);
            same.unwrap_or_else(|| Arc::new(RateLimit::new(config, rand::random(), self.clock.now())))
        });
        let kept = Kept { cookie_secret: self.cookie_secret, rate_limit: rate_limit.clone() };
        let responder = dns.map(|dns| build(dns, &kept));
        Ok(Prepared { listen, new, responder, rate_limit })
    }

    /// Puts a change in force for queries that come from now on. The runtime that is current serves TCP.
    pub fn apply(&self, prepared: Prepared) {
        let Prepared { listen, new, responder, rate_limit } = prepared;
        let mut state = self.state.lock();
        state.open.retain(|addr, _| {
            let stays = listen.contains(addr);
            if !stays {
                tracing::info!("no longer listening on dns://{addr}");
            }
            stays
        });
        state.rate_limit = rate_limit;
        let Some(responder) = responder else {
            state.responder = None;
            return;
        };
        let current = match &state.responder {
            Some(current) => {
                current.store(Arc::new(responder));
                current.clone()
            }
            None => Arc::new(ArcSwap::from_pointee(responder)),
        };
        state.responder = Some(current.clone());
        for (addr, sockets) in new {
            let handles = sockets.handles();
            let stop = self.open(sockets, &current).drop_guard();
            state.open.insert(addr, Open { _stop: stop, sockets: handles });
            tracing::info!("listening on dns://{addr}");
        }
    }

    /// The listening sockets, for another process to answer on too.
    ///
    /// # Errors
    /// The process has as many open files as it may.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let state = self.state.lock();
        state.open.values().flat_map(|open| &open.sockets).map(OwnedFd::try_clone).collect()
    }

    /// Stops answering.
    pub fn close(&self) {
        *self.state.lock() = State::default();
    }

    fn open(&self, sockets: Sockets, responder: &Arc<ArcSwap<Responder>>) -> CancellationToken {
        let stop = CancellationToken::new();
        let tcp = tcp::serve(sockets.tcp, self.connections.clone(), responder.clone(), self.clock.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(tcp));
        for (socket, thread) in sockets.udp.into_iter().zip(self.threads.iter().cycle()) {
            let udp = udp::serve(socket, responder.clone(), self.clock.clone());
            thread.spawn(stop.clone().run_until_cancelled_owned(udp));
        }
        stop
    }
}
