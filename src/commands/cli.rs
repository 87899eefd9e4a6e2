//! The command line: clap types only.
//!
//! A leaf: `build.rs` includes this file as well, with the leaves of `settings` that it uses.
#![allow(clippy::doc_markdown, reason = "the comments are help texts")]
#![allow(clippy::struct_field_names, reason = "fields are named as their flags")]

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint, value_parser};

use crate::settings::{Kind, Setting, duration};

/// One binary with etcd inside: run its gRPC proxy next to an application, unpack it, try it out.
#[derive(Debug, Parser)]
#[command(name = "etcdproxy", version, max_term_width = 100)]
#[command(after_help = "\
The application connects to 127.0.0.1:2379. A link to this binary named etcd, etcdctl or etcdutl runs that program.

Exit codes: 0 success, 1 failure, 2 usage, 69 cluster unreachable, 73 cannot write, 77 no permission or noexec,
78 a setting that cannot work, 127 no such command. exec, wait and dev return the code of the command they run.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Exec(Exec),
    Wait(Wait),
    Health(Health),
    Top(Top),
    Doctor(Doctor),
    Dev(Dev),
    Unpack(Unpack),
    Verify(Verify),
    List(List),
    Install(Install),
    Uninstall(Uninstall),
    Rollback(Rollback),
    Prune(Prune),
    Package(Package),
    Manifest(Manifest),
    Completions(Completions),
    Man(Man),
    /// Print a dashboard for Grafana
    Dashboard,
    /// Print alerts for Prometheus
    Alerts,
    Sbom(Sbom),
    /// Print the licence texts of everything in this binary
    Licenses,
    /// Print the versions of etcdproxy and of the etcd inside it
    Version,
    /// What the buildpack's bin/detect calls
    #[command(hide = true)]
    Detect {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _args: Vec<OsString>,
    },
    /// What the buildpack's bin/supply calls
    #[command(hide = true)]
    Supply {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// What the buildpack's bin/build calls
    #[command(hide = true)]
    Build {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _args: Vec<OsString>,
    },
    /// What the buildpack's bin/compile calls
    #[command(hide = true)]
    Compile {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Connect 127.0.0.1:2379 to the cluster, with etcd's gRPC proxy (exec, same pid) or with the proxy in this program
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy run --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379
  ETCDPROXY_ENDPOINTS=10.0.0.1:2379 etcdproxy run --dry-run
  etcdproxy run --endpoints 10.0.0.1:2379 --drain 8s
  etcdproxy run --endpoints 10.0.0.1:2379 -- --max-send-bytes=4194304
  etcdproxy run --endpoints 10.0.0.1:2379 --username app --password-file app.password

A flag overrides the environment, and the environment overrides the service binding (SERVICE_BINDING_ROOT,
VCAP_SERVICES_FILE_PATH or VCAP_SERVICES). ETCDPROXY_CACERT, _CERT and _KEY can also be PEM text, or PEM in base64.

Only in the environment: ETCDPROXY_PASSWORD is the password of --username, ETCDPROXY_LOGIN_FROM_BINDING=0 does not log in
as the user of the bound service, ETCDPROXY_NAMESPACE_FROM_BINDING=1 uses the key prefix of the bound service,
ETCDPROXY_USE_HTTP_PROXY=1 lets etcd's grpc-proxy use HTTPS_PROXY and similar variables, ETCDPROXY_UNPACK_DIR is the
directory to unpack etcd into.")]
pub(crate) struct Run {
    #[command(flatten)]
    pub settings: Flags<Self>,
    /// Print what would be done, and the command, instead of doing it
    #[arg(long)]
    pub dry_run: bool,
    /// The process to end with, which start-etcdproxy hands on
    #[arg(long, hide = true, value_name = "PROCESS")]
    pub beside: Option<String>,
    /// Passed to etcd unchanged
    #[arg(last = true, value_name = "ETCD FLAGS")]
    pub extra: Vec<OsString>,
}

/// Run a command with the proxy beside it: start the proxy, wait for the cluster, run the command, stop the proxy
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy exec -- bundle exec rake db:migrate
  etcdproxy exec --endpoints 10.0.0.1:2379 --timeout 10s -- my-task

Returns the exit code of the command. The command receives the signals sent to etcdproxy, and finds the proxy's
address in ETCDPROXY_LISTEN_ADDR and, if it is not etcdctl's default 127.0.0.1:2379, in ETCDCTL_ENDPOINTS. If a proxy
already serves that address, exec uses it and does not stop it, and needs no endpoints.")]
pub(crate) struct Exec {
    #[command(flatten)]
    pub settings: Flags<Self>,
    /// How long to wait for the cluster to answer, for example 500ms, 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Command to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Wait until the cluster answers through the proxy, then run a command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy wait
  etcdproxy wait --timeout 10s -- bundle exec rackup")]
pub(crate) struct Wait {
    #[command(flatten)]
    pub settings: Flags<Self>,
    /// How long to wait, for example 500ms, 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Wait only until the port is open
    #[arg(long)]
    pub listening: bool,
    /// Command to exec afterwards (same pid)
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Check whether the cluster answers through the proxy: exit with 0 if it does, with 69 if not
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy health
  etcdproxy health --json")]
pub(crate) struct Health {
    #[command(flatten)]
    pub settings: Flags<Self>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Say what is wrong: with the settings, the members, the proxy and this host
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy doctor
  etcdproxy doctor --endpoints https://10.0.0.1:2379 --cacert ca.pem
  etcdproxy doctor --output json > ticket.json

It changes nothing, and shows no secrets. The exit code is 1 if something is a fault.")]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub settings: Flags<Run>,
    /// How to print the findings
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// How to print what a command reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Show the state of a running proxy in the terminal: members, calls, watches, certificates and the log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy top
  etcdproxy top --metrics-addr 10.0.0.5:9090
  etcdproxy top --once

It shows what the proxy's web page shows, which is at http://127.0.0.1:2379/ with native. If there is a metrics address, top asks
there: only that port has the page when the proxy is a supervised etcd. Where stdout is no terminal, top prints one line a second.
NO_COLOR=1 shows no colours.")]
pub(crate) struct Top {
    #[command(flatten)]
    pub settings: Flags<Self>,
    /// Print everything once, with the settings, and exit
    #[arg(long)]
    pub once: bool,
}

/// Run a cluster of 1 or 3 etcd members, and the proxy, on loopback
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy dev
  etcdproxy dev --nodes 3 --listen-addr 127.0.0.1:2379
  etcdproxy dev -- sh -c 'my-tests --etcd $ETCDPROXY_LISTEN_ADDR'

The command finds the proxy's address in ETCDPROXY_LISTEN_ADDR and, if it is not etcdctl's default 127.0.0.1:2379, in
ETCDCTL_ENDPOINTS, and the members' addresses in ETCDPROXY_ENDPOINTS. When it ends, or on Ctrl-C or SIGTERM, dev stops
the members and the proxy.")]
pub(crate) struct Dev {
    /// Number of members
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3"])]
    pub nodes: String,
    /// Directory to keep the members' data in [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The proxy's address [env: ETCDPROXY_LISTEN_ADDR] [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_addr: Option<OsString>,
    /// Command to run against the cluster; dev returns its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Write the etcd programs inside this binary into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy unpack ./bin
  etcdproxy unpack /opt/etcd/bin")]
pub(crate) struct Unpack {
    /// Directory to write to; created if it does not exist
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Check every byte of the etcd inside this binary, and of everything unpacked or installed from it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy verify
  etcdproxy verify ./bin
  etcdproxy verify --json")]
pub(crate) struct Verify {
    /// Check the programs in this directory, where `unpack` wrote them
    #[arg(value_name = "DIR", conflicts_with_all = ["prefix", "root", "user"])]
    pub dir: Option<PathBuf>,
    #[command(flatten)]
    pub location: Location,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Where an installation is.
#[derive(Debug, Default, Args)]
pub(crate) struct Location {
    /// Directory of the installed versions [default: /opt/etcdproxy; with --user: ~/.local/opt/etcdproxy]
    #[arg(long, value_name = "DIR")]
    pub prefix: Option<PathBuf>,
    /// Root directory of an image or chroot; all other paths are relative to it
    #[arg(long, value_name = "DIR", conflicts_with = "user")]
    pub root: Option<PathBuf>,
    /// Only for this user, below ~/.local and ~/.config
    #[arg(long)]
    pub user: bool,
}

/// Whether to do something, or only to show it.
#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// Only show what would be done, as text or json
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text",
        value_parser = ["text", "json"])]
    pub dry_run: Option<String>,
}

/// Install etcd and the proxy on this host, with a service; needs no network
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy install --dry-run
  etcdproxy install                      # then set ETCDPROXY_ENDPOINTS in /etc/etcdproxy/etcdproxy.env
  etcdproxy install --enable --start
  etcdproxy install --user
  etcdproxy install --root ./image --enable

If an install is interrupted, run it again to finish. To upgrade, run the install command of a newer etcdproxy.")]
#[allow(clippy::struct_excessive_bools, reason = "they are flags")]
pub(crate) struct Install {
    #[command(flatten)]
    pub location: Location,
    /// Directory for links to the programs [default: /usr/local/bin; with --user: ~/.local/bin]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Install a service for systemd [default: if the system has systemd]
    #[arg(long, overrides_with = "no_systemd")]
    pub systemd: bool,
    /// Install no service
    #[arg(long, conflicts_with_all = ["enable", "start"])]
    pub no_systemd: bool,
    /// Start the service at boot; with --user, at login
    #[arg(long)]
    pub enable: bool,
    /// Start the service now, or restart it
    #[arg(long, conflicts_with = "root")]
    pub start: bool,
    #[command(flatten)]
    pub dry_run: DryRun,
    /// Move away files that are in the way, and a receipt that is not valid
    #[arg(long)]
    pub force: bool,
}

/// Remove what was installed, and restore the files that were there before
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy uninstall --dry-run
  etcdproxy uninstall

Files that were changed after they were installed stay, and are listed.")]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub location: Location,
    /// Also remove files that were changed after they were installed, such as the service's settings
    #[arg(long)]
    pub purge: bool,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Go back to another installed version
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy list
  etcdproxy rollback
  etcdproxy rollback 0.1.0")]
pub(crate) struct Rollback {
    /// Name of the version, or the beginning of its name [default: the previous version]
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
    #[command(flatten)]
    pub location: Location,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Remove old versions, but never the current one or one that a process is running
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy prune --keep 2")]
pub(crate) struct Prune {
    /// How many versions to keep, including the current one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub keep: u16,
    #[command(flatten)]
    pub location: Location,
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// List the etcd programs in this binary, where they are unpacked, and the installed versions
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub location: Location,
}

/// Write this binary as a buildpack or a container image, offline
#[derive(Debug, Args)]
#[command(after_help = "\
Formats:
  zip   the buildpack for Cloud Foundry
  tgz   the Cloud Native Buildpack for Cloud Foundry
  cnb   the Cloud Native Buildpack for pack and kpack (a buildpackage)
  oci   a container image that runs the proxy (an OCI layout in a tar)

Examples:
  etcdproxy package
  etcdproxy package --stack cflinuxfs4 --output /tmp/etcdproxy.zip
  etcdproxy package --arch both --other ./etcdproxy-arm64
  cf create-buildpack etcdproxy_buildpack \"$(etcdproxy package)\" 99
  podman load --input \"$(etcdproxy package --format oci)\"")]
pub(crate) struct Package {
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "zip", value_parser = ["zip", "cnb", "tgz", "oci"])]
    pub format: String,
    /// Stack to restrict the zip to; without this, it works on all of them
    #[arg(long, value_name = "STACK")]
    pub stack: Option<String>,
    /// Architecture of the package [default: the one of this binary]
    #[arg(long, value_parser = ["amd64", "arm64", "both"])]
    pub arch: Option<String>,
    /// The etcdproxy for the other architecture
    #[arg(long, value_name = "FILE", requires = "arch")]
    pub other: Option<PathBuf>,
    /// Leave etcd out of the image, which then works in mode native only
    #[arg(long)]
    pub without_etcd: bool,
    /// Authorities (PEM) that the image trusts where no CA is set [default: none]
    #[arg(long, value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,
    /// File to write [default: a name with the version, such as etcdproxy_buildpack-cached-vVERSION.zip]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Print a manifest that runs the proxy beside an application: for Kubernetes, for compose, or a systemd unit
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy manifest kubernetes --endpoints 10.0.0.1:2379 --app-image my-app:1 | kubectl apply -f -
  etcdproxy manifest kubernetes --endpoints etcd.example.org:2379 --cacert ca.pem --cert app.crt --key app.key
  etcdproxy manifest kubernetes --secret my-etcd --mode native
  etcdproxy manifest compose --endpoints 10.0.0.1:2379 --app-image my-app:1 >compose.yaml
  etcdproxy manifest systemd

The settings, from flags and this environment, become variables of the container. Certificates, the key and the password
belong to a Secret, and a comment in the manifest says how to create it. systemd takes no settings: it prints the unit that
install would write, for the settings of the service.")]
pub(crate) struct Manifest {
    /// What runs the containers or the service
    #[arg(value_name = "PLATFORM", value_parser = ["kubernetes", "compose", "systemd"])]
    pub platform: String,
    /// Image of the proxy [default: localhost/etcdproxy:VERSION]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Image of the application [default: registry.example.org/app:1]
    #[arg(long, value_name = "IMAGE")]
    pub app_image: Option<String>,
    /// Name of the Deployment or of the compose project [default: app]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Kubernetes: the Secret to use, whose entries are those of a service binding; it can name the members, too
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
    /// Kubernetes: print the Secret, too, with the certificates, the key and the password
    #[arg(long)]
    pub with_secret: bool,
    /// systemd: the unit for this user's service manager
    #[arg(long)]
    pub user: bool,
    #[command(flatten)]
    pub settings: Flags<Self>,
}

/// Print the completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy completions bash >/etc/bash_completion.d/etcdproxy
  etcdproxy completions zsh >/usr/local/share/zsh/site-functions/_etcdproxy
  etcdproxy completions fish >~/.config/fish/completions/etcdproxy.fish")]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    pub shell: String,
}

/// Print the manual page, or write the manual pages of all commands into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy man | man -l -
  etcdproxy man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Directory to write to; created if it does not exist
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Print the bill of materials: every crate, etcd and its Go modules, with versions and hashes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy sbom > etcdproxy.cdx.json
  etcdproxy sbom --format spdx > etcdproxy.spdx.json

The document is JSON, in CycloneDX 1.6 or SPDX 2.3. It was made when this binary was built, so it never changes.")]
pub(crate) struct Sbom {
    /// Format of the document
    #[arg(long, value_name = "FORMAT", default_value = "cyclonedx", value_parser = ["cyclonedx", "spdx"])]
    pub format: String,
}

/// The flags of a verb that stand for settings, as text: `settings` checks them, because the environment and the
/// service binding can have the same settings.
#[derive(Debug)]
pub(crate) struct Flags<V>(pub Vec<(Setting, OsString)>, PhantomData<fn() -> V>);

/// A verb that takes some of the settings as flags.
pub(crate) trait Verb {
    /// Whether it takes the setting as a flag.
    const TAKES: fn(Setting) -> bool;
}

impl Verb for Run {
    const TAKES: fn(Setting) -> bool = |_| true;
}

impl Verb for Exec {
    const TAKES: fn(Setting) -> bool = |setting| setting != Setting::Drain;
}

impl Verb for Manifest {
    const TAKES: fn(Setting) -> bool = |setting| setting != Setting::Service;
}

impl Verb for Wait {
    const TAKES: fn(Setting) -> bool = |setting| setting == Setting::ListenAddr;
}

impl Verb for Top {
    const TAKES: fn(Setting) -> bool = |setting| matches!(setting, Setting::ListenAddr | Setting::MetricsAddr);
}

impl Verb for Health {
    const TAKES: fn(Setting) -> bool = Wait::TAKES;
}

/// The settings that a verb takes, with the names of their flags.
fn flags(takes: fn(Setting) -> bool) -> impl Iterator<Item = (Setting, &'static str)> {
    let settings = Setting::ALL.iter().filter(move |setting| takes(**setting));
    settings.filter_map(|setting| Some((*setting, setting.flag().strip_prefix("--")?)))
}

/// Not generic, because generic code is compiled once for each verb.
fn augment(command: clap::Command, takes: fn(Setting) -> bool) -> clap::Command {
    command.args(flags(takes).map(arg))
}

fn given(matches: &ArgMatches, takes: fn(Setting) -> bool) -> Vec<(Setting, OsString)> {
    let given = |(setting, name)| Some((setting, matches.get_one::<OsString>(name)?.clone()));
    flags(takes).filter_map(given).collect()
}

fn arg((setting, name): (Setting, &'static str)) -> Arg {
    let (value_name, hint) = match setting.kind() {
        Kind::Text(name) | Kind::Choice(name, _) => (name, ValueHint::Unknown),
        Kind::File => ("FILE", ValueHint::FilePath),
        Kind::Switch => ("BOOL", ValueHint::Unknown),
    };
    let default = setting.default().map(|default| format!(" [default: {default}]")).unwrap_or_default();
    let help = format!("{} [env: {}]{default}", setting.help(), setting.variable());
    let arg = Arg::new(name).long(name).value_name(value_name).value_hint(hint);
    let arg = arg.value_parser(value_parser!(OsString)).help(help);
    match setting.kind() {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

impl<V: Verb> Args for Flags<V> {
    fn augment_args(command: clap::Command) -> clap::Command {
        augment(command, V::TAKES)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<V: Verb> FromArgMatches for Flags<V> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(given(matches, V::TAKES), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_those_of_the_table() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        let flags = |verb: &str| {
            let verb = cli.get_subcommands().find(|command| command.get_name() == verb).unwrap();
            let all = verb.get_arguments().filter(|arg| arg.get_help().unwrap().to_string().contains("[env: "));
            all.map(|arg| format!("--{}", arg.get_long().unwrap())).collect::<Vec<_>>()
        };
        let all = Setting::ALL.iter().map(|setting| setting.flag()).filter(|flag| flag.starts_with("--"));
        assert_eq!(flags("run"), all.clone().collect::<Vec<_>>());
        assert_eq!(flags("manifest"), all.clone().filter(|flag| *flag != "--service").collect::<Vec<_>>());
        assert_eq!(flags("exec"), all.filter(|flag| *flag != "--drain").collect::<Vec<_>>());
        for verb in ["wait", "health", "dev"] {
            assert_eq!(flags(verb), ["--listen-addr"]);
        }
        assert_eq!(flags("top"), ["--listen-addr", "--metrics-addr"]);
    }

    #[test]
    fn a_flag_is_given_to_its_setting() {
        for (setting, name) in flags(Run::TAKES) {
            let args = ["etcdproxy", "run", &format!("--{name}=a b")];
            let Command::Run(run) = Cli::try_parse_from(args).unwrap().command else { panic!("{args:?}") };
            assert_eq!(run.settings.0, [(setting, "a b".into())]);
        }
        let args = ["etcdproxy", "run", "--namespace-admin", "--dry-run"];
        let Command::Run(run) = Cli::try_parse_from(args).unwrap().command else { panic!("{args:?}") };
        assert_eq!(run.settings.0, [(Setting::NamespaceAdmin, "true".into())]);
    }

    #[test]
    fn every_variable_in_a_help_text_is_one_of_the_table() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            let words = help.split(|c: char| !c.is_ascii_uppercase() && c != '_');
            for name in words.filter(|word| word.starts_with("ETCDPROXY_") && *word != "ETCDPROXY_UNPACK_DIR") {
                assert!(Setting::ALL.iter().any(|setting| setting.variable() == name), "{name}");
            }
            let has = |setting: &Setting| help.contains(setting.variable());
            assert!(command.get_name() != "run" || Setting::ALL.iter().all(has));
        }
    }
}
