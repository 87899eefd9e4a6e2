//! Whether a server's certificates are to be trusted, by the rules of Go (`Certificate.Verify` in crypto/x509).
//!
//! etcd's own proxy and etcd's own clients use Go's rules. webpki, which rustls uses, is stricter in some places (a
//! server's certificate may not be that of an authority) and looser in others (it does not look at the dates of an
//! authority). With one set of rules, a member that etcd's proxy can use is good here too, and the other way round.

use std::mem::discriminant;
use std::net::IpAddr;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};
use x509_parser::asn1_rs::{Any, FromDer as _, Oid, oid};
use x509_parser::certificate::BasicExtension;
use x509_parser::extensions::GeneralSubtree;
use x509_parser::prelude::{
    GeneralName, NameConstraints, ParsedExtension, SubjectPublicKeyInfo, X509Certificate, X509Error, X509Extension,
    X509Version,
};
use x509_parser::public_key::PublicKey;

/// Go gives up after so many signatures, because a server could send certificates that form very many chains.
const MAX_SIGNATURE_CHECKS: u32 = 100;

/// Signatures that Go refuses because they can be forged: MD5 and SHA-1, with RSA, ECDSA and DSA.
const INSECURE: [Oid<'static>; 4] =
    [oid!(1.2.840.113549.1.1.4), oid!(1.2.840.113549.1.1.5), oid!(1.2.840.10045.4.1), oid!(1.2.840.10040.4.3)];

/// Why a server's certificates are not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no trusted authority has signed it")]
    UnknownAuthority,
    #[error("{} expired", .0.is())]
    Expired(Owner, UnixTime),
    #[error("{} is not valid yet", .0.is())]
    NotYetValid(Owner, UnixTime),
    /// The name that it should have, and those that it has.
    #[error("it has another name")]
    WrongName(String, Vec<String>),
    /// Go refuses it too.
    #[error("{0}")]
    Invalid(String),
    /// Go may accept it.
    #[error("{0}")]
    Unsupported(String),
}

/// Whose certificate has a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Server,
    /// With its subject.
    Authority(String),
}

impl Owner {
    /// The subject of a sentence about its certificate.
    pub(super) fn is(&self) -> String {
        match self {
            Self::Server => "its certificate".to_owned(),
            Self::Authority(subject) => format!("the certificate of its authority ({subject})"),
        }
    }
}

/// A certificate that is trusted.
#[derive(Debug)]
pub(super) struct Trusted {
    der: CertificateDer<'static>,
    /// So that a handshake parses only those of many authorities that it may need.
    subject: Vec<u8>,
}

impl Trusted {
    /// `None` if it is not an X.509 certificate. The system's directory can contain such files.
    pub(super) fn new(der: CertificateDer<'static>) -> Option<Self> {
        let subject = Certificate::parse(&der).ok()?.subject().to_owned();
        Some(Self { der, subject })
    }
}

/// Verifies the certificates that a server shows: its own, and those that it sends along.
pub(super) struct Chain<'a> {
    pub server: &'a CertificateDer<'a>,
    pub sent: &'a [CertificateDer<'a>],
    pub trusted: &'a [Trusted],
    pub algorithms: &'a WebPkiSupportedAlgorithms,
    pub now: UnixTime,
}

impl Chain<'_> {
    /// # Errors
    /// When Go would not trust the server, or may do so for a reason that is not known here.
    pub(super) fn verify(&self, host: &str) -> Result<(), Refusal> {
        let server = Certificate::parse(self.server)?;
        check_rsa_key(server.x509.public_key(), "its certificate")?;
        // Go's handshake fails at a certificate that it cannot read, even if no chain needs it.
        let sent = self.sent.iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>()?;
        let issuers: Vec<&[u8]> = sent.iter().chain([&server]).map(Certificate::issuer).collect();
        let trusted = self.trusted.iter().filter(|it| issuers.contains(&it.subject.as_slice()));
        let trusted: Vec<_> = trusted.filter_map(|it| Certificate::parse(&it.der).ok()).collect();
        server.check_extensions()?;
        server.check_time(self.now, Owner::Server)?;
        if !server.has_name(host) {
            return Err(Refusal::WrongName(host.to_owned(), server.names()));
        }
        let mut search = Search { chain: self, sent: &sent, trusted: &trusted, left: MAX_SIGNATURE_CHECKS, why: None };
        // Whoever names the server's own certificate as an authority trusts it (`etcd --auto-tls` makes such ones).
        let found = if self.trusted.iter().any(|it| it.der == *self.server) {
            check_purposes(&[&server]).map_err(|why| search.why = Some(why)).is_ok()
        } else {
            search.extend(&mut vec![&server])
        };
        if found { Ok(()) } else { Err(search.why.unwrap_or(Refusal::UnknownAuthority)) }
    }
}

