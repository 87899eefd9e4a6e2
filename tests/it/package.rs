//! The packages beside the zip, which `buildpack.rs` tests: read by other people's crates and programs, and run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::buildpack::{ARCHS, Staging, relabelled};
use crate::cgroup::Group;
use crate::load;
use crate::support::{
    Cluster, Process, binary, command, etcdproxy, fails_with, finish, free_addr, sha256, succeeds, unique_host,
    unpack_dir, wait_ready,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `package` writes with these arguments.
fn package(dir: &TempDir, args: &[&str]) -> PathBuf {
    let path = dir.path().join("package");
    let stdout = succeeds(etcdproxy(["package", "--output"]).arg(&path).args(args));
    assert_eq!(stdout, format!("{}\n", path.display()));
    path
}

/// The same, after it was made twice, with the same bytes: once under its default name.
fn package_twice(dir: &TempDir, args: &[&str], default_name: &str) -> PathBuf {
    let path = package(dir, args);
    let stdout = succeeds(etcdproxy(["package"]).args(args).current_dir(dir.path()));
    assert_eq!(stdout, format!("{default_name}\n"));
    let second = dir.path().join(default_name);
    assert_eq!(sha256(&path), sha256(&second));
    fs::remove_file(second).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    path
}

/// The entries of a tar.
type Entries = BTreeMap<String, Entry>;

struct Entry {
    mode: u32,
    content: Vec<u8>,
}

/// Reads a tar, and checks what is the same in all of ours.
fn untar(bytes: &[u8]) -> Entries {
    assert_eq!(&bytes[257..262], b"ustar", "Cloud Foundry looks for this");
    let mut names = Vec::new();
    let mut entries = Entries::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let is_dir = header.entry_type().is_dir();
        assert!(is_dir || header.entry_type().is_file());
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 315_532_801));
        assert_eq!((header.username(), header.groupname()), (Ok(Some("")), Ok(Some(""))));
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        assert_eq!(name.ends_with('/'), is_dir, "{name}");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        names.push(name.clone());
        entries.insert(name, Entry { mode: header.mode().unwrap(), content });
    }
    assert_eq!(names.len(), entries.len(), "{names:?}");
    for name in &names {
        let parent = name.trim_end_matches('/').rsplit_once('/').map(|(parent, _)| format!("{parent}/"));
        let is_above = |dir: String| {
            dir == "/" || names.iter().position(|one| *one == dir) < names.iter().position(|one| one == name)
        };
        assert!(parent.is_none_or(is_above), "{name} comes before its directory");
    }
    entries
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn files(entries: &Entries) -> Vec<&str> {
    entries.keys().map(String::as_str).filter(|name| !name.ends_with('/')).collect()
}

/// An image for one architecture, out of a layout.
struct Image {
    config: ImageConfiguration,
    /// The entries of each layer.
    layers: Vec<Entries>,
}

/// A layout that oci-spec accepts.
struct Layout {
    entries: Entries,
    index: ImageIndex,
}

