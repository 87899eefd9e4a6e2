//! Two ends of a connection, and a peer that breaks the rules.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;

use etcdproxy_http2::hpack::{self, Field};
use etcdproxy_http2::{Code, Connection, Error, Event, PREFACE};
use proptest::prelude::*;

const TAG: u64 = 7;

/// What a connection said about a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    headers: Vec<Vec<Field>>,
    bytes: Vec<u8>,
    ended: bool,
    reset: Option<Code>,
}

/// A connection, and what it has heard.
struct Side {
    connection: Connection,
    rest: Vec<u8>,
    heard: BTreeMap<u32, Heard>,
    /// Bytes of data that were not released yet.
    held: BTreeMap<u32, usize>,
    goes: Option<u32>,
}

impl Side {
    fn new(connection: Connection) -> Self {
        Self { connection, rest: Vec::new(), heard: BTreeMap::new(), held: BTreeMap::new(), goes: None }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let mut input = &all[..];
        while let Some(event) = self.connection.next(&mut input)? {
            match event {
                Event::Opened { stream, block, end } => {
                    self.connection.accept(stream, TAG + u64::from(stream));
                    let fields = self.connection.decode(&block)?;
                    let heard = self.heard.entry(stream).or_default();
                    heard.headers.push(fields);
                    heard.ended = end;
                }
                Event::Headers { stream, tag, block, end } => {
                    assert_eq!(tag, TAG + u64::from(stream));
                    let fields = self.connection.decode(&block)?;
                    let heard = self.heard.entry(stream).or_default();
                    heard.headers.push(fields);
                    heard.ended = end;
                }
                Event::Data { stream, tag, bytes, end } => {
                    assert_eq!(tag, TAG + u64::from(stream));
                    let heard = self.heard.entry(stream).or_default();
                    heard.bytes.extend_from_slice(bytes);
                    heard.ended = end;
                    *self.held.entry(stream).or_default() += bytes.len();
                }
                Event::Reset { stream, code, .. } => self.heard.entry(stream).or_default().reset = Some(code),
                Event::GoAway { last, .. } => self.goes = Some(last),
            }
        }
        assert!(input.len() < Connection::LONGEST_FRAME);
        self.rest = input.to_vec();
        Ok(())
    }

    fn output(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(self.connection.output());
        self.connection.pump();
        bytes
    }
}

/// Lets both sides speak until neither has anything to say.
fn talk(client: &mut Side, server: &mut Side) {
    loop {
        let (from_client, from_server) = (client.output(), server.output());
        if from_client.is_empty() && from_server.is_empty() {
            return;
        }
        server.receive(&from_client).unwrap();
        client.receive(&from_server).unwrap();
    }
}

fn pair() -> (Side, Side) {
    let (mut client, mut server) = (Side::new(Connection::client()), Side::new(Connection::server(100)));
    talk(&mut client, &mut server);
    assert!(client.connection.has_settings() && client.connection.is_stateless() && server.connection.is_stateless());
    (client, server)
}