/// A search for a chain to a trusted certificate.
struct Search<'a> {
    chain: &'a Chain<'a>,
    sent: &'a [Certificate<'a>],
    trusted: &'a [Certificate<'a>],
    /// How many more signatures may be checked.
    left: u32,
    /// Why a chain that looked right is not; the first reason is the most useful one.
    why: Option<Refusal>,
}

impl<'a> Search<'a> {
    /// Extends a chain, which begins with the server's certificate, until it ends with a trusted one.
    fn extend(&mut self, chain: &mut Vec<&'a Certificate<'a>>) -> bool {
        let (sent, trusted) = (self.sent, self.trusted);
        trusted.iter().any(|candidate| self.try_candidate(candidate, true, chain))
            || sent.iter().any(|candidate| self.try_candidate(candidate, false, chain))
    }

    fn try_candidate(
        &mut self,
        candidate: &'a Certificate<'a>,
        is_trusted: bool,
        chain: &mut Vec<&'a Certificate<'a>>,
    ) -> bool {
        let Some(child) = chain.last().copied() else { return false };
        let is_in_chain = chain.iter().any(|other| other.is_same_as(candidate));
        if candidate.subject() != child.issuer() || is_in_chain || self.left == 0 {
            return false;
        }
        self.left -= 1;
        let checked = self.check(candidate, is_trusted, chain, child);
        if let Err(why) = checked {
            // A certificate of the right name with another key is no reason: it has not signed anything.
            if let Some(why) = why {
                self.why.get_or_insert(why);
            }
            return false;
        }
        chain.push(candidate);
        let found = if is_trusted {
            match check_purposes(chain) {
                Ok(()) => true,
                Err(why) => {
                    self.why.get_or_insert(why);
                    false
                }
            }
        } else {
            self.extend(chain)
        };
        chain.pop();
        found
    }

