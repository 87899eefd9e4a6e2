//! From settings to the command line of `etcd grpc-proxy`.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::os::env::Env;
use crate::os::sys;
use crate::release::Release;
use crate::settings::{Pem, Run, SECRETS, Settings};

/// Go's HTTP clients obey these, for endpoints with and without TLS.
const HTTP_PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The share of the memory for Go's heap; stacks, code and the launcher need the rest.
const HEAP_PERCENT: u64 = 85;

/// A certificate or key that is not a file could not be kept in memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep {name} in memory: {cause}: give it as a file")]
pub(crate) struct MemfdError {
    name: String,
    cause: io::Error,
}

/// How etcd is started.
#[derive(Debug)]
pub(crate) struct Launch {
    /// `argv[1..]`.
    pub args: Vec<OsString>,
    /// Variables to set.
    pub set: Vec<(&'static str, OsString)>,
    /// Variables to remove.
    pub unset: Vec<OsString>,
    /// The working directory; the launcher's when not given.
    pub dir: Option<&'static Path>,
    /// Certificates and keys that exist only in memory.
    private: Vec<OwnedFd>,
    /// How many certificates and keys are not files.
    inline: usize,
}

impl Launch {
    /// How to start the etcd in `release`; `extra` are the user's own flags for it.
    ///
    /// # Errors
    /// When a certificate or key that is not a file cannot be kept in memory.
    pub(crate) fn new(
        settings: &Settings,
        release: &Release,
        extra: &[OsString],
        env: &Env,
    ) -> Result<Self, MemfdError> {
        let mut private = Vec::new();
        let mut launch = Self::with(settings, release, extra, env, &mut |pem| {
            let fd = in_memory(pem).map_err(|cause| MemfdError { name: pem.name.clone(), cause })?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            private.push(fd);
            Ok(path)
        })?;
        launch.private = private;
        Ok(launch)
    }

    /// The same, for display: instead of a file in memory it names the source of its content.
    pub(crate) fn to_show(
        settings: &Settings,
        release: &Release,
        extra: &[OsString],
        env: &Env,
    ) -> Result<Self, MemfdError> {
        Self::with(settings, release, extra, env, &mut |pem| Ok(format!("(PEM of {})", pem.name).into()))
    }

    fn with(
        settings: &Settings,
        release: &Release,
        extra: &[OsString],
        env: &Env,
        inline_path: &mut dyn FnMut(&Pem) -> Result<PathBuf, MemfdError>,
    ) -> Result<Self, MemfdError> {
        let mut args = args(settings, release);
        let mut set = Vec::new();
        let mut inline = 0;
        let mut path = |pem: &Pem| {
            pem.file.clone().map_or_else(
                || {
                    inline += 1;
                    inline_path(pem)
                },
                Ok,
            )
        };
        let mut flag = |name: &str, path: PathBuf| {
            let mut arg = OsString::from(format!("--{name}="));
            arg.push(path);
            args.push(arg);
        };
        match (&settings.tls.ca, &settings.tls.identity) {
            // etcd refuses a --cacert without --cert. Go's variables replace the system's authorities, including those
            // of its directory.
            (Some(ca), None) => {
                set.extend([("SSL_CERT_FILE", path(ca)?.into()), ("SSL_CERT_DIR", "/dev/null".into())]);
            }
            (ca, Some(identity)) => {
                if let Some(ca) = ca {
                    flag("cacert", path(ca)?);
                }
                flag("cert", path(&identity.cert)?);
                flag("key", path(&identity.key)?);
            }
            (None, None) => {}
        }
        args.extend(extra.iter().cloned());

        let mut unset: Vec<OsString> = SECRETS.map(OsString::from).into();
        if settings.http_proxy.is_none() {
            unset.extend(HTTP_PROXIES.iter().flat_map(|name| [name.into(), name.to_lowercase().into()]));
        }
        unset.retain(|name| name.to_str().is_some_and(|name| env.get(name).is_some()));
        if let Some(mb) = settings.memory
            && env.get("GOMEMLIMIT").is_none()
        {
            set.push(("GOMEMLIMIT", format!("{}MiB", u64::from(mb) * HEAP_PERCENT / 100).into()));
        }
        // The user's flags may name files relative to the launcher's directory.
        let dir = extra.is_empty().then_some(Path::new("/"));
        Ok(Self { args, set, unset, dir, private: Vec::new(), inline })
    }

