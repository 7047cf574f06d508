use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::provider::{AssetId, Library};

fn state() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

fn reopen(dir: &TempDir) -> Store {
    Store::open(&dir.path().join("state")).unwrap()
}

fn time(seconds: i64) -> SystemTime {
    from_ns(seconds * 1_000_000_000 + 123_456_789)
}

fn meta(id: &str) -> AssetMeta {
    AssetMeta {
        display_name: Some("clip.mp4".into()),
        service_name: Some("clip".into()),
        mtime: Some(time(1_700_000_000)),
        atime: Some(time(-5)),
        mode: Some(0o640),
        sha256: Some([7; 32]),
        size_bytes: Some(1 << 40),
        sequence: 3,
        local_copy: Some(Uuid::new_v4()),
        updated_at: Some(time(7)),
        ..AssetMeta::new(Service::Runway, AssetId::new(id), u64::MAX - 1)
    }
}

fn record(id: Uuid, stage: Stage) -> StagedRecord {
    StagedRecord {
        id,
        library: Library::RunwayVideo,
        name: "clip.mp4".into(),
        ino: 42,
        mode: 0o644,
        stage,
        reason: None,
    }
}

fn attempt() -> Attempt {
    Attempt {
        began_at: time(1_700_000_000),
        name: "clip.mp4".into(),
        size_bytes: 9,
        sha256: [1; 32],
        known_ids: vec![AssetId::new("old \"quoted\"")],
        answer: Answer::Unknown,
    }
}

#[test]
fn what_is_known_of_an_asset_survives_reopening() {
    let (dir, store) = state();
    store.put_asset_meta(&meta("a")).unwrap();
    let wanted = store
        .asset_meta(Service::Runway, &AssetId::new("a"))
        .unwrap();
    drop(store);
    let store = reopen(&dir);
    let found = store
        .asset_meta(Service::Runway, &AssetId::new("a"))
        .unwrap();
    assert_eq!(found, wanted);
    assert_eq!(found.unwrap().ino, u64::MAX - 1);
    assert_eq!(store.all_asset_meta(Service::Runway).unwrap().len(), 1);
    assert!(store.all_asset_meta(Service::Ltx).unwrap().is_empty());
    store
        .forget_asset_meta(Service::Runway, &AssetId::new("a"))
        .unwrap();
    assert!(store.all_asset_meta(Service::Runway).unwrap().is_empty());
}

#[test]
fn setting_one_attribute_leaves_the_others() {
    let (_dir, store) = state();
    let id = AssetId::new("a");
    store.put_asset_meta(&meta("a")).unwrap();
    let set = |id: &AssetId, mtime, mode| {
        store.set_asset_attributes(Service::Runway, id, 5, mtime, None, mode)
    };
    set(&id, Some(time(9)), None).unwrap();
    set(&id, None, Some(0o600)).unwrap();
    let found = store.asset_meta(Service::Runway, &id).unwrap().unwrap();
    assert_eq!(found.mtime, Some(time(9)));
    assert_eq!(found.mode, Some(0o600));
    assert_eq!(found.atime, Some(time(-5)));
    assert_eq!(found.ino, u64::MAX - 1);
    let fresh = AssetId::new("b");
    set(&fresh, Some(time(1)), None).unwrap();
    let found = store.asset_meta(Service::Runway, &fresh).unwrap().unwrap();
    assert_eq!((found.ino, found.sequence), (5, 0));
}

#[test]
fn a_field_that_cannot_be_read_is_unknown_and_costs_nothing_else() {
    let wrong = [
        ("display_name", "x'ff00'"),
        ("service_name", "x'fe'"),
        ("mtime_ns", "'noon'"),
        ("atime_ns", "x'00'"),
        ("mode", "-1"),
        ("sha256", "'short'"),
        ("size_bytes", "'large'"),
        ("sequence", "'last'"),
        ("local_copy", "x'00'"),
        ("updated_ns", "'later'"),
    ];
    for (column, value) in wrong {
        let (_dir, store) = state();
        for id in ["bad", "good"] {
            store.put_asset_meta(&meta(id)).unwrap();
        }
        let set = format!("UPDATE asset_meta SET {column} = {value} WHERE asset_id = 'bad'");
        assert_eq!(store.lock().execute(&set, []), Ok(1));
        let known = |id| {
            store
                .asset_meta(Service::Runway, &AssetId::new(id))
                .unwrap()
        };
        let (bad, good) = (known("bad").unwrap(), known("good").unwrap());
        // `meta` leaves no field unknown.
        let unknown = [
            bad.display_name.is_none(),
            bad.service_name.is_none(),
            bad.mtime.is_none(),
            bad.atime.is_none(),
            bad.mode.is_none(),
            bad.sha256.is_none(),
            bad.size_bytes.is_none(),
            bad.sequence == 0,
            bad.local_copy.is_none(),
            bad.updated_at.is_none(),
        ];
        assert_eq!(unknown.iter().filter(|is| **is).count(), 1, "{column}");
        assert_eq!(good.sequence, 3);
        assert_eq!(store.all_asset_meta(Service::Runway).unwrap().len(), 2);
        let copies = store.kept_copies().unwrap().len();
        assert_eq!(copies, 2 - usize::from(column == "local_copy"));
        // Ours whatever else is unknown of it: it can't be taken for another upload.
        assert_eq!(store.uploaded_from_here(Service::Runway).unwrap().len(), 2);
    }
}

