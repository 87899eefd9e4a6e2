//! Supervises a backend: keeps it running, reloads it, drains it, and tells the service manager.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sd_notify::NotifyState;

use super::backend::{Backend, Error};
use crate::os::signals::Events;

/// How often to count the clients of a draining backend.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Supervises a backend until a signal ends it, after a drain of at most `drain`. A second signal ends it at once.
///
/// # Errors
/// When restarting the backend would not help.
pub(crate) fn supervise(backend: &mut dyn Backend, drain: Duration, events: &Events) -> Result<(), Error> {
    let mut ready = false;
    loop {
        let interval = backend.tend()?;
        if !ready && backend.is_ready() {
            ready = true;
            notify(NotifyState::Ready);
        }
        match events.next(interval).ending() {
            None => {}
            Some(Signal::SIGHUP) if backend.reload() => {}
            Some(_) => break,
        }
    }
    notify(NotifyState::Stopping);
    backend.drain();
    if let Some(clients @ 1..) = backend.clients() {
        let drain = humantime::format_duration(drain);
        log::info!("draining for {drain} at most, until the last client disconnects; connected now: {clients}");
    }
    let mut draining = Drain::new(Instant::now() + drain);
    while let Some(pause) = draining.pause(backend.clients(), Instant::now()) {
        let interval = backend.tend()?.min(pause);
        if events.next(interval).ending().is_some() {
            break;
        }
    }
    if let Some(clients @ 1..) = backend.clients() {
        log::warn!("ending although clients are still connected: {clients}");
    }
    Ok(())
}

/// Decides when a drain is over.
struct Drain {
    until: Instant,
    /// How often in a row no client was connected.
    without_clients: u32,
}

impl Drain {
    fn new(until: Instant) -> Self {
        Self { until, without_clients: 0 }
    }

    /// How long to wait before the next count; `None` when the drain is over.
    fn pause(&mut self, clients: Option<usize>, now: Instant) -> Option<Duration> {
        // Twice: a client may be about to reconnect.
        self.without_clients = if clients == Some(0) { self.without_clients + 1 } else { 0 };
        let left = self.until.saturating_duration_since(now);
        (self.without_clients < 2 && !left.is_zero()).then(|| left.min(DRAIN_INTERVAL))
    }
}

/// Tells the service manager, if there is one.
fn notify(state: NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(seconds: u64) -> (Drain, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Drain::new(start + Duration::from_secs(seconds)), move |ms| start + Duration::from_millis(ms))
    }

    #[test]
    fn a_drain_ends_when_no_client_is_connected_twice_in_a_row() {
        let (mut drain, at) = drain(8);
        assert_eq!(drain.pause(Some(1), at(0)), Some(DRAIN_INTERVAL));
        assert_eq!(drain.pause(Some(0), at(100)), Some(DRAIN_INTERVAL));
        assert_eq!(drain.pause(Some(1), at(200)), Some(DRAIN_INTERVAL), "it has reconnected");
        assert_eq!(drain.pause(Some(0), at(300)), Some(DRAIN_INTERVAL));
        assert_eq!(drain.pause(Some(0), at(400)), None);
    }

    #[test]
    fn a_drain_ends_when_its_time_is_over_and_uses_it_all_where_clients_are_hidden() {
        let (mut drain, at) = drain(1);
        assert_eq!(drain.pause(None, at(0)), Some(DRAIN_INTERVAL));
        assert_eq!(drain.pause(Some(3), at(950)), Some(Duration::from_millis(50)));
        assert_eq!(drain.pause(None, at(1000)), None);
        let (mut at_once, at) = self::drain(0);
        assert_eq!(at_once.pause(Some(3), at(0)), None);
    }
}
