//! Speaks with a peer as the proxy does, and checks what must always be true.

use etcdproxy_http2::{Code, Connection, Event};

/// What is sent waits for windows beyond this.
const MUCH: usize = 100_000;
/// A stream's windows are smaller.
const WINDOW: usize = 256 * 1024;
/// The output takes no more data than this; headers and answers go beyond it, up to a limit.
const OUTPUT: usize = 3 << 20;

/// What the peer sends, in pieces. Between them, we do something: the first byte of each piece says what, and the second
/// how long the piece is.
pub fn speak(mut connection: Connection, is_client: bool, input: &[u8]) {
    let mut rest: Vec<u8> = Vec::new();
    let mut pieces = input;
    let mut streams: Vec<(u32, usize)> = Vec::new();
    let (mut said, mut second) = (0_usize, 0);
    while let Some((&[action, length], bytes)) = pieces.split_first_chunk() {
        let (piece, after) = bytes.split_at(bytes.len().min(usize::from(length)));
        pieces = after;
        // 16 bytes of a kind are enough to overrun a window.
        match piece.split_last() {
            Some((&last, _)) if action & 0x80 != 0 => rest.extend(std::iter::repeat_n(last, usize::from(last) * 64)),
            _ => rest.extend_from_slice(piece),
        }
        let all = std::mem::take(&mut rest);
        let mut left = &all[..];
        loop {
            match connection.next(&mut left) {
                Err(_) => return ends(&mut connection),
                Ok(None) => break,
                Ok(Some(event)) => {
                    if !hear(&mut connection, event, &mut streams) {
                        return ends(&mut connection);
                    }
                }
            }
        }
        assert!(left.len() < Connection::LONGEST_FRAME);
        rest = left.to_vec();
        let at = usize::from(length) % streams.len().max(1);
        let stream = streams.get(at).map_or(1, |(stream, _)| *stream);
        match action & 0x0f {
            // Only clients open streams.
            0 | 1 if is_client => {
                let tag = u64::from(length);
                if let Some(stream) = connection.open(tag) {
                    connection.send_headers(stream, b"\x83", action & 1 == 1);
                    streams.push((stream, 0));
                }
            }
            2 | 3 => {
                let (before, bytes) = (connection.held(), vec![0; usize::from(length) * 700]);
                if before < MUCH {
                    let sent = connection.send_data(stream, &bytes, action & 1 == 1);
                    assert!(connection.held() <= before + bytes.len() - sent);
                    said += bytes.len() - sent;
                }
            }
            4 | 5 => connection.send_headers(stream, b"\x88", true),
            6 => connection.reset(stream, Code::CANCEL),
            7 => {
                if let Some((stream, owed)) = streams.get_mut(at) {
                    connection.release(*stream, std::mem::take(owed));
                }
            }
            8 => connection.drain(),
            9 => drop(connection.take_streams(u32::from(length))),
            10 => {
                second += u32::from(length);
                connection.set_clock(second);
            }
            11 => connection.output().clear(),
            12 => connection.output().truncate(OUTPUT / 100),
            _ => {
                connection.output().clear();
                connection.pump();
            }
        }
        let sent: usize = connection.sent().map(|(_, bytes)| bytes).sum();
        assert!(sent <= said, "more has gone out than waited");
        said -= sent;
        assert!(connection.held() <= said);
        assert!(connection.output().len() < OUTPUT);
    }
    connection.take_streams(0);
}

fn hear(connection: &mut Connection, event: Event<'_>, streams: &mut Vec<(u32, usize)>) -> bool {
    match event {
        Event::Opened { stream, block, .. } => {
            assert!(!streams.iter().any(|(known, _)| *known == stream), "opened twice");
            connection.accept(stream, stream.into());
            streams.push((stream, 0));
            connection.decode(&block).is_ok()
        }
        Event::Headers { stream, block, .. } => {
            assert!(streams.iter().any(|(known, _)| *known == stream));
            connection.decode(&block).is_ok()
        }
        Event::Data { stream, bytes, .. } => {
            let (_, owed) = streams.iter_mut().find(|(known, _)| *known == stream).expect("it was opened");
            *owed += bytes.len();
            assert!(*owed <= WINDOW, "the window is overrun");
            true
        }
        Event::Reset { stream, .. } => {
            assert!(streams.iter().any(|(known, _)| *known == stream));
            true
        }
        Event::GoAway { .. } => true,
    }
}

/// The last thing that is said is the goodbye.
fn ends(connection: &mut Connection) {
    let out = connection.output();
    assert_eq!(out[out.len() - 17 + 3], 7);
    connection.take_streams(0);
    assert_eq!((connection.streams(), connection.held()), (0, 0));
}
