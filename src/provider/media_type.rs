//! Extensions and content types: what can be uploaded where (seed 002's table), and which
//! extension an asset's type asks for. Pure.
//!
//! A table of its own rather than a MIME crate: the upload side must be the page's table to the
//! letter, and the other side needs one natural extension a type (crates list `jfif` or `m1v`
//! first) for the few dozen types that studios make.

use super::Library;

/// The content type to upload a file of this extension with into `library`, or `None` if the
/// service does not take it there. Case does not matter. `webm` and `ogg` differ by library.
///
/// From the table of "Upload asset", useapi.net; `jpg`, `mpg` and, among videos, `ogg` are added
/// as other spellings of what it takes.
pub fn for_upload(library: Library, extension: &str) -> Option<&'static str> {
    let extension = extension.to_ascii_lowercase();
    let content_type = match (library, extension.as_str()) {
        (Library::RunwayImage, "png") => "image/png",
        (Library::RunwayImage, "jpeg" | "jpg") => "image/jpeg",
        (Library::RunwayImage, "gif") => "image/gif",
        (Library::RunwayVideo, "mp4") => "video/mp4",
        (Library::RunwayVideo, "mov") => "video/quicktime",
        (Library::RunwayVideo, "3gp") => "video/3gpp",
        (Library::RunwayVideo, "mkv") => "video/x-matroska",
        (Library::RunwayVideo, "flv") => "video/x-flv",
        (Library::RunwayVideo, "mpeg" | "mpg") => "video/mpeg",
        (Library::RunwayVideo, "ts") => "video/MP2T",
        (Library::RunwayVideo, "avi") => "video/x-msvideo",
        (Library::RunwayVideo, "mjpeg") => "video/x-motion-jpeg",
        (Library::RunwayVideo, "webm") => "video/webm",
        (Library::RunwayVideo, "ogv" | "ogg") => "video/ogg",
        // The page lists audio/wav and audio/wave for wav; the first is the registered spelling.
        (Library::RunwayAudio, "wav") => "audio/wav",
        (Library::RunwayAudio, "mp3") => "audio/mpeg",
        (Library::RunwayAudio, "flac") => "audio/flac",
        (Library::RunwayAudio, "ogg") => "audio/ogg",
        (Library::RunwayAudio, "webm") => "audio/webm",
        _ => return None,
    };
    Some(content_type)
}

/// What [`for_upload`] takes in `library`, for messages; empty where nothing can be uploaded.
pub fn accepted_extensions(library: Library) -> &'static [&'static str] {
    match library {
        Library::RunwayImage => &["png", "jpeg", "jpg", "gif"],
        Library::RunwayVideo => &[
            "mp4", "mov", "3gp", "mkv", "flv", "mpeg", "mpg", "ts", "avi", "mjpeg", "webm", "ogv",
            "ogg",
        ],
        Library::RunwayAudio => &["wav", "mp3", "flac", "ogg", "webm"],
        Library::LtxImages
        | Library::LtxVideos
        | Library::LtxAudio
        | Library::LtxOther
        | Library::Runflow => &[],
    }
}

/// MIME types of one kind, and the extensions that fit them, the natural one first.
type Kind = (&'static [&'static str], &'static [&'static str]);

