//! Standard output, with errors that name it.

use std::io::{self, StdoutLock, Write};

use super::log::without_errno;

/// Standard output cannot be written. It travels inside an [`io::Error`] of the same kind.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}: redirect it to somewhere else")]
struct StdoutError(String);

/// Whether the error is one of writing to [`Stdout`].
pub(crate) fn is_of_stdout(err: &io::Error) -> bool {
    err.get_ref().and_then(<dyn std::error::Error + Send + Sync>::downcast_ref::<StdoutError>).is_some()
}

/// Standard output.
pub(crate) struct Stdout(StdoutLock<'static>);

impl Stdout {
    pub(crate) fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

fn named(err: &io::Error) -> io::Error {
    io::Error::new(err.kind(), StdoutError(without_errno(err)))
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|err| named(&err))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|err| named(&err))
    }
}
