//! The side of the process that serves.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{net::UnixListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{
    HandOverError, Message, SERVING_TIMEOUT, SocketError,
    link::{Link, LinkError},
    state::State,
};
use crate::{
    listen::{IfTaken, SocketFile, Users, bind_unix},
    server::{keys::Keys, saved::Outgoing},
    session::{Journal, Saved},
    snapshot::Live,
};

/// Processes that come to take over. One may wait at a time.
pub struct Successors {
    live: Arc<Live>,
    path: PathBuf,
    waiting: Mutex<Option<Link>>,
    has_come: Notify,
    file: SocketFile,
}

/// A new process serves; what this one still does of sessions is told to it until [`HandedOver::ended`].
pub struct HandedOver {
    /// The new process, if the system says.
    pub pid: Option<u32>,
    pump: JoinHandle<()>,
    ending: CancellationToken,
}

impl Successors {
    /// Listens at `path`, which a process that died may have left and one that handed over to us has still. Listens
    /// until `stop`.
    pub async fn listen(
        live: Arc<Live>,
        path: &Path,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, SocketError> {
        let (listener, file) = bind_unix(path, Users { mode: MODE, group: None }, IfTaken::Replace).await?;
        let successors = Arc::new(Self {
            live,
            path: path.to_owned(),
            waiting: Mutex::default(),
            has_come: Notify::new(),
            file,
        });
        let accepting = successors.clone().accept(listener);
        tokio::spawn(stop.run_until_cancelled_owned(accepting));
        Ok(successors)
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            let stream = match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "upgrade_sock: a connection cannot be accepted");
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                    continue;
                }
            };
            let successors = self.clone();
            tokio::task::spawn_blocking(move || successors.meet(stream));
        }
    }

    /// Gives a process that has come the keys, and has it wait.
    fn meet(&self, stream: UnixStream) {
        let link = stream.set_nonblocking(false).map_err(LinkError::from).and_then(|()| Link::greet(stream));
        // Also those come that only look whether there is somebody.
        let Ok(mut link) = link else { return };
        let mut waiting = self.waiting.lock();
        if waiting.as_ref().is_some_and(Link::is_alive) {
            let _ =
                link.send(&Message::Refused("another process waits to take over already; end one".into()));
            return;
        }
        let live = &self.live;
        let keys = Keys::of(*live.sessions.seed(), live.mark_key, &live.ticket_keys);
        if link.send(&Message::Keys(keys)).is_ok() {
            tracing::info!(pid = link.peer(), "a new process waits to take over; SIGQUIT hands over to it");
            *waiting = Some(link);
            self.has_come.notify_waiters();
        }
    }

    /// Until the process with this id waits.
    pub async fn waits(&self, pid: u32) {
        loop {
            let has_come = self.has_come.notified();
            if self.waiting.lock().as_ref().and_then(Link::peer) == Some(pid) {
                return;
            }
            has_come.await;
        }
    }

    /// The socket's file is the new process's from now on.
    pub fn leave(&self) {
        self.file.leave();
    }

    /// Hands over to the process that waits, with these sockets. Blocks until that serves. On an error this one is what
    /// it was before.
    pub fn hand_over(&self, sockets: &[OwnedFd]) -> Result<HandedOver, HandOverError> {
        let waiting = self.waiting.lock().take().filter(Link::is_alive);
        let link = waiting.ok_or_else(|| HandOverError::Nobody(self.path.clone()))?;
        let begun = Instant::now();
        // From here on both choose alike for new sessions, and none that is used is missed.
        self.live.sessions.set_shared(true);
        let alone = Alone(&self.live);
        let journal = self.live.sessions.journal();
        let replies = replies(&link)?;
        let outgoing = Outgoing::of(&self.live.sessions);
        let mut pump = Pump { live: self.live.clone(), journal, outgoing, link };
        let keys = pump.begin(sockets)?;
        let due = Instant::now() + SERVING_TIMEOUT;
        loop {
            match replies.try_recv() {
                Ok(reply) => break reply?,
                Err(TryRecvError::Empty) if Instant::now() < due => {
                    pump.pass_on(PATIENCE)?;
                }
                Err(TryRecvError::Empty) => return Err(HandOverError::TooLate),
                Err(TryRecvError::Disconnected) => return Err(LinkError::Closed.into()),
            }
        }
        std::mem::forget(alone);
        let pid = pump.link.peer();
        let took =
            humantime::format_duration(Duration::from_millis(begun.elapsed().as_millis() as u64)).to_string();
        tracing::info!(
            pid,
            took,
            sockets = sockets.len(),
            sessions = keys,
            "handed over; the new process serves"
        );
        let ending = CancellationToken::new();
        let until = ending.clone();
        let pump = thread::spawn(move || pump.run(&until));
        Ok(HandedOver { pid, pump, ending })
    }
}