#[test]
fn a_thousand_sizes_are_written_and_read_in_one_go() {
    let (dir, store) = state();
    let ids: Vec<AssetId> = (0..1_000).map(|n| AssetId::new(format!("id{n}"))).collect();
    let objects: Vec<(AssetId, StoredObject)> = ids
        .iter()
        .zip(0u64..)
        .map(|(id, n)| {
            let object = StoredObject {
                size_bytes: n,
                etag: Some(format!("\"{n}\"")),
                last_modified: Some(time(n.cast_signed())),
                content_type: None,
            };
            (id.clone(), object)
        })
        .collect();
    store.put_object_infos(Service::Ltx, &objects).unwrap();
    drop(store);
    let store = reopen(&dir);
    let mut asked = ids.clone();
    asked.push(AssetId::new("stranger"));
    let found = store.object_infos(Service::Ltx, &asked).unwrap();
    assert_eq!(found, objects.into_iter().collect());
    assert!(
        store
            .object_infos(Service::Runway, &ids)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn runflow_ids_keep_their_order_and_first_time() {
    let (dir, store) = state();
    let see = |store: &Store, id: &str, at, details: Option<&str>| {
        store
            .put_runflow_seen(&SeenAsset {
                id: AssetId::new(id),
                first_seen: time(at),
                details: details.map(String::from),
            })
            .unwrap();
    };
    see(&store, "z", 1, None);
    see(&store, "a", 2, None);
    see(&store, "gone", 2, None);
    see(&store, "z", 3, Some("{\"size\":1}"));
    store.forget_runflow_seen(&AssetId::new("gone")).unwrap();
    drop(store);
    let seen = reopen(&dir).runflow_seen().unwrap();
    let ids: Vec<&str> = seen.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["z", "a"]);
    assert_eq!(seen[0].first_seen, time(1));
    assert_eq!(seen[0].details.as_deref(), Some("{\"size\":1}"));
}

#[test]
fn an_attempt_survives_reopening_and_a_change_of_stage() {
    let (dir, store) = state();
    let id = Uuid::new_v4();
    store.put_staged(&record(id, Stage::Queued)).unwrap();
    store.begin_attempt(id, &attempt()).unwrap();
    drop(store);
    let store = reopen(&dir);
    store.put_staged(&record(id, Stage::Failed)).unwrap();
    let entry = store.journal_entry(id).unwrap().unwrap();
    assert_eq!(entry.record, record(id, Stage::Failed));
    assert_eq!(entry.attempt, Some(attempt()));
    store.settle_attempt(id).unwrap();
    let entry = store.journal_entry(id).unwrap().unwrap();
    assert_eq!(entry.attempt.unwrap().answer, Answer::NotDone);
}

#[test]
fn an_attempt_of_an_entry_that_is_gone_is_an_error() {
    let (_dir, store) = state();
    assert!(store.begin_attempt(Uuid::new_v4(), &attempt()).is_err());
}

/// Sets one column of an entry to what this program never writes.
fn spoil(store: &Store, id: Uuid, column: &str, value: &str) {
    let set = format!("UPDATE uploads SET {column} = {value} WHERE id = ?1");
    let set = store.lock().execute(&set, [id.to_string()]);
    assert_eq!(set, Ok(1));
}

#[test]
fn an_entry_that_cannot_be_read_is_an_error_and_keeps_no_other_from_being_read() {
    let spoilt = [
        ("library", "'runway/dance'"),
        ("library", "7"),
        ("name", "x'ff00'"),
        ("ino", "'many'"),
        ("mode", "-1"),
        ("stage", "'done'"),
        ("attempt_name", "NULL"),
        ("attempt_size_bytes", "'large'"),
        ("attempt_sha256", "x'0102'"),
        ("answer_unknown", "'perhaps'"),
        // With an attempt forgotten, or its ids, the same bytes would be sent twice, or an older
        // asset be taken for them.
        ("began_ns", "NULL"),
        ("known_ids", "NULL"),
        ("known_ids", "'[\"old\"'"),
        ("known_ids", "'[1]'"),
    ];
    for (column, value) in spoilt {
        let (_dir, store) = state();
        let (bad, good) = (Uuid::new_v4(), Uuid::new_v4());
        for id in [bad, good] {
            store.put_staged(&record(id, Stage::Queued)).unwrap();
            store.begin_attempt(id, &attempt()).unwrap();
        }
        spoil(&store, bad, column, value);
        let error = store.journal_entry(bad).unwrap_err().to_string();
        assert!(error.contains(&bad.to_string()), "{error}");
        let left = store.journal().unwrap();
        let left: Vec<Uuid> = left.into_iter().map(|entry| entry.record.id).collect();
        assert_eq!(left, [good], "{column} = {value}");
    }
}

#[test]
fn an_entry_whose_id_is_none_keeps_no_other_from_being_read() {
    let (_dir, store) = state();
    let (bad, good) = (Uuid::new_v4(), Uuid::new_v4());
    for id in [bad, good] {
        store.put_staged(&record(id, Stage::Queued)).unwrap();
    }
    spoil(&store, bad, "id", "x'ff'");
    assert_eq!(store.journal().unwrap().len(), 1);
    assert!(store.journal_entry(good).unwrap().is_some());
}

#[test]
fn a_new_submission_goes_to_the_end_of_the_order() {
    let (_dir, store) = state();
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    store.put_staged(&record(first, Stage::Queued)).unwrap();
    store.put_staged(&record(second, Stage::Queued)).unwrap();
    let order = || -> Vec<Uuid> {
        let journal = store.journal().unwrap();
        journal.into_iter().map(|entry| entry.record.id).collect()
    };
    store.put_staged(&record(first, Stage::Queued)).unwrap();
    assert_eq!(order(), [first, second]);
    store.put_staged(&record(first, Stage::Open)).unwrap();
    store.put_staged(&record(first, Stage::Queued)).unwrap();
    assert_eq!(order(), [second, first]);
}

#[test]
fn confirming_moves_an_entry_to_its_asset_and_names_the_copy_it_replaces() {
    let (_dir, store) = state();
    let old = meta("a");
    store.put_asset_meta(&old).unwrap();
    let id = Uuid::new_v4();
    store.put_staged(&record(id, Stage::Queued)).unwrap();
    let new = AssetMeta {
        local_copy: Some(id),
        ..old.clone()
    };
    let replaced = store.confirm(id, &new, Order::OfAsset).unwrap();
    assert_eq!(replaced, old.local_copy);
    assert!(store.journal().unwrap().is_empty());
    assert!(store.has_copy(id).unwrap());
    assert!(!store.has_copy(old.local_copy.unwrap()).unwrap());
    assert_eq!(store.kept_copies().unwrap()[0].copy, id);
    let found = store.asset_meta(Service::Runway, &old.id).unwrap().unwrap();
    assert_eq!(found.sequence, old.sequence);
}

#[test]
fn only_the_owner_can_read_the_state() {
    let (dir, store) = state();
    store.put_asset_meta(&meta("a")).unwrap();
    let state = dir.path().join("state");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let mut seen = HashSet::new();
    for entry in fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        seen.insert(entry.file_name().into_string().unwrap());
    }
    assert!(seen.contains("state.db") && seen.contains("state.db-wal"));
}

