//! Where the admin API listens, and the bounds that keep a flood of connections from costing more than it may.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tokio_util::{either::Either, sync::CancellationToken};

use super::{
    access::Reach,
    seats::{Seat, Seats},
    write::Peer,
};
use crate::{
    clock::Episode,
    config::{Admin, AdminListen},
    limits,
    listen::{self, IfTaken, SocketFile, UnixBindError, Users, bind_unix},
};

/// A bound listener. A Unix socket has mode 0660, and its file goes with the listener.
pub struct AdminListener {
    socket: Socket,
}

/// A listener that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("admin.listen {0}")]
    Tcp(#[from] listen::BindError),
    #[error("admin.listen {0}")]
    Unix(#[from] UnixBindError),
}

enum Socket {
    Tcp(Arc<TcpListener>),
    Unix(UnixListener, Arc<SocketFile>),
}

/// A listener that is being served.
pub enum Handle {
    Tcp(Weak<TcpListener>),
    Unix(Weak<SocketFile>),
}

impl Handle {
    /// The TCP socket, for another process to accept from too.
    pub fn socket(&self) -> Option<Arc<TcpListener>> {
        match self {
            Self::Tcp(listener) => listener.upgrade(),
            Self::Unix(_) => None,
        }
    }

    /// The other process puts a Unix socket of its own in the place of this one.
    pub fn leave(&self) {
        if let Self::Unix(file) = self
            && let Some(file) = file.upgrade()
        {
            file.leave();
        }
    }
}

impl AdminListener {
    /// Binds what the configuration says; `None` where it says `none`. Needs a tokio runtime.
    pub async fn bind(admin: &Admin) -> Result<Option<Self>, BindError> {
        let socket = match &admin.listen {
            AdminListen::None => return Ok(None),
            AdminListen::Tcp(addr) => {
                return Self::adopt(listen::bind(*addr)?, *addr).map(Some);
            }
            AdminListen::Unix(path) => {
                let users = Users { mode: SOCKET_MODE, group: admin.socket_group.as_deref() };
                let (listener, file) = bind_unix(path, users, IfTaken::Refuse).await?;
                Socket::Unix(listener, Arc::new(file))
            }
        };
        Ok(Some(Self { socket }))
    }

    /// Serves on a socket that another process listened on.
    pub fn adopt(socket: std::net::TcpListener, addr: SocketAddr) -> Result<Self, BindError> {
        let failed = |source: io::Error| listen::BindError::Other { addr, source };
        let listener = TcpListener::from_std(socket).map_err(failed)?;
        Ok(Self { socket: Socket::Tcp(Arc::new(listener)) })
    }

    /// Puts a Unix socket in the place of the one of a process that has handed over.
    pub async fn replace(path: &Path, group: Option<&str>) -> Result<Self, BindError> {
        let users = Users { mode: SOCKET_MODE, group };
        let (listener, file) = bind_unix(path, users, IfTaken::Replace).await?;
        Ok(Self { socket: Socket::Unix(listener, Arc::new(file)) })
    }

    /// For handing it over to another process while it listens.
    pub fn handle(&self) -> Handle {
        match &self.socket {
            Socket::Tcp(listener) => Handle::Tcp(Arc::downgrade(listener)),
            Socket::Unix(_, file) => Handle::Unix(Arc::downgrade(file)),
        }
    }

    /// What `--admin` takes to reach it.
    pub fn url(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => format!("http://{addr}"),
                Err(error) => format!("http://({error})"),
            },
            Socket::Unix(_, file) => format!("unix:{}", file.path().display()),
        }
    }

    pub(super) fn reach(&self) -> Reach {
        match &self.socket {
            Socket::Tcp(listener) if listener.local_addr().is_ok_and(|addr| addr.ip().is_loopback()) => {
                Reach::Loopback
            }
            Socket::Tcp(_) => Reach::Elsewhere,
            Socket::Unix(..) => Reach::File,
        }
    }

    /// Accepts until `shutdown`, then lets answers that are under way end.
    pub(super) async fn serve(self, router: Router, shutdown: CancellationToken) {
        let seats = Seats::new();
        tokio::select! {
            () = self.accept(&router, &seats, &shutdown) => {}
            () = shutdown.cancelled() => {}
        }
        drop(self);
        seats.all_free().await;
    }

    async fn accept(&self, router: &Router, seats: &Seats, shutdown: &CancellationToken) {
        let failing = Episode::default();
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => {
                    listener.accept().await.map(|(stream, addr)| (Either::Left(stream), Peer::tcp(addr)))
                }
                Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                    let peer = Peer::user(stream.peer_cred().ok().map(|process| process.uid()));
                    (Either::Right(stream), peer)
                }),
            };
            match accepted {
                Ok((stream, peer)) => {
                    if failing.is_over(Instant::now()) {
                        tracing::info!("admin: connections can be accepted again");
                    }
                    let seat = seats.take().await;
                    tokio::spawn(connection(stream, peer, router.clone(), seat, shutdown.clone()));
                }
                Err(error) => {
                    if failing.seen(Instant::now()) {
                        let help = limits::shortage(&error).unwrap_or("the system says no more than this");
                        tracing::warn!(%error, "admin: cannot accept connections, and goes on trying; {help}");
                    }
                    sleep(AFTER_FAILED_ACCEPT).await;
                }
            }
        }
    }
}

