//! One kind of mistake has one exit code, whichever command meets it.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::{etcdproxy, fails_with, finish, unique_addr};

/// The commands that write files, with a place to write to. Each gets the place as `PLACE`.
const WRITING: [(&str, &[&str]); 9] = [
    ("unpack", &["unpack", "PLACE"]),
    ("man", &["man", "PLACE"]),
    ("package", &["package", "--output", "PLACE"]),
    ("install", &["install", "--prefix", "PLACE"]),
    ("dev", &["dev", "--data-dir", "PLACE", "--", "true"]),
    ("dev in TMPDIR", &["TMPDIR", "dev", "--", "true"]),
    ("run", &["ETCDPROXY_UNPACK_DIR", "run", "--endpoints", "h:1", "--preflight", "off"]),
    ("exec", &["ETCDPROXY_UNPACK_DIR", "exec", "--endpoints", "h:1", "--preflight", "off", "--", "true"]),
    ("dev from ETCDPROXY_UNPACK_DIR", &["ETCDPROXY_UNPACK_DIR", "dev", "--", "true"]),
];

/// The command; its first word is a variable if it is in upper case.
fn writing(words: &[&str], place: &str) -> Command {
    let is_variable = words[0].chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let args = words[usize::from(is_variable)..].iter().map(|word| if *word == "PLACE" { place } else { word });
    let mut command = etcdproxy(args);
    command.env("ETCDPROXY_LISTEN_ADDR", unique_addr());
    if is_variable {
        command.env(words[0], place);
    }
    command
}

/// Checks that the error is one line that names the place and says what to do.
#[track_caller]
fn cannot_write(code: i32, name: &str, command: &mut Command, place: &str) {
    let line = fails_with(code, command);
    let problem = line.strip_prefix("etcdproxy: error: ").unwrap_or_else(|| panic!("{name}: {line}"));
    assert!(problem.contains(place), "{name}: {line}");
    assert!(problem.rsplit(": ").next().unwrap().split(' ').count() > 2, "{name}, what to do: {line}");
    assert!(!problem.contains("os error"), "{name}: {line}");
}

