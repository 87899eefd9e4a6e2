//! The methods of etcd's API, from 3.4 to 3.7, and what a proxy must know about each.

use super::namespace::{self, Key};
use super::wire::{Field, Schema, Value, fields};

/// A method of etcd's API.
pub(crate) struct Method {
    /// Its path, such as `/etcdserverpb.KV/Range`.
    pub path: &'static str,
    pub shape: Shape,
    pub repeat: Repeat,
    /// What it may do, and what changes in its messages, under a namespace.
    pub namespaced: Namespaced,
}

/// How many messages a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One request, one answer.
    Unary,
    /// One request, any number of answers.
    ManyAnswers,
    /// Any number of both.
    Streams,
}

/// Whether a call may be sent again after a member has got it and no message of an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// To any member: a read, or a request that does the same when it comes twice.
    Always,
    /// To any member, if [`Method::is_read_only`] says so of its message.
    IfReadOnly,
    /// A read about the member that answers: only to the same member.
    SameMember,
    /// It may have been carried out.
    Never,
}

/// What happens to a call under a namespace.
#[derive(Clone, Copy)]
pub(crate) enum Namespaced {
    /// Its messages have no keys.
    Pass,
    /// It passes if [`Method::is_read_only`] says so of its message.
    PassIfReadOnly,
    /// The keys of its messages are rewritten.
    Rewrite { request: &'static Schema<Key>, answer: &'static Schema<Key> },
    /// It sees or changes more than the namespace.
    Refuse,
}

use Namespaced::{Pass, PassIfReadOnly, Refuse};
use Repeat::{Always, IfReadOnly, Never, SameMember};
use Shape::{ManyAnswers, Streams, Unary};

const fn method(path: &'static str, shape: Shape, repeat: Repeat, namespaced: Namespaced) -> Method {
    Method { path, shape, repeat, namespaced }
}

const fn keys(request: &'static Schema<Key>, answer: &'static Schema<Key>) -> Namespaced {
    Namespaced::Rewrite { request, answer }
}

