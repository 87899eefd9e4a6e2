//! `sbom` and `licenses`: what they say is compared with the programs themselves, `Cargo.lock`, and other people's
//! validators of the formats.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{binary, command, etcdproxy, finish};
use crate::three_programs;

fn printed_by(binary: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = finish(&mut command(binary, args));
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout
}

fn printed(args: &[&str]) -> String {
    printed_by(&binary(), args)
}

fn cyclonedx(binary: &Path) -> Value {
    serde_json::from_str(&printed_by(binary, &["sbom"])).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// Components by package URL.
fn components(bom: &Value) -> BTreeMap<String, &Value> {
    list(&bom["components"]).iter().map(|part| (text(&part["purl"]), part)).collect()
}

/// Package URLs of what a component uses.
fn uses(bom: &Value, purl: &str) -> BTreeSet<String> {
    let entry = list(&bom["dependencies"]).iter().find(|entry| entry["ref"] == purl);
    list(&entry.unwrap_or_else(|| panic!("nothing is said of {purl}"))["dependsOn"]).iter().map(text).collect()
}

/// The programs the binary depends on, by name.
fn programs(bom: &Value) -> BTreeMap<String, String> {
    let all = components(bom);
    let root = text(&bom["metadata"]["component"]["bom-ref"]);
    let used = uses(bom, &root).into_iter().filter(|purl| all[purl]["type"] == "application");
    used.map(|purl| (text(&all[&purl]["name"]), purl)).collect()
}

/// Path, version and sum of each `dep` line between the marks in a Go program, found without its headers.
fn go_modules(program: &[u8]) -> BTreeSet<[String; 3]> {
    let text = String::from_utf8_lossy(program);
    let lines = text.split("\npath\t").flat_map(|part| part.split('\n')).filter(|line| line.starts_with("dep\t"));
    let fields = lines.map(|line| line.split('\t').skip(1).map(str::to_owned).collect::<Vec<_>>());
    fields
        .filter_map(|fields| fields.try_into().ok())
        .filter(|[.., sum]: &[String; 3]| sum.starts_with("h1:"))
        .collect()
}

/// What a bill says of them, for one program.
fn go_modules_in(bom: &Value, program: &str) -> BTreeSet<[String; 3]> {
    let all = components(bom);
    let used = uses(bom, program).into_iter().map(|purl| (all[&purl], purl));
    used.filter(|(part, _)| part["properties"].is_array())
        .map(|(part, purl)| {
            let (path, version) = (text(&part["name"]), text(&part["version"]));
            assert_eq!(purl, format!("pkg:golang/{}@{}", path.to_lowercase(), version.replace('+', "%2B")));
            [path, version, text(&part["properties"][0]["value"])]
        })
        .collect()
}

#[test]
fn etcd_is_listed_with_its_hash_and_every_go_module() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = finish(&mut etcdproxy([Path::new("unpack"), dir.path()]));
    assert_eq!(code, 0, "{stderr}");
    let etcd = fs::read(dir.path().join("etcd")).unwrap();

    let bom = cyclonedx(&binary());
    let programs = programs(&bom);
    assert_eq!(programs.keys().collect::<Vec<_>>(), ["etcd"]);
    let sha256 = text(&components(&bom)[&programs["etcd"]]["hashes"][0]["content"]);
    assert!(printed(&["list"]).contains(&sha256));
    assert!(programs["etcd"].ends_with(&format!("?checksum=sha256:{sha256}")), "{}", programs["etcd"]);

    let expected = go_modules(&etcd);
    assert!(expected.len() > 40, "{expected:?}");
    assert_eq!(go_modules_in(&bom, &programs["etcd"]), expected);

    let parts = uses(&bom, &programs["etcd"]);
    let version = text(&components(&bom)[&programs["etcd"]]["version"]);
    assert!(parts.contains(&format!("pkg:golang/go.etcd.io/etcd/server/v3@v{version}")), "{parts:?}");
    assert!(parts.contains(&format!("pkg:golang/go.etcd.io/etcd/client/v3@v{version}")), "{parts:?}");
    assert!(parts.iter().any(|purl| purl.starts_with("pkg:golang/stdlib@1.")), "{parts:?}");
}

