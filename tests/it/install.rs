//! Installing on plain hosts: users can see everything beforehand, verify it afterwards, and undo it, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::attack::{cases, figure};
use crate::support::{self, Process, binary, command, eventually, fails_with, finish, link, moment, succeeds};
use crate::three_programs;

/// The root directory of a system that has only the usual directories and systemd.
struct Host(TempDir);

const DIRS: [&str; 5] = ["usr/local/bin", "etc/systemd/system", "opt", "var/lib", "usr/lib/systemd"];
const ENV: &str = "etc/etcdproxy/etcdproxy.env";
const UNIT: &str = "etc/systemd/system/etcdproxy.service";

impl Host {
    fn new() -> Self {
        let dir = scratch_dir();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let host = Self(dir);
        for dir in DIRS {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        fs::write(host.path("usr/lib/systemd/systemd"), "").unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn with(&self, binary: &Path, args: &[&str]) -> Command {
        let mut command = command(binary, args);
        command.arg("--root").arg(self.0.path());
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        self.with(&binary(), args)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        succeeds(&mut self.command(args))
    }

    fn tree(&self) -> Tree {
        tree(self.0.path())
    }

    fn receipt(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("opt/etcdproxy/receipt.json")).unwrap()).unwrap()
    }

    fn current(&self) -> String {
        let link = fs::read_link(self.path("opt/etcdproxy/current")).unwrap();
        link.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn current_program(&self, name: &str) -> PathBuf {
        self.path("opt/etcdproxy/current/bin").join(name)
    }

    /// A copy of this system. Its files are hard links: writing to one changes both systems.
    fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir_in(self.0.path().parent().unwrap()).unwrap());
        let from = self.0.path().join(".");
        assert!(Command::new("cp").arg("-al").args([&from, copy.0.path()]).status().unwrap().success());
        copy
    }
}

/// In memory, if it has room for several installations: a disk may be slow, and no test cuts the power.
fn scratch_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let is_suitable = statvfs(memory).is_ok_and(|fs| {
        fs.blocks_available() * fs.fragment_size() > 4_000_000_000 && !fs.flags().contains(FsFlags::ST_NOEXEC)
    });
    if is_suitable { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

type Tree = BTreeMap<String, String>;

/// The mode of every path below `dir`, and its content or target.
fn tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if meta.is_dir() {
                dirs.push(path.clone());
                "directory".to_owned()
            } else if path.ends_with("receipt.json") {
                "receipt".to_owned() // it contains the time of the installation
            } else {
                sha256(&path)
            };
            tree.insert(path.strip_prefix(dir).unwrap().display().to_string(), format!("{:o} {content}", meta.mode()));
        }
    }
    tree
}

/// The sha256 of a file. Hashes each file once, because many trees share their files.
fn sha256(path: &Path) -> String {
    static SEEN: Mutex<BTreeMap<(u64, u64, i64, i64), String>> = Mutex::new(BTreeMap::new());
    let meta = path.metadata().unwrap();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let file = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
    seen.entry(file).or_insert_with(|| support::sha256(path)).clone()
}

#[test]
fn a_dry_run_lists_what_install_does_and_uninstall_undoes_it() {
    let host = Host::new();
    let before = host.tree();
    let shown = host.run(&["install", "--enable", "--dry-run"]);
    let json: Value = serde_json::from_str(&host.run(&["install", "--enable", "--dry-run=json"])).unwrap();
    assert_eq!(host.tree(), before, "a dry run changes nothing");

    let install = "umask 077; exec \"$0\" install --enable --root \"$1\"";
    let mut shell = command("/bin/sh".as_ref(), ["-c", install]);
    let done = succeeds(shell.arg(binary()).arg(host.0.path()));
    let after = host.tree();
    let new: Vec<&String> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    for path in &new {
        let real = host.path(path).display().to_string();
        let is_listed =
            |text: &str| text.lines().any(|line| line.split(' ').any(|word| word.trim_end_matches('/') == real));
        if !path.ends_with("receipt.json") {
            assert!(is_listed(&shown) && is_listed(&done), "{path} is not in\n{shown}{done}");
            let in_json = |step: &Value| step["path"] == real;
            assert!(json["steps"].as_array().unwrap().iter().any(in_json), "{path} is not in {json:#}");
        }
        let mode = host.path(path).symlink_metadata().unwrap().mode();
        let wanted = match mode & 0o170_000 {
            0o120_000 => 0o777,
            0o040_000 => 0o755,
            _ if path.contains("/bin/") => 0o755,
            _ => 0o644,
        };
        assert_eq!(mode & 0o7777, wanted, "{path}");
    }
    let steps = |text: &str, start: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start));
        lines
            .filter(|line| ["make ", "write ", "link "].iter().any(|verb| line.starts_with(verb)))
            .map(Into::into)
            .collect()
    };
    assert_eq!(steps(&shown, "would "), steps(&done, ""));
    // The links lead to their targets as seen from that system.
    for name in ["etcdproxy", "etcd"] {
        let link = fs::read_link(host.path("usr/local/bin").join(name)).unwrap();
        assert_eq!(link, Path::new("/opt/etcdproxy/current/bin").join(name));
    }
    assert!(succeeds(&mut command(&host.current_program("etcd"), ["--version"])).starts_with("etcd Version: "));

    assert!(host.run(&["install"]).ends_with(": nothing to do\n"));
    assert_eq!(host.tree(), after, "the service stays enabled");
    let verified = host.run(&["verify"]);
    assert!(verified.lines().all(|line| line.starts_with("ok ")), "{verified}");

    let listed = host.run(&["uninstall", "--dry-run"]);
    assert_eq!(host.tree(), after);
    assert_eq!(listed.lines().count(), new.len() - 1, "everything except the receipt: {listed}");
    host.run(&["uninstall"]);
    assert_eq!(host.tree(), before);
    let output = host.run(&["uninstall"]);
    assert!(
        output.starts_with("nothing to do\nnote: nothing is installed in") && output.contains("--prefix"),
        "{output}"
    );
    let json: Value = serde_json::from_str(&host.run(&["uninstall", "--dry-run=json"])).unwrap();
    assert!(json["steps"].as_array().unwrap().is_empty(), "{json:#}");
    for verb in ["rollback", "verify"] {
        let line = fails_with(1, &mut host.command(&[verb]));
        assert!(line.contains("nothing is installed in") && line.contains("--prefix"), "{line}");
    }
}

