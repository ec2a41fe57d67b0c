//! The listeners of an instance: added, changed and removed while it runs.

use std::{
    collections::HashMap,
    fmt::Display,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionEvents, ListenerSettings, ListenerSpec, Room, Workers,
    port::{Ending, Port, Shared},
};
use crate::{
    clock::Clock,
    metrics::{ListenerMetrics, Metrics},
};

/// Listening sockets by address, all serving one app. Its methods are for inside a tokio runtime, on which
/// sockets are accepted; [`Workers`] say where they are served.
pub struct Listeners<A> {
    shared: Arc<Shared<A>>,
    running: Mutex<HashMap<SocketAddr, Running<A>>>,
    hang_up: CancellationToken,
    kill: CancellationToken,
}

/// A listener that only has to be added.
pub struct Prepared {
    name: Arc<str>,
    addr: SocketAddr,
    socket: tokio::net::TcpListener,
    settings: ListenerSettings,
}

struct Running<A> {
    port: Arc<Port<A>>,
    /// `None`: it pauses.
    accepting: Option<Accepting>,
}

/// An accept loop.
struct Accepting {
    stop: CancellationToken,
    ended: JoinHandle<()>,
    socket: Arc<tokio::net::TcpListener>,
}

impl<A> Listeners<A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    pub fn new(
        workers: Workers<A>,
        events: Arc<dyn ConnectionEvents>,
        clock: Clock,
        room: Room,
        metrics: Metrics,
    ) -> Self {
        let open = Arc::new(watch::Sender::new(0));
        let next_id = AtomicU64::new(1);
        let shared = Arc::new(Shared { workers, events, clock, room, metrics, open, next_id });
        let (hang_up, kill) = (CancellationToken::new(), CancellationToken::new());
        Self { shared, running: Mutex::default(), hang_up, kill }
    }

    /// Does all that can fail about a new listener. Clients can connect, and wait until it is added.
    ///
    /// # Errors
    /// When the address is served already, and when the runtime cannot watch the socket.
    pub fn prepare(&self, spec: ListenerSpec) -> io::Result<Prepared> {
        let addr = spec.socket.local_addr()?;
        if self.running.lock().contains_key(&addr) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = tokio::net::TcpListener::from_std(spec.socket)?;
        Ok(Prepared { name: spec.name, addr, socket, settings: spec.settings })
    }

    /// Serves a socket from now on.
    pub fn add(&self, prepared: Prepared) {
        let Prepared { name, addr, socket, settings } = prepared;
        let port = Arc::new(Port {
            counts: ListenerMetrics::new(&self.shared.metrics, &name),
            name,
            settings: ArcSwap::from_pointee(settings),
            shared: self.shared.clone(),
            ending: ArcSwap::from_pointee(Ending::new(self.hang_up.child_token())),
            kill: self.kill.child_token(),
            connections: Mutex::default(),
        });
        tokio::spawn(port.clone().cut_when_killed());
        let accepting = Some(Accepting::begin(&port, socket));
        self.running.lock().insert(addr, Running { port, accepting });
    }

    /// Changes what new connections meet. Says whether there is such a listener.
    pub fn update(&self, addr: SocketAddr, settings: ListenerSettings) -> bool {
        match self.running.lock().get(&addr) {
            Some(running) => {
                running.port.settings.store(Arc::new(settings));
                true
            }
            None => false,
        }
    }

    /// Ends the connections that a listener has now: each with its next answer, and at once those that are idle. It
    /// goes on accepting.
    pub fn end_connections(&self, addr: SocketAddr) {
        let Some(port) = self.running.lock().get(&addr).map(|running| running.port.clone()) else { return };
        let ending = port.ending.swap(Arc::new(Ending::new(self.hang_up.child_token())));
        ending.tell.send_replace(true);
        ending.hang_up.cancel();
    }

    /// Closes the listening socket, and nothing else: connects are refused when this returns, connections go on.
    pub async fn pause(&self, addr: SocketAddr) {
        let accepting = self.running.lock().get_mut(&addr).and_then(|running| running.accepting.take());
        if let Some(accepting) = accepting {
            accepting.end(&addr).await;
        }
    }

    /// Listens again after a pause.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn resume(&self, addr: SocketAddr, socket: TcpListener) -> io::Result<()> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        if let Some(running) = self.running.lock().get_mut(&addr).filter(|it| it.accepting.is_none()) {
            running.accepting = Some(Accepting::begin(&running.port, socket));
        }
        Ok(())
    }

    /// Whether a listener pauses.
    pub fn pauses(&self, addr: SocketAddr) -> bool {
        self.running.lock().get(&addr).is_some_and(|running| running.accepting.is_none())
    }

    /// Stops listening: connects are refused when this returns. Connections end with their next answer, for a
    /// client may have sent a request already, and have `grace` for it; what is open then is cut. Gives what ends
    /// with that; `None`: there was no such listener.
    pub async fn remove(&self, addr: SocketAddr, grace: Duration) -> Option<JoinHandle<()>> {
        let running = self.running.lock().remove(&addr)?;
        let port = running.port.clone();
        running.drain().await;
        Some(tokio::spawn(async move {
            let _ = tokio::time::timeout(grace, port.all_closed()).await;
            port.kill.cancel();
        }))
    }

    /// Ends everything: as soon as no connection is open any more, at the latest after `grace`. Says how many
    /// connections were cut.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        let running: Vec<_> = self.running.lock().drain().map(|(_, running)| running).collect();
        for listener in running {
            listener.drain().await;
        }
        self.hang_up.cancel();
        let mut open = self.shared.open.subscribe();
        let all_closed = open.wait_for(|open| *open == 0);
        let cut = match tokio::time::timeout(grace, all_closed).await {
            Ok(_) => 0,
            Err(_) => self.in_flight(),
        };
        self.kill.cancel();
        cut
    }

    /// Ends like [`Listeners::shutdown`] when another process accepts from the same sockets: a connection ends with
    /// its next answer, for its client may have sent a request already, and those that stay idle when `grace` is over.
    pub async fn retire(&self, grace: Duration) -> usize {
        let running: Vec<_> = self.running.lock().drain().map(|(_, running)| running).collect();
        for listener in running {
            listener.drain().await;
        }
        let mut open = self.shared.open.subscribe();
        if tokio::time::timeout(grace, open.wait_for(|open| *open == 0)).await.is_err() {
            return self.shutdown(LAST_GOODBYE).await;
        }
        0
    }

    /// Takes over how many clients are configured to be there at most. Says how many there is room for.
    pub fn limit_clients(&self, most: Option<usize>) -> usize {
        self.shared.room.limit(most);
        // Who waits for room looks again.
        self.shared.open.send_modify(|_| {});
        self.shared.room.clients()
    }

    /// The listening sockets, for another process to accept from too.
    pub fn sockets(&self) -> Vec<Arc<tokio::net::TcpListener>> {
        let running = self.running.lock();
        running.values().filter_map(|running| Some(running.accepting.as_ref()?.socket.clone())).collect()
    }

    /// Connections that are open. Idle ones are among them until a shutdown closes them, and HTTP/2 streams keep
    /// theirs open.
    pub fn in_flight(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Where it listens, and would if it did not pause.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.running.lock().keys().copied().collect()
    }
}

impl<A> Running<A> {
    /// Closes the socket, then tells the connections.
    async fn drain(self) {
        if let Some(accepting) = self.accepting {
            accepting.end(&self.port.name).await;
        }
        self.port.ending.load().tell.send_replace(true);
    }
}

impl Accepting {
    fn begin<A>(port: &Arc<Port<A>>, socket: tokio::net::TcpListener) -> Self
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let (stop, socket) = (CancellationToken::new(), Arc::new(socket));
        let ended = tokio::spawn(port.clone().accept(socket.clone(), stop.clone()));
        Self { stop, ended, socket }
    }

    /// Closes the socket.
    async fn end(self, listener: &impl Display) {
        self.stop.cancel();
        if let Err(error) = self.ended.await {
            tracing::error!(%listener, %error, "the accept loop had ended early");
        }
    }
}

/// For what is idle still when a process that was replaced ends.
const LAST_GOODBYE: Duration = Duration::from_secs(1);
