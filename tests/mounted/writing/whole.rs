//! When a file counts as whole, and what a close waits for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;

use super::*;
use crate::support::until;

#[test]
fn close_waits_for_the_upload() {
    let (studio, _) = with_picture(&[]);
    studio.services.add_fault(posts(Effect::Silent).times(1));
    let copy = studio.spawn("exec cp a.png $MNT/runway/image/");
    until("the upload is under way", || post_count(&studio) == 1);
    until("cp waits in its close", || copy.waits_for_the_mount());
    studio.sh(
        "ls -l $MNT/runway/image; stat $MNT/runway/image/a.png; cmp a.png $MNT/runway/image/a.png",
    );
    let state = studio.sh("getfattr --only-values -n user.reelfs.upload $MNT/runway/image/a.png");
    assert!(state.starts_with("sending") || state == "queued", "{state}");
    copy.signal(Signal::KILL);
    assert_eq!(copy.ended_by(), Some(Signal::KILL.as_raw()));
}

#[test]
fn write_back_returns_at_once_and_unmount_waits() {
    let (studio, bytes) = with_picture(&["--write-back"]);
    studio.services.add_fault(posts(Effect::html(503)).times(1));
    studio.sh("cp a.png $MNT/runway/image/; cmp a.png $MNT/runway/image/a.png");
    studio.unmount();
    arrived(&studio, "a.png", &bytes);
}

#[test]
fn a_killed_copy_uploads_nothing() {
    let (studio, _) = with_picture(&[]);
    studio.sh("mkfifo pipe");
    let copy = studio.spawn("exec cat pipe > $MNT/runway/image/a.png");
    let mut pipe = OpenOptions::new()
        .write(true)
        .open(studio.here("pipe"))
        .unwrap();
    pipe.write_all(&noise(50_000, 1)).unwrap();
    until("the bytes are written", || {
        fs::metadata(studio.at("runway/image/a.png")).is_ok_and(|file| file.size() == 50_000)
    });
    copy.signal(Signal::KILL);
    assert_eq!(copy.ended_by(), Some(Signal::KILL.as_raw()));
    drop(pipe);
    studio.unmount();
    nothing_arrived(&studio);
    assert_eq!(post_count(&studio), 0);
}

#[test]
fn a_child_that_inherited_the_descriptor_and_exits_uploads_nothing() {
    let studio = Studio::new();
    // The writer goes on when somebody opens the other end.
    studio.sh("mkfifo go-on");
    let writer = studio.spawn(
        "exec python3 -c '
import os, subprocess, sys
clip = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)
os.set_inheritable(clip, True)
os.write(clip, b\"first half, \")
subprocess.run([\"true\"], close_fds=False, check=True)
open(\"child-has-exited\", \"w\").close()
open(\"go-on\").close()
os.write(clip, b\"second half\")
os.close(clip)
' $MNT/runway/video/clip.mp4",
    );
    until("the child has exited", || {
        studio.here("child-has-exited").exists()
    });
    nothing_arrived(&studio);
    assert_eq!(post_count(&studio), 0);
    studio.sh(": > go-on");
    writer.succeeds();
    arrived(&studio, "clip.mp4", b"first half, second half");
    assert_eq!(post_count(&studio), 1);
}

/// The kernel closes the descriptor in the child's execve(2), under a lock that whoever reads much
/// of /proc/<pid> waits for.
#[test]
fn a_program_starts_while_its_parent_writes() {
    let studio = Studio::new();
    let writer = studio.spawn(
        "exec python3 -c '
import os, subprocess, sys
clip = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
os.write(clip, b\"first half, \")
subprocess.run([\"true\"], close_fds=False, check=True)
os.write(clip, b\"second half\")
os.close(clip)
' $MNT/runway/video/clip.mp4",
    );
    writer.succeeds();
    arrived(&studio, "clip.mp4", b"first half, second half");
    assert_eq!(post_count(&studio), 1);
}

/// As `exec` of a shell that has written does, and the same lock is held.
#[test]
fn a_program_that_starts_another_in_its_place_ends_what_it_wrote() {
    let studio = Studio::new();
    studio.sh("python3 -c '
import os, sys
clip = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
os.write(clip, b\"the whole\")
os.execvp(\"true\", [\"true\"])
' $MNT/runway/video/clip.mp4");
    arrived(&studio, "clip.mp4", b"the whole");
}

#[test]
fn a_descriptor_that_outlives_its_opener_uploads_at_its_last_close() {
    let studio = Studio::new();
    studio.sh("exec 9> $MNT/runway/video/clip.mp4; (printf child >&9); printf ' and parent' >&9; exec 9>&-");
    until("the whole arrives", || {
        !studio.uploads_named("clip.mp4").is_empty()
    });
    arrived(&studio, "clip.mp4", b"child and parent");
}

#[test]
fn a_file_closed_by_another_thread_of_its_opener_is_uploaded() {
    let studio = Studio::new();
    studio.sh("python3 -c '
import sys, threading
clip = open(sys.argv[1], \"wb\")
clip.write(b\"by one thread\")
closer = threading.Thread(target=clip.close)
closer.start()
closer.join()
' $MNT/runway/video/clip.mp4");
    arrived(&studio, "clip.mp4", b"by one thread");
}

#[test]
fn a_file_that_is_being_written_can_be_read() {
    let (studio, bytes) = with_picture(&[]);
    let mut writer = File::create(studio.at("runway/image/a.png")).unwrap();
    writer.write_all(&bytes[..1_000]).unwrap();
    assert_eq!(
        fs::read(studio.at("runway/image/a.png")).unwrap(),
        &bytes[..1_000]
    );
    writer.write_all(&bytes[1_000..]).unwrap();
    drop(writer);
    arrived(&studio, "a.png", &bytes);
}
