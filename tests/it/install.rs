//! Installing on plain hosts: everything can be seen beforehand, checked afterwards and undone, whatever happens.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::{Process, binary, command, eventually, fails_with, finish, link};
use crate::three_programs;

/// A system's root directory, with nothing in it but the usual directories and systemd.
struct Host(TempDir);

const DIRS: [&str; 5] = ["usr/local/bin", "etc/systemd/system", "opt", "var/lib", "usr/lib/systemd"];
const ENV: &str = "etc/etcdproxy/etcdproxy.env";
const UNIT: &str = "etc/systemd/system/etcdproxy.service";

impl Host {
    fn new() -> Self {
        // In memory: the tests' disk is slow, and no test here pulls its plug.
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
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

    /// Runs it to its end, which must be a good one.
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

    /// Another system that is the same. Its files are the same, too, and any that is written to is so in both.
    fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir_in(self.0.path().parent().unwrap()).unwrap());
        let from = self.0.path().join(".");
        assert!(Command::new("cp").arg("-al").args([&from, copy.0.path()]).status().unwrap().success());
        copy
    }
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let (code, stdout, stderr) = finish(command);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    stdout
}

type Tree = BTreeMap<String, String>;

/// Every path below `dir`: its mode, and content or target.
fn tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let what = if meta.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else if meta.is_dir() {
                dirs.push(path.clone());
                "directory".to_owned()
            } else if path.ends_with("receipt.json") {
                "receipt".to_owned() // has the time of the installation
            } else {
                sha256(&path)
            };
            tree.insert(path.strip_prefix(dir).unwrap().display().to_string(), format!("{:o} {what}", meta.mode()));
        }
    }
    tree
}

/// In hex. A file that was seen before is not read again: many trees have the same ones.
fn sha256(path: &Path) -> String {
    static SEEN: Mutex<BTreeMap<(u64, i64, i64), String>> = Mutex::new(BTreeMap::new());
    let meta = path.metadata().unwrap();
    let mut seen = SEEN.lock().unwrap();
    let hash = || hex::encode(Sha256::digest(fs::read(path).unwrap()));
    seen.entry((meta.ino(), meta.mtime(), meta.mtime_nsec())).or_insert_with(hash).clone()
}

#[test]
fn what_is_shown_is_done_and_can_be_undone() {
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
    // The links lead where they should in that system.
    for name in ["etcdproxy", "etcd"] {
        let link = fs::read_link(host.path("usr/local/bin").join(name)).unwrap();
        assert_eq!(link, Path::new("/opt/etcdproxy/current/bin").join(name));
    }
    assert!(succeeds(&mut command(&host.current_program("etcd"), ["--version"])).starts_with("etcd Version: "));

    assert!(host.run(&["install"]).ends_with(": nothing to do\n"));
    assert_eq!(host.tree(), after, "and it stays enabled");
    let verified = host.run(&["verify"]);
    assert!(verified.lines().all(|line| line.starts_with("ok ")), "{verified}");

    let listed = host.run(&["uninstall", "--dry-run"]);
    assert_eq!(host.tree(), after);
    assert_eq!(listed.lines().count(), new.len() - 1, "all but the receipt: {listed}");
    host.run(&["uninstall"]);
    assert_eq!(host.tree(), before);
    let told = host.run(&["uninstall"]);
    assert!(told.starts_with("nothing to do\nnote: nothing is installed in") && told.contains("--prefix"), "{told}");
    let json: Value = serde_json::from_str(&host.run(&["uninstall", "--dry-run=json"])).unwrap();
    assert!(json["steps"].as_array().unwrap().is_empty(), "{json:#}");
    for verb in ["rollback", "verify"] {
        let line = fails_with(1, &mut host.command(&[verb]));
        assert!(line.contains("nothing is installed in") && line.contains("--prefix"), "{line}");
    }
}

