//! What mounts are used to: mount(8), fstab, owners and modes, `df`.
//!
//! mount(8) looks for its helpers in /sbin alone. So that the machine stays as it is, each script
//! here runs in a mount namespace of its own, with a directory of links in the place of /sbin.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;

use reelfs::emulator::{Content, EmulatorConfig, RunwayAsset};

use rustix::process::Signal;

use crate::life::{processes, slow_upload};
use crate::support::{PATIENCE, Studio, noise, until};

/// The program under `/sbin/mount.reelfs`, and libfuse's `/sbin/mount.fuse`.
fn installed() -> Studio {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let asset = RunwayAsset::named("a.mp4", Content::synthetic(1_000, 1));
    studio.services.add_runway(asset);
    studio.configure();
    fs::create_dir(studio.here("sbin")).unwrap();
    for name in ["mount.reelfs", "reelfs"] {
        symlink(env!("CARGO_BIN_EXE_reelfs"), studio.here("sbin").join(name)).unwrap();
    }
    studio.sh("cp \"$(readlink -f /sbin/mount.fuse3)\" sbin/mount.fuse");
    studio
}

/// Runs `script` with `$OPTIONS`, which every mount needs, and waits until its mounts' processes
/// have ended.
fn run(studio: &Studio, script: &str) -> Output {
    let user_namespace = match rustix::process::geteuid().is_root() {
        true => "",
        false => "--map-root-user",
    };
    fs::write(
        studio.here("script"),
        format!(
            // The copies of other tests' mounts go first: they would outlive those tests here.
            "set -e\numount -l -a -t fuse,fuse.reelfs 2>/dev/null || true\nmount --bind sbin /sbin\n\
             PATH=$HERE/sbin:$PATH\n\
             OPTIONS=config=$HOME/config/reelfs/config.toml,state_dir=$HOME/state/reelfs\n{script}\n"
        ),
    )
    .unwrap();
    let output = studio
        .spawn(&format!(
            "exec unshare --mount --propagation private {user_namespace} sh script"
        ))
        .output();
    until("the mounts' processes have ended", || {
        processes(studio).is_empty()
    });
    output
}

/// As [`run`], and what it printed.
fn prints(studio: &Studio, script: &str) -> String {
    let output = run(studio, script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script}: {}\n{said}",
        output.status
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_string()
}

#[test]
fn mount_t_reelfs_mounts_with_its_options_and_umount_ends_it() {
    let studio = installed();
    let printed = prints(
        &studio,
        "mount -t reelfs -o ro,noexec,cache_size=64M,$OPTIONS reelfs $MNT
         ls $MNT/runway/video
         findmnt -no SOURCE $MNT
         findmnt -no OPTIONS $MNT | tr , '\\n' | grep -E '^(ro|noexec|nosuid|nodev)$' | sort
         touch $MNT/runway/video/b.mp4 2>&1 | grep -o 'Read-only file system'
         umount $MNT
         ls $MNT",
    );
    let expected = "a.mp4\nreelfs\nnodev\nnoexec\nnosuid\nro\nRead-only file system";
    assert_eq!(printed, expected);
}

#[test]
fn mount_t_fuse_reelfs_mounts_by_way_of_mount_fuse() {
    let studio = installed();
    let printed = prints(
        &studio,
        "mount -t fuse.reelfs -o noatime,_netdev,deadline=5s,$OPTIONS reelfs $MNT
         cat $MNT/runway/video/a.mp4 > whole
         umount $MNT
         mount -t fuse -o $OPTIONS reelfs#studio $MNT
         ls $MNT/runway/video
         umount $MNT",
    );
    assert_eq!(printed, "a.mp4");
    assert!(Content::synthetic(1_000, 1).verify(0, &fs::read(studio.here("whole")).unwrap()));
}

