//! `etcdproxy manifest`: valid by the platforms' own schemas, without secrets, and true: what it says is really run.
//! `tests/cmd/manifest.trycmd` has the whole text.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::pki::{Authority, Pair, write};
use crate::support::{etcdproxy, fails_with, finish, path_from_test_script, succeeds, unique_host};

fn kubernetes(args: &[&str]) -> Command {
    let mut command = etcdproxy(["manifest", "kubernetes"]);
    command.args(args);
    command
}

/// The documents of a YAML stream.
fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|err| panic!("{err}\n{yaml}"))
}

/// The values of `--cacert`, `--cert` and `--key` for a client of this name, written into `dir`.
fn certificates(dir: &Path, authority: &Authority, common_name: Option<&str>) -> (Pair, Vec<String>) {
    let pair = authority.client(common_name);
    let [cert, key] = pair.write(dir, "app");
    let ca = write(dir, "ca.pem", &authority.pem);
    let flags = [("--cacert", ca), ("--cert", cert), ("--key", key)];
    (pair, flags.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect())
}

/// Manifests with everything that changes their form.
fn variants(dir: &Path) -> Vec<String> {
    let authority = Authority::new("ca");
    let (_, flags) = certificates(dir, &authority, Some("app"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let password = write(dir, "password", "pa55'\"\\\n").display().to_string();
    let plain = ["--endpoints", "10.0.0.1:2379"];
    let all = ["--metrics-addr", "[::]:9090", "--namespace", "a: $(HOME) # \"@ENV@\"", "--memory", "64"];
    let login = ["--username", "größe\u{1}", "--password-file", &password, "--with-secret", "--name", "my-app"];
    [
        kubernetes(&plain),
        kubernetes(&[&plain[..], &flags[..], &all[..]].concat()),
        kubernetes(&[&plain[..], &flags[..], &["--with-secret"]].concat()),
        kubernetes(&[&plain[..], &login[..]].concat()),
        kubernetes(&["--secret", "my.etcd", "--drain", "40s", "--image", "h:1/a@sha256:0"]),
    ]
    .map(|mut command| finish(&mut command).1)
    .into()
}

#[test]
fn odd_values_arrive_as_they_are_and_secrets_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let [_, all, with_secret, login, secret] = variants(dir.path()).try_into().unwrap();
    let env = |deployment: &Value, name: &str| {
        let container = &deployment["spec"]["template"]["spec"]["initContainers"][0];
        let variable = container["env"].as_array().unwrap().iter().find(|variable| variable["name"] == name).cloned();
        variable.unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert!(!all.contains("PRIVATE KEY"), "{all}");
    let [deployment] = documents(&all).try_into().unwrap();
    assert_eq!(env(&deployment, "ETCDPROXY_NAMESPACE"), "a: $$(HOME) # \"@ENV@\"");
    assert_eq!(env(&deployment, "ETCDPROXY_METRICS_ADDR"), "[$(POD_IP)]:9090");

    let [secrets, _] = documents(&with_secret).try_into().unwrap();
    let key = fs::read_to_string(dir.path().join("app.key")).unwrap();
    assert_eq!(secrets["stringData"]["tls.key"], key.as_str());

    let [secrets, deployment] = documents(&login).try_into().unwrap();
    assert_eq!(secrets["metadata"]["name"], "my-app-etcd");
    assert_eq!(secrets["stringData"]["password"], "pa55'\"\\");
    assert_eq!(env(&deployment, "ETCDPROXY_USERNAME"), "größe\u{1}");

    let [deployment] = documents(&secret).try_into().unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 60);
}

#[test]
fn a_secret_of_the_environment_is_never_printed() {
    let mut command = kubernetes(&["--endpoints", "h:1", "--username", "app"]);
    let text = succeeds(command.env("ETCDPROXY_PASSWORD", "pa55w0rd"));
    assert!(text.contains("\n#     --from-file=password=<(printf %s \"$ETCDPROXY_PASSWORD\")\n"), "{text}");
    assert!(!text.contains("pa55w0rd"), "{text}");
    let mut command = etcdproxy(["manifest", "compose", "--endpoints", "h:1", "--username", "app"]);
    let text = succeeds(command.env("ETCDPROXY_PASSWORD", "pa55w0rd"));
    assert!(text.contains("\n    environment: ETCDPROXY_PASSWORD\n") && !text.contains("pa55w0rd"), "{text}");
}

#[test]
fn what_the_comment_says_creates_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (_, flags) = certificates(dir.path(), &Authority::new("ca"), None);
    let text = succeeds(kubernetes(&["--endpoints", "h:1", "--name", "x"]).args(flags));
    let command: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    // A kubectl that only shows its arguments.
    let script = format!("kubectl() {{ printf '%s\\n' \"$@\"; }}\n{}", command.join("\n"));
    let shown = succeeds(&mut crate::support::command("bash".as_ref(), ["-c", &script]));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let expected = [
        "create".to_owned(),
        "secret".to_owned(),
        "generic".to_owned(),
        "x-etcd".to_owned(),
        format!("--from-file=ca.crt={}", path("ca.pem")),
        format!("--from-file=tls.crt={}", path("app.crt")),
        format!("--from-file=tls.key={}", path("app.key")),
    ];
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn bad_input_gets_one_line() {
    for (code, args, line) in [
        (78, &["kubernetes"][..], "endpoints: none are set"),
        (2, &["kubernetes", "--name", "A"], "--name: invalid name \"A\": expected at most 63 small letters"),
        (2, &["kubernetes", "--secret", "a_b"], "--secret: invalid name \"a_b\": expected small letters"),
        (
            2,
            &["compose", "--endpoints", "h:1", "--image", "a b"],
            "--image: invalid name \"a b\": expected the name of",
        ),
        (2, &["compose", "--secret", "a"], "--secret: manifest compose does not have it: remove it"),
        (2, &["kubernetes", "--user"], "--user: manifest kubernetes does not have it: remove it"),
        (
            2,
            &["systemd", "--endpoints", "h:1"],
            "--endpoints: manifest systemd does not have it: remove it (the settings",
        ),
        (78, &["kubernetes", "--endpoints", "h:1", "--listen-addr", "unix:/s"], "--listen-addr: a Unix socket needs"),
        (69, &["kubernetes", "--endpoints", "h:1", "--cacert", "/no/ca"], "--cacert: /no/ca does not exist: create it"),
    ] {
        let found = fails_with(code, etcdproxy(["manifest"]).args(args));
        assert!(found.starts_with(&format!("etcdproxy: error: {line}")), "{args:?}: {found}");
    }
}

#[test]
fn the_systemd_unit_is_the_one_that_install_writes() {
    let home = tempfile::tempdir().unwrap();
    let unit = |settings: &str| {
        let config = home.path().join(".config/etcdproxy");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("etcdproxy.env"), settings).unwrap();
        let text = succeeds(etcdproxy(["manifest", "systemd", "--user"]).env("HOME", home.path()));
        succeeds(etcdproxy(["install", "--user", "--systemd"]).env("HOME", home.path()));
        let installed = fs::read_to_string(home.path().join(".config/systemd/user/etcdproxy.service")).unwrap();
        assert_eq!(text, installed);
        text
    };
    assert!(unit("ETCDPROXY_ENDPOINTS=10.0.0.1:2379\n").contains("\nRestrictAddressFamilies=AF_UNIX AF_INET\n"));
}