impl Layout {
    fn read(path: &Path) -> Self {
        let entries = untar(&fs::read(path).unwrap());
        assert_eq!(entries["oci-layout"].content, br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index = ImageIndex::from_reader(&*entries["index.json"].content).unwrap();
        for (name, entry) in &entries {
            if let Some(digest) = name.strip_prefix("blobs/sha256/").filter(|digest| !digest.is_empty()) {
                assert_eq!(hex::encode(Sha256::digest(&entry.content)), digest);
            }
        }
        Self { entries, index }
    }

    fn blob(&self, descriptor: &Descriptor) -> &[u8] {
        let blob = &self.entries[&format!("blobs/sha256/{}", descriptor.digest().digest())].content;
        assert_eq!(blob.len() as u64, descriptor.size());
        blob
    }

    /// The only descriptor in the index.
    fn root(&self) -> &Descriptor {
        let [root] = &self.index.manifests()[..] else { panic!("{:?}", self.index) };
        root
    }

    /// The names by which programs find the image.
    fn names(&self) -> [&str; 2] {
        let annotations = self.root().annotations().as_ref().unwrap();
        ["org.opencontainers.image.ref.name", "io.containerd.image.name"]
            .map(|key| annotations.get(key).map_or("", String::as_str))
    }

    fn images(&self) -> Vec<Image> {
        let root = self.root();
        if *root.media_type() == MediaType::ImageIndex {
            let index = ImageIndex::from_reader(self.blob(root)).unwrap();
            return index.manifests().iter().map(|manifest| self.image(manifest)).collect();
        }
        vec![self.image(root)]
    }

    fn image(&self, descriptor: &Descriptor) -> Image {
        assert_eq!(*descriptor.media_type(), MediaType::ImageManifest);
        let manifest = ImageManifest::from_reader(self.blob(descriptor)).unwrap();
        assert_eq!(*manifest.config().media_type(), MediaType::ImageConfig);
        let config = ImageConfiguration::from_reader(self.blob(manifest.config())).unwrap();
        assert_eq!(descriptor.platform().as_ref().unwrap().architecture(), config.architecture());
        let layers: Vec<Vec<u8>> = manifest
            .layers()
            .iter()
            .map(|layer| {
                assert_eq!(*layer.media_type(), MediaType::ImageLayerGzip);
                gunzip(self.blob(layer))
            })
            .collect();
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", hex::encode(Sha256::digest(layer)))).collect();
        assert_eq!(config.rootfs().diff_ids(), &diff_ids);
        assert_eq!(config.history().as_ref().unwrap().len(), layers.len());
        Image { config, layers: layers.iter().map(|layer| untar(layer)).collect() }
    }
}

impl Image {
    fn labels(&self) -> BTreeMap<&str, &str> {
        let labels = self.config.config().as_ref().unwrap().labels().as_ref().unwrap();
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

#[test]
fn the_image_has_the_programs_one_user_and_no_shell() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("etcdproxy-v{VERSION}-{}.oci.tar", ARCHS[0]);
    let layout = Layout::read(&package_twice(&dir, &["--format", "oci"], &name));
    assert_eq!(layout.names(), [VERSION, &format!("localhost/etcdproxy:{VERSION}")]);
    let [image] = &layout.images()[..] else { panic!("not one image") };
    let [etcd, rest] = &image.layers[..] else { panic!("{} layers", image.layers.len()) };

    assert_eq!(files(etcd), ["usr/local/bin/etcd"]);
    let (code, _, stderr) = finish(etcdproxy(["unpack"]).arg(unpack_dir().join("for-package")));
    assert_eq!(code, 0, "{stderr}");
    let content = &etcd["usr/local/bin/etcd"].content;
    assert_eq!(hex::encode(Sha256::digest(content)), sha256(&unpack_dir().join("for-package/etcd")));
    assert_eq!(
        files(rest),
        [
            "etc/group",
            "etc/passwd",
            "usr/local/bin/etcdproxy",
            "usr/share/doc/etcdproxy/LICENSE",
            "usr/share/doc/etcdproxy/NOTICE",
            "usr/share/doc/etcdproxy/etcdproxy.cdx.json",
            "usr/share/doc/etcdproxy/etcdproxy.spdx.json",
            "usr/share/doc/etcdproxy/licenses.txt",
        ]
    );
    for (name, mode) in [("tmp/", 0o1777), ("proc/", 0o755), ("usr/local/bin/etcdproxy", 0o755), ("etc/passwd", 0o644)]
    {
        assert_eq!(rest[name].mode, mode, "{name}");
    }
    for (name, command) in [
        ("etcdproxy.cdx.json", &["sbom"][..]),
        ("etcdproxy.spdx.json", &["sbom", "--format", "spdx"]),
        ("licenses.txt", &["licenses"]),
    ] {
        let content = &rest[&format!("usr/share/doc/etcdproxy/{name}")].content;
        assert!(*content == succeeds(&mut etcdproxy(command)).into_bytes(), "{name}");
    }
    assert!(rest["etc/passwd"].content.starts_with(b"etcdproxy:x:65532:65532:"));

    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.user().as_deref(), Some("65532:65532"));
    assert_eq!(config.entrypoint().as_deref(), Some(&["/usr/local/bin/etcdproxy".to_owned()][..]));
    assert_eq!(config.cmd().as_deref(), Some(&["run".to_owned()][..]));
    assert_eq!(config.stop_signal().as_deref(), Some("SIGTERM"));
    let labels = image.labels();
    assert_eq!(labels["org.opencontainers.image.version"], VERSION);
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
    assert!(labels.values().all(|value| !value.is_empty()), "{labels:?}");
}

#[test]
fn an_image_without_etcd_has_the_launcher_alone_and_authorities_only_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let bundle = elsewhere.path().join("bundle.crt");
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    fs::write(&bundle, pem).unwrap();
    let args = ["--format", "oci", "--without-etcd", "--ca-bundle", bundle.to_str().unwrap()];
    let name = format!("etcdproxy-native-v{VERSION}-{}.oci.tar", ARCHS[0]);
    let layout = Layout::read(&package_twice(&dir, &args, &name));
    assert_eq!(layout.names()[0], format!("{VERSION}-native"));
    let [image] = &layout.images()[..] else { panic!("not one image") };
    let [rest] = &image.layers[..] else { panic!("{} layers", image.layers.len()) };
    assert_eq!(rest["etc/ssl/certs/ca-certificates.crt"].content, pem.as_bytes());
    let env = image.config.config().as_ref().unwrap().env().as_ref().unwrap();
    assert!(env.contains(&"ETCDPROXY_MODE=native".to_owned()), "{env:?}");
    // Its bills of materials list what it contains.
    for name in ["etcdproxy.cdx.json", "etcdproxy.spdx.json"] {
        let text = String::from_utf8_lossy(&rest[&format!("usr/share/doc/etcdproxy/{name}")].content);
        assert!(text.contains("pkg:cargo/rustls@") && !text.contains("pkg:golang/"), "{name}");
    }