    /// `CheckSignatureFrom` and `isValid` of Go. An error without a reason means that it is not the issuer.
    fn check(
        &self,
        issuer: &Certificate<'_>,
        is_trusted: bool,
        chain: &[&Certificate<'_>],
        child: &Certificate<'_>,
    ) -> Result<(), Option<Refusal>> {
        child.check_signature(issuer, self.chain.algorithms)?;
        let owner = || issuer.x509.subject().to_string();
        let invalid = |problem: &str| Err(Some(Refusal::Invalid(format!("its authority ({}) {problem}", owner()))));
        let constraints = issuer.basic_constraints()?;
        let may_be_v1 = is_trusted && issuer.x509.version() != X509Version::V3;
        match constraints {
            None if !may_be_v1 => return invalid("is not marked as an authority (basic constraints are missing)"),
            Some((false, _)) => return invalid("is not an authority (CA:FALSE)"),
            _ => {}
        }
        if value(issuer.x509.key_usage())?.is_some_and(|usage| !usage.key_cert_sign()) {
            return invalid("may not sign certificates (its key usage lacks Certificate Sign)");
        }
        issuer.check_extensions()?;
        issuer.check_time(self.chain.now, Owner::Authority(owner()))?;
        if constraints.and_then(|(_, longest)| longest).is_some_and(|longest| chain.len() - 1 > longest) {
            return invalid("allows fewer intermediate authorities than there are (path length)");
        }
        for below in chain {
            issuer.check_name_constraints(below)?;
        }
        Ok(())
    }
}

/// Every certificate of the chain must be made for servers, if it says what it is made for.
fn check_purposes(chain: &[&Certificate<'_>]) -> Result<(), Refusal> {
    for (n, certificate) in chain.iter().enumerate() {
        let Some(usage) = value(certificate.x509.extended_key_usage())? else { continue };
        if !usage.any && !usage.server_auth {
            let owner = certificate.x509.subject().to_string();
            let whose = if n == 0 { "it".to_owned() } else { format!("its authority ({owner})") };
            return Err(Refusal::Invalid(format!(
                "{whose} is not made for servers (its extended key usage lacks TLS Web Server Authentication)"
            )));
        }
    }
    Ok(())
}

/// The value of an extension, if there is one. An extension that cannot be read must not count as absent.
fn value<T>(extension: Result<Option<BasicExtension<T>>, X509Error>) -> Result<Option<T>, Refusal> {
    match extension {
        Ok(extension) => Ok(extension.map(|extension| extension.value)),
        Err(err) => Err(Refusal::Invalid(format!("an extension of a certificate is damaged ({err})"))),
    }
}

/// A certificate, and what the parser does not keep of it.
struct Certificate<'a> {
    x509: X509Certificate<'a>,
    /// Contents of the signature's algorithm identifier.
    signature_algorithm: &'a [u8],
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, Refusal> {
        let damaged = || Refusal::Invalid("it contains something that is not an X.509 certificate".to_owned());
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| damaged())?;
        let (_, whole) = Any::from_der(der).map_err(|_| damaged())?;
        let after_body = whole.data.get(x509.tbs_certificate.as_ref().len()..).ok_or_else(damaged)?;
        let (_, algorithm) = Any::from_der(after_body).map_err(|_| damaged())?;
        if !rest.is_empty() {
            return Err(damaged());
        }
        if x509.raw_serial().first().is_some_and(|first| first & 0x80 != 0) {
            return Err(Refusal::Invalid("a serial number is negative".to_owned()));
        }
        if x509.signature_algorithm != x509.tbs_certificate.signature {
            return Err(Refusal::Invalid("a certificate names two different signature algorithms".to_owned()));
        }
        if x509.extensions_map().is_err() {
            return Err(Refusal::Invalid("a certificate contains an extension twice".to_owned()));
        }
        let is_broken =
            |extension: &&X509Extension<'_>| matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. });
        if let Some(extension) = x509.extensions().iter().find(is_broken) {
            return Err(Refusal::Invalid(format!("its extension {} is damaged", extension.oid)));
        }
        let certificate = Self { signature_algorithm: algorithm.data, x509 };
        let is_odd = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => !name.is_ascii(),
            GeneralName::IPAddress(bytes) => address(bytes).is_none(),
            GeneralName::Invalid(..) => true,
            _ => false,
        };
        if certificate.alternative_names().iter().any(is_odd) {
            return Err(Refusal::Invalid("one of its names or addresses is damaged".to_owned()));
        }
        let constraints = value(certificate.x509.name_constraints())?;
        if constraints.is_some_and(|it| !permitted_and_excluded(it).all(|tree| is_valid_limit(&tree.base))) {
            return Err(Refusal::Invalid(
                "an authority limits names to something that is not a domain or network".to_owned(),
            ));
        }
        Ok(certificate)
    }

    fn subject(&self) -> &[u8] {
        self.x509.subject().as_raw()
    }

    fn issuer(&self) -> &[u8] {
        self.x509.issuer().as_raw()
    }

    /// Go's `alreadyInChain`: the same subject, the same key and the same names.
    fn is_same_as(&self, other: &Self) -> bool {
        self.subject() == other.subject()
            && self.x509.public_key().raw == other.x509.public_key().raw
            && self.names() == other.names()
    }

    /// Whether it is an authority, and how many intermediate authorities it allows.
    fn basic_constraints(&self) -> Result<Option<(bool, Option<usize>)>, Refusal> {
        let longest = |length| usize::try_from(length).unwrap_or(usize::MAX);
        let constraints = value(self.x509.basic_constraints())?;
        Ok(constraints.map(|it| (it.ca, it.path_len_constraint.map(longest))))
    }

    /// Go refuses a critical extension that it does not know.
    fn check_extensions(&self) -> Result<(), Refusal> {
        let is_known = |tree: &GeneralSubtree<'_>| {
            use GeneralName::{DNSName, IPAddress, RFC822Name, URI};
            matches!(tree.base, DNSName(_) | IPAddress(_) | RFC822Name(_) | URI(_))
        };
        for extension in self.x509.extensions().iter().filter(|extension| extension.critical) {
            match extension.parsed_extension() {
                ParsedExtension::KeyUsage(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::CRLDistributionPoints(_)
                | ParsedExtension::CertificatePolicies(_) => {}
                ParsedExtension::NameConstraints(constraints) if permitted_and_excluded(constraints).all(is_known) => {}
                ParsedExtension::PolicyConstraints(_)
                | ParsedExtension::PolicyMappings(_)
                | ParsedExtension::InhibitAnyPolicy(_) => {
                    return Err(Refusal::Unsupported(format!(
                        "a certificate has a critical rule about policies ({}), which is not checked here",
                        extension.oid
                    )));
                }
                _ => {
                    return Err(Refusal::Invalid(format!("a critical extension is unknown ({})", extension.oid)));
                }
            }
        }
        Ok(())
    }

    fn check_time(&self, now: UnixTime, owner: Owner) -> Result<(), Refusal> {
        let validity = self.x509.validity();
        let time =
            |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        let (not_before, not_after) = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
        if now < not_before {
            return Err(Refusal::NotYetValid(owner, not_before));
        }
        if now > not_after { Err(Refusal::Expired(owner, not_after)) } else { Ok(()) }
    }

    /// Whether `issuer` has signed it. An error without a reason means that the signature is not the issuer's.
    fn check_signature(
        &self,
        issuer: &Certificate<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Option<Refusal>> {
        let algorithm = self.x509.signature_algorithm.oid();
        if INSECURE.contains(algorithm) {
            let problem = "its signature uses SHA-1 or MD5, which can be forged: issue it again with SHA-256";
            return Err(Some(Refusal::Invalid(problem.to_owned())));
        }
        let key = issuer.x509.public_key();
        let unsupported = || {
            let problem = format!("the kind of signature on a certificate ({algorithm}) is not supported here");
            Some(Refusal::Unsupported(problem))
        };
        let key_algorithm = key_algorithm(key.raw).ok_or_else(unsupported)?;
        let mut fitting = algorithms.all.iter().filter(|it| {
            it.public_key_alg_id().as_ref() == key_algorithm
                && it.signature_alg_id().as_ref() == self.signature_algorithm
        });
        let fitting = fitting.next().ok_or_else(unsupported)?;
        let (body, signature) = (self.x509.tbs_certificate.as_ref(), &self.x509.signature_value.data);
        if fitting.verify_signature(&key.subject_public_key.data, body, signature).is_ok() {
            return Ok(());
        }
        // It may be the issuer's all the same.
        Err(check_rsa_key(key, "its authority").err().filter(|refusal| matches!(refusal, Refusal::Unsupported(_))))
    }

    fn alternative_names(&self) -> &[GeneralName<'a>] {
        self.x509
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.as_slice()),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// Its host names and addresses, for people.
    fn names(&self) -> Vec<String> {
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => Some(address(bytes)?.to_string()),
            _ => None,
        };
        self.alternative_names().iter().filter_map(name).collect()
    }

    /// `VerifyHostname` of Go. The common name does not count.
    fn has_name(&self, host: &str) -> bool {
        if let Ok(wanted) = host.parse::<IpAddr>() {
            let is_wanted = |name: &GeneralName<'_>| match name {
                GeneralName::IPAddress(bytes) => {
                    address(bytes).is_some_and(|address| address.to_canonical() == wanted.to_canonical())
                }
                _ => false,
            };
            return self.alternative_names().iter().any(is_wanted);
        }
        self.alternative_names().iter().any(|name| matches!(name, GeneralName::DNSName(name) if is_name_of(name, host)))
    }

    /// The names in `below` must be among those that this authority may sign for.
    fn check_name_constraints(&self, below: &Certificate<'_>) -> Result<(), Refusal> {
        let Some(constraints) = value(self.x509.name_constraints())? else { return Ok(()) };
        let NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded } = constraints;
        for name in below.alternative_names() {
            // A name that is in no domain, such as one with a final dot, would escape every exclusion.
            if let GeneralName::DNSName(name) = name
                && !is_valid_domain(name)
            {
                return Err(Refusal::Invalid(format!(
                    "its authority ({}) limits names, and its name {name:?} is not a host name",
                    self.x509.subject()
                )));
            }
            let verdicts = |trees, is_in: fn(&str, &str) -> bool| -> Vec<bool> {
                Option::iter(trees).flatten().filter_map(|it| is_within(name, it, is_in)).collect()
            };
            let permitted: Vec<bool> = verdicts(permitted, is_below);
            let excluded: Vec<bool> = verdicts(excluded, may_be_below);
            if (!permitted.is_empty() && !permitted.contains(&true)) || excluded.contains(&true) {
                return Err(Refusal::Invalid(format!(
                    "its authority ({}) is not allowed to sign for all of its names",
                    self.x509.subject()
                )));
            }
            let is_checked = matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
            let is_of_kind = |tree: &GeneralSubtree<'_>| discriminant(&tree.base) == discriminant(name);
            if !is_checked && permitted_and_excluded(constraints).any(is_of_kind) {
                return Err(Refusal::Unsupported(
                    "its authority limits e-mail addresses or URIs, which is not checked here".to_owned(),
                ));
            }
        }
        Ok(())
    }
}

