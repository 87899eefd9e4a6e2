//! Unpacking: nobody ever sees half a file, and one line names whatever is in the way.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use zstd::zstd_safe::find_frame_compressed_size;

use crate::attack::{cases, figure};
use crate::support::{
    Process, binary, command, etcdproxy, fails_with, finish, link, moment, names, sha256, succeeds, unpack,
    write_program,
};

/// The sha256 of the embedded etcd, as the binary lists it.
fn listed_sha256() -> String {
    let list = succeeds(&mut etcdproxy(["list"]));
    list.split_once("sha256 ").unwrap().1[..64].to_owned()
}

/// `etcd --version` through a link, which unpacks etcd below `unpack_dir`.
fn etcd_version(link: &Path, unpack_dir: &Path) -> Command {
    let mut command = command(link, ["--version"]);
    command.env("ETCDPROXY_UNPACK_DIR", unpack_dir);
    command
}

#[test]
fn the_unpacked_file_is_upstreams() {
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
fn unpack_can_be_killed_at_any_of_200_moments() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = dir.path().join("etcd");
    let unpack = || etcdproxy([Path::new("unpack"), dir.path()]);
    let start = Instant::now();
    finish(&mut unpack());
    let whole = start.elapsed();
    let sha256_listed = listed_sha256();

    let mut completed = 0;
    let rounds = u32::try_from(cases(200)).unwrap();
    for round in 0..rounds {
        let _ = fs::remove_file(&etcd);
        let mut process = Process::start(unpack().stdout(Stdio::null()));
        std::thread::sleep(moment(round, whole));
        process.kill();
        if etcd.exists() {
            completed += 1;
            assert_eq!(sha256(&etcd), sha256_listed, "round {round}");
        }
    }
    figure(&format!("unpacking killed {rounds} times, {completed} of them after the end; never half a file"));
    assert!(completed < rounds, "every kill came too late");
    succeeds(&mut unpack());
    let _ = fs::remove_file(&etcd);
    finish(&mut unpack());
    assert_eq!(names(dir.path()), ["etcd"], "the temporary file of a killed process was left behind");
}

#[test]
fn thirty_two_processes_can_unpack_at_once() {
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
fn a_stopped_process_that_holds_the_lock_does_not_block_others_forever() {
    let dir = tempfile::tempdir().unwrap();
    let lock = fs::File::open(dir.path()).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    unpack(&binary(), dir.path());
    assert!(start.elapsed() > Duration::from_secs(5), "it did not wait for the lock");
}

#[test]
fn verify_finds_a_truncated_file_and_the_next_start_replaces_it() {
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
fn verify_finds_a_modified_and_a_missing_file() {
    let dir = tempfile::tempdir().unwrap();
    unpack(&binary(), dir.path());
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
fn verify_follows_links_in_the_directory_that_the_user_names() {
    let dir = tempfile::tempdir().unwrap();
    let verify = |dir: &Path| finish(&mut etcdproxy([Path::new("verify"), dir]));
    let last_line = |stdout: &str| stdout.lines().last().unwrap().to_owned();
    let programs = dir.path().join("programs");
    unpack(&binary(), &programs);
    let links = dir.path().join("links");
    fs::create_dir(&links).unwrap();
    let path = links.join("etcd");
    let to = |target: &Path| {
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).unwrap();
        let (code, stdout, stderr) = verify(&links);
        assert_eq!(stderr, "");
        (code, last_line(&stdout).replace(path.to_str().unwrap(), "etcd"))
    };
    for target in [binary(), programs.join("etcd")] {
        assert_eq!(to(&target), (0, "ok       etcd".to_owned()), "{}", target.display());
    }
    assert_eq!(to("/nope".as_ref()), (1, "MISMATCH etcd: it is a link to /nope, which leads to no file".to_owned()));
    assert_eq!(to("etcd".as_ref()), (1, "MISMATCH etcd: it is a link to etcd, which leads to no file".to_owned()));
    let (code, line) = to("/bin/sh".as_ref());
    assert!(code == 1 && line.starts_with("MISMATCH etcd: it has "), "{line}");
    assert_eq!(to("/bin".as_ref()), (1, "MISMATCH etcd: it is not a regular file".to_owned()));

    let remedy = "name the directory that \"etcdproxy unpack\" wrote to";
    let line = fails_with(1, &mut etcdproxy(["verify", "/no/such/dir"]));
    assert_eq!(line, format!("etcdproxy: error: /no/such/dir does not exist: {remedy}"));
    let etcd = programs.join("etcd");
    let line = fails_with(1, &mut etcdproxy([Path::new("verify"), &etcd]));
    assert_eq!(line, format!("etcdproxy: error: {} is not a directory: {remedy}", etcd.display()));
}

/// The position, in the binary, of the zstd frame with which the embedded etcd begins.
fn first_frame_of_etcd(binary: &[u8]) -> Range<usize> {
    const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
    let starts = (0..binary.len()).filter(|start| binary[*start..].starts_with(&MAGIC));
    let mut frames = starts.filter_map(|start| {
        let length = find_frame_compressed_size(&binary[start..]).ok()?;
        let frame = start..start + length;
        let plain = zstd::bulk::decompress(&binary[frame.clone()], 16_000_000).ok()?;
        plain.starts_with(b"\x7fELF").then_some(frame)
    });
    frames.next().unwrap()
}

#[test]
fn damaged_bytes_in_the_payload_are_never_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("etcdproxy");
    let mut bytes = fs::read(binary()).unwrap();
    let frame = first_frame_of_etcd(&bytes);
    let middle = frame.start.midpoint(frame.end);
    // A single bit, or even a byte, of a compressed stream may have no effect. Sixteen bytes always have.
    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x55);
    write_program(&copy, &bytes);

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
fn a_file_that_is_not_etcd_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = dir.path().join("etcd");
    fs::write(&etcd, "mine").unwrap();
    let line = fails_with(73, &mut etcdproxy([Path::new("unpack"), dir.path()]));
    assert!(line.contains("(it has 4 bytes, not ") && line.contains("move it away"), "{line}");
    assert_eq!(fs::read_to_string(&etcd).unwrap(), "mine");
    assert_eq!(names(dir.path()), ["etcd"]);
}

