//! The log: a reader who does not read, and texts of other programs.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Cluster, Process, child_of, etcdproxy, eventually, fails_with, is_ready, server, unique_addr, unique_host,
    wait_listening, wait_ready,
};

/// What fills the pipe.
const FILLING: u8 = b'#';

/// Starts a program whose stderr is a full pipe, and returns the end that nobody reads.
fn start_with_stuck_reader(command: &mut Command) -> (Process, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    let set = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    while (&writer).write(&[FILLING; 4096]).is_ok() {}
    while (&writer).write(&[FILLING]).is_ok() {}
    set(OFlag::empty());
    let process = Process::start(command.stderr(writer));
    // The command holds the other end.
    command.stderr(Stdio::null());
    (process, File::from(std::os::fd::OwnedFd::from(reader)))
}

/// The log from here to its end.
fn read_rest(mut reader: File) -> String {
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    let start = log.iter().position(|byte| *byte != FILLING).unwrap_or(log.len());
    String::from_utf8(log.split_off(start)).unwrap()
}

fn run(mode: &str, endpoints: &str, addr: &str) -> Command {
    let mut command = etcdproxy(["run", "--mode", mode, "--endpoints", endpoints, "--listen-addr", addr]);
    command.args(["--drain", "0s"]);
    command
}

#[test]
fn a_reader_of_the_log_who_does_not_read_stops_nothing() {
    let cluster = Cluster::start(1);
    for (mode, message) in [("native", "the proxy (pid "), ("grpc-proxy", "etcd's proxy (pid ")] {
        let addr = unique_addr();
        let (mut process, reader) = start_with_stuck_reader(&mut run(mode, &cluster.endpoints(), &addr));
        wait_ready(&addr);
        let started = Instant::now();
        assert_eq!(process.terminate().code(), Some(0), "{mode}");
        assert!(started.elapsed() < Duration::from_secs(10), "{mode}: {:?}", started.elapsed());
        drop(reader);

        // What waits is written as soon as the reader reads again.
        let addr = unique_addr();
        let (mut process, reader) = start_with_stuck_reader(&mut run(mode, &cluster.endpoints(), &addr));
        wait_ready(&addr);
        let log = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&log);
        std::thread::spawn(move || {
            BufReader::new(reader).bytes().map_while(Result::ok).for_each(|byte| read.lock().unwrap().push(byte));
        });
        eventually(message, || String::from_utf8_lossy(&log.lock().unwrap()).contains(message));
        assert_eq!(process.terminate().code(), Some(0), "{mode}");
    }
}

/// A Go program that gets SIGQUIT writes what each of its threads does, and ends: 1 kB for each connection.
#[test]
fn what_etcd_writes_is_read_even_if_nobody_reads_the_log_and_what_is_too_much_is_counted() {
    let cluster = Cluster::start(1);
    for format in ["text", "raw"] {
        let addr = unique_addr();
        let mut command = run("grpc-proxy", &cluster.endpoints(), &addr);
        let (mut process, reader) = start_with_stuck_reader(command.args(["--log-format", format]));
        wait_ready(&addr);
        let connect = |_| {
            let mut client = TcpStream::connect(&addr).unwrap();
            client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
            client.read_exact(&mut [0; 9]).unwrap();
            client
        };
        let clients: Vec<TcpStream> = (0..400).map(connect).collect();
        let etcd = child_of(process.pid(), "etcd");
        kill(Pid::from_raw(etcd.try_into().unwrap()), Signal::SIGQUIT).unwrap();
        eventually("another etcd runs", || child_of(process.pid(), "etcd") != etcd);
        drop(clients);
        wait_ready(&addr);
        let log = std::thread::spawn(move || read_rest(reader));
        assert_eq!(process.terminate().code(), Some(0));
        let log = log.join().unwrap();
        assert!(log.len() < 600_000, "{format}: {} bytes waited", log.len());
        let is_report =
            |line: &&str| line.starts_with("etcdproxy: warning: ") && line.contains(" lines of the log were");
        assert!(log.lines().any(|line| is_report(&line)), "{format}: {}", &log[..log.len().min(2000)]);
        assert!(log.contains("goroutine "), "{format}");
    }
}

/// A short command has no reason to drop anything: it waits for its reader.
#[test]
fn a_short_command_writes_its_error_although_its_reader_is_late() {
    let mut command = etcdproxy(["unpack", "/proc/no/such/directory"]);
    let (mut process, reader) = start_with_stuck_reader(&mut command);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(process.is_running());
    let log = std::thread::spawn(move || read_rest(reader));
    assert_eq!(process.wait().code(), Some(73));
    let log = log.join().unwrap();
    assert!(log.starts_with("etcdproxy: error: ") && log.ends_with('\n'), "{log}");
}

/// HTTP/2: SETTINGS, and the HEADERS of a gRPC error whose message has 3 kB and sets the colour of a terminal.
fn hostile_member() -> String {
    const LENGTH: usize = 3000;
    let literal = |name: &str, value: &str| {
        let length = |text: &str| {
            // RFC 7541, 5.1: an integer with a prefix of 7 bits.
            let byte = |number: usize| u8::try_from(number).unwrap();
            match text.len().checked_sub(127) {
                None => vec![byte(text.len())],
                Some(rest) => vec![127, byte(rest % 128) | 128, byte(rest / 128)],
            }
        };
        [&[0][..], &length(name), name.as_bytes(), &length(value), value.as_bytes()].concat()
    };
    let message = format!("\u{1b}[31mred\netcdproxy: forged line{}", "x".repeat(LENGTH));
    let block = [
        vec![0x88],
        literal("content-type", "application/grpc"),
        literal("grpc-status", "14"),
        literal("grpc-message", &message),
    ]
    .concat();
    let mut answer = b"\0\0\0\x04\0\0\0\0\0".to_vec();
    answer.extend_from_slice(&u32::try_from(block.len()).unwrap().to_be_bytes()[1..]);
    answer.extend_from_slice(&[1, 5, 0, 0, 0, 1]);
    answer.extend_from_slice(&block);
    server(&unique_host(), answer)
}

#[test]
fn what_a_member_says_cannot_forge_a_line_or_reach_the_terminal() {
    let member = hostile_member();
    for format in ["text", "json"] {
        let addr = unique_addr();
        let mut command = run("native", &member, &addr);
        let mut process = Process::start(command.args(["--log-format", format]).stderr(Stdio::piped()));
        wait_listening(&addr);
        std::thread::sleep(Duration::from_secs(1));
        assert!(!is_ready(&addr));
        assert_eq!(process.terminate().code(), Some(0));
        let log = process.stderr_text();
        assert!(log.contains("[31mred") && log.contains("etcdproxy: forged"), "{log}");
        assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
        assert!(log.lines().all(|line| !line.starts_with("etcdproxy: forged")), "{log}");
        assert!(log.lines().all(|line| line.len() < 9000), "{log}");
    }
}

#[test]
fn a_name_cannot_forge_a_line_or_reach_the_terminal() {
    let line = fails_with(73, &mut etcdproxy(["unpack", "/proc/\u{1b}[31mred\netcdproxy: forged\u{202e}"]));
    assert!(line.contains(r"/proc/\u{1b}[31mred\netcdproxy: forged\u{202e}"), "{line}");
    assert!(line.chars().all(|c| !(c.is_control() || c == '\u{202e}')), "{line:?}");
}
