//! Which names mean "not finished yet, or not for the library". Pure.

/// Endings that programs give to files they are still writing: browsers, wget, FileZilla, vim.
const UNFINISHED: [&str; 6] = [
    ".part",
    ".partial",
    ".tmp",
    ".crdownload",
    ".filepart",
    ".swp",
];

/// Whether a file of this name stays on this machine: hidden files (rsync's and editors'
/// temporary files, `.DS_Store`, `._*`), backups (`name~`) and unfinished downloads.
pub fn is_local_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with('.')
        || name.ends_with('~')
        || UNFINISHED.iter().any(|ending| lower.ends_with(ending))
}

/// The part after the last dot, empty where there is none.
pub(super) fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Whether a service that was sent `sent` may show it as `shown`: it may drop the extension, trim
/// white space and change the case.
pub fn same_name(sent: &str, shown: &str) -> bool {
    let (sent, shown) = (plain(sent), plain(shown));
    shown == sent
        || sent
            .rsplit_once('.')
            .is_some_and(|(stem, _)| shown == stem.trim())
}

fn plain(name: &str) -> String {
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_stay_local() {
        for name in [
            ".clip.mp4.Ab12Cd",
            ".DS_Store",
            "._clip.mp4",
            "clip.mp4~",
            "clip.mp4.part",
            "clip.mp4.PARTIAL",
            "clip.tmp",
            "clip.mp4.crdownload",
            "clip.filepart",
            "clip.swp",
        ] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["clip.mp4", "part", "a.part.mp4", "tmp", "no dot"] {
            assert!(!is_local_name(name), "{name}");
        }
    }

    #[test]
    fn a_service_may_drop_the_extension_trim_and_change_the_case_but_nothing_else() {
        assert!(same_name("clip.mp4", "clip.mp4"));
        assert!(same_name("clip.mp4", "clip"));
        assert!(same_name(" My Clip.MP4", "my clip.mp4"));
        assert!(same_name("My clip .mp4", "My clip"));
        assert!(!same_name("clip.mp4", "cli"));
        assert!(!same_name("clip.mp4", "clip.mov"));
        assert!(!same_name("clip", "clip.mp4"));
    }
}
