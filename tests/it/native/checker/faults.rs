//! What happens to members, and to the connections to them.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::attack::Random;
use crate::support::{Cluster, unique_host};

/// What can happen to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is killed, and started again.
    Kill,
    /// It hangs for a while (SIGSTOP).
    Stop,
    /// Connections from the proxy say nothing for a while, in both directions.
    Cut,
    /// Connections from the proxy end, and new ones end at once for a while.
    Reset,
}

impl Fault {
    const ALL: [(&'static str, Self); 4] =
        [("kill", Self::Kill), ("stop", Self::Stop), ("cut", Self::Cut), ("reset", Self::Reset)];

    /// Reads a list such as `kill,stop`; `all` stands for all, and nothing for none.
    pub(super) fn list(text: &str) -> Vec<Self> {
        let one = |name: &str| {
            let found = Self::ALL.iter().find(|(known, _)| *known == name);
            found.unwrap_or_else(|| panic!("invalid fault {name:?}: expected all, kill, stop, cut or reset")).1
        };
        match text {
            "" => Vec::new(),
            "all" => Self::ALL.map(|(_, fault)| fault).to_vec(),
            list => list.split(',').map(one).collect(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Silent,
    Closed,
}

/// Carries the connections of the proxy to one member.
pub(super) struct Relay {
    pub(super) addr: String,
    way: watch::Sender<Way>,
}

impl Relay {
    pub(super) async fn start(member: String) -> Self {
        let listener = TcpListener::bind((unique_host(), 0)).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (way, state) = watch::channel(Way::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, member.clone(), state.clone()));
            }
        });
        Self { addr, way }
    }
}

async fn carry(client: TcpStream, member: String, way: watch::Receiver<Way>) {
    if *way.borrow() == Way::Closed {
        return;
    }
    let Ok(member) = TcpStream::connect(member).await else { return };
    let _ = (client.set_nodelay(true), member.set_nodelay(true));
    let ((from_client, to_client), (from_member, to_member)) = (client.into_split(), member.into_split());
    tokio::join!(pump(from_client, to_member, way.clone()), pump(from_member, to_client, way));
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        match way.wait_for(|way| *way != Way::Silent).await.map(|way| *way) {
            Ok(Way::Open) => {}
            _ => return,
        }
        let length = tokio::select! {
            length = from.read(&mut bytes) => length,
            _ = way.changed() => continue,
        };
        let Ok(length @ 1..) = length else { return };
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Lets one thing happen, and ends it.
pub(super) async fn happen(fault: Fault, cluster: &mut Cluster, relays: &[Relay], random: &mut Random) {
    // More often the leader, because the proxy prefers it.
    let member = if random.below(2) == 0 { cluster.find_leader().await } else { None };
    let member = member.unwrap_or_else(|| random.below(relays.len()));
    let long = Duration::from_millis(100 + random.below(4000) as u64);
    match fault {
        Fault::Kill => {
            cluster.kill_member(member);
            tokio::time::sleep(long / 2).await;
            cluster.start_member(member);
            tokio::task::block_in_place(|| cluster.wait_member(member));
        }
        Fault::Stop => {
            cluster.signal_member(member, Signal::SIGSTOP);
            tokio::time::sleep(long).await;
            cluster.signal_member(member, Signal::SIGCONT);
        }
        Fault::Cut | Fault::Reset => {
            let way = if fault == Fault::Cut { Way::Silent } else { Way::Closed };
            relays[member].way.send_replace(way);
            tokio::time::sleep(long).await;
            relays[member].way.send_replace(Way::Open);
        }
    }
}