const KINDS: &[Kind] = &[
    (
        &["image/jpeg", "image/jpg", "image/pjpeg"],
        &["jpg", "jpeg", "jpe", "jfif"],
    ),
    (&["image/png", "image/x-png"], &["png"]),
    (&["image/apng"], &["apng", "png"]),
    (&["image/gif"], &["gif"]),
    (&["image/webp"], &["webp"]),
    (&["image/avif"], &["avif"]),
    (&["image/heic", "image/heif"], &["heic", "heif"]),
    (&["image/tiff"], &["tiff", "tif"]),
    (&["image/bmp", "image/x-ms-bmp"], &["bmp"]),
    (&["image/svg+xml"], &["svg"]),
    (&["image/x-exr", "image/aces"], &["exr"]),
    (&["image/vnd.radiance"], &["hdr"]),
    (
        &["image/vnd.adobe.photoshop", "application/x-photoshop"],
        &["psd"],
    ),
    (&["video/mp4", "application/mp4"], &["mp4", "m4v"]),
    (&["video/x-m4v"], &["m4v", "mp4"]),
    (&["video/quicktime"], &["mov", "qt"]),
    (&["video/webm"], &["webm"]),
    (&["video/x-matroska", "video/matroska"], &["mkv"]),
    (&["video/3gpp"], &["3gp", "3gpp"]),
    (&["video/x-flv"], &["flv"]),
    (&["video/mpeg"], &["mpeg", "mpg"]),
    (&["video/mp2t"], &["ts", "m2ts", "mts"]),
    (&["video/x-msvideo", "video/avi", "video/msvideo"], &["avi"]),
    (&["video/x-motion-jpeg"], &["mjpeg", "mjpg"]),
    (&["video/ogg"], &["ogv", "ogg"]),
    (
        &["audio/wav", "audio/wave", "audio/x-wav", "audio/vnd.wave"],
        &["wav", "wave"],
    ),
    (&["audio/mpeg", "audio/mp3"], &["mp3"]),
    (&["audio/flac", "audio/x-flac"], &["flac"]),
    (&["audio/ogg", "application/ogg"], &["ogg", "oga", "opus"]),
    (&["audio/opus"], &["opus"]),
    (&["audio/webm"], &["webm", "weba"]),
    (&["audio/mp4", "audio/x-m4a", "audio/m4a"], &["m4a", "mp4"]),
    (&["audio/aac", "audio/x-aac"], &["aac"]),
    (&["audio/aiff", "audio/x-aiff"], &["aiff", "aif"]),
    (&["audio/midi", "audio/x-midi"], &["mid", "midi"]),
    (&["application/json", "text/json"], &["json"]),
    (&["application/pdf"], &["pdf"]),
    (
        &["application/zip", "application/x-zip-compressed"],
        &["zip"],
    ),
    (&["application/xml", "text/xml"], &["xml"]),
    (&["application/x-subrip"], &["srt"]),
    (&["text/plain"], &["txt", "text", "log", "md", "srt"]),
    (&["text/html"], &["html", "htm"]),
    (&["text/css"], &["css"]),
    (&["text/csv"], &["csv"]),
    (&["text/markdown"], &["md", "markdown"]),
    (&["text/vtt"], &["vtt"]),
    (
        &["text/javascript", "application/javascript"],
        &["js", "mjs"],
    ),
    (&["model/gltf-binary"], &["glb"]),
    (&["model/gltf+json"], &["gltf"]),
    (&["model/obj"], &["obj"]),
    (&["model/stl"], &["stl"]),
    (&["model/vnd.usdz+zip"], &["usdz"]),
    (&["font/ttf"], &["ttf"]),
    (&["font/otf"], &["otf"]),
];

/// The natural extension of a MIME type, whose parameters and case don't matter; `None` for types
/// that say nothing (`application/octet-stream`) and unknown ones.
pub fn extension_for_mime(mime: &str) -> Option<&'static str> {
    kind_of(mime).and_then(|(_, extensions)| extensions.first().copied())
}

/// Whether a file of this type may carry this extension. A type that isn't known here fits any.
pub fn extensions_fit(mime: &str, extension: &str) -> bool {
    kind_of(mime).is_none_or(|(_, extensions)| holds(extensions, extension))
}

/// Whether two extensions mean the same type: `jpg` and `jpeg`, `MOV` and `qt`.
pub fn same_type(extension_a: &str, extension_b: &str) -> bool {
    extension_a.eq_ignore_ascii_case(extension_b)
        || KINDS
            .iter()
            .any(|(_, extensions)| holds(extensions, extension_a) && holds(extensions, extension_b))
}

fn kind_of(mime: &str) -> Option<&'static Kind> {
    let essence = mime.split(';').next().unwrap_or_default().trim();
    KINDS.iter().find(|(mimes, _)| holds(mimes, essence))
}

