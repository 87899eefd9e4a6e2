//! Carries calls between clients and members: one thread, and nothing but I/O.
//!
//! It has no timers of its own and looks nothing up. [`super::pilot`] tells it which member serves new calls, and cuts
//! the connections of a member that hangs.
//!
//! - [`run`]: the loop; [`command`]: what it is told
//! - [`state`]: what it knows; [`wire`]: a connection's bytes; [`call`], [`head`] and [`message`]: a call
//! - [`peers`], [`calls`], [`queue`], [`memory`]: what it does with connections, calls, calls that wait, and memory
//! - [`shared`]: streams that clients share
//! - [`budget`]: how many calls may be sent again; [`translate`]: changes keys and lists of members

mod budget;
mod call;
mod calls;
mod command;
mod head;
mod memory;
mod message;
mod peers;
mod queue;
mod run;
mod shared;
mod state;
mod translate;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use mio::Poll;
use tokio::sync::mpsc::UnboundedSender;

pub(super) use command::{Command, Link, Notice, WAKER};
use state::Engine;
pub(super) use translate::Rules;
pub(super) use wire::Socket;

use super::stats::Stats;

/// Starts the thread. It ends when it is told to stop.
///
/// # Errors
/// When the system has no thread for it.
pub(super) fn start(
    poll: Poll,
    commands: Receiver<Command>,
    notices: UnboundedSender<Notice>,
    rules: Rules,
    logs_in: bool,
    stats: Arc<Stats>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("calls".to_owned()).spawn(move || {
        if let Err(err) = Engine::new(poll, commands, notices, rules, logs_in, stats).run() {
            log::error!("cannot wait for events: {err}");
            log::logger().flush();
            std::process::abort();
        }
    })
}
