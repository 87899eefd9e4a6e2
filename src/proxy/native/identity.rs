//! Who acts.

use std::fmt;
use std::rc::Rc;

/// Whose calls these are: those of a token that the caller brought, or of everybody who brings none.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Identity(Option<Rc<[u8]>>);

impl Identity {
    /// The identity of a caller with this token.
    pub(super) fn of(token: Option<&[u8]>) -> Self {
        Self(token.map(Into::into))
    }

    /// The caller's own token.
    pub(super) fn token(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

/// A token is a secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a token" } else { "no token" })
    }
}