fn holds(words: &[&str], word: &str) -> bool {
    words.iter().any(|w| w.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// "Upload asset", useapi.net: content type and extension, as the page lists them.
    const PAGE: [(&str, &str); 20] = [
        ("image/png", "png"),
        ("image/jpeg", "jpeg"),
        ("image/gif", "gif"),
        ("video/mp4", "mp4"),
        ("video/quicktime", "mov"),
        ("video/3gpp", "3gp"),
        ("video/x-matroska", "mkv"),
        ("video/x-flv", "flv"),
        ("video/mpeg", "mpeg"),
        ("video/MP2T", "ts"),
        ("video/x-msvideo", "avi"),
        ("video/x-motion-jpeg", "mjpeg"),
        ("video/webm", "webm"),
        ("video/ogg", "ogv"),
        ("audio/wav", "wav"),
        ("audio/wave", "wav"),
        ("audio/mpeg", "mp3"),
        ("audio/flac", "flac"),
        ("audio/ogg", "ogg"),
        ("audio/webm", "webm"),
    ];

    fn library(content_type: &str) -> Library {
        match content_type.split('/').next() {
            Some("image") => Library::RunwayImage,
            Some("video") => Library::RunwayVideo,
            _ => Library::RunwayAudio,
        }
    }

    #[test]
    fn every_row_of_the_page_can_be_uploaded_with_its_type() {
        for (content_type, extension) in PAGE {
            let ours = for_upload(library(content_type), extension).unwrap();
            if content_type != "audio/wave" {
                assert_eq!(ours, content_type);
            }
        }
    }

    #[test]
    fn nothing_is_sent_with_a_type_that_the_page_lacks() {
        let known: BTreeSet<_> = PAGE.iter().map(|(content_type, _)| *content_type).collect();
        for library in super::super::Service::Runway.libraries() {
            for extension in accepted_extensions(*library) {
                let ours = for_upload(*library, extension).unwrap();
                assert!(known.contains(ours), "{library} {extension} {ours}");
                assert!(extensions_fit(ours, extension), "{ours} {extension}");
            }
        }
    }

    #[test]
    fn webm_and_ogg_differ_by_library_and_case_does_not_matter() {
        assert_eq!(for_upload(Library::RunwayVideo, "WebM"), Some("video/webm"));
        assert_eq!(for_upload(Library::RunwayAudio, "webm"), Some("audio/webm"));
        assert_eq!(for_upload(Library::RunwayVideo, "ogg"), Some("video/ogg"));
        assert_eq!(for_upload(Library::RunwayAudio, "OGG"), Some("audio/ogg"));
        assert_eq!(for_upload(Library::RunwayImage, "JPG"), Some("image/jpeg"));
    }

    #[test]
    fn what_the_service_does_not_take_is_refused() {
        for (library, extension) in [
            (Library::RunwayImage, "webp"),
            (Library::RunwayImage, "mp4"),
            (Library::RunwayVideo, "png"),
            (Library::RunwayAudio, "mp4"),
            (Library::RunwayAudio, ""),
            (Library::LtxImages, "png"),
            (Library::Runflow, "png"),
        ] {
            assert_eq!(
                for_upload(library, extension),
                None,
                "{library} {extension}"
            );
            assert!(!accepted_extensions(library).contains(&extension));
        }
    }

    #[test]
    fn a_type_asks_for_its_natural_extension() {
        for (mime, extension) in [
            ("image/jpeg", "jpg"),
            ("IMAGE/WebP", "webp"),
            ("video/mp4; codecs=\"avc1\"", "mp4"),
            ("audio/x-m4a", "m4a"),
            ("text/plain;charset=utf-8", "txt"),
            ("model/gltf-binary", "glb"),
        ] {
            assert_eq!(extension_for_mime(mime), Some(extension), "{mime}");
        }
        assert_eq!(extension_for_mime("application/octet-stream"), None);
        assert_eq!(extension_for_mime(""), None);
    }

    #[test]
    fn other_spellings_of_a_type_fit_it_and_other_types_do_not() {
        assert!(extensions_fit("image/jpeg", "JPEG") && extensions_fit("text/html", "htm"));
        assert!(extensions_fit("application/octet-stream", "xyz"));
        assert!(!extensions_fit("image/png", "jpg"));
        for (a, b) in [
            ("jpg", "jpeg"),
            ("tif", "TIFF"),
            ("mpg", "mpeg"),
            ("mov", "qt"),
            ("x", "X"),
        ] {
            assert!(same_type(a, b), "{a} {b}");
        }
        assert!(!same_type("mp4", "mov") && !same_type("a", "b"));
    }
}
