//! Bytes: the asset's or an error, through whatever goes wrong in between.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use reelfs::emulator::{
    Content, Effect, EmulatorConfig, Fault, HostKind, LtxAsset, RunflowAsset, RunwayAsset,
};
use rustix::process::Signal;

use crate::support::{Studio, errno, noise, until};

const MIB: u64 = 1 << 20;
const UUID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

/// A studio with `clip.mp4` of so many bytes.
fn with_clip(size_bytes: u64, flags: &[&str]) -> (Studio, Content) {
    let studio = Studio::with(flags);
    let content = Content::synthetic(size_bytes, size_bytes);
    let clip = RunwayAsset::named("clip.mp4", content.clone());
    studio.services.add_runway(clip);
    (studio, content)
}

fn asset_host(effect: Effect) -> Fault {
    Fault::at(HostKind::Asset).does(effect)
}

fn is_whole(studio: &Studio, copy: &str, content: &Content) {
    let bytes = fs::read(studio.here(copy)).unwrap();
    assert_eq!(bytes.len() as u64, content.len());
    assert!(content.verify(0, &bytes), "{copy} differs");
}

// ---- programs that read ----

#[test]
fn cat_and_cp_give_every_byte_of_small_and_large_files() {
    let studio = Studio::new();
    let files = [("one", 1), ("small", 70_001), ("large", 40 * MIB + 3)];
    let content = |size_bytes| Content::synthetic(size_bytes, size_bytes);
    for (name, size_bytes) in files {
        let asset = RunwayAsset::named(&format!("{name}.mp4"), content(size_bytes));
        studio.services.add_runway(asset);
    }
    for (name, size_bytes) in files {
        studio.sh(&format!("cat $MNT/runway/video/{name}.mp4 > cat-{name}"));
        studio.sh(&format!("cp $MNT/runway/video/{name}.mp4 cp-{name}"));
        is_whole(&studio, &format!("cat-{name}"), &content(size_bytes));
        is_whole(&studio, &format!("cp-{name}"), &content(size_bytes));
    }
}

#[test]
fn a_copy_of_every_sample_compares_equal() {
    let studio = Studio::sampled();
    studio.mount();
    studio.sh("cp -r $MNT/runway $MNT/ltx .; diff -r runway $MNT/runway; diff -r ltx $MNT/ltx");
    studio.sh("test $(find runway ltx -type f | wc -l) = 22");
    assert_eq!(studio.services.refusals().heads, 0);
    assert_eq!(studio.services.refusals().tokens, 0);
}

#[test]
fn dd_and_tail_read_exactly_where_they_ask() {
    let (studio, content) = with_clip(3 * MIB + 17, &[]);
    studio.sh("dd if=$MNT/runway/video/clip.mp4 of=part bs=4099 skip=301 count=7 status=none");
    assert_eq!(
        fs::read(studio.here("part")).unwrap(),
        content.read(4099 * 301, 4099 * 308)
    );
    studio.sh("tail -c 1001 $MNT/runway/video/clip.mp4 > tail");
    let end = content.len();
    assert_eq!(
        fs::read(studio.here("tail")).unwrap(),
        content.read(end - 1001, end)
    );
    let file = File::open(studio.at("runway/video/clip.mp4")).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(file.read_at(&mut buffer, end).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, end + MIB).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, end - 5).unwrap(), 5);
    assert!(content.verify(end - 5, &buffer[..5]));
}

#[test]
fn concurrent_readers_all_get_the_same_bytes() {
    let (studio, content) = with_clip(12 * MIB, &[]);
    studio.sh("for n in 1 2 3 4; do cat $MNT/runway/video/clip.mp4 > copy$n & done; wait");
    for n in 1..=4 {
        is_whole(&studio, &format!("copy{n}"), &content);
    }
    let fetched: u64 = asset_bytes(&studio);
    assert!(fetched < 24 * MIB, "four readers, {fetched} bytes fetched");
}

