//! No hang, ever: what else there is to do is done while two hundred readers wait for hosts that
//! say nothing, and what ends them ends them. Nothing here is timed: it is done while they wait.

use std::fs;
use std::time::Duration;

use reelfs::emulator::{Content, Effect, Fault, HostKind, LtxAsset, RunwayAsset};
use rustix::process::Signal;

use crate::support::{Running, Studio, until};

const READERS: usize = 200;
const CLIPS: usize = 100;
const MIB: u64 = 1 << 20;

/// Clips whose host is silent, one that was read before, one whose host answers; and the readers.
struct Scene {
    studio: Studio,
    readers: Running,
    healthy: Content,
}

fn scene() -> Scene {
    let studio = Studio::with(&["--deadline", "1h"]);
    let healthy = Content::synthetic(2 * MIB, 7);
    let add = |name: &str, content: &Content| {
        let asset = RunwayAsset::named(name, content.clone());
        studio.services.add_runway(asset)
    };
    let silent: Vec<String> = (0..CLIPS)
        .map(|n| {
            add(
                &format!("silent{n}.mp4"),
                &Content::synthetic(MIB, n as u64),
            )
        })
        .collect();
    add("read.png", &healthy);
    let unread = LtxAsset::new("image/png", healthy.clone());
    studio.services.add_ltx(unread);
    studio.sh("cat $MNT/runway/image/read.png > first; ls -l $MNT/ltx/images");
    studio.sh("ls -l $MNT/runway/video");
    for id in silent {
        let fault = Fault::at(HostKind::Asset).path(&id).does(Effect::Silent);
        studio.services.add_fault(fault);
    }
    let readers = studio.spawn(&format!(
        "for n in $(seq {READERS}); do cat $MNT/runway/video/silent$((n % {CLIPS})).mp4 & done; wait"
    ));
    until("all readers wait", || readers.waiting() == READERS);
    Scene {
        studio,
        readers,
        healthy,
    }
}

#[test]
fn everything_else_is_done_while_two_hundred_readers_wait() {
    let Scene {
        studio,
        readers,
        healthy,
    } = scene();
    studio.sh("ls -lR $MNT > listed; stat $MNT/runway/video/silent0.mp4; df $MNT");
    studio.sh("cat $MNT/runway/image/read.png | cmp - first");
    // Not in any cache, of another service, whose host answers.
    studio.sh("cat $MNT/ltx/images/*.png > unread");
    assert!(healthy.verify(0, &fs::read(studio.here("unread")).unwrap()));
    studio.make("new.png", &[1; 1000]);
    studio.sh("cp new.png $MNT/runway/image/; mv new.png renamed; cat $MNT/runway/image/new.png");
    assert_eq!(readers.waiting(), READERS, "they wait still");
    readers.signal_all(Signal::INT);
    // The shell's background jobs ignore SIGINT, as a shell without job control has it.
    readers.signal_all(Signal::TERM);
    until("each of them has ended", || readers.waiting() == 0);
    assert!(studio.daemon_runs());
    studio.sh("ls $MNT/runway/video");
}

#[test]
fn sigterm_ends_the_mount_and_the_two_hundred_readers() {
    let Scene {
        studio, readers, ..
    } = scene();
    studio.unmount();
    until("each of them has ended", || readers.waiting() == 0);
    studio.mount();
    studio.sh("ls $MNT/runway/video");
}

#[test]
fn a_forced_unmount_ends_the_two_hundred_readers() {
    let Scene {
        studio, readers, ..
    } = scene();
    let said = studio.reelfs_fails(&["unmount", studio.at("").to_str().unwrap()]);
    assert!(said.contains("--force"), "{said}");
    studio.sh("$REELFS unmount --force $MNT");
    until("each of them has ended", || readers.waiting() == 0);
    until("the program has ended", || !studio.daemon_runs());
    assert!(!studio.is_mounted());
}

#[test]
fn kill_9_with_two_hundred_readers_leaves_what_unmount_and_a_mount_clear() {
    for clears in ["unmount", "mount"] {
        let Scene {
            studio, readers, ..
        } = scene();
        studio.kill();
        until("each of them has ended", || readers.waiting() == 0);
        if clears == "unmount" {
            studio.sh("$REELFS unmount $MNT");
            assert!(!studio.is_mounted());
        }
        studio.mount();
        studio.sh("ls $MNT/runway/video");
    }
}

/// Whoever tells the kernel what to forget waits for who looks a name up in that directory, who waits
/// for the mount. Killed just then, the process can't end and the mount isn't dead: nobody answers.
#[test]
fn kill_9_while_the_kernel_is_told_of_changes_leaves_what_unmount_and_a_mount_clear() {
    for clears in ["unmount", "mount"] {
        let studio = Studio::with(&["--listing-ttl", "0s"]);
        studio.configure();
        let slow = Effect::Delay(Duration::from_millis(200));
        studio
            .services
            .add_fault(Fault::at(HostKind::Useapi).does(slow));
        let add = |n: usize| {
            let asset = RunwayAsset::named(&format!("{n}.mp4"), Content::synthetic(10, 1));
            studio.services.add_runway(asset)
        };
        let mut there: Vec<String> = (0..40).map(add).collect();
        let _readers = studio.spawn(
            "for n in $(seq 6); do while :; do ls -l $MNT/runway/video || :; done & done; wait",
        );
        until("a thread waits while it tells the kernel", || {
            studio.services.remove(&there.remove(0));
            there.push(add(there.len()));
            studio.daemon_waits_in("fuse_reverse_inval")
        });
        studio.signal(Signal::KILL);
        studio.sh(&format!("timeout 40 $REELFS {clears} $MNT"));
        assert_eq!(studio.is_mounted(), clears == "mount");
        if clears == "mount" {
            studio.services.clear_faults();
            studio.sh("ls $MNT/runway/video; $REELFS unmount --force $MNT");
        }
    }
}
