//! Mounting, ending, crashing, refusing, and what nobody may see.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reelfs::emulator::{
    Content, Effect, EmulatorConfig, Fault, HostKind, RunwayAsset, SAMPLE_RUNFLOW_IDS,
};
use rustix::process::Signal;

use crate::support::{Studio, errno, noise, until};

fn unmounted() -> Studio {
    Studio::unmounted(EmulatorConfig::default())
}

fn path(studio: &Studio) -> String {
    let point = studio.at("").display().to_string();
    point.trim_end_matches('/').to_string()
}

/// `reelfs mount` in the background.
fn mount_behind(studio: &Studio) {
    let output = studio.reelfs(&["mount", &path(studio)]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("Mounted on "));
}

fn unmount(studio: &Studio) {
    let output = studio.reelfs(&["unmount", &path(studio)]);
    assert!(output.status.success(), "{output:?}");
    assert!(!studio.is_mounted());
}

/// Processes that have the mount point on their command line.
pub fn processes(studio: &Studio) -> String {
    studio.sh("ps axww -o pid=,args= | grep -F \"$MNT\" | grep -v grep | grep -v 'sh -c' || true")
}

#[test]
fn a_background_mount_returns_once_it_answers_and_unmount_ends_it() {
    let studio = unmounted();
    let asset = RunwayAsset::named("a.mp4", Content::synthetic(10, 1));
    studio.services.add_runway(asset);
    mount_behind(&studio);
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.mp4");
    assert!(processes(&studio).contains("mount"));
    unmount(&studio);
    until("the process is gone", || processes(&studio).is_empty());
    mount_behind(&studio);
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.mp4");
    unmount(&studio);
}

#[test]
fn more_files_may_be_open_than_the_shell_allows_at_first() {
    let studio = unmounted();
    studio.configure();
    studio.sh("ulimit -Sn 64; $REELFS mount $MNT");
    studio.make(
        "open.py",
        b"import sys\n\
          files = [open(f'{sys.argv[1]}/{n}.png', 'wb') for n in range(100)]\n\
          for n, file in enumerate(files):\n    file.write(b'%d' % n); file.close()\n",
    );
    studio.sh("python3 open.py $MNT/runway/image");
    assert_eq!(studio.services.runway_assets().len(), 100);
    unmount(&studio);
}

#[test]
fn a_limit_of_file_sizes_is_an_error_of_the_copy_and_not_the_end_of_the_mount() {
    let studio = unmounted();
    studio.configure();
    studio.make("long.png", &[7; 3_000_000]);
    studio.make("short.png", &[7; 1_000]);
    studio.sh("ulimit -f 2000; $REELFS mount $MNT");
    let said = studio.sh_fails("cp long.png $MNT/runway/image/");
    assert!(said.contains("No space left"), "{said}");
    studio.sh("cp short.png $MNT/runway/image/");
    let arrived = studio.services.runway_assets();
    assert_eq!(arrived.len(), 1);
    unmount(&studio);
}

#[test]
fn unmount_from_inside_does_not_stand_in_its_own_way() {
    let studio = Studio::new();
    studio.sh("cd $MNT/runway; exec $REELFS unmount ..");
    assert!(!studio.is_mounted());
}

#[test]
fn unmount_waits_for_uploads() {
    let studio = unmounted().environment("REELFS_WRITE_BACK", "true");
    mount_behind(&studio);
    slow_upload(&studio);
    studio.sh("cp a.png $MNT/runway/image/");
    unmount(&studio);
    assert!(studio.uploaded("a.png").content.verify(0, &noise(9_000, 1)));
}

/// Makes `$HERE/a.png`, whose upload takes a while.
pub fn slow_upload(studio: &Studio) {
    studio.make("a.png", &noise(9_000, 1));
    let slow = Fault::at(HostKind::Useapi).method("POST");
    let slow = slow.does(Effect::Delay(Duration::from_millis(700)));
    studio.services.add_fault(slow);
}

#[test]
fn sigterm_and_sigint_wait_for_uploads() {
    for signal in [Signal::TERM, Signal::INT] {
        let studio = Studio::with(&["--write-back"]);
        slow_upload(&studio);
        studio.sh("cp a.png $MNT/runway/image/");
        studio.signal(signal);
        until("the mount ends", || !studio.daemon_runs());
        assert!(!studio.is_mounted());
        assert_eq!(studio.uploaded("a.png").size_bytes(), 9_000);
    }
}

#[test]
fn a_dead_mount_is_cleared_by_unmount() {
    let studio = Studio::new();
    studio.kill();
    assert_eq!(errno(fs::read_dir(studio.at(""))), libc::ENOTCONN);
    unmount(&studio);
    assert_eq!(fs::read_dir(studio.at("")).unwrap().count(), 0);
}

