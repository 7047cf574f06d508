//! The documents keep their word: every test that `docs/SEMANTICS.md` names exists, and every
//! promise under its headings names one or says why it can't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

fn test_names() -> BTreeSet<String> {
    let mut text = String::new();
    sources(Path::new("src"), &mut text);
    sources(Path::new("tests"), &mut text);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let follows_the_attribute = lines.windows(2).filter(|pair| pair[0] == "#[test]");
    follows_the_attribute
        .filter_map(|pair| pair[1].strip_prefix("fn ")?.split_once('('))
        .map(|(name, _)| name.to_string())
        .collect()
}

fn promises() -> Vec<String> {
    let text = fs::read_to_string("docs/SEMANTICS.md").unwrap();
    let mut promises: Vec<String> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("- ") {
            Some(start) => promises.push(start.to_string()),
            None if line.starts_with("  ") => {
                let promise = promises.last_mut().expect("a continued line");
                promise.push_str(line);
            }
            None => {}
        }
    }
    promises
}

/// Words in backquotes that look like the name of a test.
fn named_tests(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
    };
    quoted.filter(is_name).map(str::to_string).collect()
}

#[test]
fn every_test_that_the_semantics_name_exists() {
    let known = test_names();
    let text = fs::read_to_string("docs/SEMANTICS.md").unwrap();
    let named = named_tests(&text);
    assert!(named.len() > 50, "the document was read");
    let missing: Vec<_> = named.iter().filter(|name| !known.contains(*name)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

#[test]
fn every_promise_names_a_test() {
    let bare: Vec<_> = promises()
        .into_iter()
        .filter(|promise| named_tests(promise).is_empty())
        .collect();
    assert!(bare.is_empty(), "without a test: {bare:#?}");
}
