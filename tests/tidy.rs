//! Style that a compiler does not hold: which layer may import which, how long files and functions
//! may be, and what never stands in the sources. Reads the sources as text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const MOST_FILE_LINES: usize = 500;
const MOST_FUNCTION_LINES: usize = 70;

/// From the top down; a module imports from its own layer's parent downward. The modules of one
/// layer don't meet but where `SIBLINGS` says so.
const LAYERS: [&[&str]; 7] = [
    &[
        "main", "cli", "config", "doctor", "generate", "mount", "logging", "fuzzing",
    ],
    &["fuse"],
    &["fs"],
    &["tree", "reader", "upload", "thumbnail"],
    &["store"],
    &["provider"],
    &["http"],
];
/// Below every layer, knowing nothing of any.
const BASE: [&str; 6] = ["cache", "range", "clock", "health", "timestamp", "workers"];
/// (who, whom) within one layer.
const SIBLINGS: [(&str, &str); 17] = [
    ("main", "doctor"),
    ("doctor", "cli"),
    ("doctor", "config"),
    ("doctor", "logging"),
    ("doctor", "mount"),
    ("fuzzing", "config"),
    ("fuzzing", "logging"),
    ("main", "generate"),
    ("generate", "cli"),
    ("generate", "config"),
    ("main", "cli"),
    ("main", "config"),
    ("main", "mount"),
    ("main", "logging"),
    ("config", "cli"),
    ("mount", "config"),
    ("mount", "logging"),
];
/// Beside the layers: reads the pages on its own, so that a misreading of `provider` is found.
const EMULATOR: &str = "emulator";
/// Who may start an emulator: the demo and its command.
const EMULATOR_USERS: [&str; 4] = ["main", "cli", "config", "mount"];
/// `tree` names an asset's key and what its host said; the reader has both types.
const BY_TYPE_ONLY: [(&str, &str); 1] = [("tree", "reader")];
/// Words of advertisement.
const HYPE: [&str; 9] = [
    "blazing",
    "seamless",
    "effortless",
    "cutting-edge",
    "state-of-the-art",
    "game-chang",
    "supercharg",
    "unleash",
    "world-class",
];

struct Source {
    /// Below the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// The layer's module: `fs` for `src/fs/catalog/urls.rs`.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let first = below.split('/').next()?;
        Some(first.trim_end_matches(".rs"))
    }

    fn is_test(&self) -> bool {
        let file_is = |name: &str| {
            let stem = name.trim_end_matches(".rs");
            stem == "tests" || stem.ends_with("_tests") || stem.starts_with("test_")
        };
        !self.path.starts_with("src/") || self.path.split('/').any(file_is)
    }

    /// The product's lines with their numbers: what stands behind `#[cfg(test)]` and an inline
    /// `mod tests` at the end of a file is left out.
    fn product_lines(&self) -> Vec<(usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut kept = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let is_gate = lines[at].trim_start().starts_with("#[cfg(")
                && lines[at].contains("test")
                && !lines[at].contains("not(");
            if is_gate {
                at = end_of_item(&lines, at + 1);
                continue;
            }
            kept.push((at + 1, lines[at]));
            at += 1;
        }
        kept
    }
}

