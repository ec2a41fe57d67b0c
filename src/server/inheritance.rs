//! What an earlier process left to this one: sessions in a file, or everything, because it serves still.

use super::{
    keys::Keys,
    session_file::SessionFile,
    upgrade::{Predecessor, TakeOverError},
};
use crate::{clock::Clock, config::Config, snapshot::BuildError};

/// To be found before an instance is built, for the keys that it is built with.
pub struct Inheritance {
    pub(super) keys: Keys,
    pub(super) legacy: Legacy,
}

pub(super) enum Legacy {
    Nothing,
    File(SessionFile),
    Process(Predecessor),
}

/// Why a process does not know what it inherits.
#[derive(Debug, thiserror::Error)]
pub enum InheritanceError {
    #[error(
        "--upgrade needs `upgrade_sock` in the configuration, and in that of the running process; add it, or leave --upgrade out"
    )]
    NoSocket,
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error(transparent)]
    Keys(#[from] BuildError),
}

impl Inheritance {
    /// A process that serves at `upgrade_sock`, else `session_snapshot`, else nothing. `is_upgrade`: somebody says
    /// that there is such a process.
    ///
    /// # Errors
    /// There is one, and it does not let us take over.
    pub fn find(config: &Config, is_upgrade: bool) -> Result<Self, InheritanceError> {
        if is_upgrade && config.upgrade_sock.is_none() {
            return Err(InheritanceError::NoSocket);
        }
        if let Some(path) = &config.upgrade_sock {
            if let Some((predecessor, keys)) = Predecessor::find(path)? {
                return Ok(Self { keys, legacy: Legacy::Process(predecessor) });
            }
            if is_upgrade {
                tracing::warn!("no process listens on upgrade_sock {}; starting afresh", path.display());
            }
        }
        let file = config.session_snapshot.as_deref();
        match file.and_then(|path| SessionFile::read(path, &Clock::system())) {
            Some(file) => Ok(Self { keys: file.keys.clone(), legacy: Legacy::File(file) }),
            None => Ok(Self::none()?),
        }
    }

    pub(super) fn none() -> Result<Self, BuildError> {
        Ok(Self { keys: Keys::random()?, legacy: Legacy::Nothing })
    }
}
