//! Certificates for tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SigningKey as _,
};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

/// A certificate authority for servers and clients.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = distinguished_name(Some(name));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The certificate of an authority that has expired, and a server of it that has not.
    pub(crate) fn expired(name: &str, host: &str) -> (String, Pair) {
        let mut authority = Self::new(name);
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = distinguished_name(Some(name));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let day = Duration::from_hours(24);
        (params.not_before, params.not_after) =
            ((SystemTime::now() - 9 * day).into(), (SystemTime::now() - day).into());
        authority.pem = params.self_signed(authority.issuer.key()).unwrap().pem();
        let server = authority.server(&[host], 9);
        (authority.pem, server)
    }

    /// A certificate for these host names and addresses that expires in `days` days, or, if that is negative, expired
    /// so many days ago.
    pub(crate) fn server(&self, hosts: &[&str], days: i64) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = distinguished_name(Some("a member"));
        let day = Duration::from_hours(24);
        let now = SystemTime::now();
        let distance = day * u32::try_from(days.unsigned_abs()).unwrap();
        let until = if days < 0 { now - distance } else { now + distance };
        (params.not_before, params.not_after) = ((until.min(now) - day).into(), until.into());
        // A member is also a client of itself: its JSON gateway connects to it.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A client certificate that is valid from this time on, for a day.
    pub(crate) fn client_from(&self, from: SystemTime) -> Pair {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = distinguished_name(None);
        (params.not_before, params.not_after) = (from.into(), (from + Duration::from_hours(24)).into());
        self.sign(&params)
    }

    /// A client certificate.
    pub(crate) fn client(&self, common_name: Option<&str>) -> Pair {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = distinguished_name(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// A client certificate of X.509 version 1, like those of `openssl x509 -req`. It has no extensions.
    pub(crate) fn client_of_version_1(&self, common_name: Option<&str>) -> Pair {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = distinguished_name(common_name);
        let key = KeyPair::generate().unwrap();
        let version_3 = params.signed_by(&key, &self.issuer).unwrap();
        let (_, version_3) = X509Certificate::from_der(version_3.der()).unwrap();
        let body = &version_3.tbs_certificate;
        assert!(body.extensions().is_empty());
        // Version 1 is the default: its certificates have no version field.
        let fields = body.as_ref().windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap() + 5;
        let body = sequence(&body.as_ref()[fields..]);
        let signature = self.issuer.key().sign(&body).unwrap();
        let ecdsa_with_sha256 = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let bits = [&[3, u8::try_from(signature.len() + 1).unwrap(), 0], signature.as_slice()].concat();
        let version_1 = sequence(&[&body, ecdsa_with_sha256.as_slice(), &bits].concat());
        assert_eq!(X509Certificate::from_der(&version_1).unwrap().1.version(), X509Version::V1);
        let base64 = base64::engine::general_purpose::STANDARD.encode(version_1);
        let cert = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        Pair { cert, key: key.serialize_pem() }
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes `name.crt` and `name.key`, and returns both paths.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> [PathBuf; 2] {
        [write(dir, &format!("{name}.crt"), &self.cert), write(dir, &format!("{name}.key"), &self.key)]
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A DER sequence with contents of 128 bytes or more.
fn sequence(contents: &[u8]) -> Vec<u8> {
    let header = match u16::try_from(contents.len()).unwrap().to_be_bytes() {
        [0, length] => vec![0x30, 0x81, length],
        [high, low] => vec![0x30, 0x82, high, low],
    };
    [&header, contents].concat()
}

fn distinguished_name(common_name: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(common_name) = common_name {
        name.push(DnType::CommonName, common_name);
    }
    name
}
