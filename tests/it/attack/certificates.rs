//! What happens to the files of certificates while the proxy serves.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::{cases, check_log, figure, nothing_lost, number};
use crate::load::{self, Load};
use crate::pki::{Authority, write};
use crate::sidecar::native;
use crate::support::{Cluster, Process, Tls, fails_with, free_addr, makes_progress, unique_host, wait_ready};

/// A cluster that wants certificates of its clients, and a proxy whose certificates are files.
struct Site {
    dir: TempDir,
    authority: Authority,
    _cluster: Cluster,
    proxy: Process,
    addr: String,
}

impl Site {
    fn start() -> Self {
        let (host, authority) = (unique_host(), Authority::new("ca"));
        let tls = Tls { server: authority.server(&[&host], 365), client_ca: Some(authority.pem.clone()) };
        let cluster = Cluster::start_on(&host, 1, Some(tls));
        let dir = tempfile::tempdir().unwrap();
        let ca = write(dir.path(), "ca.pem", &authority.pem);
        let [cert, key] = authority.client(Some("app")).write(dir.path(), "client");
        let addr = free_addr(&host);
        let mut command = native(&cluster.endpoints(), &addr);
        command.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key).args(["--drain", "0s"]);
        let proxy = Process::start(command.stderr(File::create(dir.path().join("log")).unwrap()));
        wait_ready(&addr);
        Self { dir, authority, _cluster: cluster, proxy, addr }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// A new connection, and a call on it.
    async fn serves_new_clients(&self, what: &str) {
        let get = async { load::connect(&self.addr).await?.get("a", None).await };
        let got = tokio::time::timeout(Duration::from_secs(5), get).await;
        assert!(matches!(got, Ok(Ok(_))), "{what}: {got:?}: {}", self.log());
    }

    async fn end(mut self, load: Load) -> String {
        makes_progress(&load).await;
        let report = load.stop().await.unwrap();
        assert_eq!(self.proxy.terminate().code(), Some(0));
        check_log(&self.log());
        nothing_lost(&report, &self.log())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_can_be_renewed_at_any_time() {
    let site = Site::start();
    let load = Load::start(&site.addr, "/attack/").await.unwrap();
    let pairs: Vec<_> = (0..20).map(|n| site.authority.client(Some(&format!("app{n}")))).collect();
    let count = cases(25);
    for n in 0..count {
        let pair = &pairs[n % pairs.len()];
        let [cert, key] = ["client.crt", "client.key"].map(|name| site.dir.path().join(name));
        // As careless tools do: file after file, one half after the other. Every third time in one step.
        if n.is_multiple_of(3) {
            for (path, text) in [(&cert, &pair.cert), (&key, &pair.key)] {
                let new = write(site.dir.path(), "new", text);
                fs::rename(new, path).unwrap();
            }
        } else {
            fs::write(&cert, &pair.cert[..pair.cert.len() / 2]).unwrap();
            site.serves_new_clients("half a certificate").await;
            fs::write(&cert, &pair.cert).unwrap();
            fs::write(&key, &pair.key[..pair.key.len() / 2]).unwrap();
            site.serves_new_clients("half a key").await;
            fs::write(&key, &pair.key).unwrap();
        }
        if n.is_multiple_of(7) {
            site.proxy.signal(Signal::SIGHUP);
        }
        site.serves_new_clients("a new pair").await;
    }
    let read = site.log().matches("the certificates were read again").count();
    let end = Box::pin(site.end(load)).await;
    figure(&format!(
        "{} renewals, two thirds of them with halves of files; {} times read; {end}",
        number(count),
        number(read)
    ));
}

/// Puts something in the place of a file.
fn replace(path: &Path, what: &str, expired: &str) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    match what {
        "a FIFO" => mkfifo(path, Mode::S_IRWXU).unwrap(),
        "a directory" => fs::create_dir(path).unwrap(),
        "10 MB" => fs::write(path, vec![b'x'; 10_000_000]).unwrap(),
        "10 MB of certificates" => fs::write(path, expired.repeat(10_000_000 / expired.len())).unwrap(),
        "an endless device" => symlink("/dev/zero", path).unwrap(),
        "a link to itself" => symlink(path, path).unwrap(),
        "nothing" => {}
        "an empty file" => fs::write(path, "").unwrap(),
        "garbage" => fs::write(path, [0xff, 0, b'\n', 0x1b].repeat(1000)).unwrap(),
        "garbage in PEM" => {
            fs::write(path, "-----BEGIN CERTIFICATE-----\nMIIAAAAA\n-----END CERTIFICATE-----\n").unwrap();
        }
        _ => fs::write(path, expired).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_the_place_of_a_certificate_stops_nothing() {
    let site = Site::start();
    let load = Load::start(&site.addr, "/attack/").await.unwrap();
    let (expired, _) = Authority::expired("ca", "x");
    let kinds = [
        "a FIFO",
        "a directory",
        "10 MB",
        "10 MB of certificates",
        "an endless device",
        "a link to itself",
        "nothing",
        "an empty file",
        "garbage",
        "garbage in PEM",
        "an expired certificate",
    ];
    let rounds = cases(1);
    for _ in 0..rounds {
        for name in ["client.crt", "client.key"] {
            let path = site.dir.path().join(name);
            let good = fs::read_to_string(&path).unwrap();
            for what in kinds {
                replace(&path, what, &expired);
                site.proxy.signal(Signal::SIGHUP);
                for _ in 0..2 {
                    site.serves_new_clients(&format!("{what} in the place of {name}")).await;
                }
                let before = load.writes();
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert!(load.writes() > before, "{what} in the place of {name} freezes the traffic");
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
                write(site.dir.path(), name, &good);
            }
        }
    }
    let log = site.log();
    assert!(log.lines().count() < 100 * rounds, "{log}");
    let end = Box::pin(site.end(load)).await;
    figure(&format!("{} kinds of wrong files, {} times; each time new clients served; {end}", kinds.len(), 2 * rounds));
}

#[test]
fn a_start_with_such_a_file_is_an_error_that_names_it() {
    let host = unique_host();
    let dir = tempfile::tempdir().unwrap();
    let (expired, _) = Authority::expired("ca", "x");
    let [cert, key] = Authority::new("ca").client(Some("app")).write(dir.path(), "client");
    let kinds = [
        "a FIFO",
        "a directory",
        "10 MB",
        "an endless device",
        "a link to itself",
        "garbage",
        "an expired certificate",
    ];
    for what in kinds {
        replace(&cert, what, &expired);
        let mut command = native(&format!("https://{}", free_addr(&host)), &free_addr(&host));
        let line = fails_with(78, command.arg("--cert").arg(&cert).arg("--key").arg(&key));
        println!("{what}: {line}");
        assert!(line.contains("--cert: ") && line.len() < 500, "{what}: {line}");
    }
    figure(&format!("{} starts with wrong files: each is an error that names the file", kinds.len()));
}
