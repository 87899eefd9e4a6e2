//! Certificates and keys from files, the environment or a binding, checked before anything uses them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::Error;
use super::sources::{Origin, Value};

/// A certificate that expires within this time gets a warning.
const SOON: Duration = Duration::from_hours(30 * 24);

const BEGIN: &str = "-----BEGIN";

/// Whether an error may show a value that looks like a path. A damaged private key can look like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Public,
    Secret,
}

/// PEM text, with the name that its user knows. `Debug` does not show the text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    /// `--key`, `ETCDPROXY_KEY`, or the binding.
    pub name: String,
    /// Absolute path of the file it was read from.
    pub file: Option<PathBuf>,
    pub text: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("name", &self.name).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Pem {
    /// Reads a value that is the path of a file, PEM, PEM with `\n` for its line ends, or base64 of PEM.
    pub(super) fn read(value: &Value, secrecy: Secrecy) -> Result<Self, Error> {
        let inline = value.text.to_str().map(str::trim).and_then(decode);
        if let Some(text) = inline {
            if value.origin == Origin::Flags {
                return Err(value.error(
                    "it is PEM text, which every program on this host can read on the command line: name a file, or set \
                     the environment variable",
                ));
            }
            return Ok(Self { name: value.name.clone(), file: None, text });
        }
        // Do not show what is not a path: it may be a damaged key.
        let path = value.text.to_str().map_or(value.text.as_ref(), |text| Path::new(text.trim()));
        let long = path.as_os_str().len() > 1024 || path.to_string_lossy().contains(['\n', '\\']);
        if long || (matches!(value.origin, Origin::Binding) && !path.is_absolute()) {
            return Err(value.error("it is neither PEM (-----BEGIN …), nor base64 of PEM, nor the path of a file"));
        }
        let shown = if secrecy == Secrecy::Secret && value.origin != Origin::Flags {
            "the file".to_owned()
        } else {
            path.display().to_string()
        };
        let bytes = fs::read(path)
            .map_err(|err| value.error(format_args!("cannot read {shown}: {err}: name a readable PEM file")))?;
        let text = String::from_utf8(bytes).ok().filter(|text| text.contains(BEGIN)).ok_or_else(|| {
            value.error(format_args!(
                "{shown} is not a PEM file: it has no line with {BEGIN} …; convert a DER file with openssl x509 \
                 -inform der (a key: openssl pkey)"
            ))
        })?;
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // etcd cannot read a file with indentation, so it gets the text instead.
        let mended = flush_left(&text);
        let file = text.lines().map(str::trim_end).eq(mended.lines()).then_some(file);
        Ok(Self { name: value.name.clone(), file, text: mended })
    }

    fn read_again(&self) -> Result<Self, Error> {
        let Some(file) = &self.file else { return Ok(self.clone()) };
        let text = fs::read_to_string(file).map_err(|err| self.error(format_args!("cannot be read: {err}")))?;
        Ok(Self { text, ..self.clone() })
    }

    pub(crate) fn error(&self, problem: impl fmt::Display) -> Error {
        let problem = match &self.file {
            Some(file) => format!("{}: {problem}", file.display()),
            None => problem.to_string(),
        };
        Error::new(&self.name, problem)
    }

    /// All certificates in the text, in order.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(self.text.as_bytes()).collect();
        match all {
            Ok(all) if all.is_empty() => Err(self.error("it holds no certificate (-----BEGIN CERTIFICATE-----)")),
            Ok(all) => Ok(all),
            Err(_) => Err(self.error("its PEM text is damaged: copy it again, line ends included")),
        }
    }

    /// The private key in the text.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        // Also "Proc-Type: 4,ENCRYPTED", in OpenSSL's older formats.
        if self.text.contains("ENCRYPTED") {
            return Err(self.error("the key is encrypted: decrypt it, as with openssl pkey -in KEY -out PLAIN"));
        }
        PrivateKeyDer::from_pem_slice(self.text.as_bytes()).map_err(|err| match err {
            pem::Error::NoItemsFound => self.error("it holds no private key (-----BEGIN PRIVATE KEY-----)"),
            _ => self.error("its PEM text is damaged: copy it again, line ends included"),
        })
    }
}

