//! Which certificates and keys connect: every cell of the tables is tried with a real member, with etcd's own proxy (Go's
//! TLS) and with ours. docs/compatibility.md shows the same tables.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::{Authority, Pair};
use crate::support::{Cluster, Lines, Process, Tls, command, etcdproxy, free_addr, is_ready, link, unique_host};

/// What happens with a certificate or key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// etcd's proxy and ours connect.
    Connects,
    /// Both refuse it; ours with this problem.
    Refused(&'static str),
    /// etcd's proxy connects. Ours does not, with this problem; in mode grpc-proxy that is a note and no verdict.
    OnlyEtcd(&'static str),
}
use Outcome::{Connects, OnlyEtcd, Refused};

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";
const P384: &str = "EC -pkeyopt ec_paramgen_curve:P-384";
const P521: &str = "EC -pkeyopt ec_paramgen_curve:P-521";
const ED25519: &str = "ED25519";
const RSA: &str = "RSA -pkeyopt rsa_keygen_bits:2048";
const RSA_E3: &str = "RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3";
const RSA_1024: &str = "RSA -pkeyopt rsa_keygen_bits:1024";

/// Certificates that openssl makes.
struct Office {
    dir: TempDir,
    host: String,
    next: std::cell::Cell<u32>,
}

/// A certificate with its key, as files.
struct Issued {
    cert: PathBuf,
    key: PathBuf,
}

impl Issued {
    fn pem(&self) -> String {
        fs::read_to_string(&self.cert).unwrap()
    }

    /// With these certificates after its own.
    fn with(&self, others: &[&Issued]) -> Pair {
        let chain: String = [self].iter().chain(others).map(|it| it.pem()).collect();
        Pair { cert: chain, key: fs::read_to_string(&self.key).unwrap() }
    }
}

/// What the proxy trusts, and what the member shows.
type Shown = (String, Pair);

impl Office {
    fn new(host: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), host: host.to_owned(), next: 1.into() }
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.next.set(self.next.get() + 1);
        self.dir.path().join(format!("{}.{kind}", self.next.get()))
    }

    fn key(&self, kind: &str) -> PathBuf {
        let path = self.path("key");
        openssl(&format!("genpkey -out {} -algorithm {kind}", path.display()));
        path
    }

    /// Makes a certificate for a key. `options` are those of `openssl x509`; without an issuer it signs itself.
    fn certify(&self, issuer: Option<&Issued>, key: PathBuf, name: &str, extensions: &str, options: &str) -> Issued {
        let (config, request, cert) = (self.path("cnf"), self.path("csr"), self.path("crt"));
        let extensions = extensions.replace("{host}", &self.host);
        fs::write(&config, format!("[req]\ndistinguished_name=dn\n[dn]\n[x]\n{extensions}\n")).unwrap();
        let [config_, request_, cert_, key_] = [&config, &request, &cert, &key].map(|path| path.display().to_string());
        openssl(&format!("req -new -config {config_} -key {key_} -out {request_} -subj {name}"));
        let signer = match issuer {
            Some(issuer) => format!("-CA {} -CAkey {}", issuer.cert.display(), issuer.key.display()),
            None => format!("-signkey {key_}"),
        };
        let extensions =
            if extensions.is_empty() { String::new() } else { format!("-extfile {config_} -extensions x") };
        let serial = if options.contains("-set_serial") { "" } else { "-set_serial 7" };
        let days = if options.contains("-days") { "" } else { "-days 90" };
        openssl(&format!("x509 -req -in {request_} -out {cert_} {signer} {extensions} {serial} {days} {options}"));
        Issued { cert, key }
    }

    fn root(&self, kind: &str) -> Issued {
        self.certify(None, self.key(kind), "/CN=root", AUTHORITY, "")
    }

    fn root_with(&self, extensions: &str) -> Issued {
        self.certify(None, self.key(P256), "/CN=root", extensions, "")
    }

    /// A server's certificate for the host.
    fn server(&self, issuer: &Issued, kind: &str, options: &str) -> Issued {
        self.certify(Some(issuer), self.key(kind), "/CN=member", "subjectAltName=IP:{host}", options)
    }

    fn server_with(&self, issuer: &Issued, extensions: &str) -> Issued {
        self.certify(Some(issuer), self.key(P256), "/CN=member", extensions, "")
    }

    /// A server of an authority, with these kinds of keys.
    fn kinds(&self, authority: &str, server: &str, options: &str) -> Shown {
        let root = self.root(authority);
        (root.pem(), self.server(&root, server, options).with(&[]))
    }

    /// A server of a usual authority, with these extensions.
    fn extensions(&self, extensions: &str) -> Shown {
        let root = self.root(P256);
        (root.pem(), self.server_with(&root, extensions).with(&[]))
    }

    /// A usual server of an authority with these extensions.
    fn authority(&self, extensions: &str) -> Shown {
        let root = self.root_with(extensions);
        (root.pem(), self.server(&root, P256, "").with(&[]))
    }

    /// A certificate that signs itself, and is the configured authority as well.
    fn own(&self, kind: &str, extensions: &str) -> Shown {
        let own = self.certify(None, self.key(kind), "/O=etcd", extensions, "");
        (own.pem(), own.with(&[]))
    }

    /// Root, intermediate authority, server.
    fn three(&self, root_extensions: &str) -> [Issued; 3] {
        let root = self.root_with(root_extensions);
        let middle = self.certify(Some(&root), self.key(P256), "/CN=middle", AUTHORITY, "");
        let server = self.server(&middle, P256, "");
        [root, middle, server]
    }

    /// A usual server of an intermediate authority with these extensions, whose certificate the member sends along.
    /// `forge` names bytes to replace in the authority's certificate. (etcd does not load a forged one as its own.)
    fn middle(&self, extensions: &str, forge: Option<[&[u8]; 2]>) -> Shown {
        let root = self.root(RSA);
        let middle = self.certify(Some(&root), self.key(P256), "/CN=middle", extensions, "");
        let middle = if let Some(replace) = forge { self.forge(&root, &middle, replace) } else { middle };
        (root.pem(), self.server(&middle, P256, "").with(&[&middle]))
    }

    /// Replaces bytes in the signed part of a certificate, and signs it again with the RSA key of its issuer.
    fn forge(&self, issuer: &Issued, old: &Issued, [from, to]: [&[u8]; 2]) -> Issued {
        let [der, body, signature, cert] = ["der", "body", "signature", "crt"].map(|kind| self.path(kind));
        openssl(&format!("x509 -in {} -outform DER -out {}", old.cert.display(), der.display()));
        let mut bytes = fs::read(&der).unwrap();
        // The signed part follows the header of the whole, and the signature of 2048 bits is at the end.
        let signed = 4..4 + X509Certificate::from_der(&bytes).unwrap().1.tbs_certificate.as_ref().len();
        let at = 4 + bytes[signed.clone()].windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(&body, &bytes[signed]).unwrap();
        let [key, signature_, body] = [&issuer.key, &signature, &body].map(|path| path.display());
        openssl(&format!("dgst -sha256 -sign {key} -out {signature_} {body}"));
        bytes.truncate(bytes.len() - 256);
        bytes.extend(fs::read(&signature).unwrap());
        fs::write(&der, bytes).unwrap();
        openssl(&format!("x509 -inform DER -in {} -out {}", der.display(), cert.display()));
        Issued { cert, key: old.key.clone() }
    }
}

