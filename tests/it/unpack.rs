//! Unpacking: nobody ever sees half a file, and whatever is in the way is said in one line.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::{Process, binary, command, etcdproxy, fails_with, finish, link};

/// sha256 of the etcd that is carried, as the binary itself lists it.
fn listed_sha256() -> String {
    let (_, list, _) = finish(&mut etcdproxy(["list"]));
    list.split_once("sha256 ").unwrap().1[..64].to_owned()
}

/// What etcd takes on a disk, in MB, rounded up.
fn megabytes() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = finish(&mut etcdproxy([Path::new("unpack"), dir.path()]));
    assert_eq!(code, 0, "{stderr}");
    fs::metadata(dir.path().join("etcd")).unwrap().len().div_ceil(1_000_000)
}

fn sha256(file: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(file).unwrap()))
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// `etcd --version` through a link, with the directory to unpack below.
fn etcd_version(link: &Path, unpack_dir: &Path) -> Command {
    let mut command = command(link, ["--version"]);
    command.env("ETCDPROXY_UNPACK_DIR", unpack_dir);
    command
}

/// A script in a mount namespace of its own, with `$DIR` (this directory) and `$BIN`.
fn in_mount_namespace(dir: &Path, script: &str) -> Command {
    let mut command = command("unshare".as_ref(), ["--mount", "sh", "-c", script]);
    command.env("DIR", dir).env("BIN", binary());
    command
}

/// A copy of the binary that any user can run, in a directory that only root can write.
fn copy_for_everybody(dir: &TempDir) -> PathBuf {
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = dir.path().join("etcdproxy");
    fs::copy(binary(), &copy).unwrap();
    copy
}

fn as_nobody(program: &Path, args: &[&str]) -> Command {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = command("setpriv".as_ref(), user);
    command.arg(program).args(args).current_dir("/").env_remove("ETCDPROXY_UNPACK_DIR");
    command
}

#[test]
fn what_comes_out_is_upstreams_file() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("a/b");
    let unpack =
        || finish(Command::new("sh").args(["-c", "umask 077; exec \"$0\" unpack \"$1\""]).arg(binary()).arg(&target));
    let etcd = target.join("etcd");
    assert_eq!(unpack(), (0, format!("{}\n", etcd.display()), String::new()));
    assert_eq!(sha256(&etcd), listed_sha256());
    assert_eq!(fs::metadata(&etcd).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(unpack(), (0, format!("{} (already there)\n", etcd.display()), String::new()));
    assert_eq!(names(&target), ["etcd"]);
}

#[test]
fn killed_200_times_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = dir.path().join("etcd");
    let unpack = || etcdproxy([Path::new("unpack"), dir.path()]);
    let start = Instant::now();
    finish(&mut unpack());
    let whole = start.elapsed();
    let sha256_listed = listed_sha256();

    let mut whole_files = 0;
    for round in 0..200u32 {
        let _ = fs::remove_file(&etcd);
        let mut process = Process::start(unpack().stdout(Stdio::null()));
        // Spread over the whole run and a little beyond, in an order that is not the runs' own.
        std::thread::sleep(whole.mul_f64(f64::from(round * 73 % 200) / 180.0));
        process.kill();
        if etcd.exists() {
            whole_files += 1;
            assert_eq!(sha256(&etcd), sha256_listed, "round {round}");
        }
    }
    println!("{whole_files} of 200 were killed after the file was there");
    assert!(whole_files < 200, "no round was killed in time");
    let (code, _, stderr) = finish(&mut unpack());
    assert_eq!(code, 0, "{stderr}");
    let _ = fs::remove_file(&etcd);
    finish(&mut unpack());
    assert_eq!(names(dir.path()), ["etcd"], "a killed process's temporary file is still there");
}

#[test]
fn thirty_two_processes_at_once_on_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = link(dir.path(), "etcd");
    let unpack_dir = dir.path().join("unpacked");
    let start = || Process::start(etcd_version(&etcd, &unpack_dir).stdout(Stdio::null()));
    let mut processes: Vec<Process> = (0..32).map(|_| start()).collect();
    assert!(processes.iter_mut().all(|process| process.wait().success()));
    let id = unpack_dir.join(&names(&unpack_dir)[0]);
    assert_eq!(names(&id), ["etcd"]);
    assert_eq!(sha256(&id.join("etcd")), listed_sha256());
}