#[test]
fn a_missing_root_is_an_error() {
    let host = Host::new();
    let root = host.path("no/root");
    for args in [&["install"][..], &["install", "--dry-run"], &["uninstall"], &["verify"], &["list"]] {
        let mut command = command(&binary(), args);
        let (code, _, stderr) = finish(command.arg("--root").arg(&root));
        let problem = format!(
            "--root: the directory {} does not exist: name the root directory of an image or chroot\n",
            root.display()
        );
        assert!(code == 1 && stderr.ends_with(&problem), "{args:?}: {code} {stderr}");
    }
}

/// Users can open every printed path as it is.
#[test]
fn every_printed_path_includes_the_root() {
    let host = Host::new();
    let root = host.path("").display().to_string();
    fs::write(host.path("usr/local/bin/etcd"), "mine").unwrap();
    let mut printed =
        host.run(&["install", "--systemd", "--force", "--dry-run"]) + &host.run(&["install", "--systemd", "--force"]);
    fs::write(host.path(ENV), "ETCDPROXY_METRICS_ADDR=127.0.0.1:4002\n").unwrap();
    printed += &host.run(&["install"]);
    // The unpacked etcd belongs to this host, not to that root.
    succeeds(&mut command(&link(&host.path("opt"), "etcd"), ["--version"]));
    printed += &host.run(&["verify"]);
    fs::write(host.path(UNIT), "").unwrap();
    printed += &host.run(&["uninstall"]);
    printed += &host.run(&["uninstall", "--purge"]);
    printed += &host.run(&["uninstall"]);
    fs::create_dir(host.path("etc/etcdproxy")).unwrap();
    fs::write(host.path(ENV), "").unwrap();
    printed += &host.run(&["install", "--systemd", "--force"]);
    printed += &host.run(&["uninstall"]);
    for line in printed.lines() {
        let is_not_a_target = |word: &&str| !line.contains(&format!("-> {word}"));
        let paths = line.split([' ', ':']).filter(|word| word.starts_with('/')).filter(is_not_a_target);
        paths.for_each(|path| assert!(path.starts_with(&root), "{line}"));
    }
}

#[test]
fn install_explains_a_missing_service_unless_none_was_requested() {
    let host = Host::new();
    fs::remove_file(host.path("usr/lib/systemd/systemd")).unwrap();
    let problem = "\nnote: no service is installed, because there is no systemd: --systemd installs one anyway\n";
    for args in [&["install", "--dry-run"][..], &["install"]] {
        let output = host.run(args);
        assert!(output.contains(problem), "{output}");
    }
    assert!(!host.path(UNIT).exists());
    let output = host.run(&["install", "--no-systemd"]);
    assert!(!output.contains("no service"), "{output}");
    let output = host.run(&["install", "--systemd"]);
    assert!(!output.contains("no service is installed") && host.path(UNIT).exists(), "{output}");
}