/// Their Go is so old (1.16) that the build information is not where it is today.
#[test]
fn three_programs_are_listed_each_with_its_own_modules() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = finish(&mut command(&three_programs::binary(), [Path::new("unpack"), dir.path()]));
    assert_eq!(code, 0, "{stderr}");
    let bom = cyclonedx(&three_programs::binary());
    let programs = programs(&bom);
    assert_eq!(programs.keys().collect::<Vec<_>>(), ["etcd", "etcdctl", "etcdutl"]);
    for (name, purl) in &programs {
        let expected = go_modules(&fs::read(dir.path().join(name)).unwrap());
        assert!(expected.len() > 20, "{name}: {expected:?}");
        assert_eq!(go_modules_in(&bom, purl), expected, "{name}");
    }
    assert_ne!(uses(&bom, &programs["etcd"]), uses(&bom, &programs["etcdctl"]));
}

#[test]
fn crates_are_those_that_are_linked_with_the_hashes_of_the_lock_file() {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let locked = lock.split("[[package]]").skip(1);
    let locked: BTreeMap<String, String> = locked
        .filter_map(|package| {
            let version = field(package, "version")?.replace('+', "%2B");
            Some((format!("pkg:cargo/{}@{version}", field(package, "name")?), field(package, "checksum")?))
        })
        .collect();

    let bom = cyclonedx(&binary());
    let mut names = BTreeSet::new();
    for (purl, part) in components(&bom).into_iter().filter(|(purl, _)| purl.starts_with("pkg:cargo/")) {
        assert_eq!(text(&part["hashes"][0]["content"]), locked[&purl], "{purl}");
        names.insert(text(&part["name"]));
    }
    for linked in ["clap", "rustls", "ring", "tokio", "zstd-sys", "libc", "untrusted"] {
        assert!(names.contains(linked), "{linked} is not in {names:?}");
    }
    // For the build, for the tests, for other systems, and macros; and a part of etcdproxy itself.
    let not_linked = ["tar", "toml", "spdx", "trycmd", "etcd-client", "windows-sys", "serde_derive", "syn", "cc"];
    for not_linked in not_linked.into_iter().chain(["etcdproxy-payload"]) {
        assert!(!names.contains(not_linked), "{not_linked} is in {names:?}");
    }
    let root = text(&bom["metadata"]["component"]["bom-ref"]);
    assert!(uses(&bom, &root).iter().any(|purl| purl.starts_with("pkg:cargo/rustls@")));
    assert!(!uses(&bom, &root).iter().any(|purl| purl.starts_with("pkg:cargo/untrusted@")));
}

#[test]
fn everything_that_is_referred_to_is_there_and_everything_that_is_there_is_used() {
    let bom = cyclonedx(&binary());
    let mut there: BTreeSet<String> = components(&bom).into_keys().collect();
    assert_eq!(there.len(), list(&bom["components"]).len());
    let used: BTreeSet<String> =
        list(&bom["dependencies"]).iter().flat_map(|entry| list(&entry["dependsOn"])).map(text).collect();
    assert_eq!(used, there);
    there.insert(text(&bom["metadata"]["component"]["bom-ref"]));
    let said: BTreeSet<String> = list(&bom["dependencies"]).iter().map(|entry| text(&entry["ref"])).collect();
    assert_eq!(said, there);
}

#[test]
fn both_formats_say_the_same() {
    let bom = cyclonedx(&binary());
    let spdx: Value = serde_json::from_str(&printed(&["sbom", "--format", "spdx"])).unwrap();
    let mut expected: BTreeMap<String, [Value; 3]> = BTreeMap::new();
    for part in list(&bom["components"]).iter().chain([&bom["metadata"]["component"]]) {
        let license = part["licenses"][0]["expression"].clone();
        expected.insert(text(&part["purl"]), [part["version"].clone(), license, part["hashes"][0]["content"].clone()]);
    }
    let mut by_id = BTreeMap::new();
    let actual: BTreeMap<String, [Value; 3]> = list(&spdx["packages"])
        .iter()
        .map(|package| {
            let purl = text(&package["externalRefs"][0]["referenceLocator"]);
            by_id.insert(text(&package["SPDXID"]), purl.clone());
            let checksum = package["checksums"][0]["checksumValue"].clone();
            (purl, [package["versionInfo"].clone(), package["licenseDeclared"].clone(), checksum])
        })
        .collect();
    assert_eq!(actual, expected);

    let edges = list(&spdx["relationships"]).iter().filter(|edge| edge["relationshipType"] != "DESCRIBES");
    let contained = edges.clone().filter(|edge| edge["relationshipType"] == "CONTAINS");
    let contained: Vec<_> = contained.map(|edge| by_id[&text(&edge["relatedSpdxElement"])].clone()).collect();
    assert_eq!(contained, programs(&bom).into_values().collect::<Vec<_>>());
    let edges =
        edges.map(|edge| [&edge["spdxElementId"], &edge["relatedSpdxElement"]].map(|id| by_id[&text(id)].clone()));
    let expected = list(&bom["dependencies"])
        .iter()
        .flat_map(|entry| list(&entry["dependsOn"]).iter().map(|used| [text(&entry["ref"]), text(used)]));
    assert_eq!(edges.collect::<BTreeSet<_>>(), expected.collect());
}

