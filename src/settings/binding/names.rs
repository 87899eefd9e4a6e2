//! What the names of credentials mean.
//!
//! Services write the same name in many ways: `ca_cert`, `ca-cert`, `caCert`, `CA.CERT`, `etcd_ca_cert`. [`role`]
//! compares only letters and digits, in lower case, and without a prefix that says what the entry belongs to.

use crate::settings::table::Setting;

/// What an entry of a binding is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Addresses of members.
    Members,
    /// The port of members that have none.
    Port,
    /// The scheme of members that have none.
    Scheme,
    /// Whether members that have no scheme use TLS.
    UsesTls,
    /// The value of a setting.
    Setting(Setting),
    /// Certificates of the client or of an authority: the other entries decide.
    Certificates,
    /// A reference to the credentials, instead of the credentials.
    Reference,
}

/// All names, in [`plain`] form. Of several entries with the same role, the name that comes first counts.
///
/// The list contains the well-known entries of <https://servicebinding.io/spec/core/1.1.0/> and the files of a
/// Kubernetes secret of type `kubernetes.io/tls`, which can have an authority in `ca.crt`.
pub(super) const NAMES: &[(Role, &[&str])] = &[
    (
        Role::Members,
        &[
            "composed",
            "endpoints",
            "endpoint",
            "hosts",
            "uris",
            "uri",
            "urls",
            "url",
            "addresses",
            "address",
            "addrs",
            "addr",
            "members",
            "nodes",
            "servers",
            "machines",
            "hostnames",
            "host",
            "hostname",
            "fqdn",
            "ips",
            "ip",
            "server",
        ],
    ),
    (Role::Port, &["port"]),
    (Role::Scheme, &["scheme", "protocol"]),
    (Role::UsesTls, &["tls", "ssl", "usetls", "usessl", "tlsenabled", "sslenabled"]),
    (Role::Setting(Setting::DiscoverySrv), &["srv", "discoverysrv", "srvdomain"]),
    (
        Role::Setting(Setting::CaCert),
        &[
            "ca",
            "cacert",
            "cacerts",
            "cacertificate",
            "cacertificates",
            "cacrt",
            "trustedca",
            "trustedcacert",
            "rootca",
            "rootcert",
            "rootcrt",
            "rootcertificate",
            "cabundle",
            "cachain",
            "certificateauthority",
            "serverca",
            "clusterca",
            "certificatebase64",
        ],
    ),
    (
        Role::Setting(Setting::Cert),
        &[
            "cert",
            "clientcert",
            "clientcertificate",
            "clientcertificates",
            "crt",
            "certificatechain",
            "certchain",
            "usercert",
            "usercrt",
        ],
    ),
    (Role::Setting(Setting::Key), &["key", "privatekey", "clientprivatekey", "certkey", "certificatekey", "userkey"]),
    (Role::Certificates, &["certificates", "certificate", "certs"]),
    (Role::Setting(Setting::ServerName), &["servername", "sni"]),
    (Role::Setting(Setting::Namespace), &["namespace", "prefix", "keyprefix"]),
    (Role::Setting(Setting::Username), &["username", "user"]),
    (Role::Setting(Setting::Password), &["password", "passwd"]),
    (Role::Reference, &["credhubref"]),
];

/// Beginnings that say what an entry belongs to, as in `etcd_endpoints`, `client.key` and `ETCDCTL_CACERT`.
const OWNERS: [&str; 6] = ["etcdproxy", "etcdctl", "etcd", "grpc", "client", "connection"];

/// Beginnings of entries about TLS.
const TLS_OWNERS: [&str; 3] = ["mtls", "tls", "ssl"];

/// Ends that say in which form a certificate or key is, as in `ca_file` and `key_pem`.
const FORMS: [&str; 7] = ["base64", "pem", "file", "path", "data", "content", "text"];

/// Objects whose entries count as if they were outside.
pub(super) const GROUPS: [&str; 7] = ["connection", "grpc", "etcd", "credentials", "client", "auth", "authentication"];

/// Objects with entries about TLS.
pub(super) const TLS_GROUPS: [&str; 6] = ["tls", "ssl", "mtls", "certificate", "certificates", "certs"];

/// Words of names that belong to members, certificates and keys.
const WORDS: &[&str] = &[
    "addr",
    "address",
    "addresses",
    "addrs",
    "ca",
    "cacert",
    "cert",
    "certificate",
    "certificates",
    "certs",
    "crt",
    "der",
    "endpoint",
    "endpoints",
    "host",
    "hostname",
    "hostnames",
    "hosts",
    "jks",
    "key",
    "keys",
    "keystore",
    "machines",
    "member",
    "members",
    "mtls",
    "node",
    "nodes",
    "p12",
    "pem",
    "pfx",
    "pkcs12",
    "server",
    "servers",
    "srv",
    "ssl",
    "tls",
    "truststore",
    "uri",
    "uris",
    "url",
    "urls",
];

