//! A connection, whatever is below it.

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a member.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}