#[test]
fn a_root_that_is_not_there_is_an_error_that_says_so() {
    let host = Host::new();
    let root = host.path("no/root");
    for args in [&["install"][..], &["install", "--dry-run"], &["uninstall"], &["verify"], &["list"]] {
        let mut command = command(&binary(), args);
        let (code, _, stderr) = finish(command.arg("--root").arg(&root));
        let problem = format!("--root: the directory {} does not exist: create it first\n", root.display());
        assert!(code == 78 && stderr.ends_with(&problem), "{args:?}: {code} {stderr}");
    }
}

/// Every path that is said is one that can be looked at as it is.
#[test]
fn all_paths_that_are_said_have_the_root() {
    let host = Host::new();
    let root = host.path("").display().to_string();
    fs::write(host.path("usr/local/bin/etcd"), "mine").unwrap();
    let mut said = host.run(&["install", "--force", "--dry-run"]) + &host.run(&["install", "--force"]);
    fs::write(host.path(ENV), "ETCDPROXY_METRICS_ADDR=127.0.0.1:4002\n").unwrap();
    said += &host.run(&["install"]);
    // What is unpacked is this host's, and none of that root's.
    succeeds(&mut command(&link(&host.path("opt"), "etcd"), ["--version"]));
    said += &host.run(&["verify"]);
    fs::write(host.path(UNIT), "").unwrap();
    said += &host.run(&["uninstall"]);
    said += &host.run(&["uninstall", "--purge"]);
    said += &host.run(&["uninstall"]);
    fs::create_dir(host.path("etc/etcdproxy")).unwrap();
    fs::write(host.path(ENV), "").unwrap();
    said += &host.run(&["install", "--force"]);
    said += &host.run(&["uninstall"]);
    for line in said.lines() {
        let is_not_a_target = |word: &&str| !line.contains(&format!("-> {word}"));
        let paths = line.split([' ', ':']).filter(|word| word.starts_with('/')).filter(is_not_a_target);
        paths.for_each(|path| assert!(path.starts_with(&root), "{line}"));
    }
}

#[test]
fn that_no_service_is_made_is_said_when_nobody_asked_for_that() {
    let host = Host::new();
    fs::remove_file(host.path("usr/lib/systemd/systemd")).unwrap();
    let problem = "\nnote: no service is installed, because there is no systemd: --systemd installs one anyway\n";
    for args in [&["install", "--dry-run"][..], &["install"]] {
        let told = host.run(args);
        assert!(told.contains(problem), "{told}");
    }
    assert!(!host.path(UNIT).exists());
    let told = host.run(&["install", "--no-systemd"]);
    assert!(!told.contains("no service"), "{told}");
    let told = host.run(&["install", "--systemd"]);
    assert!(!told.contains("no service is installed") && host.path(UNIT).exists(), "{told}");
}

#[test]
fn the_receipt_lists_each_path_with_its_hash_and_mode() {
    let host = Host::new();
    host.run(&["install"]);
    let receipt = host.receipt();
    let entries = receipt["entries"].as_array().unwrap();
    for (path, what) in host.tree() {
        let entry = entries.iter().find(|entry| entry["path"] == format!("/{path}"));
        if DIRS.iter().any(|dir| dir.starts_with(&path))
            || path.ends_with("systemd/systemd")
            || what.contains("receipt")
        {
            assert!(entry.is_none(), "{path} is not ours");
            continue;
        }
        let entry = entry.unwrap_or_else(|| panic!("{path} is not in {receipt:#}"));
        assert!(entry["before"].is_null());
        let found = match entry["kind"].as_str().unwrap() {
            "file" => format!("10{} {}", entry["mode"].as_str().unwrap(), entry["sha256"].as_str().unwrap()),
            "link" => format!("120777 {}", entry["target"].as_str().unwrap()),
            _ => "40755 directory".to_owned(),
        };
        assert_eq!(found, what, "{path}");
    }
}

