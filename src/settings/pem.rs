//! Certificates and keys as text (PEM), from files, the environment or a binding, in all the forms that people have.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::prelude::X509Certificate;

use super::error::Error;
use super::sources::{Origin, Value};
use crate::fs::regular;
use crate::os::log::without_errno;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// Beginnings of object identifiers in DER: the types of PKCS#7, which PKCS#12 contains, and two kinds of encryption
/// with a password.
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"; // 1.2.840.113549.1.7.*
const PBES: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05"; // 1.2.840.113549.1.5.*
const PBE: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c"; // 1.2.840.113549.1.12.1.*

/// What a value must contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Authorities,
    Certificate,
    /// An error must not show a value that looks like a path: a damaged private key can look like one.
    Key,
}

/// PEM text, with the name that its user knows. `Debug` does not show the text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    /// `--key`, `ETCDPROXY_KEY`, or the binding.
    pub name: String,
    /// Absolute path of the file it was read from, if etcd can read that file, too.
    pub file: Option<PathBuf>,
    pub text: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("name", &self.name).field("file", &self.file).finish_non_exhaustive()
    }
}

impl Pem {
    /// Reads a value that is the path of a file, or the content itself: PEM with any line ends, even spaces, or base64
    /// of PEM or DER.
    pub(super) fn read(value: &Value, content: Content) -> Result<Self, Error> {
        let text = value.text.to_str().map(unquote);
        if let Some(found) = text.and_then(decode) {
            if value.origin == Origin::Flags {
                return Err(value.error(
                    "it is PEM text, which every program on this host can read on the command line: name a file, or set \
                     the environment variable",
                ));
            }
            let text = match found {
                Form::Pem(text) => mend(&text),
                Form::Certificate(der) => armor("CERTIFICATE", &der),
                Form::Key(der) => armor(key_label(&der), &der),
                Form::Foreign(format) => return Err(value.error(format.remedy(content, None))),
            };
            return Ok(Self { name: value.name.clone(), file: None, text });
        }
        // Do not show what is not a path: it may be a damaged key.
        let path = text.map_or(value.text.as_ref(), Path::new);
        let longest = if path.is_absolute() { 1024 } else { 255 };
        let long = path.as_os_str().len() > longest || path.to_string_lossy().contains(['\n', '\\']);
        if long || (matches!(value.origin, Origin::Binding) && !path.is_absolute()) {
            return Err(value
                .error("it is neither PEM (-----BEGIN …), nor base64 of PEM or DER, nor the absolute path of a file"));
        }
        let shown = if content == Content::Key && value.origin != Origin::Flags {
            "the file".to_owned()
        } else {
            path.display().to_string()
        };
        let (text, is_plain) = read_file(path, &shown, content).map_err(|problem| problem.of(&value.name))?;
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // etcd cannot read every file that we can: it gets the text instead.
        Ok(Self { name: value.name.clone(), file: is_plain.then_some(file), text })
    }

    pub(super) fn read_again(&self, content: Content) -> Result<Self, Error> {
        let Some(file) = &self.file else { return Ok(self.clone()) };
        let shown = file.display().to_string();
        let (text, _) = read_file(file, &shown, content).map_err(|problem| problem.of(&self.name))?;
        Ok(Self { text, ..self.clone() })
    }

    pub(crate) fn error(&self, problem: impl fmt::Display) -> Error {
        Error::new(&self.name, self.in_file(problem))
    }

    /// An error that time can mend.
    pub(super) fn not_yet(&self, problem: impl fmt::Display) -> Error {
        Error::not_yet(&self.name, self.in_file(problem))
    }

    fn in_file(&self, problem: impl fmt::Display) -> String {
        match &self.file {
            Some(file) => format!("{}: {problem}", file.display()),
            None => problem.to_string(),
        }
    }

