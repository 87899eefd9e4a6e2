//! The binary for arm64, which runs in qemu. `scripts/test.sh` builds it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::buildpack::Staging;
use crate::load;
use crate::pki::Authority;
use crate::support::{
    Cluster, Process, Tls, binary, command, etcdproxy, fails_with, finish, path_from_test_script, succeeds,
    unique_addr, unique_host, wait_ready, write_program,
};

fn arm64_binary() -> PathBuf {
    path_from_test_script("ETCDPROXY_TEST_ARM64")
}

/// Runs a program for arm64, or one that starts programs for arm64.
fn as_arm64<I: IntoIterator<Item: AsRef<OsStr>>>(program: &Path, args: I) -> Command {
    let mut command = command(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/as_arm64.sh").as_ref(), [program]);
    command.args(args);
    command
}

fn arm64<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    as_arm64(&arm64_binary(), args)
}

/// The field `e_machine` of an ELF file.
fn machine(file: &Path) -> u8 {
    fs::read(file).unwrap()[18]
}

const X86_64: u8 = 62;
const AARCH64: u8 = 183;

#[test]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
fn the_binaries_are_static_and_position_independent() {
    for (binary, expected) in [(binary(), X86_64), (arm64_binary(), AARCH64)] {
        assert_eq!(machine(&binary), expected);
        let elf = succeeds(command("readelf".as_ref(), ["-hldnW"]).arg(&binary));
        let has = |text: &str| elf.contains(text);
        assert!(has("Type:                              DYN"), "{elf}");
        assert!(!has("INTERP") && !has("(NEEDED)") && !has("(TEXTREL)") && !has("RWE"), "{elf}");
        // The small launcher needs the space of the build id.
        assert!(has("GNU_RELRO") && has("NT_GNU_BUILD_ID"), "{elf}");
    }
}