    for (content, problem) in [
        ("", "it contains no certificate (PEM)"),
        ("-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n", "it contains a private key"),
    ] {
        fs::write(&bundle, content).unwrap();
        let line = fails_with(1, etcdproxy(["package", "--format", "oci", "--ca-bundle"]).arg(&bundle));
        assert!(line.contains(&format!("bundle.crt cannot be used: {problem}: name a file such as ")), "{line}");
    }
}

#[test]
fn an_image_for_both_architectures_is_one_index() {
    let dir = tempfile::tempdir().unwrap();
    let arch = ARCHS.map(|arch| format!(r#""arch":"{arch}""#));
    let other = relabelled(&binary(), dir.path().join("other"), &arch[0], &arch[1]);
    let args = ["--format", "oci", "--without-etcd", "--arch", "both", "--other", other.to_str().unwrap()];
    let layout = Layout::read(&package(&dir, &args));
    let images = layout.images();
    let archs: Vec<String> = images.iter().map(|image| image.config.architecture().to_string()).collect();
    assert_eq!(archs, ["amd64", "arm64"]);
    // Here, both are for this machine. The launcher of the other one was cut out of its file.
    let launchers: Vec<_> = images.iter().map(|image| &image.layers[0]["usr/local/bin/etcdproxy"].content).collect();
    let length = launchers[0].len();
    assert_eq!(length, launchers[1].len());
    let different = launchers[0].iter().zip(launchers[1]).filter(|(a, b)| a != b).count();
    assert!((1..=5).contains(&different), "only the label differs: {different}");

    let for_docker: Value = serde_json::from_slice(&layout.entries["manifest.json"].content).unwrap();
    let tags: Vec<_> =
        for_docker.as_array().unwrap().iter().map(|image| image["RepoTags"][0].as_str().unwrap()).collect();
    assert_eq!(tags, ["amd64", "arm64"].map(|arch| format!("localhost/etcdproxy:{VERSION}-native-{arch}")));
    for image in for_docker.as_array().unwrap() {
        for blob in image["Layers"].as_array().unwrap().iter().chain([&image["Config"]]) {
            assert!(layout.entries.contains_key(blob.as_str().unwrap()), "{blob}");
        }
    }
}

#[test]
fn the_buildpackage_has_the_files_of_the_zip_at_an_absolute_path() {
    let dir = tempfile::tempdir().unwrap();
    let [this, _] = ARCHS;
    let zip = Staging::with(&[]);
    let name = format!("etcdproxy-buildpack-v{VERSION}-{this}");
    let layout = Layout::read(&package_twice(&dir, &["--format", "cnb"], &format!("{name}.cnb")));
    let [image] = &layout.images()[..] else { panic!("not one image") };
    let [layer] = &image.layers[..] else { panic!("{} layers", image.layers.len()) };

    let labels = image.labels();
    let label = |name: &str| serde_json::from_str::<Value>(labels[name]).unwrap();
    let metadata = label("io.buildpacks.buildpackage.metadata");
    let (id, version) = (metadata["id"].as_str().unwrap(), metadata["version"].as_str().unwrap());
    assert_eq!(version, VERSION);
    let about = &label("io.buildpacks.buildpack.layers")[id][version];
    assert_eq!(about["layerDiffID"], *image.config.rootfs().diff_ids()[0]);
    assert_eq!(about["targets"], serde_json::json!([{ "os": "linux", "arch": this }]));
    let toml = String::from_utf8(fs::read(zip.path("buildpack/buildpack.toml")).unwrap()).unwrap();
    for value in [&about["api"], &metadata["id"], &metadata["version"], &metadata["name"]] {
        assert!(toml.contains(&value.to_string()), "{value}: {toml}");
    }

    let prefix = format!("/cnb/buildpacks/{}/{version}/", id.replace('/', "_"));
    assert!(layer.keys().all(|name| name.starts_with(&prefix) || prefix.starts_with(name)), "{:?}", files(layer));
    same_as_zip(layer, &prefix, &zip);
    let tgz = package_twice(&dir, &["--format", "tgz"], &format!("{name}.tgz"));
    let tgz = untar(&gunzip(&fs::read(tgz).unwrap()));
    same_as_zip(&tgz, "", &zip);
}

/// Checks that the files below `prefix` are those of the unpacked zip.
fn same_as_zip(entries: &Entries, prefix: &str, zip: &Staging) {
    let mut found = Vec::new();
    for name in files(entries) {
        let relative = name.strip_prefix(prefix).unwrap();
        let path = zip.path("buildpack").join(relative);
        assert!(entries[name].content == fs::read(&path).unwrap(), "{name}");
        let is_program = relative.starts_with("bin/") || relative == "etcdproxy";
        assert_eq!(entries[name].mode, if is_program { 0o755 } else { 0o644 }, "{name}");
        found.push(relative.to_owned());
    }
    let mut all = Vec::new();
    for name in zip.names("buildpack") {
        let is_dir = zip.path("buildpack").join(&name).is_dir();
        let inside = if is_dir { zip.names(&format!("buildpack/{name}")) } else { Vec::new() };
        all.extend(inside.iter().map(|file| format!("{name}/{file}")).chain((!is_dir).then_some(name.clone())));
    }
    all.sort();
    assert_eq!(found, all);
}

#[test]
fn an_option_that_does_not_fit_the_format_gets_one_line() {
    for (args, line) in [
        (
            &["--format", "oci", "--stack", "cflinuxfs4"][..],
            "--stack is for --format zip: leave it out for --format oci",
        ),
        (&["--without-etcd"], "--without-etcd is for --format oci: leave it out for --format zip"),
        (&["--format", "cnb", "--ca-bundle", "x"], "--ca-bundle is for --format oci: leave it out for --format cnb"),
        (
            &["--format", "cnb", "--arch", "both", "--other", "x"],
            "--arch both: a buildpackage is for one architecture: make one for each, or use --format tgz",
        ),
    ] {
        assert_eq!(fails_with(2, etcdproxy(["package"]).args(args)), format!("etcdproxy: error: {line}"));
    }
    for format in ["tgz", "cnb", "oci"] {
        let line = fails_with(73, &mut etcdproxy(["package", "--format", format, "--output", "/no/such/dir/x"]));
        let start = "etcdproxy: error: cannot write /no/such/dir/x: its directory does not exist: ";
        assert!(line.starts_with(start), "{line}");
    }
    // The disk is full after the first blocks.
    for format in ["zip", "tgz", "cnb", "oci"] {
        let dir = tempfile::tempdir().unwrap();
        let script = "ulimit -f 100; trap '' XFSZ; exec \"$0\" package --format \"$1\" --output \"$2\"";
        let mut shell = command("sh".as_ref(), ["-c", script]);
        let line = fails_with(73, shell.arg(binary()).arg(format).arg(dir.path().join("x")));
        assert!(line.contains("/x: ") && line.ends_with(": choose another --output"), "{format}: {line}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{format}");
    }
}

/// Runs a program of Debian; its output is for people.
#[track_caller]
fn run(program: &str, args: &[&str], dir: &Path) -> String {
    let mut command = command(program.as_ref(), args);
    let (code, stdout, stderr) = finish(command.current_dir(dir).env("HOME", dir));
    assert_eq!(code, 0, "{program} {args:?}: {stdout}{stderr}");
    stdout
}

/// The image, unpacked by umoci as it would be for a container.
fn unpacked(dir: &TempDir, args: &[&str]) -> PathBuf {
    let path = package(dir, &[&["--format", "oci"], args].concat());
    fs::create_dir(dir.path().join("layout")).unwrap();
    run("tar", &["-xf", "package", "-C", "layout"], dir.path());
    let layout = Layout::read(&path);
    let image = format!("layout:{}", layout.names()[0]);
    let flags: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--rootless"] };
    run("umoci", &[&["unpack", "--image", &image], flags, &["bundle"]].concat(), dir.path());
    dir.path().join("bundle")
}

#[test]
#[ignore = "needs skopeo: run ./scripts/test.sh"]
fn skopeo_reads_and_copies_images_and_buildpackages() {
    let dir = tempfile::tempdir().unwrap();
    for (format, layers) in [("cnb", 1), ("oci", 2)] {
        let path = package(&dir, &["--format", format]);
        let source = format!("oci-archive:{}:{VERSION}", path.display());
        let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &source], dir.path())).unwrap();
        assert_eq!(inspected["Architecture"], ARCHS[0]);
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), layers);
        let copy = dir.path().join(format!("copy-{layers}"));
        run("skopeo", &["copy", "--insecure-policy", &source, &format!("dir:{}", copy.display())], dir.path());
        assert_eq!(fs::read_dir(&copy).unwrap().count(), layers + 3, "layers, configuration, manifest, version");
    }
    // As Docker reads the image.
    let source = format!("docker-archive:package:localhost/etcdproxy:{VERSION}");
    let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &source], dir.path())).unwrap();
    assert_eq!(inspected["Labels"]["org.opencontainers.image.version"], VERSION);
}

