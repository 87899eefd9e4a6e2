//! Where clients arrive: finds out what each connection is, and hands it to whoever serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;

use super::counted::Counted;
use super::handle::Handle;
use super::metrics::{self, Figures};
use super::relay::Relay;
use super::stats::{Stats, add};
use crate::net::Protocol;
use crate::os::log::Throttle;
use crate::proxy::admin::{self, Subject as _};
use crate::proxy::detect::Detection;
use crate::proxy::limit::Limit;
use crate::proxy::listener::{Client, Listener, Lobby, SPARE};
use crate::proxy::members::Members;
use crate::settings::ListenAddr;

/// What all connections share.
pub(super) struct Front {
    pub addr: ListenAddr,
    pub members: Arc<Members>,
    pub limit: Limit,
    /// Connections that have not sent enough to tell what they are.
    pub lobby: Lobby,
    /// Clients of the cluster now.
    pub clients: Arc<AtomicUsize>,
    /// Serves clients of HTTP/2.
    pub engine: Handle,
    /// Serves clients of HTTP/1.1.
    pub relay: Relay,
    pub stats: Arc<Stats>,
    pub warnings: Warnings,
}

/// One for each kind of warning, so that none hides another.
#[derive(Default)]
pub(super) struct Warnings {
    accept: Throttle,
    limit: Throttle,
    tls: Throttle,
}

impl Front {
    /// Accepts connections. Never ends.
    pub(super) async fn accept(self: Arc<Self>, listener: Listener) {
        let serve = |client| {
            let front = Arc::clone(&self);
            tokio::spawn(async move { front.serve(client).await });
        };
        listener.accept(&self.warnings.accept, serve).await;
    }

    async fn serve(&self, mut client: Client) {
        let Some((protocol, bytes)) = self.receive(&mut client).await else { return };
        let before = self.clients.load(Ordering::Relaxed);
        let counted = Counted::one(Arc::clone(&self.clients));
        if before >= self.limit.clients {
            add(&self.stats.refused.over_limit, 1);
            self.warnings.limit.warn(format_args!("a connection is refused: the proxy serves {}", self.limit));
            return;
        }
        match protocol {
            Protocol::Http2 => self.engine.serve(client, bytes, Box::new(counted)),
            Protocol::Http1 => self.relay.serve(client, bytes).await,
        }
    }

    /// Finds out what a connection is, and answers it unless it is for the cluster.
    async fn receive(&self, client: &mut Client) -> Option<(Protocol, Vec<u8>)> {
        let clients = self.clients.load(Ordering::Relaxed);
        let (mut guest, evicted) = self.lobby.enter(self.limit.clients.saturating_sub(clients) + SPARE);
        self.count_evicted(evicted);
        let work = async {
            let detected = timeout(admin::DETECTION_TIMEOUT, admin::detect(client)).await;
            let (detection, bytes) = detected.ok()??;
            match detection {
                Detection::Http2 => return Some((Protocol::Http2, bytes)),
                Detection::Http1 => return Some((Protocol::Http1, bytes)),
                Detection::Own(page) => admin::answer(client, page, admin::is_head(&bytes), self).await,
                Detection::Tls => {
                    add(&self.stats.refused.tls, 1);
                    let addr = &self.addr;
                    let text = format_args!("a client spoke TLS to {addr}, which is plain text: use http://");
                    self.warnings.tls.warn(text);
                }
                Detection::Garbage | Detection::NeedMore => {
                    add(&self.stats.refused.garbage, 1);
                }
            }
            None
        };
        guest.stay(work).await?
    }
}

impl admin::Subject for Front {
    fn health(&self) -> Result<String, String> {
        // With an alarm, reads work, so the application must not be ended for it.
        let alarm = |alarm: String| format!("alarm {alarm}");
        self.members.health().map(|()| self.members.alarms().into_iter().map(alarm).collect::<Vec<_>>().join(", "))
    }

    async fn metrics(&self) -> String {
        metrics::render(&Figures {
            clients: self.clients.load(Ordering::Relaxed),
            clients_limit: self.limit.clients,
            stats: &self.stats,
            members: &self.members,
            dialer: &self.relay.dialer,
        })
    }

    fn count_evicted(&self, count: u64) {
        add(&self.stats.refused.silent, count);
    }
}
