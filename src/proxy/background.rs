//! Starts the proxy in the background, beside an application that this process's parent becomes.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::net::etcd_health::{self, Waiting};
use crate::os::companion::Companion;
use crate::os::{process, sys};
use crate::settings::ListenAddr;

/// How often to ask whether the cluster answers.
const INTERVAL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug)]
pub(crate) struct Background<'a> {
    /// This binary.
    pub exe: &'a Path,
    /// The value of `--drain`, where the one of the environment will not do.
    pub drain: Option<&'a str>,
}

impl Background<'_> {
    /// Starts it. It ends when the parent of this process does.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(&self) -> Result<Child> {
        let start = || -> io::Result<Child> {
            let parent = Companion::parent()?;
            let mut command = Command::new(self.exe);
            command.arg("run").args(self.drain.map(|drain| ["--drain", drain]).into_iter().flatten());
            let handed_on = parent.pass_on(&mut command);
            command.args(["--beside", &handed_on]).stdin(Stdio::null());
            sys::in_own_session(&mut command);
            command.spawn()
        };
        start().with_context(|| format!("the proxy {} cannot be started", self.exe.display()))
    }
}

/// Waits until the cluster answers through the proxy.
///
/// # Errors
/// If the proxy ends, or the time is over.
pub(crate) fn wait_for(proxy: &mut Child, addr: &ListenAddr, timeout: Duration) -> Result<()> {
    let mut waiting = Waiting::new(timeout);
    loop {
        if waiting.ask(|timeout| etcd_health::check(addr, timeout)).ready {
            return Ok(());
        }
        if let Some(status) = proxy.try_wait()? {
            bail!("the proxy has ended ({})", process::describe(status));
        }
        if INTERVAL >= waiting.left() {
            return Err(waiting.failed(addr, "ready").into());
        }
        thread::sleep(INTERVAL);
    }
}
