//! What is linked into reelfs keeps to `deny.toml`: licences, one version of each crate, crates.io
//! alone. `cargo deny check` holds the same and the advisories (`scripts/test --long`); this needs
//! nothing but cargo, so it runs always.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The two that are built for; Windows' crates are in the lock file and nowhere else.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// `deny.toml`.
struct Rules(toml::Table);

impl Rules {
    fn read() -> Self {
        Self(
            std::fs::read_to_string("deny.toml")
                .unwrap()
                .parse()
                .unwrap(),
        )
    }

    fn texts(&self, table: &str, key: &str) -> Vec<String> {
        let list = self.0[table][key].as_array().unwrap().iter();
        list.map(|text| text.as_str().unwrap().to_string())
            .collect()
    }

    /// Whether a second version of the crate is an exception with a name: `2` stands for `2.x`.
    fn skips(&self, name: &str, version: &str) -> bool {
        let mut skipped = self.0["bans"]["skip"].as_array().unwrap().iter();
        skipped.any(|entry| {
            let wanted = entry["version"].as_str().unwrap();
            entry["name"].as_str() == Some(name) && version.starts_with(&format!("{wanted}."))
        })
    }
}

/// A crate that is linked, or runs while linking.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Linked {
    name: String,
    version: String,
    licence: String,
    source: String,
}

fn linked() -> BTreeSet<Linked> {
    let mut all = BTreeSet::new();
    for target in TARGETS {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--locked",
                "--all-features",
                "--format-version=1",
            ])
            .args(["--filter-platform", target])
            .output()
            .expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo metadata: {said}");
        let metadata = serde_json::from_slice(&output.stdout).unwrap();
        all.extend(reached(&metadata));
    }
    assert!(all.len() > 100, "the crates are found");
    all
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// Everything that the program reaches without the dependencies of its tests.
fn reached(metadata: &Value) -> Vec<Linked> {
    let array = |value: &Value| value.as_array().unwrap().clone();
    let root = text(&metadata["resolve"]["root"]);
    let nodes: BTreeMap<String, Vec<String>> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let is_linked =
                |dep: &&Value| array(&dep["dep_kinds"]).iter().any(|k| k["kind"] != "dev");
            let deps = array(&node["deps"]);
            let deps = deps.iter().filter(is_linked).map(|dep| text(&dep["pkg"]));
            (text(&node["id"]), deps.collect())
        })
        .collect();
    let mut found = BTreeSet::from([root.clone()]);
    let mut open = vec![root.clone()];
    while let Some(id) = open.pop() {
        for dep in &nodes[&id] {
            if found.insert(dep.clone()) {
                open.push(dep.clone());
            }
        }
    }
    found.remove(&root);
    array(&metadata["packages"])
        .iter()
        .filter(|package| found.contains(&text(&package["id"])))
        .map(|package| Linked {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: text(&package["source"]),
        })
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences alone; `/` is the older `OR`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ");
    let spaced = spaced.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = either(&words, &mut at, allowed);
    met && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let met = either(words, at, allowed);
        *at += 1;
        return met;
    }
    let mut licence = word.to_string();
    if words.get(*at) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&licence)
}

fn none(what: &str, offences: impl Iterator<Item = String>) {
    let offences: Vec<String> = offences.collect();
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

#[test]
fn expressions_of_licences_are_read() {
    let allowed = ["MIT", "ISC"].map(str::to_string);
    for met in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(GPL-3.0 OR ISC) AND MIT",
        "Apache-2.0 WITH LLVM-exception OR MIT",
    ] {
        assert!(is_allowed(met, &allowed), "{met}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT WITH an-exception",
        "(MIT",
        "MIT ISC",
    ] {
        assert!(!is_allowed(refused, &allowed), "{refused}");
    }
}

#[test]
fn every_linked_crate_has_an_allowed_licence() {
    let allowed = Rules::read().texts("licenses", "allow");
    let crates = linked();
    let offending = crates.iter().filter(|c| !is_allowed(&c.licence, &allowed));
    none(
        "licences that deny.toml does not allow",
        offending.map(|c| format!("{} {}: {}", c.name, c.version, c.licence)),
    );
}

#[test]
fn no_crate_is_linked_twice() {
    let rules = Rules::read();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Linked { name, version, .. } in linked() {
        if !rules.skips(&name, &version) {
            versions.entry(name).or_default().push(version);
        }
    }
    let twice = versions.iter().filter(|(_, versions)| versions.len() > 1);
    none(
        "crates in several versions that deny.toml does not name",
        twice.map(|(name, versions)| format!("{name}: {}", versions.join(", "))),
    );
}

#[test]
fn every_linked_crate_comes_from_crates_io() {
    let registries = Rules::read().texts("sources", "allow-registry");
    let known: Vec<String> = registries
        .iter()
        .map(|at| format!("registry+{at}"))
        .collect();
    let crates = linked();
    let strangers = crates.iter().filter(|c| !known.contains(&c.source));
    none(
        "crates from elsewhere",
        strangers.map(|c| format!("{} {}: {}", c.name, c.version, c.source)),
    );
}
