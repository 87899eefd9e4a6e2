//! The messages, by the library that others read protobuf with.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchRequest {
    #[prost(oneof = "Union", tags = "1, 2, 3")]
    pub(super) union: Option<Union>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Union {
    #[prost(message, tag = "1")]
    Create(Create),
    #[prost(message, tag = "2")]
    Cancel(Cancel),
    #[prost(message, tag = "3")]
    Progress(Progress),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Create {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) start: i64,
    #[prost(bool, tag = "4")]
    pub(super) notifies: bool,
    #[prost(int32, repeated, tag = "5")]
    pub(super) filters: Vec<i32>,
    #[prost(bool, tag = "6")]
    pub(super) previous: bool,
    #[prost(int64, tag = "7")]
    pub(super) id: i64,
    #[prost(bool, tag = "8")]
    pub(super) fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Cancel {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Progress {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(uint64, tag = "1")]
    pub(super) cluster: u64,
    #[prost(uint64, tag = "2")]
    pub(super) member: u64,
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
    #[prost(uint64, tag = "4")]
    pub(super) term: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(int64, tag = "2")]
    pub(super) id: i64,
    #[prost(bool, tag = "3")]
    pub(super) created: bool,
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(super) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(super) reason: String,
    #[prost(bool, tag = "7")]
    pub(super) fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

impl WatchResponse {
    pub(super) fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// 1: the key was deleted.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub(super) previous: Option<KeyValue>,
}

impl Event {
    pub(super) fn revision(&self) -> i64 {
        self.kv.as_ref().unwrap().mod_revision
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(super) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(super) version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
}

/// An answer of which only the header matters.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Headed {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
}

/// A request of a client.
pub(super) fn create(create: Create) -> Vec<u8> {
    WatchRequest { union: Some(Union::Create(create)) }.encode_to_vec()
}

pub(super) fn cancel(id: i64) -> Vec<u8> {
    WatchRequest { union: Some(Union::Cancel(Cancel { id })) }.encode_to_vec()
}

pub(super) fn progress() -> Vec<u8> {
    WatchRequest { union: Some(Union::Progress(Progress {})) }.encode_to_vec()
}

/// A create request for one key.
pub(super) fn key(key: &str, start: i64) -> Create {
    Create { key: key.into(), start, ..Create::default() }
}