/// All methods, in the order of their paths.
///
/// `Authenticate` passes a namespace: it is how a caller logs in. `LeaseLeases` does not: it shows the leases of others,
/// who lose their keys when somebody revokes those.
pub(crate) static METHODS: [Method; 52] = [
    method("/etcdserverpb.Auth/AuthDisable", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/AuthEnable", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/AuthStatus", Unary, Always, Refuse),
    method("/etcdserverpb.Auth/Authenticate", Unary, Never, Pass),
    method("/etcdserverpb.Auth/RoleAdd", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/RoleDelete", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/RoleGet", Unary, Always, Refuse),
    method("/etcdserverpb.Auth/RoleGrantPermission", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/RoleList", Unary, Always, Refuse),
    method("/etcdserverpb.Auth/RoleRevokePermission", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/UserAdd", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/UserChangePassword", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/UserDelete", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/UserGet", Unary, Always, Refuse),
    method("/etcdserverpb.Auth/UserGrantRole", Unary, Never, Refuse),
    method("/etcdserverpb.Auth/UserList", Unary, Always, Refuse),
    method("/etcdserverpb.Auth/UserRevokeRole", Unary, Never, Refuse),
    method("/etcdserverpb.Cluster/MemberAdd", Unary, Never, Refuse),
    method("/etcdserverpb.Cluster/MemberList", Unary, Always, Pass),
    method("/etcdserverpb.Cluster/MemberPromote", Unary, Never, Refuse),
    method("/etcdserverpb.Cluster/MemberRemove", Unary, Never, Refuse),
    method("/etcdserverpb.Cluster/MemberUpdate", Unary, Never, Refuse),
    method("/etcdserverpb.KV/Compact", Unary, Never, Refuse),
    method("/etcdserverpb.KV/DeleteRange", Unary, Never, keys(&namespace::RANGE, &namespace::DELETE_RANGE_ANSWER)),
    method("/etcdserverpb.KV/Put", Unary, Never, keys(&namespace::ONE_KEY, &namespace::KEY_VALUES)),
    method("/etcdserverpb.KV/Range", Unary, Always, keys(&namespace::RANGE, &namespace::KEY_VALUES)),
    method(
        "/etcdserverpb.KV/RangeStream",
        ManyAnswers,
        Always,
        keys(&namespace::RANGE, &namespace::RANGE_STREAM_ANSWER),
    ),
    method("/etcdserverpb.KV/Txn", Unary, IfReadOnly, keys(&namespace::TXN, &namespace::TXN_ANSWER)),
    method("/etcdserverpb.Lease/LeaseGrant", Unary, Never, Pass),
    method("/etcdserverpb.Lease/LeaseKeepAlive", Streams, Always, Pass),
    method("/etcdserverpb.Lease/LeaseLeases", Unary, Always, Refuse),
    method("/etcdserverpb.Lease/LeaseRevoke", Unary, Never, Pass),
    method(
        "/etcdserverpb.Lease/LeaseTimeToLive",
        Unary,
        Always,
        keys(&namespace::NOTHING, &namespace::TIME_TO_LIVE_ANSWER),
    ),
    method("/etcdserverpb.Maintenance/Alarm", Unary, IfReadOnly, PassIfReadOnly),
    method("/etcdserverpb.Maintenance/Defragment", Unary, Never, Refuse),
    method("/etcdserverpb.Maintenance/Downgrade", Unary, Never, Refuse),
    method("/etcdserverpb.Maintenance/Hash", Unary, SameMember, Refuse),
    method("/etcdserverpb.Maintenance/HashKV", Unary, SameMember, Refuse),
    method("/etcdserverpb.Maintenance/MoveLeader", Unary, Never, Refuse),
    method("/etcdserverpb.Maintenance/Snapshot", ManyAnswers, SameMember, Refuse),
    method("/etcdserverpb.Maintenance/Status", Unary, SameMember, Pass),
    method("/etcdserverpb.Watch/Watch", Streams, Never, keys(&namespace::WATCH, &namespace::WATCH_ANSWER)),
    method("/grpc.health.v1.Health/Check", Unary, SameMember, Pass),
    method("/grpc.health.v1.Health/List", Unary, SameMember, Pass),
    method("/grpc.health.v1.Health/Watch", ManyAnswers, SameMember, Pass),
    method("/v3electionpb.Election/Campaign", Unary, Never, keys(&namespace::NAME, &namespace::CAMPAIGN_ANSWER)),
    method("/v3electionpb.Election/Leader", Unary, Always, keys(&namespace::NAME, &namespace::KEY_VALUES)),
    method("/v3electionpb.Election/Observe", ManyAnswers, Always, keys(&namespace::NAME, &namespace::KEY_VALUES)),
    method("/v3electionpb.Election/Proclaim", Unary, Never, keys(&namespace::LEADER, &namespace::NOTHING)),
    method("/v3electionpb.Election/Resign", Unary, Never, keys(&namespace::LEADER, &namespace::NOTHING)),
    method("/v3lockpb.Lock/Lock", Unary, Never, keys(&namespace::NAME, &namespace::LOCK_ANSWER)),
    method("/v3lockpb.Lock/Unlock", Unary, Never, keys(&namespace::ONE_KEY, &namespace::NOTHING)),
];

impl Method {
    /// The method with this path; `None` when etcd has none.
    pub(crate) fn find(path: &[u8]) -> Option<&'static Self> {
        let index = METHODS.binary_search_by(|method| method.path.as_bytes().cmp(path)).ok()?;
        Some(&METHODS[index])
    }

    /// Its place in [`METHODS`].
    pub(crate) fn index(&'static self) -> usize {
        METHODS.element_offset(self).unwrap_or_default()
    }

    /// Its name without the package, such as `KV/Range`.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Whether a call with this message may be sent to another member after one has got it, and no answer has come.
    pub(crate) fn may_ask_another(&self, message: &[u8]) -> bool {
        match self.repeat {
            Always => true,
            IfReadOnly => self.is_read_only(message),
            SameMember | Never => false,
        }
    }

    /// For the methods where that depends on the message, `Txn` and `Alarm`: whether it changes nothing. In doubt, it
    /// does.
    pub(crate) fn is_read_only(&self, message: &[u8]) -> bool {
        match self.path {
            "/etcdserverpb.KV/Txn" => txn_is_read_only(message, MAX_NESTED_TXNS),
            "/etcdserverpb.Maintenance/Alarm" => alarm_is_read_only(message),
            _ => false,
        }
    }

    /// Whether its answer lists members, which have URLs: see [`super::member_list`].
    pub(crate) fn lists_members(&self) -> bool {
        self.path.starts_with("/etcdserverpb.Cluster/")
    }
}

const MAX_NESTED_TXNS: u32 = 50;

