//! The loop: waits for something to happen, and sees that everybody gets their turn.

use std::io;
use std::time::{Duration, Instant};

use etcdproxy_http2::Connection;
use mio::Events;
use slotmap::KeyData;

use super::call::PeerKey;
use super::command::{Command, Link, Notice, WAKER};
use super::memory::HELD;
use super::queue::TICK;
use super::state::{Engine, Peer, Side, Upstream};
use super::wire::Wire;

/// How many streams a client may have at the same time.
const STREAMS: u32 = 4096;
const EVENTS: usize = 256;
/// How often to give back what idle connections do not need.
const SWEEP: Duration = Duration::from_secs(1);

impl Engine {
    /// Carries calls until it is told to stop.
    ///
    /// # Errors
    /// When the system cannot wait for events.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.has_stopped {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(err) if err.kind() != io::ErrorKind::Interrupted => return Err(err),
                _ => {}
            }
            self.now = Instant::now();
            let mut again = std::mem::take(&mut self.ready);
            for event in &events {
                if event.token() == WAKER {
                    self.obey();
                    continue;
                }
                let key = PeerKey::from(KeyData::from_ffi(event.token().0 as u64));
                if event.is_writable() {
                    self.mark(key);
                }
                if event.is_readable() || event.is_error() {
                    // An end may have come together with the last bytes, and does not announce itself again.
                    again.push((key, event.is_read_closed() || event.is_error()));
                }
            }
            for (key, until_end) in again {
                self.read(key, until_end);
                self.count_peer(key);
                if self.held > HELD {
                    // Hundreds of clients can send a quarter of a megabyte each in a turn.
                    self.send();
                    self.shed();
                }
            }
            self.serve_shared();
            self.serve_waiting();
            self.expire();
            self.send();
            self.shed();
            self.sweep();
            self.publish();
        }
        Ok(())
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        [self.own_timeout(), self.shared_timeout()].into_iter().flatten().min()
    }

    fn own_timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.dirty.is_empty() || self.may_go {
            Some(Duration::ZERO)
        } else if !self.waiting.is_empty() || !self.timed.is_empty() {
            Some(TICK)
        } else {
            self.is_warm.then_some(SWEEP)
        }
    }

    pub(super) fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Client { socket, first, permit } => {
                    let wire = Wire::new(socket, None, Connection::server(STREAMS));
                    let Some(key) = self.add(wire, Side::Client { _permit: permit, watches: Vec::new(), unsettled: 0 })
                    else {
                        continue;
                    };
                    self.take(key, &first);
                    self.read(key, false);
                }
                Command::Use(link) => self.use_link(*link),
                Command::Cut(number) => {
                    if let Some(key) = self.upstream(number) {
                        self.remove(key, "etcdproxy: the member does not answer");
                    }
                }
                Command::HasLeader(number) => {
                    let key = self.upstream(number);
                    if let Some(Side::Member(upstream)) = key.map(|key| &mut self.peers[key].side) {
                        upstream.has_leader = true;
                        self.may_go = true;
                    }
                }
                Command::Token(token) => self.take_token(token),
                Command::NeedToken => self.ask_for_token(),
                Command::Drain => {
                    let clients: Vec<_> = self.clients().collect();
                    for key in clients {
                        self.with(key, Connection::drain);
                        self.finish_if_drained(key);
                    }
                }
                Command::Stop => self.has_stopped = true,
            }
        }
    }

    /// The pilot's connection with this number.
    fn upstream(&self, number: u64) -> Option<PeerKey> {
        let of_number = |peer: &Peer| matches!(&peer.side, Side::Member(up) if up.number == number);
        self.peers.iter().find(|(_, peer)| of_number(peer)).map(|(key, _)| key)
    }

    pub(super) fn use_link(&mut self, link: Link) {
        let Link { number, member, socket, tls, authority, has_leader, alive } = link;
        let upstream = Upstream::new(number, member, tls.is_some(), &authority, has_leader, alive);
        let key = self.add(Wire::new(socket, tls, Connection::client()), Side::Member(upstream));
        let Some(key) = key else {
            let _ = self.notices.send(Notice::Lost(number));
            return;
        };
        self.may_go = true;
        let last = self.current.replace(key);
        self.move_own();
        if let Some(last) = last {
            self.end_if_unused(last);
        }
        self.read(key, false);
    }

    pub(super) fn sweep(&mut self) {
        if self.now.duration_since(self.swept) < SWEEP {
            return;
        }
        (self.swept, self.is_warm) = (self.now, false);
        for peer in self.peers.values_mut() {
            if std::mem::take(&mut peer.is_warm) {
                // Look again when it has been idle for a while.
                self.is_warm = true;
            } else {
                peer.wire.shrink();
            }
        }
    }
}