#[test]
#[ignore = "needs validators: run ./scripts/test.sh"]
fn the_published_schemas_accept_every_form() {
    let validators = path_from_test_script("ETCDPROXY_TEST_MANIFEST_VALIDATORS");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("manifest.yaml");
    let validate = |platform: &str, text: &str| {
        fs::write(&file, text).unwrap();
        let mut python = Command::new("python3");
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/validate_manifest.py")).arg(platform).arg(&file);
        finish(python.env("PYTHONPATH", &validators))
    };
    let accepts = |platform: &str, text: &str| {
        let (code, stdout, stderr) = validate(platform, text);
        assert_eq!(code, 0, "{platform}: {stdout}{stderr}{text}");
    };
    for text in variants(dir.path()) {
        accepts("kubernetes", &text);
        let (code, stdout, stderr) = validate("kubernetes", &text.replace("readOnlyRootFilesystem", "readOnly"));
        assert_eq!((code, stdout.is_empty()), (1, false), "{stderr}");
    }
    let page = include_str!("../../docs/kubernetes.md");
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for text in examples {
        accepts("kubernetes", text);
    }
    let (_, flags) = certificates(dir.path(), &Authority::new("ca"), Some("app"));
    let mut compose =
        etcdproxy(["manifest", "compose", "--endpoints", "10.0.0.1:2379", "--metrics-addr", "0.0.0.0:9090"]);
    let plain = succeeds(&mut etcdproxy(["manifest", "compose", "--endpoints", "10.0.0.1:2379"]));
    for text in [plain, finish(compose.args(flags)).1] {
        accepts("compose", &text);
        let (code, stdout, stderr) = validate("compose", &text.replace("read_only", "readonly"));
        assert_eq!((code, stdout.is_empty()), (1, false), "{stderr}");
    }
}

mod needs_root {
    use etcd_client::Client;

    use super::*;
    use crate::cgroup::Group;
    use crate::container::{Container, Spec, image};
    use crate::load;
    use crate::support::{Cluster, Tls, eventually, free_addr, http};