#[test]
fn fstab_lines_mount_and_a_second_mount_a_leaves_them_alone() {
    let studio = installed();
    // In a user namespace nobody else exists.
    let uid = match rustix::process::geteuid().is_root() {
        true => "1234",
        false => "0",
    };
    let printed = prints(
        &studio,
        &"mkdir $HERE/second
         cat > fstab <<END
reelfs $MNT fuse.reelfs noauto,nofail,_netdev,x-systemd.automount,uid=UID,gid=0,umask=027,$OPTIONS 0 0
reelfs $HERE/second reelfs defaults,_netdev,$OPTIONS 0 0
END
         mount -T fstab $MNT
         stat -c '%u %g %a' $MNT $MNT/runway/video/a.mp4
         umount $MNT
         while ps axww -o args= | grep -v grep | grep -F \"$MNT\"; do sleep 0.01; done > waited
         mount -a -T fstab
         mount -a -T fstab
         findmnt -nro TARGET -S reelfs | grep -c $HERE/second
         umount $HERE/second
         while ps axww -o args= | grep -v grep | grep -F \"$HERE/second\"; do sleep 0.01; done > waited"
            .replace("UID", uid),
    );
    assert_eq!(printed, format!("{uid} 0 750\n{uid} 0 640\n1"));
}

#[test]
fn mount_names_an_option_that_it_does_not_know_and_tells_what_failed() {
    let studio = installed();
    let said = |script: &str, code: i32| {
        let output = run(&studio, script);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = said("mount -t reelfs -o speed=11,$OPTIONS reelfs $MNT", 1);
    assert!(
        unknown.starts_with("reelfs: unknown option `speed`"),
        "{unknown}"
    );
    assert_eq!(unknown.lines().count(), 1, "{unknown}");
    let wrong = said(
        "mount -t fuse.reelfs -o cache_size=potato,$OPTIONS reelfs $MNT",
        1,
    );
    assert!(wrong.contains("`potato`"), "{wrong}");
    let token = said(
        "mount -t reelfs -o useapi_token=s3cret,$OPTIONS reelfs $MNT",
        1,
    );
    assert!(
        !token.contains("s3cret") && token.contains("config"),
        "{token}"
    );
    let full = said(
        "touch $HERE/full; mount -t reelfs -o $OPTIONS reelfs $HERE",
        32,
    );
    assert!(full.contains("is not empty"), "{full}");
    let fake = said(
        "mount -f -t reelfs -o $OPTIONS reelfs $MNT; ! mountpoint -q $MNT",
        0,
    );
    assert_eq!(fake, "");
}

#[test]
fn files_belong_to_uid_and_gid_and_the_umask_takes_bits_away() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let asset = RunwayAsset::named("a.png", Content::synthetic(10, 1));
    studio.services.add_runway(asset);
    studio.mount();
    studio.make("b.png", &noise(100, 2));
    studio.sh("cp b.png $MNT/runway/image/; chmod 600 $MNT/runway/image/b.png");
    studio.unmount();
    studio.mount_with(&["--uid", "1234", "--gid", "4321", "--umask", "002"]);
    for name in ["", "runway", "runway/image/a.png", "runway/image/b.png"] {
        let shown = fs::metadata(studio.at(name)).unwrap();
        assert_eq!((shown.uid(), shown.gid()), (1234, 4321), "{name}");
        let expected = if shown.is_dir() { 0o775 } else { 0o664 };
        assert_eq!(shown.mode() & 0o777, expected, "{name}");
    }
    studio.unmount();
    studio.mount_with(&[]);
    let own = fs::metadata(studio.at("runway/image/b.png")).unwrap();
    assert_eq!(own.uid(), rustix::process::getuid().as_raw());
    // Not shown under the umask, but kept.
    assert_eq!(own.mode() & 0o777, 0o600);
}

#[test]
fn other_users_are_held_by_the_modes() {
    use std::os::unix::fs::PermissionsExt;
    let studio = Studio::unmounted(EmulatorConfig::default());
    let asset = RunwayAsset::named("a.png", Content::synthetic(10, 1));
    studio.services.add_runway(asset);
    // The other user must get as far as the mount.
    let home = studio.at("").parent().unwrap().to_path_buf();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    // Only root can become another user; anyone else can mount for another.
    let (flags, other) = match rustix::process::geteuid().is_root() {
        true => (
            &["--allow-other"][..],
            "setpriv --reuid 4321 --regid 4321 --clear-groups ",
        ),
        false => (&["--uid", "4321", "--gid", "4321"][..], ""),
    };
    studio.mount_with(flags);
    studio.sh(&format!("{other}cat $MNT/runway/image/a.png > read"));
    let refused = studio.sh_fails(&format!("{other}touch $MNT/runway/image/b.png"));
    assert!(refused.contains("Permission denied"), "{refused}");
    studio.unmount();
    // Not `mount`: as anyone but root, this process is shut out as well.
    let shut = studio.environment("REELFS_UMASK", "007");
    shut.start();
    until("it is mounted", || shut.is_mounted());
    let refused = shut.sh_fails(&format!("{other}ls $MNT/runway"));
    assert!(refused.contains("Permission denied"), "{refused}");
}