/// `scripts/test.sh` installs the validators and names their directory in `ETCDPROXY_TEST_SBOM_VALIDATORS`.
#[test]
fn both_formats_are_valid_by_the_word_of_their_makers() {
    let validators = std::env::var_os("ETCDPROXY_TEST_SBOM_VALIDATORS");
    let validators = validators.expect("ETCDPROXY_TEST_SBOM_VALIDATORS is set by scripts/test.sh");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bom.json");
    let valid = |format: &str, text: &str| {
        fs::write(&file, text).unwrap();
        let mut validate = Command::new("python3");
        validate.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/validate_sbom.py")).args([format]).arg(&file);
        finish(validate.env("PYTHONPATH", &validators))
    };
    // And what each of them must refuse.
    let broken = [
        ("cyclonedx", [("SHA-256", "SHA-255"), ("\"ref\"", "\"of\"")]),
        ("spdx", [("DEPENDS_ON", "NEEDS"), ("MIT OR Apache", "MIT ODER Apache")]),
    ];
    for (format, changes) in broken {
        let mut text = String::new();
        for binary in [three_programs::binary(), binary()] {
            text = printed_by(&binary, &["sbom", "--format", format]);
            let (code, stdout, stderr) = valid(format, &text);
            assert_eq!(code, 0, "{format}: {stdout}{stderr}");
        }
        for (from, to) in changes {
            assert!(text.contains(from), "{format}: {from}");
            let (code, stdout, stderr) = valid(format, &text.replace(from, to));
            assert_eq!((code, stdout.is_empty()), (1, false), "{format}: {to}: {stderr}");
        }
    }
}

#[test]
fn every_part_has_its_licence_and_a_text_of_it() {
    let licenses = printed(&["licenses"]);
    assert!(!licenses.contains("not on record"), "build/go-licences.txt lacks a module");
    let (list, texts) = licenses.split_once("\n====").unwrap();
    let bom = cyclonedx(&binary());
    for (purl, part) in components(&bom) {
        let (name, version) = (text(&part["name"]), part["version"].as_str().unwrap_or_default());
        let license = text(&part["licenses"][0]["expression"]);
        assert!(list.contains(&format!("\n  {name} {version}: {license}\n")), "{purl} is not listed");
        if !purl.starts_with("pkg:generic/") {
            let headings = [": ", " (the package contains no licence text): "];
            let mut headings = headings.iter().map(|rest| format!("\n{name} {version}{rest}"));
            assert!(headings.any(|heading| texts.contains(&heading)), "{purl} has no text");
        }
    }
    let blanks: Vec<&str> = texts.lines().filter(|line| line.starts_with("Copyright") && line.contains('<')).collect();
    assert!(blanks.iter().all(|line| line.contains('@')), "build/go-licences.txt lacks a notice: {blanks:?}");
    for part in [
        "Permission is hereby granted, free of charge",
        "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
        "Redistributions in binary form must reproduce the above",
        "\nCopyright (c) 2016-2017 Uber Technologies, Inc.\n",
        "\nCopyright 2009 The Go Authors.\n",
        "Permission to use, copy, modify, and/or distribute this software for any",
        "UNICODE LICENSE V3",
        "Copyright 2026 The etcdproxy authors",
        "third_party/fiat/LICENSE",
    ] {
        assert!(texts.contains(part), "{part:?} is missing");
    }
    if components(&bom).keys().any(|purl| purl.starts_with("pkg:generic/musl")) {
        assert!(texts.contains("Rich Felker"));
    }
    // Each text once.
    assert_eq!(texts.matches("UNICODE LICENSE V3").count(), 1);
}

#[test]
fn nothing_tells_of_the_machine_it_was_built_on() {
    for args in [&["sbom"][..], &["sbom", "--format", "spdx"], &["licenses"]] {
        let text = printed(args);
        for word in [env!("CARGO_MANIFEST_DIR"), "/registry/", "/.cargo", "/vendor/", "/target/"] {
            assert!(!text.contains(word), "{args:?}: {word}");
        }
    }
}
