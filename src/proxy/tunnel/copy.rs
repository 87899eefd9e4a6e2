//! Bytes from one side to the other, untouched.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A connection begins with this buffer in each direction, and most never need more.
const SMALL: usize = 2 * 1024;
/// One that fills its buffer gets a larger one, up to this.
const LARGE: usize = 32 * 1024;

/// Copies until `from` ends, and hands the end on. `count` gets the number of bytes.
///
/// Nothing is read before what was read last is written: a slow reader slows its writer down.
pub(crate) async fn copy(
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
