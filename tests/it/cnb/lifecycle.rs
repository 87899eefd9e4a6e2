//! A lifecycle of Cloud Native Buildpacks, with this buildpack alone in its group: directories, environment and exit codes
//! are those of <https://github.com/buildpacks/spec>, version 0.10 of the interface.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libcnb_data::buildpack::ComponentBuildpackDescriptor;
use libcnb_data::launch::Launch;
use libcnb_data::layer_content_metadata::LayerContentMetadata;
use libcnb_data::sbom::SbomFormat;
use toml::Table;

use crate::buildpack::Staging;
use crate::support::{command, finish, names};

/// The buildpack's directory for layers: its id, escaped.
const LAYERS: &str = "layers/etcdproxy_etcdproxy";
const LAYER: &str = "etcdproxy";

/// Variables of the user.
pub(super) type Vars<'a> = [(&'a str, &'a str)];

/// The directories of the builds of one application.
pub(super) struct Lifecycle(Staging);

/// What `bin/detect` has done.
pub(super) struct Detected {
    pub code: i32,
    pub output: String,
    pub plan: String,
}

/// What the image of the application got.
pub(super) struct Image {
    /// What `bin/build` has printed.
    pub output: String,
    pub launch: Launch,
    pub metadata: Table,
    /// Whether the layer comes from the last image.
    pub is_reused: bool,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let lifecycle = Self(Staging::with(&[]));
        for dir in ["platform/env", "app", LAYERS, "image/etcdproxy_etcdproxy"] {
            fs::create_dir_all(lifecycle.path(dir)).unwrap();
        }
        lifecycle
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// A file of the layer in this build.
    pub(super) fn built(&self, file: &str) -> PathBuf {
        self.path(LAYERS).join(LAYER).join(file)
    }

    /// A file of the layer in the image.
    pub(super) fn image(&self, file: &str) -> PathBuf {
        self.path("image/etcdproxy_etcdproxy").join(LAYER).join(file)
    }

    pub(super) fn descriptor(&self) -> ComponentBuildpackDescriptor<Option<Table>> {
        toml::from_str(&fs::read_to_string(self.path("buildpack/buildpack.toml")).unwrap()).unwrap()
    }

    /// A script of the buildpack, in its environment: almost nothing, and the user's variables, which are also files.
    fn script(&self, name: &str, user: &Vars<'_>) -> Command {
        let env = self.path("platform/env");
        fs::remove_dir_all(&env).unwrap();
        fs::create_dir(&env).unwrap();
        for (name, value) in user {
            fs::write(env.join(name), value).unwrap();
        }
        let mut script = command(&self.path("buildpack/bin").join(name), [] as [&str; 0]);
        script.env_remove("ETCDPROXY_UNPACK_DIR").env("HOME", "/nonexistent").current_dir(self.path("app"));
        if !self.descriptor().buildpack.clear_env {
            script.envs(user.iter().copied());
        }
        script.env("CNB_BUILDPACK_DIR", self.path("buildpack")).env("CNB_PLATFORM_DIR", self.path("platform"));
        script.env("CNB_TARGET_OS", "linux").env("CNB_TARGET_ARCH", "amd64");
        script
    }

    /// Runs `bin/detect`. `change` may make the environment another one.
    pub(super) fn detect_with(&self, user: &Vars<'_>, change: impl FnOnce(&mut Command)) -> Detected {
        let plan = self.path("plan.toml");
        fs::write(&plan, "").unwrap();
        let mut script = self.script("detect", user);
        script.env("CNB_BUILD_PLAN_PATH", &plan).arg(self.path("platform")).arg(&plan);
        change(&mut script);
        let (code, stdout, stderr) = finish(&mut script);
        Detected { code, output: stdout + &stderr, plan: fs::read_to_string(plan).unwrap() }
    }

    pub(super) fn detect(&self, user: &Vars<'_>) -> Detected {
        self.detect_with(user, |_| ())
    }

