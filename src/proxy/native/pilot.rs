//! Chooses the member that serves new calls, and connects to it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::engine::{Command, Link, Notice, Socket};
use super::handle::Handle;
use super::login::Clerk;
use super::stats::Stats;

use crate::net::{Connected, Dialer, Protocol};
use crate::os::log::Throttle;
use crate::proxy::members::{Member, Members};
use crate::proxy::reach;
use crate::settings::{Prefer, Settings};

/// The pause after no member could be reached.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that a member ends before this time is no good: the next one may be to another member.
const SHORT: Duration = Duration::from_secs(1);

/// The longest pause after connections that ended soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often to look whether another member is better.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often to look whether there is a leader again.
const SOON: Duration = Duration::from_millis(20);

/// How often calls go to a better member at most.
const HASTE: Duration = Duration::from_secs(5);

/// How long other members are better than one that took no more calls on a connection.
const FULL: Duration = Duration::from_mins(1);

/// The connection that new calls use.
struct Current {
    number: u64,
    member: Arc<Member>,
    /// The generation of the certificates that it was made with.
    generation: u32,
    since: Instant,
}

/// Keeps the engine connected. Never ends.
pub(super) async fn run(
    members: Arc<Members>,
    dialer: Arc<Dialer>,
    engine: Handle,
    mut notices: UnboundedReceiver<Notice>,
    settings: &Settings,
    stats: Arc<Stats>,
) {
    let clerk = settings.login.clone().map(|login| {
        let (members, dialer, engine) = (Arc::clone(&members), Arc::clone(&dialer), engine.clone());
        let (warnings, refused) = (Throttle::default(), Mutex::default());
        Arc::new(Clerk { login, members, dialer, engine, stats, warnings, refused })
    });
    let mut pilot = Pilot {
        members,
        dialer,
        engine,
        prefer: settings.prefer,
        current: None,
        number: 0,
        followed: None,
        short: 0,
        avoided: None,
        leaderless: None,
    };
    loop {
        // Notices and news do not shorten this pause.
        if pilot.current.is_none() && pilot.short > 1 {
            sleep(LONGEST_PAUSE.min(PAUSE * pilot.short)).await;
        }
        pilot.choose().await;
        pilot.find_leader();
        let interval = pilot.interval();
        tokio::select! {
            notice = notices.recv() => match (notice, &clerk) {
                (Some(Notice::Lost(lost)), _) => pilot.lost(lost),
                (Some(Notice::Full(full)), _) => pilot.full(full),
                (Some(Notice::NeedsToken), Some(clerk)) => {
                    let clerk = Arc::clone(clerk);
                    tokio::spawn(async move { clerk.get_token().await });
                }
                (Some(Notice::NeedsToken), None) => {}
                (None, _) => return,
            },
            () = pilot.members.news() => {}
            () = sleep(interval) => {}
        }
    }
}

/// The socket, and TLS if it is spoken, without tokio.
fn parts(connected: Connected) -> io::Result<(Socket, Option<ClientConnection>)> {
    Ok(match connected {
        Connected::Tcp(stream) => (stream.into_std()?.into(), None),
        Connected::Unix(stream) => (stream.into_std()?.into(), None),
        Connected::Tls(stream) => {
            let (stream, tls) = stream.into_inner();
            (stream.into_std()?.into(), Some(tls))
        }
    })
}

struct Pilot {
    members: Arc<Members>,
    dialer: Arc<Dialer>,
    engine: Handle,
    prefer: Prefer,
    current: Option<Current>,
    number: u64,
    /// When calls last went to a better member.
    followed: Option<Instant>,
    /// How many connections in a row a member has ended soon; and a member that did so, or has enough calls, until when
    /// others are better.
    short: u32,
    avoided: Option<(Arc<Member>, Instant)>,
    /// When the leader was lost, until the current member has shown that it has one.
    leaderless: Option<Instant>,
}

impl Pilot {
    fn lost(&mut self, number: u64) {
        let Some(lost) = self.current.take_if(|current| current.number == number) else { return };
        lost.member.set_current(false);
        if lost.member.is_leader() {
            // It may even take a connection while it dies.
            self.leaderless = Some(Instant::now());
        }
        if lost.since.elapsed() < SHORT {
            self.short = self.short.saturating_add(1);
            self.avoided = Some((lost.member, Instant::now() + HASTE));
        } else {
            (self.short, self.avoided) = (0, None);
        }
    }

