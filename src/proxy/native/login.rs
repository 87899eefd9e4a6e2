//! Logs in, so that the application need not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Handle;
use super::engine::Command;
use crate::net::{Deadline, Dialer, LoginError};
use crate::os::log::Throttle;
use crate::proxy::members::Members;
use crate::settings::{Login, Prefer};

/// The time for one member. A password is hashed slowly on purpose.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The pause after no member gave a token.
const PAUSE: Duration = Duration::from_millis(200);
/// A wrong password is not tried more often.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// Gets tokens for one user.
pub(super) struct Clerk {
    pub login: Login,
    pub members: Arc<Members>,
    pub dialer: Arc<Dialer>,
    pub engine: Handle,
    pub warnings: Throttle,
}

impl Clerk {
    /// Gets a token and gives it to the engine, as long as it takes.
    pub(super) async fn get_token(&self) {
        let token = loop {
            match self.try_members().await {
                Some(Ok(token)) => break Ok(token),
                Some(Err(why)) => {
                    self.warnings.warn(format_args!("{why}"));
                    break Err(why);
                }
                None => sleep(PAUSE).await,
            }
        };
        let is_refused = token.is_err();
        if let Ok(token) = &token {
            self.engine.token.send_replace(Some(token.clone().unwrap_or_default()));
        }
        self.engine.send(Command::Token(token));
        if is_refused {
            sleep(REFUSED_PAUSE).await;
        }
    }

    async fn try_members(&self) -> Option<Result<Option<String>, String>> {
        let Login { username, password } = &self.login;
        for member in self.members.order_for_calls(Prefer::Leader) {
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
                    self.warnings.warn(format_args!("{}: cannot log in: {why}", member.target));
                }
            }
        }
        None
    }
}