    /// `bin/build`
    pub(super) fn build_script(&self, user: &Vars<'_>) -> Command {
        let (layers, plan) = (self.path(LAYERS), self.path("bp_plan.toml"));
        fs::write(&plan, "[[entries]]\nname = \"etcdproxy\"\n").unwrap();
        let mut script = self.script("build", user);
        script.env("CNB_LAYERS_DIR", &layers).env("CNB_BP_PLAN_PATH", &plan);
        script.arg(&layers).arg(self.path("platform")).arg(&plan);
        script
    }

    /// Runs `bin/build`, and returns its exit code and output.
    pub(super) fn run_build(&self, user: &Vars<'_>) -> (i32, String) {
        let (code, stdout, stderr) = finish(&mut self.build_script(user));
        (code, stdout + &stderr)
    }

    pub(super) fn build(&self, user: &Vars<'_>) -> Image {
        let (code, output) = self.run_build(user);
        assert_eq!(code, 0, "{output}");
        self.export(output)
    }

    /// Checks what a lifecycle checks after a build, and makes the image.
    pub(super) fn export(&self, output: String) -> Image {
        let text = |name: &str| fs::read_to_string(self.path(LAYERS).join(name)).unwrap();
        let launch: Launch = toml::from_str(&text("launch.toml")).unwrap();
        let layer: LayerContentMetadata<Table> = toml::from_str(&text("etcdproxy.toml")).unwrap();
        let types = layer.types.unwrap();
        assert_eq!((types.launch, types.build, types.cache), (true, false, false));
        self.check_sboms();
        let is_reused = !self.built("").exists();
        if is_reused {
            assert!(self.image("").exists(), "there is no layer to reuse");
        } else {
            let _ = fs::remove_dir_all(self.image(""));
            fs::rename(self.built(""), self.image("")).unwrap();
        }
        Image { output, launch, metadata: layer.metadata, is_reused }
    }

    /// Each bill of materials belongs to a layer, and `buildpack.toml` declares its format.
    fn check_sboms(&self) {
        let declared = self.descriptor().buildpack.sbom_formats;
        let mut found = 0;
        for name in names(&self.path(LAYERS)).iter().filter(|name| name.contains(".sbom.")) {
            let (layer, extension) = name.split_once(".sbom.").unwrap();
            let format = match extension {
                "cdx.json" => SbomFormat::CycloneDxJson,
                "spdx.json" => SbomFormat::SpdxJson,
                other => panic!("{other}"),
            };
            assert!(["etcdproxy", "launch", "build"].contains(&layer), "{name}");
            assert!(declared.contains(&format), "{name}");
            let json = fs::read(self.path(LAYERS).join(name)).unwrap();
            assert!(serde_json::from_slice::<serde_json::Value>(&json).unwrap().is_object(), "{name}");
            found += 1;
        }
        assert_eq!(found, 2);
    }

    /// What the next build finds of a layer that is only for the launch: its metadata, without the types, and its bills
    /// of materials, but not its files.
    pub(super) fn restore(&self, image: &Image) {
        let layers = self.path(LAYERS);
        fs::remove_file(layers.join("launch.toml")).unwrap();
        let mut restored = Table::new();
        restored.insert("metadata".to_owned(), image.metadata.clone().into());
        fs::write(layers.join("etcdproxy.toml"), toml::to_string_pretty(&restored).unwrap()).unwrap();
    }

    /// The process of the image as the lifecycle's launcher starts it. `process_type` is empty for a command of the user.
    pub(super) fn launch(&self, process_type: &str, process: &[&str]) -> Command {
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cnb/launcher.py");
        let mut command = command("python3".as_ref(), [launcher.as_path()]);
        command.arg(self.path("image")).arg(process_type).args(process);
        command.env_remove("ETCDPROXY_UNPACK_DIR").current_dir(self.path("app"));
        command
    }
}
