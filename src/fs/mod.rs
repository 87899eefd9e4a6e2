//! The file system: writing so that nobody sees half a file, whom to trust, and locks.

pub(crate) mod atomic;
pub(crate) mod dirs;
mod error;
pub(crate) mod hash;
pub(crate) mod lock;
pub(crate) mod trust;

pub(crate) use error::WriteError;
