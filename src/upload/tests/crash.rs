//! `kill -9` at every step of the protocol. The victims are processes of their own: this test
//! program again, told by the environment what to do and where to die.

use std::collections::{HashMap, HashSet};
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use super::*;
use crate::upload::crash::{Step, die_at};

const HOUR: Duration = Duration::from_secs(3_600);

const ROOT: &str = "REELFS_TEST_VICTIM_ROOT";
const DEATH: &str = "REELFS_TEST_VICTIM_DEATH";

/// Where a victim dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    At(Step),
    /// Half of the body is at the service.
    WhileSending,
    /// The service has made the asset; the answer is on its way.
    BeforeAnswer,
}

const DEATHS: [Death; 9] = [
    Death::At(Step::Synced),
    Death::At(Step::Journaled),
    Death::At(Step::Hashed),
    Death::At(Step::AttemptRecorded),
    Death::WhileSending,
    Death::BeforeAnswer,
    Death::At(Step::Answered),
    Death::At(Step::Confirmed),
    Death::At(Step::Kept),
];

fn bytes() -> Vec<u8> {
    sample(200_000, 9)
}

/// Mounts what is at `root`, copies a file in if this is the first time, and sends what there is.
fn live(root: &Path, death: Death) {
    match death {
        Death::At(step) => die_at(step),
        Death::WhileSending | Death::BeforeAnswer => {}
    }
    let world = hurried(root, |service| match death {
        Death::WhileSending => service.next_uploads([Fault::DieHalfway]),
        Death::BeforeAnswer => service.next_uploads([Fault::DieAfter]),
        Death::At(_) => {}
    });
    let begun = root.join("begun");
    if !begun.exists() {
        fs::write(&begun, "").unwrap();
        let file = world.write("clip.mp4", &bytes());
        file.set_times(None, Some(mtime())).unwrap();
        outcome(&world.close(&file)).unwrap();
    }
    world.finish();
}

fn mtime() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000)
}

fn hurried(root: &Path, prepare: impl FnOnce(&FakeService)) -> World {
    // Later than any life before it.
    let clock = Arc::new(ManualClock::at(SystemTime::now() + 100 * HOUR));
    let service = FakeService::open(root.join("service"), clock.clone());
    prepare(&service);
    World::mount(root, service, Some(clock), |_| {})
}

/// Runs `test` of this program again as the victim at `root`.
fn victim(test: &str, root: &Path, death: usize) -> ExitStatus {
    victim_with(test, root, death, &[])
}

fn victim_with(test: &str, root: &Path, death: usize, more: &[(&str, &str)]) -> ExitStatus {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .envs(more.iter().copied())
        .env(ROOT, root)
        .env(DEATH, death.to_string())
        .output()
        .expect("this test program runs again")
        .status
}