    fn full(&mut self, number: u64) {
        let Some(full) = self.current.take_if(|current| current.number == number) else { return };
        log::info!("{} takes no more calls on this connection: new ones go on another", full.member.target);
        self.avoided = Some((full.member, Instant::now() + FULL));
    }

    /// Connects to another member if there is reason to.
    async fn choose(&mut self) {
        self.dialer.refresh().await;
        let mut order = self.members.order(self.prefer);
        if let Some((avoided, until)) = &self.avoided
            && Instant::now() < *until
        {
            // Only the others that are up come before it.
            let is_better = |other: &&Arc<Member>| other.is_usable() && !Arc::ptr_eq(other, avoided);
            if let Some(better) = order.iter().position(|other| is_better(&other)) {
                order[..=better].rotate_right(1);
            }
        }
        let tried = if self.current.is_none() { order } else { self.better(&order).into_iter().collect() };
        if tried.is_empty() {
            return;
        }
        let reached = reach::first_of(tried, Protocol::Http2, &self.members, &self.dialer).await;
        if let Some((member, connected)) = reached {
            self.take(member, connected);
        }
    }

    /// A member to use in place of the current one, or the same if its certificates are old.
    fn better(&mut self, order: &[Arc<Member>]) -> Option<Arc<Member>> {
        let current = self.current.as_ref()?;
        let first = order.first()?;
        if !first.is_usable() {
            // Without a majority, a member that answers is better than a silent one.
            return (first.rank() < current.member.rank()).then(|| Arc::clone(first));
        }
        if Arc::ptr_eq(first, &current.member) {
            return (current.generation != self.dialer.generation()).then(|| Arc::clone(first));
        }
        if current.member.is_down() || current.member.is_in_trouble() || current.member.is_retired() {
            return Some(Arc::clone(first));
        }
        let is_better = match self.prefer {
            Prefer::Leader => first.is_leader() && !current.member.is_leader(),
            Prefer::Nearest => first.is_much_nearer_than(&current.member),
            Prefer::Spread => false,
        };
        if !is_better || self.followed.is_some_and(|at| at.elapsed() < HASTE) {
            return None;
        }
        self.followed = Some(Instant::now());
        Some(Arc::clone(first))
    }

    fn take(&mut self, member: Arc<Member>, connected: Connected) {
        member.showed_certificate(connected.certificate_end());
        let Ok((socket, tls)) = parts(connected) else { return };
        self.number += 1;
        let (number, authority) = (self.number, member.target.authority());
        log::info!("calls go to {}", member.target);
        let current = Current { number, generation: self.dialer.generation(), member, since: Instant::now() };
        let (alive, ended) = oneshot::channel();
        self.watch(&current, ended);
        if self.current.as_ref().is_some_and(|last| last.member.is_leader() && last.member.is_down()) {
            self.leaderless.get_or_insert_with(Instant::now);
        }
        let has_leader = self.leaderless.is_none();
        let link = Link { number, member: Arc::clone(&current.member), socket, tls, authority, has_leader, alive };
        self.engine.send(Command::Use(Box::new(link)));
        if let Some(last) = &self.current {
            last.member.set_current(false);
        }
        current.member.set_current(true);
        self.current = Some(current);
    }

    /// A member whose leader has just died would take what is to be written, lose it, and not answer. So that waits until
    /// the member has answered a linearizable read, which needs a leader.
    fn find_leader(&mut self) {
        let (Some(lost), Some(current)) = (self.leaderless, &self.current) else { return };
        if current.member.has_passed_since(lost) {
            self.engine.send(Command::HasLeader(current.number));
            self.leaderless = None;
        } else if current.since.elapsed() >= SOON {
            // Before that, it may be the one that dies.
            current.member.wake.notify_one();
        }
    }

    fn interval(&self) -> Duration {
        match (&self.current, &self.leaderless) {
            (Some(_), None) => INTERVAL,
            (Some(_), Some(_)) => SOON,
            (None, _) => PAUSE,
        }
    }

    /// Cuts the connection when the member's connections are to be cut, unless it has ended before.
    fn watch(&self, current: &Current, mut ended: oneshot::Receiver<()>) {
        let (mut cut, engine, number) = (current.member.cut(), self.engine.clone(), current.number);
        tokio::spawn(async move {
            tokio::select! {
                Ok(()) = cut.changed() => engine.send(Command::Cut(number)),
                _ = &mut ended => {}
            }
        });
    }
}