#[test]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
fn it_unpacks_upstreams_etcd_for_arm64() {
    let dir = tempfile::tempdir().unwrap();
    let version = succeeds(&mut arm64(["version"]));
    assert!(version.ends_with(" linux-arm64\n"), "{version}");

    let etcd = dir.path().join("etcd");
    let unpacked = succeeds(&mut arm64([Path::new("unpack"), dir.path()]));
    assert_eq!(unpacked, format!("{}\n", etcd.display()));
    assert_eq!(machine(&etcd), AARCH64);
    let (code, stdout, _) = finish(&mut arm64([Path::new("verify"), dir.path()]));
    assert_eq!((code, stdout.lines().filter(|line| line.starts_with("ok ")).count()), (0, 2), "{stdout}");

    let link = dir.path().join("link/etcd");
    fs::create_dir(dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(arm64_binary(), &link).unwrap();
    let (_, stdout, _) = finish(&mut as_arm64(&link, ["--version"]));
    assert!(stdout.starts_with("etcd Version: ") && stdout.contains("\nGo OS/Arch: linux/arm64\n"), "{stdout}");
}

/// Writes and reads through the proxy and TLS, to a member for this machine's architecture. Returns the proxy's command
/// line.
async fn command_line_after_use(mode: &str) -> Vec<String> {
    let (host, authority) = (unique_host(), Authority::new("the cluster's authority"));
    let server = authority.server(&[&host], 9);
    let cluster = Cluster::start_on(&host, 1, Some(Tls { server, client_ca: None }));
    let addr = unique_addr();
    let mut run = arm64(["run", "--mode", mode, "--endpoints", &cluster.endpoints(), "--listen-addr", &addr]);
    let mut proxy = Process::start(run.env("ETCDPROXY_CACERT", authority.pem).stderr(Stdio::null()));
    wait_ready(&addr);
    let mut client = load::connect(&addr).await.unwrap();
    client.put("key", mode, None).await.unwrap();
    let answer = client.get("key", None).await.unwrap();
    assert_eq!(answer.kvs()[0].value_str().unwrap(), mode);

    let command_line = fs::read_to_string(format!("/proc/{}/cmdline", proxy.pid())).unwrap();
    proxy.terminate();
    command_line.split('\0').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
async fn run_becomes_etcd_for_arm64() {
    let command_line = command_line_after_use("grpc-proxy").await;
    let etcd = command_line.iter().find(|word| word.ends_with("/etcd")).unwrap();
    assert_eq!(machine(etcd.as_ref()), AARCH64);
    assert!(command_line.contains(&"grpc-proxy".to_owned()), "{command_line:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
async fn the_proxy_runs_on_arm64() {
    let command_line = command_line_after_use("native").await;
    assert!(command_line.contains(&arm64_binary().to_str().unwrap().to_owned()), "{command_line:?}");
}

#[test]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
fn both_binaries_write_the_same_packages() {
    let dir = tempfile::tempdir().unwrap();
    let package = |mut command: Command, args: &[&OsStr]| {
        let path = dir.path().join("package");
        succeeds(command.arg("--output").arg(&path).args(args));
        fs::read(path).unwrap()
    };
    let (amd64, arm) = (binary(), arm64_binary());
    let both = |other| ["--arch".as_ref(), "both".as_ref(), "--other".as_ref(), other];
    let for_both = package(etcdproxy(["package"]), &both(arm.as_os_str()));
    assert!(for_both == package(arm64(["package"]), &both(amd64.as_os_str())));
    let only_arm64 = ["--arch".as_ref(), "arm64".as_ref(), "--other".as_ref(), arm.as_os_str()];
    for format in ["tgz", "cnb", "oci"] {
        let command = ["package", "--format", format];
        assert!(package(etcdproxy(command), &only_arm64) == package(arm64(command), &[]), "{format}");
    }
    let for_arm64 = package(etcdproxy(["package"]), &only_arm64);
    assert!(for_arm64 == package(arm64(["package"]), &[]));
    assert!(String::from_utf8_lossy(&for_arm64).contains("\n  arch: arm64\n"));

    let manifest = String::from_utf8_lossy(&for_both).into_owned();
    let [amd64, arm64] = ["amd64", "arm64"].map(|arch| manifest.find(&format!("\n  arch: {arch}\n")).unwrap());
    assert!(amd64 < arm64);
}

/// Supply on a machine where `uname` prints `machine`.
fn supply_on(machine: &str, staging: &Staging) -> Command {
    let dir = staging.path("uname");
    fs::create_dir_all(&dir).unwrap();
    write_program(&dir.join("uname"), format!("#!/bin/sh\necho {machine}\n").as_bytes());
    let path = format!("PATH={}:{}", dir.display(), std::env::var("PATH").unwrap());
    let supply = staging.supply("0");
    let mut command = as_arm64("env".as_ref(), [path]);
    command.arg(supply.get_program()).args(supply.get_args()).env_remove("ETCDPROXY_UNPACK_DIR");
    command
}

#[test]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
fn a_zip_for_both_architectures_supplies_the_programs_for_this_machine() {
    let arm64 = arm64_binary();
    let staging = Staging::with(&["--arch", "both", "--other", arm64.to_str().unwrap()]);
    for (name_of_machine, expected) in [("x86_64", X86_64), ("aarch64", AARCH64)] {
        succeeds(&mut supply_on(name_of_machine, &staging));
        assert_eq!(staging.names("deps/0/bin"), ["etcd", "etcdproxy"]);
        for name in ["etcd", "etcdproxy"] {
            assert_eq!(machine(&staging.path("deps/0/bin").join(name)), expected, "{name}");
        }
        // The launcher is small, runs, and finds the etcd beside it.
        let launcher = staging.path("deps/0/bin/etcdproxy");
        assert!(fs::metadata(&launcher).unwrap().len() * 2 < fs::metadata(binary()).unwrap().len());
        let (code, stdout, stderr) =
            finish(as_arm64(&launcher, ["verify"]).env("ETCDPROXY_UNPACK_DIR", staging.path("cache")));
        assert_eq!((code, stdout.lines().count()), (0, 1), "{stdout}{stderr}");
    }
    let line = fails_with(1, &mut supply_on("riscv64", &staging));
    assert_eq!(line, "etcdproxy: error: this buildpack is for x86_64 and aarch64, not for riscv64");
}

#[test]
#[ignore = "needs the binary for arm64: run ./scripts/test.sh"]
fn a_zip_can_be_for_arm64_alone() {
    let arm64 = arm64_binary();
    let staging = Staging::with(&["--arch", "arm64", "--other", arm64.to_str().unwrap()]);
    assert_eq!(finish(&mut as_arm64(&staging.path("buildpack/etcdproxy"), ["version"])).0, 0);
    assert_eq!(finish(&mut supply_on("aarch64", &staging)).0, 0);
    assert_eq!(machine(&staging.path("deps/0/bin/etcd")), AARCH64);
}
