//! TLS with the rules of Go's, which etcd uses: which servers to trust, and which client certificate to show.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::chain::{Chain, Trusted, verify_handshake};
use crate::os::clock::since_epoch;
use crate::settings::{Identity, Pem, Tls};

/// The configuration of a gRPC client of etcd.
///
/// # Errors
/// When the client certificate or its key cannot be used: the setting and the problem, in words.
pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let authorities = match &tls.ca {
        Some(ca) => ca.certificates().unwrap_or_default(), // checked by the settings
        None => rustls_native_certs::load_native_certs().certs,
    };
    config(authorities, tls.identity.as_ref())
}

/// When certificates end, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The first of the client certificate and its chain.
    pub client: Option<i64>,
    /// The last of the authorities, as one valid one is enough; `None` for the system's.
    pub ca: Option<i64>,
}

impl Ends {
    pub(super) fn of(tls: &Tls) -> Self {
        let ends = |pem: &Pem| pem.certificates().unwrap_or_default().iter().filter_map(end_of).collect::<Vec<_>>();
        Self {
            client: tls.identity.as_ref().and_then(|identity| ends(&identity.cert).into_iter().min()),
            ca: tls.ca.as_ref().and_then(|ca| ends(ca).into_iter().max()),
        }
    }
}

/// When a certificate ends, in seconds since 1970; `None` if it cannot be read.
pub(super) fn end_of(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// How many days a certificate has left that ends then, in seconds since 1970. Negative when it has expired.
pub(crate) fn days_left(end: i64) -> i64 {
    let now = i64::try_from(since_epoch(SystemTime::now()).as_secs()).unwrap_or(i64::MAX);
    end.saturating_sub(now).div_euclid(86400)
}

/// With fewer days left, it is time to replace a certificate.
pub(crate) const SOON: i64 = 14;

/// What a member's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// When it ends, in seconds since 1970.
    pub end: i64,
    /// Names and addresses of hosts.
    pub names: Vec<String>,
}

impl Certificate {
    /// `None` if it cannot be read.
    pub(super) fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => Some(IpAddr::from(v4).to_string()),
                (_, Ok(v6)) => Some(IpAddr::from(v6).to_string()),
                _ => None,
            },
            _ => None,
        };
        let names = alternatives.map(|it| it.value.general_names.iter().filter_map(name).collect()).unwrap_or_default();
        Some(Self { end: certificate.validity().not_after.timestamp(), names })
    }
}

/// Enough to learn whether a server speaks TLS: it trusts nobody.
pub(super) fn config_without_trust() -> Result<ClientConfig, String> {
    config(Vec::new(), None)
}

fn config(authorities: Vec<CertificateDer<'static>>, identity: Option<&Identity>) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let trusted = authorities.into_iter().filter_map(Trusted::new).collect();
    let verifier = Arc::new(Verifier { trusted, algorithms: provider.signature_verification_algorithms });
    let config = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .map_err(|err| err.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        // rustls' own way parses the certificate and refuses X.509 version 1, which etcd accepts.
        Some(identity) => {
            let chain = identity.cert.certificates().map_err(|err| err.to_string())?;
            let key = identity.key.private_key().map_err(|err| err.to_string())?;
            let key = provider.key_provider.load_private_key(key).map_err(|_| {
                let problem = "this kind of key is not supported: use RSA with 2048 to 8192 bits, ECDSA with P-256, P-384 or \
                               P-521, or Ed25519";
                identity.key.error(problem).to_string()
            })?;
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would hide that a member has a new certificate.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The system's clock. rustls' own panics before 1970.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(since_epoch(SystemTime::now())))
    }
}

/// Trusts the servers that Go trusts.
#[derive(Debug)]
struct Verifier {
    trusted: Vec<Trusted>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = Chain { server, sent, trusted: &self.trusted, algorithms: &self.algorithms, now };
        match chain.verify(&name.to_str()) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(CertificateError::Other(OtherError(Arc::new(refusal))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, certificate, signature, &self.algorithms, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake(message, certificate, signature, &self.algorithms, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