fn permitted_and_excluded<'a>(constraints: &'a NameConstraints<'a>) -> impl Iterator<Item = &'a GeneralSubtree<'a>> {
    constraints.permitted_subtrees.iter().chain(&constraints.excluded_subtrees).flatten()
}

/// Whether a limit for host names or addresses can be read. Others are left to [`Certificate::check_extensions`].
fn is_valid_limit(limit: &GeneralName<'_>) -> bool {
    match limit {
        GeneralName::DNSName(domain) => is_valid_domain(domain.strip_prefix('.').unwrap_or(domain)),
        GeneralName::IPAddress(network) => {
            let mask = network.get(network.len() / 2..).unwrap_or_default();
            let zeros = mask.iter().skip_while(|byte| **byte == 0xff);
            let is_prefix = zeros
                .enumerate()
                .all(|(n, byte)| *byte == 0 || (n == 0 && byte.leading_ones() == 8 - byte.trailing_zeros()));
            matches!(network.len(), 8 | 32) && is_prefix
        }
        GeneralName::Invalid(..) => false,
        _ => true,
    }
}

/// `domainNameValid` of Go: whether a name can be compared with domains, label by label.
fn is_valid_domain(name: &str) -> bool {
    name.is_empty() || name.split('.').all(|label| !label.is_empty() && label.bytes().all(|c| c.is_ascii_graphic()))
}

