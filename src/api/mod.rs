//! etcd's API as data: what its methods are, and what in their messages a proxy reads or changes.
//!
//! Only pure functions on bytes. A message is the protobuf inside of a gRPC frame, without the frame's prefix of 5 bytes
//! and not compressed. The field numbers are those of the `.proto` files that etcd publishes (3.4 to 3.7).

pub(crate) mod auth;
pub(crate) mod lease;
pub(crate) mod member_list;
pub(crate) mod methods;
pub(crate) mod namespace;
pub(crate) mod range;
pub(crate) mod status;
pub(crate) mod watch;
pub(crate) mod wire;