    /// The entries of the Secret, as Kubernetes mounts them.
    fn mounted(secret: &Value) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for (name, text) in secret["stringData"].as_object().unwrap() {
            fs::write(dir.path().join(name), text.as_str().unwrap()).unwrap();
        }
        dir
    }

    async fn put_and_get(addr: &str) -> Client {
        let client = load::connect(addr).await.unwrap();
        client.kv_client().put("key", "value", None).await.unwrap();
        assert_eq!(client.kv_client().get("key", None).await.unwrap().kvs()[0].value(), b"value");
        client
    }

    /// A container with etcd's own proxy: numeric user without a name, metrics on the pod's address.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs root: it runs a container"]
    async fn the_pod_with_etcds_proxy_serves_and_ends_after_its_application() {
        let host = unique_host();
        let mut cluster = Cluster::start(1);
        let (addr, metrics) = (free_addr(&host), free_addr(&host));
        let metrics_port = metrics.rsplit_once(':').unwrap().1;
        let args = [
            "--drain",
            "60s",
            "--listen-addr",
            &addr,
            "--metrics-addr",
            &format!("0.0.0.0:{metrics_port}"),
            "--mode",
            "grpc-proxy",
        ];
        let text = succeeds(kubernetes(&["--endpoints", &cluster.endpoints()]).args(args));
        let [deployment] = documents(&text).try_into().unwrap();
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(annotations["prometheus.io/port"], metrics_port);

        let image = image();
        let spec = Spec::of(&deployment, &host);
        let mut container = Container::start(&spec, image.path(), None, 65532);
        eventually("the startup probe succeeds", || container.run(&spec.probe("startupProbe")).0 == 0);
        let client = put_and_get(&addr).await;
        let is_up = || http(&metrics, "GET", "/metrics").contains("\netcdproxy_etcd_up 1\n");
        eventually("the launcher has seen that etcd listens", is_up);

        // A dead cluster fails no liveness probe.
        cluster.kill_member(0);
        assert_eq!(container.run(&spec.probe("startupProbe")).0, 69);
        assert_eq!(container.run(&spec.probe("livenessProbe")), (0, String::new()));
        assert!(container.is_running());
        cluster.start_member(0);
        cluster.wait_member(0);
        eventually("the cluster answers again", || container.run(&spec.probe("startupProbe")).0 == 0);
        assert_eq!(container.limit().and_then(Group::kills).unwrap_or_default(), 0);
        if let Some(peak) = container.limit().and_then(Group::peak) {
            println!("peak memory with etcd's proxy: {} MB of {} MiB", peak / 1_000_000, spec.memory);
        }

        // The application ends first, and then the proxy ends at once: its whole drain would take longer than `wait` waits.
        drop(client);
        ends_with_0(container);
    }

    fn ends_with_0(container: Container<'_>) {
        container.terminate();
        let (code, log) = container.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("still connected"), "{log}");
    }

    /// A container with native and a Secret, as a user that the platform has chosen, in 32 MiB.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs root: it runs a container"]
    async fn the_pod_with_native_serves_until_a_client_that_stays_ends() {
        let host = unique_host();
        let authority = Authority::new("ca");
        let tls = Tls { server: authority.server(&[&host], 365), client_ca: Some(authority.pem.clone()) };
        let cluster = Cluster::start_on(&host, 1, Some(tls));
        let dir = tempfile::tempdir().unwrap();
        let (_, flags) = certificates(dir.path(), &authority, Some("app"));
        let addr = free_addr(&host);
        let mut command = kubernetes(&["--endpoints", &cluster.endpoints(), "--listen-addr", &addr, "--with-secret"]);
        command.args(["--drain", "60s"]);
        let (_, text, _) = finish(command.args(flags));
        let [secret, deployment] = documents(&text).try_into().unwrap();

        let (image, binding) = (image(), mounted(&secret));
        let spec = Spec::of(&deployment, &host);
        assert_eq!(spec.memory, 32);
        let mut container = Container::start(&spec, image.path(), Some(binding.path()), 1_000_660_000);
        eventually("the startup probe succeeds", || container.run(&spec.probe("startupProbe")).0 == 0);
        let client = put_and_get(&addr).await;
        assert_eq!(container.run(&spec.probe("livenessProbe")), (0, String::new()));
        assert_eq!(container.limit().and_then(Group::kills).unwrap_or_default(), 0);
        if let Some(peak) = container.limit().and_then(Group::peak) {
            println!("peak memory with native: {} MB of {} MiB", peak / 1_000_000, spec.memory);
        }

        // SIGTERM comes while the application still uses its connection.
        container.terminate();
        for n in 0..20 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            client.kv_client().put("key", n.to_string(), None).await.unwrap();
        }
        assert!(container.is_running());
        drop(client);
        let (code, log) = container.wait();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining for 1m at most") && !log.contains("still connected"), "{log}");
    }
}