fn asset_bytes(studio: &Studio) -> u64 {
    let all = studio.services.requests().into_iter();
    all.filter(|request| request.host == HostKind::Asset)
        .map(|request| request.bytes_sent)
        .sum()
}

#[test]
fn mmap_shows_the_same_bytes() {
    let (studio, content) = with_clip(2 * MIB + 5, &[]);
    studio.sh("python3 -c '
import mmap, sys
with open(sys.argv[1], \"rb\") as clip, mmap.mmap(clip.fileno(), 0, prot=mmap.PROT_READ) as pages:
    open(\"pages\", \"wb\").write(pages[1000000:1000500] + pages[:])
' $MNT/runway/video/clip.mp4");
    let bytes = fs::read(studio.here("pages")).unwrap();
    assert!(content.verify(1_000_000, &bytes[..500]));
    assert_eq!(bytes.len() as u64, 500 + content.len());
    assert!(content.verify(0, &bytes[500..]));
}

#[test]
fn ffprobe_finds_the_streams_of_every_sample() {
    let studio = Studio::sampled();
    studio.mount();
    let probe = |file: &str| {
        studio.sh(&format!(
            "ffprobe -v error -show_entries stream=codec_name -of csv=p=0 \"$MNT/runway/{file}\""
        ))
    };
    assert_eq!(
        probe("video/Gen-3 Alpha 35801490234, deep into a fractal.mp4"),
        "h264\naac"
    );
    // Its index is at the end.
    assert_eq!(probe("video/Sunset in motion.mp4"), "h264\naac");
    assert_eq!(probe("video/Aurora.webm"), "vp9\nopus");
    assert!(probe("video/Colour bars.mov").contains("h264"));
    assert_eq!(probe("image/Fractal, poster frame.png"), "png");
    assert_eq!(probe("image/Sunset.jpg"), "mjpeg");
    assert_eq!(probe("audio/Pulse.mp3"), "mp3");
    assert_eq!(probe("audio/Chord in A.wav"), "pcm_s16le");
}

#[test]
fn mpv_plays_a_clip_to_its_end() {
    let studio = Studio::sampled();
    studio.mount();
    for clip in ["Sunset in motion.mp4", "Aurora.webm"] {
        let said = studio.sh(&format!(
            "mpv --no-config --ao=null --vo=null --speed=8 --untimed \"$MNT/runway/video/{clip}\""
        ));
        assert!(said.contains("Exiting... (End of file)"), "{said}");
    }
}

#[test]
fn mpv_plays_a_runflow_asset_by_its_extension() {
    let studio = Studio::sampled();
    studio.mount();
    let said = studio.sh(&format!(
        "mpv --no-config --ao=null --vo=null --speed=8 --untimed $MNT/runflow/{UUID}.mp4"
    ));
    assert!(said.contains("Exiting... (End of file)"), "{said}");
}

#[test]
fn gio_shows_and_copies_what_file_managers_would() {
    let studio = Studio::sampled();
    studio.mount();
    let said = studio.sh("gio info $MNT/runway/image/Sunset.jpg");
    assert!(
        said.contains("standard::content-type: image/jpeg"),
        "{said}"
    );
    let size = fs::metadata(studio.at("runway/image/Sunset.jpg"))
        .unwrap()
        .len();
    assert!(said.contains(&format!("standard::size: {size}")), "{said}");
    studio.sh("gio cat $MNT/runway/image/Sunset.jpg | cmp - $MNT/runway/image/Sunset.jpg");
    studio.sh("gio copy $MNT/runway/image/Sunset.jpg $HERE/copy.jpg; cmp copy.jpg $MNT/runway/image/Sunset.jpg");
    assert_eq!(studio.sh("gio list $MNT/runway/image | wc -l"), "3");
}

#[test]
fn nothing_is_downloaded_before_it_is_read() {
    let (studio, _) = with_clip(8 * MIB, &[]);
    studio.sh("ls -lR $MNT; stat $MNT/runway/video/clip.mp4");
    assert_eq!(asset_bytes(&studio), 0);
    studio.sh("head -c 100 $MNT/runway/video/clip.mp4 > start");
    let fetched = asset_bytes(&studio);
    assert!(fetched <= 3 * MIB, "{fetched} bytes for a look at the head");
}

/// The bytes that the asset host sent until nothing was under way any more.
fn asset_bytes_in_the_end(studio: &Studio) -> u64 {
    studio.unmount();
    asset_bytes(studio)
}

#[test]
fn a_look_at_the_first_bytes_pulls_about_a_megabyte_at_most() {
    for look in [
        "head -c 4096",
        "head -c 65536",
        "dd bs=64K count=1 status=none if=",
    ] {
        let (studio, _) = with_clip(64 * MIB, &[]);
        let space = if look.ends_with('=') { "" } else { " " };
        studio.sh(&format!("{look}{space}$MNT/runway/video/clip.mp4 > start"));
        let fetched = asset_bytes_in_the_end(&studio);
        assert!(fetched <= MIB + MIB / 4, "{look}: {fetched} bytes");
    }
}

#[test]
fn random_reads_cost_at_most_twice_their_bytes() {
    let (studio, content) = with_clip(256 * MIB, &[]);
    let clip = File::open(studio.at("runway/video/clip.mp4")).unwrap();
    let mut bytes = vec![0; 64 << 10];
    let reads = 60;
    for n in 1..=reads {
        let offset = n * 1_234_567_891 % (255 * MIB);
        clip.read_exact_at(&mut bytes, offset).unwrap();
        assert!(content.verify(offset, &bytes), "at {offset}");
    }
    drop(clip);
    let fetched = asset_bytes_in_the_end(&studio);
    assert!(fetched <= 2 * reads * (64 << 10) + MIB, "{fetched} bytes");
}

#[test]
fn a_second_reading_asks_nobody() {
    let (studio, content) = with_clip(5 * MIB, &[]);
    studio.sh("cat $MNT/runway/video/clip.mp4 > first");
    studio.services.clear_requests();
    studio.sh("cat $MNT/runway/video/clip.mp4 > second");
    is_whole(&studio, "second", &content);
    assert_eq!(studio.requests(HostKind::Asset), [""; 0]);
}

// ---- URLs that expire ----

#[test]
fn urls_that_expire_while_reading_are_renewed_unseen() {
    let studio = Studio::new();
    let content = Content::synthetic(6 * MIB, 4);
    let add = |name| {
        studio
            .services
            .add_runway(RunwayAsset::named(name, content.clone()))
    };
    add("clip.mp4");
    let ltx = studio
        .services
        .add_ltx(LtxAsset::new("video/mp4", content.clone()));
    let asset = RunflowAsset::new("a.mp4", "video/mp4", content.clone()).with_id(UUID);
    studio.services.add_runflow(asset);
    // No URL is good for more than the answer it stands in.
    studio.services.set_url_lifetime(Duration::ZERO);
    let files = [
        "runway/video/clip.mp4".to_string(),
        format!("ltx/videos/{ltx}.mp4"),
        format!("runflow/{UUID}"),
    ];
    for file in &files {
        studio.sh(&format!("stat $MNT/{file} || true"));
    }
    studio.services.set_url_lifetime(Duration::from_secs(60));
    for file in &files {
        studio.sh(&format!("cp $MNT/{file} copy"));
        is_whole(&studio, "copy", &content);
    }
}

#[test]
fn a_url_that_expires_in_the_middle_of_a_file_is_renewed_unseen() {
    let (studio, content) = with_clip(24 * MIB, &["--cache-size", "8M"]);
    let file = File::open(studio.at("runway/video/clip.mp4")).unwrap();
    let mut start = vec![0; 64 << 10];
    file.read_exact_at(&mut start, 0).unwrap();
    assert!(content.verify(0, &start));
    let refused = asset_host(Effect::status(403)).times(2);
    studio.services.add_fault(refused);
    studio.sh("cp $MNT/runway/video/clip.mp4 copy");
    is_whole(&studio, "copy", &content);
    assert!(studio.services.fault_hits() > 0);
    let renewals = studio.requests(HostKind::Useapi);
    let renewals = renewals.iter().filter(|r| !r.contains("offset="));
    assert!(renewals.count() > 0);
}

// ---- faults on the way ----

/// Copies 6 MiB while `fault` strikes; the copy must be whole and the fault must have struck.
fn unseen(fault: Fault) {
    let (studio, content) = with_clip(6 * MIB + 1, &[]);
    studio.services.add_fault(fault);
    studio.sh("cp $MNT/runway/video/clip.mp4 copy");
    is_whole(&studio, "copy", &content);
    assert!(studio.services.fault_hits() > 0, "the fault struck");
}

#[test]
fn a_rate_limit_is_not_seen_by_the_reader() {
    unseen(asset_host(Effect::retry_after(429, 1)).times(1));
}

#[test]
fn a_503_is_not_seen_by_the_reader() {
    unseen(asset_host(Effect::html(503)).times(2));
}

#[test]
fn a_dropped_connection_is_not_seen_by_the_reader() {
    unseen(asset_host(Effect::DropBeforeAnswer).skip(1).times(2));
}

#[test]
fn a_body_that_is_cut_is_not_seen_by_the_reader() {
    unseen(asset_host(Effect::CutBodyAfter(200_000)).times(3));
}

#[test]
fn an_ignored_range_is_not_seen_by_the_reader() {
    unseen(asset_host(Effect::IgnoreRange));
}

#[test]
fn a_wrong_content_range_is_not_believed() {
    unseen(asset_host(Effect::WrongContentRange).times(1));
}

#[test]
fn chunked_answers_are_read_as_well() {
    unseen(asset_host(Effect::Chunked));
}

#[test]
fn an_error_page_is_never_taken_for_the_asset() {
    let (studio, _) = with_clip(MIB, &["--deadline", "2s"]);
    studio.services.add_fault(asset_host(Effect::html(500)));
    let said = studio.sh_fails("cp $MNT/runway/video/clip.mp4 copy");
    assert!(said.contains("Input/output error"), "{said}");
    assert_eq!(fs::read(studio.here("copy")).unwrap(), b"");
}

#[test]
fn an_asset_that_changed_under_the_reader_is_estale_and_then_the_new_one() {
    let studio = Studio::with(&["--cache-size", "8M"]);
    let old = Content::synthetic(24 * MIB, 1);
    let id = studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", old.clone()));
    let file = File::open(studio.at("runway/video/clip.mp4")).unwrap();
    let mut part = vec![0; 4096];
    file.read_exact_at(&mut part, 0).unwrap();
    assert!(old.verify(0, &part));
    let new = Content::synthetic(24 * MIB, 2);
    assert!(studio.services.replace_content(&id, new.clone()));
    assert_eq!(errno(file.read_exact_at(&mut part, 20 * MIB)), libc::ESTALE);
    drop(file);
    studio.sh("cp $MNT/runway/video/clip.mp4 copy");
    is_whole(&studio, "copy", &new);
}

#[test]
fn who_has_a_clip_open_keeps_its_size_and_bytes_when_the_service_replaces_it() {
    let studio = Studio::with(&["--listing-ttl", "0s"]);
    let (old, new) = (Content::synthetic(MIB, 1), Content::synthetic(MIB / 3, 2));
    let clip = RunwayAsset::named("clip.mp4", old.clone());
    let id = studio.services.add_runway(clip);
    let path = studio.at("runway/video/clip.mp4");
    let file = File::open(&path).unwrap();
    let whole = || {
        let mut bytes = Vec::new();
        (&file).seek(SeekFrom::Start(0)).unwrap();
        (&file).read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert!(old.verify(0, &whole()));
    studio.services.replace_content(&id, new.clone());
    // Its pages are the kernel's now: another program maps the newer ones.
    let mapped = studio.sh("python3 -c 'import mmap, os, sys
f = open(sys.argv[1], \"rb\")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
open(\"mapped\", \"wb\").write(m)
print(len(m), os.fstat(f.fileno()).st_ino)' $MNT/runway/video/clip.mp4");
    is_whole(&studio, "mapped", &new);
    let (length, number) = mapped.trim().split_once(' ').unwrap();
    assert_eq!(length, (MIB / 3).to_string());
    let now = file.metadata().unwrap();
    assert_eq!(now.len(), MIB);
    assert_ne!(number, now.ino().to_string());
    assert!(old.verify(0, &whole()));
    assert_eq!(fs::metadata(&path).unwrap().len(), MIB / 3);
}

#[test]
fn opening_a_clip_that_was_replaced_by_as_many_bytes_reads_the_newer_ones() {
    let studio = Studio::with(&["--listing-ttl", "0s"]);
    let (old, new) = (Content::synthetic(MIB, 1), Content::synthetic(MIB, 2));
    let clip = RunwayAsset::named("clip.mp4", old.clone());
    let id = studio.services.add_runway(clip);
    let file = File::open(studio.at("runway/video/clip.mp4")).unwrap();
    let mut part = vec![0; 4096];
    file.read_exact_at(&mut part, 0).unwrap();
    studio.services.replace_content(&id, new.clone());
    // `cp` looks at the number before and after it opens the file.
    studio.sh("cp $MNT/runway/video/clip.mp4 copy && cat $MNT/runway/video/clip.mp4 > again");
    is_whole(&studio, "copy", &new);
    is_whole(&studio, "again", &new);
    file.read_exact_at(&mut part, 0).unwrap();
    assert!(old.verify(0, &part), "from the older pages");
}

#[test]
fn a_changed_asset_is_read_anew_and_not_from_the_page_cache() {
    let studio = Studio::with(&["--listing-ttl", "0s"]);
    let (old, new) = (Content::synthetic(MIB, 1), Content::synthetic(MIB, 2));
    let id = studio
        .services
        .add_runway(RunwayAsset::named("clip.mp4", old.clone()));
    studio.sh("cp $MNT/runway/video/clip.mp4 old");
    studio.services.replace_content(&id, new.clone());
    studio.sh("cp $MNT/runway/video/clip.mp4 new");
    is_whole(&studio, "old", &old);
    is_whole(&studio, "new", &new);
}

#[test]
fn a_service_that_stays_away_is_eio_by_the_deadline() {
    let (studio, _) = with_clip(MIB, &["--deadline", "2s"]);
    studio.sh("ls $MNT/runway/video");
    studio.services.add_fault(asset_host(Effect::Silent));
    let path = studio.at("runway/video/clip.mp4");
    assert_eq!(errno(fs::read(path)), libc::EIO);
}

// ---- a host that says nothing ----

fn with_silent_host() -> Studio {
    let (studio, _) = with_clip(MIB, &["--deadline", "1h"]);
    studio.sh("ls $MNT/runway/video");
    studio.services.add_fault(asset_host(Effect::Silent));
    studio
}

fn asked(studio: &Studio) {
    until("the asset host is asked", || {
        !studio.requests(HostKind::Asset).is_empty()
    });
}

#[test]
fn a_silent_asset_host_does_not_freeze_the_rest() {
    let studio = with_silent_host();
    let readers: Vec<_> = (0..8)
        .map(|_| studio.spawn("exec cat $MNT/runway/video/clip.mp4"))
        .collect();
    asked(&studio);
    studio.sh("ls -lR $MNT; stat $MNT/runway/video/clip.mp4; df $MNT; ls $MNT/ltx/images");
    for reader in &readers {
        assert!(reader.is_running());
        reader.signal(Signal::KILL);
    }
}

#[test]
fn ctrl_c_ends_a_reader_that_waits() {
    let studio = with_silent_host();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        studio.services.clear_requests();
        let reader = studio.spawn("exec cat $MNT/runway/video/clip.mp4");
        until("it waits in the mount", || reader.waits_for_the_mount());
        reader.signal(signal);
        assert_eq!(reader.ended_by(), Some(signal.as_raw()));
    }
}

#[test]
fn ctrl_c_ends_a_stat_that_waits() {
    let studio = Studio::with(&["--deadline", "1h"]);
    let asset = LtxAsset::new("video/mp4", Content::synthetic(MIB, 1));
    studio.services.add_ltx(asset);
    studio.services.add_fault(asset_host(Effect::Silent));
    let stat = studio.spawn("exec ls -l $MNT/ltx/videos");
    asked(&studio);
    until("it waits in the mount", || stat.waits_for_the_mount());
    stat.signal(Signal::INT);
    assert_eq!(stat.ended_by(), Some(Signal::INT.as_raw()));
}

#[test]
fn an_unmount_ends_readers_that_wait() {
    let studio = with_silent_host();
    let reader = studio.spawn("exec cat $MNT/runway/video/clip.mp4");
    asked(&studio);
    studio.unmount();
    assert!(!reader.output().status.success());
}

/// The services at 10.97.0.1 of a network of its own, in which this machine changes its address, as
/// between two Wi-Fis: what comes on the connections of before leads nowhere, and nobody says so.
#[test]
fn a_change_of_network_is_not_seen_by_the_reader() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let script = "
        set -e
        here=10.97.0.2 next=10.97.0.3
        ip link set lo up
        ip address add 10.97.0.1/32 dev lo
        ip address add $here/32 dev lo
        ip route replace local 10.97.0.1 dev lo src $here table local
        $REELFS emulate --listen 10.97.0.1:7000 --assets 10 --asset-size 6M >&2 &
        services=$!
        trap 'kill $services' EXIT
        export USEAPI_TOKEN=user:1234-emulated REELFS_USEAPI_URL=http://10.97.0.1:7000
        until $REELFS mount --listing-ttl 0s $MNT >&2; do sleep 0.1; done
        cat $MNT/runway/video/clip-00000[1-4].mp4 | wc -c
        ip address add $next/32 dev lo
        ip route replace local 10.97.0.1 dev lo src $next table local
        ip address delete $here/32 dev lo
        ls $MNT/runway/video | wc -l
        cat $MNT/runway/video/clip-00000[5-7].mp4 | wc -c
        $REELFS unmount $MNT";
    fs::write(studio.here("script"), script).unwrap();
    let user = match rustix::process::geteuid().is_root() {
        true => "",
        false => "--map-root-user",
    };
    let printed = studio.sh(&format!(
        "exec unshare --net --mount --propagation private {user} sh script"
    ));
    assert_eq!(printed, "24000000\n10\n18000000");
}

// ---- settings ----

#[test]
fn reading_works_with_the_smallest_cache() {
    let (studio, content) = with_clip(20 * MIB, &["--cache-size", "8M"]);
    studio.sh("cat $MNT/runway/video/clip.mp4 > a & cat $MNT/runway/video/clip.mp4 > b; wait");
    is_whole(&studio, "a", &content);
    is_whole(&studio, "b", &content);
}

#[test]
fn sizes_that_the_api_has_wrong_never_cut_a_file() {
    let studio = Studio::unmounted(EmulatorConfig::default());
    let content = Content::stored(noise(50_000, 1));
    let wrong = serde_json::json!({"fileSize": 49_000});
    let asset = RunwayAsset::named("a.mp4", content.clone()).with_json_patch(wrong);
    studio.services.add_runway(asset);
    studio.mount();
    // The first reader may be told that the file is another; it must never get a part of it.
    let first = fs::read(studio.at("runway/video/a.mp4"));
    assert!(
        first.is_err()
            || first.is_ok_and(|bytes| content.verify(0, &bytes) && bytes.len() == 50_000)
    );
    studio.sh("cp $MNT/runway/video/a.mp4 copy");
    is_whole(&studio, "copy", &content);
}
