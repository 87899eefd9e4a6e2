//! What the binary is made of, as the documents that `etcdproxy sbom` and `etcdproxy licenses` print: crates, Rust's
//! standard library, musl, and the programs of etcd with their Go modules.

mod bom;
mod crates;
mod go;
mod licences;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::sha256_hex;
use crate::source::Found;
use bom::{Bom, Component};
use licences::Texts;

pub(crate) struct Documents {
    pub(crate) cyclonedx: String,
    pub(crate) spdx: String,
    pub(crate) licenses: String,
}

type Components = BTreeMap<String, Component>;

const OWN: (&str, &str) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
/// It is in no registry of crates.
const OWN_PURL: &str = concat!("pkg:github/etcdproxy/etcdproxy@v", env!("CARGO_PKG_VERSION"));

/// `sources` is the directory that has the sources of all crates in it.
pub(crate) fn documents(found: &Found, arch: &'static str, sources: &Path) -> Result<Documents> {
    for file in ["Cargo.toml", "Cargo.lock", "LICENSE", "NOTICE"] {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");

    let mut texts = Texts::default();
    let mut linked = linked(sources, &mut texts)?;
    let carried = carried(found, &mut texts)?;
    let licenses = licenses(found, arch, &linked, &carried, texts)?;

    let root = OWN_PURL.to_owned();
    let parts = carried.values().filter(|part| part.is_program).map(|part| part.purl.clone());
    linked.get_mut(&root).context("cargo tree does not list this crate")?.uses.extend(parts);
    let bom = Bom { root, arch, components: linked.into_iter().chain(carried).collect(), time: bom::time()? };
    Ok(Documents { cyclonedx: bom.cyclonedx(), spdx: bom.spdx(), licenses })
}

fn cargo_purl(name: &str, version: &str) -> String {
    // A build number is part of some versions.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// This crate, all others, and what the compiler links besides.
fn linked(sources: &Path, texts: &mut Texts) -> Result<Components> {
    let target = std::env::var("TARGET").context("TARGET is not set")?;
    let mut components = Components::new();
    for part in crates::linked(&target)?.into_values() {
        let of = format!("{} {}", part.name, part.version);
        let is_own = (&*part.name, &*part.version) == OWN;
        let found = if is_own { own_texts()? } else { part.texts(sources)? };
        if found.is_empty() {
            let holder = format!("Copyright (c) {}", part.authors(sources)?);
            texts.add_standard(&format!("{of} (the package has no text of it)"), &part.license, &holder)?;
        }
        for (file, text) in found {
            texts.add(format!("{of}: {file}"), &text);
        }
        let purl = if is_own { OWN_PURL.to_owned() } else { cargo_purl(&part.name, &part.version) };
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
    if let Some(own) = components.get_mut(OWN_PURL) {
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

/// What the compiler prints when it is asked so.
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
    // Of MIT and Apache-2.0 the one whose text names no copyright holder.
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
    // Its version stands in it as a C string; another build of Rust may take the system's musl.
    let is_version = |text: &&[u8]| {
        text.starts_with(b"1.") && text.len() < 10 && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    let bytes = fs::read(library).unwrap_or_default();
    let version =
        bytes.split(|byte| *byte == 0).find(is_version).map(|text| String::from_utf8_lossy(text).into_owned());
    texts.add_standard("musl libc", "MIT", "Copyright © 2005-2020 Rich Felker, et al.")?;
    Ok(Component {
        purl: version.iter().fold("pkg:generic/musl".to_owned(), |purl, version| format!("{purl}@{version}")),
        name: "musl".to_owned(),
        version,
        license: Some("MIT".to_owned()),
        ..Component::default()
    })
}

/// The programs, and what their Go build information lists.
fn carried(found: &Found, texts: &mut Texts) -> Result<Components> {
    let mut components = Components::new();
    for (name, bytes) in &found.programs {
        let sha256 = sha256_hex(bytes);
        let mut program = Component {
            purl: format!("pkg:generic/{name}@{}?checksum=sha256:{sha256}", found.version),
            name: (*name).to_owned(),
            version: Some(found.version.clone()),
            is_program: true,
            license: Some("Apache-2.0".to_owned()),
            sha256: Some(sha256),
            uri: found.uri.clone(),
            ..Component::default()
        };
        texts.add_standard(&format!("{name} {}", found.version), "Apache-2.0", "")?;
        match go::build_info(bytes) {
            Ok(info) => {
                let parts = modules(info, &found.version);
                program.uses = parts.iter().map(|part| part.purl.clone()).collect();
                components.extend(parts.into_iter().map(|part| (part.purl.clone(), part)));
            }
            Err(err) => println!("cargo::warning=the bill of materials will list no Go modules of {name}: {err:#}"),
        }
        components.insert(program.purl.clone(), program);
    }
    for part in components.values().filter(|part| !part.is_program) {
        if let Some(license) = &part.license {
            let of = format!("{} {}", part.name, part.version.as_deref().unwrap_or_default());
            texts.add_standard(&of, license, &part.notices)?;
        }
    }
    Ok(components)
}

fn modules(info: go::BuildInfo, etcd: &str) -> Vec<Component> {
    let stdlib = go::Module { path: "stdlib".to_owned(), version: Some(info.go), sum: None };
    let modules = std::iter::once(stdlib).chain(info.modules);
    let component = |module: go::Module| {
        // etcd is one source tree of several modules, all of the same version.
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

fn licenses(found: &Found, arch: &str, linked: &Components, carried: &Components, texts: Texts) -> Result<String> {
    let mut out = format!("Licences of all that is in {} {} linux-{arch}\n", OWN.0, OWN.1);
    writeln!(out, "\nLinked into it:\n")?;
    list(linked, &mut out)?;
    writeln!(out, "\nCarried in it, compressed, etcd {}, and what that is built from:\n", found.version)?;
    list(carried, &mut out)?;
    writeln!(
        out,
        "\nAn etcd release brings no licence texts of Go and of the Go modules. Below stand those of the same licences as SPDX\n\
         has them, with the copyright notices of the modules. The modules' own files are in their sources:\n\
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
