//! Unix sockets that are never there with wider permissions than they are to have, replace what a killed process left
//! behind, and go with their listener.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use nix::unistd::Group;
use tokio::net::{UnixListener, UnixStream};

/// Who may use a socket, beside its owner.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a> {
    pub mode: u32,
    /// A group's name or number; `None`: the process's own.
    pub group: Option<&'a str>,
}

/// What to do where another process answers already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfTaken {
    Refuse,
    /// The other has handed over to us, and leaves our file alone.
    Replace,
}

/// A Unix socket that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum UnixBindError {
    #[error("unix:{0} cannot be bound: {1}; its directory has to exist, and to let homing's user write")]
    Bind(PathBuf, #[source] io::Error),
    #[error("unix:{0}: another process answers there; stop it or use another path")]
    Taken(PathBuf),
    #[error("unix:{0}: there is a file of another kind; remove it or use another path")]
    NotASocket(PathBuf),
    #[error("unix:{0}: there is no group `{1}` on this machine; create it, or name another")]
    UnknownGroup(PathBuf, String),
    #[error("unix:{0} cannot be given to group `{1}`: {2}; run homing as a member of it, or as root")]
    Group(PathBuf, String, #[source] io::Error),
}

/// Binds beside `path` and moves the socket there. Needs a tokio runtime.
///
/// # Errors
/// The directory is not ours to write, another process answers, or there is a file of another kind.
pub async fn bind_unix(
    path: &Path,
    users: Users<'_>,
    if_taken: IfTaken,
) -> Result<(UnixListener, SocketFile), UnixBindError> {
    let failed = |error| UnixBindError::Bind(path.to_owned(), error);
    let group = users.group.map(|group| Ok((group, gid(path, group)?))).transpose()?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(UnixBindError::NotASocket(path.to_owned()));
        }
        Ok(_) if if_taken == IfTaken::Refuse && UnixStream::connect(path).await.is_ok() => {
            return Err(UnixBindError::Taken(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let beside = PathBuf::from([path.as_os_str(), ".new".as_ref()].join("".as_ref()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(users.mode)).map_err(failed)?;
    if let Some((group, gid)) = group
        && let Err(error) = chown(&beside, None, Some(gid))
    {
        let _ = fs::remove_file(&beside);
        return Err(UnixBindError::Group(path.to_owned(), group.to_owned(), error));
    }
    fs::rename(&beside, path).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    Ok((listener, SocketFile { path: path.to_owned(), inode, is_left: AtomicBool::new(false) }))
}

/// The number of a group that is given by name or number.
fn gid(path: &Path, group: &str) -> Result<u32, UnixBindError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let (path, name) = (path.to_owned(), group.to_owned());
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(UnixBindError::UnknownGroup(path, name)),
        Err(errno) => Err(UnixBindError::Group(path, name, errno.into())),
    }
}

/// Removes the socket's file, unless another process has put its own there.
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    is_left: AtomicBool,
}

impl SocketFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another process is about to put its own file there, so this one is not removed.
    pub fn leave(&self) {
        self.is_left.store(true, Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_left.load(Relaxed) {
            return;
        }
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // A file that stays is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