    /// Whether every certificate and key is a file, so that a shell can run the same command.
    pub(crate) fn is_complete(&self) -> bool {
        self.inline == 0
    }

    /// The command that runs the `etcd` at this path.
    pub(crate) fn command(&self, etcd: &Path) -> Command {
        let mut command = Command::new(etcd);
        command.args(&self.args).envs(self.set.iter().map(|(name, value)| (name, value)));
        for name in &self.unset {
            command.env_remove(name);
        }
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        for fd in &self.private {
            sys::keep_open(&mut command, fd);
        }
        command
    }

    /// The words of a shell command that does the same.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if !self.set.is_empty() || !self.unset.is_empty() {
            words.push("env".into());
            words.extend(self.unset.iter().flat_map(|name| [OsStr::new("-u"), name].map(OsStr::to_owned)));
            words.extend(self.set.iter().map(|(name, value)| {
                let mut word = OsString::from(format!("{name}="));
                word.push(value);
                word
            }));
        }
        words.push("etcd".into());
        words.extend(self.args.iter().cloned());
        words
    }
}

fn args(settings: &Settings, release: &Release) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["grpc-proxy".into(), "start".into()];
    let mut flag = |name: &str, value: String| args.push(format!("--{name}={value}").into());
    let addr = settings.listen_addr.to_string();
    // Any other address makes etcd 3.5 and 3.6 exit after 5 s, and 3.7 unhealthy for ever.
    flag("advertise-client-url", addr.clone());
    flag("listen-addr", addr);
    // No space after the comma: etcd would silently ignore the endpoint.
    let endpoints: Vec<String> = settings.endpoints.iter().map(ToString::to_string).collect();
    flag("endpoints", endpoints.join(","));
    // Without keepalive a hung member hangs its clients as long as it hangs. grpc-go accepts no less than 10 s. etcd has
    // these flags since 3.5.13.
    if release.is_at_least([3, 5, 13]) {
        flag("dial-keepalive-time", "10s".to_owned());
        flag("dial-keepalive-timeout", "3s".to_owned());
    }
    if let Some(namespace) = &settings.namespace {
        flag("namespace", namespace.clone());
    }
    // A supervised etcd's metrics come from its launcher, with the launcher's own.
    if let Some(addr) = &settings.metrics_addr
        && settings.run == Run::ExecEtcd
    {
        flag("metrics-addr", format!("http://{addr}"));
    }
    args
}