/// `TxnRequest`: whether it only compares, reads and has transactions that only do that.
fn txn_is_read_only(message: &[u8], depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    let op_is_read_only = |op| {
        fields(op).all(|field| match field.map(Field::number_and_value) {
            // `request_range` and `request_txn` of `RequestOp`.
            Ok((1, Value::Bytes(_))) => true,
            Ok((4, Value::Bytes(txn))) => txn_is_read_only(txn, depth),
            _ => false,
        })
    };
    fields(message).all(|field| match field.map(Field::number_and_value) {
        // `compare`, `success` and `failure`.
        Ok((1, Value::Bytes(_))) => true,
        Ok((2 | 3, Value::Bytes(op))) => op_is_read_only(op),
        _ => false,
    })
}

/// `AlarmRequest`: whether its action is `GET` (0).
fn alarm_is_read_only(message: &[u8]) -> bool {
    fields(message).all(|field| match field.map(Field::number_and_value) {
        Ok((1, action)) => action == Value::Varint(0),
        field => field.is_ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_their_path() {
        assert!(METHODS.is_sorted_by_key(|method| method.path), "find() is a binary search");
        for (n, method) in METHODS.iter().enumerate() {
            assert!(std::ptr::eq(Method::find(method.path.as_bytes()).unwrap(), method));
            assert_eq!(method.index(), n);
            assert_eq!(METHODS.iter().filter(|other| other.name() == method.name()).count(), 1, "{}", method.name());
        }
        for unknown in [&b""[..], b"/", b"/etcdserverpb.KV/Rang", b"/etcdserverpb.KV/Ranges", b"/zzz/\xff"] {
            assert!(Method::find(unknown).is_none());
        }
    }

    #[test]
    fn what_needs_its_message_has_a_rule_for_it() {
        for method in METHODS.iter().filter(|method| method.repeat == Repeat::IfReadOnly) {
            assert!(method.may_ask_another(b"") && !method.may_ask_another(b"\xff"), "{}", method.path);
        }
        let asks_another = |path: &str| Method::find(path.as_bytes()).unwrap().may_ask_another(b"");
        assert!(asks_another("/etcdserverpb.KV/Range") && asks_another("/etcdserverpb.Lease/LeaseKeepAlive"));
        assert!(!asks_another("/etcdserverpb.KV/Put") && !asks_another("/etcdserverpb.Maintenance/Status"));
    }

    #[test]
    fn transactions_that_only_read() {
        let is_read_only = |message: &[u8]| Method::find(b"/etcdserverpb.KV/Txn").unwrap().is_read_only(message);
        let field =
            |number: u8, content: &[u8]| [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat();
        let (range, put) = (field(1, b"\x0a\x01a"), field(2, b"\x0a\x01a"));
        for (success, failure) in [(&range, &range), (&range, &field(4, &field(2, &range)))] {
            let txn = [field(1, b"\x1a\x01a"), field(2, success), field(3, failure)].concat();
            assert!(is_read_only(&txn));
        }
        // The last three: an operation and a field that we do not know, and no protobuf.
        for op in [&put, &field(3, b""), &field(4, &field(3, &put)), &field(5, b""), &vec![0x08, 1], &vec![0xff]] {
            assert!(!is_read_only(&field(2, op)), "{op:?}");
            assert!(!is_read_only(&[field(2, &range), field(3, op)].concat()), "{op:?}");
        }
        assert!(!is_read_only(&field(4, &range)) && !is_read_only(b"\x12"));
    }

    #[test]
    fn alarms_that_only_ask() {
        let alarm = Method::find(b"/etcdserverpb.Maintenance/Alarm").unwrap();
        assert!(alarm.is_read_only(b"") && alarm.is_read_only(b"\x08\0\x10\x07\x18\x01"));
        assert!(!alarm.is_read_only(b"\x08\x01") && !alarm.is_read_only(b"\x08\0\x08\x02"));
        assert!(!alarm.is_read_only(b"\x0a\0") && !alarm.is_read_only(b"\x08"));
    }

    #[test]
    fn calls_about_one_member_are_never_moved() {
        let stays = |path: &str| path.contains(".Maintenance/") && !path.ends_with("/Alarm");
        for method in METHODS.iter().filter(|method| stays(method.path)) {
            assert!(matches!(method.repeat, Repeat::SameMember | Repeat::Never), "{}", method.path);
        }
    }
}
