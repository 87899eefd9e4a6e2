//! A build with etcd, etcdctl and etcdutl. `scripts/test.sh` makes it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{command, finish, path_from_test_script, succeeds};

pub(crate) fn binary() -> PathBuf {
    path_from_test_script("ETCDPROXY_TEST_THREE")
}

/// etcdutl exists since 3.5.
#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn each_link_runs_the_program_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args, expected) in [
        ("etcdutl", &["version"][..], "etcdutl version: "),
        ("etcdctl", &["version"], "etcdctl version: "),
        ("etcd", &["--version"], "etcd Version: "),
    ] {
        symlink(binary(), dir.path().join(name)).unwrap();
        let mut program = command(&dir.path().join(name), args);
        let stdout = succeeds(program.env("ETCDPROXY_UNPACK_DIR", dir.path().join("unpacked")));
        assert!(stdout.starts_with(expected), "{stdout}");
    }
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn unpack_and_verify_handle_all_three() {
    let dir = tempfile::tempdir().unwrap();
    let run = |verb: &str| succeeds(&mut command(&binary(), [Path::new(verb), dir.path()]));
    assert_eq!(run("unpack").lines().count(), 3);
    let verified = run("verify");
    assert_eq!(verified.lines().filter(|line| line.starts_with("ok ")).count(), 6, "{verified}");
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn etcdctl_works_in_dev_without_further_settings() {
    let dir = tempfile::tempdir().unwrap();
    symlink(binary(), dir.path().join("etcdctl")).unwrap();
    let mut dev: Command = command(&binary(), ["dev", "--", "sh", "-c"]);
    dev.arg("./etcdctl put k v && ./etcdctl get k").current_dir(dir.path());
    let (code, stdout, stderr) = finish(&mut dev);
    assert_eq!((code, stdout.as_str()), (0, "OK\nk\nv\n"), "{stderr}");
}