/// The line after the item that begins at `at`, by rustfmt's indentation.
fn end_of_item(lines: &[&str], mut at: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    while lines
        .get(at)
        .is_some_and(|line| line.trim_start().starts_with("#["))
    {
        at += 1;
    }
    let Some(first) = lines.get(at) else {
        return at;
    };
    if first.trim_end().ends_with([';', ',']) || first.trim_end().ends_with('}') {
        return at + 1;
    }
    let own = indent(first);
    let closes = |line: &&str| indent(line) == own && line.trim_start().starts_with('}');
    let rest = lines[at + 1..].iter().position(closes);
    rest.map_or(lines.len(), |rest| at + rest + 2)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(directory: &Path, into: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap();
            let path = path.to_str().unwrap().to_string();
            into.push(Source { path, text });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for directory in ["src", "tests", "benches"] {
        if root().join(directory).is_dir() {
            collect(&root().join(directory), &mut found);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 50, "the sources are found");
    found
}

fn product() -> Vec<Source> {
    let all = sources().into_iter();
    all.filter(|source| !source.is_test()).collect()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn none(what: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

/// The top-level modules of this crate that a line names.
fn imported(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "reelfs::"] {
        for (at, _) in line.match_indices(start) {
            let rest = &line[at + start.len()..];
            let grouped = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            let names = grouped.unwrap_or(rest);
            for name in names
                .split(',')
                .take(if grouped.is_some() { 99 } else { 1 })
            {
                let end = name.trim_start();
                let end = end
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .map_or(end, |n| &end[..n]);
                found.push(end.to_string());
            }
        }
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn may_import(who: &str, whom: &str) -> bool {
    if who == whom || BASE.contains(&whom) && who != "lib" {
        return true;
    }
    if BASE.contains(&who) || who == EMULATOR {
        return false;
    }
    if whom == EMULATOR {
        return EMULATOR_USERS.contains(&who);
    }
    match (layer(who), layer(whom)) {
        (Some(from), Some(to)) if from == to => {
            SIBLINGS.contains(&(who, whom)) || BY_TYPE_ONLY.contains(&(who, whom))
        }
        (Some(from), Some(to)) => from < to,
        _ => false,
    }
}

#[test]
fn the_layers_are_told_apart() {
    assert!(may_import("fs", "tree") && !may_import("tree", "fs"));
    assert!(may_import("upload", "store") && !may_import("reader", "upload"));
    assert!(!may_import("emulator", "provider") && !may_import("cache", "http"));
    assert!(may_import("emulator", "clock") && !may_import("fs", "emulator"));
    let names = imported("use crate::{tree::Node, http}; reelfs::fs::Attr");
    assert_eq!(names, ["tree", "http", "fs"]);
}

#[test]
fn imports_point_only_downward() {
    let mut offences = Vec::new();
    for source in product() {
        let who = source.module().unwrap();
        let lines = source.product_lines();
        for (number, line) in lines.iter().filter(|(_, line)| !is_comment(line)) {
            for whom in imported(line) {
                let known = layer(&whom).is_some() || BASE.contains(&&*whom) || whom == EMULATOR;
                if known && !may_import(who, &whom) {
                    offences.push(format!("{}:{number}: {who} imports {whom}", source.path));
                }
            }
        }
    }
    none("imports that point up or sideways", offences);
}

#[test]
fn every_module_has_its_layer() {
    let known = |module: &str| {
        layer(module).is_some() || BASE.contains(&module) || ["lib", EMULATOR].contains(&module)
    };
    let strangers = product().into_iter().filter_map(|s| {
        let module = s.module()?;
        (!known(module)).then(|| format!("{}: {module} is in no layer", s.path))
    });
    none("modules without a layer", strangers.collect());
}

#[test]
fn files_are_short() {
    let mut offences = Vec::new();
    for source in product() {
        let lines = source.product_lines().len();
        if lines > MOST_FILE_LINES {
            offences.push(format!("{}: {lines} lines", source.path));
        }
    }
    none("files of more than 500 lines without their tests", offences);
}

#[test]
fn functions_are_short() {
    let mut offences = Vec::new();
    for source in product() {
        let lines = source.product_lines();
        let text: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
        for (at, line) in text.iter().enumerate() {
            let words = line.trim_start();
            let is_function = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|start| words.starts_with(start));
            let length = end_of_item(&text, at) - at;
            if is_function && length > MOST_FUNCTION_LINES {
                let number = lines[at].0;
                offences.push(format!("{}:{number}: {length} lines", source.path));
            }
        }
    }
    none("functions of more than 70 lines", offences);
}

#[test]
fn nothing_unfinished_or_unsafe_is_in_the_product() {
    let words = [
        "unsafe ",
        ".unwrap()",
        ".expect(",
        "todo!(",
        "unimplemented!(",
        "dbg!(",
        "panic!(",
        "TODO",
        "FIXME",
        "XXX",
    ];
    let mut offences = Vec::new();
    for source in product() {
        for (number, line) in source.product_lines() {
            let is_word = |word: &&&str| line.contains(**word);
            let found = words.iter().filter(is_word);
            let found =
                found.filter(|word| !is_comment(line) || word.chars().all(char::is_uppercase));
            offences.extend(found.map(|word| format!("{}:{number}: {word}", source.path)));
        }
    }
    none("words that have no place in the product", offences);
}

#[test]
fn every_file_says_what_it_is() {
    let heads = sources();
    let silent = heads.iter().filter(|s| !s.text.starts_with("//!"));
    let is_module_list = |s: &&Source| {
        s.text
            .lines()
            .all(|l| l.is_empty() || l.starts_with("mod "))
    };
    let silent = silent.filter(|s| !is_module_list(s) && !s.is_test());
    none(
        "files without a head",
        silent.map(|s| s.path.clone()).collect(),
    );
}

#[test]
fn prose_is_plain() {
    // Put together here, so that this file holds none of them.
    let tools = ["/work/.", "farm-"].map(|start| {
        format!(
            "{start}{}",
            ["library", "search"][usize::from(start == "farm-")]
        )
    });
    let mut offences = Vec::new();
    for source in sources() {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        let lower = source.text.to_lowercase();
        let found = HYPE.iter().filter(|word| lower.contains(**word));
        offences.extend(found.map(|word| format!("{}: {word}", source.path)));
        let found = tools.iter().filter(|word| lower.contains(word.as_str()));
        offences.extend(found.map(|word| format!("{}: {word}", source.path)));
        let dashes = source.text.matches('\u{2014}').count();
        if dashes > 0 {
            offences.push(format!("{}: {dashes} long dashes", source.path));
        }
    }
    for name in [
        "README.md",
        "docs/COOKBOOK.md",
        "docs/TROUBLESHOOTING.md",
        "CHANGELOG.md",
        "docs/ARCHITECTURE.md",
        "docs/SEMANTICS.md",
    ] {
        let text = fs::read_to_string(root().join(name))
            .unwrap_or_default()
            .to_lowercase();
        let found = HYPE.iter().filter(|word| text.contains(**word));
        offences.extend(found.map(|word| format!("{name}: {word}")));
        let found = tools.iter().filter(|word| text.contains(word.as_str()));
        offences.extend(found.map(|word| format!("{name}: {word}")));
    }
    none(
        "advertisement, long dashes and names of other people's tools",
        offences,
    );
}

#[test]
fn every_public_item_is_documented() {
    let starts = [
        "pub fn ",
        "pub async fn ",
        "pub struct ",
        "pub enum ",
        "pub trait ",
        "pub const ",
        "pub type ",
        "pub static ",
    ];
    let mut offences: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // The types of `cli` are described by their commands: what stands above them shows in `--help`.
    for source in product().iter().filter(|s| s.path != "src/cli.rs") {
        let lines = source.product_lines();
        for (at, (number, line)) in lines.iter().enumerate() {
            let words = line.trim_start();
            // A constructor and a getter say by their names what they are.
            let tells_itself = words.starts_with("pub fn new(") || words.contains("(&self) -> ");
            if tells_itself || !starts.iter().any(|start| words.starts_with(start)) {
                continue;
            }
            let before = lines[..at].iter().rev().map(|(_, line)| line.trim_start());
            // Attributes may stand between, over several lines.
            let documented = before
                .take_while(|line| !line.is_empty() && !line.ends_with(['}', ';']))
                .any(|line| line.starts_with("///"));
            if !documented {
                let item = words.split(['(', '{', ':', '=']).next().unwrap_or(words);
                let item = format!("{number}: {}", item.trim());
                offences.entry(source.path.clone()).or_default().push(item);
            }
        }
    }
    let offences = offences
        .into_iter()
        .flat_map(|(path, items)| items.into_iter().map(move |item| format!("{path}:{item}")));
    none("public items without a word", offences.collect());
}
