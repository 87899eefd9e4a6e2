//! Checks the structure of `src/` against ARCHITECTURE.md: arrows between rooms run one way, and no files form a circle.
//!
//! An arrow is a path in the code, such as `crate::net::Dialer`, that leads from its file to another. Test modules do
//! not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The position of a file among the modules: `src/net/dial.rs` is `net::dial`, and so is `src/net/dial/mod.rs`.
type Module = Vec<String>;

#[test]
fn the_architecture_allows_every_arrow_between_rooms() {
    let allowed = allowed_arrows();
    let rooms: BTreeSet<&str> = allowed.keys().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for (file, targets) in &arrows() {
        // main.rs may use everything.
        let Some(room) = file.first() else { continue };
        assert!(rooms.contains(room.as_str()), "ARCHITECTURE.md lists no arrows for the room {room}");
        for target in targets {
            let is_allowed = target.first().is_some_and(|to| to == room || allowed[room].contains(to));
            if !is_allowed {
                wrong.push(format!("{} -> {}", file.join("::"), name(target)));
            }
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md does not allow these arrows:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_form_a_circle() {
    let mut arrows = arrows();
    arrows.remove(&Module::new());
    // Only files that lead to others, and that others lead to, can form a circle. Removes the rest until nothing changes.
    loop {
        let rest: BTreeSet<Module> = arrows.keys().cloned().collect();
        for targets in arrows.values_mut() {
            targets.retain(|target| rest.contains(target));
        }
        let reached: BTreeSet<Module> = arrows.values().flatten().cloned().collect();
        arrows.retain(|file, targets| !targets.is_empty() && reached.contains(file));
        if arrows.len() == rest.len() {
            break;
        }
    }
    let circles: Vec<String> = arrows
        .iter()
        .map(|(file, targets)| {
            let targets: Vec<String> = targets.iter().map(name).collect();
            format!("{} -> {}", name(file), targets.join(", "))
        })
        .collect();
    assert!(circles.is_empty(), "these files form circles:\n{}", circles.join("\n"));
}

#[test]
fn the_check_sees_arrows() {
    let modules: BTreeSet<Module> = ["", "a", "a::b", "a::c", "d"]
        .map(|name| name.split("::").filter(|part| !part.is_empty()).map(Into::into).collect())
        .into();
    let code = "use super::{c::X, Y}; use crate::d::Z as Q; fn f() { crate::VERSION; self::g(); super::c::h() } \
                #[cfg(test)] mod tests { use crate::a::b::Hidden; }";
    let mut finder = Finder { module: vec!["a".into(), "b".into()], modules: &modules, targets: BTreeSet::new() };
    finder.visit_file(&syn::parse_file(code).unwrap());
    let found: Vec<String> = finder.targets.iter().map(name).collect();
    assert_eq!(found, ["main", "a", "a::c", "d"]);
}

#[test]
fn every_path_in_the_documents_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/troubleshooting.md",
        "docs/alerts.md",
        "docs/container-image.md",
    ] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        // Code spans are every second part between backquotes.
        for span in text.split('`').skip(1).step_by(2) {
            let path = span.split_whitespace().next().unwrap_or_default().trim_start_matches("./");
            let rooms = ["src/", "build/", "tests/", "scripts/", "assets/", "bin/", "docs/", "fixtures/", "examples/"];
            let is_path = rooms.iter().any(|room| path.starts_with(room)) && !path.contains(['*', '<', '…']);
            if is_path && !root.join(path).exists() {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "these paths do not exist:\n{}", missing.join("\n"));
}

fn name(module: &Module) -> String {
    if module.is_empty() { "main".to_owned() } else { module.join("::") }
}

/// The lines `room -> room room` of ARCHITECTURE.md.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let arrow = |line: &str| {
        let (room, targets) = line.split_once(" -> ")?;
        let is_room = room.trim().chars().all(|c| c.is_ascii_lowercase());
        is_room.then(|| (room.trim().to_owned(), targets.split_whitespace().map(Into::into).collect()))
    };
    text.lines().filter_map(arrow).collect()
}

/// For each file, the files that its paths lead to.
fn arrows() -> BTreeMap<Module, BTreeSet<Module>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    collect(&src, &src, &mut files);
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let targets = |(module, path): (&Module, &PathBuf)| {
        let mut finder = Finder { module: module.clone(), modules: &modules, targets: BTreeSet::new() };
        finder.visit_file(&syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap());
        (module.clone(), finder.targets)
    };
    files.iter().map(targets).collect()
}

fn collect(dir: &Path, src: &Path, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, src, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let inside = path.strip_prefix(src).unwrap().with_extension("");
            let parts = inside.iter().map(|part| part.to_str().unwrap().to_owned());
            let module = parts.filter(|part| !["mod", "main"].contains(&part.as_str())).collect();
            files.insert(module, path);
        }
    }
}

/// Finds the files that a file's paths lead to.
struct Finder<'a> {
    module: Module,
    modules: &'a BTreeSet<Module>,
    targets: BTreeSet<Module>,
}

impl Finder<'_> {
    fn path(&mut self, segments: &[String]) {
        let mut rest = segments;
        let mut module = match segments.first().map(String::as_str) {
            Some("crate") => Module::new(),
            Some("self" | "super") => self.module.clone(),
            // A child module. Anything else is another crate, or a name in scope.
            Some(first) if self.modules.contains(&[&self.module[..], &[first.to_owned()]].concat()) => {
                return self.lead(self.module.clone(), segments);
            }
            _ => return,
        };
        while let [first, more @ ..] = rest
            && ["crate", "self", "super"].contains(&first.as_str())
        {
            if first == "super" {
                module.pop();
            }
            rest = more;
        }
        self.lead(module, rest);
    }

    /// Follows the path down to the last file on its way.
    fn lead(&mut self, mut module: Module, segments: &[String]) {
        for segment in segments {
            module.push(segment.clone());
            if !self.modules.contains(&module) {
                module.pop();
                break;
            }
        }
        if module != self.module {
            self.targets.insert(module);
        }
    }

    fn tree(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                before.push(ident.to_string());
                self.path(before);
                before.pop();
            }
            syn::UseTree::Glob(_) => self.path(before),
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    /// `pub(super)` is no arrow.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attr| {
            attr.path().is_ident("cfg") && attr.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
        });
        if !is_test {
            visit::visit_item_mod(self, item);
        }
    }
}