#[test]
fn a_holder_of_the_lock_that_is_stopped_does_not_stop_others_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let lock = fs::File::open(dir.path()).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    assert_eq!(finish(&mut etcdproxy([Path::new("unpack"), dir.path()])).0, 0);
    assert!(start.elapsed() > Duration::from_secs(5), "it did not wait for the lock");
}

#[test]
fn a_truncated_file_is_found_by_verify_and_replaced_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = link(dir.path(), "etcd");
    let unpack_dir = dir.path().join("unpacked");
    assert_eq!(finish(&mut etcd_version(&etcd, &unpack_dir)).0, 0);
    let file = unpack_dir.join(&names(&unpack_dir)[0]).join("etcd");
    let verify = || finish(etcdproxy(["verify"]).env("ETCDPROXY_UNPACK_DIR", &unpack_dir));
    assert_eq!(verify().0, 0);

    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1000).unwrap();
    let (code, stdout, _) = verify();
    assert_eq!(code, 1);
    let line = stdout.lines().last().unwrap();
    assert!(line.starts_with(&format!("MISMATCH {}: it has 1000 bytes, not ", file.display())), "{line}");
    assert_eq!(finish(&mut etcd_version(&etcd, &unpack_dir)).0, 0);
    assert_eq!(verify().0, 0);
}

#[test]
fn a_replaced_file_is_found_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(finish(&mut etcdproxy([Path::new("unpack"), dir.path()])).0, 0);
    let verify = || finish(&mut etcdproxy([Path::new("verify"), dir.path()]));
    assert_eq!(verify().0, 0);
    let etcd = dir.path().join("etcd");
    let mut bytes = fs::read(&etcd).unwrap();
    bytes[12_345_678] ^= 1;
    fs::write(&etcd, bytes).unwrap();
    let (code, stdout, _) = verify();
    assert_eq!(code, 1);
    assert!(stdout.lines().last().unwrap().contains("/etcd: its sha256 is "), "{stdout}");
    fs::remove_file(&etcd).unwrap();
    assert_eq!(verify().1.lines().last().unwrap(), format!("MISSING  {}", etcd.display()));
}

#[test]
fn flipped_bytes_in_the_payload_are_never_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("etcdproxy");
    let mut bytes = fs::read(binary()).unwrap();
    // The payload is most of the binary, so it is what stands in the middle.
    let middle = bytes.len() / 2;
    // A few bits of a compressed stream mean nothing; a whole byte less so, and sixteen never.
    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&copy, bytes).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();

    let target = dir.path().join("target");
    let line = fails_with(1, &mut command(&copy, [Path::new("unpack"), &target]));
    assert!(line.starts_with("etcdproxy: error: the etcd inside this binary is damaged ("), "{line}");
    assert!(line.ends_with("): copy or download etcdproxy again"), "{line}");
    assert!(!target.exists());
    let (code, stdout, _) = finish(&mut command(&copy, ["verify"]));
    assert_eq!(code, 1);
    assert!(stdout.starts_with("MISMATCH etcd "), "{stdout}");
}

#[test]
fn a_foreign_file_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = dir.path().join("etcd");
    fs::write(&etcd, "mine").unwrap();
    let line = fails_with(73, &mut etcdproxy([Path::new("unpack"), dir.path()]));
    assert!(line.contains("(it has 4 bytes, not ") && line.contains("move it away"), "{line}");
    assert_eq!(fs::read_to_string(&etcd).unwrap(), "mine");
    assert_eq!(names(dir.path()), ["etcd"]);
}

#[test]
fn a_file_where_the_directory_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let line = fails_with(73, &mut etcdproxy([Path::new("unpack"), &file.join("x")]));
    assert_eq!(
        line,
        format!(
            "etcdproxy: error: cannot write {}/x/etcd: a file is where its directory should be: choose another directory",
            file.display()
        )
    );
}

