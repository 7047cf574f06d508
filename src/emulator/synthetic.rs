//! Libraries of many synthetic assets, for benchmarks.

use std::time::Duration;

use uuid::Uuid;

use super::content::mix;
use super::{Content, Emulator, LtxAsset, RunflowAsset, RunwayAsset};

/// Content type and extension of what each library is filled with.
const RUNWAY: [(&str, &str); 3] = [
    ("video/mp4", "mp4"),
    ("image/png", "png"),
    ("audio/mpeg", "mp3"),
];
const LTX: [&str; 4] = ["image/png", "video/mp4", "audio/mpeg", "application/json"];

impl Emulator {
    /// Puts `count` assets of `size_bytes` into each library: Runway's three, named
    /// `clip-000001.mp4` and so on, LTX's four, and Runflow. A second lies between their creation
    /// times; number 1 is the oldest.
    pub fn add_synthetic(&self, count: u32, size_bytes: u64) {
        let now = self.shared.now();
        for number in 1..=count {
            let created_at = now - Duration::from_secs(u64::from(count - number));
            let content =
                |library: u64| Content::synthetic(size_bytes, library << 32 | u64::from(number));
            for (library, (content_type, extension)) in (0..).zip(RUNWAY) {
                let name = format!("clip-{number:06}.{extension}");
                let asset = RunwayAsset::typed(&name, content_type, content(library));
                self.add_runway(asset.created_at(created_at));
            }
            for (library, mime_type) in (10..).zip(LTX) {
                let asset = LtxAsset::new(mime_type, content(library));
                self.add_ltx(asset.created_at(created_at));
            }
            let name = format!("clip-{number:06}.mp4");
            let asset = RunflowAsset::new(&name, "video/mp4", content(20));
            let id = synthetic_runflow_id(number);
            self.add_runflow(asset.with_id(&id).created_at(created_at));
        }
    }
}

/// The Runflow id of the synthetic asset with this number, the same in every run.
pub fn synthetic_runflow_id(number: u32) -> String {
    let high = mix(u64::from(number));
    Uuid::from_u64_pair(high, mix(high)).to_string()
}
