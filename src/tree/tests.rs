use std::time::SystemTime;

use super::*;
use crate::reader::ObjectInfo;

const VIDEO: Library = Library::RunwayVideo;

struct Garden {
    tree: Tree,
    start: Instant,
}

impl Garden {
    fn new() -> Self {
        Self {
            tree: Tree::new(&[Service::Runway, Service::Ltx]),
            start: Instant::now(),
        }
    }

    fn list(&mut self, at_s: u64, assets: &[Asset]) -> Changes {
        let at = self.at(at_s);
        self.tree
            .apply_listing(VIDEO, assets.to_vec(), at, &|_| None)
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn names(&self) -> Vec<String> {
        let entries = self.tree.entries(VIDEO);
        entries.iter().map(|e| e.name.to_string()).collect()
    }

    fn ino(&self, name: &str) -> u64 {
        self.tree.lookup(VIDEO, name).expect(name)
    }

    /// As the kernel: looks it up and opens it.
    fn open(&mut self, name: &str) -> u64 {
        let ino = self.ino(name);
        self.tree.remember(ino);
        self.tree.opened(ino);
        ino
    }
}

fn clip(id: &str, name: &str, created_s: u64) -> Asset {
    Asset {
        locator: id.to_string(),
        name: Some(name.to_string()),
        extension: Some("mp4".into()),
        size_bytes: Some(10),
        created_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(created_s)),
        ..Asset::bare(VIDEO, id)
    }
}

fn local(name: &str, sequence: u64) -> LocalNode {
    LocalNode {
        library: VIDEO,
        name: name.to_string(),
        sequence,
    }
}

#[test]
fn the_newest_of_a_name_keeps_it() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("older", "a.mp4", 1), clip("newer", "a.mp4", 2)]);
    assert_eq!(garden.names(), ["a (older).mp4", "a.mp4"]);
    let newest = garden.tree.asset(garden.ino("a.mp4")).unwrap();
    assert_eq!(newest.asset.id.as_str(), "newer");
}

#[test]
fn a_host_that_told_of_nothing_is_asked_again_after_the_next_listing() {
    let mut garden = Garden::new();
    let unsized_clip = Asset {
        size_bytes: None,
        ..clip("a", "a.mp4", 1)
    };
    garden.list(0, std::slice::from_ref(&unsized_clip));
    let ino = garden.ino("a.mp4");
    for (told, kept) in [(0, None), (9, Some(9))] {
        garden.tree.asset_mut(ino).unwrap().learned = Some(ObjectInfo {
            size_bytes: told,
            etag: None,
            last_modified: None,
            content_type: None,
        });
        garden.list(told, std::slice::from_ref(&unsized_clip));
        assert_eq!(garden.tree.asset(ino).unwrap().size_bytes(), kept);
    }
}

#[test]
fn of_equal_creation_times_the_last_upload_from_here_is_the_newest() {
    let mut garden = Garden::new();
    let kept = |id: &AssetId| {
        let sequence = (id.as_str() == "aaa").then_some(7);
        Some(Kept {
            sequence,
            ..Kept::default()
        })
    };
    let assets = vec![clip("zzz", "a.mp4", 1), clip("aaa", "a.mp4", 1)];
    let at = garden.at(0);
    garden.tree.apply_listing(VIDEO, assets, at, &kept);
    let newest = garden.tree.asset(garden.ino("a.mp4")).unwrap();
    assert_eq!(newest.asset.id.as_str(), "aaa");
}

#[test]
fn a_number_survives_relisting_and_a_rename_at_the_service() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let ino = garden.ino("a.mp4");
    let changes = garden.list(40, &[clip("x", "b.mp4", 1)]);
    assert_eq!(garden.ino("b.mp4"), ino);
    assert_eq!(changes.names, ["a.mp4"]);
    assert!(changes.directory && changes.revised.is_empty());
}

#[test]
fn an_unchanged_listing_changes_nothing() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    assert_eq!(
        garden.list(40, &[clip("x", "a.mp4", 1)]),
        Changes::default()
    );
}

#[test]
fn a_new_size_or_update_time_is_a_new_revision_and_forgets_what_was_learnt() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let ino = garden.ino("a.mp4");
    garden.tree.asset_mut(ino).unwrap().learned = Some(ObjectInfo {
        size_bytes: 99,
        etag: None,
        last_modified: None,
        content_type: None,
    });
    let mut updated = clip("x", "a.mp4", 1);
    updated.updated_at = Some(SystemTime::now());
    assert_eq!(garden.list(40, &[updated]).revised, [ino]);
    assert_eq!(garden.tree.asset(ino).unwrap().size_bytes(), Some(10));
}

#[test]
fn a_vanished_asset_leaves_its_directory_but_stays_while_the_kernel_knows_it() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let ino = garden.ino("a.mp4");
    garden.tree.remember(ino);
    garden.list(40, &[]);
    assert_eq!(garden.names(), [""; 0]);
    assert!(garden.tree.asset(ino).is_some() && !garden.tree.is_linked(ino));
    garden.tree.forget(ino, 1);
    assert_eq!(garden.tree.take_dropped(), [ino]);
    assert!(garden.tree.node(ino).is_none());
}

