//! `docs/compatibility.md` is what the tables of the other tests say.

use std::fmt::Write as _;

use crate::{bindings, certificates, names};

const DOCUMENT: &str = "docs/compatibility.md";

fn render() -> String {
    let mut text = String::from(
        "# What works: certificates, keys, names and bindings\n\n\
         Each row is a test: real etcd members, etcd's own proxy and ours, certificates made by openssl, a DNS server. The tests write \
         this page (`ETCDPROXY_WRITE_DOCS=1 cargo nextest run compatibility`).\n",
    );
    text.push_str(
        "\n## Certificates and keys\n\nThe measure is Go's TLS, which etcd uses. *only etcd's proxy* means: with `--mode grpc-proxy`, \
         preflight notes that our TLS cannot try the member, and etcd connects; native does not.\n",
    );
    for (title, cases) in certificates::tables() {
        table(&mut text, title, "certificate or key", cases);
    }
    text.push_str("\n## Names\n");
    table(
        &mut text,
        "Addresses, DNS and SRV records",
        "case",
        names::CASES.iter().map(|case| (case.0, case.1.to_owned())),
    );
    text.push_str(
        "\n## Bindings\n\nThe credentials are those of a service on Cloud Foundry, as JSON. Names count in upper and lower case, with \
         any separators.\n",
    );
    for (title, cases) in bindings::tables() {
        table(&mut text, title, "credentials", cases);
    }
    text
}

fn table<'a>(text: &mut String, title: &str, what: &str, rows: impl IntoIterator<Item = (&'a str, String)>) {
    let cell = |text: &str| text.replace('\n', "\\n").replace('|', "\\|");
    let _ = write!(text, "\n### {title}\n\n| {what} | result |\n|---|---|\n");
    for (name, result) in rows {
        let _ = writeln!(text, "| {} | {} |", cell(name), cell(&result));
    }
}

#[test]
fn the_document_says_what_the_tests_show() {
    let rendered = render();
    if std::env::var_os("ETCDPROXY_WRITE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &rendered).unwrap();
    }
    assert!(
        std::fs::read_to_string(DOCUMENT).unwrap() == rendered,
        "{DOCUMENT} is old: write it with ETCDPROXY_WRITE_DOCS=1"
    );
}