#[test]
#[ignore = "needs podman: run ./scripts/test.sh"]
fn podman_loads_the_image_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    package(&dir, &["--format", "oci", "--without-etcd"]);
    let root = ["--root", "store", "--runroot", "run", "--storage-driver", "vfs"];
    let podman = |args: &[&str]| run("podman", &[&root[..], args].concat(), dir.path());
    let loaded = podman(&["load", "--input", "package"]);
    let name = format!("localhost/etcdproxy:{VERSION}-native");
    assert!(loaded.trim_end().ends_with(&name), "{loaded}");
    let inspected: Value = serde_json::from_str(&podman(&["image", "inspect", &name])).unwrap();
    assert_eq!(inspected[0]["User"], "65532:65532");
}

/// The image's entry point with these arguments, as a runtime starts it: as its user, with its environment, its root
/// read-only, and this much memory if the machine can limit it.
fn container(bundle: &Path, group: Option<&Group>, args: &[&str]) -> Command {
    let spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let process = &spec["process"];
    assert_eq!((&process["user"]["uid"], &process["user"]["gid"]), (&65532.into(), &65532.into()));
    let mut bwrap = match group {
        Some(group) => group.command("bwrap".as_ref()),
        None => command("bwrap".as_ref(), [""; 0]),
    };
    bwrap.args(["--unshare-user", "--unshare-pid", "--uid", "65532", "--gid", "65532", "--cap-drop", "ALL"]);
    bwrap.arg("--die-with-parent").arg("--ro-bind").arg(bundle.join("rootfs")).arg("/");
    bwrap.args(["--dev", "/dev", "--proc", "/proc", "--chdir", process["cwd"].as_str().unwrap(), "--clearenv"]);
    for variable in process["env"].as_array().unwrap() {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        bwrap.args(["--setenv", name, value]);
    }
    bwrap.arg("--").arg(process["args"][0].as_str().unwrap()).args(args);
    bwrap
}

