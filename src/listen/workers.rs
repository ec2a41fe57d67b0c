//! The threads on which connections are served. A connection stays on one thread from its first byte to its last,
//! and so do the connections to servers that its requests used: each thread has a runtime and an app of its own,
//! and nothing wakes one thread for what happens on another. nginx's and Envoy's worker model.
//!
//! A new connection goes to the thread that has the fewest.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{net::TcpStream, runtime::Handle, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Who serves connections. The threads end when this is dropped, with what still runs on them.
pub struct Workers<A> {
    each: Box<[Worker<A>]>,
    _stop: DropGuard,
}

struct Worker<A> {
    app: Arc<A>,
    /// `None`: the runtime that accepts.
    runtime: Option<Handle>,
    open: Arc<AtomicUsize>,
}

impl<A: Send + Sync + 'static> Workers<A> {
    /// One worker: whatever runtime the listeners are on.
    pub fn here(app: Arc<A>) -> Self {
        let worker = Worker { app, runtime: None, open: Arc::default() };
        Self { each: [worker].into(), _stop: CancellationToken::new().drop_guard() }
    }

    /// So many threads, each with an app that `app` makes.
    ///
    /// # Errors
    /// The system gives no more threads or files.
    pub fn threads(threads: NonZeroUsize, app: impl Fn() -> Arc<A>) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let worker = |number| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let stopped = stop.clone().cancelled_owned();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            thread.spawn(move || {
                runtime.block_on(stopped);
                runtime.shutdown_background();
            })?;
            Ok(Worker { app: app(), runtime: Some(handle), open: Arc::default() })
        };
        let each = (0..threads.get()).map(worker).collect::<io::Result<_>>()?;
        Ok(Self { each, _stop: stop.drop_guard() })
    }

    /// The runtimes of the threads, for what is not a connection.
    pub fn runtimes(&self) -> Vec<Handle> {
        self.each.iter().map(|worker| worker.runtime.clone().unwrap_or_else(Handle::current)).collect()
    }

    /// Has a connection served, as one of `connections`, by the worker that has the fewest.
    pub(super) fn serve<F>(
        &self,
        connections: &mut JoinSet<()>,
        socket: TcpStream,
        serve: impl FnOnce(TcpStream, Arc<A>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let worker = self.each.iter().min_by_key(|worker| worker.open.load(Relaxed));
        let Worker { app, runtime, open } = worker.expect("there is at least one worker");
        let (app, busy) = (app.clone(), Busy::new(open));
        match runtime {
            None => connections.spawn(async move {
                let _busy = busy;
                serve(socket, app).await;
            }),
            Some(runtime) => {
                // The socket is watched by the runtime that it was made on, and has to change over.
                let Ok(socket) = socket.into_std() else { return };
                let serve = async move {
                    let _busy = busy;
                    if let Ok(socket) = TcpStream::from_std(socket) {
                        serve(socket, app).await;
                    }
                };
                connections.spawn_on(serve, runtime)
            }
        };
    }
}

/// One connection of a worker.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(open.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use tokio::{
        net::TcpListener,
        sync::{mpsc, oneshot},
    };

    use super::*;

    /// A connection that is being served: where, and how to end it.
    type Served = (ThreadId, oneshot::Sender<()>);

    /// Connects, has the socket served until it is told to end, and says on which thread it is.
    async fn connect(workers: &Workers<()>, connections: &mut JoinSet<()>) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (_client, (socket, _)) = (client.expect("it listens"), accepted.expect("a client"));
        let (told, mut tells) = mpsc::channel(1);
        workers.serve(connections, socket, |_, _| async move {
            let (end, ended) = oneshot::channel();
            told.send((thread::current().id(), end)).await.expect("the test listens");
            let _ = ended.await;
        });
        tells.recv().await.expect("it is served")
    }

    #[tokio::test]
    async fn connections_are_spread_over_the_threads_and_go_where_the_fewest_are() {
        let two = NonZeroUsize::new(2).expect("2 is not 0");
        let workers = Workers::threads(two, Arc::default).expect("two threads");
        let mut connections = JoinSet::new();
        let (first, end) = connect(&workers, &mut connections).await;
        let (second, _held) = connect(&workers, &mut connections).await;
        assert_ne!(first, second);
        end.send(()).expect("it waits");
        connections.join_next().await.expect("one has ended").expect("without panic");
        let (third, _held) = connect(&workers, &mut connections).await;
        assert_eq!(third, first);
        assert_ne!(first, thread::current().id(), "the thread that accepts serves nobody");
    }

    #[tokio::test]
    async fn without_threads_the_runtime_that_accepts_serves() {
        let (on, _held) = connect(&Workers::here(Arc::new(())), &mut JoinSet::new()).await;
        assert_eq!(on, thread::current().id());
    }
}