fn open(client: &mut Side) -> u32 {
    // Tags are known by streams here: the next one is not, so it is opened with the tag that it will need.
    let next = u32::try_from(client.heard.len() * 2 + 1).unwrap();
    client.heard.entry(next).or_default();
    assert_eq!(client.connection.open(TAG + u64::from(next)), Some(next));
    next
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        hpack::encode(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;

/// A server whose client has sent its preface and empty settings.
fn server() -> Side {
    let mut server = Side::new(Connection::server(100));
    server.receive(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(SETTINGS, 1, 0, b"")].concat()).unwrap();
    server.connection.output().clear();
    server
}

#[test]
fn a_call() {
    let (mut client, mut server) = pair();
    let stream = open(&mut client);
    client.connection.send_headers(stream, &block(&[(":method", "POST"), ("x", "1")]), false);
    assert_eq!(client.connection.send_data(stream, b"hello", true), 5);
    talk(&mut client, &mut server);
    let heard = &server.heard[&stream];
    assert_eq!((&heard.bytes[..], heard.ended, heard.headers.len()), (&b"hello"[..], true, 1));
    server.connection.send_headers(stream, &block(&[(":status", "200")]), false);
    server.connection.send_data(stream, b"world", false);
    server.connection.send_headers(stream, &block(&[("grpc-status", "0")]), true);
    talk(&mut client, &mut server);
    let heard = &client.heard[&stream];
    assert_eq!((&heard.bytes[..], heard.ended, heard.headers.len(), heard.reset), (&b"world"[..], true, 2, None));
    assert_eq!((client.connection.streams(), server.connection.streams()), (0, 0));
}

#[test]
fn an_early_answer_ends_the_request() {
    let (mut client, mut server) = pair();
    let stream = open(&mut client);
    client.connection.send_headers(stream, &block(&[(":method", "POST")]), false);
    talk(&mut client, &mut server);
    server.connection.send_headers(stream, &block(&[("grpc-status", "8")]), true);
    assert_eq!(server.connection.streams(), 0);
    talk(&mut client, &mut server);
    assert!(client.heard[&stream].ended);
    assert_eq!(client.connection.streams(), 0);
    client.connection.send_data(stream, b"late", true);
    talk(&mut client, &mut server);
}

#[test]
fn a_reader_that_takes_nothing_stops_its_writer_and_nobody_else() {
    let (mut client, mut server) = pair();
    let (slow, fast) = (open(&mut client), open(&mut client));
    for stream in [slow, fast] {
        client.connection.send_headers(stream, &block(&[(":method", "POST")]), false);
    }
    let megabyte = vec![1; 1 << 20];
    client.connection.send_data(slow, &megabyte, true);
    talk(&mut client, &mut server);
    assert_eq!(server.heard[&slow].bytes.len(), 256 * 1024, "a stream's window");
    assert_eq!(client.connection.send_data(fast, b"quick", true), 5);
    talk(&mut client, &mut server);
    assert!(server.heard[&fast].ended);
    let mut sent = client.connection.sent().map(|(_, bytes)| bytes).sum::<usize>();
    while !server.heard[&slow].ended {
        let held = std::mem::take(server.held.get_mut(&slow).unwrap());
        assert!(held > 0, "it goes on");
        server.connection.release(slow, held);
        talk(&mut client, &mut server);
        sent += client.connection.sent().map(|(_, bytes)| bytes).sum::<usize>();
    }
    assert_eq!(server.heard[&slow].bytes.len(), megabyte.len());
    assert!(sent > megabyte.len() - 256 * 1024, "whoever gave the data was told that it went out");
}

#[test]
fn long_header_blocks_are_split() {
    let (mut client, mut server) = pair();
    let stream = open(&mut client);
    let long = "x".repeat(40_000);
    client.connection.send_headers(stream, &block(&[("a", &long), ("b", "2")]), true);
    talk(&mut client, &mut server);
    assert_eq!(server.heard[&stream].headers[0][0].value.len(), long.len());
}

#[test]
fn a_drain_lets_calls_end_and_takes_no_new_ones() {
    let (mut client, mut server) = pair();
    let stream = open(&mut client);
    client.connection.send_headers(stream, &block(&[(":method", "POST")]), true);
    talk(&mut client, &mut server);
    server.connection.drain();
    // This one is on its way when the client hears of the drain.
    let late = open(&mut client);
    client.connection.send_headers(late, &block(&[(":method", "POST")]), true);
    talk(&mut client, &mut server);
    assert_eq!((client.goes, client.connection.open(1)), (Some(late), None));
    for stream in [stream, late] {
        assert!(!server.connection.is_drained());
        server.connection.send_headers(stream, &block(&[("grpc-status", "0")]), true);
        talk(&mut client, &mut server);
        assert!(client.heard[&stream].ended);
    }
    assert!(server.connection.is_drained());
}

#[test]
fn a_drain_does_not_depend_on_the_client() {
    let mut server = server();
    server.connection.drain();
    server.output();
    assert!(!server.connection.is_drained());
    server.connection.drain();
    assert_eq!(server.output(), frame(7, 0, 0, &[0; 8]));
    assert!(server.connection.is_drained());
    server.connection.drain();
    assert_eq!(server.output(), b"");
}

#[test]
fn a_client_gives_up_streams_that_a_drain_forbids() {
    let mut server = server();
    server.receive(&frame(1, 5, 1, &block(&[(":method", "POST")]))).unwrap();
    server.connection.drain();
    server.connection.drain();
    server.output();
    // It has opened them, but their headers did not go out before it heard of the drain.
    server.receive(&[frame(3, 0, 3, &[0, 0, 0, 8]), frame(8, 0, 5, &[0, 0, 1, 0])].concat()).unwrap();
    assert_eq!((server.connection.streams(), server.output()), (1, vec![]));
}

#[test]
fn too_many_streams_are_refused_and_the_others_go_on() {
    let mut server = server();
    let request = block(&[(":method", "POST")]);
    let many: Vec<u8> = (0..101).flat_map(|n| frame(1, 4, 2 * n + 1, &request)).collect();
    server.receive(&many).unwrap();
    assert_eq!(server.connection.streams(), 100);
    assert_eq!(server.output(), frame(3, 0, 201, &7_u32.to_be_bytes()));
}

#[test]
fn streams_that_are_gone_may_still_be_spoken_of() {
    let mut server = server();
    server.receive(&frame(1, 4, 1, &block(&[(":method", "POST")]))).unwrap();
    server.connection.reset(1, Code::CANCEL);
    let late = [
        frame(0, 0, 1, b"data"),
        frame(8, 0, 1, &[0, 0, 1, 0]),
        frame(1, 5, 1, &block(&[("a", "b")])),
        frame(3, 0, 1, &[0, 0, 0, 8]),
    ];
    server.receive(&late.concat()).unwrap();
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    let post = block(&[(":method", "POST")]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an even stream", frame(1, 4, 2, &post)),
        ("data on an idle stream", frame(0, 0, 1, b"x")),
        ("a reset of an idle stream", frame(3, 0, 5, &[0; 4])),
        ("a window of an idle stream", frame(8, 0, 5, &[0, 0, 1, 0])),
        ("a window that is opened by nothing", frame(8, 0, 0, &[0; 4])),
        ("a window that is too large", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a wrong length", frame(8, 0, 0, &[0; 3])),
        ("settings of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, b"")),
        ("an initial window that is too large", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ("a longest frame that is too short", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 1, 0])),
        ("headers without a stream", frame(1, 4, 0, &post)),
        ("a push", frame(5, 4, 1, &[0, 0, 0, 2])),
        ("a ping of seven bytes", frame(6, 0, 0, &[0; 7])),
        ("a goodbye that is too short", frame(7, 0, 0, &[0; 7])),
        ("padding that is too long", frame(1, 12, 1, &[9, 0, 0])),
        ("a priority that is too short", frame(1, 0x24, 1, &[0; 4])),
        ("a block that is not HPACK", frame(1, 4, 1, b"\x80")),
        ("a continuation of nothing", frame(9, 4, 1, &post)),
        ("a frame inside a block", [frame(1, 0, 1, &post), frame(6, 0, 0, &[0; 8])].concat()),
        ("a block of another stream", [frame(1, 0, 1, &post), frame(9, 4, 3, &post)].concat()),
        ("data after the end", [frame(1, 5, 1, &post), frame(0, 0, 1, b"x")].concat()),
        ("headers after the end", [frame(1, 5, 1, &post), frame(1, 5, 1, &post)].concat()),
        ("two blocks and no end", [frame(1, 4, 1, &post), frame(1, 4, 1, &post)].concat()),
        ("a frame that is too long", vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1]),
        ("a bomb of numbers", frame(1, 4, 1, &vec![0x90; 16_000])),
    ];
    for (what, bytes) in cases {
        let mut server = server();
        assert!(server.receive(&bytes).is_err(), "{what}");
        let said = server.output();
        assert_eq!(said[said.len() - 17 + 3], 7, "{what}: the last frame is the goodbye");
    }
    assert!(Side::new(Connection::server(1)).receive(b"PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n").is_err());
    let mut early = Side::new(Connection::server(1));
    assert!(early.receive(&[PREFACE, &frame(6, 0, 0, &[0; 8])].concat()).is_err(), "settings come first");
}

/// The frames of a flood, by number.
type Flood<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;

/// Each of these costs the sender less than us.
#[test]
fn floods_end_the_connection() {
    let post = block(&[(":method", "POST")]);
    let reset = |n: u32| [frame(1, 4, 2 * n + 1, &post), frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat();
    let floods: Vec<(&str, Flood<'_>)> = vec![
        ("opens and resets", Box::new(reset)),
        ("pings", Box::new(|_| frame(6, 0, 0, &[0; 8]))),
        ("settings", Box::new(|_| frame(SETTINGS, 0, 0, b""))),
        ("empty data", Box::new(|n| if n == 0 { frame(1, 4, 1, &post) } else { frame(0, 0, 1, b"") })),
        ("padding only", Box::new(|n| if n == 0 { frame(1, 4, 1, &post) } else { frame(0, 8, 1, &[1, 0]) })),
        ("goodbyes", Box::new(|_| frame(7, 0, 0, &[0; 8]))),
        ("requests whose answers are not read", Box::new(|n| frame(1, 5, 2 * n + 1, &block(&[(":path", "unread")])))),
        ("fields of one byte", Box::new(|n| frame(1, 5, 2 * n + 1, &vec![0x95; 1800]))),
        ("priorities", Box::new(|_| frame(2, 0, 1, &[0; 5]))),
        ("unknown frames", Box::new(|_| frame(77, 0, 0, b""))),
        ("continuations", Box::new(|n| if n == 0 { frame(1, 0, 1, &post) } else { frame(9, 0, 1, b"") })),
        ("a long block", Box::new(|n| frame(if n == 0 { 1 } else { 9 }, 0, 1, &[0; 4000]))),
        ("more streams than allowed", Box::new(|n| frame(1, 4, 2 * n + 1, &post))),
        (
            "data beyond the window",
            Box::new(|n| if n == 0 { frame(1, 4, 1, &post) } else { frame(0, 0, 1, &[0; 16_000]) }),
        ),
    ];
    for (what, flood) in floods {
        let mut server = server();
        let mut most = 0;
        let ended = (0..200_000).find(|n| {
            let result = server.receive(&flood(*n));
            if what.starts_with("requests") {
                server.connection.send_headers(2 * n + 1, &block(&[("grpc-message", &"x".repeat(1000))]), true);
            }
            most = most.max(server.connection.output().len());
            result.is_err()
        });
        assert!(ended.is_some(), "{what}");
        assert!(most < 3 << 20, "{what}: {most} bytes gathered");
    }
}

/// A window that is opened byte by byte makes us send a frame for each.
#[test]
fn windows_of_a_byte_end_the_connection_and_small_parts_of_large_ones_do_not() {
    let get = block(&[(":method", "POST")]);
    let part = |stream| frame(8, 0, stream, &[0, 0, 0, 1]);
    let mut server = server();
    server.receive(&[frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), frame(1, 5, 1, &get)].concat()).unwrap();
    // So does grpc-go, for each message.
    assert!((0..10_000).all(|_| server.receive(&part(0)).is_ok()));
    server.connection.send_headers(1, &get, false);
    server.connection.send_data(1, &vec![1; 100_000], true);
    let ended = (0..10_000).find(|_| server.receive(&part(1)).is_err());
    assert!(ended.is_some_and(|n| n >= 2000), "{ended:?}");
}

/// Members reset what we have opened, often for good reasons: that is no flood.
#[test]
fn floods_of_a_server_end_the_connection_and_its_resets_do_not() {
    let start = || {
        let mut client = Side::new(Connection::client());
        client.receive(&[frame(SETTINGS, 0, 0, b""), frame(SETTINGS, 1, 0, b"")].concat()).unwrap();
        client
    };
    let mut client = start();
    for n in 0..10_000 {
        let stream = open(&mut client);
        assert_eq!(stream, 2 * n + 1);
        client.receive(&frame(3, 0, stream, &7_u32.to_be_bytes())).unwrap();
        client.connection.output().clear();
    }
    let interim = frame(1, 4, 1, &block(&[(":status", "103")]));
    for flood in [interim, frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])] {
        let mut client = start();
        assert_eq!(open(&mut client), 1);
        assert!((0..10_000).any(|_| client.receive(&flood).is_err()));
    }
}

