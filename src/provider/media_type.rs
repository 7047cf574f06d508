//! TEMPORARY: replaced by the web branch.
use super::Library;
pub fn for_upload(library: Library, extension: &str) -> Option<&'static str> {
    match (library, extension) {
        (Library::RunwayVideo, "mp4") => Some("video/mp4"),
        (Library::RunwayImage, "png") => Some("image/png"),
        _ => None,
    }
}
pub fn accepted_extensions(_l: Library) -> &'static [&'static str] {
    &["mp4"]
}
pub fn extension_for_mime(mime: &str) -> Option<&'static str> {
    match mime {
        "video/mp4" => Some("mp4"),
        "image/png" => Some("png"),
        _ => None,
    }
}
pub fn same_type(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (a == "jpg" && b == "jpeg")
}
