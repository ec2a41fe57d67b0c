//! Where lines go: a file, stdout, stderr.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

use crate::config::LogPath;

/// Why an access log is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("access log {}: {source}; {}", file.display(), help(file, source))]
    File { file: PathBuf, source: io::Error },
    #[error("access log on {name}: {source}; write a file's name to `access_log.path`, or `none`")]
    Stream { name: &'static str, source: io::Error },
    #[error("access log: no thread for its writer: {0}; allow the process more threads")]
    Thread(io::Error),
}

/// What is written to.
pub(super) enum Sink {
    File(File),
    /// homing's own log goes there too, so each write has the stream to itself.
    Stderr,
}

impl Sink {
    pub fn open(path: &LogPath) -> Result<Self, OpenError> {
        match path {
            LogPath::File(file) => {
                // A pipe that nobody reads must not hold the start; a regular file is not affected.
                let opened = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o640)
                    .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                    .open(file);
                opened.map(Self::File).map_err(|source| OpenError::File { file: file.clone(), source })
            }
            LogPath::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(|source| OpenError::Stream { name: "stdout", source })?;
                Ok(Self::File(stdout.into()))
            }
            LogPath::Stderr => Ok(Self::Stderr),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stderr => io::stderr().lock().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn help(file: &Path, error: &io::Error) -> String {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        io::ErrorKind::NotFound => format!("mkdir -p {}", folder.display()),
        io::ErrorKind::PermissionDenied => {
            format!("let homing's user write {} and files in {}", file.display(), folder.display())
        }
        io::ErrorKind::IsADirectory => "name a file in it".into(),
        _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            "start who reads this pipe first".into()
        }
        _ => "name another file in `access_log.path`, or `none`".into(),
    }
}