/// Whether a program needs the loader of its C library, as debug builds do.
fn is_dynamic(program: &Path) -> bool {
    let mut head = [0; 4096];
    fs::File::open(program).unwrap().read_exact(&mut head).unwrap();
    head.windows(5).any(|text| text == b"/lib/" || text == b"/lib6")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs umoci and bwrap: run ./scripts/test.sh"]
async fn the_unpacked_image_runs_with_a_read_only_root_as_any_user() {
    if is_dynamic(&binary()) {
        eprintln!("skipped: this binary needs a C library, which the image does not have: run ./scripts/test.sh");
        return;
    }
    let cluster = Cluster::start(1);
    for (options, modes) in
        [(&[][..], &[("grpc-proxy", 64), ("native", 32)][..]), (&["--without-etcd"], &[("auto", 16)])]
    {
        let dir = tempfile::tempdir().unwrap();
        let bundle = unpacked(&dir, options);
        let version = succeeds(&mut container(&bundle, None, &["version"]));
        assert!(version.starts_with(&format!("etcdproxy {VERSION}")), "{version}");
        for (mode, megabytes) in modes {
            let group = Group::new(*megabytes);
            if group.is_none() {
                eprintln!("skipped: a limit of memory, which this system lets nobody set");
            }
            let (endpoints, addr) = (cluster.endpoints(), free_addr(&unique_host()));
            let mut args = vec!["run", "--endpoints", &endpoints, "--listen-addr", &addr];
            if options.is_empty() {
                args.extend(["--mode", mode]);
            }
            let mut proxy = Process::start(container(&bundle, group.as_ref(), &args).stderr(Stdio::null()));
            wait_ready(&addr);
            let mut client = load::connect(&addr).await.unwrap();
            client.put("image", *mode, None).await.unwrap();
            assert_eq!(client.get("image", None).await.unwrap().kvs()[0].value_str().unwrap(), *mode);
            proxy.terminate();
        }
    }
}
