//! From what a service calls an asset to what stands in a directory. Pure.
//!
//! Promises: a name is never empty, `.` or `..`, holds no `/`, NUL or control character, nor one that
//! turns the direction of what follows (`gpj.exe` would show as `exe.jpg`), and is at most 255 bytes, cut at a character before its extension. Within one directory every name stands
//! once: the newest asset of a name keeps it, each older one carries the first eight characters of
//! its id.

use std::collections::{HashMap, HashSet};

use crate::provider::{Asset, media_type};

/// `NAME_MAX` of Linux.
pub const MAX_NAME_BYTES: usize = 255;
/// Longer "extensions" are part of a sentence, not a type.
const MAX_EXTENSION_BYTES: usize = 12;
/// Characters of the id that tell apart assets of one name.
const ID_PREFIX_CHARS: usize = 8;
/// Of an id that shares its prefix; longer ones are cut and counted.
const ID_CHARS: usize = 64;

/// The name that `asset` asks for, before it is made unique in its directory.
pub fn wanted_name(asset: &Asset) -> String {
    let extension = extension_of(asset);
    let raw = asset.name.as_deref().map(safe).unwrap_or_default();
    if raw.chars().all(|c| c == '_' || c == ' ' || c == '.') {
        return with_extension(&safe(asset.id.as_str()), extension.as_deref());
    }
    match extension.as_deref() {
        Some(wanted) if !has_type(&raw, wanted) => with_extension(&raw, Some(wanted)),
        _ => cut(&raw, ""),
    }
}

/// The extension that fits the asset's bytes: the service's own, else the one of its MIME type.
pub fn extension_of(asset: &Asset) -> Option<String> {
    let own = asset
        .extension
        .as_deref()
        .map(|e| e.trim_start_matches('.'));
    own.filter(|e| is_extension(e))
        .map(str::to_ascii_lowercase)
        .or_else(|| {
            let mime = asset.mime_type.as_deref()?;
            media_type::extension_for_mime(mime).map(str::to_string)
        })
}

/// Name and extension of a file name: `("clip", Some("mp4"))`. A leading dot starts no extension.
pub fn split_extension(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && is_extension(extension) => {
            (stem, Some(extension))
        }
        _ => (name, None),
    }
}

/// Makes the names of one directory unique. `wanted` stands in order of precedence (newest first);
/// the answer is in the same order. `id` tells apart those of one name.
pub fn unique_names<'a>(wanted: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<String> {
    let mut taken: HashSet<&str> = HashSet::new();
    let keeps: Vec<bool> = wanted.clone().map(|(name, _)| taken.insert(name)).collect();
    let mut taken: HashSet<String> = taken.into_iter().map(str::to_string).collect();
    // Where counting goes on, or a library of ids that begin alike would take hours.
    let mut counted: HashMap<(&str, String), u64> = HashMap::new();
    wanted
        .zip(keeps)
        .map(|((name, id), keeps)| {
            if keeps {
                return name.to_string();
            }
            let id = safe(id);
            let [short, whole] =
                [ID_PREFIX_CHARS, ID_CHARS].map(|n| id.chars().take(n).collect::<String>());
            let next = counted.entry((name, whole.clone())).or_insert(2);
            let unique = [short, whole.clone()]
                .into_iter()
                .chain((*next..).map(|n| {
                    *next = n + 1;
                    format!("{whole} {n}")
                }))
                .map(|mark| marked(name, &mark))
                .find(|candidate| !taken.contains(candidate))
                .unwrap_or_else(|| name.to_string());
            taken.insert(unique.clone());
            unique
        })
        .collect()
}

/// `clip (1a2b3c4d).mp4`
fn marked(name: &str, mark: &str) -> String {
    let (stem, extension) = split_extension(name);
    let tail = match extension {
        Some(extension) => format!(" ({mark}).{extension}"),
        None => format!(" ({mark})"),
    };
    cut(stem, &tail)
}

fn has_type(name: &str, wanted: &str) -> bool {
    split_extension(name)
        .1
        .is_some_and(|extension| media_type::same_type(&extension.to_ascii_lowercase(), wanted))
}

fn with_extension(stem: &str, extension: Option<&str>) -> String {
    match extension {
        Some(extension) => cut(stem, &format!(".{extension}")),
        None => cut(stem, ""),
    }
}

