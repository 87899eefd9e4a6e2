//! A server that sends anything.
#![no_main]

#[path = "../peer.rs"]
mod peer;

use etcdproxy_http2::Connection;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| peer::speak(Connection::client(), true, input));
