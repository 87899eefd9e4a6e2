//! The network: dials members, speaks TLS and recognises what answers. Everything that connects uses this one stack.

mod chain;
mod deadline;
mod dial;
mod error;
pub(crate) mod etcd_health;
mod http1;
mod http2;
pub(crate) mod local;
mod probe;
mod reload;
mod resolve;
pub(crate) mod sockets;
mod stream;
mod tls;

use std::io;

pub(crate) use deadline::Deadline;
pub(crate) use dial::{Connected, Dialer, Protocol, tune};
pub(crate) use error::{DialError, Step, is_refusal};
pub(crate) use http1::date;
use http1::get;
pub(crate) use probe::{LoginError, MemberConnection};
pub(crate) use resolve::{Found, Resolver, Target};
pub(crate) use stream::Stream;
pub(crate) use tls::{Certificate, SOON, days_left};

/// Runs `future` to its end on this thread, for callers that are not asynchronous.
///
/// # Errors
/// When the system has no descriptors left for an event loop.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let output = runtime.block_on(future);
    // A thread that reads certificates from a hung mount must not hold the caller up.
    runtime.shutdown_background();
    Ok(output)
}
