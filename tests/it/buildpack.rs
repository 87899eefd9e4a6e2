//! The buildpack's scripts, called as the platform calls them, and the zip. `scripts/integration.sh` tests whole
//! stagings.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{
    Cluster, Process, as_user, binary, command, etcdproxy, eventually, fails_with, finish, link, names, succeeds,
    unique_addr, unique_host, wait_listening, wait_ready, write_program,
};

/// The unpacked buildpack, and the directories of one staging.
pub(crate) struct Staging {
    dir: TempDir,
}

impl Staging {
    fn new() -> Self {
        Self::with(&[])
    }

    /// The buildpack that `package` makes with these flags. Every path contains a space.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("with space ").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let zip = dir.path().join("buildpack.zip");
        succeeds(etcdproxy(["package", "--output"]).arg(&zip).args(flags));
        for name in ["build", "cache", "deps"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let staging = Self { dir };
        let unzip = "import sys, zipfile, os\nz = zipfile.ZipFile(sys.argv[1])\nfor i in z.infolist():\n \
                     p = z.extract(i, sys.argv[2])\n os.chmod(p, i.external_attr >> 16 & 0o777)";
        succeeds(Command::new("python3").args(["-c", unzip]).arg(&zip).arg(staging.path("buildpack")));
        staging
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, args: &[&Path]) -> Command {
        let mut command = command(&self.path("buildpack/bin").join(name), args);
        command.env_remove("ETCDPROXY_UNPACK_DIR").current_dir("/");
        command
    }

    pub(crate) fn supply(&self, index: &str) -> Command {
        self.script("supply", &[&self.path("build"), &self.path("cache"), &self.path("deps"), index.as_ref()])
    }

    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        names(&self.path(dir))
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    /// The launcher that supply has written, as it runs in a droplet.
    fn launcher(&self, args: &[&str]) -> Command {
        let mut command = command(&self.path("deps/0/bin/etcdproxy"), args);
        command.env_remove("ETCDPROXY_UNPACK_DIR").env("DEPS_DIR", self.path("deps"));
        command
    }
}