fn victim_role() -> Option<(PathBuf, usize)> {
    let root = env::var_os(ROOT)?;
    let death = env::var(DEATH).unwrap().parse().unwrap();
    Some((PathBuf::from(root), death))
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// The file is at the service once, whole, with what the user set; nothing is left over.
fn assert_uploaded_once(root: &Path, what: &str) {
    let world = hurried(root, |_| {});
    world.finish();
    let (asset, stored) = world.only_asset();
    assert!(stored == bytes(), "{what}: other bytes");
    let meta = world.store.asset_meta(Service::Runway, &asset.id).unwrap();
    let meta = meta.unwrap_or_else(|| panic!("{what}: nothing is known of the asset"));
    assert_eq!(meta.mtime, Some(mtime()), "{what}");
    assert!(
        world.uploads.local_copy(&asset.id).is_some(),
        "{what}: no copy"
    );
    assert!(world.store.journal().unwrap().is_empty(), "{what}");
    for directory in ["staging", "recovered"] {
        assert!(world.files_in(directory).is_empty(), "{what}: {directory}");
    }
}

fn assert_kept_aside(root: &Path, what: &str, wanted: &[u8]) {
    let world = hurried(root, |_| {});
    world.finish();
    assert!(world.service.assets().is_empty(), "{what}: uploaded");
    assert!(world.uploads.staged().is_empty(), "{what}: shown");
    let recovered = world.files_in("recovered");
    assert_eq!(recovered.len(), 1, "{what}");
    assert!(recovered[0].0.ends_with("-clip.mp4"), "{}", recovered[0].0);
    assert!(recovered[0].1 == wanted, "{what}: other bytes");
}

#[test]
fn a_file_is_uploaded_once_wherever_the_program_is_killed() {
    let test = "upload::tests::crash::a_file_is_uploaded_once_wherever_the_program_is_killed";
    if let Some((root, death)) = victim_role() {
        return live(&root, DEATHS[death]);
    }
    for (n, death) in DEATHS.iter().enumerate() {
        let root = tempfile::TempDir::new().unwrap();
        let status = victim(test, root.path(), n);
        assert!(was_killed(status), "{death:?}: {status}");
        match death {
            // Nobody was told that the file is safe.
            Death::At(Step::Synced) => {
                assert_kept_aside(root.path(), &format!("{death:?}"), &bytes());
            }
            _ => assert_uploaded_once(root.path(), &format!("{death:?}")),
        }
    }
}

#[test]
fn a_file_is_uploaded_once_when_the_recovery_is_killed_too() {
    let test = "upload::tests::crash::a_file_is_uploaded_once_when_the_recovery_is_killed_too";
    if let Some((root, death)) = victim_role() {
        return live(&root, DEATHS[death]);
    }
    let mut killed_twice = 0;
    let deaths = || DEATHS.iter().enumerate().skip(1);
    for (first, first_death) in deaths() {
        for (second, second_death) in deaths() {
            let root = tempfile::TempDir::new().unwrap();
            assert!(was_killed(victim(test, root.path(), first)));
            let what = format!("{first_death:?}, then {second_death:?}");
            let status = victim(test, root.path(), second);
            assert!(was_killed(status) || status.success(), "{what}: {status}");
            killed_twice += usize::from(was_killed(status));
            assert_uploaded_once(root.path(), &what);
        }
    }
    // Whoever died before the transaction dies again at every step that comes after it.
    assert!(killed_twice >= 5 * 4, "{killed_twice}");
}

#[test]
fn a_file_that_was_not_closed_is_kept_aside_and_never_uploaded() {
    let test = "upload::tests::crash::a_file_that_was_not_closed_is_kept_aside_and_never_uploaded";
    if let Some((root, reopened)) = victim_role() {
        let world = hurried(&root, |_| {});
        world.uploads.pause();
        let file = world.write("clip.mp4", b"whole");
        if reopened == 1 {
            let _closed = world.close(&file);
            world.until(|| file.state() == UploadState::Queued);
        }
        file.write_at(b"ha", 0).unwrap();
        world.write("empty.mp4", b"");
        die();
    }
    for reopened in [0, 1] {
        let root = tempfile::TempDir::new().unwrap();
        assert!(was_killed(victim(test, root.path(), reopened)));
        assert_kept_aside(root.path(), "not closed", b"haole");
    }
}

#[test]
fn local_files_stay_and_failed_ones_are_tried_again_after_a_crash() {
    let test =
        "upload::tests::crash::local_files_stay_and_failed_ones_are_tried_again_after_a_crash";
    if let Some((root, _)) = victim_role() {
        let world = hurried(&root, |service| {
            service.next_uploads([Fault::Answer(refused())]);
        });
        world.copy_in("failed.mp4", b"failed").unwrap_err();
        world.copy_in(".hidden", b"hidden").unwrap();
        world.copy_in("empty.mp4", b"").unwrap();
        let renamed = world.copy_in("renamed.mp4.part", b"renamed").unwrap();
        world
            .uploads
            .rename(&renamed, VIDEO, "renamed.mp4")
            .unwrap();
        die();
    }
    let root = tempfile::TempDir::new().unwrap();
    assert!(was_killed(victim(test, root.path(), 0)));
    let world = hurried(root.path(), |_| {});
    world.finish();
    let assets = world.service.assets();
    let names: Vec<&str> = assets.iter().filter_map(|a| a.name.as_deref()).collect();
    assert!(
        names.contains(&"failed.mp4") && names.contains(&"renamed.mp4"),
        "{names:?}"
    );
    assert_eq!(names.len(), 2, "{names:?}");
    let staged: Vec<(String, UploadState)> = world
        .uploads
        .statuses()
        .into_iter()
        .map(|status| (status.name, status.state))
        .collect();
    let local = |name: &str| (name.to_string(), UploadState::Local);
    assert_eq!(staged, [local(".hidden"), local("empty.mp4")]);
    assert_eq!(world.uploads.staged()[0].ino(), 7);
}

/// The bytes of a version, which no other has.
fn version_bytes(version: u64) -> Vec<u8> {
    let length = 1 + (version as usize % 7) * 3_000;
    version.to_le_bytes().repeat(length)
}

fn version_of(bytes: &[u8]) -> u64 {
    let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == version_bytes(version), "bytes of no version");
    version
}

fn note(root: &Path, line: &str) {
    let mut log = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(root.join("log"))
        .unwrap();
    std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()).unwrap();
}

