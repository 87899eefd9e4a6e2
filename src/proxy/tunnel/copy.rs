//! Copies bytes from one side to the other, untouched.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Each direction of a connection begins with this buffer, in bytes; most never need more.
const SMALL: usize = 2 * 1024;
/// A direction that fills its buffer gets a larger one, up to this.
const LARGE: usize = 32 * 1024;

/// Copies until `from` ends, and passes the end on. Adds the number of bytes to `count`.
///
/// It reads nothing before it has written what it read last: a slow reader slows its writer down.
pub(super) async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; SMALL];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
        if read == buffer.len() && read < LARGE {
            buffer.resize(read * 2, 0);
        }
    }
}