/// A thread of the program that waited for the program's own answer could not be killed.
#[test]
fn a_mount_that_is_killed_while_it_starts_is_dead_and_not_stuck() {
    let studio = unmounted();
    for _ in 0..20 {
        studio.start();
        until("it is mounted", || studio.is_mounted());
        studio.kill();
        // Whoever asks while the kernel is still tearing it down is told ECONNABORTED.
        let dead = errno(fs::read_dir(studio.at("")));
        assert!(
            [libc::ENOTCONN, libc::ECONNABORTED].contains(&dead),
            "{dead}"
        );
        unmount(&studio);
    }
}

#[test]
fn a_dead_mount_is_cleared_by_the_next_mount() {
    let studio = Studio::new();
    studio.kill();
    assert_eq!(errno(fs::read_dir(studio.at(""))), libc::ENOTCONN);
    mount_behind(&studio);
    assert_eq!(studio.sh("ls $MNT"), "ltx\nrunflow\nrunway");
    unmount(&studio);
}

#[test]
fn a_mount_point_that_cannot_be_one_is_refused_in_one_sentence() {
    let studio = unmounted();
    let refused = |name: &str| {
        let point = studio.here(name).display().to_string();
        let said = studio.reelfs_fails(&["mount", &point]);
        assert!(said.contains(&point), "{said}");
        said
    };
    assert!(refused("absent").contains("mkdir"), "{}", refused("absent"));
    studio.make("full/file", b"x");
    assert!(refused("full").contains("empty"), "{}", refused("full"));
    studio.make("file", b"x");
    assert!(refused("file").contains("directory"), "{}", refused("file"));
}

#[test]
fn a_second_mount_in_one_place_is_refused_and_leaves_the_first() {
    let studio = Studio::new();
    for flags in [&["mount"][..], &["mount", "-f"]] {
        let point = path(&studio);
        let said = studio.reelfs_fails(&[flags, &[point.as_str()]].concat());
        assert!(said.contains("already mounted"), "{said}");
        assert!(said.contains("reelfs unmount"), "{said}");
    }
    assert_eq!(studio.sh("ls $MNT"), "ltx\nrunflow\nrunway");
}

#[test]
fn a_mount_without_a_token_names_the_variables() {
    let studio = unmounted()
        .environment("USEAPI_TOKEN", "")
        .environment("RUNFLOW_TOKEN", "");
    let said = studio.reelfs_fails(&["mount", &path(&studio)]);
    assert!(
        said.contains("USEAPI_TOKEN") && said.contains("RUNFLOW_TOKEN"),
        "{said}"
    );
}

#[test]
fn unmounting_what_is_not_mounted_is_refused_in_one_sentence() {
    let studio = unmounted();
    let said = studio.reelfs_fails(&["unmount", &path(&studio)]);
    assert!(said.contains("nothing is mounted"), "{said}");
}

#[test]
fn a_busy_mount_is_not_unmounted_but_by_force() {
    let studio = Studio::new();
    let asset = RunwayAsset::named("a.mp4", Content::synthetic(10, 1));
    studio.services.add_runway(asset);
    let open = File::open(studio.at("runway/video/a.mp4")).unwrap();
    let said = studio.reelfs_fails(&["unmount", &path(&studio)]);
    assert!(said.contains("--force"), "{said}");
    assert_eq!(studio.sh("ls $MNT/runway/video"), "a.mp4");
    let forced = studio.reelfs(&["unmount", "--force", &path(&studio)]);
    assert!(forced.status.success(), "{forced:?}");
    assert!(!studio.is_mounted());
    drop(open);
}

