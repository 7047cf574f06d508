//! The 20 content types that Runway's page "Upload asset" (seed 002) accepts, with their
//! extensions. Pure.

/// A row of the page's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub content_type: &'static str,
    pub extension: &'static str,
}

impl Row {
    /// `image`, `video` or `audio`: Runway's `mediaType`.
    pub fn media_type(self) -> &'static str {
        self.content_type.split('/').next().unwrap_or_default()
    }
}

const fn row(content_type: &'static str, extension: &'static str) -> Row {
    Row {
        content_type,
        extension,
    }
}

pub(super) const MP4: Row = row("video/mp4", "mp4");

pub(super) const TABLE: [Row; 20] = [
    row("image/png", "png"),
    row("image/jpeg", "jpeg"),
    row("image/gif", "gif"),
    MP4,
    row("video/quicktime", "mov"),
    row("video/3gpp", "3gp"),
    row("video/x-matroska", "mkv"),
    row("video/x-flv", "flv"),
    row("video/mpeg", "mpeg"),
    row("video/MP2T", "ts"),
    row("video/x-msvideo", "avi"),
    row("video/x-motion-jpeg", "mjpeg"),
    row("video/webm", "webm"),
    row("video/ogg", "ogv"),
    row("audio/wav", "wav"),
    row("audio/wave", "wav"),
    row("audio/mpeg", "mp3"),
    row("audio/flac", "flac"),
    row("audio/ogg", "ogg"),
    row("audio/webm", "webm"),
];

/// Types compare without case (RFC 9110, section 8.3.1); parameters are not in the table.
pub(super) fn by_content_type(content_type: &str) -> Option<Row> {
    TABLE
        .into_iter()
        .find(|row| row.content_type.eq_ignore_ascii_case(content_type))
}

/// The first row with this extension; `jpg` is `jpeg`.
pub(super) fn by_extension(extension: &str) -> Option<Row> {
    let extension = match extension.to_ascii_lowercase() {
        jpg if jpg == "jpg" => "jpeg".to_string(),
        other => other,
    };
    TABLE.into_iter().find(|row| row.extension == extension)
}
