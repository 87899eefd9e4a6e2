//! Hostile command lines: none causes a panic, an undocumented exit code, more than a few lines, or an error that shows a
//! secret; and none writes outside of the places that it names.
//!
//! `ETCDPROXY_TEST_CASES` sets how many random command lines are tried.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{command, etcdproxy, fails_with, free_addr, unique_host};

/// Parts of it must not be shown either.
const PASSWORD: &str = "s3cret-pa55";

/// Two lines of a key, as in a PEM file.
const KEY: [&str; 2] = [
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2",
    "OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r",
];

/// A command that begins like this ends soon, whatever follows, because nothing listens at its endpoint.
const VERBS: &[&[&str]] = &[
    &["run", "--dry-run"],
    &["health"],
    &["wait", "--timeout", "10ms"],
    &["install", "--dry-run"],
    &["install", "--root", "image", "--dry-run=json"],
    &["uninstall", "--dry-run"],
    &["rollback", "--dry-run"],
    &["prune", "--dry-run"],
    &["list"],
    &["verify", "no/such/dir"],
    &["completions"],
    &["man", "/dev/null/x"],
    &["sbom"],
    &["version"],
    &["detect"],
    &["help"],
    &["package", "--output", "/dev/null/x"],
    &["unpack", "/dev/null/x"],
    &["nope"],
    &[],
];

const FLAGS: &[&str] = &[
    "--endpoints",
    "--listen-addr",
    "--mode",
    "--service",
    "--cacert",
    "--cert",
    "--key",
    "--server-name",
    "--namespace",
    "--metrics-addr",
    "--drain",
    "--memory",
    "--preflight",
    "--discovery-srv",
    "--log-format",
    "--prefix",
    "--bin-dir",
    "--root",
    "--user",
    "--force",
    "--purge",
    "--keep",
    "--systemd",
    "--enable",
    "--timeout",
    "--json",
    "--arch",
    "--stack",
    "--format",
    "--nope",
    "--",
    "-",
    "-x",
];

fn value() -> impl Strategy<Value = OsString> {
    let odd = prop::sample::select(vec![
        "",
        " ",
        "a\nb",
        "\u{1b}[2J",
        "%s%n",
        "$(id)",
        "../../../..",
        "/dev/null/x",
        "/proc/self/mem",
        "-1",
        "1e99",
        "99999999999999999999",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "[::1",
        "http://",
        "unix:///",
        "é",
        "\u{202e}",
        "'\"`",
        "\\",
        "*",
    ]);
    let at = format!("https://u:{PASSWORD}@127.0.0.1:1");
    let secret = prop::sample::select(vec![
        at.clone(),
        format!("{at},{at}"),
        format!("http://u:{PASSWORD}@"),
        format!("x://u:{PASSWORD}@@h:x/?#"),
        KEY[0].to_owned(),
        KEY.concat(),
        KEY.join("\n"),
        format!("BEGIN PRIVATE KEY\n{}", KEY.join("\n")),
        format!("  -----BEGIN PRIVATE KEY-----\\n{}\\n", KEY.join("\\n")),
    ]);
    prop_oneof![
        4 => odd.prop_map(OsString::from),
        2 => secret.prop_map(OsString::from),
        1 => "\\PC{0,20}".prop_map(OsString::from),
        1 => vec(1..=255u8, 0..12).prop_map(OsString::from_vec),
        1 => (0..3usize).prop_map(|n| "A".repeat(60_000 * n).into()),
    ]
}

fn command_line() -> impl Strategy<Value = Vec<OsString>> {
    let flag = prop::sample::select(FLAGS.to_vec());
    let word = prop_oneof![
        2 => (flag.clone(), value()).prop_map(|(flag, value)| vec![flag.into(), value]),
        2 => (flag.clone(), value()).prop_map(|(flag, value)| {
            let mut word = OsString::from(flag);
            word.push("=");
            word.push(value);
            vec![word]
        }),
        1 => flag.prop_map(|flag| vec![flag.into()]),
        1 => value().prop_map(|value| vec![value]),
    ];
    (prop::sample::select(VERBS.to_vec()), vec(word, 0..4))
        .prop_map(|(verb, words)| verb.iter().map(OsString::from).chain(words.into_iter().flatten()).collect())
}

/// Without the variables of this process, and with nothing at the endpoints.
fn hostile<I: IntoIterator<Item: AsRef<OsStr>>>(args: I, dir: &Path, listen_addr: &str) -> Command {
    let mut command = etcdproxy(args);
    command.current_dir(dir).env("HOME", dir.join("home")).env("TMPDIR", dir.join("tmp"));
    command.env("ETCDPROXY_LISTEN_ADDR", listen_addr);
    command
}

/// Checks one command line. Help texts are longer than errors.
fn check(args: &[OsString], listen_addr: &str) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["home", "tmp", "image"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    // A timeout of 20 s ends what should have ended by itself.
    let mut command = command("timeout".as_ref(), ["20"]);
    let hostile = hostile(args, dir.path(), listen_addr);
    command.arg(hostile.get_program()).args(hostile.get_args()).current_dir(dir.path());
    command.envs(hostile.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let shown = format!("{args:?}: {:?}\n{stderr}", output.status);

    assert_eq!(output.status.signal(), None, "{shown}");
    assert!([0, 1, 2, 69, 73, 77, 78, 127].contains(&output.status.code().unwrap()), "{shown}");
    let asks_for_help = args.is_empty() || stderr.starts_with("One binary with etcd inside");
    assert!(asks_for_help || stderr.lines().count() <= 12, "{shown}");
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace", PASSWORD, "s3cret", KEY[0], KEY[1]] {
        assert!(!stderr.contains(word), "{word}: {shown}");
    }
    assert!(!stderr.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    for name in ["home", "tmp", "image"] {
        assert_eq!(fs::read_dir(dir.path().join(name)).unwrap().count(), 0, "{name}: {shown}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "{shown}");
}

#[test]
fn no_command_line_causes_a_panic_or_shows_a_secret() {
    let cases = std::env::var("ETCDPROXY_TEST_CASES").map_or(150, |cases| cases.parse().unwrap());
    let listen_addr = free_addr(&unique_host());
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 50, ..ProptestConfig::default() };
    proptest!(config, |(args in command_line())| {
        // The kernel refuses a NUL byte, and more than 128 kB in one argument.
        prop_assume!(args.iter().all(|arg| !arg.as_encoded_bytes().contains(&0) && arg.len() < 128_000));
        check(&args, &listen_addr);
    });
}

#[test]
fn a_mangled_key_on_the_command_line_is_not_repeated() {
    let mangled = [
        KEY[0].to_owned(),
        KEY.concat(),
        format!("BEGIN PRIVATE KEY {}", KEY.concat()),
        format!("\n-----BEGIN PRIVATE KEY-----\n{}", KEY.join("\n")),
    ];
    for key in &mangled {
        for args in [
            vec!["run".to_owned(), "--key".to_owned(), key.clone()],
            vec!["run".to_owned(), format!("--key={key}")],
            vec!["run".to_owned(), key.clone()],
            vec!["unpack".to_owned(), key.clone()],
            vec![key.clone()],
        ] {
            let line = fails_with(2, &mut etcdproxy(&args));
            assert!(line.starts_with("etcdproxy: error: command line: it contains a certificate or key"), "{line}");
            assert!(!line.contains(&key[..20]), "{line}");
        }
    }
}
