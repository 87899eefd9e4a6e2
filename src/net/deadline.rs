//! The time limit of an attempt.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::{DialError, Step};

/// The time limit of one attempt to use a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    timeout: Duration,
    at: Instant,
}

impl Deadline {
    /// Starts now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { timeout, at: Instant::now() + timeout }
    }

    /// The time for the whole attempt.
    pub(super) fn timeout(self) -> Duration {
        self.timeout
    }

    /// The time until it.
    pub(super) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The error for when no step got further in time.
    pub(super) fn missed(self, step: Step) -> DialError {
        DialError::TimedOut(step, self.timeout)
    }

    /// Waits for `future`, which is this step of the attempt.
    ///
    /// # Errors
    /// When the time is over first.
    pub(crate) async fn step<T>(self, step: Step, future: impl Future<Output = T>) -> Result<T, DialError> {
        timeout_at(self.at, future).await.map_err(|_| self.missed(step))
    }
}
