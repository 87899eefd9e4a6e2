//! The Cloud Native Buildpack, on a lifecycle of the tests' own, with a real etcd behind the image.

mod lifecycle;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::lchown as chown;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use etcd_client::Client;
use nix::sys::signal::Signal;

use crate::support::{
    Cluster, Process, as_user, child_of, command, eventually, fails_with, finish, is_alive, is_ready, names, sha256,
    unique_addr, wait_ready,
};
use lifecycle::Lifecycle;

const ENDPOINTS: (&str, &str) = ("ETCDPROXY_ENDPOINTS", "h:2379");

#[test]
fn detect_passes_where_there_is_a_reason() {
    let lifecycle = Lifecycle::new();
    let plan = "[[provides]]\nname = \"etcdproxy\"\n\n[[requires]]\nname = \"etcdproxy\"\n";
    let services = r#"{"user-provided":[{"name":"my-etcd","credentials":{"uri":"h:1"}}]}"#;
    let root = lifecycle.path("elsewhere");
    let binding = |dir: &Path| {
        fs::create_dir_all(dir.join("store")).unwrap();
        fs::write(dir.join("store/type"), "etcd").unwrap();
        fs::write(dir.join("store/endpoints"), "h:1").unwrap();
    };
    binding(&root);
    for (vars, why) in [
        (&[ENDPOINTS][..], "ETCDPROXY_ENDPOINTS is set"),
        (&[("ETCDPROXY_DISCOVERY_SRV", "example.org")], "ETCDPROXY_DISCOVERY_SRV is set"),
        (&[("BP_ETCDPROXY", "true")], "BP_ETCDPROXY is true"),
        (&[("BP_ETCDPROXY_SIDECAR", "true")], "BP_ETCDPROXY_SIDECAR is true"),
        (&[("VCAP_SERVICES", services)], "the service my-etcd is bound"),
        (&[("SERVICE_BINDING_ROOT", root.to_str().unwrap())], "the service store is bound"),
    ] {
        let found = lifecycle.detect(vars);
        assert_eq!((found.code, found.output), (0, format!("Etcdproxy Buildpack: {why}.\n")), "{vars:?}");
        assert_eq!(found.plan, plan);
        // A lifecycle that leaves the user's variables out of the environment still writes the files.
        let only_files = lifecycle.detect_with(vars, |script| {
            for (name, _) in vars {
                script.env_remove(name);
            }
        });
        assert_eq!((only_files.code, only_files.plan.as_str()), (0, plan), "{vars:?}");
    }
    binding(&lifecycle.path("platform/bindings"));
    assert_eq!(lifecycle.detect(&[]).output, "Etcdproxy Buildpack: the service store is bound.\n");
}

#[test]
fn detect_says_no_with_a_line_and_reports_mistakes_as_errors() {
    let lifecycle = Lifecycle::new();
    let no = "no etcd service is bound and ETCDPROXY_ENDPOINTS is not set. BP_ETCDPROXY=true adds etcd anyway";
    for (vars, why) in [
        (&[][..], no),
        (&[("BP_ETCDPROXY", "auto")], no),
        (&[("BP_ETCDPROXY", "false"), ENDPOINTS], "BP_ETCDPROXY is false"),
    ] {
        let found = lifecycle.detect(vars);
        let expected = (100, format!("Etcdproxy Buildpack: {why}.\n"), String::new());
        assert_eq!((found.code, found.output, found.plan), expected);
    }
    let found = lifecycle.detect(&[("BP_ETCDPROXY", "perhaps")]);
    let line = "etcdproxy: error: BP_ETCDPROXY: invalid value \"perhaps\": expected auto, true or false\n";
    assert_eq!((found.code, found.output.as_str()), (78, line));
    // The user's files cannot change what the lifecycle says.
    let found = lifecycle.detect(&[("BP_ETCDPROXY", "true"), ("CNB_BUILD_PLAN_PATH", "/no/such/file")]);
    assert_eq!(found.code, 0, "{}", found.output);
    // Cloud Foundry's classic lifecycle.
    let mut classic = command(&lifecycle.path("buildpack/bin/detect"), [lifecycle.path("app")]);
    assert_eq!(finish(classic.env("ETCDPROXY_ENDPOINTS", "h:1")), (1, String::new(), String::new()));
    let line = fails_with(1, &mut command(&lifecycle.path("buildpack/bin/build"), [] as [&str; 0]));
    assert!(line.ends_with("bin/build is for the lifecycle of Cloud Native Buildpacks"), "{line}");
}