/// Makes the extension 1.2.29.N to 2.5.29.N. openssl does not write the same extension twice.
const TO_STANDARD: [&[u8]; 2] = [&[0x06, 0x03, 0x2a, 0x1d], &[0x06, 0x03, 0x55, 0x1d]];
/// Makes RSA with SHA-256 to RSA with SHA-384.
const TO_SHA384: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]];

#[track_caller]
fn openssl(args: &str) {
    let done = Command::new("openssl").args(args.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A name for people, what happens, and the certificates.
type Case = (&'static str, Outcome, fn(&Office) -> Shown);

/// All tables for people: a title, and names with what happens.
pub(crate) fn tables() -> [(&'static str, Vec<(&'static str, String)>); 5] {
    let words = |outcome: &Outcome| match outcome {
        Connects => "connects".to_owned(),
        Refused(why) => format!("refused, by etcd too: `{why}`"),
        OnlyEtcd(why) => format!("only etcd's proxy; ours says `{why}`"),
    };
    let rows = |cases: &[Case]| cases.iter().map(|(name, outcome, _)| (*name, words(outcome))).collect();
    let keys = CLIENT_KEYS.iter().map(|(name, outcome, _)| (*name, words(outcome))).collect();
    [
        ("Members: keys and signatures", rows(KEYS_AND_SIGNATURES)),
        ("Members that speak TLS 1.2 only", rows(TLS_1_2)),
        ("Members' certificates", rows(SERVERS)),
        ("Authorities and chains", rows(AUTHORITIES)),
        ("Keys of client certificates", keys),
    ]
}

const KEYS_AND_SIGNATURES: &[Case] = &[
    ("P-256", Connects, |it| it.kinds(P256, P256, "")),
    ("P-384", Connects, |it| it.kinds(P384, P384, "")),
    ("P-521", Connects, |it| it.kinds(P521, P521, "")),
    ("P-521, signed by a P-256 authority", Connects, |it| it.kinds(P256, P521, "")),
    ("P-256 authority that signs with SHA-384", Connects, |it| it.kinds(P256, P256, "-sha384")),
    ("P-256 authority that signs with SHA-512", Connects, |it| it.kinds(P256, P256, "-sha512")),
    ("P-384 authority that signs with SHA-256", Connects, |it| it.kinds(P384, P256, "-sha256")),
    ("P-521 authority that signs with SHA-256", Connects, |it| it.kinds(P521, P256, "-sha256")),
    ("Ed25519", Connects, |it| it.kinds(ED25519, ED25519, "")),
    ("RSA 2048", Connects, |it| it.kinds(RSA, RSA, "")),
    ("RSA with the exponent 3", Connects, |it| it.kinds(RSA_E3, RSA_E3, "")),
    ("RSA-PSS signature", Connects, |it| it.kinds(RSA, RSA, "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32")),
    ("RSA 1024, signed by a P-256 authority", OnlyEtcd("its certificate has an RSA key of 1024 bits"), |it| {
        it.kinds(P256, RSA_1024, "")
    }),
    ("RSA 1024 authority", OnlyEtcd("its authority has an RSA key of 1024 bits"), |it| it.kinds(RSA_1024, P256, "")),
    ("SHA-1 signature", Refused("its signature uses SHA-1 or MD5"), |it| it.kinds(RSA, P256, "-sha1")),
];

/// With members that speak only TLS 1.2, whose handshakes are signed in another way.
const TLS_1_2: &[Case] = &[
    ("TLS 1.2, P-256", Connects, |it| it.kinds(P256, P256, "")),
    ("TLS 1.2, P-384", Connects, |it| it.kinds(P256, P384, "")),
    ("TLS 1.2, P-521", Connects, |it| it.kinds(P256, P521, "")),
    ("TLS 1.2, Ed25519", Connects, |it| it.kinds(P256, ED25519, "")),
    ("TLS 1.2, RSA 2048", Connects, |it| it.kinds(P256, RSA, "")),
    ("TLS 1.2, authority limited to the member's network", Connects, |it| {
        it.authority(&format!("{AUTHORITY}\nnameConstraints=critical,permitted;IP:127.0.0.0/255.0.0.0"))
    }),
];

const SERVERS: &[Case] = &[
    ("made by etcd --auto-tls, given as the authority", Connects, |it| {
        let usages = "keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth";
        it.own(P521, &format!("{usages}\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=IP:{{host}}"))
    }),
    ("self-signed with CA:TRUE, given as the authority", Connects, |it| {
        it.own(P256, &format!("{AUTHORITY}\nsubjectAltName=IP:{{host}}"))
    }),
    ("CA:TRUE, signed by another authority", Connects, |it| {
        it.extensions(&format!("{AUTHORITY}\nsubjectAltName=IP:{{host}}"))
    }),
    ("extended key usage: any", Connects, |it| {
        it.extensions("subjectAltName=IP:{host}\nextendedKeyUsage=anyExtendedKeyUsage")
    }),
    ("extended key usage: client only", Refused("it is not made for servers"), |it| {
        it.extensions("subjectAltName=IP:{host}\nextendedKeyUsage=clientAuth")
    }),
    ("key usage without digital signature", Connects, |it| {
        it.extensions("subjectAltName=IP:{host}\nkeyUsage=critical,keyAgreement")
    }),
    ("empty subject, names are critical", Connects, |it| {
        let root = it.root(P256);
        let san = "subjectAltName=critical,IP:{host}";
        (root.pem(), it.certify(Some(&root), it.key(P256), "/", san, "").with(&[]))
    }),
    ("odd names beside the right one", Connects, |it| {
        it.extensions("subjectAltName=DNS:a b,DNS:*,DNS:*.*.x,DNS:h\\:2379,DNS:_e.,email:x@y,URI:urn:x,IP:{host}")
    }),
    ("only a common name", Refused("its certificate names no host"), |it| {
        let root = it.root(P256);
        let name = format!("/CN={}", it.host);
        (root.pem(), it.certify(Some(&root), it.key(P256), &name, "basicConstraints=CA:FALSE", "").with(&[]))
    }),
    ("an address written as a host name", Refused("write one of these names in the endpoint"), |it| {
        it.extensions("subjectAltName=DNS:{host}")
    }),
    ("X.509 version 1", Refused("its certificate names no host"), |it| it.extensions("")),
    ("critical extension that nobody knows", Refused("a critical extension is unknown (1.2.3.4)"), |it| {
        it.extensions("subjectAltName=IP:{host}\n1.2.3.4=critical,DER:05:00")
    }),
    ("extension that nobody knows", Connects, |it| it.extensions("subjectAltName=IP:{host}\n1.2.3.4=DER:05:00")),
    ("critical policies", Connects, |it| {
        it.extensions("subjectAltName=IP:{host}\ncertificatePolicies=critical,1.2.3.4")
    }),
    ("serial number 0", Connects, |it| it.kinds(P256, P256, "-set_serial 0")),
    ("serial number of 30 bytes", Connects, |it| {
        it.kinds(P256, P256, "-set_serial 0x112233445566778899aabbccddeeff00112233445566778899aabbccddee")
    }),
    ("expired", Refused("its certificate expired on 20"), |it| {
        let root = Authority::new("root");
        (root.pem.clone(), root.server(&[&it.host], -2))
    }),
];

const AUTHORITIES: &[Case] = &[
    ("intermediate authority, sent by the member", Connects, |it| {
        let [root, middle, server] = it.three(AUTHORITY);
        (root.pem(), server.with(&[&middle]))
    }),
    ("chain in the wrong order, with duplicates and strangers", Connects, |it| {
        let [root, middle, server] = it.three(AUTHORITY);
        (root.pem(), server.with(&[&it.root(RSA), &root, &middle, &middle, &server]))
    }),
    ("intermediate authority, not sent", Refused("its certificate is not signed by the authority"), |it| {
        let [root, _, server] = it.three(AUTHORITY);
        (root.pem(), server.with(&[]))
    }),
    ("intermediate authority, given instead of the root", Connects, |it| {
        let [_, middle, server] = it.three(AUTHORITY);
        (middle.pem(), server.with(&[]))
    }),
    ("cross-signed authority, of which only the old root is trusted", Connects, |it| {
        let (old, new) = (it.root(P256), it.root(P384));
        let cross = it.certify(Some(&old), new.key.clone(), "/CN=new", AUTHORITY, "");
        let new = it.certify(None, new.key.clone(), "/CN=new", AUTHORITY, "");
        (old.pem(), it.server(&new, P256, "").with(&[&new, &cross]))
    }),
    ("old and new authority with the same name", Connects, |it| {
        let (old, new) = (it.root(P256), it.root(P256));
        (old.pem() + &new.pem(), it.server(&new, P256, "").with(&[]))
    }),
    ("another authority with the same name", Refused("its certificate is not signed by the authority"), |it| {
        (it.root(P256).pem(), it.server(&it.root(P256), P256, "").with(&[]))
    }),
    ("authority of X.509 version 1", Connects, |it| it.authority("")),
    ("authority without basic constraints", Refused("is not marked as an authority"), |it| {
        it.authority("keyUsage=keyCertSign")
    }),
    ("authority with CA:FALSE", Refused("is not an authority (CA:FALSE)"), |it| {
        it.authority("basicConstraints=CA:FALSE")
    }),
    ("authority whose key usage lacks certificate sign", Refused("may not sign certificates"), |it| {
        it.authority("basicConstraints=CA:TRUE\nkeyUsage=cRLSign")
    }),
    ("authority for clients only", Refused("is not made for servers"), |it| {
        it.authority(&format!("{AUTHORITY}\nextendedKeyUsage=clientAuth"))
    }),
    ("authority for servers", Connects, |it| it.authority(&format!("{AUTHORITY}\nextendedKeyUsage=serverAuth"))),
    ("authority that allows no intermediate one", Refused("allows fewer intermediate authorities"), |it| {
        let [root, middle, server] = it.three("basicConstraints=CA:TRUE,pathlen:0\nkeyUsage=keyCertSign");
        (root.pem(), server.with(&[&middle]))
    }),
    ("authority limited to the member's network", Connects, |it| {
        it.authority(&format!("{AUTHORITY}\nnameConstraints=critical,permitted;IP:127.0.0.0/255.0.0.0"))
    }),
    ("authority limited to another network", Refused("is not allowed to sign for all of its names"), |it| {
        it.authority(&format!("{AUTHORITY}\nnameConstraints=critical,permitted;IP:10.0.0.0/255.0.0.0"))
    }),
    ("authority limited to a domain, for an address", Connects, |it| {
        it.authority(&format!("{AUTHORITY}\nnameConstraints=critical,permitted;DNS:example.org"))
    }),
    ("authority that excludes the member's network", Refused("is not allowed to sign for all of its names"), |it| {
        it.authority(&format!("{AUTHORITY}\nnameConstraints=excluded;IP:127.0.0.0/255.0.0.0"))
    }),
    ("authority that excludes a name, for a wildcard", Refused("is not allowed to sign for all of its names"), |it| {
        let root = it.root_with(&format!("{AUTHORITY}\nnameConstraints=excluded;DNS:evil.example.org"));
        (root.pem(), it.server_with(&root, "subjectAltName=IP:{host},DNS:*.example.org").with(&[]))
    }),
    ("authority that excludes a name, for another wildcard", Connects, |it| {
        let root = it.root_with(&format!("{AUTHORITY}\nnameConstraints=excluded;DNS:evil.example.org"));
        (root.pem(), it.server_with(&root, "subjectAltName=IP:{host},DNS:*.x.example.org").with(&[]))
    }),
    ("authority that excludes a name, for the name with a final dot", Refused("is not a host name"), |it| {
        let root = it.root_with(&format!("{AUTHORITY}\nnameConstraints=excluded;DNS:evil.example.org"));
        (root.pem(), it.server_with(&root, "subjectAltName=IP:{host},DNS:evil.example.org.").with(&[]))
    }),
    ("intermediate authority that excludes a name with a final dot", Refused("is not a domain or network"), |it| {
        it.middle(&format!("{AUTHORITY}\nnameConstraints=excluded;DNS:evil.example.org."), None)
    }),
    ("intermediate authority with name constraints twice", Refused("contains an extension twice"), |it| {
        let limits = "nameConstraints=excluded;IP:127.0.0.0/255.0.0.0\n1.2.29.30=DER:30:07:a1:05:30:03:82:01:78";
        it.middle(&format!("{AUTHORITY}\n{limits}"), Some(TO_STANDARD))
    }),
    ("intermediate authority with key usage twice", Refused("contains an extension twice"), |it| {
        let usages = "keyUsage=cRLSign\n1.2.29.15=DER:03:02:01:02";
        it.middle(&format!("basicConstraints=CA:TRUE\n{usages}"), Some(TO_STANDARD))
    }),
    ("intermediate authority with extended key usage twice", Refused("contains an extension twice"), |it| {
        let usages = "extendedKeyUsage=clientAuth\n1.2.29.37=DER:30:0a:06:08:2b:06:01:05:05:07:03:02";
        it.middle(&format!("{AUTHORITY}\n{usages}"), Some(TO_STANDARD))
    }),
    ("intermediate authority with two signature algorithms", Refused("two different signature algorithms"), |it| {
        it.middle(AUTHORITY, Some(TO_SHA384))
    }),
    ("authority with critical limits of another kind", Refused("a critical extension is unknown (2.5.29.30)"), |it| {
        it.authority(&format!("{AUTHORITY}\nnameConstraints=critical,permitted;dirName:dir\n[dir]\nO=x"))
    }),
    ("authority with a critical rule about policies", OnlyEtcd("a critical rule about policies"), |it| {
        it.authority(&format!("{AUTHORITY}\ninhibitAnyPolicy=critical,0"))
    }),
    ("expired authority, beside one that has not signed", Refused("its authority (CN=root) expired on 20"), |it| {
        let (expired, server) = Authority::expired("root", &it.host);
        (expired + &it.root(P384).pem(), server)
    }),
    ("text around the PEM blocks", Connects, |it| {
        let (ca, pair) = it.kinds(P256, P256, "");
        let text = "Subject: CN=M\u{fc}ller\n-----ENCRYPTED-----\n";
        (format!("{text}{ca}{text}"), pair)
    }),
];

/// What etcd's own proxy does: whether it connects.
fn etcd_connects(dir: &Path, endpoint: &str, files: &[(&str, PathBuf)]) -> bool {
    let host = unique_host();
    let addr = free_addr(&host);
    let mut etcd = command(&dir.join("etcd"), ["grpc-proxy", "start", "--endpoints", endpoint]);
    etcd.args(["--listen-addr", &addr, "--advertise-client-url", &addr]).stderr(Stdio::piped());
    for (flag, file) in files {
        if *flag == "--cacert" && files.len() == 1 {
            etcd.env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", "/dev/null");
        } else {
            etcd.arg(flag).arg(file);
        }
    }
    let mut etcd = Process::start(&mut etcd);
    let lines = Lines::of(&mut etcd);
    let mut log = String::new();
    loop {
        while let Some(line) = lines.next(Duration::from_millis(50)) {
            log += &line;
            let ends = ["authentication handshake failed", "remote error: tls:", "error reading server preface"];
            if ends.iter().any(|end| line.contains(end)) {
                return false;
            }
        }
        assert!(etcd.is_running(), "{log}");
        if is_ready(&addr) {
            return true;
        }
    }
}

/// What ours does in this mode: it starts, or ends with a line and this code.
fn ours(mode: &str, endpoint: &str, files: &[(&str, PathBuf)]) -> Result<String, (i32, String)> {
    let addr = free_addr(&unique_host());
    let mut run = etcdproxy(["run", "--preflight", "strict", "--mode", mode, "--endpoints", endpoint]);
    run.args(["--drain", "0s", "--listen-addr", &addr]).stderr(Stdio::piped());
    for (flag, file) in files {
        run.arg(flag).arg(file);
    }
    let mut proxy = Process::start(&mut run);
    let mut log = String::new();
    for line in BufReader::new(proxy.stderr()).lines().map_while(Result::ok) {
        log += &line;
        if line.contains("listens on") || line.contains("listening for gRPC proxy") {
            return Ok(log);
        }
    }
    Err((proxy.wait().code().unwrap(), log))
}

#[track_caller]
fn check(name: &str, expected: Outcome, dir: &Path, endpoint: &str, files: &[(&str, PathBuf)]) {
    let etcd = etcd_connects(dir, endpoint, files);
    let proxy = ours("native", endpoint, files);
    let found = format!("etcd: {etcd}, ours: {proxy:?}");
    match expected {
        Connects => assert!(etcd && proxy.is_ok(), "{name}: {found}"),
        Refused(problem) => {
            assert!(!etcd, "{name}: {found}");
            assert!(matches!(&proxy, Err((69, log)) if log.contains(problem)), "{name}: {found}");
        }
        OnlyEtcd(problem) => {
            assert!(etcd, "{name}: {found}");
            assert!(matches!(&proxy, Err((69 | 78, log)) if log.contains(problem)), "{name}: {found}");
            let etcds = ours("grpc-proxy", endpoint, files);
            assert!(matches!(&etcds, Ok(log) if log.contains(problem)), "{name}: {etcds:?}");
        }
    }
}

/// Tries each case with one member, which has these flags, and whose certificate changes with the case.
fn try_all(flags: &[&str], cases: &[Case]) {
    let host = unique_host();
    let office = Office::new(&host);
    let dir = office.dir.path();
    link(dir, "etcd");
    let tls = Tls { server: Authority::new("first").server(&[&host], 9), client_ca: None };
    let member = Cluster::start_tls_with(&host, tls, flags);
    for (name, expected, make) in cases {
        let (trusted, shown) = make(&office);
        member.renew_member(0, &shown);
        let ca = office.path("pem");
        // Latin-1: not everything around PEM is UTF-8.
        let latin1: Vec<u8> = trusted.chars().map(|c| u8::try_from(c).unwrap()).collect();
        fs::write(&ca, latin1).unwrap();
        check(name, *expected, dir, &member.endpoints(), &[("--cacert", ca)]);
    }
}

#[test]
fn keys_and_signatures() {
    try_all(&[], KEYS_AND_SIGNATURES);
}

#[test]
fn members_with_tls_1_2() {
    try_all(&["--tls-max-version=TLS1.2"], TLS_1_2);
}

#[test]
fn certificates_of_members() {
    try_all(&[], SERVERS);
}

#[test]
fn certificates_of_authorities() {
    try_all(&[], AUTHORITIES);
}

/// A name for people, what happens, and the client's key.
type KeyCase = (&'static str, Outcome, fn(&Office) -> PathBuf);

/// Writes a key again in another form.
fn rewritten(office: &Office, kind: &str, command: &str) -> PathBuf {
    let (key, new) = (office.key(kind), office.path("key"));
    openssl(&format!("{command} -in {} -out {}", key.display(), new.display()));
    new
}

const CLIENT_KEYS: &[KeyCase] = &[
    ("P-256", Connects, |it| it.key(P256)),
    ("P-384", Connects, |it| it.key(P384)),
    ("P-521", Connects, |it| it.key(P521)),
    ("Ed25519", Connects, |it| it.key(ED25519)),
    ("RSA 2048", Connects, |it| it.key(RSA)),
    ("RSA 2048, PKCS#1", Connects, |it| rewritten(it, RSA, "rsa -traditional")),
    ("RSA with the exponent 3", Connects, |it| it.key(RSA_E3)),
    ("RSA 1024", OnlyEtcd("this kind of key is not supported"), |it| it.key(RSA_1024)),
    ("P-256, SEC1", Connects, |it| rewritten(it, P256, "ec")),
    ("P-256, SEC1 after its parameters", Connects, |it| {
        let key = rewritten(it, P256, "ec");
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        fs::write(&key, parameters.to_owned() + &fs::read_to_string(&key).unwrap()).unwrap();
        key
    }),
    ("P-256 without its public part, SEC1", Connects, |it| rewritten(it, P256, "ec -no_public")),
    ("P-256 without its public part, PKCS#8 (Java)", Connects, |it| {
        let (key, new) = (rewritten(it, P256, "ec -no_public"), it.path("key"));
        openssl(&format!("pkcs8 -topk8 -nocrypt -in {} -out {}", key.display(), new.display()));
        new
    }),
    ("P-521 without its public part, SEC1", Connects, |it| rewritten(it, P521, "ec -no_public")),
];

fn try_keys(cases: &[KeyCase]) {
    let host = unique_host();
    let office = Office::new(&host);
    let dir = office.dir.path();
    link(dir, "etcd");
    let root = office.root(P256);
    let server = office.server(&root, P256, "").with(&[]);
    let member = Cluster::start_on(&host, 1, Some(Tls { server, client_ca: Some(root.pem()) }));
    for (name, expected, make) in cases {
        let key = make(&office);
        let client = office.certify(Some(&root), key, "/O=app", "extendedKeyUsage=clientAuth", "");
        let files = [("--cacert", root.cert.clone()), ("--cert", client.cert), ("--key", client.key)];
        check(name, *expected, dir, &member.endpoints(), &files);
    }
}

#[test]
fn keys_of_clients() {
    try_keys(CLIENT_KEYS);
}

#[test]
#[ignore = "needs half a minute: makes an RSA key of 8192 bits"]
fn long_keys_of_clients() {
    try_keys(&[("RSA 8192", Connects, |it| it.key("RSA -pkeyopt rsa_keygen_bits:8192"))]);
}
