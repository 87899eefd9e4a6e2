//! Asks a member what an application asks: a read that the majority of the cluster must confirm.

use std::io;

use tokio::time::timeout;

use super::deadline::Deadline;
use super::error::{DialError, Step, is_refusal};
use super::http2::{Answer, Call, Http2};
use super::stream::Stream;
use crate::api::auth::{self, AUTHENTICATE, Refusal};
use crate::api::status::{Header, STATUS, Status};
use crate::settings::Scheme;

/// A linearizable read. Its request has the key (field 1) `etcdproxy` and `count_only` (field 9).
const READ: &str = "/etcdserverpb.KV/Range";
const READ_REQUEST: &[u8] = b"\x0a\x09etcdproxy\x48\x01";

/// No etcd has this method. A gRPC server answers that at once, to anybody, and neither logs nor counts it.
const NOTHING: &str = "/etcdserverpb.KV/AreYouThere";

/// gRPC's status code for a method that the server does not have.
const UNIMPLEMENTED: u32 = 12;

/// A connection for probes. Each probe is a few hundred bytes in each direction.
pub(crate) struct MemberConnection {
    http2: Http2<Box<dyn Stream>>,
    read: Option<Call>,
    /// The term of the last answer.
    term: u64,
    /// When the member's certificate ends, in seconds since 1970; `None` without TLS.
    pub(crate) certificate_end: Option<i64>,
}

impl MemberConnection {
    pub(super) fn new(stream: Box<dyn Stream>, scheme: Scheme, authority: String) -> Self {
        Self { http2: Http2::new(stream, scheme, authority), read: None, term: 0, certificate_end: None }
    }

    pub(super) async fn read_settings(&mut self) -> io::Result<()> {
        self.http2.read_settings().await
    }

    /// Sends the read.
    pub(super) async fn ask(&mut self) -> io::Result<()> {
        self.http2.cancel().await?;
        self.read = Some(self.http2.start(READ, READ_REQUEST).await?);
        Ok(())
    }

    /// Whether the member serves, from its answer to the read. If that takes half of the time, asks for a sign of life
    /// as well: a member that lives is [`DialError::Stuck`], a hung one is [`DialError::TimedOut`].
    ///
    /// # Errors
    /// When the connection ends, or what comes is not HTTP/2.
    pub(super) async fn answer(&mut self, deadline: Deadline) -> io::Result<Result<(), DialError>> {
        let half = deadline.left() / 2;
        if let Ok(answered) = timeout(half, self.http2.answer()).await {
            return answered.map(|(_, answer)| self.judge(&answer));
        }
        // At some point a hung member takes no more bytes.
        if let Ok(sent) = timeout(deadline.left(), self.http2.start(NOTHING, b"")).await {
            sent?;
        }
        let mut lives = false;
        while let Ok(answered) = timeout(deadline.left(), self.http2.answer()).await {
            match answered? {
                (call, answer) if Some(call) == self.read => return Ok(self.judge(&answer)),
                _ => lives = true,
            }
        }
        Ok(Err(if lives { DialError::Stuck(deadline.timeout()) } else { deadline.missed(Step::Answer) }))
    }

    fn judge(&mut self, answer: &Answer) -> Result<(), DialError> {
        let header = answer.body.get(5..).and_then(|message| Header::of(message).ok());
        self.term = header.map_or(0, |header| header.raft_term);
        judge(answer)
    }

    /// Asks again on a connection that has been used before.
    ///
    /// # Errors
    /// When the connection has ended: that says nothing about the member's health.
    pub(crate) async fn probe(&mut self, deadline: Deadline) -> io::Result<Result<(), DialError>> {
        match timeout(deadline.left(), self.ask()).await {
            Ok(asked) => asked?,
            Err(_) => return Ok(Err(deadline.missed(Step::Answer))),
        }
        self.answer(deadline).await
    }

    /// The term of the last answer; 0 when it did not say.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// What the member says about itself; `None` when it does not say.
    pub(crate) async fn status(&mut self, deadline: Deadline) -> Option<Status> {
        let answer = timeout(deadline.left(), self.call(STATUS, b"")).await.ok()?.ok()?;
        if answer.status != Some(0) {
            return None;
        }
        // The message comes after its flag and its length.
        Status::of(answer.body.get(5..)?).ok()
    }
}

/// Why nobody can log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoginError {
    /// The cluster does not accept the user name and the password.
    Refused,
    /// The member did not answer, or with something else.
    Failed(String),
}

impl MemberConnection {
    /// A token for the user; `None` when the cluster has no users.
    pub(crate) async fn log_in(
        &mut self,
        username: &str,
        password: &str,
        deadline: Deadline,
    ) -> Result<Option<String>, LoginError> {
        let answer = match timeout(deadline.left(), self.call(AUTHENTICATE, &auth::request(username, password))).await {
            Ok(answer) => answer.map_err(|err| LoginError::Failed(err.to_string()))?,
            Err(_) => return Err(LoginError::Failed(deadline.missed(Step::Answer).to_string())),
        };
        let status = answer.status.unwrap_or_default();
        match (status, Refusal::recognise(status, &answer.message)) {
            (0, _) => match answer.body.get(5..).and_then(auth::token) {
                Some(token) => Ok(Some(token.to_owned())),
                None => Err(LoginError::Failed("the answer has no token".to_owned())),
            },
            (_, Some(Refusal::NotEnabled)) => Ok(None),
            (_, Some(Refusal::LoginFailed | Refusal::NoUser)) => Err(LoginError::Refused),
            _ => Err(LoginError::Failed(answer.message)),
        }
    }

    /// The answer to one call. Answers to earlier ones are lost.
    async fn call(&mut self, path: &str, message: &[u8]) -> io::Result<Answer> {
        self.http2.cancel().await?;
        let call = self.http2.start(path, message).await?;
        loop {
            let (answered, answer) = self.http2.answer().await?;
            if answered == call {
                return Ok(answer);
            }
        }
    }
}

fn judge(answer: &Answer) -> Result<(), DialError> {
    match answer.status {
        Some(0) => Ok(()),
        // The cluster has judged the anonymous user, so it serves.
        Some(_) if is_refusal(&answer.message) => Ok(()),
        // gRPC, but not etcd.
        Some(UNIMPLEMENTED) | None => Err(DialError::NotGrpc),
        Some(code) if answer.message.is_empty() => Err(DialError::Ill(format!("gRPC status {code}"))),
        Some(_) => Err(DialError::Ill(answer.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u32, message: &str) -> Answer {
        Answer { status: Some(status), message: message.to_owned(), body: Vec::new() }
    }

    #[test]
    fn who_serves() {
        assert_eq!(judge(&answer(0, "")), Ok(()));
        assert_eq!(judge(&answer(3, "etcdserver: user name is empty")), Ok(()));
        assert_eq!(judge(&answer(7, "etcdserver: permission denied")), Ok(()));
        assert_eq!(
            judge(&answer(14, "etcdserver: no leader")),
            Err(DialError::Ill("etcdserver: no leader".to_owned()))
        );
        assert_eq!(judge(&answer(14, "")), Err(DialError::Ill("gRPC status 14".to_owned())));
        assert_eq!(judge(&answer(12, "unknown service etcdserverpb.KV")), Err(DialError::NotGrpc));
        assert_eq!(judge(&Answer::default()), Err(DialError::NotGrpc));
    }
}