/// Serves one connection. Its end is bounded: a reader that stalls gives its seat back.
async fn connection(
    stream: Either<TcpStream, UnixStream>,
    peer: Peer,
    router: Router,
    seat: Arc<Seat>,
    shutdown: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let (busy, answer) = (seat.begin_request(), router.call(request));
        async move {
            let _busy = busy;
            answer.await
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = seat.wanted() => return,
        () = async { tokio::select! { () = shutdown.cancelled() => {}, () = sleep(CONNECTION_LIFE) => {} } } => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin: connection ended early");
    }
}

const MAX_HEAD_BYTES: usize = 16 * 1024;
/// From one answer, or the connection's start, to the end of the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After this a connection ends with the answer that is under way.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
const LAST_ANSWER: Duration = Duration::from_secs(2);
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);
const SOCKET_MODE: u32 = 0o660;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use nix::unistd::Group;

    use super::*;

    async fn bind(path: &Path) -> Result<AdminListener, BindError> {
        bind_for(path, None).await
    }

    async fn bind_for(path: &Path, group: Option<&str>) -> Result<AdminListener, BindError> {
        let socket_group = group.map(str::to_owned);
        let admin = Admin { socket_group, ..listening(AdminListen::Unix(path.to_owned())) };
        Ok(AdminListener::bind(&admin).await?.expect("a path is not none"))
    }

    fn listening(listen: AdminListen) -> Admin {
        Admin { listen, ..Admin::default() }
    }

    #[tokio::test]
    async fn a_unix_socket_belongs_to_the_group_that_is_named_if_there_is_such_a_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let own = fs::metadata(dir.path()).expect("it is there").gid();
        let name = Group::from_gid(own.into()).expect("groups can be asked").expect("it has a name").name;
        for group in [own.to_string(), name] {
            let listener = bind_for(&path, Some(&group)).await.expect("it binds");
            assert_eq!(fs::metadata(&path).expect("the socket's file").gid(), own, "{group}");
            drop(listener);
        }
        let refused = bind_for(&path, Some("no such group")).await.map(|_| ()).expect_err("it is not there");
        assert!(refused.to_string().contains("there is no group `no such group`"), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_unix_socket_has_mode_0660_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let listener = bind(&path).await.expect("it binds");
        assert_eq!(listener.url(), format!("unix:{}", path.display()));
        let mode = fs::metadata(&path).expect("the socket's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        UnixStream::connect(&path).await.expect("it accepts");
        drop(listener);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let first = bind(&path).await.expect("what nobody answers on is replaced");
        let second = bind(&path).await;
        assert!(matches!(second, Err(BindError::Unix(UnixBindError::Taken(_)))));
        drop(first);
        fs::write(&path, "precious").expect("written");
        assert!(matches!(bind(&path).await, Err(BindError::Unix(UnixBindError::NotASocket(_)))));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[tokio::test]
    async fn a_listener_leaves_its_successors_file_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let old = bind(&path).await.expect("it binds");
        fs::remove_file(&path).expect("removed");
        let new = bind(&path).await.expect("it binds");
        drop(old);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(new);
    }

    #[tokio::test]
    async fn none_binds_nothing_and_a_taken_port_is_named() {
        assert!(AdminListener::bind(&listening(AdminListen::None)).await.is_ok_and(|bound| bound.is_none()));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = taken.local_addr().expect("its address");
        let error = AdminListener::bind(&listening(AdminListen::Tcp(addr)))
            .await
            .map(|_| ())
            .expect_err("it is taken");
        assert!(
            error.to_string().starts_with(&format!("admin.listen {addr}: another program listens")),
            "{error}"
        );
    }
}
