//! The Debian package's list of files, installed with dpkg into a root of its own and run from there.
//! cargo-deb takes minutes to build; `scripts/test --long` runs it (`scripts/package`), and this
//! packs the same list from the same `Cargo.toml`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use reelfs::emulator::EmulatorConfig;

use crate::support::Studio;

const BUILT: &str = "target/release/reelfs";
const MADE: &str = "target/package/";

/// `[package.metadata.deb]`.
fn metadata() -> toml::Table {
    let manifest: toml::Table = fs::read_to_string("Cargo.toml").unwrap().parse().unwrap();
    manifest["package"]["metadata"]["deb"]
        .as_table()
        .unwrap()
        .clone()
}

/// The files that a source stands for: a path, or one with a `*` in its last part.
fn sources(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap().to_str().unwrap();
    let Some((start, end)) = name.split_once('*') else {
        return vec![pattern.to_path_buf()];
    };
    let entries = fs::read_dir(pattern.parent().unwrap()).unwrap();
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(start) && name.ends_with(end)
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(fits)
        .collect()
}

/// Lays the package's files out below `tree`.
fn lay_out(studio: &Studio, tree: &Path) {
    studio.sh(
        "mkdir man completions; $REELFS generate man man; $REELFS generate completions completions",
    );
    for asset in metadata()["assets"].as_array().unwrap() {
        if let Some(link) = asset.as_table() {
            let text = |key: &str| link[key].as_str().unwrap();
            let place = tree.join(text("dest"));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            symlink(text("link_name"), place).unwrap();
            continue;
        }
        let part = |at: usize| asset[at].as_str().unwrap();
        let pattern = match (part(0), part(0).strip_prefix(MADE)) {
            (BUILT, _) => PathBuf::from(env!("CARGO_BIN_EXE_reelfs")),
            (_, Some(made)) => studio.here(made),
            (source, None) => PathBuf::from(source),
        };
        let found = sources(&pattern);
        assert!(!found.is_empty(), "{} is no file", part(0));
        for source in found {
            let mut place = tree.join(part(1));
            if part(1).ends_with('/') {
                place = place.join(source.file_name().unwrap());
            }
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(&source, &place).unwrap_or_else(|error| panic!("{source:?}: {error}"));
            let mode = u32::from_str_radix(part(2), 8).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

#[test]
fn the_packages_files_are_installed_by_dpkg_and_run() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio.configure();
    let tree = studio.here("tree");
    lay_out(&studio, &tree);
    let control = "Package: reelfs\nVersion: 0.1.0-1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n\
                   Description: files of the package\n";
    fs::create_dir(tree.join("DEBIAN")).unwrap();
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    studio.sh(
        "dpkg-deb -Znone --root-owner-group --build tree reelfs.deb >out
         mkdir -p root/var/lib/dpkg/updates root/var/lib/dpkg/info
         touch root/var/lib/dpkg/status
         PATH=$PATH:/usr/sbin:/sbin dpkg --root=$HERE/root --force-not-root --log=$HERE/log -i reelfs.deb >out 2>&1",
    );
    let version = concat!("reelfs ", env!("CARGO_PKG_VERSION"));
    assert_eq!(studio.sh("root/usr/bin/reelfs --version"), version);
    assert!(
        studio
            .sh("man -M root/usr/share/man -w reelfs reelfs-mount mount.reelfs")
            .lines()
            .count()
            == 3
    );
    let units = studio.sh("cd root/usr/lib/systemd; ls user system");
    assert_eq!(units.matches("reelfs@.service").count(), 2, "{units}");
    assert_eq!(studio.sh("bash -c 'source root/usr/share/bash-completion/completions/reelfs; complete -p reelfs | grep -c _reelfs'"), "1");
    // The helper's name alone makes it one.
    studio.sh(
        "root/usr/sbin/mount.reelfs reelfs $MNT -o config=$HOME/config/reelfs/config.toml
         ls $MNT
         root/usr/bin/reelfs unmount $MNT",
    );
}

#[test]
fn the_package_asks_for_what_it_needs_and_says_whose_it_is() {
    let metadata = metadata();
    let text = |key: &str| metadata[key].as_str().unwrap();
    assert!(text("depends").contains("fuse3"));
    assert!(Path::new(metadata["license-file"][0].as_str().unwrap()).exists());
    assert!(text("maintainer").contains('@'));
    let assets = metadata["assets"].to_string();
    for place in [
        "usr/sbin/mount.reelfs",
        "man8",
        "bash-completion",
        "zsh",
        "fish",
        "systemd/user",
    ] {
        assert!(assets.contains(place), "{place}");
    }
}
