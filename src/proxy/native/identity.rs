//! Who acts.

use std::fmt;
use std::rc::Rc;

/// Whose calls these are. Calls of different identities share nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// A caller without a token: the sidecar's user, or nobody.
    Sidecar,
    /// A caller with this token.
    Own(Rc<[u8]>),
}

impl Identity {
    /// The identity of a caller with this token.
    pub(super) fn of(token: Option<&[u8]>) -> Self {
        token.map_or(Self::Sidecar, |token| Self::Own(token.into()))
    }

    /// The caller's own token.
    pub(super) fn token(&self) -> Option<&[u8]> {
        match self {
            Self::Sidecar => None,
            Self::Own(token) => Some(token),
        }
    }
}

/// A token is a secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sidecar => "Sidecar",
            Self::Own(_) => "Own",
        })
    }
}
