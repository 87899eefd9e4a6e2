//! The native mode: calls, not bytes. Many clients share one connection to one member.
//!
//! - [`engine`]: carries the calls, in a thread of its own
//! - [`pilot`]: chooses the member, in the event loop that also probes
//! - [`call`], [`head`], [`peer`]: a call, the header blocks, a connection

mod call;
mod engine;
pub(super) mod gateway;
mod head;
mod login;
mod peer;
mod pilot;
mod translate;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use engine::{Command, Engine, Notice, WAKER};
use peer::Socket;
use translate::Rules;

use super::listener::Client;
use super::members::Members;
use crate::api::namespace::Namespace;
use crate::net::Dialer;
use crate::settings::{ListenAddr, Settings};

/// Tells the engine what to do.
#[derive(Clone)]
pub(super) struct Handle {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    /// The last token, for requests that the engine does not carry.
    token: Arc<watch::Sender<Option<String>>>,
}

impl Handle {
    fn send(&self, command: Command) {
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

    /// Asks the clients to leave.
    pub(super) fn drain(&self) {
        self.send(Command::Drain);
    }
}

/// A running engine.
pub(super) struct Native {
    pub(super) handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Native {
    /// Starts the engine. [`pilot`] must be run with what this returns.
    pub(super) fn start(settings: &Settings) -> io::Result<(Self, Notices)> {
        let rules = Rules {
            namespace: settings.namespace.as_deref().map(Namespace::new),
            is_admin: settings.namespace_admin,
            member_url: (!settings.keeps_member_urls).then(|| client_url(&settings.listen_addr)),
        };
        let logs_in = settings.login.is_some();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (commands, orders) = mpsc::channel();
        let (notices, noticed) = unbounded_channel();
        let thread = thread::Builder::new().name("calls".to_owned()).spawn(move || {
            if let Err(err) = Engine::new(poll, orders, notices, rules, logs_in).run() {
                log::error!("cannot wait for events: {err}");
                std::process::abort();
            }
        })?;
        Ok((Self { handle: Handle { commands, waker, token: Arc::default() }, thread: Some(thread) }, Notices(noticed)))
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the engine says.
pub(super) struct Notices(UnboundedReceiver<Notice>);

/// Keeps the engine connected to a member, and logged in. Never ends.
pub(super) async fn steer(
    members: Arc<Members>,
    dialer: Arc<Dialer>,
    engine: Handle,
    notices: Notices,
    settings: Settings,
) {
    pilot::run(members, dialer, engine, notices.0, &settings).await;
}

/// The proxy's own address, as a client URL of a member.
fn client_url(addr: &ListenAddr) -> String {
    match addr {
        ListenAddr::Tcp(addr) => format!("http://{addr}"),
        ListenAddr::Unix(path) => format!("unix://{}", path.display()),
    }
}
