//! TLS with the rules of Go's, which etcd uses: which servers to trust, and which client certificate to show.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::settings::{Identity, Tls};

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

/// Enough to learn whether a server speaks TLS: it trusts nobody.
pub(super) fn config_without_trust() -> Result<ClientConfig, String> {
    config(Vec::new(), None)
}

fn config(authorities: Vec<CertificateDer<'static>>, identity: Option<&Identity>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(authorities, &provider));
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
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
                let problem = "this kind of key is not supported: use RSA, ECDSA with P-256 or P-384, or Ed25519";
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

/// webpki's checks, with two changes: a server's own certificate may be among the authorities, as Go allows, and an
/// error about the name lists the names that the certificate does have.
#[derive(Debug)]
struct Verifier {
    authorities: Vec<CertificateDer<'static>>,
    /// `None` when there are no authorities.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(authorities: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok();
        Self { authorities, webpki, provider: Arc::clone(provider) }
    }

    fn verify_listed(&self, server: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        if !self.authorities.iter().any(|listed| listed == server) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let (_, certificate) = X509Certificate::from_der(server).map_err(|_| CertificateError::BadEncoding)?;
        let validity = certificate.validity();
        let time =
            |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        let (not_before, not_after) = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        verify_server_name(&ParsedCertificate::try_from(server)?, name)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Err(CertificateError::UnknownIssuer.into());
        let verified = self
            .webpki
            .as_ref()
            .map_or_else(unknown, |webpki| webpki.verify_server_cert(server, chain, name, ocsp, now));
        let verified = match verified {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))) => {
                self.verify_listed(server, name, now).map(|()| ServerCertVerified::assertion())
            }
            other => other,
        };
        verified.map_err(|err| match err {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, .. }) => {
                CertificateError::NotValidForNameContext { expected, presented: names(server) }.into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The host names and addresses in a certificate.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from);
            let address = v4.or_else(|| <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from))?;
            Some(address.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}
