//! The command line: clap types only.
#![allow(clippy::doc_markdown, reason = "the comments are help texts")]
#![allow(clippy::struct_field_names, reason = "fields are named as their flags")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};

/// One binary that carries etcd: starts its gRPC proxy next to an application, unpacks it, tries it out.
#[derive(Debug, Parser)]
#[command(name = "etcdproxy", version, max_term_width = 100)]
#[command(after_help = "\
The application connects to 127.0.0.1:2379. A link to this binary named etcd, etcdctl or etcdutl runs that program.

Exit codes: 0 done, 1 failed, 2 usage, 69 cluster unreachable, 73 cannot write, 77 no permission or noexec,
78 a setting that cannot work, 127 no such command; exec, wait and dev pass on the code of the command they run.")]
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
    Dev(Dev),
    Unpack(Unpack),
    Verify(Verify),
    List(List),
    Install(Install),
    Uninstall(Uninstall),
    Rollback(Rollback),
    Prune(Prune),
    Package(Package),
    Completions(Completions),
    Man(Man),
    Sbom(Sbom),
    /// Print the licence texts of everything in this binary
    Licenses,
    /// Print the versions of etcdproxy and of the etcd it carries
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
    /// What the buildpack's bin/compile calls
    #[command(hide = true)]
    Compile {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Carry connections to 127.0.0.1:2379 to the cluster: become etcd's gRPC proxy (same pid), or be the tunnel
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy run --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379
  ETCDPROXY_ENDPOINTS=10.0.0.1:2379 etcdproxy run --dry-run
  etcdproxy run --endpoints 10.0.0.1:2379 --drain 8s
  etcdproxy run --endpoints 10.0.0.1:2379 -- --max-send-bytes=4194304

Flags win over the environment, and that over the service binding (SERVICE_BINDING_ROOT, VCAP_SERVICES_FILE_PATH or
VCAP_SERVICES). ETCDPROXY_CACERT, _CERT and _KEY may hold PEM, also in base64, instead of a file's name.

Read from the environment only: ETCDPROXY_NAMESPACE_FROM_BINDING=1 takes the key prefix of the bound service,
ETCDPROXY_USE_HTTP_PROXY=1 lets etcd obey HTTPS_PROXY and the like, ETCDPROXY_UNPACK_DIR names where etcd is unpacked.")]
pub(crate) struct Run {
    #[command(flatten)]
    pub proxy: Proxy,
    /// Stay and look after etcd: start it again when it ends, thin its log, and after SIGTERM serve on until no client
    /// is connected, for so long at most, as in 8s [env: ETCDPROXY_DRAIN] [default: off; tunnel: 8s]
    #[arg(long, value_name = "DURATION")]
    pub drain: Option<OsString>,
    /// Print what would be done, and the command, instead of doing it
    #[arg(long)]
    pub dry_run: bool,
    /// Handed to etcd as it is
    #[arg(last = true, value_name = "ETCD FLAGS")]
    pub extra: Vec<OsString>,
}

/// Run a command with the proxy beside it: proxy up, wait until the cluster answers, command, proxy down
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy exec -- bundle exec rake db:migrate
  etcdproxy exec --endpoints 10.0.0.1:2379 --timeout 10s -- my-task

Returns the exit code of the command, which gets the signals sent to etcdproxy and finds the proxy's address in
ETCDPROXY_LISTEN_ADDR and ETCDCTL_ENDPOINTS. A proxy that serves the address already is used, and left as it is;
with one there, no endpoints are needed.")]
pub(crate) struct Exec {
    #[command(flatten)]
    pub proxy: Proxy,
    /// How long to wait at most for the cluster to answer, as in 500ms, 30s, 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::settings::duration)]
    pub timeout: Duration,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What the proxy works with.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// Client addresses of the cluster's members, separated by commas [env: ETCDPROXY_ENDPOINTS]
    #[arg(long, value_name = "HOST:PORT,…")]
    pub endpoints: Option<OsString>,
    #[command(flatten)]
    pub listen: Listen,
    /// What carries the connections: auto, grpc-proxy (etcd's) or tunnel [env: ETCDPROXY_MODE] [default: auto]
    #[arg(long)]
    pub mode: Option<OsString>,
    /// The bound service that is meant, when several may be [env: ETCDPROXY_SERVICE]
    #[arg(long, value_name = "NAME")]
    pub service: Option<OsString>,
    /// Certificate authority of the cluster, instead of the system's [env: ETCDPROXY_CACERT]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cacert: Option<OsString>,
    /// Client certificate [env: ETCDPROXY_CERT]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cert: Option<OsString>,
    /// Private key of the client certificate [env: ETCDPROXY_KEY]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<OsString>,
    /// Prefix put before every key [env: ETCDPROXY_NAMESPACE]
    #[arg(long, value_name = "PREFIX")]
    pub namespace: Option<OsString>,
    /// Serve metrics on this address as well [env: ETCDPROXY_METRICS_ADDR]
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics_addr: Option<OsString>,
    /// Try the endpoints first, and when none is good: warn, or exit with 69 (strict), or do not try (off)
    /// [env: ETCDPROXY_PREFLIGHT] [default: warn]
    #[arg(long, value_name = "WHAT")]
    pub preflight: Option<OsString>,
    /// How log lines look: json, text, or raw; etcd's own are only touched with --drain, and by raw never
    /// [env: ETCDPROXY_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<OsString>,
    /// Memory the proxy may use, in MB; sets Go's GOMEMLIMIT [env: ETCDPROXY_MEMORY]
    #[arg(long, value_name = "MB")]
    pub memory: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// The address the application connects to [env: ETCDPROXY_LISTEN_ADDR] [default: 127.0.0.1:2379]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_addr: Option<OsString>,
}

/// Wait until the cluster answers through the proxy, then run a command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy wait
  etcdproxy wait --timeout 10s -- bundle exec rackup")]
pub(crate) struct Wait {
    #[command(flatten)]
    pub listen: Listen,
    /// How long at most, as in 500ms, 30s, 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::settings::duration)]
    pub timeout: Duration,
    /// Wait only for the port to be open
    #[arg(long)]
    pub listening: bool,
    /// Run this when it is ready (same pid)
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Say whether the cluster answers through the proxy: 0 yes, 69 no
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy health
  etcdproxy health --json")]
pub(crate) struct Health {
    #[command(flatten)]
    pub listen: Listen,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Run a cluster of 1 or 3 etcd members and the proxy on loopback
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy dev
  etcdproxy dev --nodes 3 --listen-addr 127.0.0.1:2379
  etcdproxy dev -- sh -c 'my-tests --etcd $ETCDPROXY_LISTEN_ADDR'

The command finds ETCDPROXY_LISTEN_ADDR (the proxy), ETCDPROXY_ENDPOINTS (the members) and ETCDCTL_ENDPOINTS
(the proxy) in its environment. When it ends, or on Ctrl-C or SIGTERM, everything ends.")]
pub(crate) struct Dev {
    /// Number of members
    #[arg(long, value_name = "N", default_value = "1", value_parser = ["1", "3"])]
    pub nodes: String,
    /// Keep the members' data here; a temporary directory, removed at the end, when not given
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The proxy's address [env: ETCDPROXY_LISTEN_ADDR] [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen_addr: Option<OsString>,
    /// Run this against the cluster and return its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Write the etcd programs that this binary carries into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy unpack ./bin
  etcdproxy unpack /opt/etcd/bin")]
pub(crate) struct Unpack {
    /// Created if missing
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

/// Write the offline Cloud Foundry buildpack, a zip, from this binary
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy package
  etcdproxy package --stack cflinuxfs4 --output /tmp/etcdproxy.zip
  etcdproxy package --arch both --other ./etcdproxy-arm64
  cf create-buildpack etcdproxy_buildpack \"$(etcdproxy package)\" 99")]
pub(crate) struct Package {
    /// Tie it to one stack; a static binary needs none
    #[arg(long, value_name = "STACK")]
    pub stack: Option<String>,
    /// The machines it is for [default: those that this binary is for]
    #[arg(long, value_parser = ["amd64", "arm64", "both"])]
    pub arch: Option<String>,
    /// The etcdproxy for the architecture that this one is not for
    #[arg(long, value_name = "FILE", requires = "arch")]
    pub other: Option<PathBuf>,
    /// Where it goes [default: etcdproxy_buildpack-cached[-STACK]-vVERSION.zip]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
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

/// Print the manual page, or write the pages of all commands into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy man | man -l -
  etcdproxy man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Created if missing
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Print the bill of materials: every crate, and etcd with its Go modules, with versions and hashes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etcdproxy sbom > etcdproxy.cdx.json
  etcdproxy sbom --format spdx > etcdproxy.spdx.json

The bill is JSON, in CycloneDX 1.6 or SPDX 2.3. It was made when this binary was built: the output is always the same.")]
pub(crate) struct Sbom {
    /// cyclonedx or spdx
    #[arg(long, value_name = "FORMAT", default_value = "cyclonedx", value_parser = ["cyclonedx", "spdx"])]
    pub format: String,
}
