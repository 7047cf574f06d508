//! What this machine brings: FUSE, the kernel, the state directory, mounts that are left over.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Finding;
use crate::mount;

/// What a month of ordinary uploads stages at once; below it a copy may be refused.
const LITTLE_SPACE_BYTES: u64 = 1 << 30;
/// The first kernel whose FUSE takes requests of 1 MiB (max_pages); older ones ask for 128 KiB.
const LARGE_REQUESTS: (u32, u32) = (4, 20);

/// The device, and what users other than root need besides.
pub fn fuse(allow_other: bool) -> Vec<Finding> {
    let mut findings = vec![match mount::device() {
        Ok(()) => Finding::ok("/dev/fuse", "it can be opened"),
        Err(error) => from_sentence("/dev/fuse", &error.to_string()),
    }];
    let is_root = rustix::process::geteuid().is_root();
    findings.push(match mount::fusermount() {
        Some(path) => Finding::ok("fusermount3", path.display().to_string()),
        None if is_root => Finding::ok("fusermount3", "it is missing, and root needs none"),
        None => from_sentence("fusermount3", &mount::MountError::NoFusermount.to_string()),
    });
    if allow_other {
        let allowed = is_root || mount::others_may_be_allowed();
        findings.push(match allowed {
            true => Finding::ok("--allow-other", "this user may open mounts to others"),
            false => from_sentence("--allow-other", &mount::MountError::AllowOther.to_string()),
        });
    }
    findings
}

/// A problem in a sentence that has the remedy after the cause.
fn from_sentence(what: &str, sentence: &str) -> Finding {
    let (found, remedy) = sentence.split_once("; ").unwrap_or((sentence, "see above"));
    Finding::problem(what, found, remedy)
}

/// What the running kernel lacks.
pub fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    match version(&release) {
        Some(version) if version < LARGE_REQUESTS => Finding::warning(
            "kernel",
            format!("Linux {release} asks for 128 KiB at a time, so reading is slow"),
            "use Linux 4.20 or newer",
        ),
        _ => Finding::ok("kernel", format!("Linux {release}")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whose the state directory is, who can look into it, and whether there is room.
pub fn state_directory(path: &Path) -> Vec<Finding> {
    const WHAT: &str = "state directory";
    let shown = path.display();
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return vec![not_yet(path)];
        }
        Err(error) => {
            let found = format!("{shown}: {error}");
            return vec![Finding::problem(
                WHAT,
                found,
                "choose another with --state-dir",
            )];
        }
    };
    let me = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != me {
        let found = format!("{shown} is not a directory of this user");
        return vec![Finding::problem(
            WHAT,
            found,
            "choose another with --state-dir",
        )];
    }
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() {
        let remedy = format!("run: chmod u+rwx {shown}");
        return vec![Finding::problem(
            WHAT,
            format!("{shown} can't be written to"),
            remedy,
        )];
    }
    let mut findings = Vec::new();
    if metadata.mode() & 0o077 != 0 {
        findings.push(Finding::warning(
            WHAT,
            format!(
                "others can look into {shown} (mode {:03o})",
                metadata.mode() & 0o777
            ),
            format!("run: chmod 700 {shown}"),
        ));
    }
    findings.push(space(path));
    findings
}

fn not_yet(path: &Path) -> Finding {
    let above = path.ancestors().skip(1).find(|above| above.exists());
    let writable =
        above.is_some_and(|above| rustix::fs::access(above, rustix::fs::Access::WRITE_OK).is_ok());
    let shown = path.display();
    match writable {
        true => Finding::ok(
            "state directory",
            format!("{shown} will be made by the first mount"),
        ),
        false => Finding::problem(
            "state directory",
            format!("{shown} does not exist and can't be made"),
            "choose another with --state-dir",
        ),
    }
}

fn space(path: &Path) -> Finding {
    const WHAT: &str = "state directory";
    let shown = path.display();
    match rustix::fs::statvfs(path) {
        Err(errno) => Finding::warning(
            WHAT,
            format!("the space on the disk of {shown} is unknown: {errno}"),
            "look with df",
        ),
        Ok(disk) => {
            let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
            let free = indicatif::HumanBytes(free_bytes);
            match free_bytes < LITTLE_SPACE_BYTES {
                true => Finding::warning(
                    WHAT,
                    format!(
                        "{free} free on the disk of {shown}, where files wait for their upload"
                    ),
                    "free some space, or choose another disk with --state-dir",
                ),
                false => Finding::ok(WHAT, format!("{shown}, {free} free")),
            }
        }
    }
}

/// Mounts whose process is gone or stands still. The next mount on the same place clears a dead one
/// by itself.
pub fn mounts() -> Vec<Finding> {
    const WHAT: &str = "mounts";
    let asked = match mount::inquire::all() {
        Ok(asked) => asked,
        Err(mount::MountError::NoMounts) => return vec![Finding::ok(WHAT, "none")],
        Err(error) => {
            return vec![Finding::warning(
                WHAT,
                error.to_string(),
                "is /proc mounted?",
            )];
        }
    };
    let count = asked.len();
    let unwell = asked.into_iter().filter_map(|asked| asked.told.err());
    let unwell: Vec<Finding> = unwell
        .filter_map(|error| match error {
            mount::MountError::Dead(_) | mount::MountError::Silent(_) => {
                let sentence = error.to_string();
                let (found, remedy) = sentence.split_once("; ")?;
                Some(Finding::warning(WHAT, found, remedy))
            }
            _ => None,
        })
        .collect();
    match unwell.is_empty() {
        false => unwell,
        true => vec![Finding::ok(WHAT, format!("{count}, none of them dead"))],
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_kernels_version_is_read_from_any_release() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("4.20-rc1"), Some((4, 20)));
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn a_state_directory_that_others_look_into_is_a_warning_with_its_command() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let set = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.path(), mode).unwrap();
        };
        set(0o755);
        let found = state_directory(dir.path());
        assert_eq!(found[0].verdict, Verdict::Warning);
        let remedy = found[0].remedy.clone().unwrap();
        assert_eq!(remedy, format!("run: chmod 700 {}", dir.path().display()));
        set(0o700);
        let found = state_directory(dir.path());
        assert!(
            found.iter().all(|f| !f.found.contains("others")),
            "{found:?}"
        );
        let absent = state_directory(&dir.path().join("a/b"));
        assert_eq!(absent[0].verdict, Verdict::Ok);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(state_directory(&file)[0].verdict, Verdict::Problem);
    }
}