#[test]
fn a_directory_left_open_to_others_is_closed() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
    Store::open(&state).unwrap();
    assert_eq!(
        fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_damaged_database_is_kept_aside_and_a_new_one_begun() {
    let (dir, store) = state();
    store.put_asset_meta(&meta("a")).unwrap();
    drop(store);
    let path = dir.path().join("state/state.db");
    let garbage = b"this is not a database, but long enough to be taken for its header".repeat(99);
    fs::write(&path, &garbage).unwrap();
    let store = reopen(&dir);
    assert!(store.all_asset_meta(Service::Runway).unwrap().is_empty());
    store.put_asset_meta(&meta("b")).unwrap();
    let aside = fs::read_dir(dir.path().join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("damaged"))
        .unwrap();
    assert_eq!(fs::read(aside).unwrap(), garbage);
}

#[test]
fn a_database_with_torn_pages_is_kept_aside() {
    let (dir, store) = state();
    for n in 0..2_000 {
        store.put_asset_meta(&meta(&format!("asset {n}"))).unwrap();
    }
    drop(store);
    let path = dir.path().join("state/state.db");
    let length = fs::metadata(&path).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(8_192)).unwrap();
    file.write_all(&vec![0xa5; length as usize - 8_192])
        .unwrap();
    drop(file);
    assert!(
        reopen(&dir)
            .all_asset_meta(Service::Runway)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let (dir, store) = state();
    store.put_asset_meta(&meta("a")).unwrap();
    store
        .lock()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    drop(store);
    let path = dir.path().join("state");
    let error = Store::open(&path).err().unwrap();
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error}"
    );
    let names: Vec<String> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.contains("damaged")),
        "{names:?}"
    );
}

#[test]
fn two_mounts_share_one_database() {
    let (dir, first) = state();
    let second = reopen(&dir);
    std::thread::scope(|scope| {
        for (store, mount) in [(&first, "one"), (&second, "two")] {
            scope.spawn(move || {
                for n in 0..50 {
                    store
                        .put_asset_meta(&meta(&format!("{mount} {n}")))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(first.all_asset_meta(Service::Runway).unwrap().len(), 100);
}

#[test]
fn times_before_1970_and_beyond_64_bits_are_kept_as_near_as_can_be() {
    assert_eq!(from_ns(to_ns(time(-5))), time(-5));
    let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(to_ns(far), i64::MAX);
    assert!(from_ns(i64::MIN) < UNIX_EPOCH);
}
