//! The kernel's own list of mounts, `/proc/self/mountinfo` (proc_pid_mountinfo(5)). It is read
//! without touching any mount, so it tells of dead ones too.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What our mounts are called in the list.
pub const SOURCE_NAME: &str = "reelfs";

/// The major and minor number of a mounted file system; no two live mounts share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceId {
    pub major: u32,
    pub minor: u32,
}

impl DeviceId {
    /// From `st_dev`.
    pub fn of(st_dev: u64) -> Self {
        Self {
            major: rustix::fs::major(st_dev),
            minor: rustix::fs::minor(st_dev),
        }
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub device: DeviceId,
    pub mount_point: PathBuf,
    pub fs_type: String,
    pub source: String,
    /// Of a FUSE mount: who mounted it.
    pub user_id: Option<u32>,
}

impl Mount {
    pub fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type.starts_with("fuse.")
    }

    /// mount(2) as root gives the type `fuse`, fusermount3 gives `fuse.reelfs`; both the source.
    pub fn is_reelfs(&self) -> bool {
        self.is_fuse() && self.source == SOURCE_NAME
    }
}

/// The mount that is on top at `path`, which must be absolute and without symbolic links.
pub fn mount_at(path: &Path) -> io::Result<Option<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(topmost(&text, path))
}

/// Every mount, in the kernel's order.
pub fn all_mounts() -> io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let mounts = text.split(|&b| b == b'\n').filter_map(parse_line);
    Ok(mounts.collect())
}

/// The mount that the file system with this number is.
pub fn mount_of(device: DeviceId) -> io::Result<Option<Mount>> {
    let mounts = all_mounts()?;
    Ok(mounts.into_iter().find(|mount| mount.device == device))
}

/// Later lines lie on top of earlier ones.
fn topmost(text: &[u8], path: &Path) -> Option<Mount> {
    text.split(|&b| b == b'\n')
        .filter_map(parse_line)
        .rfind(|mount| mount.mount_point == path)
}

/// `36 35 98:0 /root /mount/point opts [optional ...] - type source super-opts`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ').filter(|f| !f.is_empty());
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let mount_point = PathBuf::from(unescape(fields.nth(1)?));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |bytes: &[u8]| unescape(bytes).to_string_lossy().into_owned();
    let (fs_type, source) = (text(rest.next()?), text(rest.next()?));
    let options = text(rest.next().unwrap_or_default());
    Some(Mount {
        device: DeviceId {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        mount_point,
        fs_type,
        source,
        user_id: options
            .split(',')
            .find_map(|option| option.strip_prefix("user_id="))
            .and_then(|id| id.parse().ok()),
    })
}

/// Undoes the kernel's `\040` for space, tab, line break and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match tail {
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] if byte == b'\\' => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:50 / /mnt/my\\040films rw,nosuid,nodev shared:7 master:2 - fuse.reelfs reelfs rw,user_id=1000,group_id=1000
91 22 0:51 / /mnt/a ro,nosuid - fuse reelfs ro,user_id=0,group_id=0
92 22 0:52 / /mnt/a rw - fuse.sshfs me@host:/ rw,user_id=1000
93 22 garbage
";

    fn at(path: &str) -> Option<Mount> {
        topmost(LIST, Path::new(path))
    }

    #[test]
    fn a_mount_is_found_by_its_unescaped_path_past_optional_fields() {
        let mount = at("/mnt/my films").unwrap();
        assert!(mount.is_reelfs());
        assert_eq!(mount.user_id, Some(1000));
        assert_eq!(
            mount.device,
            DeviceId {
                major: 0,
                minor: 50
            }
        );
    }

    #[test]
    fn the_topmost_of_stacked_mounts_counts() {
        let mount = at("/mnt/a").unwrap();
        assert!(mount.is_fuse() && !mount.is_reelfs(), "{mount:?}");
    }

    #[test]
    fn a_path_below_a_mount_is_not_a_mount() {
        assert_eq!(at("/mnt/a/b"), None);
        assert!(!at("/").unwrap().is_fuse());
    }

    #[test]
    fn the_running_machine_has_a_root() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
    }
}