/// A life of random copies and renames over a faulty service, which ends anywhere.
fn live_at_random(root: &Path, life: usize, dice: &mut Dice) {
    let clock = Arc::new(ManualClock::at(SystemTime::now() + life as u32 * HOUR));
    let service = FakeService::open(root.join("service"), clock.clone());
    service.next_uploads((0..100).map(|_| match dice.roll(6) {
        0 => Fault::LostAfter,
        1 => Fault::LostHalfway,
        2 => Fault::Answer(unavailable()),
        _ => Fault::None,
    }));
    let world = World::mount(root, service, Some(clock), |c| c.write_back = true);
    for turn in 0..5 + dice.roll(30) {
        let version = life as u64 * 1_000 + turn;
        let name = format!("{}.mp4", dice.roll(4));
        world.pass(Duration::from_millis(dice.roll(500)));
        let file = match dice.roll(3) {
            0 => world.write(&format!(".{name}.tmp"), &version_bytes(version)),
            _ => world.write(&name, &version_bytes(version)),
        };
        if dice.roll(8) == 0 {
            continue;
        }
        note(root, &format!("closing {name} {version}"));
        outcome(&world.close(&file)).unwrap();
        if file.state() == UploadState::Local {
            world.uploads.rename(&file, VIDEO, &name).unwrap();
            outcome(&world.close(&file)).unwrap();
        }
        note(root, &format!("closed {name} {version}"));
    }
    die();
}

#[test]
fn many_lives_of_random_copies_leave_every_closed_version_once_and_in_order() {
    let test = "upload::tests::crash::\
                many_lives_of_random_copies_leave_every_closed_version_once_and_in_order";
    let seed = seed();
    if let Some((root, life)) = victim_role() {
        return live_at_random(&root, life, &mut Dice(seed ^ (life as u64) << 32));
    }
    println!("REELFS_TEST_SEED={seed}");
    let root = tempfile::TempDir::new().unwrap();
    for life in 1..=8 {
        let status = victim_with(
            test,
            root.path(),
            life,
            &[("REELFS_TEST_SEED", &seed.to_string())],
        );
        assert!(was_killed(status), "{status}");
    }
    let world = hurried(root.path(), |_| {});
    world.finish();
    let mut there: HashMap<String, Vec<u64>> = HashMap::new();
    for asset in world.service.assets() {
        let version = version_of(&world.service.bytes(&asset.id));
        there.entry(asset.name.unwrap()).or_default().push(version);
    }
    for (name, versions) in &there {
        assert!(versions.is_sorted_by(|a, b| a < b), "{name}: {versions:?}");
    }
    let log = fs::read_to_string(root.path().join("log")).unwrap();
    let noted = |word: &str| -> HashSet<(String, u64)> {
        log.lines()
            .filter_map(|line| line.strip_prefix(word)?.trim().split_once(' '))
            .map(|(name, version)| (name.to_string(), version.parse().unwrap()))
            .collect()
    };
    let there: HashSet<(String, u64)> = there
        .into_iter()
        .flat_map(|(name, versions)| versions.into_iter().map(move |v| (name.clone(), v)))
        .collect();
    let missing: Vec<_> = noted("closed ").difference(&there).cloned().collect();
    assert!(missing.is_empty(), "closed and not there: {missing:?}");
    let extra: Vec<_> = there.difference(&noted("closing ")).cloned().collect();
    assert!(extra.is_empty(), "never closed and there: {extra:?}");
}

#[test]
fn a_damaged_database_loses_no_file() {
    let test = "upload::tests::crash::a_damaged_database_loses_no_file";
    if let Some((root, _)) = victim_role() {
        let world = hurried(&root, |_| {});
        world.uploads.pause();
        let file = world.write("clip.mp4", b"queued");
        let _closed = world.close(&file);
        world.until(|| file.state() == UploadState::Queued);
        die();
    }
    let root = tempfile::TempDir::new().unwrap();
    assert!(was_killed(victim(test, root.path(), 0)));
    let state = root.path().join("state");
    fs::write(state.join("state.db"), sample(9_000, 0)).unwrap();
    let _ = fs::remove_file(state.join("state.db-wal"));
    // Whether it was sent can't be told any more, so it isn't sent.
    assert_kept_aside(root.path(), "damaged", b"queued");
}

#[test]
fn a_second_mount_leaves_the_files_of_a_living_one_alone() {
    let first = World::new();
    first.uploads.pause();
    let file = first.write("clip.mp4", b"bytes");
    let closed = first.close(&file);
    let open = first.write("open.mp4", b"half");
    first.until(|| file.state() == UploadState::Queued);
    let second = World::mount(&first.root, first.service.clone(), None, |_| {});
    assert!(second.uploads.staged().is_empty());
    second.drained();
    assert_eq!(first.uploads_tried(), 0);
    first.uploads.resume();
    outcome(&closed).unwrap();
    outcome(&first.close(&open)).unwrap();
    assert_eq!(first.service.assets().len(), 2);
    assert!(first.files_in("recovered").is_empty());
}
