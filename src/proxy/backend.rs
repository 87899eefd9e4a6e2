//! A backend, which forwards the application's connections, as its supervisor sees it.

use std::io;
use std::time::Duration;

use super::claim::ListenError;
use crate::os::process::ExecError;

/// Forwards the application's connections, and needs a supervisor. Dropping it ends it.
pub(crate) trait Backend {
    /// Keeps it running. Call it again when a child has ended, and after the returned time at the latest.
    ///
    /// # Errors
    /// When a setting ended it, so that another start would end the same way.
    fn tend(&mut self) -> Result<Duration, Error>;

    /// Whether the service manager may be told that it is ready.
    fn is_ready(&self) -> bool;

    /// The number of connected clients; `None` where the system does not show it.
    fn clients(&self) -> Option<usize>;

    /// Asks its clients to leave, if the protocol can say that.
    fn drain(&mut self) {}

    /// Reads its certificates again. Returns false when it has no use for that: SIGHUP then ends it.
    fn reload(&mut self) -> bool;
}

/// Why the backend cannot run, so that restarting it would not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("etcd does not start ({how}): {last_words}: change the setting, or the flags after --")]
    Refused { how: String, last_words: String },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("cannot wait for etcd: {0}")]
    Wait(#[from] io::Error),
}
