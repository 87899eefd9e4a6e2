//! The container of the manifest, really run: its command, environment and probes, with a root that nobody can write to,
//! a user without a name, no home, and the memory that the manifest allows.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::buildpack::Staging;
use crate::cgroup::Group;
use crate::support::{Process, binary, child_of, command, finish};

/// What a container finds in its environment, whatever its image is.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The root directory of the image: etcd and the launcher, as `supply` writes them, and what every container has.
pub(crate) fn image() -> TempDir {
    let staging = Staging::with(&[]);
    let (code, _, stderr) = finish(&mut staging.supply("0"));
    assert_eq!(code, 0, "{stderr}");
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for dir in ["usr/local/bin", "proc", "dev", "bindings/etcd"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    for program in ["etcd", "etcdproxy"] {
        let to = root.path().join("usr/local/bin").join(program);
        fs::copy(staging.path("deps/0/bin").join(program), &to).unwrap();
    }
    root
}

/// Directories of the C library, for a debug build, which is not static.
fn libraries() -> Vec<PathBuf> {
    let mut begin = [0; 4096];
    fs::File::open(binary()).unwrap().read_exact(&mut begin).unwrap();
    // The name of the program that loads libraries (PT_INTERP).
    let is_dynamic = begin.windows(9).any(|bytes| bytes == b"/ld-linux");
    if is_dynamic { ["/lib", "/lib64", "/usr/lib"].map(PathBuf::from).into() } else { Vec::new() }
}

/// What a manifest says about the container.
pub(crate) struct Spec {
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) memory: u64,
    pub(crate) container: Value,
}

impl Spec {
    /// The sidecar in a Deployment. `pod_ip` is what the platform would put in.
    pub(crate) fn of(deployment: &Value, pod_ip: &str) -> Self {
        let container = deployment["spec"]["template"]["spec"]["initContainers"][0].clone();
        let mut env = BTreeMap::new();
        for variable in container["env"].as_array().unwrap() {
            let text = match variable.get("valueFrom") {
                Some(from) => {
                    assert_eq!(from["fieldRef"]["fieldPath"], "status.podIP");
                    pod_ip.to_owned()
                }
                None => expand(variable["value"].as_str().unwrap(), &env),
            };
            env.insert(variable["name"].as_str().unwrap().to_owned(), text);
        }
        let memory = container["resources"]["limits"]["memory"].as_str().unwrap();
        Self {
            command: words(&container["command"]),
            env,
            memory: memory.strip_suffix("Mi").unwrap().parse().unwrap(),
            container,
        }
    }

    /// The command of a probe.
    pub(crate) fn probe(&self, name: &str) -> Vec<String> {
        words(&self.container[name]["exec"]["command"])
    }
}

pub(crate) fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Replaces `$(NAME)` and `$$`, as Kubernetes does.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut text = text.replace("$$", "\0");
    for (name, value) in env {
        text = text.replace(&format!("$({name})"), value);
    }
    assert!(!text.contains("$("), "{text}");
    text.replace('\0', "$")
}

/// A command of the shell that puts the shell under the limit, if there is one.
fn join(limit: Option<&Group>) -> String {
    limit.map_or_else(|| ":".to_owned(), Group::join)
}

/// A running container. Its network is that of this host.
pub(crate) struct Container<'a> {
    spec: &'a Spec,
    outer: Process,
    limit: Option<Group>,
    user: u32,
}

impl<'a> Container<'a> {
    /// Starts the manifest's command in the image. `binding` is the directory of the Secret.
    pub(crate) fn start(spec: &'a Spec, image: &Path, binding: Option<&Path>, user: u32) -> Self {
        let limit = Group::new(spec.memory);
        if limit.is_none() {
            eprintln!("this host has no control group for memory that a test can use: there is no limit");
        }
        let root = image.display();
        let mut script = format!("set -e\n{}\nmount --bind {root} {root}\n", join(limit.as_ref()));
        for dir in libraries().iter().filter(|dir| dir.exists()) {
            let to = image.join(dir.strip_prefix("/").unwrap());
            fs::create_dir_all(&to).unwrap();
            script.extend([format!("mount --rbind {} {}\n", dir.display(), to.display())]);
        }
        for file in ["null", "urandom"] {
            fs::write(image.join("dev").join(file), "").unwrap();
            script.extend([format!("mount --bind /dev/{file} {root}/dev/{file}\n")]);
        }
        if let Some(dir) = binding {
            script.extend([format!("mount --bind {} {root}/bindings/etcd\n", dir.display())]);
        }
        script.extend([format!("mount -t proc proc {root}/proc\nmount -o remount,bind,ro {root}\n")]);
        script.extend([format!("exec chroot --userspec={user}:{user} {root} \"$@\"\n")]);
        let mut outer =
            command("unshare".as_ref(), ["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh"]);
        outer.args(&spec.command).env_clear().env("PATH", PATH).envs(&spec.env);
        outer.stdout(Stdio::null()).stderr(Stdio::piped());
        Self { spec, outer: Process::start(&mut outer), limit, user }
    }

    /// Process 1 of the container, as this host sees it.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(child_of(self.outer.pid(), "etcdproxy").try_into().unwrap())
    }

    /// Runs a command in the container, as the kubelet does for a probe. Returns its exit code and what it wrote.
    pub(crate) fn run(&self, words: &[String]) -> (i32, String) {
        let script = format!(
            "{}\nexec nsenter --target {} --mount --pid --root --wd --setuid {u} --setgid {u} \"$@\"\n",
            join(self.limit.as_ref()),
            self.pid(),
            u = self.user
        );
        let mut command: Command = command("sh".as_ref(), ["-c", &script, "sh"]);
        let (code, stdout, stderr) = finish(command.args(words).env_clear().env("PATH", PATH).envs(&self.spec.env));
        (code, stdout + &stderr)
    }

    /// Sends SIGTERM, as the kubelet does.
    pub(crate) fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end: the exit code, and what it has logged.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let code = self.outer.wait().code();
        (code, self.outer.stderr_text())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.outer.is_running()
    }

    /// Its limit of memory, where this host lets us make one.
    pub(crate) fn limit(&self) -> Option<&Group> {
        self.limit.as_ref()
    }
}

impl Drop for Container<'_> {
    /// Ends the container if its test has failed. `unshare` cannot: its child has changed its user, which cancels
    /// `--kill-child` (`PR_SET_PDEATHSIG`, prctl(2)).
    fn drop(&mut self) {
        let pid = self.outer.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
    }
}
