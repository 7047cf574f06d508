//! `kill -9` of the mount, and what the next one does.

use std::fs::File;
use std::io::Write;

use reelfs::emulator::EmulatorConfig;

use super::*;
use crate::support::until;

#[test]
fn a_closed_file_survives_kill_9_and_is_sent_exactly_once_by_the_next_mount() {
    let (studio, bytes) = with_picture(&["--write-back"]);
    studio.sh("ls $MNT/runway/image");
    studio.services.add_fault(posts(Effect::DropBeforeAnswer));
    studio.sh("cp -p a.png $MNT/runway/image/");
    until("it was tried", || post_count(&studio) > 0);
    studio.kill();
    nothing_arrived(&studio);
    studio.services.clear_faults();
    studio.mount();
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
    studio.sh("cmp a.png $MNT/runway/image/a.png");
    until("it is sent", || !studio.services.runway_assets().is_empty());
    studio.remount();
    arrived(&studio, "a.png", &bytes);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
    let times = "stat -c %.9Y a.png $MNT/runway/image/a.png | sort -u | wc -l";
    assert_eq!(studio.sh(times), "1");
}

#[test]
fn kill_9_after_the_service_took_the_file_sends_it_no_second_time() {
    let (studio, bytes) = with_picture(&["--write-back"]);
    studio
        .services
        .add_fault(posts(Effect::AnswerLostAfterWork));
    let later = Fault::at(HostKind::Useapi).method("GET").skip(1);
    studio
        .services
        .add_fault(later.does(Effect::DropBeforeAnswer));
    studio.sh("cp a.png $MNT/runway/image/");
    until("the service has it", || {
        !studio.services.runway_assets().is_empty()
    });
    studio.kill();
    studio.services.clear_faults();
    studio.mount();
    until("the asset is known", || {
        let state =
            studio.spawn("getfattr --only-values -n user.reelfs.upload $MNT/runway/image/a.png");
        String::from_utf8_lossy(&state.output().stdout).starts_with("done")
    });
    arrived(&studio, "a.png", &bytes);
    assert_eq!(post_count(&studio), 1);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
}

#[test]
fn kill_9_while_a_file_is_written_uploads_nothing() {
    let (studio, bytes) = with_picture(&[]);
    let mut writer = File::create(studio.at("runway/image/a.png")).unwrap();
    writer.write_all(&bytes[..40_000]).unwrap();
    studio.kill();
    assert!(writer.write_all(b"more").is_err());
    drop(writer);
    studio.mount();
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
    studio.unmount();
    nothing_arrived(&studio);
    assert_eq!(post_count(&studio), 0);
}

#[test]
fn the_second_accounts_mount_does_not_take_the_firsts_files() {
    let (studio, _) = with_picture(&["--write-back"]);
    studio.services.add_fault(posts(Effect::DropBeforeAnswer));
    studio.sh("cp a.png $MNT/runway/image/");
    studio.kill();
    studio.services.clear_faults();
    let other = Studio::unmounted(EmulatorConfig::default());
    let other = other.environment("REELFS_STATE_DIR", studio.state_dir().to_str().unwrap());
    other.mount();
    assert_eq!(other.sh("ls -A $MNT/runway/image"), "");
    other.unmount();
    nothing_arrived(&other);
}
