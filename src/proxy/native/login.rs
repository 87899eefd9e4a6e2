//! Logs in, so that the application need not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::engine::Command;
use super::handle::Handle;
use super::stats::{self, Stats};
use crate::net::{Deadline, Dialer, LoginError};
use crate::os::log::Throttle;
use crate::proxy::members::Members;
use crate::settings::{Login, Prefer};

/// The time for one member. A password is hashed slowly on purpose.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The time for the file with the password.
const FILE_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause after no member gave a token.
const PAUSE: Duration = Duration::from_millis(200);
/// A wrong password is not tried more often: until then, calls get the last answer.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// Gets tokens for one user.
pub(super) struct Clerk {
    pub login: Login,
    pub members: Arc<Members>,
    pub dialer: Arc<Dialer>,
    pub engine: Handle,
    pub stats: Arc<Stats>,
    pub warnings: Throttle,
    /// When the cluster refused the password, and what we say about it.
    pub refused: Mutex<Option<(Instant, String)>>,
}

impl Clerk {
    /// Gets a token and gives it to the engine, as long as it takes.
    pub(super) async fn get_token(&self) {
        let is_recent = |refused: &(Instant, String)| refused.0.elapsed() < REFUSED_PAUSE;
        let refused = self.refused().clone().filter(is_recent);
        let token = match refused {
            Some((_, why)) => Err(why),
            None => self.log_in().await,
        };
        if let Ok(token) = &token {
            self.engine.remember_token(token.as_deref());
        }
        self.engine.send(Command::Token(token));
    }

    fn refused(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn log_in(&self) -> Result<Option<String>, String> {
        loop {
            match self.try_members(&self.login_now().await).await {
                Some(Ok(token)) => {
                    self.stats.logged_in(stats::Login::Succeeded);
                    *self.refused() = None;
                    return Ok(token);
                }
                Some(Err(why)) => {
                    self.stats.logged_in(stats::Login::Refused);
                    self.warnings.warn(format_args!("{why}"));
                    *self.refused() = Some((Instant::now(), why.clone()));
                    return Err(why);
                }
                None => sleep(PAUSE).await,
            }
        }
    }

    /// The user, with the password that its file has now. A file system that hangs delays nothing for long.
    async fn login_now(&self) -> Login {
        let login = self.login.clone();
        let read = timeout(FILE_TIMEOUT, spawn_blocking(move || login.current())).await;
        read.ok().and_then(Result::ok).unwrap_or_else(|| self.login.clone())
    }

    async fn try_members(&self, login: &Login) -> Option<Result<Option<String>, String>> {
        let Login { username, password, .. } = login;
        for member in self.members.order(Prefer::Leader) {
            let (connection, _) = self.dialer.probe(&member.target, Deadline::after(TIMEOUT)).await;
            let Some(mut connection) = connection else { continue };
            match connection.log_in(username, password, Deadline::after(TIMEOUT)).await {
                Ok(token) => return Some(Ok(token)),
                Err(LoginError::Refused) => {
                    return Some(Err(format!(
                        "the cluster does not accept user {username:?} with this password: check both"
                    )));
                }
                Err(LoginError::Failed(why)) => {
                    self.stats.logged_in(stats::Login::Failed);
                    self.warnings.warn(format_args!("{}: cannot log in: {why}", member.target));
                }
            }
        }
        None
    }
}