/// A frame with 2,730 settings, each of which changes the windows of all streams, costs no more than one with one.
#[test]
fn settings_that_change_many_windows_many_times() {
    let (mut client, mut server) = pair();
    let streams: Vec<u32> = (0..50).map(|_| open(&mut client)).collect();
    for stream in &streams {
        client.connection.send_headers(*stream, &block(&[(":method", "POST")]), true);
    }
    talk(&mut client, &mut server);
    for stream in &streams {
        server.connection.send_data(*stream, &vec![1; 70_000], true);
    }
    let windows = |last: u32| {
        let setting = |value: u32| [&[0, 4][..], &value.to_be_bytes()].concat();
        let all: Vec<u8> = (0..2729).map(|n| n % 2 * 0x7fff_ffff).chain([last]).flat_map(setting).collect();
        frame(SETTINGS, 0, 0, &all)
    };
    server.connection.output().clear();
    for last in [0, 1, 1 << 20, 0] {
        server.receive(&windows(last)).unwrap();
    }
    let too_large = [&[0, 4, 0x80, 0, 0, 0][..], &[0, 4, 0, 0, 0, 1]].concat();
    assert!(server.receive(&frame(SETTINGS, 0, 0, &too_large)).is_err(), "the last one is good, the first one is not");
}

#[test]
fn a_client_may_give_up_all_its_streams_at_once() {
    let mut server = Side::new(Connection::server(4096));
    server.receive(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).unwrap();
    let post = block(&[(":method", "POST")]);
    let all: Vec<u32> = (0..4096).map(|n| 2 * n + 1).collect();
    server.receive(&all.iter().flat_map(|id| frame(1, 4, *id, &post)).collect::<Vec<_>>()).unwrap();
    server.receive(&all.iter().flat_map(|id| frame(3, 0, *id, &8_u32.to_be_bytes())).collect::<Vec<_>>()).unwrap();
    assert_eq!(server.connection.streams(), 0);
}

