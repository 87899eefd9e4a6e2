//! `etcdproxy wait` and `etcdproxy health`

use crate::support::{etcdproxy, fails_with, finish, server, succeeds, unique_addr, unique_host, wait_listening};

const READY: &str = "HTTP/1.1 200 OK\r\n\r\n{\"health\":\"true\"}";
const DOWN: &str = "HTTP/1.1 503 x\r\n\r\n{\"health\":\"false\",\"reason\":\"context deadline exceeded\"}";

#[test]
fn a_port_without_a_listener_is_not_ready() {
    let addr = unique_addr();
    let line = fails_with(69, &mut etcdproxy(["wait", "--timeout", "300ms", "--listen-addr", &addr]));
    assert_eq!(line, format!("etcdproxy: error: {addr} is not ready after 300ms: nothing listens there"));
    let line = fails_with(69, &mut etcdproxy(["wait", "--listening", "--timeout", "0s", "--listen-addr", &addr]));
    assert_eq!(line, format!("etcdproxy: error: {addr} is not listening after 0s: nothing listens there"));
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert_eq!(line, format!("etcdproxy: error: {addr} is not ready: nothing listens there"));
}

#[test]
fn a_proxy_whose_cluster_does_not_answer_listens_but_is_not_ready() {
    let addr = server(&unique_host(), DOWN);
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &addr]));
    assert!(line.ends_with("is not ready: the cluster does not answer: context deadline exceeded"), "{line}");
    let (code, stdout, _) = finish(&mut etcdproxy(["health", "--json", "--listen-addr", &addr]));
    assert_eq!(code, 69);
    let reason = "the cluster does not answer: context deadline exceeded";
    let expected = format!(r#"{{"listen_addr":"{addr}","listening":true,"ready":false,"reason":"{reason}"}}"#);
    assert_eq!(stdout.trim_end(), expected);
    wait_listening(&addr);
}

#[test]
fn another_server_is_not_ready() {
    let line = fails_with(69, &mut etcdproxy(["health", "--listen-addr", &server(&unique_host(), "SSH-2.0-x\r\n")]));
    assert!(line.ends_with("it does not answer as etcd does: not an HTTP/1.1 answer"), "{line}");
}

#[test]
fn wait_runs_its_command_when_the_cluster_answers_and_keeps_its_exit_code() {
    let addr = server(&unique_host(), READY);
    assert_eq!(succeeds(&mut etcdproxy(["health", "--listen-addr", &addr])), format!("{addr} is ready\n"));
    let wait = |command: &[&str]| finish(&mut etcdproxy([&["wait", "--listen-addr", &addr, "--"], command].concat()));
    assert_eq!(wait(&["sh", "-c", "echo done; exit 7"]), (7, "done\n".to_owned(), String::new()));
    let (code, _, stderr) = wait(&["/no/such/command"]);
    assert_eq!(code, 127, "{stderr}");
    assert!(stderr.starts_with("etcdproxy: error: cannot run /no/such/command: No such file"), "{stderr}");
}
