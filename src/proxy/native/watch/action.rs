//! What the hub and the engine say to each other.

use std::rc::Rc;

pub(super) use crate::proxy::native::identity::Identity;

/// A client's call of `Watch`, by the engine's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::proxy::native) struct ClientTag(pub u64);

/// A call of `Watch` to a member, by the hub's number for it. A number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::proxy::native) struct Upstream(pub u64);

/// A `Range` that the hub asked for, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::proxy::native) struct Question(pub u64);

/// Why a call cannot go on: gRPC's status, and a message for the client.
pub(in crate::proxy::native) type Refused = (u32, String);

/// How a call to a member has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy::native) enum End {
    /// The member is gone, or does not serve now: another one will do.
    Lost,
    /// Any other member would say the same.
    Status(u32, String),
}

/// What the engine must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy::native) enum Action {
    /// Send a `WatchResponse` to a client: this body, and the field `watch_id`
    /// (see [`put_watch_id`](crate::api::watch::put_watch_id)).
    Send { client: ClientTag, watch_id: i64, body: Rc<[u8]> },
    /// End a client's call. The hub has forgotten it.
    End { client: ClientTag, status: u32, message: String },
    /// No request of this client for a watcher waits any more.
    Settled { client: ClientTag },
    /// Begin a call of `Watch` at a member, as soon as there is one.
    Open { upstream: Upstream, identity: Identity },
    /// Send a `WatchRequest` in it.
    Forward { upstream: Upstream, message: Vec<u8> },
    /// Give it up.
    Close { upstream: Upstream },
    /// Ask a member for a linearizable `Range` of these keys, and give its answer to
    /// [`Hub::now_is`](super::Hub::now_is).
    ///
    /// With `checks_permission`, it must be a range that the identity may read only if it may read all of these keys.
    /// Otherwise, any key will do.
    AskNow { question: Question, identity: Identity, key: Vec<u8>, range_end: Vec<u8>, checks_permission: bool },
    /// The sidecar's token is not valid any more: get another one, then call [`Hub::renew`](super::Hub::renew).
    Renew { identity: Identity },
}
