//! The way to the engine, for everybody else.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use mio::{Poll, Waker};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use super::engine::{self, Command, Notice, Rules, Socket, WAKER};
use super::stats::Stats;
use crate::proxy::listener::Client;

/// Tells the engine what to do.
#[derive(Clone)]
pub(super) struct Handle {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    /// The last token, for requests that the engine does not carry.
    token: Arc<watch::Sender<Option<String>>>,
}

/// A running engine. Dropping it ends the engine, with all its connections.
pub(super) struct Running {
    pub handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the engine. Returns what it says, too: somebody must act on that.
    ///
    /// # Errors
    /// When the system has no thread or no file for it.
    pub(super) fn start(
        rules: Rules,
        logs_in: bool,
        stats: Arc<Stats>,
    ) -> io::Result<(Self, UnboundedReceiver<Notice>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (commands, orders) = mpsc::channel();
        let (notices, heard) = unbounded_channel();
        let thread = engine::start(poll, orders, notices, rules, logs_in, stats)?;
        let handle = Handle { commands, waker, token: Arc::default() };
        Ok((Self { handle, thread: Some(thread) }, heard))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Handle {
    pub(super) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Serves a client of HTTP/2 that has sent these bytes. `permit` is dropped when it leaves.
    pub(super) fn serve(&self, client: Client, first: Vec<u8>, permit: Box<dyn Send>) {
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
    pub(super) async fn token(&self, bad: Option<&str>) -> Option<String> {
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
    pub(super) fn drain(&self) {
        self.send(Command::Drain);
    }
}
