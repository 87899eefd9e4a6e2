//! The listening side: how many clients fit, and how they are accepted.

use std::fmt;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};

use crate::os::log::{Throttle, without_errno};
use crate::settings::ListenAddr;

/// More than an application needs, and little enough for a small sidecar.
const MAX_CLIENTS: usize = 4096;

/// Files that are open besides connections.
const OTHER_FILES: u64 = 64;

/// The pause after a failed accept doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Opens the port, for use in an event loop.
pub(super) fn listen(addr: &ListenAddr) -> io::Result<StdTcpListener> {
    let listener = StdTcpListener::bind(addr.to_string())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections forever and passes each to `serve`.
pub(super) async fn accept(listener: TcpListener, warnings: &Throttle, serve: impl Fn(TcpStream)) {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                pause = FIRST_PAUSE;
                serve(client);
            }
            Err(err) => {
                // Out of files or memory: open connections go on, and their ends give some back.
                warnings.warn(format_args!("cannot accept a connection: {}", without_errno(&err)));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// How many clients are served at once.
pub(super) struct Limit {
    pub clients: usize,
    /// `ulimit -n`, if it is what limits the clients.
    files: Option<u64>,
}

impl Limit {
    /// As many clients as there are files for, two per client. Raises the soft limit of files first.
    pub(super) fn of_this_process() -> Self {
        let (mut soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let wanted = (2 * MAX_CLIENTS as u64 + OTHER_FILES).min(hard);
        if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            soft = wanted;
        }
        Self::with_files(soft)
    }

    fn with_files(files: u64) -> Self {
        let enough_for = usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(MAX_CLIENTS);
        let clients = enough_for.clamp(1, MAX_CLIENTS);
        Self { clients, files: (enough_for < MAX_CLIENTS).then_some(files) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clients = self.clients;
        match self.files {
            Some(files) => {
                write!(f, "at most {clients} at once, because ulimit -n is {files}: raise it, or open fewer")
            }
            None => write!(f, "at most {clients} at once: open fewer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_limit_that_applies() {
        for (files, clients, words) in [
            (0, 1, "at most 1 at once, because ulimit -n is 0: raise it, or open fewer"),
            (64, 1, "at most 1 at once, because ulimit -n is 64: raise it, or open fewer"),
            (128, 32, "at most 32 at once, because ulimit -n is 128: raise it, or open fewer"),
            (8255, 4095, "at most 4095 at once, because ulimit -n is 8255: raise it, or open fewer"),
            (8256, 4096, "at most 4096 at once: open fewer"),
            (u64::MAX, 4096, "at most 4096 at once: open fewer"),
        ] {
            let limit = Limit::with_files(files);
            assert_eq!((limit.clients, limit.to_string().as_str()), (clients, words));
        }
    }
}