#[test]
fn a_full_disk_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=4m tmpfs "$DIR" && "$BIN" unpack "$DIR/a/b"; echo $? $(ls -A "$DIR")"#;
    let (_, stdout, stderr) = finish(&mut in_mount_namespace(dir.path(), script));
    let expected = format!("no space left: {} MB needed, 4 MB free: choose another directory", megabytes());
    assert_eq!(stderr, format!("etcdproxy: error: cannot write {}/a/b/etcd: {expected}\n", dir.path().display()));
    assert_eq!(stdout, "73\n");
}

#[test]
fn a_noexec_mount_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o noexec tmpfs "$DIR" && "$BIN" unpack "$DIR/a"; echo $? $(ls -A "$DIR")"#;
    let (_, stdout, stderr) = finish(&mut in_mount_namespace(dir.path(), script));
    let problem = "is on a file system mounted noexec, so nothing can be run from it: choose another directory";
    assert_eq!(stderr, format!("etcdproxy: error: {}/a {problem}\n", dir.path().display()));
    assert_eq!(stdout, "77\n");
}

#[test]
fn a_program_whose_mount_became_noexec_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs tmpfs "$DIR" && export ETCDPROXY_UNPACK_DIR="$DIR" && ln -s "$BIN" "$DIR/etcd" &&
        "$DIR/etcd" --version >/dev/null && mount -o remount,noexec "$DIR" && cd / && exec -a etcd "$BIN" --version"#;
    let mut command = command("unshare".as_ref(), ["--mount", "bash", "-c", script]);
    let line = fails_with(77, command.env("DIR", dir.path()).env("BIN", binary()));
    assert!(
        line.ends_with("Permission denied (os error 13): is it executable, and its file system not mounted noexec?"),
        "{line}"
    );
}

#[test]
fn a_read_only_mount_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o ro tmpfs "$DIR" && "$BIN" unpack "$DIR/a"; echo $?"#;
    let (_, stdout, stderr) = finish(&mut in_mount_namespace(dir.path(), script));
    let problem = "the file system is read-only: choose another directory";
    assert_eq!(stderr, format!("etcdproxy: error: cannot write {}/a/etcd: {problem}\n", dir.path().display()));
    assert_eq!(stdout, "73\n");
}

#[test]
fn a_directory_without_permission_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_for_everybody(&dir);
    let target = dir.path().join("a");
    let line = fails_with(77, &mut as_nobody(&copy, &["unpack", target.to_str().unwrap()]));
    let problem = "permission denied: choose another directory";
    assert_eq!(line, format!("etcdproxy: error: cannot write {}/etcd: {problem}", target.display()));
}

#[test]
fn a_directory_of_somebody_else_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_for_everybody(&dir);
    let etcd = dir.path().join("etcd");
    std::os::unix::fs::symlink(&copy, &etcd).unwrap();
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();
    let start = || {
        let mut etcd = as_nobody(&etcd, &["--version"]);
        etcd.env("ETCDPROXY_UNPACK_DIR", &theirs);
        etcd
    };
    let is_refused = || {
        chown(&theirs, Some(12345), None).unwrap();
        let line = fails_with(77, &mut start());
        let problem = "belongs to uid 12345, who could replace the programs in it: \
                       set ETCDPROXY_UNPACK_DIR to another directory";
        assert_eq!(line, format!("etcdproxy: error: {} {problem}", theirs.display()));
    };
    is_refused();
    assert!(names(&theirs).is_empty());
    // Nor is what is there already run from it.
    chown(&theirs, Some(0), None).unwrap();
    assert_eq!(finish(&mut start()).0, 0);
    assert_eq!(names(&theirs).len(), 1);
    is_refused();
}

#[test]
fn where_nothing_can_be_written_etcd_runs_from_memory_needs_root() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy_for_everybody(&dir);
    std::os::unix::fs::symlink(&copy, dir.path().join("etcd")).unwrap();
    let mut command = as_nobody(&dir.path().join("etcd"), &["--version"]);
    let (code, stdout, stderr) = finish(command.env("HOME", "/no/such/home"));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("etcd Version: "), "{stdout}");
    let warning = format!("etcdproxy: warning: etcd runs from memory, which takes {} MB of it: ", megabytes());
    assert!(stderr.starts_with(&warning), "{stderr}");
    assert!(stderr.contains("set ETCDPROXY_UNPACK_DIR to a directory"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}
