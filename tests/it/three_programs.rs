//! A build with etcd, etcdctl and etcdutl. `scripts/test.sh` makes it and names it in `ETCDPROXY_TEST_THREE`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{command, finish};

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("ETCDPROXY_TEST_THREE").expect("ETCDPROXY_TEST_THREE is set by scripts/test.sh").into()
}

/// etcdutl came with 3.5, and speaks for itself when it is asked for its version.
#[test]
fn each_link_is_its_program() {
    let dir = tempfile::tempdir().unwrap();
    for (name, args, says) in [
        ("etcdutl", &["version"][..], "etcdutl version: "),
        ("etcdctl", &["version"], "etcdctl version: "),
        ("etcd", &["--version"], "etcd Version: "),
    ] {
        symlink(binary(), dir.path().join(name)).unwrap();
        let mut program = command(&dir.path().join(name), args);
        let (code, stdout, stderr) = finish(program.env("ETCDPROXY_UNPACK_DIR", dir.path().join("unpacked")));
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.starts_with(says), "{stdout}");
    }
}

#[test]
fn all_are_unpacked_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let run = |verb: &str| finish(&mut command(&binary(), [Path::new(verb), dir.path()]));
    let (code, stdout, stderr) = run("unpack");
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.lines().count(), 3);
    let (code, stdout, _) = run("verify");
    assert_eq!((code, stdout.lines().filter(|line| line.starts_with("ok ")).count()), (0, 6), "{stdout}");
}

#[test]
fn etcdctl_works_in_dev_without_further_settings() {
    let dir = tempfile::tempdir().unwrap();
    symlink(binary(), dir.path().join("etcdctl")).unwrap();
    let mut dev: Command = command(&binary(), ["dev", "--", "sh", "-c"]);
    dev.arg("./etcdctl put k v && ./etcdctl get k").current_dir(dir.path());
    let (code, stdout, stderr) = finish(&mut dev);
    assert_eq!((code, stdout.as_str()), (0, "OK\nk\nv\n"), "{stderr}");
}