#[test]
fn ordinary_cancellations_go_on_for_ever() {
    let mut server = server();
    let post = block(&[(":method", "POST")]);
    for second in 0..100 {
        server.connection.set_clock(second);
        for n in 0..900 {
            let id = (second * 900 + n) * 2 + 1;
            server.receive(&[frame(1, 4, id, &post), frame(3, 0, id, &8_u32.to_be_bytes())].concat()).unwrap();
        }
        server.connection.output().clear();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Send { at: usize, bytes: usize, end: bool },
    Answer { at: usize, bytes: usize, end: bool },
    Release { at: usize },
    Cancel { at: usize },
    Talk,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..6_usize;
    let bytes = prop_oneof![0..100_usize, 60_000..70_000_usize, 200_000..400_000_usize];
    let step = prop_oneof![
        Just(Step::Open),
        (at.clone(), bytes.clone(), any::<bool>()).prop_map(|(at, bytes, end)| Step::Send { at, bytes, end }),
        (at.clone(), bytes, any::<bool>()).prop_map(|(at, bytes, end)| Step::Answer { at, bytes, end }),
        at.clone().prop_map(|at| Step::Release { at }),
        at.prop_map(|at| Step::Cancel { at }),
        Just(Step::Talk),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever both sides do, each hears what the other said on each stream, in order, and nothing else.
    #[test]
    fn what_is_said_is_heard(steps in steps()) {
        let (mut client, mut server) = pair();
        let mut said: BTreeMap<(bool, u32), Vec<u8>> = BTreeMap::new();
        let mut dead: Vec<u32> = Vec::new();
        let mut closed: Vec<(bool, u32)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            let id = |at: usize| u32::try_from(2 * at + 1).unwrap();
            let fill = u8::try_from(n % 251).unwrap();
            match step {
                Step::Open => {
                    let stream = open(&mut client);
                    client.connection.send_headers(stream, &block(&[(":method", "POST")]), false);
                    talk(&mut client, &mut server);
                    server.connection.send_headers(stream, &block(&[(":status", "200")]), false);
                }
                Step::Send { at, bytes, end } | Step::Answer { at, bytes, end } => {
                    let from_client = matches!(step, Step::Send { .. });
                    let stream = id(at);
                    // The server's end ends the client's side too.
                    let is_open = server.heard.contains_key(&stream)
                        && !dead.contains(&stream)
                        && !closed.contains(&(from_client, stream))
                        && !closed.contains(&(false, stream));
                    if !is_open {
                        continue;
                    }
                    let data = vec![fill; bytes];
                    let side = if from_client { &mut client } else { &mut server };
                    side.connection.send_data(stream, &data, end);
                    said.entry((from_client, stream)).or_default().extend(data);
                    if end {
                        closed.push((from_client, stream));
                    }
                }
                Step::Release { at } => {
                    for side in [&mut client, &mut server] {
                        let held = side.held.get_mut(&id(at)).map(std::mem::take).unwrap_or_default();
                        side.connection.release(id(at), held);
                    }
                }
                Step::Cancel { at } => {
                    client.connection.reset(id(at), Code::CANCEL);
                    dead.push(id(at));
                }
                Step::Talk => talk(&mut client, &mut server),
            }
        }
        // Everything is taken in the end.
        for _ in 0..50 {
            talk(&mut client, &mut server);
            for side in [&mut client, &mut server] {
                for (id, held) in std::mem::take(&mut side.held) {
                    side.connection.release(id, held);
                }
            }
        }
        prop_assert_eq!((client.connection.held(), server.connection.held()), (0, 0));
        for ((from_client, stream), bytes) in said {
            let heard = if from_client { &server.heard } else { &client.heard };
            let heard = heard.get(&stream).map(|heard| &heard.bytes[..]).unwrap_or_default();
            prop_assert!(bytes.starts_with(heard));
            let is_cut = dead.contains(&stream) || (from_client && closed.contains(&(false, stream)));
            prop_assert!(is_cut || heard.len() == bytes.len(), "{} of {} on {stream}", heard.len(), bytes.len());
        }
    }

    /// Frames that make no sense never cause a panic, and never make a connection grow.
    #[test]
    fn random_frames(frames: Vec<(u8, u8, u8, Vec<u8>)>) {
        let mut server = server();
        let mut client = Side::new(Connection::client());
        client.connection.open(TAG + 1);
        let _ = client.receive(&frame(SETTINGS, 0, 0, b""));
        for (kind, flags, stream, payload) in frames {
            let bytes = frame(kind % 11, flags, u32::from(stream % 8), &payload);
            let ended = (server.receive(&bytes).is_err(), client.receive(&bytes).is_err());
            if ended.0 || ended.1 {
                break;
            }
        }
    }

    #[test]
    fn random_bytes(bytes: Vec<u8>) {
        let _ = server().receive(&bytes);
    }
}