impl HandedOver {
    /// The last connection of this process is gone: tells the rest, and says goodbye.
    pub fn ended(self) {
        self.ending.cancel();
        if self.pump.join().is_err() {
            tracing::error!("what told the new process of sessions panicked");
        }
    }
}

/// This process has its sessions to itself again when it is dropped.
struct Alone<'a>(&'a Live);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.sessions.set_shared(false);
    }
}

/// Tells the new process what becomes of sessions here.
struct Pump {
    live: Arc<Live>,
    journal: Journal,
    outgoing: Outgoing,
    link: Link,
}

impl Pump {
    /// All that there is when it begins. How many keys of sessions there were.
    fn begin(&mut self, sockets: &[OwnedFd]) -> Result<usize, LinkError> {
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        self.link.send_sockets(&fds)?;
        self.link.send(&Message::State(State::of(&self.live)))?;
        let table = self.live.sessions.clone();
        let mut keys = 0;
        for sessions in table.save(self.live.clock.now()) {
            keys += sessions.len();
            self.send(sessions)?;
        }
        self.pass_on(Duration::ZERO)?;
        self.link.send(&Message::Complete)?;
        Ok(keys)
    }

    /// Passes on what has happened, or happens within `patience`; whether there was anything.
    fn pass_on(&mut self, patience: Duration) -> Result<bool, LinkError> {
        let sessions = self.journal.save(patience, || self.live.clock.now());
        let is_any = !sessions.is_empty();
        self.send(sessions)?;
        Ok(is_any)
    }

    /// Until the process on the other side has been told of everything that ended here.
    fn run(mut self, ending: &CancellationToken) {
        if let Err(error) = self.until(ending) {
            tracing::warn!("the new process does not hear of this one's sessions any more: {error}");
        }
    }

    fn until(&mut self, ending: &CancellationToken) -> Result<(), LinkError> {
        let mut refreshed = Instant::now();
        while !ending.is_cancelled() {
            self.pass_on(PATIENCE)?;
            if refreshed.elapsed() >= REFRESH {
                self.refresh()?;
                refreshed = Instant::now();
            }
        }
        while self.pass_on(Duration::ZERO)? {}
        self.link.send(&Message::Bye)
    }

    /// Sessions in use here do not end there.
    fn refresh(&mut self) -> Result<(), LinkError> {
        let table = self.live.sessions.clone();
        table.save_used(self.live.clock.now()).try_for_each(|sessions| self.send(sessions))
    }

    fn send(&mut self, sessions: Vec<Saved>) -> Result<(), LinkError> {
        self.outgoing.with(sessions).try_for_each(|part| self.link.send(&Message::Table(part)))
    }
}

/// What the new process says, on a thread that ends with the connection.
fn replies(link: &Link) -> Result<Receiver<Result<(), LinkError>>, LinkError> {
    let mut link = link.another()?;
    link.set_patience(None)?;
    let (sender, replies) = channel();
    thread::Builder::new().name("successor".into()).spawn(move || {
        let reply = match link.receive() {
            Ok(Message::Serving) => Ok(()),
            Ok(_) => Err(LinkError::Nonsense),
            Err(error) => Err(error),
        };
        let _ = sender.send(reply);
    })?;
    Ok(replies)
}

/// The other side gets the keys of all sessions.
const MODE: u32 = 0o600;
/// Between two looks at anything else.
const PATIENCE: Duration = Duration::from_millis(5);
/// Of sessions in use; less than the shortest sensible idle timeout.
const REFRESH: Duration = Duration::from_secs(1);
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);