    /// All certificates in the text, in order.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(self.text.as_bytes()).collect();
        match all {
            Ok(all) if all.is_empty() => Err(self.error(self.instead_of_certificate())),
            Ok(all) => Ok(all),
            Err(_) => Err(self.error("its PEM text is damaged: copy it again, line ends included")),
        }
    }

    /// The subjects of the first `most` certificates, as in `CN=a; CN=b; …`.
    pub(crate) fn subjects(&self, most: usize) -> String {
        let ders = self.certificates().unwrap_or_default();
        let subject = |der: &CertificateDer<'_>| {
            X509Certificate::from_der(der).map(|(_, it)| it.subject().to_string()).unwrap_or_default()
        };
        let mut subjects: Vec<String> = ders.iter().take(most).map(subject).collect();
        if ders.len() > most && most > 1 {
            subjects.push("…".to_owned());
        }
        subjects.join("; ")
    }

    fn instead_of_certificate(&self) -> String {
        let has = |word: &str| labels(&self.text).any(|label| label.contains(word));
        if has("PKCS7") || has("CMS") {
            return Foreign::Pkcs7.remedy(Content::Certificate, self.file.as_deref());
        }
        let problem = if has("CERTIFICATE REQUEST") {
            "it holds a request for a certificate: give the certificate that the authority has made from it"
        } else if has("TRUSTED CERTIFICATE") {
            "it is in OpenSSL's own format: convert it, as with openssl x509 -in FILE -out NEW"
        } else if has("KEY") {
            "it holds a key, and no certificate (-----BEGIN CERTIFICATE-----)"
        } else {
            "it holds no certificate (-----BEGIN CERTIFICATE-----)"
        };
        problem.to_owned()
    }

    /// The private key in the text.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        // "Proc-Type: 4,ENCRYPTED" is within the block, in OpenSSL's older formats. What is around blocks does not count.
        let encrypted = blocks(&self.text)
            .any(|block| block.label.contains("KEY") && (block.label.contains("ENCRYPTED") || block.is_encrypted()));
        if encrypted {
            return Err(self.error(Foreign::EncryptedKey.remedy(Content::Key, self.file.as_deref())));
        }
        PrivateKeyDer::from_pem_slice(self.text.as_bytes()).map_err(|err| match err {
            pem::Error::NoItemsFound => {
                let has = |word: &str| labels(&self.text).any(|label| label.contains(word));
                self.error(if has("OPENSSH") {
                    "it holds a key in OpenSSH's format: convert it, as with ssh-keygen -p -m PKCS8 -f FILE"
                } else if has("PUBLIC KEY") {
                    "it holds a public key: give the private key (-----BEGIN PRIVATE KEY-----)"
                } else {
                    "it holds no private key (-----BEGIN PRIVATE KEY-----)"
                })
            }
            _ => self.error("its PEM text is damaged: copy it again, line ends included"),
        })
    }
}

/// Why a file cannot be used.
enum FileProblem {
    Wrong(String),
    /// It is about to be written.
    NotYet(String),
}

impl FileProblem {
    fn of(self, setting: &str) -> Error {
        match self {
            Self::Wrong(problem) => Error::new(setting, problem),
            Self::NotYet(problem) => Error::not_yet(setting, problem),
        }
    }
}

/// The PEM blocks in a file, and whether etcd can read the file as it is.
fn read_file(path: &Path, shown: &str, content: Content) -> Result<(String, bool), FileProblem> {
    let bytes = regular::read(path).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => {
            FileProblem::NotYet(format!("{shown} does not exist: create it, or name another file"))
        }
        _ => FileProblem::Wrong(format!("cannot read {shown}: {}: name a readable PEM file", without_errno(&err))),
    })?;
    if bytes.trim_ascii().is_empty() {
        return Err(FileProblem::NotYet(format!("{shown} is empty: write PEM text into it, or name another file")));
    }
    let file = (shown != "the file").then_some(path);
    match Form::of(&bytes) {
        Some(Form::Pem(text)) => Ok((mend(&text), is_plain(&text))),
        Some(Form::Certificate(_)) => Err(Foreign::DerCertificate),
        Some(Form::Key(_)) => Err(Foreign::DerKey),
        Some(Form::Foreign(format)) => Err(format),
        None => {
            return Err(FileProblem::Wrong(format!(
                "{shown} is not a PEM file: it has no line with {BEGIN}…: name another file"
            )));
        }
    }
    .map_err(|format| FileProblem::Wrong(format!("{shown}: {}", format.remedy(content, file))))
}

/// What bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Text with PEM blocks.
    Pem(String),
    /// DER of a certificate.
    Certificate(Vec<u8>),
    /// DER of a private key that is not encrypted.
    Key(Vec<u8>),
    Foreign(Foreign),
}

/// A format that needs to be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Foreign {
    DerCertificate,
    DerKey,
    EncryptedKey,
    Pkcs12,
    Pkcs7,
    JavaKeyStore,
    Utf16,
}

