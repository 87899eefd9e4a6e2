//! Random bindings and endpoint lists: none causes a panic, an error of more than one line, or an error that shows a
//! secret.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::Sources;
use crate::os::env::Env;

const SECRET: &str = "s3cret";

/// Names of credentials, and names that mean nothing.
const NAMES: &[&str] = &[
    "srv",
    "endpoints",
    "members",
    "address",
    "client_urls",
    "etcd",
    "certificates",
    "ca.crt",
    "tls.crt",
    "keystore.jks",
    "credhub-ref",
    "scheme",
    "hosts",
    "uris",
    "uri",
    "url",
    "host",
    "hostname",
    "port",
    "composed",
    "connection",
    "grpc",
    "authentication",
    "certificate",
    "certificate_base64",
    "ca",
    "cacert",
    "trusted_ca_file",
    "cert",
    "client_cert",
    "tls",
    "username",
    "user",
    "auth",
    "namespace",
    "prefix",
    "Endpoints",
    "label",
    "tags",
    "x",
    "",
];

/// Pieces of addresses, to be joined in any order.
const PIECES: &[&str] = &[
    "etcd://",
    "etcds://",
    ";",
    "\n",
    "\\n",
    "\"",
    "'",
    "{\"url\":\"",
    "\"}",
    "[\"",
    "\"]",
    "http://",
    "https://",
    "unix://",
    "unix:",
    "ftp://",
    "h",
    "127.0.0.1",
    "[::1]",
    "[",
    "]",
    "::",
    ":",
    ":2379",
    ":0",
    ":99999",
    "/",
    "/v2/keys",
    ",",
    " ",
    "%",
    "?",
    "#",
    "é",
    "\0",
];

fn address() -> impl Strategy<Value = String> {
    vec(prop::sample::select(PIECES.to_vec()), 0..9).prop_map(|pieces| pieces.concat())
}

/// What can be in a password, and separates addresses as well.
fn separator() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![",", ";", " ", "\n", "\\n", "\"", "'", "/", "@", "://"])
}

fn with_password(separator: &str, address: &str) -> String {
    format!("https://u:{SECRET}{separator}{SECRET}@{address}")
}

fn text() -> impl Strategy<Value = String> {
    let pem = prop::sample::select(vec!["-----BEGIN CERTIFICATE-----\nMII\n", "-----BEGIN", "LS0tLS1CRUdJTg==", "\\n"]);
    prop_oneof![address(), any::<String>(), pem.prop_map(ToOwned::to_owned)]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        // A password where an address can have one.
        (address(), separator()).prop_map(|(address, separator)| json!(with_password(separator, &address))),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), object(inner)])
}

fn object(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(NAMES.to_vec()).prop_map(ToOwned::to_owned);
    vec((name, values), 0..6).prop_map(|fields| Value::from(Map::from_iter(fields)))
}

fn services() -> impl Strategy<Value = String> {
    // Most have no key: an invalid key would hide all other errors.
    let secrets = prop::sample::select(vec![
        json!({"password": SECRET}),
        json!({"password": SECRET}),
        json!({"key": SECRET}),
        json!({"private_key": format!("/{SECRET}")}),
    ]);
    let credentials = prop_oneof![9 => object(value()), 1 => value()];
    let name = prop::sample::select(vec!["etcd", "my-etcd", "x"]);
    let binding = (credentials, name, secrets).prop_map(|(mut credentials, name, mut secrets)| {
        if let (Some(credentials), Some(secrets)) = (credentials.as_object_mut(), secrets.as_object_mut()) {
            credentials.append(secrets);
        }
        json!({"name": name, "credentials": credentials})
    });
    let label = prop::sample::select(vec!["etcd", "user-provided", "databases-for-etcd", "x"]);
    let whole = (label, vec(binding, 0..3)).prop_map(|(label, bindings)| json!({label: bindings}).to_string()).boxed();
    prop_oneof![
        8 => whole.clone(),
        // Cut somewhere.
        1 => (whole, any::<prop::sample::Index>()).prop_map(|(text, at)| {
            text.char_indices().nth(at.index(text.len())).map_or(String::new(), |(at, _)| text[..at].to_owned())
        }),
        1 => any::<String>(),
    ]
}

fn check(env: &Env) {
    let resolved = Sources::new([], env).with_binding(env).and_then(|sources| sources.resolve());
    let shown = match resolved {
        Ok(settings) => {
            assert_ne!(settings.endpoints.is_empty(), settings.discovery_srv.is_none());
            format!("{settings:?} {}", settings.warnings.join(" "))
        }
        Err(err) => err.to_string(),
    };
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!shown.contains('\n'), "{shown:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bindings(services in services()) {
        check(&Env::from([("VCAP_SERVICES", services.as_str())]));
    }

    #[test]
    fn endpoint_lists(list in prop_oneof![address(), any::<String>()], separator in separator(), password: bool) {
        let list = if password { with_password(separator, &list) } else { list };
        check(&Env::from([("ETCDPROXY_ENDPOINTS", list.as_str())]));
    }
}
