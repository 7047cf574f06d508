//! The documents keep their word: every test that `docs/SEMANTICS.md` names exists, and every
//! promise under its headings names one or says why it can't. What the guides tell a reader to type
//! is parsed by the program's own definition.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use reelfs::cli::{Cli, helper};

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

// ---- what a reader may type ----

const GUIDES: [&str; 3] = ["README.md", "docs/COOKBOOK.md", "docs/TROUBLESHOOTING.md"];

/// The lines of code blocks without their prompts and comments, and the commands that stand
/// in backquotes.
fn shown_lines(guide: &str) -> Vec<String> {
    let text = fs::read_to_string(guide).unwrap();
    let mut lines = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let command = line.strip_prefix("$ ").unwrap_or(line);
            let code = command.split(" #").next().unwrap_or_default();
            lines.push(code.trim().to_string());
        } else {
            let quoted = line.split('`').skip(1).step_by(2);
            lines.extend(quoted.map(str::to_string));
        }
    }
    lines
}

/// The calls of reelfs in these lines, as words: behind `sudo`, variables and `&&` too.
fn calls(lines: &[String]) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for part in lines.iter().flat_map(|line| line.split("&&")) {
        let words: Vec<&str> = part.split_whitespace().collect();
        let is_prefix = |word: &&&str| **word == "sudo" || word.contains("=");
        let prefix = words.iter().take_while(is_prefix).count();
        let command = &words[prefix..];
        // A line of fstab begins with the same word.
        let is_fstab = command.len() > 3 && command[2].ends_with("reelfs");
        let quoted = |word: &&str| word.trim_matches(['"', '\'']).to_string();
        if command.first() == Some(&"reelfs") && command.len() > 1 && !is_fstab {
            calls.push(command.iter().map(quoted).collect());
        }
    }
    calls
}

#[test]
fn every_reelfs_command_in_the_guides_is_one() {
    for (guide, least) in GUIDES.into_iter().zip([4, 8, 6]) {
        let mut seen = 0;
        for words in calls(&shown_lines(guide)) {
            let alone = words.len() == 2;
            match Cli::try_parse_from(&words) {
                Ok(_) => seen += 1,
                Err(error) if error.kind() == ErrorKind::DisplayVersion => seen += 1,
                // `reelfs mount` in a sentence names the command.
                Err(error) if alone && error.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(error) => panic!("{guide}: {words:?}: {error}"),
            }
        }
        assert!(seen >= least, "{guide}: {seen} commands");
    }
}

#[test]
fn every_mount_option_in_the_guides_is_one() {
    let mut seen = 0;
    for guide in GUIDES {
        for line in shown_lines(guide) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let options = match words[..] {
                ["reelfs", _, "reelfs" | "fuse.reelfs", options, "0", "0"] => options,
                [
                    ..,
                    "mount",
                    "-t",
                    "reelfs" | "fuse.reelfs",
                    "reelfs",
                    _,
                    "-o",
                    options,
                ] => options,
                _ => continue,
            };
            let argv = ["mount.reelfs", "reelfs", "/mnt", "-o", options].map(OsString::from);
            if let Some(Err(misuse)) = helper::recognise(&argv) {
                panic!("{guide}: {line}: {misuse}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 2, "{seen} lines");
}

#[test]
fn every_setting_is_in_the_readmes_table() {
    let readme = fs::read_to_string("README.md").unwrap();
    for option in helper::options() {
        let flag = format!("`--{}`", option.name.replace('_', "-"));
        assert!(readme.contains(&flag), "{flag}");
    }
    for (variable, _) in reelfs::config::variables() {
        assert!(readme.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn every_link_between_the_documents_leads_to_a_file() {
    let mut seen = 0;
    for entry in fs::read_dir("docs")
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let is_text = entry.extension().is_some_and(|extension| extension == "md");
        seen += if is_text {
            links_lead_to_files(&entry)
        } else {
            0
        };
    }
    seen += links_lead_to_files(Path::new("README.md"));
    assert!(seen > 3, "{seen} links");
}

fn links_lead_to_files(document: &Path) -> usize {
    let text = fs::read_to_string(document).unwrap();
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', '#']).next());
    let local: Vec<_> = targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect();
    for target in &local {
        let file = document.parent().unwrap().join(target);
        assert!(file.exists(), "{}: {target}", document.display());
    }
    local.len()
}