impl Foreign {
    /// What it is, and the command that converts it.
    fn remedy(self, content: Content, file: Option<&Path>) -> String {
        let file = file.map_or("FILE".to_owned(), |path| {
            let text = path.to_string_lossy();
            shlex::try_quote(&text).map_or("FILE".to_owned(), Into::into)
        });
        let from_pkcs12 = match content {
            Content::Authorities => "-cacerts -nokeys",
            Content::Certificate => "-clcerts -nokeys",
            Content::Key => "-nocerts -noenc",
        };
        let (what, command) = match self {
            Self::DerCertificate => ("a certificate in DER", format!("openssl x509 -inform der -in {file} -out NEW")),
            Self::DerKey => ("a private key in DER", format!("openssl pkey -inform der -in {file} -out NEW")),
            Self::EncryptedKey => ("an encrypted private key", format!("openssl pkey -in {file} -out NEW")),
            Self::Pkcs12 => ("PKCS#12", format!("openssl pkcs12 -in {file} {from_pkcs12} -out NEW")),
            Self::Pkcs7 => ("PKCS#7", format!("openssl pkcs7 -print_certs -in {file} -out NEW")),
            Self::JavaKeyStore => (
                "a Java key store",
                format!(
                    "keytool -importkeystore -srckeystore {file} -destkeystore NEW.p12 -deststoretype pkcs12, then \
                     openssl pkcs12 -in NEW.p12 {from_pkcs12} -out NEW"
                ),
            ),
            Self::Utf16 => ("text in UTF-16", format!("iconv -f UTF-16 -t UTF-8 {file} > NEW")),
        };
        format!("it is {what}, and must be PEM: convert it with {command}")
    }
}

impl Form {
    fn of(bytes: &[u8]) -> Option<Self> {
        let is_utf16 =
            [&b"\xff\xfe"[..], b"\xfe\xff", b"-\0-\0-\0", b"\0-\0-\0-"].iter().any(|it| bytes.starts_with(it));
        if is_utf16 {
            return Some(Self::Foreign(Foreign::Utf16));
        }
        // JKS and JCEKS.
        if bytes.starts_with(b"\xfe\xed\xfe\xed") || bytes.starts_with(b"\xce\xce\xce\xce") {
            return Some(Self::Foreign(Foreign::JavaKeyStore));
        }
        if bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes()) {
            // Text around the blocks may be in any encoding.
            return Some(Self::Pem(String::from_utf8_lossy(bytes).into_owned()));
        }
        if X509Certificate::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
            return Some(Self::Certificate(bytes.to_owned()));
        }
        // The other types begin in the same way: a SEQUENCE, then one of these.
        let content = sequence(bytes)?;
        let is_whole = Any::from_der(bytes).is_ok_and(|(rest, _)| rest.is_empty());
        // The version of PKCS#1 and PKCS#8, or of SEC1.
        let is_key = content.starts_with(b"\x02\x01\x00") || content.starts_with(b"\x02\x01\x01\x04");
        if is_whole && is_key && PrivateKeyDer::try_from(bytes).is_ok() {
            return Some(Self::Key(bytes.to_owned()));
        }
        let foreign = |format| Some(Self::Foreign(format));
        match content {
            [0x02, 0x01, 0x03, rest @ ..] if sequence(rest)?.starts_with(DATA) => foreign(Foreign::Pkcs12),
            _ if content.starts_with(DATA) => foreign(Foreign::Pkcs7),
            _ if sequence(content).is_some_and(|it| it.starts_with(PBES) || it.starts_with(PBE)) => {
                foreign(Foreign::EncryptedKey)
            }
            _ => None,
        }
    }
}

/// The content of a DER or BER sequence, or as much of it as there is.
fn sequence(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x30, length, rest @ ..] if *length <= 0x80 => Some(rest),
        [0x30, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..),
        _ => None,
    }
}

fn armor(label: &str, der: &[u8]) -> String {
    format!("{BEGIN}{label}{DASHES}\n{}\n-----END {label}{DASHES}\n", STANDARD.encode(der))
}

fn key_label(der: &[u8]) -> &'static str {
    match PrivateKeyDer::try_from(der) {
        Ok(PrivateKeyDer::Pkcs1(_)) => "RSA PRIVATE KEY",
        Ok(PrivateKeyDer::Sec1(_)) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    }
}

