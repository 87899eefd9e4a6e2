//! The build refuses, by name, whatever `manifest.yml` does not vouch for.
//!
//! Runs the compiled build script as Cargo does, in a directory with a manifest of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::{finish, in_manifest};

/// The newest build script of this package beside the `OUT_DIR` that this test was compiled with.
fn build_script() -> PathBuf {
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).unwrap();
    let scripts = fs::read_dir(builds).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let script = entry.path().join("build-script-build");
        let ours = entry.file_name().to_str()?.rsplit_once('-')?.0 == "etcdproxy";
        (ours && script.exists()).then(|| (fs::metadata(&script).unwrap().modified().unwrap(), script))
    });
    scripts.max().unwrap().1
}

/// A directory to build in, with the real manifest, changed.
struct Build {
    dir: TempDir,
    arch: &'static str,
    env: Vec<(&'static str, String)>,
}

impl Build {
    fn with_manifest(change: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifest.yml")).unwrap();
        fs::write(dir.path().join("manifest.yml"), change(manifest)).unwrap();
        Self { dir, arch: "x86_64", env: Vec::new() }
    }

    /// A tarball with these files; gives its sha256. Each file is a bare ELF header for amd64.
    fn with_tarball(mut self, name: &str, files: &[&str]) -> (Self, String) {
        let top = self.dir.path().join(name);
        fs::create_dir(&top).unwrap();
        for file in files {
            let mut elf = vec![0; 64];
            elf[..4].copy_from_slice(b"\x7fELF");
            elf[18] = 62;
            elf.extend(file.bytes());
            fs::write(top.join(file), elf).unwrap();
        }
        let tarball = self.dir.path().join(format!("{name}.tar.gz"));
        let made = Command::new("tar").arg("-czf").arg(&tarball).arg("-C").arg(self.dir.path()).arg(name).status();
        assert!(made.unwrap().success());
        let sha256 = hex::encode(Sha256::digest(fs::read(&tarball).unwrap()));
        self.env.push(("ETCD_RELEASE_TARBALL", tarball.to_str().unwrap().to_owned()));
        (self, sha256)
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    fn run(&self) -> (i32, String) {
        let mut script = Command::new(build_script());
        script.current_dir(self.dir.path()).env("OUT_DIR", self.dir.path().join("out")).env("PROFILE", "debug");
        fs::create_dir_all(self.dir.path().join("out")).unwrap();
        script.env("CARGO_CFG_TARGET_OS", "linux").env("CARGO_CFG_TARGET_ARCH", self.arch);
        script.env("TARGET", format!("{}-unknown-linux-musl", self.arch)).env("CARGO_CFG_TARGET_ENV", "musl");
        let (code, stdout, _) = finish(script.envs(self.env.iter().cloned()));
        (code, stdout)
    }

    /// The one error, as Cargo shows it.
    #[track_caller]
    fn refused(&self) -> String {
        let (code, stdout) = self.run();
        assert_eq!(code, 1, "{stdout}");
        let errors: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect();
        assert_eq!(errors.len(), 1, "{stdout}");
        errors[0].to_owned()
    }
}

fn version() -> String {
    in_manifest("  version:")
}

/// Its hash of the amd64 etcd.
fn amd64() -> String {
    in_manifest("    sha256:")
}

/// The name of the tarball's top directory.
fn top() -> String {
    format!("etcd-v{}-linux-amd64", version())
}

#[test]
fn an_etcd_that_is_not_the_manifests() {
    let zeros = "0".repeat(64);
    let (version, amd64) = (version(), amd64());
    let error = Build::with_manifest(|manifest| manifest.replace(&amd64, &zeros)).refused();
    assert_eq!(
        error,
        format!(
            "etcd from the package etcd-bin-vendored-linux-amd64 is not the etcd {version} linux-amd64 of \
             manifest.yml: sha256 {amd64}, expected {zeros}"
        )
    );
}

#[test]
fn both_architectures_are_packed_and_no_other() {
    let mut build = Build::with_manifest(|manifest| manifest);
    for (arch, name) in [("x86_64", "amd64"), ("aarch64", "arm64")] {
        build.arch = arch;
        let (code, stdout) = build.run();
        assert_eq!(code, 0, "{stdout}");
        let table = fs::read_to_string(build.dir.path().join("out/release.rs")).unwrap();
        assert!(table.contains(&format!("arch: {name:?}")), "{table}");
        let label = fs::read_to_string(build.dir.path().join("out/label.json")).unwrap();
        assert!(label.contains(&format!("\"etcd\":\"{}\",\"arch\":{name:?}", version())), "{label}");
    }
    build.arch = "riscv64";
    assert!(build.refused().starts_with("no etcd release is pinned for the architecture \"riscv64\""));
}

#[test]
fn the_same_build_gives_the_same_payload_and_another_time_gives_another() {
    let made = |build: Build| {
        let (code, stdout) = build.run();
        assert_eq!(code, 0, "{stdout}");
        ["out/release.rs", "out/documents.rs", "out/release.zst"]
            .map(|file| fs::read(build.dir.path().join(file)).unwrap())
    };
    let build = || Build::with_manifest(|manifest| manifest);
    let one = made(build());
    assert!(one == made(build()));
    assert!(one != made(build().env("SOURCE_DATE_EPOCH", "1000000000")));
}

#[test]
fn a_tarball_that_nobody_vouches_for() {
    let (build, sha256) = Build::with_manifest(|manifest| manifest).with_tarball(&top(), &["etcd"]);
    let error = build.refused();
    let expected = format!(
        "has sha256 {sha256}, which manifest.yml does not know for etcd {} linux-amd64; to build from it all the \
         same, set ETCD_RELEASE_SHA256 to that hash",
        version()
    );
    assert!(error.ends_with(&expected), "{error}");

    let error = build.env("ETCD_RELEASE_SHA256", &"1".repeat(64)).refused();
    assert!(error.starts_with("ETCD_RELEASE_SHA256 is 1111") && error.ends_with(&sha256), "{error}");
}

#[test]
fn a_tarball_that_the_user_vouches_for_brings_all_its_programs() {
    let programs = ["etcd", "etcdctl", "etcdutl", "README.md"];
    let (build, sha256) = Build::with_manifest(|manifest| manifest).with_tarball("etcd-v3.9.0-linux-amd64", &programs);
    let build = build.env("ETCD_RELEASE_SHA256", &sha256);
    let (code, stdout) = build.run();
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains(
        "cargo::warning=etcd 3.9.0 comes from etcd-v3.9.0-linux-amd64.tar.gz; only ETCD_RELEASE_SHA256 vouches for it"
    ));
    assert!(stdout.contains("cargo::warning=the bill of materials will list no Go modules of etcdctl: "), "{stdout}");
    let table = fs::read_to_string(build.dir.path().join("out/release.rs")).unwrap();
    let names: Vec<&str> =
        table.split("Program { name: ").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    assert_eq!(names, ["\"etcd\"", "\"etcdctl\"", "\"etcdutl\""]);
}

#[test]
fn the_manifests_tarball_must_hold_the_manifests_etcd() {
    let (build, sha256) = Build::with_manifest(|manifest| manifest).with_tarball(&top(), &["etcd"]);
    let path = build.dir.path().join("manifest.yml");
    let mut manifest = String::new();
    for line in fs::read_to_string(&path).unwrap().lines().filter(|line| !line.starts_with("  sha256:")) {
        manifest.extend([line, "\n"]);
        if line.starts_with("  uri:") {
            manifest.extend(["  sha256: ", &sha256, "\n"]);
        }
    }
    fs::write(&path, manifest).unwrap();
    is_not_the_manifests_etcd(&build.refused());
}

#[test]
fn whoever_vouches_for_a_tarball_of_the_manifests_version_it_must_hold_the_manifests_etcd() {
    let (build, sha256) = Build::with_manifest(|manifest| manifest).with_tarball(&top(), &["etcd"]);
    is_not_the_manifests_etcd(&build.env("ETCD_RELEASE_SHA256", &sha256).refused());
}

#[track_caller]
fn is_not_the_manifests_etcd(error: &str) {
    assert!(error.starts_with(&format!("etcd from {}.tar.gz is not the etcd {}", top(), version())), "{error}");
    assert!(error.ends_with(&format!("expected {}", amd64())), "{error}");
}

#[test]
fn tarballs_that_are_none() {
    let refused = |name, files: &[&str]| {
        let (build, sha256) = Build::with_manifest(|manifest| manifest).with_tarball(name, files);
        build.env("ETCD_RELEASE_SHA256", &sha256).refused()
    };
    let error = refused("etcd-v3.9.0-linux-amd64", &["etcdctl"]);
    assert!(error.ends_with("holds no etcd-v3.9.0-linux-amd64/etcd"), "{error}");
    let error = refused("etcd-v3.9.0-linux-arm64", &["etcd"]);
    assert!(error.ends_with("\"etcd-v3.9.0-linux-arm64\" is not etcd-vVERSION-linux-amd64"), "{error}");

    let build = Build::with_manifest(|manifest| manifest).env("ETCD_RELEASE_TARBALL", "/no/such/file");
    let error = build.refused();
    assert!(error.starts_with("ETCD_RELEASE_TARBALL: cannot read /no/such/file: No such file"), "{error}");
}