#[test]
fn a_file_being_written_stands_above_the_asset_of_its_name() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let asset = garden.ino("a.mp4");
    let ino = garden.tree.free_ino("staged");
    let changes = garden.tree.add_local(ino, local("a.mp4", 1));
    assert_eq!(garden.ino("a.mp4"), ino);
    assert_eq!(garden.ino("a (x).mp4"), asset);
    assert_eq!(changes.names, ["a.mp4"]);
}

#[test]
fn an_upload_keeps_its_number_and_name_and_stands_before_the_service_lists_it() {
    let mut garden = Garden::new();
    garden.list(0, &[]);
    let ino = garden.tree.free_ino("staged");
    garden.tree.add_local(ino, local("my clip.mov", 1));
    let kept = Kept {
        name: Some("my clip.mov".into()),
        service_name: Some("my clip".into()),
        ..Kept::default()
    };
    let at = garden.at(1);
    garden.tree.promote(ino, clip("x", "my clip", 5), kept, at);
    assert_eq!(garden.ino("my clip.mov"), ino);
    garden.list(30, &[]);
    assert_eq!(garden.names(), ["my clip.mov"], "the listing may lag");
    garden.list(31, &[clip("x", "my clip", 5)]);
    assert_eq!(garden.ino("my clip.mov"), ino);
    garden.list(200, &[]);
    assert_eq!(garden.names(), [""; 0], "gone from the service");
}

#[test]
fn an_upload_that_is_never_listed_is_believed_gone_after_the_lag() {
    let mut garden = Garden::new();
    let at = garden.at(1);
    garden
        .tree
        .put_asset(clip("x", "a.mp4", 5), Kept::default(), at);
    garden.list(60, &[]);
    assert_eq!(garden.names(), ["a.mp4"]);
    garden.list(62, &[]);
    assert_eq!(garden.names(), [""; 0]);
}

#[test]
fn a_deleted_asset_does_not_come_back_by_a_listing_that_lags() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let at = garden.at(10);
    let ino = garden.ino("a.mp4");
    garden.tree.remember(ino);
    garden.tree.remove_asset(ino, at);
    garden.list(20, &[clip("x", "a.mp4", 1)]);
    assert_eq!(garden.names(), [""; 0]);
    garden.list(100, &[clip("x", "a.mp4", 1)]);
    assert_eq!(garden.names(), ["a.mp4"], "the deletion did not last");
}

#[test]
fn renaming_a_local_file_over_another_makes_it_the_newest_of_that_name() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let ino = garden.tree.free_ino("staged");
    garden.tree.add_local(ino, local(".a.mp4.Ab12Cd", 1));
    garden.tree.rename_local(ino, local("a.mp4", 2));
    assert_eq!(garden.names(), ["a (x).mp4", "a.mp4"]);
    assert_eq!(garden.ino("a.mp4"), ino);
}

#[test]
fn a_removed_local_file_gives_the_name_back() {
    let mut garden = Garden::new();
    garden.list(0, &[clip("x", "a.mp4", 1)]);
    let asset = garden.ino("a.mp4");
    let ino = garden.tree.free_ino("staged");
    garden.tree.add_local(ino, local("a.mp4", 1));
    garden.tree.remove_local(ino);
    assert_eq!(garden.ino("a.mp4"), asset);
    assert!(garden.tree.node(ino).is_none());
}

#[test]
fn two_identities_that_ask_for_one_number_get_two() {
    let mut garden = Garden::new();
    let same = |_: &AssetId| {
        Some(Kept {
            ino: Some(5_000),
            ..Kept::default()
        })
    };
    let assets = vec![clip("x", "a.mp4", 1), clip("y", "b.mp4", 1)];
    let at = garden.at(0);
    garden.tree.apply_listing(VIDEO, assets, at, &same);
    assert_ne!(garden.ino("a.mp4"), garden.ino("b.mp4"));
}

#[test]
fn a_local_file_can_move_to_another_directory() {
    let mut garden = Garden::new();
    let ino = garden.tree.free_ino("staged");
    garden.tree.add_local(ino, local(".a.png", 1));
    let to = LocalNode {
        library: Library::RunwayImage,
        name: "a.png".into(),
        sequence: 2,
    };
    garden.tree.rename_local(ino, to);
    assert_eq!(garden.names(), [""; 0]);
    assert_eq!(garden.tree.lookup(Library::RunwayImage, "a.png"), Some(ino));
    assert!(garden.tree.is_linked(ino));
}

#[test]
fn assets_are_found_by_any_name_that_is_meant() {
    let mut garden = Garden::new();
    garden.list(
        0,
        &[clip("a", "x", 1), clip("b", "X.mp4", 2), clip("c", "y", 3)],
    );
    let mut found = garden
        .tree
        .ids_named(VIDEO, |name| name.to_lowercase().starts_with('x'));
    found.sort();
    assert_eq!(found, [AssetId::new("a"), AssetId::new("b")]);
}

