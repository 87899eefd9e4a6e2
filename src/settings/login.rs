//! Who calls act as, and which member serves them, in the mode that sees calls.

use std::fmt;

/// A user of etcd.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub username: String,
    /// Never shown.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Which member serves calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// The one that leads.
    #[default]
    Leader,
    /// A random healthy one.
    Spread,
    /// The one that answers fastest.
    Nearest,
}