/// Without white space and quotes around it. Some tools that write manifests add quotes.
fn unquote(text: &str) -> &str {
    let text = text.trim();
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).map_or(text, str::trim)
}

/// Content from any of the forms that fit into an environment variable; `None` if it may be a path.
fn decode(text: &str) -> Option<Form> {
    if text.contains(BEGIN) {
        // What was escaped twice leaves more of them behind.
        let text = text.replace("\\r", "").replace("\\n", "\n").replace("\\t", " ").replace('\\', "");
        return Some(Form::Pem(text));
    }
    let packed: String = text.replace("\\r", "").replace("\\n", "").split_whitespace().collect();
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    let bytes = engines.into_iter().find_map(|engine| engine.decode(&packed).ok())?;
    match Form::of(&bytes)? {
        Form::Pem(text) => decode(unquote(&text)),
        form => Some(form),
    }
}

/// A PEM block; a damaged one has no end.
struct Block<'a> {
    label: &'a str,
    body: &'a str,
    has_end: bool,
}

impl Block<'_> {
    fn is_encrypted(&self) -> bool {
        self.body.contains("ENCRYPTED")
    }
}

fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once(BEGIN)?;
            rest = after;
            let Some((label, body)) = after.split_once(DASHES) else { continue };
            if !label.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ') {
                continue;
            }
            let end = format!("-----END {label}{DASHES}");
            let (body, has_end) = match body.split_once(&end) {
                Some((body, after)) => {
                    rest = after;
                    (body, true)
                }
                None => (body, false),
            };
            return Some(Block { label, body, has_end });
        }
    })
}

fn labels(text: &str) -> impl Iterator<Item = &str> {
    blocks(text).map(|block| block.label)
}

/// The blocks as every reader of PEM understands them: each line without white space, and nothing around the blocks.
fn mend(text: &str) -> String {
    blocks(text).fold(String::new(), |mended, block| {
        // Only headers, which a key has that is encrypted, contain spaces of their own.
        let lines: Vec<&str> = if block.is_encrypted() {
            block.body.lines().map(str::trim).collect()
        } else {
            block.body.split_whitespace().collect()
        };
        let Block { label, has_end, .. } = block;
        let end = if has_end { format!("-----END {label}{DASHES}\n") } else { String::new() };
        mended + &format!("{BEGIN}{label}{DASHES}\n{}\n{end}", lines.join("\n").trim())
    })
}

