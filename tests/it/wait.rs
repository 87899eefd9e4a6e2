//! `etcdproxy wait` and `etcdproxy health`

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crate::support::{etcdproxy, fails_with, finish, free_addr, own_host};

/// Something that answers each connection with the same bytes; its thread ends with the test.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind((own_host(), 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    addr
}

const READY: &str = "HTTP/1.1 200 OK\r\n\r\n{\"health\":\"true\"}";
const DOWN: &str = "HTTP/1.1 503 x\r\n\r\n{\"health\":\"false\",\"reason\":\"context deadline exceeded\"}";

#[test]
fn nothing_listens() {
    let addr = free_addr(&own_host());
    let line = fails_with(69, &mut etcdproxy(["wait", "--timeout", "300ms", "--listen-addr", &addr]));
    assert_eq!(line, format!("etcdproxy: error: {addr} is not ready after 300ms: nothing listens there"));
    let line = fails_with(69, &mut etcdproxy(["wait", "--listening", "--timeout", "0s", "--listen-addr", &addr]));
    assert_eq!(line, format!("etcdproxy: error: {addr} is not listening after 0s: nothing listens there"));
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert_eq!(line, format!("etcdproxy: error: {addr} is not ready: nothing listens there"));
}

#[test]
fn the_cluster_does_not_answer() {
    let addr = server(DOWN);
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.ends_with("is not ready: the cluster does not answer: context deadline exceeded"), "{line}");
    let (code, stdout, _) = finish(&mut etcdproxy(["health", "--json", "--listen-addr", &addr]));
    assert_eq!(code, 69);
    let reason = "the cluster does not answer: context deadline exceeded";
    let expected = format!(r#"{{"listen_addr":"{addr}","listening":true,"ready":false,"reason":"{reason}"}}"#);
    assert_eq!(stdout.trim_end(), expected);
    assert_eq!(finish(&mut etcdproxy(["wait", "--listening", "--listen-addr", &addr])).0, 0);
}

#[test]
fn something_else_listens() {
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &server("SSH-2.0-x\r\n")]));
    assert!(line.ends_with("it does not answer as etcd does: not an HTTP/1.1 answer"), "{line}");
}

#[test]
fn ready_and_then_a_command_that_keeps_its_code() {
    let addr = server(READY);
    assert_eq!(finish(&mut etcdproxy(["health", "--listen-addr", &addr])).1, format!("{addr} is ready\n"));
    let wait = |command: &[&str]| finish(&mut etcdproxy([&["wait", "--listen-addr", &addr, "--"], command].concat()));
    assert_eq!(wait(&["sh", "-c", "echo done; exit 7"]), (7, "done\n".to_owned(), String::new()));
    let (code, _, stderr) = wait(&["/no/such/command"]);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.starts_with("etcdproxy: error: cannot run /no/such/command: No such file"), "{stderr}");
}