#[test]
fn a_file_in_place_of_the_directory_is_an_error() {
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

mod needs_root {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};
    use tempfile::TempDir;

    use crate::support::{
        Process, as_user, binary, child_of, command, etcdproxy, eventually, fails_with, finish, names, succeeds,
        unique_addr, unpack, write_program,
    };

    /// The size of the unpacked etcd in MB, rounded up.
    fn megabytes() -> u64 {
        let dir = tempfile::tempdir().unwrap();
        unpack(&binary(), dir.path());
        fs::metadata(dir.path().join("etcd")).unwrap().len().div_ceil(1_000_000)
    }

    /// The error of `unpack` below `dir`, where a tmpfs with these options is mounted. Nothing must be left behind.
    #[track_caller]
    fn error_on_tmpfs(code: i32, dir: &Path, options: &str, target: &str) -> String {
        let script = r#"mount -t tmpfs -o "$0" tmpfs "$1" && "$2" unpack "$1/$3"; echo $? $(ls -A "$1")"#;
        let mut unshare = command("unshare".as_ref(), ["--mount", "sh", "-c", script, options]);
        let (_, stdout, stderr) = finish(unshare.arg(dir).arg(binary()).arg(target));
        assert_eq!(stdout, format!("{code}\n"), "{stderr}");
        stderr.strip_prefix("etcdproxy: error: ").unwrap().to_owned()
    }

    /// A copy of the binary that any user can run, in a directory where only root can write.
    fn copy_for_all_users(dir: &TempDir) -> PathBuf {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = dir.path().join("etcdproxy");
        write_program(&copy, &fs::read(binary()).unwrap());
        copy
    }

    fn as_nobody(program: &Path, args: &[&str]) -> Command {
        let mut command = as_user(65534, program);
        command.args(args).env_remove("ETCDPROXY_UNPACK_DIR");
        command
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_full_disk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let problem = format!("no space left: {} MB needed, 4 MB free: choose another directory", megabytes());
        let error = error_on_tmpfs(73, dir.path(), "size=4m", "a/b");
        assert_eq!(error, format!("cannot write {}/a/b/etcd: {problem}\n", dir.path().display()));
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_noexec_mount_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let problem = "is on a file system mounted noexec, so nothing can be run from it: choose another directory";
        let error = error_on_tmpfs(77, dir.path(), "noexec", "a");
        assert_eq!(error, format!("{}/a {problem}\n", dir.path().display()));
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_program_whose_mount_became_noexec_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs tmpfs "$DIR" && export ETCDPROXY_UNPACK_DIR="$DIR" && ln -s "$BIN" "$DIR/etcd" &&
            "$DIR/etcd" --version >/dev/null && mount -o remount,noexec "$DIR" && cd / &&
            exec -a etcd "$BIN" --version"#;
        let mut command = command("unshare".as_ref(), ["--mount", "bash", "-c", script]);
        let line = fails_with(77, command.env("DIR", dir.path()).env("BIN", binary()));
        assert!(
            line.ends_with(
                "Permission denied (os error 13): is it executable, and its file system not mounted noexec?"
            ),
            "{line}"
        );
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_read_only_mount_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let problem = "the file system is read-only: choose another directory";
        let error = error_on_tmpfs(73, dir.path(), "ro", "a");
        assert_eq!(error, format!("cannot write {}/a/etcd: {problem}\n", dir.path().display()));
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_directory_without_permission_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let copy = copy_for_all_users(&dir);
        let target = dir.path().join("a");
        let line = fails_with(77, &mut as_nobody(&copy, &["unpack", target.to_str().unwrap()]));
        let problem = "permission denied: choose another directory";
        assert_eq!(line, format!("etcdproxy: error: cannot write {}/etcd: {problem}", target.display()));
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_directory_of_another_user_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let copy = copy_for_all_users(&dir);
        let etcd = dir.path().join("etcd");
        symlink(&copy, &etcd).unwrap();
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
        // An etcd that is already there is not run either.
        chown(&theirs, Some(0), None).unwrap();
        succeeds(&mut start());
        assert_eq!(names(&theirs).len(), 1);
        is_refused();
    }

    /// Changes the shared directory as another user until the value is dropped.
    struct Attack {
        stop: Arc<AtomicBool>,
        attacker: Option<JoinHandle<u32>>,
    }

    impl Attack {
        fn start(mut swap: impl FnMut() + Send + 'static) -> Self {
            let stop = Arc::new(AtomicBool::new(false));
            let is_over = Arc::clone(&stop);
            let attacker = std::thread::spawn(move || {
                // For this thread only, and without root's power over files (setfsuid(2)).
                setfsgid(Gid::from_raw(12345));
                setfsuid(Uid::from_raw(12345));
                let mut swaps = 0;
                while !is_over.load(Ordering::Relaxed) {
                    swap();
                    swaps += 1;
                }
                swaps
            });
            Self { stop, attacker: Some(attacker) }
        }
    }

    impl Drop for Attack {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            let swaps = self.attacker.take().map(JoinHandle::join);
            assert!(swaps.is_some_and(|swaps| swaps.is_ok_and(|swaps| swaps > 10)), "the attack did not happen");
        }
    }

    /// A start of etcd from the shared directory.
    fn etcd_of(shared: &Shared) -> Command {
        let mut command = command("bash".as_ref(), ["-c", "exec -a etcd \"$0\" \"$@\""]);
        command.arg(binary()).env("ETCDPROXY_UNPACK_DIR", shared.dir.path());
        command
    }

    /// A directory that everybody can write to, with the unpacked etcd of root in it and a program of another user.
    struct Shared {
        dir: TempDir,
        /// The name of the directory of this version.
        id: String,
        /// Exists once the other user's program was run.
        marker: PathBuf,
    }

    impl Shared {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
            let elsewhere = tempfile::tempdir().unwrap();
            symlink(binary(), elsewhere.path().join("etcd")).unwrap();
            let mut start = command(&elsewhere.path().join("etcd"), ["--version"]);
            succeeds(start.env("ETCDPROXY_UNPACK_DIR", dir.path()));
            let id = names(dir.path()).remove(0);
            let (evil, marker) = (dir.path().join("evil"), dir.path().join("marker"));
            fs::create_dir(&evil).unwrap();
            let script = format!("#!/bin/sh\n: >{}\n", marker.display());
            write_program(&evil.join("etcd"), script.as_bytes());
            // It passes for etcd at first glance.
            let size = fs::metadata(dir.path().join(&id).join("etcd")).unwrap().len();
            let program = fs::OpenOptions::new().write(true).open(evil.join("etcd")).unwrap();
            program.set_len(size).unwrap();
            for path in [evil.join("etcd"), evil] {
                chown(path, Some(12345), Some(12345)).unwrap();
            }
            Self { dir, id, marker }
        }

        /// Starts etcd so many times, and asserts that root never runs the other user's program.
        #[track_caller]
        fn start(&self, times: u32) -> u32 {
            let elsewhere = tempfile::tempdir().unwrap();
            let etcd = elsewhere.path().join("etcd");
            symlink(binary(), &etcd).unwrap();
            let mut good = 0;
            for n in 0..times {
                let (code, stdout, _) =
                    finish(command(&etcd, ["--version"]).env("ETCDPROXY_UNPACK_DIR", self.dir.path()));
                assert!(!self.marker.exists(), "start {n} has run the other user's program");
                assert!(code != 0 || stdout.starts_with("etcd Version: "), "start {n}: {stdout}");
                good += u32::from(code == 0);
            }
            good
        }
    }

    /// While root starts etcd, another user changes where a link leads.
    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_link_that_another_user_swaps_is_never_followed() {
        let shared = Shared::new();
        let path = |name: &str| shared.dir.path().join(name);
        fs::rename(path(&shared.id), path("good")).unwrap();
        let (id, next) = (path(&shared.id), path("next"));
        let attack = Attack::start(move || {
            for target in ["good", "evil"] {
                symlink(target, &next).unwrap();
                fs::rename(&next, &id).unwrap();
            }
        });
        assert_eq!(shared.start(100), 0, "a link was followed");
        drop(attack);
        let line = fails_with(77, &mut etcd_of(&shared));
        let problem = format!("{} is a link, and only a directory is safe there", path(&shared.id).display());
        assert!(line.contains(&problem), "{line}");
    }

    /// The same with the directories themselves.
    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_directory_that_another_user_swaps_never_changes_what_runs() {
        let shared = Shared::new();
        let [id, good, evil] = [&shared.id, "good", "evil"].map(|name| shared.dir.path().join(name));
        let attack = Attack::start(move || {
            for (from, to) in [(&id, &good), (&evil, &id), (&id, &evil), (&good, &id)] {
                let _ = fs::rename(from, to);
            }
        });
        println!("{} of 100 starts found etcd", shared.start(100));
        drop(attack);
    }

    /// A volume of Kubernetes is such a directory.
    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn in_a_directory_that_everybody_can_write_to_only_upstreams_etcd_runs_under_its_own_name() {
        let shared = Shared::new();
        assert_eq!(shared.start(2), 2);
        let etcd = shared.dir.path().join(&shared.id).join("etcd");
        let mut running = Process::start(
            etcd_of(&shared)
                .args(["grpc-proxy", "start", "--endpoints=127.0.0.1:1", "--listen-addr=127.0.0.1:0"])
                .stderr(Stdio::null()),
        );
        let proc = |name: &str| PathBuf::from(format!("/proc/{}/{name}", running.pid()));
        let is_etcd = || fs::read(proc("cmdline")).is_ok_and(|words| words.starts_with(b"etcd\0grpc-proxy\0"));
        eventually("it is etcd", || fs::read_link(proc("exe")).is_ok_and(|exe| exe == etcd) && is_etcd());
        assert_eq!(fs::read_to_string(proc("comm")).unwrap(), "etcd\n");
        running.kill();

        // The same for a supervised etcd, and when it is started again.
        let run = ["run", "--preflight", "off", "--mode", "grpc-proxy", "--drain", "1s", "--endpoints", "127.0.0.1:1"];
        let mut launcher = etcdproxy(run);
        launcher.args(["--listen-addr", &unique_addr()]).env("ETCDPROXY_UNPACK_DIR", shared.dir.path());
        let launcher = Process::start(launcher.stderr(Stdio::null()));
        let first = child_of(launcher.pid(), "etcd");
        assert_eq!(fs::read_link(format!("/proc/{first}/exe")).unwrap(), etcd);
        // Later than a wrong setting would end it.
        std::thread::sleep(Duration::from_millis(1500));
        kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGKILL).unwrap();
        eventually("it is started again", || child_of(launcher.pid(), "etcd") != first);
        drop(launcher);

        // Without /proc, nothing leads through a descriptor.
        let script = "umount -l /proc && exec -a etcd \"$0\" --version";
        let mut without = command("unshare".as_ref(), ["--mount", "bash", "-c", script]);
        let line = fails_with(77, without.arg(binary()).env("ETCDPROXY_UNPACK_DIR", shared.dir.path()));
        assert!(line.contains("without /proc etcdproxy cannot tell whether they do: mount /proc, or set "), "{line}");

        // Root's own file with other content, as long as etcd.
        let size = fs::metadata(&etcd).unwrap().len();
        fs::copy(shared.dir.path().join("evil/etcd"), &etcd).unwrap();
        assert_eq!(fs::metadata(&etcd).unwrap().len(), size);
        assert_eq!(shared.start(1), 1, "it was not replaced");
        for (mode, problem) in [(0o777, "is writable by other users"), (0o1777, "is writable by other users")] {
            let id = shared.dir.path().join(&shared.id);
            fs::set_permissions(&id, Permissions::from_mode(mode)).unwrap();
            let line = fails_with(77, &mut etcd_of(&shared));
            assert!(line.contains(&format!("{} {problem}", id.display())), "{line}");
        }
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn etcd_runs_from_memory_if_no_directory_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let copy = copy_for_all_users(&dir);
        symlink(&copy, dir.path().join("etcd")).unwrap();
        let mut command = as_nobody(&dir.path().join("etcd"), &["--version"]);
        let (code, stdout, stderr) = finish(command.env("HOME", "/no/such/home"));
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.starts_with("etcd Version: "), "{stdout}");
        let warning = format!("etcdproxy: warning: etcd runs from memory, which takes {} MB of it: ", megabytes());
        assert!(stderr.starts_with(&warning), "{stderr}");
        assert!(stderr.contains("set ETCDPROXY_UNPACK_DIR to a directory"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
    }
}
