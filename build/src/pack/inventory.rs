//! The documents that `etcdproxy sbom` and `etcdproxy licenses` print. They list all parts of the binary: crates, Rust's
//! standard library, musl, and the programs of etcd with their Go modules.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::bom::{self, Bom, Component};
use super::licences::{self, Texts};
use super::{EtcdProgram, EtcdSource, crates, go};

/// The package that is built, from the variables that Cargo sets for its build script.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// `CARGO_PKG_NAME`
    pub name: &'static str,
    /// `CARGO_PKG_VERSION`
    pub version: &'static str,
    /// `CARGO_PKG_REPOSITORY`
    pub repository: &'static str,
}

/// The documents about all parts of the binary.
#[derive(Debug)]
pub struct Inventory {
    /// The bill of materials as `CycloneDX` 1.6.
    pub cyclonedx: String,
    /// The bill of materials as SPDX 2.3.
    pub spdx: String,
    /// The bill of materials of the small launcher, which has no etcd inside, as `CycloneDX` 1.6.
    pub launcher_cyclonedx: String,
    /// The bill of materials of the small launcher as SPDX 2.3.
    pub launcher_spdx: String,
    /// The licence texts.
    pub licenses: String,
    /// What is missing from the documents, one line each, to show during the build.
    pub warnings: Vec<String>,
}

type Components = BTreeMap<String, Component>;

impl Inventory {
    /// Lists the parts of the binary that the running build script belongs to. `sources` is the directory with the sources of
    /// all crates.
    ///
    /// # Errors
    /// If a tool cannot be asked, or if a source is missing.
    pub fn new(product: Product, source: &EtcdSource, sources: &Path) -> Result<Self> {
        let mut texts = Texts::default();
        let linked = linked(product, sources, &mut texts)?;
        let (embedded, warnings) = embedded(source, &mut texts)?;
        let licenses = licenses(product, source, &linked, &embedded, texts)?;

        let root = product.purl();
        let programs: Vec<_> = embedded.values().filter(|part| part.is_program).map(|part| part.purl.clone()).collect();
        let time = std::env::var("SOURCE_DATE_EPOCH").ok().map(|seconds| bom::time(&seconds)).transpose()?;
        let mut bom = Bom { product, root, arch: source.arch, components: linked, time };
        let (launcher_cyclonedx, launcher_spdx) = (bom.cyclonedx(), bom.spdx());
        let root = bom.components.get_mut(&bom.root).context("cargo tree does not list this crate")?;
        root.uses.extend(programs);
        bom.components.extend(embedded);
        let (cyclonedx, spdx) = (bom.cyclonedx(), bom.spdx());
        Ok(Self { cyclonedx, spdx, launcher_cyclonedx, launcher_spdx, licenses, warnings })
    }
}

impl Product {
    /// Not `pkg:cargo`, because it is in no registry of crates.
    fn purl(self) -> String {
        format!("pkg:github/{}@v{}", self.repository.trim_start_matches("https://github.com/"), self.version)
    }
}

fn cargo_purl(name: &str, version: &str) -> String {
    // Some versions have a build number after a plus sign.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// This package, all crates, and what else the compiler links.
fn linked(product: Product, sources: &Path, texts: &mut Texts) -> Result<Components> {
    let target = std::env::var("TARGET").context("TARGET is not set")?;
    let mut components = Components::new();
    for part in crates::linked(product.name, &target)?.into_values() {
        let of = format!("{} {}", part.name, part.version);
        let is_own = part.name == product.name;
        let files = if is_own { own_texts()? } else { part.texts(sources)? };
        if files.is_empty() {
            let holder = format!("Copyright (c) {}", part.authors(sources)?);
            texts.add_standard(&format!("{of} (the package contains no licence text)"), &part.license, &holder)?;
        }
        for (file, text) in files {
            texts.add(format!("{of}: {file}"), &text);
        }
        let purl = if is_own { product.purl() } else { cargo_purl(&part.name, &part.version) };
        let component = Component {
            purl: purl.clone(),
            name: part.name,
            version: Some(part.version),
            is_program: is_own,
            license: Some(part.license),
            sha256: part.sha256,
            uses: part.uses.iter().map(|(name, version)| cargo_purl(name, version)).collect(),
            ..Component::default()
        };
        components.insert(purl, component);
    }

    let mut runtime = vec![rust_std(texts)?];
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        runtime.push(musl(&target, texts)?);
    }
    if let Some(own) = components.get_mut(&product.purl()) {
        own.uses.extend(runtime.iter().map(|part| part.purl.clone()));
    }
    components.extend(runtime.into_iter().map(|part| (part.purl.clone(), part)));
    Ok(components)
}