/// Names every file anew, which must change nothing.
fn assert_named_as_from_scratch(garden: &mut Garden) {
    let mut changes = Changes::default();
    garden.tree.rebuild(VIDEO, &mut changes);
    assert_eq!(changes, Changes::default());
}

#[test]
fn a_file_that_comes_and_becomes_an_asset_leaves_the_names_as_from_scratch() {
    let mut garden = Garden::new();
    let listed = [
        clip("aaaaaaaa-1", "a.mp4", 1),
        clip("bbbbbbbb-2", "a.mp4", 2),
        clip("cccccccc-3", "c.mp4", 3),
    ];
    garden.list(0, &listed);
    let names = ["new.mp4", "a.mp4", "a (aaaaaaaa).mp4", "c.mp4", "c.mp4"];
    for (n, name) in (0u64..).zip(names) {
        garden.tree.add_local(5_000 + n, local(name, n));
        assert_named_as_from_scratch(&mut garden);
    }
    for (n, name) in (0u64..).zip(names) {
        let at = garden.at(1);
        let asset = clip(&format!("dddddddd-{n}"), name, 10 + n);
        garden.tree.promote(5_000 + n, asset, Kept::default(), at);
        assert_named_as_from_scratch(&mut garden);
        assert!(garden.tree.is_linked(5_000 + n));
    }
    let standing = garden.tree.entries(VIDEO).len();
    assert_eq!(standing, listed.len() + names.len());
}

/// As [`clip`], with other bytes.
fn replaced(id: &str, size_bytes: u64, updated_s: u64) -> Asset {
    Asset {
        size_bytes: Some(size_bytes),
        updated_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(updated_s)),
        ..clip(id, "a.mp4", 1)
    }
}

#[test]
fn replaced_bytes_take_the_number_that_nobody_has_open() {
    let mut garden = Garden::new();
    garden.list(0, &[replaced("x", 10, 1)]);
    let ino = garden.open("a.mp4");
    garden.tree.closed(ino);
    let changes = garden.list(1, &[replaced("x", 4, 2)]);
    assert_eq!(garden.ino("a.mp4"), ino);
    assert_eq!(changes.revised, [ino]);
    assert!(changes.names.is_empty());
}

#[test]
fn an_open_number_stays_with_the_bytes_that_it_had() {
    for next in [replaced("x", 4, 1), replaced("x", 10, 2)] {
        let mut garden = Garden::new();
        garden.list(0, &[replaced("x", 10, 1), clip("y", "b.mp4", 1)]);
        let older = garden.open("a.mp4");
        let changes = garden.list(1, &[next.clone(), clip("y", "b.mp4", 1)]);
        let newer = garden.ino("a.mp4");
        assert_ne!(newer, older);
        assert_eq!(changes.names, ["a.mp4"]);
        assert!(changes.revised.is_empty(), "its pages are right");
        assert!(garden.tree.is_outdated(older) && !garden.tree.is_outdated(newer));
        assert_eq!(garden.tree.name_of(older), Some("a.mp4"));
        let size_of = |ino| garden.tree.asset(ino).unwrap().size_bytes();
        assert_eq!(
            (size_of(older), size_of(newer)),
            (Some(10), next.size_bytes)
        );
        garden.list(2, &[next, clip("y", "b.mp4", 1)]);
        assert_eq!(garden.ino("a.mp4"), newer, "once is enough");
    }
}

#[test]
fn an_older_number_goes_and_the_newer_one_stays() {
    let mut garden = Garden::new();
    garden.list(0, &[replaced("x", 10, 1)]);
    let older = garden.open("a.mp4");
    garden.list(1, &[replaced("x", 4, 2)]);
    garden.tree.forget(older, 1);
    assert!(garden.tree.node(older).is_some(), "it is open");
    garden.tree.closed(older);
    assert!(garden.tree.node(older).is_none());
    let newer = garden.ino("a.mp4");
    let key = garden.tree.asset(newer).unwrap().key();
    assert_eq!(garden.tree.ino_of(&key), Some(newer));
}

#[test]
fn a_size_that_is_told_for_the_first_time_leaves_an_open_number() {
    let mut garden = Garden::new();
    let untold = Asset {
        size_bytes: None,
        ..replaced("x", 10, 1)
    };
    garden.list(0, &[untold]);
    let ino = garden.open("a.mp4");
    garden.list(1, &[replaced("x", 10, 1)]);
    assert_eq!(garden.ino("a.mp4"), ino);
}

#[test]
fn an_asset_that_comes_back_while_its_older_bytes_are_open_has_a_number_of_its_own() {
    let mut garden = Garden::new();
    garden.list(0, &[replaced("x", 10, 1)]);
    let older = garden.open("a.mp4");
    garden.list(1, &[replaced("x", 4, 2)]);
    garden.list(2, &[]);
    assert!(garden.names().is_empty());
    assert!(garden.tree.is_outdated(older));
    garden.list(3, &[replaced("x", 4, 2)]);
    assert_ne!(garden.ino("a.mp4"), older);
}