#[test]
fn the_receipt_lists_each_path_with_its_hash_and_mode() {
    let host = Host::new();
    host.run(&["install"]);
    let receipt = host.receipt();
    let entries = receipt["entries"].as_array().unwrap();
    for (path, state) in host.tree() {
        let entry = entries.iter().find(|entry| entry["path"] == format!("/{path}"));
        if DIRS.iter().any(|dir| dir.starts_with(&path))
            || path.ends_with("systemd/systemd")
            || state.contains("receipt")
        {
            assert!(entry.is_none(), "{path} is not ours");
            continue;
        }
        let entry = entry.unwrap_or_else(|| panic!("{path} is not in {receipt:#}"));
        assert!(entry["before"].is_null());
        let listed = match entry["kind"].as_str().unwrap() {
            "file" => format!("10{} {}", entry["mode"].as_str().unwrap(), entry["sha256"].as_str().unwrap()),
            "link" => format!("120777 {}", entry["target"].as_str().unwrap()),
            _ => "40755 directory".to_owned(),
        };
        assert_eq!(listed, state, "{path}");
    }
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn a_command_killed_at_any_of_200_moments_finishes_when_it_runs_again() {
    let plain = Host::new();
    let before = plain.tree();
    let old = plain.copy();
    succeeds(&mut old.with(&three_programs::binary(), &["install", "--enable"]));
    let new = plain.copy();
    new.run(&["install", "--enable"]);
    let upgraded = old.copy();
    upgraded.run(&["install"]);
    assert_ne!(old.current(), upgraded.current());

    let timed = |host: &Host, args: &[&str]| {
        let start = Instant::now();
        host.run(args);
        start.elapsed()
    };
    let whole = [
        timed(&plain.copy(), &["install", "--enable"]),
        timed(&old.copy(), &["install"]),
        timed(&upgraded.copy(), &["uninstall"]),
    ];
    let mut unfinished = 0;
    let rounds = cases(200);
    for round in 0..u32::try_from(rounds).unwrap() {
        let (start, args, wanted) = [
            (&plain, &["install", "--enable"][..], new.tree()),
            (&old, &["install"], upgraded.tree()),
            (&upgraded, &["uninstall"], before.clone()),
        ][(round % 3) as usize]
            .clone();
        let host = start.copy();
        let mut process = Process::start(host.command(args).stdout(Stdio::null()).stderr(Stdio::null()));
        std::thread::sleep(moment(round, whole[(round % 3) as usize]));
        process.kill();
        unfinished += u32::from(host.tree() != wanted);
        let (code, stdout, stderr) = finish(&mut host.command(args));
        assert_eq!(code, 0, "round {round}: {stdout}{stderr}");
        assert_eq!(host.tree(), wanted, "round {round}");
        if args[0] == "install" && round % 8 == 0 {
            host.run(&["verify"]);
            host.run(&["uninstall"]);
            assert_eq!(host.tree(), before, "round {round}");
        }
    }
    figure(&format!(
        "install, upgrade and uninstall killed {rounds} times, {unfinished} of them before the end; each finished later"
    ));
    assert!(unfinished as usize > rounds / 4, "only {unfinished} of {rounds} were killed before the end");
}

#[test]
fn an_interrupted_install_can_be_uninstalled() {
    let plain = Host::new();
    let before = plain.tree();
    for round in 0..20u32 {
        let host = plain.copy();
        let mut process = Process::start(host.command(&["install"]).stdout(Stdio::null()).stderr(Stdio::null()));
        std::thread::sleep(Duration::from_millis((round * 7 % 20 * 8).into()));
        process.kill();
        if !host.run(&["uninstall"]).contains("nothing is installed") {
            assert_eq!(host.tree(), before, "round {round}");
        }
    }
}

#[test]
fn force_moves_files_out_of_the_way_and_uninstall_puts_them_back() {
    for plant in
        [(|path: &Path| fs::write(path, "mine").unwrap()) as fn(&Path), |path| symlink("/usr/bin/etcd", path).unwrap()]
    {
        let host = Host::new();
        let etcd = host.path("usr/local/bin/etcd");
        plant(&etcd);
        let before = host.tree();
        let line = fails_with(73, &mut host.command(&["install"]));
        assert!(line.contains(&format!("{} is a ", etcd.display())), "{line}");
        assert!(
            line.contains("that etcdproxy did not install: move it away, or \"install --force\" keeps it as"),
            "{line}"
        );
        assert_eq!(host.tree(), before, "nothing was changed");

        host.run(&["install", "--force"]);
        assert!(succeeds(&mut command(&host.current_program("etcd"), ["--version"])).starts_with("etcd Version: "));
        let saved = host.path("usr/local/bin/etcd.etcdproxy-saved");
        assert!(saved.symlink_metadata().is_ok());
        let receipt = host.receipt();
        let entries = receipt["entries"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["path"] == "/usr/local/bin/etcd").unwrap();
        assert_eq!(entry["before"], "/usr/local/bin/etcd.etcdproxy-saved");
        assert!(host.run(&["install"]).ends_with(": nothing to do\n"));

        host.run(&["uninstall"]);
        assert_eq!(host.tree(), before);
    }
}

#[test]
fn force_does_not_move_a_directory() {
    let host = Host::new();
    fs::create_dir(host.path("usr/local/bin/etcd")).unwrap();
    let line = fails_with(73, &mut host.command(&["install", "--force"]));
    assert!(line.contains("usr/local/bin/etcd is a directory where a file must go: move it away"), "{line}");
}

#[test]
fn the_users_settings_and_a_modified_unit_are_not_overwritten() {
    let host = Host::new();
    let mine = "ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n";
    fs::create_dir(host.path("etc/etcdproxy")).unwrap();
    fs::write(host.path(ENV), mine).unwrap();
    let before = host.tree();
    let output = host.run(&["install", "--systemd"]);
    let new = host.path(ENV).with_extension("env.new");
    assert!(
        output.contains(&format!("etcdproxy.env is yours and stays: the current defaults are in {}", new.display())),
        "{output}"
    );
    assert_eq!(fs::read_to_string(host.path(ENV)).unwrap(), mine);
    assert!(fs::read_to_string(host.path("etc/etcdproxy/etcdproxy.env.new")).unwrap().contains("#ETCDPROXY_CACERT"));
    fs::remove_file(host.path("etc/etcdproxy/etcdproxy.env.new")).unwrap();
    assert!(host.run(&["install"]).ends_with(": nothing to do\n"), "the new settings are offered only once");

    fs::write(host.path(UNIT), "[Service]\nExecStart=/bin/true\n").unwrap();
    let (code, stdout, _) = finish(&mut host.command(&["verify"]));
    assert_eq!(code, 1);
    let differs: Vec<&str> = stdout.lines().filter(|line| line.starts_with("MISMATCH ")).collect();
    assert!(differs.len() == 1 && differs[0].contains("etcdproxy.service: its sha256 is"), "{differs:?}");
    let line = fails_with(73, &mut host.command(&["install"]));
    assert!(line.contains("etcdproxy.service was changed after it was installed"), "{line}");
    let output = host.run(&["uninstall"]);
    assert!(
        output.contains(&format!("kept, because it was changed after it was installed: {}", host.path(UNIT).display()))
    );
    let theirs = format!("kept, because install did not write it: {}", host.path(ENV).display());
    assert!(output.contains(&theirs), "{output}");
    for is_left in [true, false] {
        let output = host.run(&["uninstall", "--purge"]);
        assert!(output.contains(&theirs) && output.contains("nothing is installed") != is_left, "{output}");
        assert_eq!(host.tree(), before);
    }
}

/// Whatever commands follow, etcdproxy still recognizes the settings that uninstall kept.
#[test]
fn settings_that_uninstall_keeps_can_be_purged_later() {
    for between in [
        &[][..],
        &["uninstall"],
        &["install --systemd"],
        &["install --systemd", "install --no-systemd"],
        &["install --systemd", "uninstall"],
    ] {
        let host = Host::new();
        let before = host.tree();
        host.run(&["install", "--systemd"]);
        let mine = "ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n";
        fs::write(host.path(ENV), mine).unwrap();
        let output = host.run(&["uninstall"]);
        assert!(output.contains("kept for a later install or uninstall --purge: "), "{output}");
        assert!(!host.path("opt/etcdproxy/versions").exists() && !host.path(UNIT).exists());
        let line = fails_with(1, &mut host.command(&["rollback"]));
        assert!(line.contains("nothing is installed in"), "{line}");
        assert!(!host.run(&["list"]).contains("installed in"));
        for command in between {
            host.run(&command.split(' ').collect::<Vec<_>>());
            assert_eq!(fs::read_to_string(host.path(ENV)).unwrap(), mine);
            assert!(!host.path(ENV).with_extension("env.new").exists(), "the settings were not recognized");
        }
        host.run(&["uninstall", "--purge"]);
        assert_eq!(host.tree(), before, "{between:?}");
    }
}

#[test]
fn a_purge_takes_whatever_an_uninstall_has_left_and_says_what_stays() {
    let host = Host::new();
    let before = host.tree();
    for bin_dir in ["/usr/local/bin", "/opt/bin"] {
        host.run(&["install", "--bin-dir", bin_dir]);
        let etcd = host.path(bin_dir.trim_start_matches('/')).join("etcd");
        fs::remove_file(&etcd).unwrap();
        fs::write(&etcd, "mine").unwrap();
        if bin_dir == "/usr/local/bin" {
            // Also after the links have moved to another directory.
            let output = host.run(&["install", "--bin-dir", "/opt/other"]);
            assert!(output.contains("changed after it was installed: "), "{output}");
        }
        for _ in 0..2 {
            let output = host.run(&["uninstall"]);
            let kept = format!("kept, because it was changed after it was installed: {}\n", etcd.display());
            assert!(output.contains(&kept) && etcd.exists(), "{output}");
        }
        let output = host.run(&["uninstall", "--purge"]);
        assert!(output.contains(&format!("remove {}\n", etcd.display())) && !output.contains("kept"), "{output}");
        assert_eq!(host.tree(), before);
    }

    host.run(&["install", "--systemd"]);
    for name in ["etc/etcdproxy/ca.pem", "opt/etcdproxy/a", "opt/etcdproxy/b", "opt/etcdproxy/c", "opt/etcdproxy/d"] {
        fs::write(host.path(name), "mine").unwrap();
    }
    // A dry run says exactly what the command does.
    let lines = |text: &str| {
        let lines = text.lines().map(|line| line.trim_start_matches("would ").to_owned());
        lines.filter(|line| !line.contains("is no longer installed")).collect::<BTreeSet<_>>()
    };
    let shown = host.run(&["uninstall", "--purge", "--dry-run"]);
    let output = host.run(&["uninstall", "--purge"]);
    assert_eq!(lines(&shown), lines(&output));
    for (dir, names) in [("etc/etcdproxy", "ca.pem"), ("opt/etcdproxy", "a, b, c and 1 more")] {
        let note = format!("note: kept, because it is not empty: {} ({names})\n", host.path(dir).display());
        assert!(output.contains(&note), "{output}");
    }
}

#[test]
fn uninstall_keeps_modified_settings_unless_it_purges() {
    for (args, is_left) in [(&["uninstall"][..], true), (&["uninstall", "--purge"], false)] {
        let host = Host::new();
        let before = host.tree();
        host.run(&["install", "--systemd"]);
        fs::write(host.path(ENV), "ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n").unwrap();
        let verified = host.run(&["verify"]);
        assert!(verified.contains("etcdproxy.env, changed by you\n"), "{verified}");
        let output = host.run(args);
        let kept = format!("kept, because it was changed after it was installed: {}", host.path(ENV).display());
        assert_eq!(output.contains(&kept), is_left, "{output}");
        assert_eq!(host.path(ENV).exists(), is_left);
        assert_eq!(host.tree() == before, !is_left);
    }
}

#[test]
fn the_sandbox_allows_what_the_settings_need() {
    let host = Host::new();
    host.run(&["install", "--systemd"]);
    let unit = || fs::read_to_string(host.path(UNIT)).unwrap();
    for text in [unit(), fs::read_to_string(host.path(ENV)).unwrap()] {
        assert!(text.contains("etcdproxy install --start\n"), "what to do after a change: {text}");
    }
    let drop_in = host.path("etc/systemd/system/etcdproxy.service.d/10-certificates.conf");
    assert!(unit().contains("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n") && !drop_in.exists());
    let settings = "ETCDPROXY_ENDPOINTS=https://10.0.0.1:2379\nETCDPROXY_LISTEN_ADDR=127.0.0.1:4001\n\
        ETCDPROXY_METRICS_ADDR=127.0.0.1:4002\nETCDPROXY_CACERT=/etc/pki/100%/ca.pem\nETCDPROXY_KEY='/etc/pki/key'\n";
    fs::write(host.path(ENV), settings).unwrap();
    host.run(&["install"]);
    assert!(unit().contains("RestrictAddressFamilies=AF_UNIX AF_INET\n"), "{}", unit());
    assert!(unit().contains("SocketBindAllow=tcp:4001\nSocketBindAllow=tcp:4002\n"), "{}", unit());
    let text = fs::read_to_string(&drop_in).unwrap();
    assert!(
        text.contains("\nLoadCredential=cacert:/etc/pki/100%%/ca.pem\nLoadCredential=key:/etc/pki/key\n"),
        "{text}"
    );
    assert!(text.contains(" --cacert ${CREDENTIALS_DIRECTORY}/cacert --key ${CREDENTIALS_DIRECTORY}/key\n"), "{text}");

    let line = fails_with(78, &mut Host::new().command(&["install", "--systemd", "--prefix", "/home/x"]));
    assert!(
        line.contains("/home/x: the service's sandbox hides everything in /home: choose another --prefix"),
        "{line}"
    );

    fs::write(host.path(ENV), "").unwrap();
    host.run(&["install"]);
    assert!(!drop_in.parent().unwrap().exists(), "no certificates, no drop-in");

    let before = host.tree();
    for path in ["/etc/ca\n[Service]\nExecStartPre=/bin/x", "/etc/ca\x1b[2J", "/etc/ca\\"] {
        let settings = format!("ETCDPROXY_CACERT='{path}'\n");
        fs::write(host.path(ENV), settings).unwrap();
        let line = fails_with(78, &mut host.command(&["install"]));
        assert!(line.contains("etcdproxy.env: ETCDPROXY_CACERT: the path contains a control character"), "{line:?}");
        fs::write(host.path(ENV), "").unwrap();
        assert_eq!(host.tree(), before, "something was written");
    }

    fs::write(host.path(ENV), "ETCDPROXY_LISTEN_ADDR=4001\n").unwrap();
    let line = fails_with(78, &mut host.command(&["install"]));
    assert!(line.contains("etcdproxy.env: ETCDPROXY_LISTEN_ADDR: \"4001\" has no port"), "{line}");
    fs::write(host.path(ENV), "ETCDPROXY_KEY='-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n'\n").unwrap();
    let output = host.run(&["install"]);
    assert!(
        output.contains("holds a private key or a password that other users can read") && !output.contains("c2VjcmV0"),
        "{output}"
    );
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn versions_come_and_go_but_a_running_one_is_never_removed() {
    let host = Host::new();
    let three = three_programs::binary();
    succeeds(&mut host.with(&three, &["install"]));
    let first = host.current();
    assert!(host.path("usr/local/bin/etcdutl").symlink_metadata().is_ok());

    // A running version keeps running while another becomes current.
    let dev = ["dev", "--", "sh", "-c", "exec sleep 60"];
    let mut dev = Process::start(command(&host.current_program("etcdproxy"), dev).stderr(Stdio::null()));
    eventually("it runs", || host.run(&["list"]).contains("runs as process"));
    host.run(&["install"]);
    let second = host.current();
    assert_ne!(first, second);
    assert!(host.path("usr/local/bin/etcdutl").symlink_metadata().is_err(), "this version has none");
    let output = host.run(&["prune", "--keep", "1"]);
    assert!(output.contains(&format!("{first} is kept: process ")), "{output}");
    assert!(dev.is_running());

    assert!(host.run(&["rollback"]).ends_with(&format!("{first} is current\n")));
    assert_eq!(host.current(), first);
    assert!(host.path("usr/local/bin/etcdutl").symlink_metadata().is_ok());
    host.run(&["verify"]);
    assert!(
        host.run(&["rollback"]).ends_with(&format!("{second} is current\n")),
        "a second rollback goes forward again"
    );
    let line = fails_with(1, &mut host.command(&["rollback", "9.9"]));
    assert!(line.contains(&format!("version 9.9 is not installed: choose one of {first}, {second}")), "{line}");
    let line = fails_with(1, &mut host.command(&["rollback", "0.1"]));
    assert!(line.contains(&format!("0.1 matches several versions ({first}, {second})")), "{line}");

    dev.signal(Signal::SIGTERM);
    dev.wait();
    assert!(host.run(&["prune", "--keep", "2"]).ends_with("nothing to do\n"));
    host.run(&["prune", "--keep", "1"]);
    let left: Vec<_> = fs::read_dir(host.path("opt/etcdproxy/versions")).unwrap().collect();
    assert_eq!(left.len(), 1);
    host.run(&["verify"]);
    let line = fails_with(1, &mut host.command(&["rollback"]));
    assert!(line.contains("there is no version to roll back to"), "{line}");
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn verify_finds_a_damaged_version_rollback_refuses_it_and_install_repairs_it() {
    let host = Host::new();
    succeeds(&mut host.with(&three_programs::binary(), &["install"]));
    let first = host.current();
    host.run(&["install"]);
    let etcd = host.path("opt/etcdproxy/versions").join(&first).join("bin/etcd");
    fs::write(&etcd, "not etcd").unwrap();
    let (code, stdout, _) = finish(&mut host.command(&["verify", "--json"]));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["sound"]), (1, &Value::Bool(false)));
    let files = report["files"].as_array().unwrap();
    let bad: Vec<&Value> = files.iter().filter(|file| !file["problem"].is_null()).collect();
    assert!(bad.len() == 1 && bad[0]["path"] == etcd.to_str().unwrap(), "{bad:?}");
    let line = fails_with(1, &mut host.command(&["rollback"]));
    assert!(line.contains(&format!("{} is not as it was installed", etcd.display())), "{line}");
    succeeds(&mut host.with(&three_programs::binary(), &["install"]));
    host.run(&["verify"]);

    // The receipt was changed as well.
    let etcd = host.path("opt/etcdproxy/current/bin/etcd");
    host.run(&["install"]);
    let receipt = fs::read_to_string(host.path("opt/etcdproxy/receipt.json")).unwrap();
    let (old, new) = (hex::encode(Sha256::digest(fs::read(&etcd).unwrap())), hex::encode(Sha256::digest("not etcd")));
    fs::write(&etcd, "not etcd").unwrap();
    fs::write(host.path("opt/etcdproxy/receipt.json"), receipt.replace(&old, &new)).unwrap();
    let (code, stdout, _) = finish(&mut host.command(&["verify"]));
    assert!(code == 1 && stdout.contains("bin/etcd: it has 8 bytes, not "), "{stdout}");
}

/// Kills a command as soon as it has printed so many lines.
fn kill_after(host: &Host, args: &[&str], lines: usize) {
    let mut process = Process::start(host.command(args).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut stdout = BufReader::new(process.stdout());
    for _ in 0..lines {
        stdout.read_line(&mut String::new()).unwrap();
    }
    process.kill();
}

#[test]
fn links_move_to_another_directory_despite_interruptions() {
    let host = Host::new();
    let before = host.tree();
    host.run(&["install"]);
    let move_them = ["install", "--bin-dir", "/usr/bin"];
    for lines in 0..6 {
        let host = host.copy();
        kill_after(&host, &move_them, lines);
        if lines % 2 == 0 {
            host.run(&move_them);
            assert!(host.path("usr/bin/etcd").symlink_metadata().is_ok());
            assert!(host.path("usr/local/bin/etcd").symlink_metadata().is_err());
            host.run(&["verify"]);
        }
        host.run(&["uninstall"]);
        assert_eq!(host.tree(), before, "{lines}");
    }
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn after_an_interrupted_upgrade_every_command_agrees_on_the_current_version() {
    let host = Host::new();
    succeeds(&mut host.with(&three_programs::binary(), &["install"]));
    let old = host.current();
    let mut seen = false;
    for lines in 0..10 {
        let host = host.copy();
        kill_after(&host, &["install"], lines);
        seen |= host.current() != old;
        let listed = host.run(&["list"]);
        assert!(listed.lines().any(|line| line.starts_with(&host.current()) && line.ends_with("current")), "{listed}");
        host.run(&["prune", "--keep", "1"]);
        assert!(succeeds(&mut command(&host.current_program("etcd"), ["--version"])).starts_with("etcd Version"));
        host.run(&["install"]);
        host.run(&["verify"]);
    }
    assert!(seen, "every kill came too early");
}

#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn several_installs_can_run_at_once() {
    let host = Host::new();
    let mut both: Vec<Process> = [binary(), three_programs::binary(), binary(), binary()]
        .iter()
        .map(|binary| Process::start(host.with(binary, &["install"]).stdout(Stdio::null())))
        .collect();
    assert!(both.iter_mut().all(|one| one.wait().success()));
    host.run(&["verify"]);
    assert_eq!(host.receipt()["versions"].as_array().unwrap().len(), 2);
}

#[test]
fn another_command_that_hangs_is_an_error_after_ten_seconds() {
    let host = Host::new();
    host.run(&["install"]);
    let lock = fs::File::create(host.path("opt/etcdproxy/.lock")).unwrap();
    lock.lock().unwrap();
    let start = Instant::now();
    let line = fails_with(73, &mut host.command(&["uninstall"]));
    assert!(line.contains("opt/etcdproxy is in use by another etcdproxy: let it finish"), "{line}");
    assert!(start.elapsed() > Duration::from_secs(9), "it did not wait");
}

#[test]
fn an_unreadable_receipt_is_an_error_and_force_writes_a_new_one() {
    for (text, why) in [("{", "EOF while parsing"), ("{}", "missing field"), ("\u{fffd}", "expected value")] {
        let host = Host::new();
        let before = host.tree();
        host.run(&["install"]);
        let receipt = host.path("opt/etcdproxy/receipt.json");
        fs::write(&receipt, text).unwrap();
        for verb in ["install", "uninstall", "verify", "rollback"] {
            let line = fails_with(1, &mut host.command(&[verb]));
            let problem = format!("{} is not a valid receipt ({why}", receipt.display());
            assert!(line.contains(&problem) && line.contains("\"install --force\" writes a new one"), "{line}");
        }
        host.run(&["install", "--force"]);
        host.run(&["verify"]);
        // A second time, --force does not advise --force.
        let good = fs::read(&receipt).unwrap();
        fs::write(&receipt, text).unwrap();
        let line = fails_with(73, &mut host.command(&["install", "--force"]));
        assert!(line.ends_with("which already exists: move one of them away") && !line.contains("--force"), "{line}");
        fs::write(&receipt, good).unwrap();
        fs::remove_file(host.path("opt/etcdproxy/receipt.json.etcdproxy-saved")).unwrap();
        host.run(&["uninstall"]);
        let left: Vec<String> = host.tree().into_keys().filter(|path| !before.contains_key(path)).collect();
        assert!(
            left.iter().all(|path| host.path(path).is_dir()),
            "only directories, which others may use, are left: {left:?}"
        );
    }
}

#[test]
fn the_receipt_of_a_newer_etcdproxy_is_left_alone() {
    let host = Host::new();
    host.run(&["install"]);
    fs::write(host.path("opt/etcdproxy/receipt.json"), r#"{"format":2,"all":"new"}"#).unwrap();
    for args in [&["install"][..], &["install", "--force"], &["uninstall"]] {
        let line = fails_with(1, &mut host.command(args));
        assert!(line.contains("receipt.json was written by a newer etcdproxy: use that one"), "{line}");
    }
}

#[test]
fn a_fifo_in_place_of_a_file_is_an_error_and_nobody_waits_for_it() {
    for (name, code) in [("opt/etcdproxy/receipt.json", 73), ("opt/etcdproxy/.lock", 73), (ENV, 73)] {
        let host = Host::new();
        host.run(&["install", "--systemd"]);
        let path = host.path(name);
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for verb in ["install", "uninstall"] {
            let line = fails_with(code, &mut host.command(&[verb]));
            assert!(line.contains(&format!("{}", path.display())) && line.contains("not a regular file: "), "{line}");
        }
    }
}

/// An image's receipt cannot lead out of the image.
#[test]
fn a_receipt_whose_directories_lead_out_of_the_root_is_refused() {
    let host = Host::new();
    host.run(&["install", "--bin-dir", "/opt/bin"]);
    let receipt = host.path("opt/etcdproxy/receipt.json");
    let text = fs::read_to_string(&receipt).unwrap();
    fs::write(&receipt, text.replace("\"/opt/bin", "\"/../out/bin")).unwrap();
    let before = host.tree();
    for verb in ["install", "uninstall", "verify", "list"] {
        let line = fails_with(1, &mut host.command(&[verb]));
        assert!(line.contains("(/../out/bin is not a directory of an installation)"), "{line}");
    }
    assert_eq!(host.tree(), before);
    assert!(!host.0.path().parent().unwrap().join("out").exists());
}

/// A receipt cannot make uninstall remove other files.
#[test]
fn a_receipt_with_foreign_paths_is_refused() {
    let host = Host::new();
    host.run(&["install"]);
    let receipt = host.path("opt/etcdproxy/receipt.json");
    let text = fs::read_to_string(&receipt).unwrap();
    for path in ["/etc/passwd", "/opt/etcdproxy/../../etc/passwd"] {
        fs::write(&receipt, text.replace("/usr/local/bin/etcd\"", &format!("{path}\""))).unwrap();
        let line = fails_with(1, &mut host.command(&["uninstall"]));
        assert!(line.contains(&format!("{path} is not a path of an installation")), "{line}");
    }
}

/// As if etcdproxy ran in a chroot of the image. Every command agrees, and the system outside stays as it is.
#[test]
fn links_in_an_image_lead_to_where_they_lead_in_the_image() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("opt")).unwrap();
    // The target exists outside as well.
    let absolute = outside.path().join("opt").to_str().unwrap().to_owned();
    let inside = absolute.trim_start_matches('/');
    let up = format!("{}{inside}", "../".repeat(30));
    for (target, dir) in
        [(absolute.as_str(), inside), (&up, inside), ("var/lib", "var/lib"), ("/var/../var/lib", "var/lib")]
    {
        let host = Host::new();
        fs::create_dir_all(host.path(dir)).unwrap();
        fs::remove_dir(host.path("opt")).unwrap();
        symlink(target, host.path("opt")).unwrap();
        // Settings may be somewhere else, too.
        fs::create_dir(host.path("etc/etcdproxy")).unwrap();
        fs::write(host.path("var/settings"), "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4001\n").unwrap();
        symlink("/var/settings", host.path(ENV)).unwrap();
        let before = host.tree();

        let output = host.run(&["install", "--systemd"]);
        let current = host.path(dir).join("etcdproxy/current");
        assert!(output.contains(&format!("link {} -> ", current.display())), "{output}");
        assert!(current.join("bin/etcd").exists());
        assert!(fs::read_to_string(host.path(UNIT)).unwrap().contains("SocketBindAllow=tcp:4001\n"));
        assert!(host.run(&["install"]).ends_with(": nothing to do\n"));
        let verified = host.run(&["verify"]);
        assert!(verified.lines().all(|line| line.starts_with("ok ")), "{verified}");
        let installed = format!("installed in {}:\n", current.parent().unwrap().display());
        assert!(host.run(&["list"]).contains(&installed));
        assert!(host.run(&["prune", "--keep", "1"]).ends_with("nothing to do\n"));
        let line = fails_with(1, &mut host.command(&["rollback"]));
        assert!(line.contains("is the only one"), "{line}");
        host.run(&["uninstall"]);
        assert_eq!(host.tree(), before, "{target}");
        assert_eq!(tree(outside.path()).keys().collect::<Vec<_>>(), ["opt"], "{target}");
    }
}

#[test]
fn links_in_an_image_that_lead_nowhere_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    for target in [outside.path().to_str().unwrap(), "opt", "/opt/x", "/dev/null/x"] {
        let host = Host::new();
        fs::remove_dir(host.path("opt")).unwrap();
        symlink(target, host.path("opt")).unwrap();
        let before = host.tree();
        let line = fails_with(73, &mut host.command(&["install"]));
        let problem = format!("{} is a link that leads to no directory: ", host.path("opt").display());
        assert!(line.contains(&problem), "{line}");
        assert_eq!(host.tree(), before);
        assert!(host.run(&["list"]).lines().all(|line| !line.contains("installed in")));
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn directories_that_others_can_write_are_refused() {
    let host = Host::new();
    fs::set_permissions(host.path("usr/local/bin"), Permissions::from_mode(0o777)).unwrap();
    let line = fails_with(77, &mut host.command(&["install"]));
    assert!(line.contains("usr/local/bin is writable by everybody"), "{line}");
    fs::set_permissions(host.path("usr/local/bin"), Permissions::from_mode(0o1777)).unwrap();
    let line = fails_with(77, &mut host.command(&["install"]));
    assert!(line.contains("usr/local/bin is writable by everybody"), "{line}");
    assert!(!host.path("opt/etcdproxy").exists());
}

#[test]
fn an_install_for_one_user_stays_in_their_home() {
    // The home is not below /tmp, where everybody can write.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let home = home.path().canonicalize().unwrap();
    let run = |args: &[&str]| {
        let mut command = command(&binary(), args);
        command.env("HOME", &home).env_remove("ETCDPROXY_UNPACK_DIR");
        command
    };
    let output = succeeds(&mut run(&["install", "--user", "--systemd", "--enable"]));
    assert!(output.contains(&format!("note: {}/.local/bin is not in PATH", home.display())), "{output}");
    let unit = fs::read_to_string(home.join(".config/systemd/user/etcdproxy.service")).unwrap();
    assert!(unit.contains(&format!("ExecStart={}/.local/opt/etcdproxy/current/bin/etcdproxy run", home.display())));
    assert!(unit.contains("WantedBy=default.target") && !unit.contains("DynamicUser"), "{unit}");
    let is_filled_in = |part: &str| !part.starts_with(|c: char| c.is_ascii_uppercase());
    assert!(unit.split('@').skip(1).all(is_filled_in), "{unit}");
    assert!(home.join(".config/etcdproxy/etcdproxy.env").exists());
    // The installed etcdproxy knows where it is installed.
    let mut installed = command(&home.join(".local/bin/etcdproxy"), ["verify"]);
    let verified = succeeds(installed.env("HOME", &home).env_remove("ETCDPROXY_UNPACK_DIR"));
    assert!(verified.contains(".local/bin/etcd\n"), "{verified}");
    succeeds(&mut run(&["uninstall", "--user"]));
    let left: Vec<String> = tree(&home).into_keys().filter(|path| !home.join(path).is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn invalid_locations_are_errors() {
    for (code, args, problem) in [
        (
            2,
            &["install", "--prefix", "/opt/a b"][..],
            "--prefix: \"/opt/a b\" contains something that a systemd unit cannot use",
        ),
        (2, &["install", "--bin-dir", "/usr/../bin"], "--bin-dir: \"/usr/../bin\" contains something"),
        (2, &["install", "--prefix", "/a\n[Service]"], "--prefix: \"/a\\n[Service]\" contains something"),
        (2, &["install", "--bin-dir", "/a$b"], "--bin-dir: \"/a$b\" contains something"),
        (78, &["install", "--user"], "--user: HOME is not set"),
    ] {
        let line = fails_with(code, &mut command(&binary(), args));
        assert!(line.contains(problem), "{line}");
    }
}

mod needs_root {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
    use std::process::Command;

    use super::{Host, UNIT};
    use crate::support::{as_user, binary, command, fails_with, succeeds, write_program};
    use crate::three_programs;

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn files_of_another_user_are_refused() {
        let victim = tempfile::NamedTempFile::new().unwrap();
        for (path, message) in [
            ("usr/local/bin/etcd", "usr/local/bin/etcd belongs to uid 65534"),
            ("opt/etcdproxy", "opt/etcdproxy belongs to uid 65534"),
            (UNIT, "etcdproxy.service belongs to uid 65534"),
            ("etc/etcdproxy", "etc/etcdproxy belongs to uid 65534"),
        ] {
            let host = Host::new();
            symlink(victim.path(), host.path(path)).unwrap();
            lchown(host.path(path), Some(65534), Some(65534)).unwrap();
            let line = fails_with(77, &mut host.command(&["install", "--force"]));
            assert!(line.contains(message), "{line}");
            assert_eq!(victim.path().metadata().unwrap().len(), 0);
            assert!(!host.path("usr/local/bin/etcdproxy").exists(), "nothing was changed");
        }
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn root_gets_a_service_if_there_is_systemd() {
        let host = Host::new();
        host.run(&["install"]);
        assert!(host.path(UNIT).exists());
    }

    /// Fills the disk with the installation, runs commands there, and returns what they print.
    fn on_a_full_disk(host: &Host, commands: &str) -> String {
        let script = format!(
            "set -e; cp -a $ROOT/opt /tmp/$$; mount -t tmpfs -o size=$(($(du -sm /tmp/$$ | cut -f1) + 1))m x $ROOT/opt
            cp -a /tmp/$$/. $ROOT/opt; rm -r /tmp/$$; ! head -c 9m /dev/zero >$ROOT/opt/full 2>/dev/null
            ! echo x 2>/dev/null >$ROOT/opt/more
            {commands}"
        );
        let mut command = command("unshare".as_ref(), ["--mount", "sh", "-c", &script]);
        succeeds(command.env("ROOT", host.0.path()).env("BIN", binary()))
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn a_full_disk_does_not_stop_an_uninstall() {
        let host = Host::new();
        host.run(&["install", "--systemd"]);
        let output = on_a_full_disk(&host, "$BIN uninstall --root $ROOT; ls -A $ROOT/opt");
        assert!(
            output.contains("etcdproxy is no longer installed in ") && output.ends_with("full\nmore\n"),
            "{output}"
        );
        assert!(!host.path("usr/local/bin/etcd").exists() && !host.path(UNIT).exists());
    }

    #[test]
    #[ignore = "needs root and a build with three programs: run ./scripts/test.sh as root"]
    fn a_full_disk_does_not_stop_a_rollback_or_a_prune() {
        let host = Host::new();
        succeeds(&mut host.with(&three_programs::binary(), &["install"]));
        let first = host.current();
        host.run(&["install"]);
        let output = on_a_full_disk(
            &host,
            "$BIN rollback --root $ROOT; readlink $ROOT/opt/etcdproxy/current
            rm $ROOT/opt/full; $BIN verify --root $ROOT; ! head -c 9m /dev/zero >$ROOT/opt/full 2>/dev/null
            $BIN prune --keep 1 --root $ROOT; ls $ROOT/opt/etcdproxy/versions; $BIN uninstall --root $ROOT; ls -A $ROOT/opt",
        );
        assert!(output.contains(&format!("{first} is current\nversions/{first}\n")), "{output}");
        assert!(output.contains("everything is done, but a later command has to record it: "), "{output}");
        assert!(!output.contains("MISMATCH") && output.contains(&format!("\n{first}\n")), "{output}");
        assert!(output.ends_with("full\nmore\n"), "{output}");
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn root_does_not_obey_what_others_can_write() {
        let theirs = 12345;
        let change = |what: &str, host: &Host| {
            let (prefix, receipt) = (host.path("opt/etcdproxy"), host.path("opt/etcdproxy/receipt.json"));
            let mode =
                |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            match what {
                "owner" => lchown(&receipt, Some(theirs), None).unwrap(),
                "group" => {
                    lchown(&receipt, None, Some(theirs)).unwrap();
                    mode(&receipt, 0o664);
                }
                "everybody" => mode(&receipt, 0o646),
                "directory" => {
                    lchown(&prefix, None, Some(theirs)).unwrap();
                    mode(&prefix, 0o775);
                }
                _ => {
                    fs::rename(&receipt, host.path("opt/etcdproxy/theirs.json")).unwrap();
                    symlink("theirs.json", &receipt).unwrap();
                }
            }
        };
        for (what, code, problem) in [
            ("owner", 77, "receipt.json belongs to uid 12345, who could change what is installed"),
            ("group", 77, "receipt.json is writable by the group 12345, whose members could change"),
            ("everybody", 77, "receipt.json is writable by everybody"),
            ("directory", 77, "opt/etcdproxy is writable by the group 12345, whose members could change"),
            ("link", 73, "receipt.json is not a regular file: move it away"),
        ] {
            let host = Host::new();
            host.run(&["install"]);
            change(what, &host);
            let before = host.tree();
            for args in [&["install"][..], &["uninstall"], &["prune", "--keep", "1"], &["rollback"]] {
                let line = fails_with(code, &mut host.command(args));
                assert!(line.contains(problem), "{what}: {line}");
            }
            assert_eq!(host.tree(), before, "{what}");
        }
    }

    /// A script in its own mount namespace. A version is installed in `$ROOT`, and `$BIN` is another one.
    fn with_mounts(host: &Host, script: &str) -> Command {
        succeeds(&mut host.with(&three_programs::binary(), &["install"]));
        let mut command = command("unshare".as_ref(), ["--mount", "sh", "-c", script]);
        command.env("ROOT", host.0.path()).env("BIN", binary());
        command
    }

    #[test]
    #[ignore = "needs root and a build with three programs: run ./scripts/test.sh as root"]
    fn a_full_disk_leaves_the_current_version_intact() {
        let host = Host::new();
        // There is room for another etcdproxy, but not for another etcd.
        let script = "
            exec 3>/dev/null; set -e; cp -a $ROOT/opt /tmp/$$
            mount -t tmpfs -o size=$(($(du -sm /tmp/$$ | cut -f1) + 20))m x $ROOT/opt; cp -a /tmp/$$/. $ROOT/opt; rm -r /tmp/$$
            set +e; $BIN install --root $ROOT >&3; code=$?
            $ROOT/opt/etcdproxy/current/bin/etcd --version >&3 || exit 9
            cd $ROOT/opt/etcdproxy; set -- versions/*/; test $# = 1 || exit 8; ls -AR . | grep -q tmp && exit 7
            current/bin/etcdproxy verify --root $ROOT >&3 || exit 6
            exit $code";
        let line = fails_with(73, &mut with_mounts(&host, script));
        assert!(line.contains("no space left") && line.contains("/opt/etcdproxy/versions/"), "{line}");
    }

    #[test]
    #[ignore = "needs root and a build with three programs: run ./scripts/test.sh as root"]
    fn a_read_only_or_noexec_prefix_is_an_error() {
        let host = Host::new();
        let script = "mount --bind -o ro $ROOT/opt $ROOT/opt && mount -o remount,bind,ro $ROOT/opt && exec $BIN install --root $ROOT";
        let line = fails_with(73, &mut with_mounts(&host, script));
        assert!(line.contains("opt/etcdproxy") && line.contains("the file system is read-only"), "{line}");
        let script = "mount -t tmpfs -o noexec x $ROOT/opt && exec $BIN install --root $ROOT";
        let line = fails_with(77, &mut with_mounts(&host, script));
        assert!(line.contains("opt/etcdproxy is on a file system mounted noexec"), "{line}");
    }

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn an_install_without_permission_is_an_error() {
        let host = Host::new();
        let copy = host.path("etcdproxy");
        write_program(&copy, &fs::read(binary()).unwrap());
        let line = fails_with(77, as_user(65534, &copy).args(["install", "--root"]).arg(host.0.path()));
        assert!(line.contains(": permission denied: ") && line.contains("--user needs none"), "{line}");
    }
}