fn own_texts() -> Result<BTreeMap<String, String>> {
    let dir = std::env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let text = |file: &str| {
        let text = fs::read_to_string(Path::new(&dir).join(file)).with_context(|| file.to_owned())?;
        Ok((file.to_owned(), text))
    };
    ["LICENSE", "NOTICE"].into_iter().map(text).collect()
}

/// The output of the compiler for these arguments.
fn rustc(args: &[&str]) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(args).output().context("cannot run rustc")?;
    ensure!(
        output.status.success(),
        "rustc {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

fn rust_std(texts: &mut Texts) -> Result<Component> {
    let version = rustc(&["--version"])?;
    let version = version.split(' ').nth(1).context("rustc does not tell its version")?;
    // The choice is MIT or Apache-2.0. Only the text of MIT would need a copyright holder.
    texts.add_standard(&format!("Rust's standard library {version}"), "Apache-2.0 AND Unicode-3.0", "")?;
    Ok(Component {
        purl: format!("pkg:generic/rust-std@{version}"),
        name: "rust-std".to_owned(),
        version: Some(version.to_owned()),
        license: Some("(MIT OR Apache-2.0) AND Unicode-3.0".to_owned()),
        ..Component::default()
    })
}

/// The C library that comes with Rust's standard library.
fn musl(target: &str, texts: &mut Texts) -> Result<Component> {
    let library = format!("{}/lib/rustlib/{target}/lib/self-contained/libc.a", rustc(&["--print", "sysroot"])?);
    // Rust from another distributor may use the system's musl.
    let version = musl_version(&fs::read(library).unwrap_or_default());
    texts.add_standard("musl libc", "MIT", "Copyright © 2005-2020 Rich Felker, et al.")?;
    Ok(Component {
        purl: version.iter().fold("pkg:generic/musl".to_owned(), |purl, version| format!("{purl}@{version}")),
        name: "musl".to_owned(),
        version,
        license: Some("MIT".to_owned()),
        ..Component::default()
    })
}

/// The library contains its version as a C string.
fn musl_version(library: &[u8]) -> Option<String> {
    let is_version = |text: &&[u8]| {
        text.starts_with(b"1.") && text.len() < 10 && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    library.split(|byte| *byte == 0).find(is_version).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The programs of etcd and the modules in their Go build information. Also returns a warning for each program without one.
fn embedded(source: &EtcdSource, texts: &mut Texts) -> Result<(Components, Vec<String>)> {
    let mut components = Components::new();
    let mut warnings = Vec::new();
    let version = &source.version;
    for EtcdProgram { name, sha256, bytes } in &source.programs {
        let mut program = Component {
            purl: format!("pkg:generic/{name}@{version}?checksum=sha256:{sha256}"),
            name: (*name).to_owned(),
            version: Some(version.clone()),
            is_program: true,
            license: Some("Apache-2.0".to_owned()),
            sha256: Some(sha256.clone()),
            uri: source.uri.clone(),
            ..Component::default()
        };
        texts.add_standard(&format!("{name} {version}"), "Apache-2.0", "")?;
        match go::build_info(bytes) {
            Ok(info) => {
                let parts = modules(info, version);
                program.uses = parts.iter().map(|part| part.purl.clone()).collect();
                components.extend(parts.into_iter().map(|part| (part.purl.clone(), part)));
            }
            Err(err) => warnings.push(format!("the bill of materials will list no Go modules of {name}: {err:#}")),
        }
        components.insert(program.purl.clone(), program);
    }
    for part in components.values().filter(|part| !part.is_program) {
        if let Some(license) = &part.license {
            let of = format!("{} {}", part.name, part.version.as_deref().unwrap_or_default());
            texts.add_standard(&of, license, &part.notices)?;
        }
    }
    Ok((components, warnings))
}

fn modules(info: go::BuildInfo, etcd: &str) -> Vec<Component> {
    let stdlib = go::Module { path: "stdlib".to_owned(), version: Some(info.go), sum: None };
    let modules = std::iter::once(stdlib).chain(info.modules);
    let component = |module: go::Module| {
        // etcd is one source tree with several modules, which all have the same version.
        let of_etcd = module.path.starts_with("go.etcd.io/etcd/").then(|| format!("v{etcd}"));
        let version = module.version.or(of_etcd);
        let purl = format!("pkg:golang/{}", module.path.to_lowercase());
        let known = licences::of_go_module(&module.path);
        Component {
            purl: version.iter().fold(purl, |purl, version| format!("{purl}@{}", version.replace('+', "%2B"))),
            license: known.as_ref().map(|(license, _)| (*license).to_owned()),
            notices: known.map(|(_, notices)| notices).unwrap_or_default(),
            name: module.path,
            version,
            go_sum: module.sum,
            ..Component::default()
        }
    };
    modules.map(component).collect()
}

fn licenses(
    product: Product,
    source: &EtcdSource,
    linked: &Components,
    embedded: &Components,
    texts: Texts,
) -> Result<String> {
    let Product { name, version, .. } = product;
    let mut out = format!("Licences of everything in {name} {version} linux-{}\n", source.arch);
    writeln!(out, "\nLinked into it:\n")?;
    list(linked, &mut out)?;
    writeln!(out, "\nInside it, compressed: etcd {} and what it is built from:\n", source.version)?;
    list(embedded, &mut out)?;
    writeln!(
        out,
        "\nAn etcd release contains no licence texts of Go and of the Go modules. Below are SPDX's texts of the same licences,\n\
         with the copyright notices of the modules. The modules' own files are in their sources:\n\
         go mod download MODULE@VERSION"
    )?;
    texts.print(&mut out)?;
    Ok(out)
}

fn list(components: &Components, out: &mut String) -> Result<()> {
    for Component { name, version, license, .. } in components.values() {
        let version = version.as_deref().unwrap_or_default();
        writeln!(out, "  {name} {version}: {}", license.as_deref().unwrap_or("its licence is not on record"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Arch;
    use super::*;

    const PRODUCT: Product =
        Product { name: "etcdproxy", version: "0.1.0", repository: "https://github.com/etcdproxy/etcdproxy" };

    fn source(uri: Option<&str>) -> EtcdSource {
        let elf = go::tests::etcd();
        EtcdSource {
            version: "3.7.2".to_owned(),
            arch: Arch::Amd64,
            origin: "a test".to_owned(),
            uri: uri.map(str::to_owned),
            programs: vec![EtcdProgram::new("etcd", elf), EtcdProgram::new("etcdctl", b"no Go".to_vec())],
        }
    }

    #[test]
    fn package_urls() {
        assert_eq!(PRODUCT.purl(), "pkg:github/etcdproxy/etcdproxy@v0.1.0");
        assert_eq!(cargo_purl("zstd-sys", "2.1.3+zstd.1.5.7"), "pkg:cargo/zstd-sys@2.1.3%2Bzstd.1.5.7");
    }

    #[test]
    fn programs_are_listed_with_their_modules_and_one_without_is_named() {
        let (components, warnings) = embedded(&source(Some("https://example.com")), &mut Texts::default()).unwrap();
        let etcd = components.values().find(|part| part.name == "etcd").unwrap();
        assert_eq!(etcd.uri.as_deref(), Some("https://example.com"));
        assert!(etcd.purl.starts_with("pkg:generic/etcd@3.7.2?checksum=sha256:"), "{}", etcd.purl);
        for used in &etcd.uses {
            assert!(components.contains_key(used), "{used}");
        }
        assert!(etcd.uses.contains("pkg:golang/stdlib@1.26.8"), "{:?}", etcd.uses);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("the bill of materials will list no Go modules of etcdctl: "), "{warnings:?}");
    }

    #[test]
    fn modules_of_etcd_have_its_version() {
        let module = |path: &str, version: Option<&str>| go::Module {
            path: path.to_owned(),
            version: version.map(str::to_owned),
            sum: None,
        };
        let modules = [
            module("go.etcd.io/etcd/server/v3", None),
            module("go.etcd.io/bbolt", None),
            module("github.com/Example/x", Some("v1.0.0+incompatible")),
        ];
        let info = go::BuildInfo { go: "1.26.8".to_owned(), modules: modules.into() };
        let parts = super::modules(info, "3.7.2");
        let purls: Vec<&str> = parts.iter().map(|part| &*part.purl).collect();
        let expected = [
            "pkg:golang/stdlib@1.26.8",
            "pkg:golang/go.etcd.io/etcd/server/v3@v3.7.2",
            "pkg:golang/go.etcd.io/bbolt",
            "pkg:golang/github.com/example/x@v1.0.0%2Bincompatible",
        ];
        assert_eq!(purls, expected);
        assert_eq!(parts[3].license, None, "the table has no such module");
    }

    #[test]
    fn the_licence_texts_begin_with_the_list_of_parts() {
        let source = source(None);
        let mut texts = Texts::default();
        let (embedded, _) = embedded(&source, &mut texts).unwrap();
        let text = licenses(PRODUCT, &source, &Components::new(), &embedded, texts).unwrap();
        assert!(text.starts_with("Licences of everything in etcdproxy 0.1.0 linux-amd64\n"), "{text}");
        for line in ["  etcd 3.7.2: Apache-2.0", "  example.com/new v0.1.0: its licence is not on record"] {
            assert!(text.lines().any(|actual| actual == line), "{line:?} is missing");
        }
        assert!(text.contains("TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"));
    }

    #[test]
    fn the_version_of_musl_is_found_in_its_library() {
        assert_eq!(musl_version(b"text\x001.x\x001.2.5\x00more").as_deref(), Some("1.2.5"));
        assert_eq!(musl_version(b""), None);
        assert_eq!(musl_version(b"\x002.39\x001.2.3.4.5.6.7\x00"), None);
    }
}