/// Whether Go's reader of PEM finds the same blocks: their lines begin and end at the beginning and the end of lines.
fn is_plain(text: &str) -> bool {
    let mended = mend(text);
    let plain = text.lines().map(str::trim_end).skip_while(|line| !line.starts_with(BEGIN));
    let mut is_within = false;
    let within = plain.filter(|line| {
        let is_end = line.starts_with("-----END ");
        is_within = (is_within || line.starts_with(BEGIN)) && !is_end;
        is_within || is_end
    });
    within.filter(|line| !line.is_empty()).eq(mended.lines().filter(|line| !line.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::tls::tests::{Certificate, days};

    fn read_as(origin: Origin, text: &str, content: Content) -> Result<Pem, String> {
        Pem::read(&origin.value("NAME", text), content).map_err(|err| err.to_string())
    }

    fn read(origin: Origin, text: &str) -> Result<Pem, String> {
        read_as(origin, text, Content::Certificate)
    }

    fn pair() -> Certificate {
        Certificate::new(None, days(-1), days(365))
    }

    fn openssl(args: &str) {
        let done = std::process::Command::new("openssl").args(args.split_whitespace()).output().unwrap();
        assert!(done.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Every form of a text that people put into the environment.
    fn forms(text: &str) -> Vec<String> {
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let packed = STANDARD.encode(text);
        let (head, tail) = packed.split_at(40);
        let crlf = text.replace('\n', "\r\n");
        vec![
            text.to_owned(),
            crlf.clone(),
            text.replace('\n', "\r"),
            text.replace('\n', "\\n"),
            text.replace('\n', "\\\\n"),
            crlf.replace("\r\n", "\\r\\n"),
            text.replace('\n', " "),
            text.replace('\n', "\t "),
            format!("\"{text}\""),
            format!("'{}'", text.replace('\n', "\\n")),
            format!("\u{feff}  {}", text.replace('\n', "\n  ")),
            format!("some text\n{text}more text"),
            packed.clone(),
            format!("\"{packed}\""),
            format!(" {head}\n{tail}\n"),
            format!("{head}\\n{tail}"),
            packed.trim_end_matches('=').to_owned(),
            URL_SAFE.encode(text),
            STANDARD.encode(crlf),
            // DER.
            body.clone(),
            body.replace('+', "-").replace('/', "_"),
            format!("\"{body}\""),
        ]
    }

    #[test]
    fn a_value_in_every_form() {
        let pair = pair();
        let ders = |pem: &Pem| pem.certificates().unwrap();
        let expected = ders(&read(Origin::Environment, &pair.cert).unwrap());
        for text in forms(&pair.cert) {
            let pem = read(Origin::Environment, &text).unwrap();
            assert_eq!((ders(&pem), pem.file), (expected.clone(), None), "{text}");
        }
        let key = |text: &str| read_as(Origin::Environment, text, Content::Key).unwrap().private_key().unwrap();
        for text in forms(&pair.key) {
            assert_eq!(key(&text), key(&pair.key), "{text}");
        }
        let two = format!("{}{}", pair.cert, pair.cert).replace('\n', " ");
        assert_eq!(ders(&read(Origin::Binding, &two).unwrap()).len(), 2);
    }

    #[test]
    fn files_and_which_of_them_etcd_can_read() {
        let pair = pair();
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let chain = format!("{}{}", pair.cert, pair.cert);
        for (text, count, is_plain) in [
            (pair.cert.clone(), 1, true),
            (chain.clone(), 2, true),
            (chain.replace('\n', "\r\n"), 2, true),
            (format!("Certificate: ENCRYPTED\n    -----\n{}\n-- \n{}", pair.cert, pair.cert), 2, true),
            (pair.cert.replace('\n', "\n\t"), 1, false),
            (pair.cert.replace('\n', " "), 1, false),
            (format!("\u{feff}{}", pair.cert), 1, false),
        ] {
            fs::write(path, &text).unwrap();
            for origin in [Origin::Flags, Origin::Environment, Origin::Binding] {
                let pem = read(origin, path).unwrap();
                assert_eq!(pem.certificates().unwrap().len(), count, "{text}");
                assert_eq!(pem.file.as_deref(), is_plain.then_some(file.path()), "{text}");
            }
        }
        fs::write(path, [b"Subject: CN=M\xfcller\n", pair.cert.as_bytes()].concat()).unwrap();
        let pem = read(Origin::Flags, path).unwrap();
        assert_eq!((pem.text.as_str(), pem.file.as_deref()), (pair.cert.as_str(), Some(file.path())));
        assert_eq!(pem.read_again(Content::Certificate).unwrap(), pem);
        assert!(read(Origin::Environment, &format!("\"{path}\"")).is_ok(), "quotes around a path");
    }

    #[test]
    fn text_that_is_not_pem_is_not_shown() {
        let key = pair().key;
        let lines: Vec<&str> = key.lines().collect();
        let long = "A".repeat(300);
        for text in [lines[1], &lines[1..3].join("\n")[..90], &lines[1..3].join("\\n")[..90], &long] {
            let found = read(Origin::Binding, text).unwrap_err();
            assert!(found.starts_with("NAME: it is neither PEM"), "{found}");
        }
        let path = Origin::Environment.value("NAME", format!("/{}", lines[1]));
        let found = Pem::read(&path, Content::Key).unwrap_err().to_string();
        assert_eq!(found, "NAME: the file does not exist: create it, or name another file");
        let found = read(Origin::Flags, &key).unwrap_err();
        assert!(found.contains("every program on this host") && !found.contains(lines[1]), "{found}");
        let pem = read_as(Origin::Environment, &key, Content::Key).unwrap();
        assert!(!format!("{pem:?}").contains(lines[1]));
    }

    #[test]
    fn other_formats_are_named_with_the_command_that_converts_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let [cert, key] = ["c.pem", "k.pem"].map(path);
        let pair = pair();
        fs::write(&cert, &pair.cert).unwrap();
        fs::write(&key, &pair.key).unwrap();
        openssl(&format!("x509 -in {cert} -outform der -out {}", path("c.der")));
        openssl(&format!("pkey -in {key} -outform der -out {}", path("k.der")));
        openssl(&format!("pkcs8 -topk8 -in {key} -passout pass:x -out {}", path("encrypted.pem")));
        openssl(&format!("pkcs8 -topk8 -in {key} -passout pass:x -outform der -out {}", path("encrypted.der")));
        openssl(&format!("ec -in {key} -aes128 -passout pass:x -out {}", path("old.pem")));
        openssl(&format!("pkcs12 -export -in {cert} -inkey {key} -passout pass:x -out {}", path("both.p12")));
        openssl(&format!("crl2pkcs7 -nocrl -certfile {cert} -out {}", path("c.p7b")));
        openssl(&format!("crl2pkcs7 -nocrl -certfile {cert} -outform der -out {}", path("c.p7c")));
        openssl(&format!("req -new -key {key} -subj /CN=x -out {}", path("c.csr")));
        openssl(&format!("pkey -in {key} -pubout -out {}", path("public.pem")));
        fs::write(path("store.jks"), b"\xfe\xed\xfe\xed\0\0\0\x02").unwrap();
        let utf16: Vec<u8> = format!("\u{feff}{}", pair.cert).encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(path("utf16.pem"), utf16).unwrap();
        for (file, content, what, command) in [
            ("c.der", Content::Certificate, "a certificate in DER", "openssl x509 -inform der -in FILE -out NEW"),
            ("k.der", Content::Key, "a private key in DER", "openssl pkey -inform der -in FILE -out NEW"),
            ("encrypted.pem", Content::Key, "an encrypted private key", "openssl pkey -in FILE -out NEW"),
            ("encrypted.der", Content::Key, "an encrypted private key", "openssl pkey -in FILE -out NEW"),
            ("old.pem", Content::Key, "an encrypted private key", "openssl pkey -in FILE -out NEW"),
            ("both.p12", Content::Key, "PKCS#12", "openssl pkcs12 -in FILE -nocerts -noenc -out NEW"),
            ("both.p12", Content::Certificate, "PKCS#12", "openssl pkcs12 -in FILE -clcerts -nokeys -out NEW"),
            ("both.p12", Content::Authorities, "PKCS#12", "openssl pkcs12 -in FILE -cacerts -nokeys -out NEW"),
            ("c.p7b", Content::Certificate, "PKCS#7", "openssl pkcs7 -print_certs -in FILE -out NEW"),
            ("c.p7c", Content::Certificate, "PKCS#7", "openssl pkcs7 -print_certs"),
            ("store.jks", Content::Key, "a Java key store", "keytool -importkeystore -srckeystore FILE"),
            ("utf16.pem", Content::Certificate, "text in UTF-16", "iconv -f UTF-16 -t UTF-8 FILE > NEW"),
            ("c.csr", Content::Certificate, "a request for a certificate", "that the authority has made from it"),
            ("public.pem", Content::Key, "a public key", "give the private key"),
        ] {
            let path = path(file);
            let problem = |origin: Origin, text: &str| {
                let pem = read_as(origin, text, content)?;
                let used = if content == Content::Key { pem.private_key().err() } else { pem.certificates().err() };
                used.map_or(Ok(()), |err| Err(err.to_string()))
            };
            let found = problem(Origin::Flags, &path).unwrap_err();
            assert!(found.contains(what) && found.contains(&command.replace("FILE", &path)), "{file}: {found}");
            let packed = STANDARD.encode(fs::read(&path).unwrap());
            if let Err(found) = problem(Origin::Environment, &packed) {
                assert!(found.contains(what) && found.contains(command), "{file}: {found}");
            } else {
                assert!(["c.der", "k.der"].contains(&file), "{file}");
            }
        }
    }

    #[test]
    fn files_that_cannot_be_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for bytes in [&b"hello"[..], b"\x30\x82\x01\xff"] {
            fs::write(path, bytes).unwrap();
            let found = read(Origin::Flags, path).unwrap_err();
            assert_eq!(
                found,
                format!("NAME: {path} is not a PEM file: it has no line with -----BEGIN …: name another file")
            );
        }
        let missing = Pem::read(&Origin::Flags.value("NAME", "/no/such.pem"), Content::Certificate).unwrap_err();
        assert_eq!(missing.to_string(), "NAME: /no/such.pem does not exist: create it, or name another file");
        assert!(missing.time_can_mend());
        for bytes in [&b""[..], b" \n"] {
            fs::write(path, bytes).unwrap();
            let empty = Pem::read(&Origin::Flags.value("NAME", path), Content::Certificate).unwrap_err();
            assert!(empty.time_can_mend() && empty.to_string().contains("is empty"), "{empty}");
        }
    }
}