/// PEM as etcd reads it: without indentation and without a byte order mark.
fn flush_left(text: &str) -> String {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// PEM from any of the forms that fit into an environment variable.
fn decode(text: &str) -> Option<String> {
    let pem = |text: &str| text.contains(BEGIN).then(|| flush_left(&text.replace("\\r", "").replace("\\n", "\n")));
    if let Some(text) = pem(text) {
        return Some(text);
    }
    let packed: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).ok()?;
    pem(&String::from_utf8(bytes).ok()?)
}

/// What secures the connection to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Certificate authorities to trust instead of the system's.
    pub ca: Option<Pem>,
    pub identity: Option<Identity>,
}

/// The client certificate with its chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub cert: Pem,
    pub key: Pem,
    /// The common name in the certificate's subject.
    pub common_name: Option<String>,
}

impl Tls {
    /// The files that it was read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.cert, &identity.key]);
        self.ca.iter().chain(identity).filter_map(|pem| pem.file.as_deref())
    }

    /// Reads the files again and checks them as at the start.
    ///
    /// # Errors
    /// If a file cannot be read, or its content can never work.
    pub(crate) fn read_again(&self) -> Result<Self, Error> {
        let now = SystemTime::now();
        let ca = self.ca.as_ref().map(Pem::read_again).transpose()?;
        if let Some(ca) = &ca {
            check_ca(ca, now)?;
        }
        let again = |identity: &Identity| check_identity(identity.cert.read_again()?, identity.key.read_again()?, now);
        let identity = self.identity.as_ref().map(again).transpose()?.map(|(identity, _)| identity);
        Ok(Self { ca, identity })
    }

    pub(super) fn is_configured(&self) -> bool {
        self.ca.is_some() || self.identity.is_some()
    }
}

/// Checks certificate authorities at the time `now`. Returns a warning if they expire soon.
pub(super) fn check_ca(ca: &Pem, now: SystemTime) -> Result<Option<String>, Error> {
    let ders = ca.certificates()?;
    let all = ders.iter().map(|der| Validity::of(der, ca)).collect::<Result<Vec<_>, _>>()?;
    // During a rotation, old and new authorities are in the same file: one valid authority is enough.
    let best = all.iter().max_by_key(|validity| (validity.problem(now).is_none(), validity.until));
    best.map_or(Ok(None), |best| best.check(now, ca, "the certificate authority"))
}

/// Checks a client certificate and its key at the time `now`. Returns a warning if the certificate expires soon.
pub(super) fn check_identity(cert: Pem, key: Pem, now: SystemTime) -> Result<(Identity, Option<String>), Error> {
    let chain = cert.certificates()?;
    let leaf = parse(&chain[0], &cert)?;
    // etcd reads the first block only.
    let first = <(SectionKind, Vec<u8>)>::from_pem_slice(cert.text.as_bytes());
    if !matches!(first, Ok((SectionKind::Certificate, _))) {
        return Err(cert.error("something else comes before the certificate: put the certificate first"));
    }
    let common_name = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let common_name = common_name.filter(|name| !name.is_empty()).map(ToOwned::to_owned);
    let warning = Validity::of(&chain[0], &cert)?.check(now, &cert, "the client certificate")?;
    // A kind of key that our library does not know is left to etcd. rustls' own check would reject X.509 version 1.
    if let Ok(private) = aws_lc_rs::default_provider().key_provider.load_private_key(key.private_key()?)
        && private.public_key().is_some_and(|public| public.as_ref() != leaf.public_key().raw)
    {
        return Err(key.error(format_args!("the key does not belong to the certificate of {}", cert.name)));
    }
    Ok((Identity { cert, key, common_name }, warning))
}

fn parse<'a>(der: &'a CertificateDer<'_>, pem: &Pem) -> Result<X509Certificate<'a>, Error> {
    let parsed = X509Certificate::from_der(der);
    parsed
        .map(|(_, certificate)| certificate)
        .map_err(|_| pem.error("it contains something that is not an X.509 certificate"))
}

/// When a certificate is valid.
struct Validity {
    subject: String,
    from: SystemTime,
    until: SystemTime,
}

