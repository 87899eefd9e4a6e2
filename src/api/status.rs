//! What an answer says about the member and the cluster that it is from.

use super::wire::{Malformed, Value, fields};

/// The path of `Status`. Its request is an empty message.
pub(crate) const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// etcd has two alarms, NOSPACE and CORRUPT. Longer names, in bytes, and more alarms than this come from no etcd; each
/// alarm is a line in the log.
const MAX_ALARM: usize = 20;
const MAX_ALARMS: usize = 8;

/// The longest version that is kept, in bytes.
const MAX_VERSION: usize = 40;

/// `ResponseHeader`: field 1 of every answer of etcd, apart from `RangeStream`. A field that is missing is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Of the key-value store; 0 in answers of methods that have nothing to do with it.
    pub revision: i64,
    pub raft_term: u64,
}

impl Header {
    /// Reads the header of an answer.
    pub(crate) fn of(answer: &[u8]) -> Result<Self, Malformed> {
        let mut header = Self::default();
        for field in fields(answer) {
            if let (1, Value::Bytes(message)) = field?.number_and_value() {
                header.read(message)?;
            }
        }
        Ok(header)
    }

    fn read(&mut self, message: &[u8]) -> Result<(), Malformed> {
        for field in fields(message) {
            match field?.number_and_value() {
                (1, Value::Varint(id)) => self.cluster_id = id,
                (2, Value::Varint(id)) => self.member_id = id,
                (3, Value::Varint(revision)) => self.revision = revision.cast_signed(),
                (4, Value::Varint(term)) => self.raft_term = term,
                _ => {}
            }
        }
        Ok(())
    }
}

/// `StatusResponse`: a member's view of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub header: Header,
    /// As in `3.7.2`. It may contain anything.
    pub version: String,
    /// The id of the member that leads; 0 when the member knows none.
    pub leader: u64,
    pub raft_term: u64,
    pub is_learner: bool,
    /// Such as `etcdserver: no leader`, and one for each alarm.
    pub errors: Vec<String>,
}

impl Status {
    /// Reads the answer of `Status`.
    pub(crate) fn of(answer: &[u8]) -> Result<Self, Malformed> {
        let mut status = Self::default();
        for field in fields(answer) {
            match field?.number_and_value() {
                (1, Value::Bytes(header)) => status.header.read(header)?,
                (2, Value::Bytes(version)) => {
                    let kept = &version[..version.len().min(MAX_VERSION)];
                    status.version = String::from_utf8_lossy(kept).into_owned();
                }
                (4, Value::Varint(leader)) => status.leader = leader,
                (6, Value::Varint(term)) => status.raft_term = term,
                (8, Value::Bytes(error)) => status.errors.push(String::from_utf8_lossy(error).into_owned()),
                (10, Value::Varint(is_learner)) => status.is_learner = is_learner != 0,
                _ => {}
            }
        }
        Ok(status)
    }

    /// Whether the member leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.leader != 0 && self.leader == self.header.member_id
    }

    /// The alarms that the member knows, such as `NOSPACE`, sorted. In its errors they look like `memberID:7
    /// alarm:NOSPACE`.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let words = self.errors.iter().flat_map(|error| error.split_whitespace());
        let alarms = words.filter_map(|word| word.strip_prefix("alarm:"));
        let is_name = |alarm: &&str| alarm.len() <= MAX_ALARM && alarm.chars().all(char::is_alphanumeric);
        let mut found: Vec<String> = alarms.filter(is_name).map(ToOwned::to_owned).collect();
        found.sort();
        found.dedup();
        found.truncate(MAX_ALARMS);
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_status_of_a_member() {
        let answer = b"\x0a\x08\x08\x05\x10\x07\x18\x09\x20\x02\x12\x053.7.2\x20\x07\x30\x02\x50\x01\
            \x42\x19memberID:7 alarm:NOSPACE \x42\x01x";
        let header = Header { cluster_id: 5, member_id: 7, revision: 9, raft_term: 2 };
        assert_eq!(Header::of(answer), Ok(header));
        let status = Status::of(answer).unwrap();
        assert_eq!(status.alarms(), ["NOSPACE"]);
        assert!(status.is_leader());
        let errors = vec!["memberID:7 alarm:NOSPACE ".to_owned(), "x".to_owned()];
        assert_eq!(
            status,
            Status { header, version: "3.7.2".to_owned(), leader: 7, raft_term: 2, is_learner: true, errors }
        );
        assert!(!Status::default().is_leader() && Status::default().alarms().is_empty());
    }

    #[test]
    fn alarms_that_come_from_no_etcd_are_left_out() {
        let status = |errors| Status { errors, ..Status::default() };
        assert!(status(vec!["memberID:7 alarm:AAAAAAAAAAAAAAAAAAAAA".to_owned()]).alarms().is_empty());
        let many = (10..99).map(|n| format!("alarm:A{n}")).collect();
        assert_eq!(status(many).alarms().len(), MAX_ALARMS);
    }

    proptest! {
        #[test]
        fn no_answer_causes_a_panic(answer: Vec<u8>) {
            let _ = (Header::of(&answer), Status::of(&answer).map(|status| status.alarms()));
        }
    }
}