#[test]
fn supply_prints_its_steps_and_writes_the_etcd_and_the_launcher() {
    let staging = Staging::new();
    for _ in 0..2 {
        let stdout = succeeds(staging.supply("0").env("ETCDPROXY_ENDPOINTS", "h:2379"));
        let lines: Vec<&str> = stdout.lines().collect();
        assert!(lines[0].starts_with("-----> Etcdproxy Buildpack version "), "{stdout}");
        assert_eq!(lines[1], "-----> Supplying etcd");
        assert!(lines[2].starts_with("       Using etcd version 3."), "{stdout}");
        assert!(lines[3].starts_with("-----> Installing etcd 3."), "{stdout}");
        assert_eq!(lines[4], "       Declaring the sidecar etcd-proxy for web: ETCDPROXY_ENDPOINTS is set.");
        assert!(lines[5].contains("set BP_ETCDPROXY_SIDECAR=false"), "{stdout}");
        assert!(lines[6].contains("with ETCDPROXY_WAIT=30s, the application"), "{stdout}");
        let stdout = succeeds(staging.supply("0").env("ETCDPROXY_ENDPOINTS", "h:2379").env("ETCDPROXY_WAIT", "9s"));
        assert!(!stdout.contains("ETCDPROXY_WAIT"), "{stdout}");
    }
    assert_eq!(staging.names("deps"), ["0"]);
    assert_eq!(staging.names("deps/0"), ["bin", "config.yml", "launch.yml", "profile.d"]);
    assert_eq!(staging.names("deps/0/bin"), ["etcd", "etcdproxy"]);
    assert!(staging.names("build").is_empty() && staging.names("cache").is_empty());
    assert!(staging.text("deps/0/config.yml").contains("output_metadata:\n  etcd_version: \"3."));
    assert!(
        staging
            .text("deps/0/launch.yml")
            .contains(r#"command: "exec \"$DEPS_DIR/0/bin/etcdproxy\" run --drain \"${ETCDPROXY_DRAIN:-8s}\"""#)
    );

    // The launcher is small, finds its etcd, and does not contain another.
    let size = |file: &str| fs::metadata(staging.path(file)).unwrap().len();
    assert!(size("deps/0/bin/etcdproxy") * 2 < size("buildpack/etcdproxy"));
    let (code, stdout, _) = finish(&mut staging.launcher(&["verify"]));
    assert_eq!((code, stdout.lines().count()), (0, 1), "{stdout}");
    let alone = staging.path("alone");
    write_program(&alone, &fs::read(staging.path("deps/0/bin/etcdproxy")).unwrap());
    let line = fails_with(1, &mut command(&alone, ["unpack", "/tmp"]));
    assert!(line.contains("this is the small launcher, which has no etcd inside"), "{line}");
    for args in [&["verify"][..], &["verify", "--json"]] {
        let line = fails_with(1, command(&alone, args).env("ETCDPROXY_UNPACK_DIR", staging.path("empty")));
        assert!(line.contains("nothing to verify: this is the small launcher, which has no etcd inside"), "{line}");
        assert!(
            line.contains(&format!("there is no {}/etcd, ", staging.path("").display()).replace("//", "/")),
            "{line}"
        );
    }
    let line = fails_with(1, &mut command(&alone, ["sbom"]));
    assert!(line.contains("this is the small launcher, which has no bill of materials inside"), "{line}");
}

#[test]
fn native_needs_only_the_launcher_and_supply_removes_the_etcd() {
    let staging = Staging::new();
    let cluster = Cluster::start(1);
    assert_eq!(finish(&mut staging.supply("0")).0, 0);
    let mut supply = staging.supply("0");
    supply.env("BP_ETCDPROXY_MODE", "native").env("BP_ETCDPROXY_SIDECAR", "true").env("BP_ETCDPROXY_MEMORY", "16");
    let (code, stdout, _) = finish(&mut supply);
    assert_eq!((code, stdout.lines().nth(1)), (0, Some("-----> Supplying mode native, which needs no etcd")));
    assert!(stdout.contains("       The droplet contains no etcd. A command that runs etcd"), "{stdout}");
    assert_eq!(staging.names("deps/0/bin"), ["etcd", "etcdproxy"]);
    assert_eq!(fs::read_link(staging.path("deps/0/bin/etcd")).unwrap(), Path::new("etcdproxy"), "it was a real etcd");
    assert!(!staging.text("deps/0/config.yml").contains("etcd_version"));
    assert!(staging.text("deps/0/launch.yml").contains(" --mode native --memory 16"));
    let addr = unique_addr();
    let args = ["run", "--mode", "native", "--endpoints", &cluster.endpoints(), "--listen-addr", &addr];
    let _proxy = Process::start(staging.launcher(&args).stderr(Stdio::null()));
    wait_ready(&addr);
}

#[test]
fn in_a_droplet_without_etcd_auto_is_native_and_what_needs_etcd_says_so() {
    let staging = Staging::new();
    let cluster = Cluster::start(1);
    assert_eq!(finish(staging.supply("0").env("BP_ETCDPROXY_MODE", "native")).0, 0);
    let (endpoints, addr) = (cluster.endpoints(), unique_addr());
    let why = "etcdproxy: mode native: this launcher has no etcd\n";

    // The sidecar of a manifest, and a task.
    let common = ["--endpoints", &endpoints, "--listen-addr", &addr];
    let run = Process::start(staging.launcher(&[&["run"], &common[..]].concat()).stderr(Stdio::piped()));
    wait_ready(&addr);
    let log = run.into_log();
    assert!(log.starts_with(why), "{log}");
    let task = [&["exec"], &common[..], &["--", "sh", "-c", "exit 7"]].concat();
    let (code, _, stderr) = finish(&mut staging.launcher(&task));
    assert_eq!(code, 7, "{stderr}");
    assert!(stderr.starts_with(why), "{stderr}");

    // What the user asks for, and what the launcher says.
    let remedy = "a build with etcd (on Cloud Foundry, stage without BP_ETCDPROXY_MODE)";
    for verb in ["run", "exec"] {
        let task: &[&str] = if verb == "exec" { &["--", "true"] } else { &[] };
        let args = [&[verb, "--mode", "grpc-proxy"], &common[..], task].concat();
        let line = fails_with(78, &mut staging.launcher(&args));
        let problem = "this launcher has no etcd, which mode grpc-proxy needs: use --mode native, or ";
        assert_eq!(line, format!("etcdproxy: error: --mode: {problem}{remedy}"));
    }
    // A prefix needs no etcd.
    let args = [&["run", "--dry-run", "--namespace", "app/"], &common[..]].concat();
    assert!(succeeds(&mut staging.launcher(&args)).contains("\n# puts \"app/\" before every key\n"));
    // The command of a manifest for the buildpack of 2019.
    let mut etcd = command(&staging.path("deps/0/bin/etcd"), ["grpc-proxy", "start", "--endpoints=h:1"]);
    let line = fails_with(78, etcd.env_remove("ETCDPROXY_UNPACK_DIR").env("DEPS_DIR", staging.path("deps")));
    let problem = "this launcher has no etcd: use \"etcdproxy run\" in the command instead, which needs none, or ";
    assert_eq!(line, format!("etcdproxy: error: etcd: {problem}{remedy}"));
    // The link is not an etcd that could be wrong.
    let line = fails_with(1, &mut staging.launcher(&["verify"]));
    assert!(line.contains("nothing to verify: this is the small launcher"), "{line}");
}

#[test]
fn without_a_known_cluster_supply_declares_no_sidecar_and_removes_an_earlier_declaration() {
    let staging = Staging::new();
    assert_eq!(finish(staging.supply("0").env("BP_ETCDPROXY_SIDECAR", "true")).0, 0);
    assert!(staging.path("deps/0/launch.yml").exists());
    let bound = r#"{"p.mysql":[{"name":"db"}],"user-provided":[{"name":"store"}]}"#;
    for (name, value, reason) in [
        (
            "X",
            "",
            "no etcd service is bound and ETCDPROXY_ENDPOINTS is not set. BP_ETCDPROXY_SIDECAR=true declares one",
        ),
        (
            "VCAP_SERVICES",
            bound,
            "no bound service is known to be etcd (if one of these is, name it with ETCDPROXY_SERVICE: db, store) and \
             ETCDPROXY_ENDPOINTS is not set. BP_ETCDPROXY_SIDECAR=true declares one",
        ),
        ("BP_ETCDPROXY_SIDECAR", "false", "BP_ETCDPROXY_SIDECAR is false"),
    ] {
        let (_, stdout, _) = finish(staging.supply("0").env(name, value));
        assert_eq!(stdout.lines().last().unwrap(), format!("       No sidecar is declared: {reason}."));
    }
    assert!(!staging.path("deps/0/launch.yml").exists());
    let (_, stdout, _) = finish(staging.supply("0").env("VCAP_SERVICES", bound).env("ETCDPROXY_SERVICE", "store"));
    assert!(stdout.contains("Declaring the sidecar etcd-proxy for web: the service store is bound."), "{stdout}");
}

#[test]
fn staging_warns_of_what_will_not_work_at_launch() {
    let staging = Staging::new();
    let staged = |vars: &[(&str, &str)]| {
        let (code, stdout, stderr) = finish(staging.supply("0").envs(vars.iter().copied()));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        stdout
    };
    let good = r#"{"etcd":[{"name":"e","credentials":{"uri":"https://a:1"}}]}"#;
    let empty = r#"{"etcd":[{"name":"e","credentials":{"password":"s3cret"}}]}"#;
    let shown = staged(&[("VCAP_SERVICES", good), ("BP_ETCDPROXY_SIDECAR", "True"), ("BP_ETCDPROXY_MEMORY", "64MB")]);
    assert!(shown.contains("Declaring the sidecar etcd-proxy") && !shown.contains("WARNING"), "{shown}");
    assert!(staging.text("deps/0/launch.yml").contains("limits: {memory: 64}"));
    let shown = staged(&[("VCAP_SERVICES", empty), ("BP_ETCDPROXY_SIDECARS", "x")]);
    assert!(shown.contains("       WARNING: service binding \"e\": it has no endpoints: "), "{shown}");
    assert!(shown.contains("       WARNING: BP_ETCDPROXY_SIDECARS is not a setting"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");

    let replaces = "       WARNING: the Procfile has a process named etcd-proxy, which replaces the sidecar: ";
    for procfile in ["web: x\netcd-proxy: bundle exec y: z\n", "\"etcd-proxy\" : y\n"] {
        fs::write(staging.path("build/Procfile"), procfile).unwrap();
        assert!(staged(&[("VCAP_SERVICES", good)]).contains(replaces), "{procfile}");
        for other in [("BP_ETCDPROXY_SIDECAR", "off"), ("BP_ETCDPROXY_SIDECAR_NAME", "other")] {
            assert!(!staged(&[("VCAP_SERVICES", good), other]).contains("Procfile"), "{procfile} {other:?}");
        }
    }
    fs::write(staging.path("build/Procfile"), "web: etcd-proxy: x\n# etcd-proxy: y\n").unwrap();
    assert!(!staged(&[("VCAP_SERVICES", good)]).contains("Procfile"));
}

#[test]
fn an_index_of_two_digits_works() {
    let staging = Staging::new();
    assert_eq!(finish(staging.supply("03").env("BP_ETCDPROXY_SIDECAR", "true")).0, 0);
    assert_eq!(staging.names("deps"), ["03", "3"]);
    assert_eq!(staging.text("deps/3/launch.yml"), staging.text("deps/03/launch.yml"));
    assert!(staging.text("deps/3/launch.yml").contains("$DEPS_DIR/03/bin/etcdproxy"));
    assert_eq!(finish(&mut staging.supply("03")).0, 0);
    assert!(staging.names("deps/3").is_empty() && !staging.path("deps/03/launch.yml").exists());
}

#[test]
fn etcd_can_be_unpacked_at_launch() {
    let staging = Staging::new();
    assert_eq!(finish(staging.supply("0").env("BP_ETCDPROXY_UNPACK", "launch")).0, 0);
    assert_eq!(fs::read_link(staging.path("deps/0/bin/etcd")).unwrap(), Path::new("etcdproxy"));
    let mut etcd = command(&staging.path("deps/0/bin/etcd"), ["--version"]);
    etcd.env_remove("ETCDPROXY_UNPACK_DIR").env("DEPS_DIR", staging.path("deps"));
    let stdout = succeeds(&mut etcd);
    assert!(stdout.starts_with("etcd Version: "), "{stdout}");
    assert_eq!(staging.names("deps/0/unpacked").len(), 1);
    let stdout = succeeds(&mut staging.launcher(&["verify"]));
    let link = format!("ok       {}", staging.path("deps/0/bin/etcd").display());
    assert!(stdout.lines().any(|line| line == link), "{stdout}");
    // And back to the default.
    assert_eq!(finish(&mut staging.supply("0")).0, 0);
    assert!(fs::symlink_metadata(staging.path("deps/0/bin/etcd")).unwrap().is_file());
}

#[test]
fn invalid_settings_fail_the_staging_with_one_line() {
    let staging = Staging::new();
    let line = fails_with(78, staging.supply("0").env("BP_ETCDPROXY_UNPACK", "later"));
    assert_eq!(line, "etcdproxy: error: BP_ETCDPROXY_UNPACK: invalid value \"later\": expected stage or launch");
    let line = fails_with(78, staging.supply("0").env("BP_ETCD_VERSION", "2.x"));
    assert!(line.contains("use the buildpack with that version"), "{line}");
    assert!(staging.names("deps").is_empty());
}

#[test]
fn wrong_arguments_get_a_usage_line() {
    let staging = Staging::new();
    let usage = "usage: bin/supply BUILD_DIR CACHE_DIR DEPS_DIR INDEX";
    assert_eq!(fails_with(2, &mut staging.script("supply", &[])), usage);
    assert_eq!(fails_with(2, &mut staging.script("supply", &["a".as_ref(), "--help".as_ref()])), usage);
    assert_eq!(fails_with(2, &mut staging.supply("x")), format!("{usage} (a number, such as 0)"));
    assert_eq!(fails_with(2, &mut staging.script("compile", &[])), "usage: bin/compile BUILD_DIR CACHE_DIR");
    let line = fails_with(1, &mut staging.script("supply", &["a", "b", "/no/such/dir", "0"].map(Path::new)));
    assert!(line.contains("/no/such/dir is not a directory"), "{line}");
}

#[test]
fn detect_fails_silently_and_compile_explains_the_order_of_buildpacks() {
    let staging = Staging::new();
    assert_eq!(finish(&mut staging.script("detect", &[&staging.path("build")])), (1, String::new(), String::new()));
    let (code, _, stderr) = finish(&mut staging.script("compile", &[&staging.path("build"), &staging.path("cache")]));
    assert_eq!(code, 1);
    assert_eq!(stderr.lines().count(), 2);
    assert!(stderr.contains("cf push -b etcdproxy_buildpack -b ruby_buildpack"), "{stderr}");
}

#[test]
fn the_scripts_of_a_source_checkout_explain_how_to_get_the_buildpack() {
    for script in ["detect", "build", "supply", "compile"] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin").join(script);
        let line = fails_with(1, &mut command(&script, ["a", "b", "c", "0"]));
        assert!(line.starts_with("This is the source of etcdproxy, not the buildpack: "), "{line}");
    }
}

#[test]
fn the_same_binary_makes_the_same_zip() {
    let dir = tempfile::tempdir().unwrap();
    let package = |name: &str, more: &[&str]| {
        let path = dir.path().join(name);
        let stdout = succeeds(etcdproxy(["package", "--output"]).arg(&path).args(more));
        assert_eq!(stdout, format!("{}\n", path.display()));
        fs::read(path).unwrap()
    };
    let first = package("a.zip", &[]);
    assert!(first == package("b.zip", &[]));
    assert!(first.starts_with(b"PK"));
    let more = first.len() as u64 - fs::metadata(binary()).unwrap().len();
    assert!(more < 200_000, "the zip contains the payload once, and {more} bytes besides");

    let text = |zip: &[u8]| String::from_utf8_lossy(zip).into_owned();
    assert!(text(&package("c.zip", &["--stack", "cflinuxfs4"])).contains("\nstack: \"cflinuxfs4\"\n"));
    assert!(!text(&first).contains("\nstack:"));
    let line = fails_with(2, &mut etcdproxy(["package", "--stack", "../x"]));
    assert!(line.contains("invalid stack"), "{line}");
    let line = fails_with(73, &mut etcdproxy(["package", "--output", "/no/such/dir/x.zip"]));
    assert!(
        line.starts_with("etcdproxy: error: cannot write /no/such/dir/x.zip: its directory does not exist: "),
        "{line}"
    );

    let stdout = succeeds(etcdproxy(["package"]).current_dir(dir.path()));
    let name = stdout.trim_end();
    assert!(name.starts_with("etcdproxy_buildpack-cached-v") && dir.path().join(name).exists(), "{name}");
}

/// A copy of a binary with `from` replaced by `to` in its label.
pub(crate) fn relabelled(binary: &Path, copy: PathBuf, from: &str, to: &str) -> PathBuf {
    let mut bytes = fs::read(binary).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    fs::write(&copy, bytes).unwrap();
    copy
}

/// The architecture of this binary, and the other one.
pub(crate) const ARCHS: [&str; 2] = if cfg!(target_arch = "x86_64") { ["amd64", "arm64"] } else { ["arm64", "amd64"] };

#[test]
fn the_binary_for_the_other_architecture_must_be_given_and_of_the_same_release() {
    let [this, other] = ARCHS;
    let dir = tempfile::tempdir().unwrap();
    let package = |args: &[&str], file: &Path| {
        let mut command = etcdproxy(["package", "--output"]);
        command.arg(dir.path().join("x.zip")).args(args).args((file != Path::new("")).then_some(file));
        let code = if args.contains(&"both") && file != Path::new("") { 1 } else { 2 };
        let line = fails_with(code, &mut command);
        line.strip_prefix("etcdproxy: error: ").unwrap().replace(dir.path().to_str().unwrap(), "DIR")
    };
    for arch in ["both", other] {
        let line = format!("--arch {arch}: this is the etcdproxy for {this}: name the one for {other} with --other");
        assert_eq!(package(&["--arch", arch], Path::new("")), line);
    }
    let line = format!("--other: a package for {this} alone contains this binary only: leave --other out");
    assert_eq!(package(&["--arch", this, "--other"], &binary()), line);

    let both = |file: &Path| package(&["--arch", "both", "--other"], file);
    let line = both(&dir.path().join("missing"));
    assert!(line.starts_with("--other: DIR/missing cannot be used: cannot read it: No such file"), "{line}");
    let text = dir.path().join("text");
    fs::write(&text, r#"{"etcdproxy-label":"0"}"#).unwrap();
    assert_eq!(both(&text), "--other: DIR/text cannot be used: it is not an etcdproxy");
    assert!(both(Path::new("/bin/sh")).ends_with(" cannot be used: it is not an etcdproxy"));
    let own = binary();
    assert_eq!(both(&own), format!("--other: {} is for {this}: name the etcdproxy for {other}", own.display()));

    let arch = ARCHS.map(|arch| format!(r#""arch":"{arch}""#));
    let complete = relabelled(&own, dir.path().join("complete"), &arch[0], &arch[1]);
    let newer = relabelled(&complete, dir.path().join("newer"), r#"-label":"0."#, r#"-label":"9."#);
    let line = both(&newer);
    assert!(line.starts_with("--other: DIR/newer is etcdproxy 9.") && line.ends_with(": use two of the same release"));
    let cut = dir.path().join("cut");
    let bytes = fs::read(&complete).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let line = "--other: DIR/cut cannot be used: it is incomplete, or a small launcher, which has no etcd inside";
    assert_eq!(both(&cut), line);
    let staging = Staging::new();
    assert_eq!(finish(&mut staging.supply("0")).0, 0);
    let launcher = staging.path("deps/0/bin/etcdproxy");
    assert!(both(&launcher).ends_with("it is incomplete, or a small launcher, which has no etcd inside"));
    assert!(!dir.path().join("x.zip").exists());
}

/// Runs a proxy without a cluster. Its port opens anyway.
fn run(addr: &str) -> Process {
    let mut command = etcdproxy(["run", "--endpoints", &unique_addr(), "--listen-addr", addr]);
    Process::start(command.stderr(Stdio::piped()))
}

fn is_etcd(process: &Process) -> bool {
    fs::read_link(format!("/proc/{}/exe", process.pid())).is_ok_and(|exe| exe.ends_with("etcd"))
}

#[test]
fn of_two_proxies_started_at_once_one_serves_and_the_other_takes_over() {
    for _ in 0..5 {
        let addr = unique_addr();
        let mut both = [run(&addr), run(&addr)];
        eventually("one of them serves", || both.iter().any(is_etcd));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(both.iter_mut().all(Process::is_running), "one of them ended");
        let serving = both.iter().position(is_etcd).unwrap();
        assert!(!is_etcd(&both[1 - serving]));
        both[serving].terminate();
        eventually("the other takes over", || is_etcd(&both[1 - serving]));
        wait_listening(&addr);
        both[1 - serving].terminate();
        let text = both[1 - serving].stderr_text();
        let first = text.lines().next().unwrap();
        assert_eq!(first, format!("etcdproxy: another etcd proxy serves {addr}: standing by"));
    }
}

#[test]
fn a_proxy_stands_by_while_an_etcd_proxy_started_by_hand_serves_but_not_for_another_program() {
    let addr = unique_addr();
    let dir = tempfile::tempdir().unwrap();
    let etcd = link(dir.path(), "etcd");
    let listen = [format!("--listen-addr={addr}"), format!("--advertise-client-url={addr}")];
    let mut by_hand = command(&etcd, ["grpc-proxy", "start", "--endpoints", &unique_addr()]);
    let mut by_hand = Process::start(by_hand.args(listen).stderr(Stdio::null()));
    wait_listening(&addr);
    let second = run(&addr);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!is_etcd(&second));
    by_hand.kill();
    eventually("it takes over", || is_etcd(&second));

    let listener = std::net::TcpListener::bind((unique_host(), 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let line = fails_with(78, &mut etcdproxy(["run", "--endpoints", "h:1", "--listen-addr", &addr]));
    let holder = format!("(pid {}), which is not etcd's proxy: end it, or choose", std::process::id());
    assert!(line.contains(&format!("{addr} is in use by ")) && line.contains(&holder), "{line}");
}

#[test]
fn the_profile_script_is_silent_and_waits_only_in_the_application() {
    let staging = Staging::new();
    assert_eq!(finish(&mut staging.supply("0")).0, 0);
    let addr = unique_addr();
    let source_in = |launcher: &str, command_line: &str, vcap: &str, wait: &str| {
        let script = r#". "$DEPS_DIR/0/profile.d/etcdproxy.sh"; . "$DEPS_DIR/0/profile.d/etcdproxy.sh"; echo "$ETCDCTL_ENDPOINTS""#;
        let mut bash = command("bash".as_ref(), ["-euc", script, launcher, "/home/vcap/app", command_line]);
        bash.env("DEPS_DIR", staging.path("deps")).env("ETCDPROXY_LISTEN_ADDR", &addr).current_dir(staging.path(""));
        finish(bash.env("ETCDPROXY_WAIT", wait).env("VCAP_APPLICATION", vcap))
    };
    let source =
        |command_line: &str, vcap: &str, wait: &str| source_in("/tmp/lifecycle/launcher", command_line, vcap, wait);
    let web = r#"{"process_type":"web"}"#;
    let quiet = (0, format!("{addr}\n"), String::new());
    assert_eq!(source("bundle exec rackup", web, ""), quiet);
    assert_eq!(source(r#"exec "$DEPS_DIR/0/bin/etcdproxy" run"#, web, "5s"), quiet);
    assert_eq!(source("etcd grpc-proxy start --endpoints=h:1", web, "5s"), quiet);
    assert_eq!(source("rake migrate", "{}", "5s"), quiet);
    assert_eq!(source("", web, "5s"), quiet);
    assert_eq!(source_in("/tmp/lifecycle/shell", "bash", web, "5s"), quiet);
    let (code, stdout, stderr) = source("bundle exec rackup", web, "200ms");
    assert_eq!((code, stdout), (0, quiet.1.clone()));
    let line = format!("etcdproxy: error: {addr} is not ready after 200ms: nothing listens there\n");
    assert_eq!(stderr, line.repeat(2));

    // The sidecar's command can be a script.
    for (script, waits) in [
        ("#!/bin/sh\nexec etcd grpc-proxy start --endpoints=h:1\n", false),
        ("#!/bin/sh\nexec \"$DEPS_DIR/0/bin/etcdproxy\"  run\n", false),
        ("#!/bin/sh\n# etcdproxy run is the sidecar\nexec rackup\n", true),
    ] {
        fs::write(staging.path("start.sh"), script).unwrap();
        for command_line in ["./start.sh", "bash -c \"./start.sh; true\""] {
            let (code, stdout, stderr) = source(command_line, web, "200ms");
            assert_eq!((code, stdout, !stderr.is_empty()), (0, quiet.1.clone(), waits), "{command_line} {script}");
        }
        assert_eq!(source("ETCDPROXY_WAIT= ./start.sh", web, "5s"), quiet);
    }
}

#[test]
fn the_profile_script_sets_the_address_for_etcdctl_only_where_its_default_is_wrong() {
    let staging = Staging::new();
    assert_eq!(finish(&mut staging.supply("0")).0, 0);
    for (listen_addr, own, expected) in [
        (None, None, "unset"),
        (Some(""), None, "unset"),
        (Some("127.0.0.1:2379"), None, "unset"),
        (Some("localhost:2379"), None, "unset"),
        (Some("127.0.0.1:2380"), None, "127.0.0.1:2380"),
        (Some("127.0.0.1:2380"), Some("10.0.0.1:2379"), "10.0.0.1:2379"),
        (Some("127.0.0.1:2380"), Some(""), ""),
        (None, Some("10.0.0.1:2379"), "10.0.0.1:2379"),
    ] {
        let script = r#". "$DEPS_DIR/0/profile.d/etcdproxy.sh"; . "$DEPS_DIR/0/profile.d/etcdproxy.sh"; echo "${ETCDCTL_ENDPOINTS-unset}""#;
        let mut bash = command("bash".as_ref(), ["-euc", script, "/tmp/lifecycle/launcher", "/home/vcap/app", "web"]);
        bash.env("DEPS_DIR", staging.path("deps"));
        for (name, value) in [("ETCDPROXY_LISTEN_ADDR", listen_addr), ("ETCDCTL_ENDPOINTS", own)] {
            value.map(|value| bash.env(name, value));
        }
        assert_eq!(succeeds(&mut bash), format!("{expected}\n"), "{listen_addr:?} {own:?}");
    }
}

mod needs_root {
    use super::{Staging, as_user, chown, succeeds};

    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn an_unprivileged_user_can_stage() {
        let staging = Staging::new();
        for dir in ["build", "cache", "deps"] {
            chown(staging.path(dir), Some(2000), Some(2000)).unwrap();
        }
        let mut supply = as_user(2000, &staging.path("buildpack/bin/supply"));
        supply.args(["build", "cache", "deps"].map(|dir| staging.path(dir))).arg("0");
        succeeds(supply.env("BP_ETCDPROXY_SIDECAR", "true"));
        assert_eq!(staging.names("deps/0/bin"), ["etcd", "etcdproxy"]);
    }
}
