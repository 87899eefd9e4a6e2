//! Logging in: the messages of `Authenticate`, and what etcd says about tokens.

use super::wire::{Value, fields, put};

/// The path of `Authenticate`.
pub(crate) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// The message that asks for a token.
pub(crate) fn request(name: &str, password: &str) -> Vec<u8> {
    let mut message = Vec::new();
    put(1, [name.as_bytes(), b""], &mut message);
    put(2, [password.as_bytes(), b""], &mut message);
    message
}

/// The token in the answer, for the metadata `token`. `None` when the answer has none, or one that metadata cannot
/// carry.
pub(crate) fn token(answer: &[u8]) -> Option<&str> {
    let mut token = None;
    for field in fields(answer) {
        let field = field.ok()?;
        if field.number == 2 {
            token = Some(field.value);
        }
    }
    let Some(Value::Bytes(token)) = token else { return None };
    let token = str::from_utf8(token).ok()?;
    (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then_some(token)
}

/// Why a cluster with authentication refused a call. The call was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token has expired, its user or password has changed, or the member has restarted.
    InvalidToken,
    /// Users, roles or passwords have changed since the token was given.
    OldRevision,
    /// The call has no token.
    NoUser,
    /// The password is wrong, or no such user exists.
    LoginFailed,
    /// The user may not do that.
    PermissionDenied,
    /// Authentication is off: there are no tokens.
    NotEnabled,
}

impl Refusal {
    /// Recognises a refusal by `grpc-status` and `grpc-message`, which are those of etcd's package `rpctypes`.
    pub(crate) fn recognise(status: u32, message: &str) -> Option<Self> {
        Some(match (status, message) {
            (16, "etcdserver: invalid auth token") => Self::InvalidToken,
            (3, "etcdserver: revision of auth store is old") => Self::OldRevision,
            (3, "etcdserver: user name is empty") => Self::NoUser,
            (3, "etcdserver: authentication failed, invalid user ID or password") => Self::LoginFailed,
            (7, "etcdserver: permission denied") => Self::PermissionDenied,
            (9, "etcdserver: authentication is not enabled") => Self::NotEnabled,
            _ => return None,
        })
    }

    /// Whether a new token may help: who can log in does so, and repeats the call once. Any call may be repeated,
    /// because etcd refuses it before it does anything.
    ///
    /// [`Self::NoUser`] is one of these: etcd may have lost the token, or authentication is on only since a moment ago.
    pub(crate) fn asks_for_a_new_token(self) -> bool {
        matches!(self, Self::InvalidToken | Self::OldRevision | Self::NoUser)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_messages_of_a_login() {
        assert_eq!(request("app", "pw"), b"\x0a\x03app\x12\x02pw");
        assert_eq!(token(b"\x0a\x02\x08\x05\x12\x03a.7"), Some("a.7"));
        for none in [&b""[..], b"\x12\0", b"\x12\x03a\nb", b"\x12\x02\xff\xff", b"\x10\x01", b"\x12\x01a\x12"] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_asks_for_a_new_token() {
        let new_token = |status, message: &str| Refusal::recognise(status, message).map(Refusal::asks_for_a_new_token);
        assert_eq!(new_token(16, "etcdserver: invalid auth token"), Some(true));
        assert_eq!(new_token(3, "etcdserver: revision of auth store is old"), Some(true));
        assert_eq!(new_token(3, "etcdserver: user name is empty"), Some(true));
        assert_eq!(new_token(7, "etcdserver: permission denied"), Some(false));
        assert_eq!(new_token(9, "etcdserver: authentication is not enabled"), Some(false));
        assert_eq!(new_token(14, "etcdserver: invalid auth token"), None);
        assert_eq!(new_token(14, "etcdserver: leader changed"), None);
    }

    proptest! {
        #[test]
        fn no_answer_causes_a_panic(answer: Vec<u8>) {
            let _ = token(&answer);
        }
    }
}
