//! Certificates and keys from files, the environment or a binding, checked before anything uses them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::Error;
use super::pem::{Content, Pem};

/// A certificate that expires within this time gets a warning, unless a third of its life is shorter.
const SOON: Duration = Duration::from_hours(30 * 24);

/// What secures the connection to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Certificate authorities to trust instead of the system's.
    pub ca: Option<Pem>,
    pub identity: Option<Identity>,
    /// The name that members' certificates must have, instead of the endpoint's host.
    pub server_name: Option<String>,
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
        let ca = self.ca.as_ref().map(|ca| ca.read_again(Content::Authorities)).transpose()?;
        if let Some(ca) = &ca {
            check_ca(ca, now)?;
        }
        let again = |Identity { cert, key, .. }: &Identity| {
            check_identity(cert.read_again(Content::Certificate)?, key.read_again(Content::Key)?, now)
        };
        let identity = self.identity.as_ref().map(again).transpose()?.map(|(identity, _)| identity);
        Ok(Self { ca, identity, server_name: self.server_name.clone() })
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.ca.is_some() || self.identity.is_some() || self.server_name.is_some()
    }
}

/// Checks certificate authorities at the time `now`. Returns a warning if they expire soon.
pub(super) fn check_ca(ca: &Pem, now: SystemTime) -> Result<Option<String>, Error> {
    let ders = ca.certificates()?;
    let all = ders.iter().map(|der| Validity::of(der, ca)).collect::<Result<Vec<_>, _>>()?;
    // During a rotation, old and new authorities are in the same file: one valid authority is enough.
    let best = all.iter().max_by_key(|validity| (validity.is_valid(now), validity.until > now, validity.until));
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

    fn is_valid(&self, now: SystemTime) -> bool {
        (self.from..=self.until).contains(&now)
    }

    fn check(&self, now: SystemTime, pem: &Pem, what: &str) -> Result<Option<String>, Error> {
        let subject = if self.subject.is_empty() { String::new() } else { format!(" ({})", self.subject) };
        if now > self.until {
            return Err(pem.error(format_args!("{what}{subject} expired on {}: renew it", day(self.until))));
        }
        if now < self.from {
            let from = humantime::format_rfc3339_seconds(self.from);
            return Err(
                pem.not_yet(format_args!("{what}{subject} is not valid before {from}: check this host's clock"))
            );
        }
        // A third of 90 days, which is when most tools renew. Shorter lives leave less time.
        let life = self.until.duration_since(self.from).unwrap_or_default();
        let soon = now + SOON.min(life / 3) > self.until;
        let until =
            if life < 3 * SOON { humantime::format_rfc3339_seconds(self.until).to_string() } else { day(self.until) };
        Ok(soon.then(|| format!("{}: {what}{subject} expires on {until}: renew it", pem.name)))
    }
}

/// As in `2026-11-23`.
fn day(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::settings::sources::Origin;

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

    fn pem(text: &str) -> Pem {
        Pem::read(&Origin::Environment.value("NAME", text), Content::Certificate).unwrap()
    }

    #[test]
    fn authorities() {
        let check = |certs: &[&Certificate]| {
            let text: String = certs.iter().map(|pair| pair.cert.as_str()).collect();
            check_ca(&pem(&text), SystemTime::now()).map_err(|err| err.to_string())
        };
        let good = Certificate::new(Some("ca"), days(-1), days(365));
        let ending = Certificate::new(Some("ca"), days(-365), days(29));
        let expired = Certificate::new(Some("old ca"), days(-9), days(-1));
        let early = Certificate::new(Some("ca"), days(1), days(365));
        assert_eq!(check(&[&good]), Ok(None));
        assert_eq!(check(&[&expired, &good, &ending]), Ok(None), "one valid authority is enough");
        let warning = check(&[&ending]).unwrap().unwrap();
        assert!(warning.starts_with("NAME: the certificate authority (CN=ca) expires on 20"), "{warning}");
        let problem = check(&[&expired]).unwrap_err();
        assert!(problem.starts_with("NAME: the certificate authority (CN=old ca) expired on 20"), "{problem}");
        assert!(check(&[&early]).unwrap_err().contains("is not valid before 20"));
        assert!(check_ca(&pem(&early.cert), SystemTime::now()).unwrap_err().time_can_mend());
        assert!(!check_ca(&pem(&expired.cert), SystemTime::now()).unwrap_err().time_can_mend());
        let problem = check_ca(&pem(&good.key), SystemTime::now()).unwrap_err().to_string();
        assert_eq!(problem, "NAME: it holds a key, and no certificate (-----BEGIN CERTIFICATE-----)");
        let damaged = good.cert.replace("MII", "M!I");
        assert!(check_ca(&pem(&damaged), SystemTime::now()).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_certificate_warns_when_a_third_of_its_life_or_thirty_days_are_left() {
        for (from, until, is_soon) in
            [(-1, 5, false), (-5, 2, true), (-50, 40, false), (-61, 29, true), (-3000, 31, false), (-3000, 29, true)]
        {
            let certificate = Certificate::new(Some("ca"), days(from), days(until));
            let warning = check_ca(&pem(&certificate.cert), SystemTime::now()).unwrap();
            assert_eq!(warning.is_some(), is_soon, "{from} {until}: {warning:?}");
        }
    }

    #[test]
    fn client_certificates() {
        let check = |cert: &str, key: &str| {
            check_identity(pem(cert), pem(key), SystemTime::now()).map_err(|err| err.to_string())
        };
        let good = Certificate::new(None, days(-1), days(365));
        let named = Certificate::new(Some("app"), days(-100), days(20));
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
            (&good.key, &good.key, "it holds a key, and no certificate"),
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
            assert!(check(&good.cert, &encrypted).unwrap_err().contains("it is an encrypted private key"));
        }
    }
}
