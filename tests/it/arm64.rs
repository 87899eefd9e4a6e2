//! The binary for arm64, run by qemu. `scripts/test.sh` builds it and names it in `ETCDPROXY_TEST_ARM64`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::buildpack::Staging;
use crate::support::{
    Cluster, Process, binary, command, etcdproxy, fails_with, finish, free_addr, own_host, wait_ready,
};

fn arm64_binary() -> PathBuf {
    std::env::var_os("ETCDPROXY_TEST_ARM64").expect("ETCDPROXY_TEST_ARM64 is set by scripts/test.sh").into()
}

/// A program of this machine's that starts programs for arm64, or one for arm64.
fn as_arm64<I: IntoIterator<Item: AsRef<OsStr>>>(program: &Path, args: I) -> Command {
    let mut command = command(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/as_arm64.sh").as_ref(), [program]);
    command.args(args);
    command
}

fn arm64<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    as_arm64(&arm64_binary(), args)
}

/// `e_machine` of an ELF file.
fn machine(file: &Path) -> u8 {
    fs::read(file).unwrap()[18]
}

const X86_64: u8 = 62;
const AARCH64: u8 = 183;

#[test]
fn the_binaries_need_no_loader_no_library_and_no_fixed_address() {
    for (binary, expected) in [(binary(), X86_64), (arm64_binary(), AARCH64)] {
        assert_eq!(machine(&binary), expected);
        let (code, elf, _) = finish(command("readelf".as_ref(), ["-hldnW"]).arg(&binary));
        assert_eq!(code, 0);
        let has = |text: &str| elf.contains(text);
        assert!(has("Type:                              DYN"), "{elf}");
        assert!(!has("INTERP") && !has("(NEEDED)") && !has("(TEXTREL)") && !has("RWE"), "{elf}");
        assert!(has("GNU_RELRO") && has("NT_GNU_BUILD_ID"), "{elf}"); // the launcher has use for the note's room
    }
}

