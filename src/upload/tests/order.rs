//! Many files: how many at once, in which order, and all of them.

use std::collections::HashMap;

use super::*;

#[test]
fn no_more_are_sent_at_once_than_the_limit() {
    let world = World::with(|config| config.max_concurrent = 3);
    let (began, go) = world.service.hold_uploads();
    let closed: Vec<_> = (0..9)
        .map(|n| world.close(&world.write(&format!("{n}.mp4"), b"bytes")))
        .collect();
    for _ in 0..9 {
        began.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
    }
    for closed in &closed {
        outcome(closed).unwrap();
    }
    let most = world.service.most_at_once.load(Ordering::SeqCst);
    assert!(most <= 3, "{most}");
}

#[test]
fn files_are_sent_in_the_order_of_their_closing() {
    let world = World::with(|config| config.max_concurrent = 1);
    let (began, go) = world.service.hold_uploads();
    let names: Vec<String> = (0..20).map(|n| format!("{n}.mp4")).collect();
    world.uploads.pause();
    let closed: Vec<_> = names
        .iter()
        .map(|name| world.close(&world.write(name, b"bytes")))
        .collect();
    world.until(|| world.store.journal().unwrap().len() == names.len());
    world.until(|| {
        let queued = |file: &Arc<StagedFile>| file.state() == UploadState::Queued;
        world.uploads.staged().iter().all(queued)
    });
    world.until(|| world.uploads.shared.line().queue.is_ready());
    world.uploads.resume();
    for name in &names {
        assert_eq!(began.recv_timeout(PATIENCE).unwrap(), *name);
        go.send(()).unwrap();
    }
    for closed in &closed {
        outcome(closed).unwrap();
    }
}

#[test]
fn versions_of_one_name_are_sent_one_after_the_other_in_their_order() {
    let world = World::new();
    let closed: Vec<_> = (0..8)
        .map(|n| world.close(&world.write("clip.mp4", &[n; 9])))
        .collect();
    for closed in &closed {
        outcome(closed).unwrap();
    }
    let versions: Vec<u8> = world
        .service
        .assets()
        .iter()
        .map(|asset| world.service.bytes(&asset.id)[0])
        .collect();
    assert_eq!(versions, (0..8).collect::<Vec<u8>>());
    assert_eq!(world.service.most_at_once.load(Ordering::SeqCst), 1);
}

#[test]
fn three_hundred_files_through_a_faulty_service_are_all_there_and_none_twice() {
    let seed = seed();
    println!("REELFS_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let world = World::timeless(|config| config.write_back = true);
    let faults = (0..600).map(|_| match dice.roll(20) {
        0 => Fault::LostAfter,
        1 => Fault::LostHalfway,
        2 => Fault::Answer(unavailable()),
        3 => Fault::Answer(ProviderError::RateLimited { retry_after: None }),
        _ => Fault::None,
    });
    world.service.next_uploads(faults.collect::<Vec<_>>());
    world.service.next_listings_fail(3);
    let mut wanted = HashMap::new();
    for n in 0..300u32 {
        let name = format!("{n}.mp4");
        let bytes = sample(1 + dice.roll(9_000) as usize, n as u8);
        let file = world.write(&name, &bytes);
        world.uploads.submit(&file, None);
        wanted.insert(name, bytes);
    }
    world.until(|| {
        world.pass(Duration::from_millis(100));
        world.uploads.staged().is_empty()
    });
    let assets = world.service.assets();
    assert_eq!(assets.len(), wanted.len());
    for asset in assets {
        let bytes = wanted.remove(asset.name.as_deref().unwrap());
        assert!(bytes.expect("each once") == world.service.bytes(&asset.id));
    }
}

/// What the model believes of a name.
#[derive(Default)]
struct Believed {
    file: Option<Arc<StagedFile>>,
    bytes: Vec<u8>,
    /// What was closed whole last, and must be the newest asset in the end.
    closed: Option<Vec<u8>>,
}

#[test]
fn random_operations_end_with_what_was_closed_last() {
    let seed = seed();
    println!("REELFS_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut world = World::with(|config| config.write_back = true);
    let mut names: HashMap<String, Believed> = HashMap::new();
    for _ in 0..400 {
        let name = format!("{}.mp4", dice.roll(5));
        let believed = names.entry(name.clone()).or_default();
        match dice.roll(10) {
            0..5 => write_somewhere(&world, &name, believed, &mut dice),
            5 => truncate_somewhere(believed, &mut dice),
            6..9 => close(&world, believed),
            _ => world = remount(world, &mut names),
        }
    }
    for believed in names.values_mut() {
        close(&world, believed);
    }
    world.drained();
    for (name, believed) in &names {
        let newest = world.directory.newest_named(VIDEO, name);
        let bytes = newest.map(|asset| world.service.bytes(&asset.id));
        assert!(bytes == believed.closed, "{name}");
    }
}

/// Writes as the file system would: into the file that stands there, or into a clone of it.
fn write_somewhere(world: &World, name: &str, believed: &mut Believed, dice: &mut Dice) {
    let file = match &believed.file {
        Some(file) => Arc::clone(file),
        None => {
            believed.bytes.clear();
            world.uploads.create(VIDEO, name, 7, 0o644).unwrap()
        }
    };
    let offset = dice.roll(5_000) as usize;
    let data = sample(1 + dice.roll(3_000) as usize, dice.roll(256) as u8);
    let file = match file.write_at(&data, offset as u64) {
        Ok(()) => file,
        Err(UploadError::Busy) => {
            let copy = world.uploads.clone_for_write(&file).unwrap();
            copy.write_at(&data, offset as u64).unwrap();
            copy
        }
        Err(error) => panic!("{error}"),
    };
    let length = believed.bytes.len().max(offset + data.len());
    believed.bytes.resize(length, 0);
    believed.bytes[offset..offset + data.len()].copy_from_slice(&data);
    believed.file = Some(file);
}

fn truncate_somewhere(believed: &mut Believed, dice: &mut Dice) {
    let length = 1 + dice.roll(6_000);
    if let Some(file) = &believed.file
        && file.truncate(length).is_ok()
    {
        believed.bytes.resize(length as usize, 0);
    }
}

fn close(world: &World, believed: &mut Believed) {
    let Some(file) = &believed.file else { return };
    outcome(&world.close(file)).unwrap();
    believed.closed = Some(believed.bytes.clone());
}

/// Ends the mount without waiting for the queue and begins another. Files that were open are
/// closed first: what a crash does to them is proven elsewhere.
fn remount(world: World, names: &mut HashMap<String, Believed>) -> World {
    for believed in names.values_mut() {
        close(&world, believed);
        believed.file = None;
    }
    let root = world.root.clone();
    let (service, _temporary) = world.end();
    let mut world = World::mount(&root, service, None, |config| config.write_back = true);
    world._temporary = _temporary;
    world
}
