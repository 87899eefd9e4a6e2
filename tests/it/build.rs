//! The build refuses every etcd that is not the one in `manifest.yml`, and names it.
//!
//! The tests run the compiled build script as Cargo does, in a directory with their own manifest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{finish, manifest_value, sha256, succeeds};

/// This package's newest build script in Cargo's build directory, which also has this test's `OUT_DIR`.
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

/// A directory to build in, with an edited copy of the real manifest.
struct Build {
    dir: TempDir,
    arch: &'static str,
    env: Vec<(&'static str, String)>,
}

impl Build {
    fn new() -> Self {
        Self::with_manifest(|manifest| manifest)
    }

    fn with_manifest(change: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifest.yml")).unwrap();
        fs::write(dir.path().join("manifest.yml"), change(manifest)).unwrap();
        Self { dir, arch: "x86_64", env: Vec::new() }
    }

    /// Builds from a tarball with these files, and returns its sha256. Each file is only an ELF header for amd64.
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
        succeeds(Command::new("tar").arg("-czf").arg(&tarball).arg("-C").arg(self.dir.path()).arg(name));
        self.env.push(("ETCD_RELEASE_TARBALL", tarball.to_str().unwrap().to_owned()));
        let sha256 = sha256(&tarball);
        (self, sha256)
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Returns exit code and stdout.
    fn run(&self) -> (i32, String) {
        let mut script = Command::new(build_script());
        script.current_dir(self.dir.path()).env("OUT_DIR", self.dir.path().join("out")).env("PROFILE", "debug");
        fs::create_dir_all(self.dir.path().join("out")).unwrap();
        script.env("CARGO_CFG_TARGET_OS", "linux").env("CARGO_CFG_TARGET_ARCH", self.arch);
        script.env("TARGET", format!("{}-unknown-linux-musl", self.arch)).env("CARGO_CFG_TARGET_ENV", "musl");
        let (code, stdout, _) = finish(script.envs(self.env.iter().cloned()));
        (code, stdout)
    }

    #[track_caller]
    fn succeeds(&self) -> String {
        let (code, stdout) = self.run();
        assert_eq!(code, 0, "{stdout}");
        stdout
    }

