//! What happened on one stream, and what really happened.

use super::messages::{Create, Event, WatchResponse};

/// What a client did or heard on a stream, in the order in which it noticed.
#[derive(Debug, Clone)]
pub(super) enum Moment {
    Create {
        create: Create,
        /// The revision of the cluster at that time, or less.
        known: i64,
    },
    /// A change that the client has made after the create request with this number, counted from 0.
    MustSee {
        create: usize,
        revision: i64,
    },
    Cancel(i64),
    Progress,
    /// The client asks for nothing more.
    HalfClose,
    /// The client does not want to hear more.
    GiveUp,
    Heard {
        response: WatchResponse,
        /// Up to this revision, somebody may have compacted.
        compacted: i64,
    },
    /// The other side ended the stream.
    Ended(String),
}

/// What really happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past<'a> {
    /// In their order, with the previous values.
    pub(super) events: &'a [Event],
    /// All events from this revision on are there, ...
    pub(super) first: i64,
    /// ... up to this one.
    pub(super) last: i64,
}

/// What depends on the test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The user may read only keys with this prefix.
    pub(super) only: Option<&'static str>,
    /// The user's token may be of no use any more.
    pub(super) may_refuse: bool,
    /// Members failed.
    pub(super) has_faults: bool,
    /// A slow reader may find that its events are compacted away.
    pub(super) is_slow: bool,
    /// Every watch must have seen the events up to this revision.
    pub(super) end: Option<i64>,
}
