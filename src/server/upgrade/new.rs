//! The side of the new process.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Keys, Message, TakeOverError,
    link::{Link, LinkError},
};
use crate::{listen::Inherited, server::saved::Incoming, snapshot::Live};

/// The process that serves, and waits for nothing but SIGQUIT.
pub struct Predecessor {
    path: PathBuf,
    link: Link,
}

/// What was taken over.
pub struct Taken {
    pub sockets: Inherited,
    /// Keys of sessions.
    pub sessions: usize,
    path: PathBuf,
    /// `None`: it died meanwhile.
    link: Option<Link>,
}

/// Takes in what the old process says of sessions.
struct Follower {
    live: Arc<Live>,
    link: Link,
    incoming: Incoming,
}

impl Predecessor {
    /// The process that listens at `path`, and its keys; `None`: none does.
    pub fn find(path: &Path) -> Result<Option<(Self, Keys)>, TakeOverError> {
        let failed = |source| TakeOverError::Link { path: path.to_owned(), source };
        let Some(stream) = connect(path).map_err(|error| failed(error.into()))? else { return Ok(None) };
        let mut link = Link::greet(stream).map_err(failed)?;
        match link.receive().map_err(failed)? {
            Message::Keys(keys) => Ok(Some((Self { path: path.to_owned(), link }, keys))),
            Message::Refused(reason) => Err(TakeOverError::Refused { path: path.to_owned(), reason }),
            _ => Err(failed(LinkError::Nonsense)),
        }
    }

    /// Waits until it hands over, which may be never, and puts its sessions and what it knows of servers into `live`.
    /// If it dies, this takes what came until then.
    pub fn take_over(self, live: &Arc<Live>) -> Result<Taken, TakeOverError> {
        let Self { path, link } = self;
        match link.peer() {
            Some(pid) => tracing::info!("process {pid} serves; taking over when it gets SIGQUIT"),
            None => tracing::info!("another process serves; taking over when it gets SIGQUIT"),
        }
        let incoming = Incoming::into(&live.sessions, &live.snapshot().config, &live.clock);
        let mut taken = Taken { sockets: Inherited::default(), sessions: 0, path, link: None };
        let mut follower = Follower { live: live.clone(), link, incoming };
        match follower.take_all(&mut taken).and_then(|()| follower.follow()) {
            Ok(link) => taken.link = Some(link),
            Err(error) if is_there(&taken.path) => {
                tracing::debug!(%error, "the hand-over broke off");
                return Err(TakeOverError::BrokenOff(taken.path.clone()));
            }
            Err(error) => {
                tracing::warn!("the process that served is gone: {error}; serving in its place");
                live.sessions.set_shared(false);
            }
        }
        tracing::info!(sockets = taken.sockets.len(), sessions = taken.sessions, "taken over");
        Ok(taken)
    }
}

impl Taken {
    /// Whether the old process died before it told of any session.
    pub fn is_empty(&self) -> bool {
        self.link.is_none() && self.sessions == 0
    }

    /// Tells the old process that this one serves.
    ///
    /// # Errors
    /// It has given up on this process, and serves on.
    pub fn serving(mut self) -> Result<(), TakeOverError> {
        let told = self.link.take().map(|mut link| link.send(&Message::Serving));
        match told {
            Some(Err(_)) if is_there(&self.path) => Err(TakeOverError::BrokenOff(self.path.clone())),
            _ => Ok(()),
        }
    }
}

impl Drop for Taken {
    /// Without having served: the old process need not wait.
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.close();
        }
    }
}

impl Follower {
    fn take_all(&mut self, taken: &mut Taken) -> Result<(), LinkError> {
        self.link.set_patience(None)?;
        loop {
            match self.link.receive()? {
                Message::Sockets(number) => {
                    self.live.sessions.set_shared(true);
                    for socket in self.link.take_sockets(number)? {
                        taken.sockets.add(socket)?;
                    }
                }
                Message::State(state) => state.apply(&self.live),
                Message::Table(part) => taken.sessions += self.incoming.put(&part, Duration::ZERO),
                Message::Complete => return Ok(()),
                _ => return Err(LinkError::Nonsense),
            }
        }
    }

    /// Learns of sessions what the old process still does, on a thread of its own. The connection, to answer on.
    fn follow(self) -> Result<Link, LinkError> {
        let Self { live, mut link, mut incoming } = self;
        let answers = link.another()?;
        let follow = move || {
            while let Ok(Message::Table(part)) = link.receive() {
                incoming.put(&part, Duration::ZERO);
            }
            live.sessions.set_shared(false);
            tracing::info!("the process before has no connection any more");
        };
        thread::Builder::new().name("successor".into()).spawn(follow)?;
        Ok(answers)
    }
}

fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether some process listens there, and goes on to. The sockets of one that is killed close one after the other:
/// the connection to it may be gone a moment before the one that it listens on.
fn is_there(path: &Path) -> bool {
    let end = Instant::now() + DYING;
    while matches!(connect(path), Ok(Some(_))) {
        if Instant::now() > end {
            return true;
        }
        thread::sleep(LOOK_AGAIN);
    }
    false
}

/// What it takes at most until everything of a killed process is gone.
const DYING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