/// Whether a host name, by this rule, or an address is within a subtree of its kind; `None` for any other kind.
fn is_within(name: &GeneralName<'_>, tree: &GeneralSubtree<'_>, is_in: fn(&str, &str) -> bool) -> Option<bool> {
    match (name, &tree.base) {
        (GeneralName::DNSName(name), GeneralName::DNSName(domain)) => Some(is_in(name, domain)),
        (GeneralName::IPAddress(address), GeneralName::IPAddress(network)) => {
            let (prefix, mask) = network.split_at(network.len() / 2);
            let fits = |((byte, prefix), mask): ((&u8, &u8), &u8)| byte & mask == prefix & mask;
            Some(address.len() == prefix.len() && address.iter().zip(prefix).zip(mask).all(fits))
        }
        _ => None,
    }
}

/// Whether a name is in a domain; with a dot before the domain, it must be below it.
fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let (domain, is_strict) = domain.strip_prefix('.').map_or((domain.as_str(), false), |domain| (domain, true));
    match name.strip_suffix(domain) {
        Some("") => !is_strict || domain.is_empty(),
        Some(rest) => domain.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

/// Whether a name in a certificate may be used for a host in a domain: `*.b.c` also for the host `a.b.c`.
fn may_be_below(name: &str, domain: &str) -> bool {
    let is_beside = |(_, base): (&str, &str)| {
        name.starts_with('*') && domain.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(base))
    };
    is_below(name, domain) || name.split_once('.').is_some_and(is_beside)
}