/// `stem` + `tail` within [`MAX_NAME_BYTES`], the stem cut at a character. A stem's own extension
/// is kept where `tail` is empty.
fn cut(stem: &str, tail: &str) -> String {
    if stem.len() + tail.len() <= MAX_NAME_BYTES {
        return format!("{stem}{tail}");
    }
    if tail.is_empty()
        && let (stem, Some(extension)) = split_extension(stem)
    {
        return cut(stem, &format!(".{extension}"));
    }
    let mut end = MAX_NAME_BYTES.saturating_sub(tail.len()).min(stem.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{tail}", &stem[..end])
}

/// What a directory can't hold, a terminal acts upon, or shows as something else: control characters,
/// line separators, embeddings, overrides and isolates. Marks of direction stay: names in Arabic and
/// Hebrew have them.
fn misleads(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c == '/' || c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Replaces what a directory can't hold, and `.` and `..`.
fn safe(raw: &str) -> String {
    let name: String = raw
        .chars()
        .map(|c| if misleads(c) { '_' } else { c })
        .collect();
    match name.as_str() {
        "." => "_".to_string(),
        ".." => "__".to_string(),
        _ => name,
    }
}

fn is_extension(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_EXTENSION_BYTES
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Library;

    fn asset(name: Option<&str>, extension: Option<&str>) -> Asset {
        Asset {
            name: name.map(str::to_string),
            extension: extension.map(str::to_string),
            ..Asset::bare(Library::RunwayVideo, "7a34b821-9fd0-205e-d21b-4abc6f7839e7")
        }
    }

    #[test]
    fn a_character_that_turns_the_text_or_acts_on_a_terminal_is_replaced() {
        for (name, shown) in [
            ("invoice\u{202e}gpj.mp4", "invoice_gpj.mp4"),
            ("\u{2067}a\u{2069}.mp4", "_a_.mp4"),
            ("a\u{1b}[2J\u{9b}1m.mp4", "a_[2J_1m.mp4"),
            ("a\u{2028}b.mp4", "a_b.mp4"),
            ("\u{200f}שלום.mp4", "\u{200f}שלום.mp4"),
        ] {
            assert_eq!(wanted_name(&asset(Some(name), Some("mp4"))), shown);
        }
    }

    /// Trying each count anew for each name would take minutes for so many.
    #[test]
    fn many_ids_that_begin_alike_are_counted() {
        let ids: Vec<String> = (0..30_000)
            .map(|n| format!("{}{n}", "x".repeat(64)))
            .collect();
        let names = unique_names(ids.iter().map(|id| ("a.mp4", id.as_str())));
        assert_eq!(names[0], "a.mp4");
        assert_eq!(names[1], "a (xxxxxxxx).mp4");
        assert_eq!(names[3], format!("a ({} 2).mp4", "x".repeat(64)));
        let different: HashSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }

    #[test]
    fn a_name_keeps_an_extension_that_fits_and_gains_one_that_does_not() {
        for (name, extension, shown) in [
            ("Race car.jpg", "jpeg", "Race car.jpg"),
            ("Race car.JPG", "jpeg", "Race car.JPG"),
            ("cats.mp4", "mp4", "cats.mp4"),
            ("Gen-3 Alpha 1.5", "mp4", "Gen-3 Alpha 1.5.mp4"),
            ("poster.png", "mp4", "poster.png.mp4"),
            (".hidden", "mp4", ".hidden.mp4"),
            ("no type", ".MP4", "no type.mp4"),
        ] {
            assert_eq!(wanted_name(&asset(Some(name), Some(extension))), shown);
        }
        assert_eq!(wanted_name(&asset(Some("as it is"), None)), "as it is");
    }

    #[test]
    fn an_asset_without_a_usable_name_goes_by_its_id() {
        let id = "7a34b821-9fd0-205e-d21b-4abc6f7839e7";
        for name in [
            None,
            Some(""),
            Some("."),
            Some(".."),
            Some("///"),
            Some("\n"),
        ] {
            assert_eq!(wanted_name(&asset(name, Some("mp4"))), format!("{id}.mp4"));
            assert_eq!(wanted_name(&asset(name, None)), id);
        }
        let mut ltx = asset(None, None);
        ltx.mime_type = Some("image/png".into());
        assert_eq!(wanted_name(&ltx), format!("{id}.png"));
    }

    #[test]
    fn nothing_in_a_name_leads_out_of_its_directory() {
        let hostile = "../../etc/pass\0wd\n\u{7f}\u{85}";
        let shown = wanted_name(&asset(Some(hostile), Some("mp4")));
        assert_eq!(shown, ".._.._etc_pass_wd___.mp4");
    }

    #[test]
    fn a_long_name_is_cut_at_a_character_and_keeps_its_extension() {
        let long = "é".repeat(5_000) + ".mp4";
        let shown = wanted_name(&asset(Some(&long), Some("mp4")));
        assert!(shown.len() <= MAX_NAME_BYTES && shown.len() > 250);
        assert!(shown.ends_with("é.mp4"));
        let shown = wanted_name(&asset(Some(&"x".repeat(10_000)), Some("mp4")));
        assert_eq!(shown.len(), MAX_NAME_BYTES);
        assert!(shown.ends_with("x.mp4"));
    }

    fn unique(wanted: &[(&str, &str)]) -> Vec<String> {
        unique_names(wanted.iter().copied())
    }

    #[test]
    fn the_first_of_a_name_keeps_it_and_the_others_carry_their_id() {
        assert_eq!(
            unique(&[
                ("clip.mp4", "aaaaaaaa-1"),
                ("clip.mp4", "bbbbbbbb-2"),
                ("clip", "cccccccc-3"),
                ("clip", "dddddddd-4"),
            ]),
            ["clip.mp4", "clip (bbbbbbbb).mp4", "clip", "clip (dddddddd)"]
        );
    }

    #[test]
    fn a_mark_that_is_someone_elses_name_is_lengthened() {
        assert_eq!(
            unique(&[
                ("a.mp4", "1"),
                ("a (12345678).mp4", "2"),
                ("a.mp4", "12345678-x"),
                ("a.mp4", "12345678-x"),
            ])[2..],
            ["a (12345678-x).mp4", "a (12345678-x 2).mp4"]
        );
    }

    #[test]
    fn names_of_full_length_are_still_made_unique_within_it() {
        let long = "y".repeat(251) + ".mp4";
        let names = unique(&[(&long, "aaaaaaaa"), (&long, "bbbbbbbb")]);
        assert!(names.iter().all(|name| name.len() == MAX_NAME_BYTES));
        assert_ne!(names[0], names[1]);
        assert!(names[1].ends_with(" (bbbbbbbb).mp4"));
    }
}
