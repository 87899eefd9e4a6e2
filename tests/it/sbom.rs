//! `sbom` and `licenses`. The tests compare their output with the programs themselves and with `Cargo.lock`, and run the
//! official validators of the formats.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{binary, command, finish, path_from_test_script, sha256, succeeds, unpack};
use crate::three_programs;

fn output_of(args: &[&str]) -> String {
    succeeds(&mut command(&binary(), args))
}

fn cyclonedx(binary: &Path) -> Value {
    serde_json::from_str(&succeeds(&mut command(binary, ["sbom"]))).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}

/// Components, by package URL.
fn components(bom: &Value) -> BTreeMap<String, &Value> {
    list(&bom["components"]).iter().map(|component| (text(&component["purl"]), component)).collect()
}

/// Package URLs of a component's dependencies.
fn dependencies(bom: &Value, purl: &str) -> BTreeSet<String> {
    let entry = list(&bom["dependencies"]).iter().find(|entry| entry["ref"] == purl);
    list(&entry.unwrap_or_else(|| panic!("there is no entry for {purl}"))["dependsOn"]).iter().map(text).collect()
}

/// Package URLs of the programs inside the binary, by name.
fn programs(bom: &Value) -> BTreeMap<String, String> {
    let all = components(bom);
    let root = text(&bom["metadata"]["component"]["bom-ref"]);
    let used = dependencies(bom, &root).into_iter().filter(|purl| all[purl]["type"] == "application");
    used.map(|purl| (text(&all[&purl]["name"]), purl)).collect()
}

/// Path, version and sum of each module in a Go program. Searches the file for lines that begin with `dep`, without
/// reading its headers.
fn go_modules(program: &[u8]) -> BTreeSet<[String; 3]> {
    let text = String::from_utf8_lossy(program);
    let lines = text.split("\npath\t").flat_map(|part| part.split('\n')).filter(|line| line.starts_with("dep\t"));
    let fields = lines.map(|line| line.split('\t').skip(1).map(str::to_owned).collect::<Vec<_>>());
    fields
        .filter_map(|fields| fields.try_into().ok())
        .filter(|[.., sum]: &[String; 3]| sum.starts_with("h1:"))
        .collect()
}

/// The Go modules that a bill of materials lists for a program.
fn listed_go_modules(bom: &Value, program: &str) -> BTreeSet<[String; 3]> {
    let all = components(bom);
    let used = dependencies(bom, program).into_iter().map(|purl| (all[&purl], purl));
    used.filter(|(component, _)| component["properties"].is_array())
        .map(|(component, purl)| {
            let (path, version) = (text(&component["name"]), text(&component["version"]));
            assert_eq!(purl, format!("pkg:golang/{}@{}", path.to_lowercase(), version.replace('+', "%2B")));
            [path, version, text(&component["properties"][0]["value"])]
        })
        .collect()
}

#[test]
fn etcd_is_listed_with_its_hash_and_every_go_module() {
    let dir = tempfile::tempdir().unwrap();
    unpack(&binary(), dir.path());
    let etcd = dir.path().join("etcd");

    let bom = cyclonedx(&binary());
    let programs = programs(&bom);
    assert_eq!(programs.keys().collect::<Vec<_>>(), ["etcd"]);
    let sha256 = sha256(&etcd);
    assert_eq!(components(&bom)[&programs["etcd"]]["hashes"][0]["content"], sha256);
    assert!(output_of(&["list"]).contains(&sha256));
    assert!(programs["etcd"].ends_with(&format!("?checksum=sha256:{sha256}")), "{}", programs["etcd"]);

    let expected = go_modules(&fs::read(&etcd).unwrap());
    assert!(expected.len() > 40, "{expected:?}");
    assert_eq!(listed_go_modules(&bom, &programs["etcd"]), expected);

    let modules = dependencies(&bom, &programs["etcd"]);
    let version = text(&components(&bom)[&programs["etcd"]]["version"]);
    assert!(modules.contains(&format!("pkg:golang/go.etcd.io/etcd/server/v3@v{version}")), "{modules:?}");
    assert!(modules.contains(&format!("pkg:golang/go.etcd.io/etcd/client/v3@v{version}")), "{modules:?}");
    assert!(modules.iter().any(|purl| purl.starts_with("pkg:golang/stdlib@1.")), "{modules:?}");
}

/// Go 1.16, which built them, put the build information elsewhere.
#[test]
#[ignore = "needs a build with three programs: run ./scripts/test.sh"]
fn all_three_programs_are_listed_with_their_own_go_modules() {
    let dir = tempfile::tempdir().unwrap();
    unpack(&three_programs::binary(), dir.path());
    let bom = cyclonedx(&three_programs::binary());
    let programs = programs(&bom);
    assert_eq!(programs.keys().collect::<Vec<_>>(), ["etcd", "etcdctl", "etcdutl"]);
    for (name, purl) in &programs {
        let expected = go_modules(&fs::read(dir.path().join(name)).unwrap());
        assert!(expected.len() > 20, "{name}: {expected:?}");
        assert_eq!(listed_go_modules(&bom, purl), expected, "{name}");
    }
    assert_ne!(dependencies(&bom, &programs["etcd"]), dependencies(&bom, &programs["etcdctl"]));
}

