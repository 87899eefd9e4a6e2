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
    /// Any but [`Error::Outside`].
    pub(crate) fn put_on(&self, schema: &Schema<Key>, request: &[u8]) -> Result<Vec<u8>, Error> {
        rewrite(request, schema, &|old| self.edit(old))
    }

    /// Takes the prefix off the keys of an answer.
    ///
    /// # Errors
    /// [`Error::Malformed`] and [`Error::Outside`].
    pub(crate) fn take_off(&self, schema: &Schema<Key>, answer: &[u8]) -> Result<Vec<u8>, Error> {
        rewrite(answer, schema, &|old| self.edit(old))
    }

    fn edit<'a>(&'a self, old: Old<'a, Key>) -> Result<New<'a>, Error> {
        const NONE: &[u8] = b"";
        let inside = old.bytes.strip_prefix(&*self.prefix).map(|key| [NONE, key]);
        match old.what {
            Key::Named if old.bytes.is_empty() => Err(Error::EmptyKey),
            Key::RangeEnd if old.bytes.is_empty() => Ok(Some([NONE, NONE])),
            Key::RangeEnd if old.bytes == b"\0" => Ok(Some([&self.end, NONE])),
            Key::Named | Key::MayBeEmpty | Key::RangeEnd => Ok(Some([&self.prefix, old.bytes])),
            Key::Answered => inside.map(Some).ok_or(Error::Outside),
            Key::Listed => Ok(inside),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use prost::encoding::{WireType, bytes, encode_key, encode_varint};

    use super::*;

    /// What etcd reads of a request, by the library that others read protobuf with.
    #[derive(Clone, PartialEq, Message)]
    struct Range {
        #[prost(bytes = "vec", tag = "1")]
        key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        range_end: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct OneKey {
        #[prost(bytes = "vec", tag = "1")]
        key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Compare {
        #[prost(bytes = "vec", tag = "3")]
        key: Vec<u8>,
        #[prost(bytes = "vec", tag = "64")]
        range_end: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Txn {
        #[prost(message, repeated, tag = "1")]
        compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")]
        success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")]
        failure: Vec<RequestOp>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct RequestOp {
        #[prost(oneof = "Request", tags = "1, 2, 3, 4")]
        request: Option<Request>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    enum Request {
        #[prost(message, tag = "1")]
        Range(Range),
        #[prost(message, tag = "2")]
        Put(OneKey),
        #[prost(message, tag = "3")]
        DeleteRange(Range),
        #[prost(message, tag = "4")]
        Txn(Txn),
    }

    #[derive(Clone, PartialEq, Message)]
    struct Watch {
        #[prost(message, optional, tag = "1")]
        create: Option<Range>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct LeaderKey {
        #[prost(bytes = "vec", tag = "1")]
        name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Leader {
        #[prost(message, optional, tag = "1")]
        leader: Option<LeaderKey>,
    }

    /// Keys and ends of ranges.
    type Ranges = Vec<(Vec<u8>, Vec<u8>)>;

    fn of_txn(txn: Txn) -> Ranges {
        let ops = txn.success.into_iter().chain(txn.failure);
        let ops = ops.filter_map(|op| op.request).flat_map(|request| match request {
            Request::Range(range) | Request::DeleteRange(range) => vec![(range.key, range.range_end)],
            Request::Put(put) => vec![(put.key, Vec::new())],
            Request::Txn(txn) => of_txn(txn),
        });
        ops.chain(txn.compare.into_iter().map(|compare| (compare.key, compare.range_end))).collect()
    }

    /// What a request names; `None` when etcd does not accept it.
    fn named(schema: &Schema<Key>, request: &[u8]) -> Option<Ranges> {
        Some(if std::ptr::eq(schema, &raw const RANGE) {
            let range = Range::decode(request).ok()?;
            vec![(range.key, range.range_end)]
        } else if std::ptr::eq(schema, &raw const TXN) {
            of_txn(Txn::decode(request).ok()?)
        } else if std::ptr::eq(schema, &raw const WATCH) {
            Watch::decode(request).ok()?.create.into_iter().map(|create| (create.key, create.range_end)).collect()
        } else if std::ptr::eq(schema, &raw const LEADER) {
            let leader = Leader::decode(request).ok()?.leader;
            leader.into_iter().flat_map(|leader| [(leader.name, vec![]), (leader.key, vec![])]).collect()
        } else {
            vec![(OneKey::decode(request).ok()?.key, Vec::new())]
        })
    }

    fn is_inside(namespace: &Namespace, (key, end): &(Vec<u8>, Vec<u8>)) -> bool {
        let to_the_end = namespace.end == b"\0";
        let ends_inside = match &**end {
            b"" => true,
            b"\0" => to_the_end,
            end => to_the_end || end <= &*namespace.end,
        };
        key.starts_with(&namespace.prefix) && ends_inside
    }

    static REQUESTS: [&Schema<Key>; 6] = [&RANGE, &ONE_KEY, &TXN, &WATCH, &NAME, &LEADER];
    static ANSWERS: [&Schema<Key>; 8] = [
        &KEY_VALUES,
        &RANGE_STREAM_ANSWER,
        &DELETE_RANGE_ANSWER,
        &TXN_ANSWER,
        &WATCH_ANSWER,
        &TIME_TO_LIVE_ANSWER,
        &LOCK_ANSWER,
        &CAMPAIGN_ANSWER,
    ];

    fn prefix() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(b"ns/".to_vec()), Just(b"n\xff\xff".to_vec()), Just(b"\xff".to_vec())]
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        const SPECIAL: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"a", b"ns/", b"ns0", b"n", b"\xff", b"\xff\xff\xff"];
        prop_oneof![
            prop::sample::select(&SPECIAL[..]).prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 0..5)
        ]
    }

    /// Messages with fields of the numbers that schemas have, often several times, and sometimes of wrong types.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let field = |content: BoxedStrategy<Vec<u8>>| {
            (prop::sample::select(&[1_u32, 2, 3, 4, 5, 11, 64][..]), content, 0..40_u8).prop_map(
                |(number, content, kind)| {
                    let mut field = Vec::new();
                    match kind {
                        0 => field.extend(&content),
                        1 => {
                            encode_key(number, WireType::Varint, &mut field);
                            encode_varint(content.len() as u64, &mut field);
                        }
                        _ => bytes::encode(number, &content, &mut field),
                    }
                    field
                },
            )
        };
        let fields = move |content| prop::collection::vec(field(content), 0..4).prop_map(|fields| fields.concat());
        key().prop_recursive(6, 60, 4, move |inner| fields(inner.boxed()))
    }

    fn field(number: u32, content: impl Into<Vec<u8>>) -> Vec<u8> {
        let mut field = Vec::new();
        bytes::encode(number, &content.into(), &mut field);
        field
    }

    #[test]
    fn ranges_are_those_of_etcds_own_package() {
        let rewritten = |prefix: &[u8], key: &[u8], end: &[u8]| {
            let request = Range { key: key.to_vec(), range_end: end.to_vec() }.encode_to_vec();
            let range = Range::decode(&*Namespace::new(prefix).put_on(&RANGE, &request).unwrap()).unwrap();
            (range.key, range.range_end)
        };
        let expect = |key: &[u8], end: &[u8]| (key.to_vec(), end.to_vec());
        assert_eq!(rewritten(b"pfx/", b"a", b""), expect(b"pfx/a", b""));
        assert_eq!(rewritten(b"pfx/", b"abc", b"def"), expect(b"pfx/abc", b"pfx/def"));
        assert_eq!(rewritten(b"pfx/", b"abc", b"\0"), expect(b"pfx/abc", b"pfx0"));
        assert_eq!(rewritten(b"pfx/", b"\0", b"\0"), expect(b"pfx/\0", b"pfx0"));
        assert_eq!(rewritten(b"p\xff", b"abc", b"\0"), expect(b"p\xffabc", b"q"));
        assert_eq!(rewritten(b"\xff\xff", b"abc", b"\0"), expect(b"\xff\xffabc", b"\0"));
    }

    #[test]
    fn a_key_that_is_missing_is_empty() {
        let namespace = Namespace::new("ns/");
        for schema in [&RANGE, &ONE_KEY] {
            for request in [&b""[..], b"\x0a\0", b"\x12\x01z", b"\x08\x01"] {
                assert_eq!(namespace.put_on(schema, request), Err(Error::EmptyKey), "{request:?}");
            }
        }
        assert_eq!(namespace.put_on(&NAME, b"").unwrap(), field(1, "ns/"));
        // A watch of everything in the namespace.
        let everything = [field(2, "ns0"), field(1, "ns/")].concat();
        assert_eq!(namespace.put_on(&WATCH, &field(1, field(2, "\0"))).unwrap(), field(1, everything));
        assert_eq!(namespace.put_on(&WATCH, b"\x1a\0").unwrap(), b"\x1a\0");
    }

    #[test]
    fn an_answer_shows_no_key_of_others() {
        let namespace = Namespace::new("ns/");
        let keys = ["ns/a", "ns", "other", "ns/"].map(|key| field(5, key)).concat();
        let shown = [field(5, "a"), field(5, "")].concat();
        assert_eq!(namespace.take_off(&TIME_TO_LIVE_ANSWER, &keys).unwrap(), shown);
        for outside in ["ns", "other", ""] {
            let answer = field(2, field(1, outside));
            assert_eq!(namespace.take_off(&KEY_VALUES, &answer), Err(Error::Outside));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_request_names_a_key_outside(prefix in prefix(), message in message()) {
            let namespace = Namespace::new(prefix);
            for schema in REQUESTS {
                let Ok(request) = namespace.put_on(schema, &message) else { continue };
                for range in named(schema, &request).unwrap_or_default() {
                    prop_assert!(is_inside(&namespace, &range), "{:?} {:?}", message, range);
                }
            }
        }

        #[test]
        fn no_answer_shows_a_prefix(prefix in prefix(), keys in prop::collection::vec(key(), 0..4)) {
            let namespace = Namespace::new(&*prefix);
            let answer = |schema: usize, prefix: &[u8]| {
                let header = field(1, b"\x18\x07");
                let pairs = |number| {
                    let pair = |key: &Vec<u8>| field(number, [field(1, [prefix, key].concat()), field(5, "v")].concat());
                    keys.iter().map(pair).collect::<Vec<_>>().concat()
                };
                let range = [header.clone(), pairs(2)].concat();
                let ops = [field(1, &*range), field(3, pairs(3))].concat();
                let txn = [field(2, b""), field(3, ops)].concat();
                let all_keys = |number| {
                    keys.iter().map(|key| field(number, [prefix, key].concat())).collect::<Vec<_>>().concat()
                };
                match schema {
                    0 => range,
                    1 => field(1, range),
                    2 => [header, pairs(3)].concat(),
                    3 => [header, txn.clone(), field(3, field(4, txn))].concat(),
                    4 => [header, field(11, [pairs(2), pairs(3)].concat())].concat(),
                    5 => [header, all_keys(5)].concat(),
                    6 => [header, all_keys(2)].concat(),
                    _ => [header, field(2, [all_keys(1), all_keys(2)].concat())].concat(),
                }
            };
            for (index, schema) in ANSWERS.iter().enumerate() {
                let taken_off = namespace.take_off(schema, &answer(index, &prefix));
                prop_assert_eq!(taken_off, Ok(answer(index, b"")));
            }
        }

        #[test]
        fn no_bytes_cause_a_panic(prefix: Vec<u8>, message in prop_oneof![message().boxed(), any::<Vec<u8>>().boxed()]) {
            let namespace = Namespace::new(prefix);
            for schema in REQUESTS.iter().chain(&ANSWERS) {
                let _ = (namespace.put_on(schema, &message), namespace.take_off(schema, &message));
            }
        }
    }
}
