//! A namespace: its prefix is put before the keys of requests, and taken off the keys of answers.
//!
//! The rules are those of etcd's package `client/v3/namespace`. It trusts its caller; here a request is any bytes, and
//! none of them may name a key outside of the namespace. So a field that is missing is not just skipped: it counts as
//! empty, as it does in etcd.

use super::wire::{Error, New, Old, Rule, Schema, rewrite};

/// What a field of a request or an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// A key of a request. etcd refuses an empty one.
    Named,
    /// A key or a name of a request that may be empty: the prefix alone.
    MayBeEmpty,
    /// The end of a range: empty for a single key, `\0` for everything from the key on.
    RangeEnd,
    /// A key of an answer. It is in the namespace, because the request was.
    Answered,
    /// A key of an answer that may be outside of the namespace: then it is left out.
    Listed,
}

/// A message in which no keys are rewritten.
pub(crate) static NOTHING: Schema<Key> = Schema(&[]);

/// `RangeRequest` and `DeleteRangeRequest`.
pub(crate) static RANGE: Schema<Key> = Schema(&[(1, Rule::EditAlways(Key::Named)), (2, Rule::Edit(Key::RangeEnd))]);
/// `PutRequest`, `UnlockRequest`.
pub(crate) static ONE_KEY: Schema<Key> = Schema(&[(1, Rule::EditAlways(Key::Named))]);
static COMPARE: Schema<Key> = Schema(&[(3, Rule::EditAlways(Key::Named)), (64, Rule::Edit(Key::RangeEnd))]);
static REQUEST_OP: Schema<Key> = Schema(&[
    (1, Rule::Message(&RANGE)),
    (2, Rule::Message(&ONE_KEY)),
    (3, Rule::Message(&RANGE)),
    (4, Rule::Message(&TXN)),
]);
/// `TxnRequest`.
pub(crate) static TXN: Schema<Key> =
    Schema(&[(1, Rule::Message(&COMPARE)), (2, Rule::Message(&REQUEST_OP)), (3, Rule::Message(&REQUEST_OP))]);
/// `WatchRequest`. A watch with an empty key is one of the first key of all.
pub(crate) static WATCH: Schema<Key> = Schema(&[(1, Rule::Message(&WATCH_CREATE))]);
static WATCH_CREATE: Schema<Key> = Schema(&[(1, Rule::EditAlways(Key::MayBeEmpty)), (2, Rule::Edit(Key::RangeEnd))]);
/// `LockRequest`, `CampaignRequest` and `LeaderRequest`. The keys of a lock or an election are its name, `/` and the
/// lease.
pub(crate) static NAME: Schema<Key> = Schema(&[(1, Rule::EditAlways(Key::MayBeEmpty))]);
/// `ProclaimRequest` and `ResignRequest`.
pub(crate) static LEADER: Schema<Key> = Schema(&[(1, Rule::Message(&LEADER_KEY))]);
static LEADER_KEY: Schema<Key> = Schema(&[(1, Rule::EditAlways(Key::MayBeEmpty)), (2, Rule::EditAlways(Key::Named))]);

static KEY_VALUE: Schema<Key> = Schema(&[(1, Rule::Edit(Key::Answered))]);
/// `RangeResponse` (`kvs`), `PutResponse` (`prev_kv`) and `LeaderResponse` (`kv`).
pub(crate) static KEY_VALUES: Schema<Key> = Schema(&[(2, Rule::Message(&KEY_VALUE))]);
/// `RangeStreamResponse`.
pub(crate) static RANGE_STREAM_ANSWER: Schema<Key> = Schema(&[(1, Rule::Message(&KEY_VALUES))]);
/// `DeleteRangeResponse` (`prev_kvs`).
pub(crate) static DELETE_RANGE_ANSWER: Schema<Key> = Schema(&[(3, Rule::Message(&KEY_VALUE))]);
static RESPONSE_OP: Schema<Key> = Schema(&[
    (1, Rule::Message(&KEY_VALUES)),
    (2, Rule::Message(&KEY_VALUES)),
    (3, Rule::Message(&DELETE_RANGE_ANSWER)),
    (4, Rule::Message(&TXN_ANSWER)),
]);
/// `TxnResponse`.
pub(crate) static TXN_ANSWER: Schema<Key> = Schema(&[(3, Rule::Message(&RESPONSE_OP))]);
static EVENT: Schema<Key> = Schema(&[(2, Rule::Message(&KEY_VALUE)), (3, Rule::Message(&KEY_VALUE))]);
/// `WatchResponse`.
pub(crate) static WATCH_ANSWER: Schema<Key> = Schema(&[(11, Rule::Message(&EVENT))]);
/// `LeaseTimeToLiveResponse`.
pub(crate) static TIME_TO_LIVE_ANSWER: Schema<Key> = Schema(&[(5, Rule::Edit(Key::Listed))]);
/// `LockResponse`.
pub(crate) static LOCK_ANSWER: Schema<Key> = Schema(&[(2, Rule::Edit(Key::Answered))]);
/// `CampaignResponse`.
pub(crate) static CAMPAIGN_ANSWER: Schema<Key> = Schema(&[(2, Rule::Message(&LEADER_KEY_ANSWER))]);
static LEADER_KEY_ANSWER: Schema<Key> = Schema(&[(1, Rule::Edit(Key::Answered)), (2, Rule::Edit(Key::Answered))]);

/// A prefix of keys.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    prefix: Vec<u8>,
    /// The first key after all keys with the prefix; `\0` when that is the end of all keys.
    end: Vec<u8>,
}

impl Namespace {
    pub(crate) fn new(prefix: impl Into<Vec<u8>>) -> Self {
        let prefix = prefix.into();
        let mut end = prefix.clone();
        while end.pop_if(|last| *last == 0xff).is_some() {}
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        Self { prefix, end }
    }

    /// Puts the prefix before the keys of a request.
    ///
    /// # Errors
    /// Any but [`Error::Outside`]. The caller gets [`Error::REQUEST_STATUS`] and the error's text.
    pub(crate) fn put_on(&self, schema: &Schema<Key>, request: &[u8]) -> Result<Vec<u8>, Error> {
        rewrite(request, schema, &|old| self.edit(old))
    }

    /// Takes the prefix off the keys of an answer.
    ///
    /// # Errors
    /// The caller gets [`Error::ANSWER_STATUS`] and the error's text.
    pub(crate) fn take_off(&self, schema: &Schema<Key>, answer: &[u8]) -> Result<Vec<u8>, Error> {
        rewrite(answer, schema, &|old| self.edit(old))
    }

    fn edit<'a>(&'a self, old: Old<'a, Key>) -> Result<New<'a>, Error> {
        const NONE: &[u8] = b"";
        let inside = old.bytes.strip_prefix(&*self.prefix).map(|key| [NONE, key]);
        match old.what {
            Key::Named if old.bytes.is_empty() => Err(Error::EmptyKey),
            Key::Named | Key::MayBeEmpty => Ok(Some([&self.prefix, old.bytes])),
            Key::RangeEnd if old.bytes.is_empty() => Ok(Some([NONE, NONE])),
            Key::RangeEnd if old.bytes == b"\0" => Ok(Some([&self.end, NONE])),
            Key::RangeEnd => Ok(Some([&self.prefix, old.bytes])),
            Key::Answered => inside.map(Some).ok_or(Error::Outside),
            Key::Listed => Ok(inside),
        }
    }
}
