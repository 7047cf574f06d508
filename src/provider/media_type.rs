//! Extensions and content types: what can be uploaded where (seed 002's table), and which
//! extension an asset's type asks for. Pure.

use super::Library;

/// The content type to upload a file of this extension with into `library`, or `None` if the
/// service does not take it there. Case does not matter. `webm` and `ogg` differ by library.
pub fn for_upload(library: Library, extension: &str) -> Option<&'static str> {
    let _ = (library, extension);
    None
}
