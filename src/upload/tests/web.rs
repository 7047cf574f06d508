//! The whole way to Runway's page: the real provider over the emulator.

use url::Url;

use super::*;
use crate::emulator::{Effect, Emulator, EmulatorConfig, Fault, HostKind};
use crate::http::{ApiClient, ApiToken, Deadlines};
use crate::provider::runway::RunwayProvider;

/// A directory that has listed nothing, so that the service is asked.
struct Blind;

impl UploadEvents for Blind {
    fn uploaded(&self, _: &Arc<StagedFile>, _: &Asset) {}

    fn failed(&self, file: &Arc<StagedFile>, error: &UploadError) {
        panic!("{}: {error}", file.name());
    }

    fn newest_named(&self, _: Library, _: &str) -> Option<Asset> {
        None
    }
}

struct Studio {
    emulator: Emulator,
    clock: Arc<ManualClock>,
    uploads: Uploads,
    _state: tempfile::TempDir,
}

fn studio() -> Studio {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let state = tempfile::TempDir::new().unwrap();
    // Never reached: the uploads' clock flies while the emulator's doesn't, so a request that was
    // given up on a busy machine would be looked for before the emulator had stored it.
    let deadlines = Deadlines {
        connect: PATIENCE,
        stall: PATIENCE,
        total: PATIENCE,
    };
    let api = ApiClient::new(
        Url::parse(&emulator.useapi_url()).unwrap(),
        ApiToken::new(&emulator.useapi_token()).unwrap(),
        deadlines,
        Arc::new(SystemClock),
    )
    .unwrap();
    let clock = Arc::new(ManualClock::at(SystemTime::now()));
    let uploads = Uploads::open(
        UploadConfig::new(state.path()),
        Arc::new(Store::open(state.path()).unwrap()),
        Arc::new(RunwayProvider::new(api, None)),
        Arc::new(Blind),
        clock.clone(),
    )
    .unwrap();
    Studio {
        emulator,
        clock,
        uploads,
        _state: state,
    }
}

impl Studio {
    fn copy_in(&self, library: Library, name: &str, bytes: &[u8]) {
        let file = self.uploads.create(library, name, 7, 0o644).unwrap();
        file.write_at(bytes, 0).unwrap();
        self.uploads.submit(&file, None);
    }

    fn upload_faults(&self, times: u64, effect: Effect) {
        let fault = Fault::at(HostKind::Useapi).method("POST").times(times);
        self.emulator.add_fault(fault.does(effect));
    }

    /// Lets time fly until everything is sent; not further ahead of the emulator's than an hour or two,
    /// even where the machine is busy, or its assets look older than the attempts that made them.
    fn finish(&self) {
        let gives_up = Instant::now() + PATIENCE;
        while !self.uploads.staged().is_empty() {
            assert!(Instant::now() < gives_up, "{:?}", self.uploads.statuses());
            self.clock.advance(Duration::from_millis(50));
            let line = self.uploads.shared.line();
            self.uploads.shared.wake.notify_all();
            drop(line);
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Name, content type and bytes of what the service has.
    fn stored(&self) -> Vec<(String, String, Vec<u8>)> {
        let assets = self.emulator.runway_assets().into_iter();
        let mut stored: Vec<_> = assets
            .map(|asset| {
                let length = asset.content.len();
                let bytes = asset.content.read(0, length).to_vec();
                (asset.name.unwrap(), asset.content_type, bytes)
            })
            .collect();
        stored.sort();
        stored
    }
}

#[test]
fn a_file_arrives_with_its_name_type_and_bytes() {
    let studio = studio();
    let bytes = sample(700_000, 4);
    studio.copy_in(Library::RunwayVideo, "a b&c.webm", &bytes);
    studio.copy_in(Library::RunwayAudio, "é.webm", &bytes);
    studio.copy_in(Library::RunwayImage, "x.JPG", &bytes);
    studio.finish();
    let wanted = [
        ("a b&c.webm", "video/webm"),
        ("x.JPG", "image/jpeg"),
        ("é.webm", "audio/webm"),
    ];
    let stored = studio.stored();
    assert_eq!(stored.len(), wanted.len());
    for ((name, content_type, stored), wanted) in stored.iter().zip(wanted) {
        assert_eq!((name.as_str(), content_type.as_str()), wanted);
        assert!(*stored == bytes, "{name}");
    }
}

#[test]
fn whatever_goes_wrong_with_an_upload_each_file_is_there_once() {
    for effect in [
        Effect::AnswerLostAfterWork,
        Effect::DropBeforeAnswer,
        Effect::DropWhileReceiving(10_000),
        Effect::MalformedJson,
        Effect::WrongTypes,
        Effect::status(500),
        Effect::html(502),
        Effect::status(503),
        Effect::retry_after(429, 1),
        Effect::status(401),
        Effect::status(402),
        Effect::status(408),
    ] {
        let studio = studio();
        studio.upload_faults(1, effect.clone());
        let bytes = sample(50_000, 4);
        studio.copy_in(VIDEO, "clip.mp4", &bytes);
        studio.finish();
        let stored = studio.stored();
        assert_eq!(stored.len(), 1, "{effect:?}");
        assert!(stored[0].2 == bytes, "{effect:?}");
        assert_eq!(studio.emulator.fault_hits(), 1, "{effect:?}");
    }
}

#[test]
fn sixty_files_with_a_fifth_of_all_requests_failing_are_there_once_each() {
    let studio = studio();
    for (seed, effect) in [
        (1, Effect::AnswerLostAfterWork),
        (2, Effect::DropBeforeAnswer),
        (3, Effect::html(502)),
        (4, Effect::MalformedJson),
    ] {
        let fault = Fault::at(HostKind::Useapi).chance(50, seed);
        studio.emulator.add_fault(fault.does(effect));
    }
    let names: Vec<String> = (10..70).map(|n| format!("{n}.mp4")).collect();
    for (name, n) in names.iter().zip(0..) {
        studio.copy_in(VIDEO, name, &sample(5_000, n));
    }
    studio.finish();
    let stored = studio.stored();
    let there: Vec<&String> = stored.iter().map(|(name, ..)| name).collect();
    assert_eq!(there, names.iter().collect::<Vec<_>>());
    for ((.., bytes), n) in stored.iter().zip(0..) {
        assert!(*bytes == sample(5_000, n));
    }
    assert!(studio.emulator.fault_hits() > 0);
}
