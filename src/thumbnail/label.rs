//! What names a thumbnail: the file's URI, and the file's state that it shows. Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// What GLib escapes in a path, to the letter, because the thumbnail's name is a hash of the URI:
/// everything but letters, digits and `!$&'()*+,-./:=@_~`.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub uri: String,
    /// Seconds since 1970.
    pub mtime_s: u64,
    pub size_bytes: u64,
    pub mime_type: Option<String>,
}

impl Label {
    /// Of the file at `path`, which is absolute. `None` for a file from before 1970, whose time a
    /// thumbnail can't have.
    pub fn new(
        path: &Path,
        mtime: SystemTime,
        size_bytes: u64,
        mime_type: Option<String>,
    ) -> Option<Self> {
        Some(Self {
            uri: file_uri(path),
            mtime_s: mtime.duration_since(UNIX_EPOCH).ok()?.as_secs(),
            size_bytes,
            mime_type,
        })
    }

    /// `<md5 of the URI>.png`
    pub fn file_name(&self) -> String {
        let hash = Md5::digest(self.uri.as_bytes());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}.png")
    }
}

fn file_uri(path: &Path) -> String {
    let path = percent_encode(path.as_os_str().as_bytes(), ESCAPED);
    format!("file://{path}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn label(path: &str) -> Label {
        let mtime = UNIX_EPOCH + Duration::from_millis(1_500);
        Label::new(Path::new(path), mtime, 7, None).unwrap()
    }

    #[test]
    fn the_name_is_the_hash_of_the_specifications_example() {
        let label = label("/home/jens/photos/me.png");
        assert_eq!(label.uri, "file:///home/jens/photos/me.png");
        assert_eq!(label.file_name(), "c6ee772d9e49320e97ec29a7eb5b1697.png");
        assert_eq!(label.mtime_s, 1);
    }

    #[test]
    fn a_path_is_escaped_as_glib_does_it() {
        let path = "/a b/!\"#$%&'()*+,-.:;<=>?@[\\]^_`{|}~é\u{7f}.mp4";
        let uri = "file:///a%20b/!%22%23$%25&'()*+,-.:%3B%3C=%3E%3F@%5B%5C%5D%5E_%60%7B%7C%7D~%C3%A9%7F.mp4";
        assert_eq!(label(path).uri, uri);
    }
}