impl Validity {
    fn of(der: &CertificateDer<'_>, pem: &Pem) -> Result<Self, Error> {
        let certificate = parse(der, pem)?;
        let time = |seconds: i64| match u64::try_from(seconds) {
            Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
            Err(_) => SystemTime::UNIX_EPOCH,
        };
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            from: time(validity.not_before.timestamp()),
            until: time(validity.not_after.timestamp()),
        })
    }

    fn problem(&self, now: SystemTime) -> Option<String> {
        if now > self.until {
            Some(format!("expired on {}: renew it", day(self.until)))
        } else if now < self.from {
            Some(format!(
                "is not valid before {}: check this host's clock",
                humantime::format_rfc3339_seconds(self.from)
            ))
        } else {
            None
        }
    }

    fn check(&self, now: SystemTime, pem: &Pem, what: &str) -> Result<Option<String>, Error> {
        let subject = if self.subject.is_empty() { String::new() } else { format!(" ({})", self.subject) };
        if let Some(problem) = self.problem(now) {
            return Err(pem.error(format_args!("{what}{subject} {problem}")));
        }
        let soon = now + SOON > self.until;
        Ok(soon.then(|| format!("{}: {what}{subject} expires on {}: renew it", pem.name, day(self.until))))
    }
}

/// As in `2026-11-23`.
fn day(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A self-signed certificate, as PEM.
    pub(in crate::settings) struct Certificate {
        pub cert: String,
        pub key: String,
    }

    impl Certificate {
        pub(in crate::settings) fn new(common_name: Option<&str>, from: SystemTime, until: SystemTime) -> Self {
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = common_name {
                params.distinguished_name.push(rcgen::DnType::CommonName, name);
            }
            (params.not_before, params.not_after) = (from.into(), until.into());
            let key = rcgen::KeyPair::generate().unwrap();
            Self { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
        }
    }

    /// This many days from now.
    pub(in crate::settings) fn days(count: i64) -> SystemTime {
        let distance = Duration::from_hours(count.unsigned_abs() * 24);
        if count < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
    }

    fn read(origin: Origin, text: &str) -> Result<Pem, String> {
        Pem::read(&origin.value("NAME", text), Secrecy::Public).map_err(|err| err.to_string())
    }

    fn pem(text: &str) -> Pem {
        read(Origin::Environment, text).unwrap()
    }

    #[test]
    fn pem_in_every_form() {
        let pair = Certificate::new(None, days(-1), days(365));
        let packed = base64::engine::general_purpose::STANDARD.encode(&pair.cert);
        let (head, tail) = packed.split_at(40);
        let crlf = pair.cert.replace('\n', "\r\n");
        for text in [
            pair.cert.clone(),
            crlf.clone(),
            pair.cert.replace('\n', "\\n"),
            crlf.replace("\r\n", "\\r\\n"),
            packed.clone(),
            format!(" {head}\n{tail}\n"),
            format!("\u{feff}  {}", pair.cert.replace('\n', "\n  ")),
        ] {
            let pem = pem(&text);
            assert_eq!(pem.certificates().unwrap().len(), 1, "{text}");
            assert_eq!(pem.file, None);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &pair.cert).unwrap();
        for origin in [Origin::Flags, Origin::Environment, Origin::Binding] {
            let pem = read(origin, file.path().to_str().unwrap()).unwrap();
            assert_eq!((pem.text.as_str(), pem.file.as_deref()), (pair.cert.as_str(), Some(file.path())));
        }
        fs::write(file.path(), pair.cert.replace('\n', "\n\t")).unwrap();
        let pem = read(Origin::Flags, file.path().to_str().unwrap()).unwrap();
        assert_eq!((pem.text.trim_end(), pem.file.as_deref()), (pair.cert.trim_end(), None));
    }

    #[test]
    fn text_that_is_not_pem_is_not_shown() {
        let key = Certificate::new(None, days(-1), days(365)).key;
        let lines: Vec<&str> = key.lines().collect();
        for text in [lines[1], &lines[1..3].join("\n"), &lines[1..3].join("\\n")] {
            let found = read(Origin::Binding, text).unwrap_err();
            assert!(found.starts_with("NAME: it is neither PEM"), "{found}");
        }
        let path = Origin::Environment.value("NAME", format!("/{}", lines[1]));
        let found = Pem::read(&path, Secrecy::Secret).unwrap_err().to_string();
        assert!(found.starts_with("NAME: cannot read the file: No such file"), "{found}");
        let found = read(Origin::Flags, &key).unwrap_err();
        assert!(found.contains("every program on this host") && !found.contains(lines[1]), "{found}");
        assert!(!format!("{:?}", pem(&key)).contains(lines[1]));
    }

    #[test]
    fn files_that_cannot_be_used() {
        let found = read(Origin::Flags, "/no/such.pem").unwrap_err();
        assert!(found.starts_with("NAME: cannot read /no/such.pem: No such file"), "{found}");
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [&b""[..], b"hello", b"\x30\x82\x01\xff"] {
            fs::write(file.path(), bytes).unwrap();
            let found = read(Origin::Flags, file.path().to_str().unwrap()).unwrap_err();
            assert!(found.contains("is not a PEM file"), "{found}");
        }
    }

    #[test]
    fn authorities() {
        let check = |certs: &[&Certificate]| {
            let text: String = certs.iter().map(|pair| pair.cert.as_str()).collect();
            check_ca(&pem(&text), SystemTime::now()).map_err(|err| err.to_string())
        };
        let good = Certificate::new(Some("ca"), days(-1), days(365));
        let ending = Certificate::new(Some("ca"), days(-1), days(29));
        let expired = Certificate::new(Some("old ca"), days(-9), days(-1));
        let early = Certificate::new(Some("ca"), days(1), days(365));
        assert_eq!(check(&[&good]), Ok(None));
        assert_eq!(check(&[&expired, &good, &ending]), Ok(None), "one valid authority is enough");
        let warning = check(&[&ending]).unwrap().unwrap();
        assert!(warning.starts_with("NAME: the certificate authority (CN=ca) expires on 20"), "{warning}");
        let problem = check(&[&expired]).unwrap_err();
        assert!(problem.starts_with("NAME: the certificate authority (CN=old ca) expired on 20"), "{problem}");
        assert!(check(&[&early]).unwrap_err().contains("is not valid before 20"));
        let problem = check_ca(&pem(&good.key), SystemTime::now()).unwrap_err().to_string();
        assert_eq!(problem, "NAME: it holds no certificate (-----BEGIN CERTIFICATE-----)");
        let damaged = good.cert.replace("MII", "M!I");
        assert!(check_ca(&pem(&damaged), SystemTime::now()).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn client_certificates() {
        let check = |cert: &str, key: &str| {
            check_identity(pem(cert), pem(key), SystemTime::now()).map_err(|err| err.to_string())
        };
        let good = Certificate::new(None, days(-1), days(365));
        let named = Certificate::new(Some("app"), days(-1), days(20));
        let expired = Certificate::new(None, days(-9), days(-1));
        let early = Certificate::new(None, days(1), days(365));
        let (identity, warning) = check(&good.cert, &good.key).unwrap();
        assert_eq!((identity.common_name, warning), (None, None));
        let (identity, warning) = check(&named.cert, &named.key).unwrap();
        assert_eq!(identity.common_name.as_deref(), Some("app"));
        assert!(warning.unwrap().contains("(CN=app) expires on 20"));
        for (cert, key, problem) in [
            (&good.cert, &named.key, "the key does not belong to the certificate of NAME"),
            (&good.cert, &good.cert, "it holds no private key"),
            (&good.key, &good.key, "it holds no certificate"),
            (&format!("{}{}", good.key, good.cert), &good.key, "something else comes before the certificate"),
            (&expired.cert, &expired.key, "the client certificate expired on 20"),
            (&early.cert, &early.key, "the client certificate is not valid before 20"),
        ] {
            let found = check(cert, key).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
        let label = |kind: &str| good.key.replace("PRIVATE KEY-----", kind);
        for encrypted in [label("ENCRYPTED PRIVATE KEY-----"), label("RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n")]
        {
            assert!(check(&good.cert, &encrypted).unwrap_err().contains("decrypt it"));
        }
    }
}
