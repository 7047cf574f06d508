//! What a service says of an asset beyond what the file system works by: for people, not for it.
//! Held for every asset of a listing, so it is kept small.

use std::sync::Arc;

use crate::http::SignedUrl;

/// The longest record kept, in bytes. Records are about 1 KiB. With 3 KiB an asset's attributes
/// together fit the block of 4 KiB that ext4 gives them, so that a copy keeps them, and 10,000
/// records can't take more than 30 MiB.
pub const MAX_RECORD_BYTES: usize = 3 << 10;

/// Every field may be unknown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Details {
    pub favorite: Option<bool>,
    pub duration_s: Option<f64>,
    pub width_px: Option<u64>,
    pub height_px: Option<u64>,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    pub has_audio: Option<bool>,
    /// What made it: Runway's `taskId`, LTX's `jobId`.
    pub task_id: Option<Box<str>>,
    /// A picture of it.
    pub preview: Option<SignedUrl>,
    /// The record as the API gave it, as JSON without its secrets; absent where it is longer than
    /// [`MAX_RECORD_BYTES`].
    pub record: Option<Box<str>>,
}

impl Details {
    /// To be held by an asset; nothing where nothing is known.
    pub(super) fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}