#[test]
fn what_comes_out_is_upstreams_etcd_for_arm64() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = finish(&mut arm64(["version"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.ends_with(" linux-arm64\n"), "{stdout}");

    let etcd = dir.path().join("etcd");
    let unpacked = finish(&mut arm64([Path::new("unpack"), dir.path()]));
    assert_eq!(unpacked, (0, format!("{}\n", etcd.display()), String::new()));
    assert_eq!(machine(&etcd), AARCH64);
    let (code, stdout, _) = finish(&mut arm64([Path::new("verify"), dir.path()]));
    assert_eq!((code, stdout.lines().filter(|line| line.starts_with("ok ")).count()), (0, 2), "{stdout}");

    let link = dir.path().join("link/etcd");
    fs::create_dir(dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(arm64_binary(), &link).unwrap();
    let (_, stdout, _) = finish(&mut as_arm64(&link, ["--version"]));
    assert!(stdout.starts_with("etcd Version: ") && stdout.contains("\nGo OS/Arch: linux/arm64\n"), "{stdout}");
}

/// A put and a get through it to a member that is this machine's etcd.
async fn serves(mode: &str) -> Vec<String> {
    let cluster = Cluster::start(1);
    let addr = free_addr(&own_host());
    let mut run = arm64(["run", "--mode", mode, "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
    let mut proxy = Process::start(run.stderr(Stdio::null()));
    wait_ready(&addr);
    let mut client = crate::load::connect(&addr).await.unwrap();
    client.put("key", mode, None).await.unwrap();
    let answer = client.get("key", None).await.unwrap();
    assert_eq!(answer.kvs()[0].value_str().unwrap(), mode);

    let command_line = fs::read_to_string(format!("/proc/{}/cmdline", proxy.pid())).unwrap();
    proxy.signal(Signal::SIGTERM);
    proxy.wait();
    command_line.split('\0').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn run_becomes_etcd_for_arm64() {
    let command_line = serves("grpc-proxy").await;
    let etcd = command_line.iter().find(|word| word.ends_with("/etcd")).unwrap();
    assert_eq!(machine(etcd.as_ref()), AARCH64);
    assert!(command_line.contains(&"grpc-proxy".to_owned()), "{command_line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_is_the_tunnel_on_arm64() {
    let command_line = serves("tunnel").await;
    assert!(command_line.contains(&arm64_binary().to_str().unwrap().to_owned()), "{command_line:?}");
}

#[test]
fn both_binaries_write_the_same_zips() {
    let dir = tempfile::tempdir().unwrap();
    let zip = |mut command: Command, args: &[&OsStr]| {
        let path = dir.path().join("zip");
        let (code, _, stderr) = finish(command.arg("--output").arg(&path).args(args));
        assert_eq!(code, 0, "{stderr}");
        fs::read(path).unwrap()
    };
    let (amd64, arm) = (binary(), arm64_binary());
    let both = |other| ["--arch".as_ref(), "both".as_ref(), "--other".as_ref(), other];
    let whole = zip(etcdproxy(["package"]), &both(arm.as_os_str()));
    assert!(whole == zip(arm64(["package"]), &both(amd64.as_os_str())));
    let of_arm64 = ["--arch".as_ref(), "arm64".as_ref(), "--other".as_ref(), arm.as_os_str()];
    let of_arm64 = zip(etcdproxy(["package"]), &of_arm64);
    assert!(of_arm64 == zip(arm64(["package"]), &[]));
    assert!(String::from_utf8_lossy(&of_arm64).contains("\n  arch: arm64\n"));

    let manifest = String::from_utf8_lossy(&whole).into_owned();
    let [amd64, arm64] = ["amd64", "arm64"].map(|arch| manifest.find(&format!("\n  arch: {arch}\n")).unwrap());
    assert!(amd64 < arm64);
}

/// The supply of a machine that says it is a `kind`.
fn supply_on(kind: &str, staging: &Staging) -> Command {
    let dir = staging.path("uname");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("uname"), format!("#!/bin/sh\necho {kind}\n")).unwrap();
    fs::set_permissions(dir.join("uname"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", dir.display(), std::env::var("PATH").unwrap());
    let supply = staging.supply("0");
    let mut command = as_arm64("env".as_ref(), [path]);
    command.arg(supply.get_program()).args(supply.get_args()).env_remove("ETCDPROXY_UNPACK_DIR");
    command
}

#[test]
fn the_zip_for_both_supplies_what_the_machine_can_run() {
    let arm64 = arm64_binary();
    let staging = Staging::with(&["--arch", "both", "--other", arm64.to_str().unwrap()]);
    for (kind, expected) in [("x86_64", X86_64), ("aarch64", AARCH64)] {
        let (code, stdout, stderr) = finish(&mut supply_on(kind, &staging));
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        assert_eq!(staging.names("deps/0/bin"), ["etcd", "etcdproxy"]);
        for name in ["etcd", "etcdproxy"] {
            assert_eq!(machine(&staging.path("deps/0/bin").join(name)), expected, "{name}");
        }
        // The launcher is small, runs, and knows the etcd beside it.
        let launcher = staging.path("deps/0/bin/etcdproxy");
        assert!(fs::metadata(&launcher).unwrap().len() * 3 < fs::metadata(binary()).unwrap().len());
        let (code, stdout, stderr) =
            finish(as_arm64(&launcher, ["verify"]).env("ETCDPROXY_UNPACK_DIR", staging.path("cache")));
        assert_eq!((code, stdout.lines().count()), (0, 1), "{stdout}{stderr}");
    }
    let line = fails_with(1, &mut supply_on("riscv64", &staging));
    assert_eq!(line, "etcdproxy: error: this buildpack is for x86_64 and aarch64, not for riscv64");
}

#[test]
fn the_zip_for_arm64_alone() {
    let arm64 = arm64_binary();
    let staging = Staging::with(&["--arch", "arm64", "--other", arm64.to_str().unwrap()]);
    assert_eq!(finish(&mut as_arm64(&staging.path("buildpack/etcdproxy"), ["version"])).0, 0);
    assert_eq!(finish(&mut supply_on("aarch64", &staging)).0, 0);
    assert_eq!(machine(&staging.path("deps/0/bin/etcd")), AARCH64);
}