#[test]
fn a_place_that_cannot_be_written_is_73() {
    for (name, words) in WRITING {
        cannot_write(73, name, &mut writing(words, "/proc/x"), "/proc");
        cannot_write(73, name, &mut writing(words, "/dev/null/x"), "/dev/null");
    }
    for args in [&["list"][..], &["version"], &["sbom"], &["licenses"], &["verify"], &["man"], &["completions", "bash"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = etcdproxy(args);
        let output = command.stdout(full).stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        let expected = "etcdproxy: error: cannot write to standard output: No space left on device: ";
        assert!(output.status.code() == Some(73) && line.starts_with(expected), "{args:?}: {line}");
    }
}

#[test]
fn what_the_command_line_alone_shows_to_be_wrong_is_2() {
    for args in [
        &["frobnicate"][..],
        &["upgrade"],
        &["run", "--nope"],
        &["exec"],
        &["dev", "--nodes", "2"],
        &["unpack"],
        &["verify", "--user", "a"],
        &["install", "--root", "/", "--user"],
        &["install", "--prefix", "/opt/a b"],
        &["uninstall", "--prefix", "/opt/a b"],
        &["install", "--bin-dir", "/usr/../bin"],
        &["prune", "--keep", "x"],
        &["package", "--arch", "both"],
        &["package", "--arch", "sparc"],
        &["package", "--stack", "../x"],
        &["package", "--other", "/bin/sh"],
        &["completions", "tcsh"],
        &["sbom", "--format", "x"],
        &["supply", "a"],
        &["compile"],
    ] {
        let (code, stdout, stderr) = finish(&mut etcdproxy(args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
    }
}

#[test]
fn what_a_command_names_and_the_system_does_not_have_is_1() {
    for args in [
        &["verify", "/nope"][..],
        &["verify", "--prefix", "/nope"],
        &["install", "--root", "/nope"],
        &["uninstall", "--root", "/nope"],
        &["list", "--root", "/nope"],
        &["rollback", "--prefix", "/nope"],
        &["prune", "--keep", "1", "--prefix", "/nope"],
        &["package", "--arch", "both", "--other", "/nope"],
        &["supply", "a", "b", "/nope", "0"],
    ] {
        let line = fails_with(1, &mut etcdproxy(args));
        assert!(line.contains("/nope") && line.matches("No such file").count() <= 1, "{line}");
    }
    assert_eq!(finish(&mut etcdproxy(["uninstall", "--prefix", "/nope"])).0, 0, "nothing to do is no error");
}

#[test]
fn no_hint_leads_to_a_command_that_deletes() {
    for typed in ["upgrade", "update", "prun", "purne", "uninstal", "unistall", "uninstalll", "remove", "delete"] {
        let (code, _, stderr) = finish(&mut etcdproxy([typed]));
        assert!(code == 2 && !stderr.contains("'prune'") && !stderr.contains("'uninstall'"), "{stderr}");
        assert_eq!(stderr.contains("'install'"), typed.starts_with("up"), "{stderr}");
    }
    let (_, _, stderr) = finish(&mut etcdproxy(["rollbak"]));
    assert!(stderr.contains("a similar subcommand exists: 'rollback'"), "{stderr}");
}

mod needs_root {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::{WRITING, cannot_write, finish, writing};
    use crate::support::{as_user, binary, command, fails_with, write_program};

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_place_without_permission_is_77() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("etcdproxy");
        write_program(&copy, &fs::read(binary()).unwrap());
        let (new, existing) = (dir.path().join("x"), dir.path());
        for (name, words) in WRITING {
            let place = if words[0] == "TMPDIR" { existing } else { &new }.to_str().unwrap();
            let as_root = writing(words, place);
            let mut command = as_user(65534, &copy);
            command.args(as_root.get_args());
            // dev needs an etcd before it needs its own directories.
            command.env("ETCDPROXY_UNPACK_DIR", "/tmp/etcdproxy-test-of-nobody");
            command.envs(
                as_root
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?)))
                    .filter(|(name, value)| *name != "ETCDPROXY_UNPACK_DIR" || *value == place),
            );
            cannot_write(77, name, &mut command, place);
        }
        let _ = fs::remove_dir_all("/tmp/etcdproxy-test-of-nobody");
        // A binary that may be run, but not read.
        fs::set_permissions(&copy, Permissions::from_mode(0o711)).unwrap();
        let line = fails_with(77, as_user(65534, &copy).args(["install", "--root", "/tmp"]));
        let remedy = "make its file readable, or copy it again";
        assert_eq!(line, format!("etcdproxy: error: cannot read this etcdproxy itself: Permission denied: {remedy}"));
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_place_mounted_noexec_is_77_where_programs_go() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs -o noexec tmpfs "$PLACE" && exec "$@""#;
        for (name, words) in WRITING {
            let place = dir.path().join("x");
            let inner = writing(words, place.to_str().unwrap());
            let takes_programs = ["unpack", "install"].contains(&name) || words[0] == "ETCDPROXY_UNPACK_DIR";
            if !takes_programs {
                continue;
            }
            let mut outer = command("unshare".as_ref(), ["--mount", "sh", "-c", script, "sh"]);
            outer.arg(inner.get_program()).args(inner.get_args());
            outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PLACE", dir.path());
            cannot_write(77, name, &mut outer, place.to_str().unwrap());
        }
    }

    /// The directories of the binary, of the cache and of the home cannot be written, and a directory for data can.
    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn dev_works_where_etcd_runs_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("etcdproxy");
        write_program(&copy, &fs::read(binary()).unwrap());
        let temp = dir.path().join("temp");
        fs::create_dir(&temp).unwrap();
        fs::set_permissions(&temp, Permissions::from_mode(0o777)).unwrap();
        let mut dev = as_user(65534, &copy);
        dev.args(["dev", "--nodes", "3", "--", "sh", "-c", "\"$0\" health && exit 7"]).arg(&copy);
        dev.env_remove("ETCDPROXY_UNPACK_DIR").env("TMPDIR", &temp);
        let (code, stdout, stderr) = finish(&mut dev);
        assert!(code == 7 && stdout.ends_with(" is ready\n"), "{code} {stdout}{stderr}");
        assert!(stderr.contains("warning: etcd runs from memory, which takes "), "{stderr}");
    }

    /// As above, on a whole system without any place to write, but for the data.
    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn dev_works_on_a_read_only_system() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("etcdproxy");
        write_program(&copy, &fs::read(binary()).unwrap());
        let script = r#"mount --make-rprivate / && mount -t tmpfs -o ro tmpfs /var/cache && mkdir "$1/data" &&
            mount --bind "$1" "$1" && mount -t tmpfs tmpfs "$1/data" && mount -o remount,bind,ro "$1" &&
            exec "$1/etcdproxy" dev --data-dir "$1/data/new" -- sh -c '"$0" health && exit 7' "$1/etcdproxy""#;
        let mut command = command("unshare".as_ref(), ["--mount", "sh", "-c", script, "sh"]);
        let (code, stdout, stderr) = finish(command.arg(dir.path()).env_remove("ETCDPROXY_UNPACK_DIR"));
        assert!(code == 7 && stdout.ends_with(" is ready\n"), "{code} {stdout}{stderr}");
        assert!(stderr.contains("warning: etcd runs from memory, which takes "), "{stderr}");
    }
}
