//! Sample media, made for the project by `scripts/make-media`, and a library of them for the
//! demo: natural names, and the odd ones a real library has.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::{Content, Emulator, EmulatorConfig, LtxAsset, RunflowAsset, RunwayAsset};

/// A media file built into the program.
#[derive(Debug, Clone, Copy)]
pub struct SampleFile {
    /// As in `src/emulator/media`.
    pub name: &'static str,
    pub mime_type: &'static str,
    pub bytes: &'static [u8],
    /// A picture of it, as the services have one: its type and its bytes.
    pub poster: (&'static str, &'static [u8]),
}

impl SampleFile {
    pub fn content(&self) -> Content {
        Content::stored(Bytes::from_static(self.bytes))
    }

    fn preview(&self) -> Content {
        Content::stored(Bytes::from_static(self.poster.1))
    }
}

macro_rules! sample {
    ($constant:ident, $name:literal, $mime_type:literal, $poster:literal, $poster_type:literal) => {
        /// A file of the sample library.
        pub const $constant: SampleFile = SampleFile {
            name: $name,
            mime_type: $mime_type,
            bytes: include_bytes!(concat!("media/", $name)),
            poster: ($poster_type, include_bytes!(concat!("media/", $poster))),
        };
    };
}

// H.264 and AAC, its index at the front.
sample!(
    FRACTAL_MP4,
    "fractal.mp4",
    "video/mp4",
    "poster-fractal.webp",
    "image/webp"
);
// H.264 and AAC, its index at the end.
sample!(
    SUNSET_MP4,
    "sunset.mp4",
    "video/mp4",
    "poster-sunset.jpg",
    "image/jpeg"
);
sample!(
    COLOUR_BARS_MOV,
    "colour-bars.mov",
    "video/quicktime",
    "poster-colour-bars.webp",
    "image/webp"
);
// VP9 and Opus.
sample!(
    AURORA_WEBM,
    "aurora.webm",
    "video/webm",
    "poster-aurora.webp",
    "image/webp"
);
sample!(
    FRACTAL_PNG,
    "fractal.png",
    "image/png",
    "poster-fractal.webp",
    "image/webp"
);
sample!(
    SUNSET_JPG,
    "sunset.jpg",
    "image/jpeg",
    "poster-sunset.jpg",
    "image/jpeg"
);
sample!(
    LIFE_GIF,
    "life.gif",
    "image/gif",
    "poster-life.png",
    "image/png"
);
sample!(
    CHORD_WAV,
    "chord.wav",
    "audio/wav",
    "poster-chord.webp",
    "image/webp"
);
sample!(
    PULSE_MP3,
    "pulse.mp3",
    "audio/mpeg",
    "poster-pulse.webp",
    "image/webp"
);

/// All of them.
pub const SAMPLE_FILES: [SampleFile; 9] = [
    FRACTAL_MP4,
    SUNSET_MP4,
    COLOUR_BARS_MOV,
    AURORA_WEBM,
    FRACTAL_PNG,
    SUNSET_JPG,
    LIFE_GIF,
    CHORD_WAV,
    PULSE_MP3,
];

/// The ids of the demo's assets at Runflow: a video, a picture and a sound.
pub const SAMPLE_RUNFLOW_IDS: [&str; 3] = [
    "3c90c3cc-0d44-4b50-8888-8dd25736052a",
    "0b9d1f5e-7a64-4c1b-9a53-5a8f0c6f2d11",
    "f2a4c8d0-1b3e-4f5a-8c7d-9e0f1a2b3c4d",
];

impl Emulator {
    /// Starts with the demo's library: every kind of media in Runway, LTX and Runflow.
    pub fn with_sample_library(config: EmulatorConfig) -> io::Result<Self> {
        let emulator = Self::start(config)?;
        emulator.fill_runway();
        emulator.fill_ltx();
        emulator.fill_runflow();
        Ok(emulator)
    }

    fn fill_runway(&self) {
        let now = self.shared.now();
        let named = |name: &str, file: SampleFile| {
            RunwayAsset::typed(name, file.mime_type, file.content())
                .with_preview(file.poster.0, file.preview())
        };
        // Newest first, an hour between them.
        let assets = [
            named(
                "Gen-3 Alpha 35801490234, deep into a fractal.mp4",
                FRACTAL_MP4,
            ),
            named("Sunset in motion.mp4", SUNSET_MP4),
            // Two takes of one name.
            named("Aurora.webm", AURORA_WEBM),
            named("Aurora.webm", AURORA_WEBM),
            // No extension.
            named("Colour bars", COLOUR_BARS_MOV),
            // A name that no file can have.
            named("Takes/Scene 1: sunset, slow.mp4", SUNSET_MP4).with_older_metadata(),
            // `fileExtStandardized` is `jpeg`.
            named("Sunset.jpg", SUNSET_JPG),
            named("Fractal, poster frame.png", FRACTAL_PNG),
            named("Life.gif", LIFE_GIF),
            named("Chord in A.wav", CHORD_WAV),
            named("Pulse.mp3", PULSE_MP3),
            named("", PULSE_MP3).without_name(),
        ];
        for (hours, asset) in (1..).zip(assets) {
            let before = Duration::from_millis(hours * 3_600_000 + 123);
            self.add_runway(asset.created_at(now - before));
        }
    }

    fn fill_ltx(&self) {
        let files = SAMPLE_FILES.iter();
        for file in files {
            let asset = LtxAsset::new(file.mime_type, file.content());
            self.add_ltx(asset.with_preview(file.poster.0, file.preview()));
        }
        let notes = json!({"scenes": [{"title": "Sunset", "seconds": 6}]}).to_string();
        self.add_ltx(LtxAsset::new("application/json", Content::stored(notes)));
    }

    fn fill_runflow(&self) {
        let files = [
            ("Sunset.mp4", SUNSET_MP4),
            ("Fractal.png", FRACTAL_PNG),
            ("Pulse.mp3", PULSE_MP3),
        ];
        for (id, (name, file)) in SAMPLE_RUNFLOW_IDS.iter().zip(files) {
            let asset = RunflowAsset::new(name, file.mime_type, file.content()).with_id(id);
            self.add_runflow(asset.with_preview(file.poster.0, file.preview()));
        }
    }
}