/// A file without a name. Only this user can open it, and it disappears with the last process that holds it.
fn in_memory(pem: &Pem) -> io::Result<OwnedFd> {
    if !Path::new("/proc/self/fd").exists() {
        return Err(io::Error::other("this needs /proc, which is not mounted"));
    }
    let mut file = File::from(memfd_create("etcdproxy", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(pem.text.as_bytes())?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{Identity, Setting, Sources, TcpAddr, Tls};

    fn settings() -> Settings {
        let flags = [(Setting::Endpoints, "http://127.0.0.1:1,http://127.0.0.1:2".into())];
        Sources::new(flags, &Env::default()).resolve().unwrap()
    }

    fn pem(name: &str, file: bool) -> Pem {
        let file = file.then(|| format!("/{name}").into());
        Pem { name: name.to_owned(), file, text: "TEXT".to_owned() }
    }

    fn release(version: &'static str) -> Release {
        Release { version, arch: "amd64", origin: "", id: "", programs: &[] }
    }

    const MINIMAL: [&str; 7] = [
        "grpc-proxy",
        "start",
        "--advertise-client-url=127.0.0.1:2379",
        "--listen-addr=127.0.0.1:2379",
        "--endpoints=http://127.0.0.1:1,http://127.0.0.1:2",
        "--dial-keepalive-time=10s",
        "--dial-keepalive-timeout=3s",
    ];

    #[test]
    fn every_setting_has_its_flag_and_what_is_not_set_has_none() {
        let mut settings = settings();
        let show = |settings: &Settings, version, extra: &[OsString]| {
            Launch::to_show(settings, &release(version), extra, &Env::default()).unwrap()
        };
        let launch = show(&settings, "3.7.2", &[]);
        assert_eq!(launch.args, MINIMAL);
        assert_eq!((launch.set, launch.unset, launch.dir), (vec![], vec![], Some(Path::new("/"))));
        assert_eq!(show(&settings, "3.5.1", &[]).args, MINIMAL[..5]);

        settings.namespace = Some("app/".to_owned());
        settings.metrics_addr = Some(TcpAddr::new([127, 0, 0, 1].into(), 9));
        let identity = Identity { cert: pem("c", true), key: pem("k", false), common_name: None };
        settings.tls = Tls { ca: Some(pem("ca", true)), identity: Some(identity), server_name: None };
        let more = [
            "--namespace=app/",
            "--metrics-addr=http://127.0.0.1:9",
            "--cacert=/ca",
            "--cert=/c",
            "--key=(PEM of k)",
            "--debug",
        ];
        let launch = show(&settings, "3.7.2", &["--debug".into()]);
        assert_eq!(launch.args, [&MINIMAL[..], &more].concat());
        let supervised = Settings { run: Run::SuperviseEtcd { drain: Duration::ZERO }, ..settings.clone() };
        let args = show(&supervised, "3.7.2", &[]).args;
        assert!(args.iter().all(|arg| !arg.to_str().unwrap().starts_with("--metrics-addr")), "{args:?}");
        assert_eq!(launch.dir, None);
    }

    #[test]
    fn an_authority_alone_goes_into_gos_variables() {
        let tls = Tls { ca: Some(pem("ca", true)), ..Tls::default() };
        let launch = Launch::to_show(&Settings { tls, ..settings() }, &release("3.7.2"), &[], &Env::default()).unwrap();
        assert_eq!(launch.args, MINIMAL);
        assert_eq!(launch.words()[..4], ["env", "SSL_CERT_FILE=/ca", "SSL_CERT_DIR=/dev/null", "etcd"]);
    }

    #[test]
    fn the_environment_that_etcd_gets() {
        let env = Env::from([("HTTPS_PROXY", "http://u:s3cret@p:1"), ("no_proxy", "x"), ("VCAP_SERVICES", "{}")]);
        let mut settings = Settings { memory: Some(64), ..settings() };
        let words = |settings: &Settings, env: &Env| {
            let words = Launch::to_show(settings, &release("3.7.2"), &[], env).unwrap().words();
            words.into_iter().take_while(|word| word != "etcd").collect::<Vec<_>>()
        };
        let expected = ["env", "-u", "VCAP_SERVICES", "-u", "HTTPS_PROXY", "-u", "no_proxy", "GOMEMLIMIT=54MiB"];
        assert_eq!(words(&settings, &env), expected);
        settings.http_proxy = Some("HTTPS_PROXY");
        assert_eq!(words(&settings, &env), ["env", "-u", "VCAP_SERVICES", "GOMEMLIMIT=54MiB"]);
        assert_eq!(words(&settings, &Env::from([("GOMEMLIMIT", "1GiB")])), [""; 0]);
    }

    #[test]
    fn inline_pem_becomes_a_file_that_only_its_user_can_read_and_nobody_can_change() {
        let identity = Identity { cert: pem("c", false), key: pem("k", false), common_name: None };
        let settings = Settings { tls: Tls { identity: Some(identity), ..Tls::default() }, ..settings() };
        let launch = Launch::new(&settings, &release("3.7.2"), &[], &Env::default()).unwrap();
        let path = launch.args.last().unwrap().to_str().unwrap().strip_prefix("--key=").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "TEXT");
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(File::options().write(true).open(path).and_then(|mut file| file.write_all(b"x")).is_err());
        drop(launch);
    }
}
