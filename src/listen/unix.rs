//! Unix sockets that are never there with wider permissions than they are to have, replace what a killed process left
//! behind, and go with their listener.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::net::{UnixListener, UnixStream};

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
    #[error("unix:{0} cannot be bound: {1}")]
    Bind(PathBuf, #[source] io::Error),
    #[error("unix:{0}: another process answers there; stop it or use another path")]
    Taken(PathBuf),
    #[error("unix:{0}: there is a file of another kind; remove it or use another path")]
    NotASocket(PathBuf),
}

/// Binds beside `path` and moves the socket there. Needs a tokio runtime.
///
/// # Errors
/// The directory is not ours to write, another process answers, or there is a file of another kind.
pub async fn bind_unix(
    path: &Path,
    mode: u32,
    if_taken: IfTaken,
) -> Result<(UnixListener, SocketFile), UnixBindError> {
    let failed = |error| UnixBindError::Bind(path.to_owned(), error);
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
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
    Ok((listener, SocketFile { path: path.to_owned(), inode, is_left: AtomicBool::new(false) }))
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
