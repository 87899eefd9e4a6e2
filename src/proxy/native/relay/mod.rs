//! Clients that speak HTTP/1.1: their bytes go to a member as they are, on a connection of their own.

mod copy;
mod token;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::counted::Counted;
use super::handle::Handle;
use crate::net::{Dialer, Protocol, Stream};
use crate::proxy::listener::Client;
use crate::proxy::members::{Counters, Member, Members};
use crate::proxy::{admin, reach};
use crate::settings::Prefer;
use token::{Head, refuses_token, with_token};

/// The time to try members until one can be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a client waits for the members to have a leader, and how often to look whether they have.
const LEADER_TIMEOUT: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_millis(20);

/// What all clients share.
pub(super) struct Relay {
    pub members: Arc<Members>,
    pub prefer: Prefer,
    pub dialer: Arc<Dialer>,
    pub has_namespace: bool,
    /// Knows a token for requests without one; `None` when the proxy does not log in.
    pub tokens: Option<Handle>,
}

impl Relay {
    /// Serves a client that has sent these bytes.
    pub(super) async fn serve(&self, client: Client, bytes: Vec<u8>) {
        if self.has_namespace {
            let why = "etcd's JSON gateway would reach beyond the namespace: use gRPC\n";
            return admin::refuse(client, "403 Forbidden", why).await;
        }
        if let Some(tokens) = &self.tokens {
            let _ = Box::pin(self.serve_logged_in(client, bytes, tokens)).await;
            return;
        }
        // Boxed, so that its 2.7 kB are free again while the connection lives.
        let connected = timeout(CONNECT_TIMEOUT, Box::pin(self.connect())).await;
        if let Ok(Some((member, stream))) = connected {
            relay(client, &bytes, &member, stream).await;
        }
    }

    /// Forwards a request of HTTP/1.1 with our token, if it brings none. If the member refuses an old token, the request is
    /// sent again with a new one.
    async fn serve_logged_in(&self, mut client: Client, mut bytes: Vec<u8>, tokens: &Handle) -> Option<()> {
        let mut refused: Option<String> = None;
        loop {
            let token = timeout(CONNECT_TIMEOUT, tokens.token(refused.as_deref())).await.ok()??;
            let (request, can_repeat) = loop {
                match with_token(&bytes, &token) {
                    _ if token.is_empty() => break (bytes.clone(), false),
                    Head::Changed { bytes, is_complete } => break (bytes, is_complete && refused.is_none()),
                    Head::Unchanged => break (bytes.clone(), false),
                    Head::Incomplete if client.read_buf(&mut bytes).await.ok()? == 0 => return None,
                    Head::Incomplete => {}
                }
            };
            let (member, mut stream) = timeout(CONNECT_TIMEOUT, self.connect()).await.ok()??;
            if !can_repeat {
                relay(client, &request, &member, stream).await;
                return None;
            }
            stream.write_all(&request).await.ok()?;
            stream.flush().await.ok()?;
            let (mut cut, mut answer) = (member.cut(), Vec::new());
            while answer.len() < token::STATUS_LINE {
                tokio::select! {
                    read = stream.read_buf(&mut answer) => if read.ok()? == 0 { break },
                    _ = cut.changed() => return None,
                }
            }
            if refuses_token(&answer) {
                refused = Some(token);
                continue;
            }
            client.write_all(&answer).await.ok()?;
            relay(client, b"", &member, stream).await;
            return None;
        }
    }

    /// Connects to the first member, in their order, that can be reached, and waits until it has a leader.
    async fn connect(&self) -> Option<(Arc<Member>, Box<dyn Stream>)> {
        self.dialer.refresh().await;
        let mut changed = self.members.changed();
        // No name has been resolved yet.
        while self.members.list().is_empty() {
            changed.changed().await.ok()?;
        }
        let order = self.members.order(self.prefer);
        let (member, connected) = reach::first_of(order, Protocol::Http1, &self.members, &self.dialer).await?;
        let _ = timeout(LEADER_TIMEOUT, self.find_leader(&member)).await;
        Some((member, connected.into_stream()))
    }

    /// A member whose leader has just died would take what is to be written, lose it, and not answer. So the client waits
    /// until the member has answered a linearizable read, which needs a leader.
    async fn find_leader(&self, member: &Member) {
        let began = Instant::now();
        let is_lost = |other: &Arc<Member>| other.is_leader() && !other.is_usable();
        while self.members.list().iter().any(is_lost) && !member.has_passed_since(began) {
            member.wake.notify_one();
            sleep(SOON).await;
        }
    }
}

/// Forwards a connection until either side ends it, or it is cut in favour of another member.
async fn relay(client: Client, first: &[u8], member: &Member, mut stream: Box<dyn Stream>) {
    let mut cut = member.cut();
    let _counted = Counted::one(&member.open);
    let counters = &member.counters;
    counters.connections.fetch_add(1, Ordering::Relaxed);
    if stream.write_all(first).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    counters.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
    // The halves of a socket need no lock.
    let both = async {
        match client {
            Client::Tcp(mut client) => forward(client.split(), stream, counters).await,
            Client::Unix(mut client) => forward(client.split(), stream, counters).await,
        }
    };
    tokio::select! {
        // An error here reaches both ends as a closed connection.
        _ = both => {}
        _ = cut.changed() => {}
    }
}

/// Forwards in both directions, until both have ended or one has failed, or one has ended and the other is silent.
async fn forward(
    (mut from_client, mut to_client): (impl copy::Source, impl AsyncWrite + Unpin),
    stream: Box<dyn Stream>,
    counters: &Counters,
) -> io::Result<()> {
    let (mut from_member, mut to_member) = tokio::io::split(stream);
    let (client, member) = ((&mut from_client, &mut to_client), (&mut from_member, &mut to_member));
    copy::copy_both(client, member, [&counters.sent, &counters.received]).await
}