    /// Asserts that there is one error, and returns it.
    #[track_caller]
    fn fails(&self) -> String {
        let (code, stdout) = self.run();
        assert_eq!(code, 1, "{stdout}");
        let errors: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect();
        assert_eq!(errors.len(), 1, "{stdout}");
        errors[0].to_owned()
    }
}

fn version() -> String {
    manifest_value("  version:")
}

/// The manifest's hash of etcd for amd64.
fn sha256_of_amd64() -> String {
    manifest_value("    sha256:")
}

/// The top directory in a tarball of the manifest's version.
fn top_directory() -> String {
    format!("etcd-v{}-linux-amd64", version())
}

#[test]
fn an_etcd_that_does_not_match_the_manifest_is_refused() {
    let zeros = "0".repeat(64);
    let (version, amd64) = (version(), sha256_of_amd64());
    let error = Build::with_manifest(|manifest| manifest.replace(&amd64, &zeros)).fails();
    assert_eq!(
        error,
        format!(
            "etcd from the package etcd-bin-vendored-linux-amd64 is not the etcd {version} linux-amd64 of \
             manifest.yml: sha256 {amd64}, expected {zeros}"
        )
    );
}

#[test]
fn etcd_is_embedded_for_both_architectures_and_no_other() {
    let mut build = Build::new();
    for (arch, name) in [("x86_64", "amd64"), ("aarch64", "arm64")] {
        build.arch = arch;
        build.succeeds();
        let table = fs::read_to_string(build.dir.path().join("out/release.rs")).unwrap();
        assert!(table.contains(&format!("arch: {name:?}")), "{table}");
        let label = fs::read_to_string(build.dir.path().join("out/label.json")).unwrap();
        assert!(label.contains(&format!("\"etcd\":\"{}\",\"arch\":{name:?}", version())), "{label}");
    }
    build.arch = "riscv64";
    assert!(build.fails().starts_with("no etcd release is pinned for the architecture \"riscv64\""));
}

#[test]
fn the_same_build_makes_the_same_payload_and_the_date_changes_it() {
    let files = |build: Build| {
        build.succeeds();
        ["out/release.rs", "out/documents.rs", "out/release.zst"]
            .map(|file| fs::read(build.dir.path().join(file)).unwrap())
    };
    let first = files(Build::new());
    assert!(first == files(Build::new()));
    assert!(first != files(Build::new().env("SOURCE_DATE_EPOCH", "1000000000")));
}

#[test]
fn a_tarball_that_the_manifest_does_not_know_is_refused() {
    let (build, sha256) = Build::new().with_tarball(&top_directory(), &["etcd"]);
    let error = build.fails();
    let expected = format!(
        "has sha256 {sha256}, which manifest.yml does not know for etcd {} linux-amd64; to build from it all the \
         same, set ETCD_RELEASE_SHA256 to that hash",
        version()
    );
    assert!(error.ends_with(&expected), "{error}");

    let error = build.env("ETCD_RELEASE_SHA256", &"1".repeat(64)).fails();
    assert!(error.starts_with("ETCD_RELEASE_SHA256 is 1111") && error.ends_with(&sha256), "{error}");
}

#[test]
fn a_tarball_that_the_user_vouches_for_is_embedded_with_all_its_programs() {
    let programs = ["etcd", "etcdctl", "etcdutl", "README.md"];
    let (build, sha256) = Build::new().with_tarball("etcd-v3.9.0-linux-amd64", &programs);
    let build = build.env("ETCD_RELEASE_SHA256", &sha256);
    let stdout = build.succeeds();
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
fn a_tarball_in_the_manifest_must_contain_the_etcd_in_the_manifest() {
    let (build, sha256) = Build::new().with_tarball(&top_directory(), &["etcd"]);
    let path = build.dir.path().join("manifest.yml");
    let mut manifest = String::new();
    for line in fs::read_to_string(&path).unwrap().lines().filter(|line| !line.starts_with("  sha256:")) {
        manifest.extend([line, "\n"]);
        if line.starts_with("  uri:") {
            manifest.extend(["  sha256: ", &sha256, "\n"]);
        }
    }
    fs::write(&path, manifest).unwrap();
    is_not_the_manifests_etcd(&build.fails());
}

#[test]
fn even_a_tarball_that_the_user_vouches_for_must_match_the_manifest_if_its_version_does() {
    let (build, sha256) = Build::new().with_tarball(&top_directory(), &["etcd"]);
    is_not_the_manifests_etcd(&build.env("ETCD_RELEASE_SHA256", &sha256).fails());
}

#[track_caller]
fn is_not_the_manifests_etcd(error: &str) {
    assert!(
        error.starts_with(&format!("etcd from {}.tar.gz is not the etcd {}", top_directory(), version())),
        "{error}"
    );
    assert!(error.ends_with(&format!("expected {}", sha256_of_amd64())), "{error}");
}

#[test]
fn a_tarball_must_have_the_name_and_the_layout_of_upstreams() {
    let error_of = |name, files: &[&str]| {
        let (build, sha256) = Build::new().with_tarball(name, files);
        build.env("ETCD_RELEASE_SHA256", &sha256).fails()
    };
    let error = error_of("etcd-v3.9.0-linux-amd64", &["etcdctl"]);
    assert!(error.ends_with("holds no etcd-v3.9.0-linux-amd64/etcd"), "{error}");
    let error = error_of("etcd-v3.9.0-linux-arm64", &["etcd"]);
    assert!(error.ends_with("\"etcd-v3.9.0-linux-arm64\" is not etcd-vVERSION-linux-amd64"), "{error}");

    let error = Build::new().env("ETCD_RELEASE_TARBALL", "/no/such/file").fails();
    assert!(error.starts_with("ETCD_RELEASE_TARBALL: cannot read /no/such/file: No such file"), "{error}");
}
