//! A client that sends anything.
#![no_main]

#[path = "../peer.rs"]
mod peer;

use etcdproxy_http2::{Connection, PREFACE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut server = Connection::server(8);
    let _ = server.next(&mut &*PREFACE);
    peer::speak(server, false, input);
});