#[test]
fn two_mounts_of_one_account_show_each_others_uploads() {
    let studio = Studio::with(&["--listing-ttl", "0s"]);
    studio.make("a.png", &noise(5_000, 1));
    studio.make("b.png", &noise(6_000, 2));
    fs::create_dir(studio.here("second")).unwrap();
    let second = studio.here("second").display().to_string();
    let output = studio.reelfs(&["mount", "--listing-ttl", "0s", &second]);
    assert!(output.status.success(), "{output:?}");
    studio.sh("cp a.png $MNT/runway/image/; cp b.png second/runway/image/");
    studio.sh("cmp a.png second/runway/image/a.png; cmp b.png $MNT/runway/image/b.png");
    let ended = studio.reelfs(&["unmount", &second]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(studio.services.runway_assets().len(), 2);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png\nb.png");
}

#[test]
fn the_demo_lists_reads_takes_a_file_and_ends() {
    let studio = unmounted();
    studio.make("new.png", &noise(7_000, 1));
    studio.sh("$REELFS demo $MNT");
    assert_eq!(studio.sh("ls $MNT"), "ltx\nrunflow\nrunway");
    studio.sh("ffprobe -v error \"$MNT/runway/video/Sunset in motion.mp4\"");
    assert_eq!(studio.sh("ls $MNT/ltx/videos | wc -l"), "4");
    studio.sh(&format!(
        "cat $MNT/runflow/{} > sunset.mp4; ffprobe -v error sunset.mp4",
        SAMPLE_RUNFLOW_IDS[0]
    ));
    studio.sh("cp new.png $MNT/runway/image/; cmp new.png $MNT/runway/image/new.png");
    studio.sh("$REELFS unmount $MNT");
    assert!(!studio.is_mounted());
    until("the process is gone", || processes(&studio).is_empty());
    // Its libraries were for once.
    assert_eq!(
        studio.sh("find $HOME/state -name '*.png' -o -name 'demo-*'"),
        ""
    );
}

// ---- what nobody may see ----

/// Does a bit of everything, with failures among it.
fn use_everything(studio: &Studio) {
    studio.make("a.png", &noise(5_000, 1));
    studio.make("notes.txt", b"x");
    studio.sh("find $MNT -type f -exec cat {} + > all");
    studio.sh(&format!(
        "cat $MNT/runflow/{} > runflow",
        SAMPLE_RUNFLOW_IDS[0]
    ));
    studio.sh("cp a.png $MNT/runway/image/");
    let faults = [
        Fault::at(HostKind::Asset).does(Effect::status(403)),
        Fault::at(HostKind::Useapi).does(Effect::status(401)),
        Fault::at(HostKind::Runflow).does(Effect::html(502)),
    ];
    for fault in faults {
        studio.services.add_fault(fault);
    }
    studio.sh_fails("cp notes.txt $MNT/runway/image/");
    studio.sh_fails("cp a.png $MNT/runway/image/b.png");
    studio.sh_fails("ls $MNT/runway/audio $MNT/ltx/images; rm $MNT/runway/image/*");
    studio.sh_fails(&format!("cat $MNT/runflow/{}", SAMPLE_RUNFLOW_IDS[1]));
}

/// Everything that would let its finder in: tokens, and what signs the URLs that were used.
fn secrets(studio: &Studio) -> Vec<String> {
    let mut secrets = vec![
        studio.services.useapi_token(),
        studio.services.runflow_token(),
    ];
    for request in studio.services.requests() {
        let query = request.path_and_query.split_once('?');
        if let (HostKind::Asset, Some((_, query))) = (request.host, query) {
            let values = query.split('&').filter_map(|pair| pair.split_once('='));
            let long = values.filter(|(_, value)| value.len() >= 32);
            secrets.extend(long.map(|(_, value)| value.to_string()));
        }
    }
    assert!(secrets.len() > 10, "URLs were used");
    secrets
}

#[test]
fn no_secret_is_logged_at_any_level() {
    let studio = Studio::sampled().environment("RUST_LOG", "trace");
    studio.mount_with(&["--deadline", "2s", "--listing-ttl", "0s"]);
    use_everything(&studio);
    let log = studio.log();
    assert!(
        log.contains("TRACE") && log.contains("ERROR"),
        "it logs everything"
    );
    for secret in secrets(&studio) {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}

#[test]
fn no_token_is_in_ps_or_in_the_state_directory() {
    let studio = Studio::sampled();
    mount_behind(&studio);
    studio.make("a.png", &noise(5_000, 1));
    studio.sh("find $MNT -type f -exec cat {} + > all; cp a.png $MNT/runway/image/");
    assert!(!processes(&studio).is_empty());
    let ps = studio.sh("ps axww -o args=");
    unmount(&studio);
    let state = studio.sh("find $HOME/state -type f -exec cat {} + | tr -c '[:print:]' '\\n'");
    for token in [
        studio.services.useapi_token(),
        studio.services.runflow_token(),
    ] {
        assert!(!ps.contains(&token) && !state.contains(&token), "{token}");
    }
}

#[test]
fn what_is_staged_is_nobody_elses() {
    let studio = Studio::with(&["--write-back"]);
    studio.make("a.png", &noise(5_000, 1));
    let unreachable = Fault::at(HostKind::Useapi).method("POST");
    studio
        .services
        .add_fault(unreachable.does(Effect::html(503)));
    studio.sh("cp a.png $MNT/runway/image/");
    let open = studio.sh(
        "find $HOME/state -mindepth 1 \\( -type d -not -perm 700 -o -type f -not -perm 600 \\)",
    );
    assert_eq!(open, "");
    let mode = fs::metadata(studio.state_dir().join("reelfs"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn no_token_goes_to_an_asset_host() {
    let studio = Studio::sampled();
    studio.mount();
    studio.sh("find $MNT -type f -exec cat {} + > all");
    assert!(!studio.requests(HostKind::Asset).is_empty());
    assert_eq!(studio.services.refusals().tokens, 0);
}

#[test]
fn an_idle_mount_asks_nobody() {
    let studio = Studio::sampled();
    studio.mount();
    studio.sh("ls $MNT; stat $MNT/runway/video; df $MNT");
    let asked: Vec<_> = studio.services.requests();
    assert!(asked.is_empty(), "{asked:?}");
}