#[test]
fn exactly_the_linked_crates_are_listed_with_their_hashes_in_the_lock_file() {
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
    for (purl, component) in components(&bom).into_iter().filter(|(purl, _)| purl.starts_with("pkg:cargo/")) {
        assert_eq!(text(&component["hashes"][0]["content"]), locked[&purl], "{purl}");
        names.insert(text(&component["name"]));
    }
    for linked in ["clap", "rustls", "aws-lc-rs", "tokio", "zstd-sys", "libc", "untrusted"] {
        assert!(names.contains(linked), "{linked} is not in {names:?}");
    }
    // Crates for the build, for the tests and for other systems; macros; and a part of etcdproxy itself.
    let not_linked = ["toml_parser", "spdx", "trycmd", "etcd-client", "windows-sys", "serde_derive", "syn", "cc"];
    for not_linked in not_linked.into_iter().chain(["etcdproxy-payload"]) {
        assert!(!names.contains(not_linked), "{not_linked} is in {names:?}");
    }
    let root = text(&bom["metadata"]["component"]["bom-ref"]);
    let direct = dependencies(&bom, &root);
    assert!(direct.iter().any(|purl| purl.starts_with("pkg:cargo/rustls@")));
    assert!(!direct.iter().any(|purl| purl.starts_with("pkg:cargo/untrusted@")));
}

#[test]
fn every_component_is_used_and_every_dependency_is_a_component() {
    let bom = cyclonedx(&binary());
    let mut listed: BTreeSet<String> = components(&bom).into_keys().collect();
    assert_eq!(listed.len(), list(&bom["components"]).len());
    let used: BTreeSet<String> =
        list(&bom["dependencies"]).iter().flat_map(|entry| list(&entry["dependsOn"])).map(text).collect();
    assert_eq!(used, listed);
    listed.insert(text(&bom["metadata"]["component"]["bom-ref"]));
    let with_entry: BTreeSet<String> = list(&bom["dependencies"]).iter().map(|entry| text(&entry["ref"])).collect();
    assert_eq!(with_entry, listed);
}

#[test]
fn both_formats_have_the_same_content() {
    let bom = cyclonedx(&binary());
    let spdx: Value = serde_json::from_str(&output_of(&["sbom", "--format", "spdx"])).unwrap();
    let mut expected: BTreeMap<String, [Value; 3]> = BTreeMap::new();
    for component in list(&bom["components"]).iter().chain([&bom["metadata"]["component"]]) {
        let license = component["licenses"][0]["expression"].clone();
        let hash = component["hashes"][0]["content"].clone();
        expected.insert(text(&component["purl"]), [component["version"].clone(), license, hash]);
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

#[test]
#[ignore = "needs validators and a build with three programs: run ./scripts/test.sh"]
fn the_official_validators_accept_both_formats() {
    let validators = path_from_test_script("ETCDPROXY_TEST_SBOM_VALIDATORS");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bom.json");
    let validate = |format: &str, text: &str| {
        fs::write(&file, text).unwrap();
        let mut python = Command::new("python3");
        python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/validate_sbom.py")).arg(format).arg(&file);
        finish(python.env("PYTHONPATH", &validators))
    };
    // Changes that each validator must reject.
    let broken = [
        ("cyclonedx", [("SHA-256", "SHA-255"), ("\"ref\"", "\"of\"")]),
        ("spdx", [("DEPENDS_ON", "NEEDS"), ("MIT OR Apache", "MIT ODER Apache")]),
    ];
    for (format, changes) in broken {
        let mut text = String::new();
        for binary in [three_programs::binary(), binary()] {
            text = succeeds(&mut command(&binary, ["sbom", "--format", format]));
            let (code, stdout, stderr) = validate(format, &text);
            assert_eq!(code, 0, "{format}: {stdout}{stderr}");
        }
        for (from, to) in changes {
            assert!(text.contains(from), "{format}: {from}");
            let (code, stdout, stderr) = validate(format, &text.replace(from, to));
            assert_eq!((code, stdout.is_empty()), (1, false), "{format}: {to}: {stderr}");
        }
    }
}

#[test]
fn every_component_has_a_licence_and_its_text() {
    let licenses = output_of(&["licenses"]);
    assert!(!licenses.contains("not on record"), "build/go-licences.txt lacks a module");
    let (list, texts) = licenses.split_once("\n====").unwrap();
    let bom = cyclonedx(&binary());
    for (purl, component) in components(&bom) {
        let (name, version) = (text(&component["name"]), component["version"].as_str().unwrap_or_default());
        let license = text(&component["licenses"][0]["expression"]);
        assert!(list.contains(&format!("\n  {name} {version}: {license}\n")), "{purl} is not listed");
        if !purl.starts_with("pkg:generic/") {
            let headings = [": ", " (the package contains no licence text): "];
            let mut headings = headings.iter().map(|rest| format!("\n{name} {version}{rest}"));
            assert!(headings.any(|heading| texts.contains(&heading)), "{purl} has no text");
        }
    }
    let blanks: Vec<&str> = texts.lines().filter(|line| line.starts_with("Copyright") && line.contains('<')).collect();
    assert!(blanks.iter().all(|line| line.contains('@')), "build/go-licences.txt lacks a notice: {blanks:?}");
    for passage in [
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
        assert!(texts.contains(passage), "{passage:?} is missing");
    }
    if components(&bom).keys().any(|purl| purl.starts_with("pkg:generic/musl")) {
        assert!(texts.contains("Rich Felker"));
    }
    // Each text appears once.
    assert_eq!(texts.matches("UNICODE LICENSE V3").count(), 1);
}

#[test]
fn no_document_contains_a_path_of_the_build_machine() {
    for args in [&["sbom"][..], &["sbom", "--format", "spdx"], &["licenses"]] {
        let text = output_of(args);
        for word in [env!("CARGO_MANIFEST_DIR"), "/registry/", "/.cargo", "/vendor/", "/target/"] {
            assert!(!text.contains(word), "{args:?}: {word}");
        }
    }
}
