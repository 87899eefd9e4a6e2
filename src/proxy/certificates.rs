//! Waits for certificates that time can mend: a secrets agent may be late, and at boot a clock may be behind.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::os::signals::{Events, FOR_LAUNCHERS};
use crate::settings::{Error, Preflight, Settings, Sources};

/// How often to look at the files.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often to log what the start waits for.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// How long a strict preflight waits: as long as for an endpoint.
const STRICT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for the files themselves: one second is long for a disk, and signals wait meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// What a wait ends with.
pub(super) enum Waited {
    Usable(Box<Settings>),
    /// This signal came first.
    Interrupted(Signal),
}

/// The settings of `run`, as soon as its certificates can be used. If it had to wait, also the signals that may have
/// come meanwhile. `None` if a signal ended the wait.
///
/// # Errors
/// When a setting can never work; with a strict preflight, also when the certificates cannot be used soon.
pub(crate) fn await_settings(sources: Sources) -> Result<Option<(Settings, Option<Events>)>> {
    let mut reader = Reader::new(sources);
    match reader.read() {
        Err(err) if err.time_can_mend() => {}
        settings => return Ok(Some((settings?, None))),
    }
    let timeout = (reader.sources.preflight()? == Preflight::Strict).then_some(STRICT_TIMEOUT);
    let events = Events::new(&FOR_LAUNCHERS).context("cannot receive signals")?;
    Ok(match reader.wait(timeout, &events)? {
        Waited::Usable(settings) => Some((*settings, Some(events))),
        Waited::Interrupted(_) => None,
    })
}

/// Waits until the certificates can be used, for `timeout` at most.
///
/// # Errors
/// When a setting can never work, or the time is over.
pub(super) fn wait(sources: Sources, timeout: Option<Duration>, events: &Events) -> Result<Waited, Error> {
    Reader::new(sources).wait(timeout, events)
}

/// Reads the settings in a thread, so that a hung file system does not keep signals waiting.
struct Reader {
    sources: Arc<Sources>,
    /// One thread at a time, however long it takes.
    reading: Option<Receiver<Result<Settings, Error>>>,
}

impl Reader {
    fn new(sources: Sources) -> Self {
        Self { sources: Arc::new(sources), reading: None }
    }

    fn read(&mut self) -> Result<Settings, Error> {
        let Some(reading) = self.reading.take().or_else(|| self.start()) else { return self.sources.resolve() };
        match reading.recv_timeout(READ_TIMEOUT) {
            Ok(settings) => settings,
            Err(RecvTimeoutError::Timeout) => {
                self.reading = Some(reading);
                Err(Error::hung_files(READ_TIMEOUT.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => self.sources.resolve(),
        }
    }

    /// `None` if there can be no thread.
    fn start(&self) -> Option<Receiver<Result<Settings, Error>>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let sources = Arc::clone(&self.sources);
        let thread = thread::Builder::new().name("settings".to_owned());
        let read = move || {
            let _ = sender.send(sources.resolve()); // nobody may wait any more
        };
        thread.spawn(read).ok().map(|_| receiver)
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &Events) -> Result<Waited, Error> {
        let start = Instant::now();
        let mut logged: Option<(Instant, Error)> = None;
        loop {
            let err = match self.read() {
                Err(err) if err.time_can_mend() && timeout.is_none_or(|timeout| start.elapsed() < timeout) => err,
                settings => {
                    let settings = settings?;
                    if logged.is_some() {
                        log::info!("the certificates can be used now: the start goes on");
                    }
                    return Ok(Waited::Usable(Box::new(settings)));
                }
            };
            if logged.as_ref().is_none_or(|(when, last)| *last != err || when.elapsed() >= LOG_INTERVAL) {
                log::warn!("the start waits: {err}");
                logged = Some((Instant::now(), err));
            }
            if let Some(signal) = events.next(INTERVAL).ending() {
                return Ok(Waited::Interrupted(signal));
            }
        }
    }
}