#[test]
fn df_shows_the_space_and_inodes_of_the_staging_disk() {
    let studio = Studio::new();
    let disk = rustix::fs::statvfs(studio.state_dir()).unwrap();
    let shown = rustix::fs::statvfs(studio.at("")).unwrap();
    assert_eq!(
        shown.f_blocks * shown.f_frsize,
        disk.f_blocks * disk.f_frsize
    );
    assert_eq!(shown.f_files, disk.f_files);
    assert_eq!(shown.f_namemax, 255);
    assert!(shown.f_bavail > 0);
    let available = studio.sh("gio info -f -a filesystem::free $MNT | grep -c filesystem::free");
    assert_eq!(available, "1");
}

/// The socket that systemd listens on, and what arrived there.
struct Notices {
    socket: UnixDatagram,
    path: String,
}

impl Notices {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap().keep();
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let path = path.to_str().unwrap().to_string();
        Self { socket, path }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a notice");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Whatever is there already.
    fn rest(&self) -> String {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut all = String::new();
        while let Ok(length) = self.socket.recv(&mut buffer) {
            all.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        all
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let directory = Path::new(&self.path).parent().unwrap();
        let _ = fs::remove_dir_all(directory);
    }
}

#[test]
fn systemd_is_told_that_the_mount_answers_what_it_does_and_that_it_needs_time_to_stop() {
    let notices = Notices::new();
    let studio = Studio::unmounted(EmulatorConfig::default());
    let studio = studio
        .environment("NOTIFY_SOCKET", &notices.path)
        .environment("REELFS_WRITE_BACK", "true");
    studio.start();
    let ready = notices.next();
    // It is told when it is so: nothing here waits for the mount.
    assert_eq!(studio.sh("ls $MNT"), "ltx\nrunflow\nrunway");
    assert!(ready.starts_with("READY=1\nSTATUS=mounted on "), "{ready}");
    assert!(
        ready.contains("runway, ltx, runflow; no uploads"),
        "{ready}"
    );
    slow_upload(&studio);
    studio.sh("cp a.png $MNT/runway/image/");
    studio.signal(Signal::TERM);
    let mut said = notices.next();
    // Before it stops it may say that the upload began.
    while !said.contains("STOPPING=1") {
        said = notices.next();
    }
    assert!(said.contains("EXTEND_TIMEOUT_USEC=10000000\n"), "{said}");
    assert!(
        said.contains("STATUS=finishing: ") && said.contains("1 upload"),
        "{said}"
    );
    until("the mount ends", || !studio.daemon_runs());
    assert_eq!(studio.uploaded("a.png").size_bytes(), 9_000);
}

#[test]
fn systemd_is_told_nothing_of_a_mount_that_fails_or_runs_in_the_background() {
    let notices = Notices::new();
    let studio = Studio::unmounted(EmulatorConfig::default());
    let studio = studio.environment("NOTIFY_SOCKET", &notices.path);
    let full = studio.here("").display().to_string();
    studio.make("full", b"");
    studio.reelfs_fails(&["mount", "--foreground", &full]);
    let point = studio.at("").display().to_string();
    assert!(studio.reelfs(&["mount", &point]).status.success());
    assert!(studio.reelfs(&["unmount", &point]).status.success());
    assert_eq!(notices.rest(), "");
}

#[test]
fn systemd_accepts_the_units() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    for (manager, path) in [
        (
            "--user",
            include_str!("../../packaging/systemd/user/reelfs@.service"),
        ),
        (
            "--system",
            include_str!("../../packaging/systemd/system/reelfs@.service"),
        ),
    ] {
        let unit = path.replace("/usr/bin/reelfs", env!("CARGO_BIN_EXE_reelfs"));
        assert!(unit.contains("Type=notify"));
        studio.make("reelfs@.service", unit.as_bytes());
        let said = studio.sh(&format!(
            "export XDG_RUNTIME_DIR=$HOME
             systemd-analyze {manager} --man=no --recursive-errors=no verify ./reelfs@studio.service 2>&1"
        ));
        assert_eq!(said, "", "{manager}");
    }
}
