//! The cache of thumbnails that the programs of a desktop share, by the freedesktop.org
//! specification (Thumbnail Managing Standard 0.9).
//!
//! Promises: a thumbnail appears whole or not at all (written under another name, then renamed), is
//! readable by its owner only, and so are directories that are made here. A folder of another user's
//! is not touched. A valid thumbnail, whoever made it, is never replaced by the caller's looking at
//! [`Folder::is_valid`] first.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use image::RgbaImage;

use super::label::Label;

/// Written as what made the thumbnail.
const SOFTWARE: &str = concat!("reelfs ", env!("CARGO_PKG_VERSION"));

/// The sizes of the specification that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Normal,
    Large,
}

impl Size {
    /// Both.
    pub const ALL: [Size; 2] = [Size::Normal, Size::Large];

    /// The square that a picture fits in, in pixels.
    pub fn side_px(self) -> u32 {
        match self {
            Size::Normal => 128,
            Size::Large => 256,
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Size::Normal => "normal",
            Size::Large => "large",
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `root` (`$XDG_CACHE_HOME/thumbnails`), made where it is absent. Fails where it,
    /// or the directory that it would be made in, belongs to somebody else: a mount by root must not
    /// leave root's files in a user's home.
    pub fn open(root: &Path) -> io::Result<Self> {
        let us = rustix::process::geteuid().as_raw();
        let existing = root.ancestors().find_map(|path| fs::metadata(path).ok());
        let existing = existing.ok_or(io::ErrorKind::NotFound)?;
        if existing.uid() != us {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it belongs to another user",
            ));
        }
        for size in Size::ALL {
            make_private(&root.join(size.directory()))?;
        }
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    fn path(&self, size: Size, label: &Label) -> PathBuf {
        self.root.join(size.directory()).join(label.file_name())
    }

    /// Whether a thumbnail shows the file as it is now: its URI and time, and its size where the
    /// thumbnail has one.
    pub fn is_valid(&self, size: Size, label: &Label) -> bool {
        let Ok(file) = File::open(self.path(size, label)) else {
            return false;
        };
        let Ok(reader) = png::Decoder::new(BufReader::new(file)).read_info() else {
            return false;
        };
        let says = |key: &str| {
            let texts = reader.info().uncompressed_latin1_text.iter();
            let mut texts = texts.filter(|text| text.keyword == key);
            texts.next().map(|text| text.text.as_str())
        };
        let size_bytes = says("Thumb::Size").map(|size| size.parse().ok());
        says("Thumb::URI") == Some(&label.uri)
            && says("Thumb::MTime") == Some(&label.mtime_s.to_string())
            && size_bytes.is_none_or(|size_bytes| size_bytes == Some(label.size_bytes))
    }

    /// Makes the thumbnail, or replaces it.
    pub fn put(&self, size: Size, label: &Label, picture: &RgbaImage) -> io::Result<()> {
        let body = encode(label, picture).map_err(io::Error::other)?;
        let path = self.path(size, label);
        let directory = path.parent().unwrap_or(&self.root);
        // Somebody may have cleared the cache meanwhile.
        make_private(directory)?;
        let mut file = tempfile::Builder::new()
            .prefix(".reelfs-")
            .suffix(".tmp")
            .tempfile_in(directory)?;
        file.write_all(&body)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn encode(label: &Label, picture: &RgbaImage) -> Result<Vec<u8>, png::EncodingError> {
    let mut body = Vec::new();
    let mut encoder = png::Encoder::new(&mut body, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let mut says = |key: &str, text: &str| encoder.add_text_chunk(key.into(), text.into());
    says("Thumb::URI", &label.uri)?;
    says("Thumb::MTime", &label.mtime_s.to_string())?;
    says("Thumb::Size", &label.size_bytes.to_string())?;
    let mime_type = label.mime_type.as_deref();
    if let Some(mime_type) = mime_type.filter(|mime| mime.bytes().all(|b| b.is_ascii_graphic())) {
        says("Thumb::Mimetype", mime_type)?;
    }
    says("Software", SOFTWARE)?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.as_raw())?;
    writer.finish()?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn label(seconds: u64, size_bytes: u64) -> Label {
        let mtime = UNIX_EPOCH + Duration::from_secs(seconds);
        let mime_type = Some("video/mp4".to_string());
        Label::new(Path::new("/m/a b.mp4"), mtime, size_bytes, mime_type).unwrap()
    }

    fn picture() -> RgbaImage {
        RgbaImage::from_pixel(128, 72, image::Rgba([1, 2, 3, 255]))
    }

    #[test]
    fn a_thumbnail_is_valid_for_the_file_as_it_is_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(&home.path().join("cache/thumbnails")).unwrap();
        let now = label(1_000, 7);
        assert!(!folder.is_valid(Size::Normal, &now));
        folder.put(Size::Normal, &now, &picture()).unwrap();
        assert!(folder.is_valid(Size::Normal, &now));
        assert!(!folder.is_valid(Size::Large, &now));
        assert!(!folder.is_valid(Size::Normal, &label(1_001, 7)));
        assert!(!folder.is_valid(Size::Normal, &label(1_000, 8)));
        let mut renamed = now.clone();
        renamed.uri.push('x');
        let path = folder.path(Size::Normal, &renamed);
        fs::copy(folder.path(Size::Normal, &now), path).unwrap();
        assert!(!folder.is_valid(Size::Normal, &renamed), "another file's");
        folder
            .put(Size::Normal, &label(1_001, 7), &picture())
            .unwrap();
        assert!(folder.is_valid(Size::Normal, &label(1_001, 7)));
    }

    #[test]
    fn rubbish_under_its_name_is_no_thumbnail() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(home.path()).unwrap();
        let now = label(1_000, 7);
        for rubbish in [b"".as_slice(), b"\x89PNG\r\n\x1a\n", b"<html>"] {
            fs::write(folder.path(Size::Large, &now), rubbish).unwrap();
            assert!(!folder.is_valid(Size::Large, &now));
        }
        folder.put(Size::Large, &now, &picture()).unwrap();
        assert!(folder.is_valid(Size::Large, &now));
    }

    #[test]
    fn only_the_owner_can_look_and_nothing_else_is_left() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("cache/thumbnails");
        let folder = Folder::open(&root).unwrap();
        let now = label(1_000, 7);
        fs::remove_dir(root.join("large")).unwrap();
        folder.put(Size::Large, &now, &picture()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("large")), 0o700);
        assert_eq!(mode(&folder.path(Size::Large, &now)), 0o600);
        assert_eq!(fs::read_dir(root.join("large")).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_of_another_user_is_not_touched() {
        let home = tempfile::tempdir().unwrap();
        let root_and_above = match rustix::process::geteuid().is_root() {
            true => {
                std::os::unix::fs::chown(home.path(), Some(4321), None).unwrap();
                home.path()
            }
            // Root's, for everybody else.
            false => Path::new("/usr"),
        };
        for below in ["", "absent", "absent/thumbnails"] {
            let refused = Folder::open(&root_and_above.join(below)).map(drop);
            let refused = refused.map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::PermissionDenied), "{below}");
        }
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Folder::open(&file.join("thumbnails")).is_err());
    }
}
