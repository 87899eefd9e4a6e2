//! The file system: safe writing, directories, the owner rule, locks and hashes.

pub(crate) mod atomic;
pub(crate) mod dirs;
mod error;
pub(crate) mod hash;
pub(crate) mod lock;
pub(crate) mod regular;
pub(crate) mod trust;
pub(crate) mod within;

pub(crate) use error::WriteError;