/// Letters and digits only, in lower case.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn listed(plain: &str) -> Option<(Role, usize)> {
    NAMES.iter().find_map(|(role, names)| Some((*role, names.iter().position(|name| *name == plain)?)))
}

fn is_about_tls(role: Role) -> bool {
    let settings = [Setting::CaCert, Setting::Cert, Setting::Key, Setting::ServerName];
    role == Role::Certificates || settings.map(Role::Setting).contains(&role)
}

/// What an entry with this [`plain`] name is for, and the rank of its name; the lowest counts. Below TLS, only entries
/// about TLS have a role.
pub(super) fn role(plain: &str, below_tls: bool) -> Option<(Role, usize)> {
    let (mut name, mut below_tls, mut rank) = (plain, below_tls, 0);
    loop {
        let form = FORMS.iter().filter_map(|form| name.strip_suffix(form));
        let tls_only = form.filter_map(listed).find(|(role, _)| is_about_tls(*role));
        if let Some((role, place)) = listed(name).or(tls_only)
            && (!below_tls || is_about_tls(role))
        {
            return Some((role, rank + place));
        }
        if let Some(rest) = TLS_OWNERS.iter().find_map(|owner| name.strip_prefix(owner)) {
            (name, below_tls) = (rest, true);
        } else {
            name = OWNERS.iter().find_map(|owner| name.strip_prefix(owner))?;
        }
        rank += 100;
    }
}

/// Whether the name says that the entry is a member, a certificate or a key.
pub(super) fn is_telling(name: &str) -> bool {
    let mut words = vec![String::new()];
    let mut before = 'A';
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && before.is_ascii_lowercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut()
            && c.is_ascii_alphanumeric()
        {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.iter().any(|word| WORDS.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_spelling() {
        use Role::{Certificates, Members, Port, Reference};
        let (ca, cert, key) = (Setting::CaCert, Setting::Cert, Setting::Key);
        for (name, expected) in [
            ("endpoints", Some(Members)),
            ("ETCDCTL_ENDPOINTS", Some(Members)),
            ("etcd.host", Some(Members)),
            ("clientUrls", Some(Members)),
            ("grpc-port", Some(Port)),
            ("ca", Some(Role::Setting(ca))),
            ("ca.crt", Some(Role::Setting(ca))),
            ("ca.pem", Some(Role::Setting(ca))),
            ("caCert", Some(Role::Setting(ca))),
            ("trusted_ca_file", Some(Role::Setting(ca))),
            ("tls-ca", Some(Role::Setting(ca))),
            ("etcd_ssl_ca_cert_base64", Some(Role::Setting(ca))),
            ("certificate.certificate_base64", None),
            ("tls.crt", Some(Role::Setting(cert))),
            ("client.pem", None),
            ("clientCertificate", Some(Role::Setting(cert))),
            ("cert.pem", Some(Role::Setting(cert))),
            ("tls.key", Some(Role::Setting(key))),
            ("private-key", Some(Role::Setting(key))),
            ("client-key.pem", Some(Role::Setting(key))),
            ("certificates", Some(Certificates)),
            ("Key_Prefix", Some(Role::Setting(Setting::Namespace))),
            ("etcd_username", Some(Role::Setting(Setting::Username))),
            ("password", Some(Role::Setting(Setting::Password))),
            ("credhub-ref", Some(Reference)),
            ("tls_host", None),
            ("endpoints_file", None),
            ("api_key", None),
            ("provider", None),
            ("", None),
            ("tls", Some(Role::UsesTls)),
        ] {
            assert_eq!(role(&plain(name), false).map(|(role, _)| role), expected, "{name}");
        }
        assert_eq!(role("host", true), None);
        assert!(role("ca", true).unwrap().1 < role("tlsca", true).unwrap().1);
    }

    #[test]
    fn names_that_tell_what_an_entry_is() {
        for name in ["keystore.jks", "dashboard_url", "clientCaBundle", "TRUSTED-HOSTS", "api_key"] {
            assert!(is_telling(name), "{name}");
        }
        for name in ["username", "plan", "monkey", "replicas", "cluster-id", ""] {
            assert!(!is_telling(name), "{name}");
        }
    }
}
