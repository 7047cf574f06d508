//! A part of the matrix through the kernel: the errno that a program sees is the one of the table.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use reelfs::emulator::{Content, Effect, EmulatorConfig, Fault, HostKind, RunwayAsset};

use crate::support::{Studio, errno, noise, until};

/// A status; what a listing, a read and (where it isn't tried for a minute) a copy then say.
const CASES: [(u16, i32, i32, Option<&str>); 7] = [
    (401, libc::EACCES, libc::EACCES, Some("Permission denied")),
    (402, libc::EDQUOT, libc::EIO, Some("Disk quota exceeded")),
    (404, libc::EIO, libc::ENOENT, None),
    (422, libc::EIO, libc::EIO, Some("Input/output error")),
    (429, libc::EAGAIN, libc::EAGAIN, None),
    (503, libc::EIO, libc::EIO, None),
    (596, libc::EACCES, libc::EIO, Some("Permission denied")),
];

fn list(directory: &Path) -> io::Result<usize> {
    let entries: io::Result<Vec<_>> = fs::read_dir(directory)?.collect();
    Ok(entries?.len())
}

fn hold(status: u16, listing: i32, read: i32, copy: Option<&str>) {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let content = Content::synthetic(100_000, 1);
    let asset = RunwayAsset::named("a.mp4", content.clone());
    studio.services.add_runway(asset);
    studio.mount_with(&["--deadline", "3s"]);
    studio.sh("ls $MNT/runway/video");
    for (host, method, path) in [
        (HostKind::Useapi, "GET", "mediaType=audio"),
        (HostKind::Asset, "GET", ""),
        (HostKind::Useapi, "POST", ""),
    ] {
        let fault = Fault::at(host).method(method).path(path);
        studio
            .services
            .add_fault(fault.does(Effect::status(status)));
    }
    let listed = list(&studio.at("runway/audio"));
    assert_eq!(errno(listed), listing, "a listing under {status}");
    let bytes = fs::read(studio.at("runway/video/a.mp4"));
    assert_eq!(errno(bytes), read, "a read under {status}");
    if let Some(words) = copy {
        studio.make("up.png", &noise(5_000, 1));
        let said = studio.sh_fails("cp up.png $MNT/runway/image/");
        assert!(said.contains(words), "a copy under {status}: {said}");
    }
    studio.services.clear_faults();
    assert_eq!(list(&studio.at("runway/audio")).unwrap(), 0);
    studio.sh("until cat $MNT/runway/video/a.mp4 > a; do :; done 2> /dev/null");
    assert!(content.verify(0, &fs::read(studio.here("a")).unwrap()));
    if copy.is_some() {
        // A refused account is asked again once a minute, or when it is told to.
        studio.sh("$REELFS retry $MNT/runway/image/up.png");
        until("it is uploaded", || {
            !studio.uploads_named("up.png").is_empty()
        });
        assert_eq!(studio.uploaded("up.png").size_bytes(), 5_000);
    }
}

#[test]
fn programs_see_the_errno_of_the_table_through_the_kernel() {
    thread::scope(|scope| {
        for (status, listing, read, copy) in CASES {
            scope.spawn(move || hold(status, listing, read, copy));
        }
    });
}
