//! The messages of a watch, as etcd's `rpc.proto` and `kv.proto` number their fields.

use prost::bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(uint64, tag = "1")]
    pub(super) cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
    #[prost(uint64, tag = "4")]
    pub(super) raft_term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(int64, tag = "2")]
    pub(super) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(super) version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
    #[prost(int64, tag = "6")]
    pub(super) lease: i64,
}

/// The kinds of events; a filter has the same numbers.
pub(super) const PUT: i32 = 0;
pub(super) const DELETE: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub(super) prev_kv: Option<KeyValue>,
}

impl Event {
    pub(super) fn revision(&self) -> i64 {
        self.kv.as_ref().map_or(0, |kv| kv.mod_revision)
    }

    pub(super) fn key(&self) -> &[u8] {
        self.kv.as_ref().map_or(b"", |kv| &kv.key)
    }

    /// In few words, for a report.
    pub(super) fn short(&self) -> String {
        let Some(kv) = &self.kv else { return format!("kind {} without a key", self.kind) };
        let kind = if self.kind == PUT { "put" } else { "delete" };
        let prev = self.prev_kv.as_ref().map_or_else(String::new, |prev| format!(" prev@{}", prev.mod_revision));
        format!(
            "{}@{} {kind} created@{} version {} {}{prev}",
            kv.key.escape_ascii(),
            kv.mod_revision,
            kv.create_revision,
            kv.version,
            short(&kv.value)
        )
    }
}

fn short(value: &[u8]) -> String {
    let head = &value[..value.len().min(12)];
    format!("{:?} ({} bytes)", head.escape_ascii().to_string(), value.len())
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(int64, tag = "2")]
    pub(super) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(super) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(super) cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub(super) fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Create {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) range_end: Bytes,
    #[prost(int64, tag = "3")]
    pub(super) start_revision: i64,
    #[prost(bool, tag = "4")]
    pub(super) progress_notify: bool,
    /// [`PUT`]: no puts; [`DELETE`]: no deletes.
    #[prost(int32, repeated, tag = "5")]
    pub(super) filters: Vec<i32>,
    #[prost(bool, tag = "6")]
    pub(super) prev_kv: bool,
    #[prost(int64, tag = "7")]
    pub(super) watch_id: i64,
    #[prost(bool, tag = "8")]
    pub(super) fragment: bool,
}

impl Create {
    /// etcd refuses a range whose end is not above its key.
    pub(super) fn is_empty(&self) -> bool {
        !self.range_end.is_empty() && *self.range_end != b"\0"[..] && self.key >= self.range_end
    }

    /// Whether an event belongs to the watch, its revision aside.
    pub(super) fn wants(&self, event: &Event) -> bool {
        let key = event.key();
        let is_in_range = if self.range_end.is_empty() {
            key == self.key
        } else {
            key >= &self.key[..] && (*self.range_end == b"\0"[..] || key < &self.range_end[..])
        };
        is_in_range && !self.filters.contains(&event.kind)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Cancel {
    #[prost(int64, tag = "1")]
    pub(super) watch_id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Progress {}

/// A oneof: one of the fields is there.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) create: Option<Create>,
    #[prost(message, optional, tag = "2")]
    pub(super) cancel: Option<Cancel>,
    #[prost(message, optional, tag = "3")]
    pub(super) progress: Option<Progress>,
}