/// Whether a name in a certificate, which may begin with `*.`, is that of a host.
fn is_name_of(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    if pattern == host {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(&host);
    let (patterns, labels): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    // A name of only one label has no wildcard, as in Go.
    let is_wildcard = patterns.len() > 1 && patterns[0] == "*";
    let skip = usize::from(is_wildcard);
    !host.is_empty() && patterns.len() == labels.len() && patterns[skip..] == labels[skip..]
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Contents of the algorithm identifier of a public key (`SubjectPublicKeyInfo`).
fn key_algorithm(public_key: &[u8]) -> Option<&[u8]> {
    let (_, whole) = Any::from_der(public_key).ok()?;
    Some(Any::from_der(whole.data).ok()?.1.data)
}

/// Go accepts RSA keys of 1024 to 8192 bits, our library those of 2048 to 8192 bits.
fn check_rsa_key(key: &SubjectPublicKeyInfo<'_>, owner: &str) -> Result<(), Refusal> {
    let Ok(PublicKey::RSA(rsa)) = key.parsed() else { return Ok(()) };
    match rsa.key_size() {
        bits @ (..1024 | 8193..) => {
            Err(Refusal::Invalid(format!("{owner} has an RSA key of {bits} bits: use one of 2048 to 8192 bits")))
        }
        bits @ 1024..2048 => Err(Refusal::Unsupported(format!(
            "{owner} has an RSA key of {bits} bits, and less than 2048 are not supported here"
        ))),
        _ => Ok(()),
    }
}

/// Whether the server that has this certificate has signed the handshake of TLS 1.2 or 1.3.
pub(super) fn verify_handshake(
    message: &[u8],
    server: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
    is_tls13: bool,
) -> Result<HandshakeSignatureValid, Error> {
    let (_, x509) = X509Certificate::from_der(server).map_err(|_| CertificateError::BadEncoding)?;
    let key = x509.public_key();
    if is_tls13 {
        let key = SubjectPublicKeyInfoDer::from(key.raw);
        return verify_tls13_signature_with_raw_key(message, &key, signature, algorithms);
    }
    let of_scheme = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signature.scheme);
    let fits = |it: &&&dyn SignatureVerificationAlgorithm| {
        key_algorithm(key.raw).is_some_and(|algorithm| it.public_key_alg_id().as_ref() == algorithm)
    };
    let fitting = of_scheme.flat_map(|(_, algorithms)| *algorithms).find(fits);
    let fitting = fitting.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    fitting
        .verify_signature(&key.subject_public_key.data, message, signature.signature())
        .map(|()| HandshakeSignatureValid::assertion())
        .map_err(|_| CertificateError::BadSignature.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases from Go's tests of crypto/x509, and a few more.
    #[test]
    fn names_of_hosts() {
        for (pattern, host, expected) in [
            ("a.b.c", "a.b.c", true),
            ("a.b.c", "b.b.c", false),
            ("a.b.c", "A.B.C.", true),
            ("A.b.C", "a.b.c", true),
            ("a.b.c.", "a.b.c.", true),
            ("a.b.c.", "a.b.c", false),
            ("*.b.c", "a.b.c", true),
            ("*.b.c", "a.b.c.", true),
            ("*.b.c", "b.c", false),
            ("*.b.c", "x.a.b.c", false),
            ("*.*.c", "a.b.c", false),
            ("a.*.c", "a.b.c", false),
            ("x*.b.c", "xa.b.c", false),
            ("*", "a", false),
            ("", ".", false),
            ("a_b", "a_b", true),
        ] {
            assert_eq!(is_name_of(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn names_in_a_domain() {
        for (name, domain, expected) in [
            ("example.org", "example.org", true),
            ("a.example.org", "example.org", true),
            ("*.example.org", "example.org", true),
            ("A.EXAMPLE.org", "example.ORG", true),
            ("badexample.org", "example.org", false),
            ("example.org", "a.example.org", false),
            ("a.example.org", ".example.org", true),
            ("example.org", ".example.org", false),
            ("example.org", "", true),
        ] {
            assert_eq!(is_below(name, domain), expected, "{name} {domain}");
        }
    }

    #[test]
    fn names_that_may_be_used_in_a_domain() {
        for (name, domain, expected) in [
            ("a.example.org", "example.org", true),
            ("*.example.org", "example.org", true),
            ("*.Example.org", "a.eXample.org", true),
            ("*.example.org", "x.a.example.org", false),
            ("*.example.org", ".a.example.org", false),
            ("*.example.org", "a.example.com", false),
            ("*.a.example.org", "a.example.org", true),
            ("*.a.example.org", "b.example.org", false),
            ("b.example.org", "a.example.org", false),
            ("*", "a", false),
        ] {
            assert_eq!(may_be_below(name, domain), expected, "{name} {domain}");
        }
    }

    #[test]
    fn limits_that_can_be_read() {
        for domain in ["", "org", ".example.org", "a_b.example.org"] {
            assert!(is_valid_limit(&GeneralName::DNSName(domain)), "{domain}");
        }
        for domain in ["example.org.", "..example.org", "a..org", "a b.org", "\u{e9}.org"] {
            assert!(!is_valid_limit(&GeneralName::DNSName(domain)), "{domain}");
        }
        for mask in [[0, 0, 0, 0], [255, 0, 0, 0], [255, 255, 240, 0], [255, 255, 255, 255]] {
            assert!(is_valid_limit(&GeneralName::IPAddress(&[[10, 0, 0, 0], mask].concat())), "{mask:?}");
        }
        for network in [&[][..], &[10, 255], &[10, 0, 0, 0, 255, 0, 255, 0], &[10, 0, 0, 0, 253, 0, 0, 0], &[0; 9]] {
            assert!(!is_valid_limit(&GeneralName::IPAddress(network)), "{network:?}");
        }
    }
}
