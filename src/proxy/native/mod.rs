//! The native mode: calls, not bytes. Many clients share one connection to one member.
//!
//! - [`engine`]: carries the calls, in a thread of its own
//! - [`pilot`]: chooses the member, in the event loop that also probes
//! - [`login`]: gets tokens; [`translate`]: changes keys and lists of members; [`gateway`]: requests of HTTP/1.1
//! - [`call`], [`head`], [`peer`], [`handle`]: a call, the header blocks, a connection, the way to the engine

mod call;
mod engine;
pub(super) mod gateway;
mod handle;
mod head;
mod login;
mod peer;
mod pilot;
mod translate;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use engine::{Command, Engine, Notice, WAKER};
pub(super) use handle::Handle;
use translate::Rules;

use super::members::Members;
use crate::api::namespace::Namespace;
use crate::net::Dialer;
use crate::settings::{ListenAddr, Settings};

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
        let (notices, heard) = unbounded_channel();
        let thread = thread::Builder::new().name("calls".to_owned()).spawn(move || {
            if let Err(err) = Engine::new(poll, orders, notices, rules, logs_in).run() {
                log::error!("cannot wait for events: {err}");
                log::logger().flush();
                std::process::abort();
            }
        })?;
        Ok((Self { handle: Handle::new(commands, waker), thread: Some(thread) }, Notices(heard)))
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
