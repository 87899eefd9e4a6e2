//! The documents: their links lead somewhere, the paths that they name exist, and the contents list them all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A document: where its links lead, the places in it that a link can name, and what it shows as code in its sentences.
#[derive(Default)]
struct Document {
    links: Vec<String>,
    anchors: Vec<String>,
    code: Vec<String>,
}

impl Document {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut document = Self::default();
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.anchors.push(anchor(&heading.take().unwrap_or_default()));
                }
                Event::Code(text) if heading.is_none() => document.code.push(text.to_string()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        document
    }
}

/// As GitHub and mdBook make it from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> BTreeMap<PathBuf, Document> {
    let markdown = |dir: &str| {
        let files = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>()
    };
    [markdown("."), markdown("docs")].concat().into_iter().map(|path| (path.clone(), Document::read(&path))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 20, "{}", documents.len());
    let mut dead = Vec::new();
    for (path, document) in &documents {
        for link in document.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let leads = target.canonicalize().is_ok_and(|target| {
                anchor.is_empty()
                    || documents.iter().any(|(path, document)| {
                        path.canonicalize().unwrap() == target && document.anchors.iter().any(|known| known == anchor)
                    })
            });
            if !leads {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "these links lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn every_path_in_a_document_exists() {
    let mut missing = Vec::new();
    for (document, Document { code, .. }) in documents() {
        for span in code {
            let path = span.split_whitespace().next().unwrap_or_default().trim_start_matches("./");
            let rooms = ["src/", "build/", "tests/", "scripts/", "assets/", "bin/", "docs/", "fixtures/", "examples/"];
            let is_path = rooms.iter().any(|room| path.starts_with(room)) && !path.contains(['*', '<', '…', '{']);
            if is_path && !root().join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "these paths do not exist:\n{}", missing.join("\n"));
}

#[test]
fn the_contents_list_every_page() {
    let contents = Document::read(&root().join("docs/SUMMARY.md")).links;
    let pages = documents().into_keys().filter(|path| path.parent().unwrap().ends_with("docs"));
    let missing: Vec<_> = pages
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|page| page != "SUMMARY.md" && !contents.contains(page))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not name {missing:?}");
}
