//! The watch hub: many watchers of many clients on few watchers of a member. It does no I/O: the engine tells it what
//! has come, and does what it says.
//!
//! The rule above all: each watcher gets every event once, in order, whatever happens to the member. Nothing here may
//! guess. So the code leans on few facts, and each is written down where it is used:
//!
//! - [`state`]: what the hub remembers. A [`state::Watcher`] is a client's, a [`state::Source`] is a member's. A source
//!   has a position: all of its events up to there have been handed out to its watchers.
//! - [`clients`]: the requests of clients, answered in their order. [`slow`]: those who do not read.
//! - [`join`]: a watcher that joins a source asks a member for the present revision. [`merge`]: sources that have become
//!   the same.
//! - [`sources`]: sources are opened, and opened again when the member is gone.
//! - [`deliver`] and [`bodies`]: events. [`progress`]: how positions rise without events.
//!
//! A source is shared by watchers with the same identity and the same [`Spec`](crate::api::watch::Spec).

#![cfg_attr(not(test), expect(dead_code, reason = "the engine does not use it yet"))]

mod action;
mod bodies;
mod clients;
mod deliver;
mod join;
mod merge;
mod progress;
mod slow;
mod sources;
mod state;
#[cfg(test)]
mod tests;

#[cfg_attr(not(test), expect(unused_imports, reason = "the engine does not use it yet"))]
pub(super) use action::{Action, ClientTag, End, Identity, Question, Upstream};
#[cfg_attr(not(test), expect(unused_imports, reason = "the engine does not use it yet"))]
pub(super) use state::Hub;