#[test]
fn build_writes_the_layer_and_describes_it() {
    let lifecycle = Lifecycle::new();
    let descriptor = lifecycle.descriptor();
    assert_eq!(descriptor.buildpack.id.to_string(), "etcdproxy/etcdproxy");
    assert_eq!(descriptor.targets.len(), 1);
    let image =
        lifecycle.build(&[ENDPOINTS, ("BP_ETCDPROXY_MEMORY", "64"), ("BP_ETCDPROXY_SIDECAR_FOR", "web,worker")]);
    let lines: Vec<&str> = image.output.lines().collect();
    assert!(lines[0].starts_with("-----> Etcdproxy Buildpack version "), "{}", image.output);
    assert_eq!(lines[1], "-----> Supplying etcd");
    assert_eq!(lines[4], "       The proxy starts beside web, worker: ETCDPROXY_ENDPOINTS is set.");
    assert!(lines[5].contains("With ETCDPROXY_WAIT=30s, the application starts"), "{}", image.output);

    assert_eq!(names(&lifecycle.image("")), ["bin", "env.launch", "exec.d"]);
    assert_eq!(names(&lifecycle.image("bin")), ["etcd", "etcdproxy"]);
    assert_eq!(names(&lifecycle.image("exec.d")), ["web", "worker"], "directories only");
    for process_type in ["web", "worker"] {
        let dir = lifecycle.image("exec.d").join(process_type);
        assert_eq!(names(&dir), ["start-etcdproxy"]);
        assert_eq!(fs::read_link(dir.join("start-etcdproxy")).unwrap(), Path::new("../../bin/etcdproxy"));
    }
    let env = names(&lifecycle.image("env.launch"));
    assert_eq!(env, ["ETCDPROXY_DRAIN.default", "ETCDPROXY_MEMORY.default"]);
    assert_eq!(fs::read_to_string(lifecycle.image("env.launch/ETCDPROXY_MEMORY.default")).unwrap(), "64");
    let hash = sha256(&lifecycle.image("bin/etcd"));
    assert_eq!(image.metadata["programs"]["etcd"].as_str(), Some(hash.as_str()));
    assert!(fs::metadata(lifecycle.image("bin/etcdproxy")).unwrap().len() * 2 < lifecycle_size(&lifecycle));

    let [process] = &image.launch.processes[..] else { panic!("{:?}", image.launch) };
    assert_eq!((process.r#type.to_string().as_str(), process.default), ("etcd-proxy", false));
    assert_eq!((&process.command[..], process.args.len()), (&["etcdproxy".to_owned(), "run".to_owned()][..], 0));
    let keys: Vec<&str> = image.launch.labels.iter().map(|label| label.key.as_str()).collect();
    assert_eq!(keys, ["io.github.etcdproxy.version", "io.github.etcdproxy.etcd-version"]);
}

fn lifecycle_size(lifecycle: &Lifecycle) -> u64 {
    fs::metadata(lifecycle.path("buildpack/etcdproxy")).unwrap().len()
}

#[test]
fn the_options_mean_the_same_as_on_cloud_foundry() {
    let lifecycle = Lifecycle::new();
    let image = lifecycle.build(&[
        ("BP_ETCDPROXY_MODE", "native"),
        ("BP_ETCDPROXY_SIDECAR", "false"),
        ("BP_ETCDPROXY_SIDECAR_NAME", "store"),
        ("BP_ETCDPROXY_SIDECARS", "x"),
        ("BP_DEBUG", "1"),
        ENDPOINTS,
    ]);
    assert!(image.output.contains("\n-----> Supplying mode native, which needs no etcd\n"), "{}", image.output);
    assert!(image.output.contains("\n       No proxy starts beside the application: BP_ETCDPROXY_SIDECAR is false.\n"));
    assert!(image.output.contains("\n       WARNING: BP_ETCDPROXY_SIDECARS is not a setting"), "{}", image.output);
    assert!(image.output.contains("/launch.toml ("), "{}", image.output);
    assert_eq!(names(&lifecycle.image("")), ["bin", "env.launch"]);
    assert_eq!(fs::read_link(lifecycle.image("bin/etcd")).unwrap(), Path::new("etcdproxy"));
    assert_eq!(image.launch.processes[0].r#type.to_string(), "store");
    assert_eq!(image.launch.labels.len(), 1);
    assert!(!image.metadata.contains_key("etcd_version"));
    let mode = fs::read_to_string(lifecycle.image("env.launch/ETCDPROXY_MODE.default")).unwrap();
    assert_eq!(mode, "native");

    lifecycle.build(&[ENDPOINTS, ("BP_ETCDPROXY_UNPACK", "launch")]);
    assert_eq!(fs::read_link(lifecycle.image("bin/etcd")).unwrap(), Path::new("etcdproxy"));
    assert_eq!(fs::metadata(lifecycle.image("bin/etcdproxy")).unwrap().len(), lifecycle_size(&lifecycle));

    for (name, value) in [("BP_ETCD_VERSION", "2.x"), ("BP_ETCDPROXY_UNPACK", "later")] {
        let (code, output) = lifecycle.run_build(&[ENDPOINTS, (name, value)]);
        assert!(code == 78 && output.starts_with(&format!("etcdproxy: error: {name}: ")), "{code} {output}");
    }
}

#[test]
fn the_layer_is_reused_while_nothing_changes() {
    let lifecycle = Lifecycle::new();
    let first = lifecycle.build(&[ENDPOINTS]);
    assert!(!first.is_reused);
    lifecycle.restore(&first);
    let second = lifecycle.build(&[("ETCDPROXY_ENDPOINTS", "another:2379")]);
    assert!(second.is_reused && second.metadata == first.metadata);
    assert!(second.output.contains("\n-----> Reusing the layer of the last build"), "{}", second.output);
    assert_eq!(second.launch.processes, first.launch.processes);

    lifecycle.restore(&second);
    let changed = lifecycle.build(&[ENDPOINTS, ("BP_ETCDPROXY_MODE", "native")]);
    assert!(!changed.is_reused && changed.metadata != first.metadata);
    assert_eq!(fs::read_link(lifecycle.image("bin/etcd")).unwrap(), Path::new("etcdproxy"));

    // Where the files are still there, they stay, unless some are missing.
    let (code, output) = lifecycle.run_build(&[ENDPOINTS]);
    assert_eq!(code, 0, "{output}");
    let mark = lifecycle.built("mark");
    fs::write(&mark, "").unwrap();
    let (_, output) = lifecycle.run_build(&[ENDPOINTS]);
    assert!(mark.exists() && output.contains("Reusing"), "{output}");
    fs::remove_file(lifecycle.built("bin/etcd")).unwrap();
    let (_, output) = lifecycle.run_build(&[ENDPOINTS]);
    assert!(!mark.exists() && lifecycle.built("bin/etcd").exists(), "{output}");
}

/// An application in its image, beside which a proxy may run.
struct Application {
    process: Process,
    stdout: BufReader<ChildStdout>,
    log: BufReader<ChildStderr>,
    /// What the log has said so far.
    said: String,
}

impl Application {
    fn start(launch: &mut Command) -> Self {
        let mut process = Process::start(launch.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (stdout, log) = (BufReader::new(process.stdout()), BufReader::new(process.stderr()));
        Self { process, stdout, log, said: String::new() }
    }

    /// The next line of its standard output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// The pid of the proxy beside it, once it listens.
    fn proxy(&mut self) -> u32 {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "no proxy listens: {}", self.said);
            self.said += &line;
            let Some((who, rest)) = line.split_once(" (pid ").filter(|_| line.contains(" listens on ")) else {
                continue;
            };
            let pid = rest.split_once(')').unwrap().0.parse().unwrap();
            let is_etcd = who.ends_with("etcd's proxy");
            return if is_etcd { parent(pid) } else { pid };
        }
    }

    /// What the log says, up to the end of all who write to it.
    fn log(mut self) -> String {
        self.log.read_to_string(&mut self.said).unwrap();
        self.said
    }
}

fn stat(pid: u32) -> procfs::process::Stat {
    procfs::process::Process::new(pid.try_into().unwrap()).unwrap().stat().unwrap()
}

fn parent(pid: u32) -> u32 {
    stat(pid).ppid.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_runs_beside_the_application_and_ends_with_it() {
    let lifecycle = Lifecycle::new();
    lifecycle.build(&[ENDPOINTS]);
    let cluster = Cluster::start(1);
    for (mode, drain) in [("grpc-proxy", "off"), ("native", "5s")] {
        let addr = unique_addr();
        let mut launch = lifecycle.launch("web", &["sh", "-c", "echo started; exec sleep 1000"]);
        launch.env("ETCDPROXY_ENDPOINTS", cluster.endpoints()).env("ETCDPROXY_LISTEN_ADDR", &addr);
        launch.env("ETCDPROXY_MODE", mode).env("ETCDPROXY_WAIT", "30s").env("ETCDPROXY_DRAIN", drain);
        let mut application = Application::start(&mut launch);
        assert_eq!(application.line(), "started\n");
        // It has waited, so the first call gets its answer.
        let mut client = Client::connect([addr.as_str()], None).await.unwrap();
        client.put(mode, "value", None).await.unwrap();
        assert_eq!(client.get(mode, None).await.unwrap().kvs()[0].value(), b"value");

        let proxy = application.proxy();
        assert_eq!(stat(proxy).session, i32::try_from(proxy).unwrap(), "a session of its own");
        // Only root sees it, because the proxy hides its memory.
        if let Ok(stdin) = fs::read_link(format!("/proc/{proxy}/fd/0")) {
            assert_eq!(stdin, Path::new("/dev/null"));
        }
        // The application itself, since the launcher became it.
        application.process.signal(Signal::SIGTERM);
        application.process.wait();
        drop(client);
        eventually("the proxy has ended", || !is_alive(proxy) && !is_ready(&addr));
        let log = application.log();
        assert!(log.lines().all(|line| line.starts_with("etcdproxy: ")), "{log}");
        assert!(log.contains("etcdproxy: the application has ended\n"), "{log}");
    }
}

#[test]
fn the_application_starts_even_if_the_proxy_cannot() {
    let lifecycle = Lifecycle::new();
    lifecycle.build(&[("BP_ETCDPROXY_SIDECAR", "true"), ("BP_ETCDPROXY_MODE", "native")]);
    let addr = unique_addr();
    let run = |vars: &[(&str, &str)]| {
        let mut launch = lifecycle.launch("web", &["sh", "-c", "exit 7"]);
        let (code, _, log) = finish(launch.env("ETCDPROXY_LISTEN_ADDR", &addr).envs(vars.iter().copied()));
        assert_eq!(code, 7, "{log}");
        log
    };
    let log = run(&[("ETCDPROXY_WAIT", "30s")]);
    let expected = "etcdproxy: error: endpoints: none are set and no etcd service is bound: ";
    assert!(log.starts_with(expected), "{log}");
    let ended = "etcdproxy: error: the proxy has ended (exit code 78): the application starts anyway\n";
    assert!(log.ends_with(ended), "{log}");

    let closed = unique_addr();
    let log = run(&[("ETCDPROXY_ENDPOINTS", &closed), ("ETCDPROXY_WAIT", "300ms")]);
    assert!(log.contains(&format!("etcdproxy: error: {addr} is not ready after 300ms: ")), "{log}");
    assert!(log.contains(": the application starts anyway\n"), "{log}");
    let log = run(&[("ETCDPROXY_ENDPOINTS", &closed), ("ETCDPROXY_WAIT", "soon")]);
    let problem = "ETCDPROXY_WAIT: invalid duration \"soon\": expected a number with a unit, as in 8s";
    assert!(log.contains(&format!("etcdproxy: error: {problem}: the application starts anyway\n")), "{log}");
}

#[test]
fn only_the_process_types_of_the_user_get_a_proxy() {
    let lifecycle = Lifecycle::new();
    lifecycle.build(&[ENDPOINTS, ("BP_ETCDPROXY_MODE", "native")]);
    for process_type in ["", "task"] {
        let addr = unique_addr();
        let mut launch = lifecycle.launch(process_type, &["etcdproxy", "health"]);
        let (code, _, log) = finish(launch.env("ETCDPROXY_LISTEN_ADDR", &addr).env("ETCDPROXY_WAIT", "30s"));
        let line = format!("etcdproxy: error: {addr} is not ready: nothing listens there\n");
        assert_eq!((code, log), (69, line), "{process_type}");
    }
    let script = command(&lifecycle.image("exec.d/web/start-etcdproxy"), [] as [&str; 0]);
    let mut without_descriptor = command("sh".as_ref(), ["-c", "exec 3>&-; exec \"$0\""]);
    let line = fails_with(1, without_descriptor.arg(script.get_program()));
    let problem = "descriptor 3 cannot be used: start-etcdproxy is for the launcher of Cloud Native Buildpacks: ";
    assert!(line.starts_with(&format!("etcdproxy: error: {problem}")), "{line}");
}

#[test]
fn the_application_gets_the_address_for_etcdctl_only_where_its_default_is_wrong() {
    let lifecycle = Lifecycle::new();
    lifecycle.build(&[ENDPOINTS, ("BP_ETCDPROXY_MODE", "native")]);
    for (listen_addr, own, expected) in [
        (None, None, "unset"),
        (Some("localhost:2379"), None, "unset"),
        (Some("127.0.0.1:2380"), None, "127.0.0.1:2380"),
        (Some("unix:///tmp/etcd.sock"), None, "unix:///tmp/etcd.sock"),
        (Some("127.0.0.1:2380"), Some("10.0.0.1:2379"), "10.0.0.1:2379"),
        (Some("127.0.0.1:2380"), Some(""), ""),
    ] {
        // The proxy gives up at once: it is not about to listen.
        let mut launch = lifecycle.launch("web", &["sh", "-c", "echo \"${ETCDCTL_ENDPOINTS-unset}\""]);
        launch.env("ETCDPROXY_PREFLIGHT", "never");
        for (name, value) in [("ETCDPROXY_LISTEN_ADDR", listen_addr), ("ETCDCTL_ENDPOINTS", own)] {
            value.map(|value| launch.env(name, value));
        }
        let (code, stdout, log) = finish(&mut launch);
        assert_eq!((code, stdout), (0, format!("{expected}\n")), "{listen_addr:?} {own:?} {log}");
    }
}

#[test]
fn the_process_type_and_exec_run_the_proxy_too() {
    let lifecycle = Lifecycle::new();
    let image = lifecycle.build(&[ENDPOINTS]);
    let cluster = Cluster::start(1);
    let addr = unique_addr();
    let process = &image.launch.processes[0];
    let words: Vec<&str> = process.command.iter().chain(&process.args).map(String::as_str).collect();
    let mut launch = lifecycle.launch(&process.r#type.to_string(), &words);
    launch.env("ETCDPROXY_ENDPOINTS", cluster.endpoints()).env("ETCDPROXY_LISTEN_ADDR", &addr);
    let mut proxy = Process::start(launch.stderr(Stdio::null()));
    wait_ready(&addr);
    // It supervises etcd, so it drains.
    child_of(proxy.pid(), "etcd");
    assert_eq!(proxy.terminate().code(), Some(0));

    let mut exec = lifecycle.launch("", &["etcdproxy", "exec", "--", "sh", "-c", "etcdproxy health && exit 7"]);
    exec.env("ETCDPROXY_ENDPOINTS", cluster.endpoints()).env("ETCDPROXY_LISTEN_ADDR", &addr);
    let (code, stdout, log) = finish(&mut exec);
    assert_eq!((code, stdout), (7, format!("{addr} is ready\n")), "{log}");
}

mod needs_root {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Cluster, Command, ENDPOINTS, Lifecycle, Path, as_user, chown, finish, fs, unique_addr};

    /// As on many builders: one user builds the layers, and another one, who cannot change them, runs the image.
    #[test]
    #[ignore = "needs root: run ./scripts/test.sh as root"]
    fn another_user_than_the_builder_runs_the_image() {
        let lifecycle = Lifecycle::new();
        own(&lifecycle.path("layers"), 2001);
        let build = lifecycle.build_script(&[ENDPOINTS]);
        let (code, output, log) = finish(&mut as_other(2001, &build));
        assert_eq!((code, log.as_str()), (0, ""), "{output}");
        lifecycle.export(output);
        own(&lifecycle.path("image"), 2001);
        let cluster = Cluster::start(1);
        for (mode, uid) in [("grpc-proxy", 2001), ("grpc-proxy", 2002), ("native", 2002)] {
            let addr = unique_addr();
            let launch = lifecycle.launch("web", &["etcdproxy", "health"]);
            let mut launch = as_other(uid, &launch);
            launch.env("ETCDPROXY_ENDPOINTS", cluster.endpoints()).env("ETCDPROXY_LISTEN_ADDR", &addr);
            launch.env("ETCDPROXY_MODE", mode).env("ETCDPROXY_WAIT", "30s").env("HOME", "/nonexistent");
            let (code, stdout, log) = finish(&mut launch);
            assert_eq!((code, stdout), (0, format!("{addr} is ready\n")), "{mode} {uid} {log}");
            assert!(!log.contains("runs from memory"), "{log}");
        }
    }

    /// The same command, run by a user.
    fn as_other(uid: u32, command: &Command) -> Command {
        // The first Python on PATH may be in root's home.
        let is_python = command.get_program() == "python3";
        let program = if is_python { "/usr/bin/python3".as_ref() } else { Path::new(command.get_program()) };
        let mut other = as_user(uid, program);
        other
            .args(command.get_args())
            .env_remove("ETCDPROXY_UNPACK_DIR")
            .current_dir(command.get_current_dir().unwrap());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other
    }

    /// Gives a directory to a user, who can write to it; nobody else can.
    fn own(path: &Path, uid: u32) {
        chown(path, Some(uid), Some(uid)).unwrap();
        let meta = fs::symlink_metadata(path).unwrap();
        if meta.is_dir() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            for entry in fs::read_dir(path).unwrap() {
                own(&entry.unwrap().path(), uid);
            }
        }
    }
}
