//! Asks a member what an application asks: a read that the majority of the cluster must confirm.

use std::io;

use tokio::time::timeout;

use super::deadline::Deadline;
use super::error::{DialError, Step, is_refusal};
use super::http2::{Answer, Call, Http2};
use super::stream::Stream;
use crate::settings::Scheme;

/// A linearizable read. Its request has the key (field 1) `etcdproxy` and `count_only` (field 9).
const READ: &str = "/etcdserverpb.KV/Range";
const READ_REQUEST: &[u8] = b"\x0a\x09etcdproxy\x48\x01";

/// No etcd has this method. A gRPC server answers that at once, to anybody, and neither logs nor counts it.
const NOTHING: &str = "/etcdserverpb.KV/AreYouThere";

/// The member's view of itself. It needs no permission.
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// etcd has two alarms, NOSPACE and CORRUPT. Longer names, in bytes, and more alarms than this come from no etcd; each
/// alarm is a line in the log.
const MAX_ALARM: usize = 20;
const MAX_ALARMS: usize = 8;

/// gRPC's status code for a method that the server does not have.
const UNIMPLEMENTED: u32 = 12;

/// A connection for probes. Each probe is a few hundred bytes in each direction.
pub(crate) struct MemberConnection {
    http2: Http2<Box<dyn Stream>>,
    read: Option<Call>,
}

impl MemberConnection {
    pub(super) fn new(stream: Box<dyn Stream>, scheme: Scheme, authority: String) -> Self {
        Self { http2: Http2::new(stream, scheme, authority), read: None }
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
            return answered.map(|(_, answer)| judge(&answer));
        }
        // At some point a hung member takes no more bytes.
        if let Ok(sent) = timeout(deadline.left(), self.http2.start(NOTHING, b"")).await {
            sent?;
        }
        let mut lives = false;
        while let Ok(answered) = timeout(deadline.left(), self.http2.answer()).await {
            match answered? {
                (call, answer) if Some(call) == self.read => return Ok(judge(&answer)),
                _ => lives = true,
            }
        }
        Ok(Err(if lives { DialError::Stuck(deadline.timeout()) } else { deadline.missed(Step::Answer) }))
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

    /// The alarms that the member knows, such as `NOSPACE`; `None` when it does not say.
    pub(crate) async fn alarms(&mut self, deadline: Deadline) -> Option<Vec<String>> {
        let ask = async {
            self.http2.cancel().await?;
            let status = self.http2.start(STATUS, b"").await?;
            loop {
                let (call, answer) = self.http2.answer().await?;
                if call == status {
                    return io::Result::Ok(answer);
                }
            }
        };
        let answer = timeout(deadline.left(), ask).await.ok()?.ok()?;
        (answer.status == Some(0)).then(|| alarms(&answer.body))
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

/// The words after `alarm:` in a gRPC message with a `StatusResponse`, whose field 8 is a list of errors.
fn alarms(body: &[u8]) -> Vec<String> {
    const ERRORS: u64 = 8;
    let mut found = Vec::new();
    let mut message = body.get(5..).unwrap_or_default();
    while let Some(tag) = varint(&mut message) {
        let field = match tag & 7 {
            0 => varint(&mut message).map(|_| &[][..]),
            1 => message.split_off(..8),
            2 => varint(&mut message).and_then(|length| message.split_off(..usize::try_from(length).ok()?)),
            5 => message.split_off(..4),
            _ => None,
        };
        let Some(field) = field else { break };
        if tag >> 3 == ERRORS {
            let text = String::from_utf8_lossy(field);
            let words = text.split_whitespace().filter_map(|word| word.strip_prefix("alarm:"));
            let is_name = |word: &&str| word.len() <= MAX_ALARM && word.chars().all(char::is_alphanumeric);
            found.extend(words.filter(is_name).map(ToOwned::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found.truncate(MAX_ALARMS);
    found
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn alarms_are_words() {
        let errors = |text: &str| [&[0x42, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let body =
            [&b"\0\0\0\0\x09\x0a\x02ab\x18\x80\x01"[..], &errors("memberID:7 alarm:NOSPACE "), &errors("x")].concat();
        assert_eq!(alarms(&body), ["NOSPACE"]);
        let long = "memberID:7 alarm:AAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(alarms(&[&b"\0\0\0\0\x09"[..], &errors(long)].concat()), [""; 0]);
        let many: Vec<u8> = (10..99).flat_map(|n| errors(&format!("alarm:A{n}"))).collect();
        assert_eq!(alarms(&[&b"\0\0\0\0\x09"[..], &many].concat()).len(), MAX_ALARMS);
        assert!(alarms(b"").is_empty());
    }

    proptest! {
        #[test]
        fn no_body_causes_a_panic(body: Vec<u8>) {
            let _ = alarms(&body);
        }
    }
}
