//! What others tell the engine, and what it tells them.

use std::sync::Arc;

use mio::Token;
use rustls::ClientConnection;
use tokio::sync::oneshot;

use super::wire::Socket;
use crate::proxy::members::Member;

/// The token of the waker.
pub(in crate::proxy::native) const WAKER: Token = Token(usize::MAX);

/// What others tell the engine.
pub(in crate::proxy::native) enum Command {
    /// A client has connected, and has sent these bytes.
    Client { socket: Socket, first: Vec<u8>, permit: Box<dyn Send> },
    /// New calls go to this member. The connection is the pilot's `number`.
    Use(Box<Link>),
    /// The member of this connection has a leader.
    HasLeader(u64),
    /// The member of this connection hangs, or is gone.
    Cut(u64),
    /// The token for calls without one; `None` when the cluster wants none, or why nobody can log in.
    Token(Result<Option<String>, String>),
    /// Somebody needs a token for a request that the engine does not carry.
    NeedToken,
    /// Clients shall finish what they have begun, and open no new calls.
    Drain,
    /// The end.
    Stop,
}

/// A connection to a member.
pub(in crate::proxy::native) struct Link {
    pub number: u64,
    pub member: Arc<Member>,
    pub socket: Socket,
    pub tls: Option<ClientConnection>,
    /// The member's name in each call.
    pub authority: String,
    /// Whether it has a leader, as far as we know. If not, [`Command::HasLeader`] follows.
    pub has_leader: bool,
    /// Dropped with the connection.
    pub alive: oneshot::Sender<()>,
}

/// What the engine tells the pilot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy::native) enum Notice {
    /// This connection is gone, or goes.
    Lost(u64),
    /// This connection takes no more calls as long as it has so many.
    Full(u64),
    /// The token is missing, or no longer valid.
    NeedsToken,
}
