//! Services that refuse an upload or break off, and a full disk.

use reelfs::emulator::EmulatorConfig;

use super::*;
use crate::support::until;

/// `cp` into a service that answers uploads with `status`; what it said.
fn cp_refused_with(status: u16) -> (Studio, String) {
    let (studio, _) = with_picture(&[]);
    studio.services.add_fault(posts(Effect::status(status)));
    let said = studio.sh_fails("cp a.png $MNT/runway/image/");
    nothing_arrived(&studio);
    (studio, said)
}

/// A studio whose `a.png` was copied in vain, once.
fn with_a_failed_upload() -> (Studio, Vec<u8>) {
    let (studio, bytes) = with_picture(&[]);
    let refused = posts(Effect::status(400)).times(1);
    studio.services.add_fault(refused);
    studio.sh_fails("cp a.png $MNT/runway/image/");
    (studio, bytes)
}

/// A studio whose `a.png` arrived although the first request had this effect.
fn copied_through(effect: Effect) -> Studio {
    let (studio, bytes) = with_picture(&[]);
    studio.services.add_fault(posts(effect).times(1));
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    studio
}

#[test]
fn a_refused_upload_fails_the_cp() {
    let (studio, said) = cp_refused_with(400);
    assert!(said.contains("Input/output error"), "{said}");
    let state = studio.sh("getfattr --only-values -n user.reelfs.upload $MNT/runway/image/a.png");
    assert!(state.starts_with("failed: "), "{state}");
    studio.sh("cmp a.png $MNT/runway/image/a.png");
}

#[test]
fn an_exhausted_subscription_is_a_quota_error() {
    let (_studio, said) = cp_refused_with(402);
    assert!(said.contains("Disk quota exceeded"), "{said}");
}

#[test]
fn a_refused_token_fails_the_cp() {
    let (_studio, said) = cp_refused_with(401);
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn a_failed_upload_succeeds_when_the_file_is_copied_again() {
    let (studio, bytes) = with_a_failed_upload();
    studio.sh("cp a.png $MNT/runway/image/");
    arrived(&studio, "a.png", &bytes);
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "a.png");
}

#[test]
fn a_failed_upload_is_sent_again_by_retry() {
    let (studio, bytes) = with_a_failed_upload();
    studio.sh("$REELFS retry $MNT/runway/image/a.png");
    until("it is sent", || !studio.services.runway_assets().is_empty());
    arrived(&studio, "a.png", &bytes);
}

#[test]
fn a_failed_upload_can_be_removed() {
    let (studio, _) = with_a_failed_upload();
    studio.sh("rm $MNT/runway/image/a.png");
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
    studio.remount();
    assert_eq!(studio.sh("ls -A $MNT/runway/image"), "");
    nothing_arrived(&studio);
}

#[test]
fn a_full_disk_is_enospc_at_the_write_and_never_a_short_upload() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    studio.make("large.mp4", &noise(3 << 20, 1));
    studio.make("small.mp4", &noise(1_000, 2));
    studio.configure();
    // No file of the program's may be larger than 1 MiB; a trap that ignores is inherited.
    studio.sh("trap '' XFSZ; ulimit -f 2048; $REELFS mount $MNT");
    let said = studio.sh_fails("cp large.mp4 $MNT/runway/video/");
    assert!(said.contains("No space left on device"), "{said}");
    studio.sh("rm $MNT/runway/video/large.mp4; cp small.mp4 $MNT/runway/video/");
    studio.sh("$REELFS unmount $MNT");
    assert_eq!(studio.services.runway_assets().len(), 1);
    arrived(&studio, "small.mp4", &noise(1_000, 2));
}

#[test]
fn an_answer_that_was_lost_leaves_one_asset() {
    let studio = copied_through(Effect::AnswerLostAfterWork);
    assert_eq!(post_count(&studio), 1);
    assert_eq!(studio.sh("ls $MNT/runway/image"), "a.png");
}

#[test]
fn a_connection_that_breaks_while_sending_is_not_seen() {
    copied_through(Effect::DropWhileReceiving(30_000));
}

#[test]
fn a_rate_limit_is_waited_for() {
    copied_through(Effect::retry_after(429, 1));
}
