//! The way to the engine, for everybody else.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use mio::Waker;
use tokio::sync::watch;

use super::engine::Command;
use super::peer::Socket;
use crate::proxy::listener::Client;

/// Tells the engine what to do.
#[derive(Clone)]
pub(in crate::proxy) struct Handle {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    /// The last token, for requests that the engine does not carry.
    token: Arc<watch::Sender<Option<String>>>,
}

impl Handle {
    pub(super) fn new(commands: Sender<Command>, waker: Arc<Waker>) -> Self {
        Self { commands, waker, token: Arc::default() }
    }

    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Serves a client of HTTP/2 that has sent these bytes. `permit` is dropped when it leaves.
    pub(in crate::proxy) fn serve(&self, client: Client, first: Vec<u8>, permit: Box<dyn Send>) {
        let socket = match client {
            Client::Tcp(stream) => stream.into_std().map(Socket::from),
            Client::Unix(stream) => stream.into_std().map(Socket::from),
        };
        if let Ok(socket) = socket {
            self.send(Command::Client { socket, first, permit });
        }
    }

    /// The last token, for requests that the engine does not carry; empty when the cluster wants none. Asks for one if
    /// there is none, or if it is `bad`.
    pub(in crate::proxy) async fn token(&self, bad: Option<&str>) -> Option<String> {
        let is_good = |token: &Option<String>| token.as_deref().is_some_and(|token| Some(token) != bad);
        let mut tokens = self.token.subscribe();
        if !is_good(&tokens.borrow()) {
            self.send(Command::NeedToken);
        }
        tokens.wait_for(is_good).await.ok()?.clone()
    }

    /// Remembers the last token.
    pub(super) fn remember_token(&self, token: Option<&str>) {
        self.token.send_replace(Some(token.unwrap_or_default().to_owned()));
    }

    /// Asks the clients to leave.
    pub(in crate::proxy) fn drain(&self) {
        self.send(Command::Drain);
    }
}