#[test]
fn killed_at_200_random_moments_the_same_command_does_the_rest() {
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
    for round in 0..200u32 {
        let (start, args, wanted) = [
            (&plain, &["install", "--enable"][..], new.tree()),
            (&old, &["install"], upgraded.tree()),
            (&upgraded, &["uninstall"], before.clone()),
        ][(round % 3) as usize]
            .clone();
        let host = start.copy();
        let mut process = Process::start(host.command(args).stdout(Stdio::null()).stderr(Stdio::null()));
        // Spread over the whole run and a little beyond, in an order that is not the runs' own.
        std::thread::sleep(whole[(round % 3) as usize].mul_f64(f64::from(round * 73 % 200) / 180.0));
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
    println!("{unfinished} of 200 were killed before the end");
    assert!(unfinished > 50, "only {unfinished} of 200 were killed before the end");
}

/// Whatever a killed installation has left, `uninstall` removes.
#[test]
fn an_installation_that_was_killed_can_be_uninstalled() {
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
fn what_is_in_the_way_is_an_error_and_with_force_it_is_kept_and_comes_back() {
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
fn a_directory_in_the_way_is_not_moved() {
    let host = Host::new();
    fs::create_dir(host.path("usr/local/bin/etcd")).unwrap();
    let line = fails_with(73, &mut host.command(&["install", "--force"]));
    assert!(line.contains("usr/local/bin/etcd is a directory where a file must go: move it away"), "{line}");
}

#[test]
fn the_users_settings_stay_and_a_unit_that_was_changed_is_not_overwritten() {
    let host = Host::new();
    let mine = "ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n";
    fs::create_dir(host.path("etc/etcdproxy")).unwrap();
    fs::write(host.path(ENV), mine).unwrap();
    let before = host.tree();
    let told = host.run(&["install"]);
    let new = host.path(ENV).with_extension("env.new");
    assert!(
        told.contains(&format!("etcdproxy.env is yours and stays: the current defaults are in {}", new.display())),
        "{told}"
    );
    assert_eq!(fs::read_to_string(host.path(ENV)).unwrap(), mine);
    assert!(fs::read_to_string(host.path("etc/etcdproxy/etcdproxy.env.new")).unwrap().contains("#ETCDPROXY_CACERT"));
    fs::remove_file(host.path("etc/etcdproxy/etcdproxy.env.new")).unwrap();
    assert!(host.run(&["install"]).ends_with(": nothing to do\n"), "it was offered once");

    fs::write(host.path(UNIT), "[Service]\nExecStart=/bin/true\n").unwrap();
    let (code, stdout, _) = finish(&mut host.command(&["verify"]));
    assert_eq!(code, 1);
    let differs: Vec<&str> = stdout.lines().filter(|line| line.starts_with("MISMATCH ")).collect();
    assert!(differs.len() == 1 && differs[0].contains("etcdproxy.service: its sha256 is"), "{differs:?}");
    let line = fails_with(73, &mut host.command(&["install"]));
    assert!(line.contains("etcdproxy.service was changed after it was installed"), "{line}");
    let told = host.run(&["uninstall"]);
    assert!(
        told.contains(&format!("kept, because it was changed after it was installed: {}", host.path(UNIT).display()))
    );
    let theirs = format!("kept, because install did not write it: {}", host.path(ENV).display());
    assert!(told.contains(&theirs), "{told}");
    for is_left in [true, false] {
        let told = host.run(&["uninstall", "--purge"]);
        assert!(told.contains(&theirs) && told.contains("nothing is installed") != is_left, "{told}");
        assert_eq!(host.tree(), before);
    }
}

/// What uninstall has left is known to be etcdproxy's, whatever comes next.
#[test]
fn settings_that_an_uninstall_has_left_are_purged_later() {
    for between in
        [&[][..], &["uninstall"], &["install"], &["install", "install --no-systemd"], &["install", "uninstall"]]
    {
        let host = Host::new();
        let before = host.tree();
        host.run(&["install"]);
        let mine = "ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n";
        fs::write(host.path(ENV), mine).unwrap();
        let told = host.run(&["uninstall"]);
        assert!(told.contains("kept for a later install or uninstall --purge: "), "{told}");
        assert!(!host.path("opt/etcdproxy/versions").exists() && !host.path(UNIT).exists());
        let line = fails_with(1, &mut host.command(&["rollback"]));
        assert!(line.contains("nothing is installed in"), "{line}");
        assert!(!host.run(&["list"]).contains("installed in"));
        for command in between {
            host.run(&command.split(' ').collect::<Vec<_>>());
            assert_eq!(fs::read_to_string(host.path(ENV)).unwrap(), mine);
            assert!(!host.path(ENV).with_extension("env.new").exists(), "it is no stranger's");
        }
        host.run(&["uninstall", "--purge"]);
        assert_eq!(host.tree(), before, "{between:?}");
    }
}

#[test]
fn settings_that_were_changed_stay_unless_all_is_purged() {
    for (args, is_left) in [(&["uninstall"][..], true), (&["uninstall", "--purge"], false)] {
        let host = Host::new();
        let before = host.tree();
        host.run(&["install"]);
        fs::write(host.path(ENV), "ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n").unwrap();
        let verified = host.run(&["verify"]);
        assert!(verified.contains("etcdproxy.env, changed by you\n"), "{verified}");
        let told = host.run(args);
        let kept = format!("kept, because it was changed after it was installed: {}", host.path(ENV).display());
        assert_eq!(told.contains(&kept), is_left, "{told}");
        assert_eq!(host.path(ENV).exists(), is_left);
        assert_eq!(host.tree() == before, !is_left);
    }
}

#[test]
fn the_sandbox_lets_through_what_the_settings_need() {
    let host = Host::new();
    host.run(&["install"]);
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

    let line = fails_with(78, &mut Host::new().command(&["install", "--prefix", "/home/x"]));
    assert!(
        line.contains("/home/x: the service's sandbox hides everything in /home: choose another --prefix"),
        "{line}"
    );

    fs::write(host.path(ENV), "").unwrap();
    host.run(&["install"]);
    assert!(!drop_in.parent().unwrap().exists(), "no certificates, no drop-in");

    fs::write(host.path(ENV), "ETCDPROXY_LISTEN_ADDR=4001\n").unwrap();
    let line = fails_with(78, &mut host.command(&["install"]));
    assert!(line.contains("etcdproxy.env: ETCDPROXY_LISTEN_ADDR: \"4001\" has no port"), "{line}");
    fs::write(host.path(ENV), "ETCDPROXY_KEY='-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n'\n").unwrap();
    let told = host.run(&["install"]);
    assert!(told.contains("holds a private key that other users can read") && !told.contains("c2VjcmV0"), "{told}");
}

#[test]
fn versions_come_and_go_and_one_that_runs_is_never_removed() {
    let host = Host::new();
    let three = three_programs::binary();
    succeeds(&mut host.with(&three, &["install"]));
    let first = host.current();
    assert!(host.path("usr/local/bin/etcdutl").symlink_metadata().is_ok());

    // What runs goes on while its version is replaced.
    let dev = ["dev", "--", "sh", "-c", "exec sleep 60"];
    let mut dev = Process::start(command(&host.current_program("etcdproxy"), dev).stderr(Stdio::null()));
    eventually("it runs", || host.run(&["list"]).contains("runs as process"));
    host.run(&["install"]);
    let second = host.current();
    assert_ne!(first, second);
    assert!(host.path("usr/local/bin/etcdutl").symlink_metadata().is_err(), "this version has none");
    let told = host.run(&["prune", "--keep", "1"]);
    assert!(told.contains(&format!("{first} is kept: process ")), "{told}");
    assert!(dev.is_running());

    assert!(host.run(&["rollback"]).ends_with(&format!("{first} is current\n")));
    assert_eq!(host.current(), first);
    assert!(host.path("usr/local/bin/etcdutl").symlink_metadata().is_ok());
    host.run(&["verify"]);
    assert!(host.run(&["rollback"]).ends_with(&format!("{second} is current\n")), "and forth");
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
fn a_version_that_was_damaged_is_found_not_gone_back_to_and_repaired() {
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

    // A receipt that was changed with it.
    let etcd = host.path("opt/etcdproxy/current/bin/etcd");
    host.run(&["install"]);
    let receipt = fs::read_to_string(host.path("opt/etcdproxy/receipt.json")).unwrap();
    let (old, new) = (hex::encode(Sha256::digest(fs::read(&etcd).unwrap())), hex::encode(Sha256::digest("not etcd")));
    fs::write(&etcd, "not etcd").unwrap();
    fs::write(host.path("opt/etcdproxy/receipt.json"), receipt.replace(&old, &new)).unwrap();
    let (code, stdout, _) = finish(&mut host.command(&["verify"]));
    assert!(code == 1 && stdout.contains("bin/etcd: it has 8 bytes, not "), "{stdout}");
}

/// Ends it, without a word, as soon as it has said so many lines.
fn kill_after(host: &Host, args: &[&str], lines: usize) {
    let mut process = Process::start(host.command(args).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut said = BufReader::new(process.stdout());
    for _ in 0..lines {
        said.read_line(&mut String::new()).unwrap();
    }
    process.kill();
}

#[test]
fn programs_move_to_another_directory_whenever_that_is_interrupted() {
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
fn what_an_interrupted_upgrade_made_current_is_current() {
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
    assert!(seen, "it was never killed after that");
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
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
fn another_that_hangs_is_an_error_after_ten_seconds() {
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
fn a_receipt_that_cannot_be_read_is_an_error_and_with_force_a_new_one_is_written() {
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
        fs::remove_file(host.path("opt/etcdproxy/receipt.json.etcdproxy-saved")).unwrap();
        host.run(&["uninstall"]);
        let left: Vec<String> = host.tree().into_keys().filter(|path| !before.contains_key(path)).collect();
        assert!(left.iter().all(|path| host.path(path).is_dir()), "only directories, which may be anybody's: {left:?}");
    }
}

#[test]
fn the_receipt_of_a_newer_etcdproxy_is_left_to_that() {
    let host = Host::new();
    host.run(&["install"]);
    fs::write(host.path("opt/etcdproxy/receipt.json"), r#"{"format":2,"all":"new"}"#).unwrap();
    for args in [&["install"][..], &["install", "--force"], &["uninstall"]] {
        let line = fails_with(1, &mut host.command(args));
        assert!(line.contains("receipt.json was written by a newer etcdproxy: use that one"), "{line}");
    }
}

/// A receipt is no way to have other files removed.
#[test]
fn a_receipt_with_paths_that_are_not_ours_is_refused() {
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

#[test]
fn links_that_lead_out_of_the_root_are_refused() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::remove_dir(host.path("opt")).unwrap();
    symlink(outside.path(), host.path("opt")).unwrap();
    let line = fails_with(77, &mut host.command(&["install"]));
    assert!(line.contains("/opt leads out of --root, to "), "{line}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);

    // One that stays within is as good as a directory.
    fs::remove_file(host.path("opt")).unwrap();
    symlink("var/lib", host.path("opt")).unwrap();
    host.run(&["install"]);
    assert!(host.path("var/lib/etcdproxy/current/bin/etcd").exists());
    host.run(&["verify"]);
}

#[test]
fn places_that_others_can_change_are_refused() {
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
fn what_another_user_planted_is_refused_needs_root() {
    let victim = tempfile::NamedTempFile::new().unwrap();
    for (place, message) in [
        ("usr/local/bin/etcd", "usr/local/bin/etcd belongs to uid 65534"),
        ("opt/etcdproxy", "opt/etcdproxy belongs to uid 65534"),
        (UNIT, "etcdproxy.service belongs to uid 65534"),
        ("etc/etcdproxy", "etc/etcdproxy belongs to uid 65534"),
    ] {
        let host = Host::new();
        symlink(victim.path(), host.path(place)).unwrap();
        lchown(host.path(place), Some(65534), Some(65534)).unwrap();
        let line = fails_with(77, &mut host.command(&["install", "--force"]));
        assert!(line.contains(message), "{line}");
        assert_eq!(victim.path().metadata().unwrap().len(), 0);
        assert!(!host.path("usr/local/bin/etcdproxy").exists(), "nothing was changed");
    }
}

/// A script in a mount namespace of its own, with a version installed in `$ROOT` and a newer one, `$BIN`, at hand.
fn with_mounts(host: &Host, script: &str) -> Command {
    succeeds(&mut host.with(&three_programs::binary(), &["install"]));
    let mut command = command("unshare".as_ref(), ["--mount", "sh", "-c", script]);
    command.env("ROOT", host.0.path()).env("BIN", binary());
    command
}

#[test]
fn a_full_disk_leaves_the_version_that_runs_needs_root() {
    let host = Host::new();
    // Room for another etcdproxy, but not for another etcd.
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
fn a_read_only_prefix_and_one_mounted_noexec_needs_root() {
    let host = Host::new();
    let script = "mount --bind -o ro $ROOT/opt $ROOT/opt && mount -o remount,bind,ro $ROOT/opt && exec $BIN install --root $ROOT";
    let line = fails_with(73, &mut with_mounts(&host, script));
    assert!(line.contains("opt/etcdproxy") && line.contains("the file system is read-only"), "{line}");
    let script = "mount -t tmpfs -o noexec x $ROOT/opt && exec $BIN install --root $ROOT";
    let line = fails_with(77, &mut with_mounts(&host, script));
    assert!(line.contains("opt/etcdproxy is on a file system mounted noexec"), "{line}");
}

#[test]
fn without_permission_it_says_so_needs_root() {
    let host = Host::new();
    let copy = host.path("etcdproxy");
    fs::copy(binary(), &copy).unwrap();
    let mut nobody = command("setpriv".as_ref(), ["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let line = fails_with(77, nobody.arg(&copy).args(["install", "--root"]).arg(host.0.path()));
    assert!(line.contains(": permission denied: ") && line.contains("--user needs none"), "{line}");
}

#[test]
fn for_one_user_all_is_in_their_home() {
    // Not below /tmp, where everybody can write.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let home = home.path().canonicalize().unwrap();
    let run = |args: &[&str]| {
        let mut command = command(&binary(), args);
        command.env("HOME", &home).env_remove("ETCDPROXY_UNPACK_DIR");
        command
    };
    let told = succeeds(&mut run(&["install", "--user", "--systemd", "--enable"]));
    assert!(told.contains(&format!("note: {}/.local/bin is not in PATH", home.display())), "{told}");
    let unit = fs::read_to_string(home.join(".config/systemd/user/etcdproxy.service")).unwrap();
    assert!(unit.contains(&format!("ExecStart={}/.local/opt/etcdproxy/current/bin/etcdproxy run", home.display())));
    assert!(unit.contains("WantedBy=default.target") && !unit.contains("DynamicUser"), "{unit}");
    let is_filled_in = |part: &str| !part.starts_with(|c: char| c.is_ascii_uppercase());
    assert!(unit.split('@').skip(1).all(is_filled_in), "{unit}");
    assert!(home.join(".config/etcdproxy/etcdproxy.env").exists());
    // The installed one knows where it is.
    let mut installed = command(&home.join(".local/bin/etcdproxy"), ["verify"]);
    let verified = succeeds(installed.env("HOME", &home).env_remove("ETCDPROXY_UNPACK_DIR"));
    assert!(verified.contains(".local/bin/etcd\n"), "{verified}");
    succeeds(&mut run(&["uninstall", "--user"]));
    let left: Vec<String> = tree(&home).into_keys().filter(|path| !home.join(path).is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn places_that_cannot_be_one() {
    for (args, problem) in [
        (
            &["install", "--prefix", "/opt/a b"][..],
            "--prefix: \"/opt/a b\" contains something that a systemd unit cannot use",
        ),
        (&["install", "--bin-dir", "/usr/../bin"], "--bin-dir: \"/usr/../bin\" contains something"),
        (&["install", "--user"], "--user: HOME is not set"),
    ] {
        let line = fails_with(78, &mut command(&binary(), args));
        assert!(line.contains(problem), "{line}");
    }
}
