//! Raises the kernel's read-ahead for a mount, which FUSE itself can only lower.

use std::path::PathBuf;

use super::mountinfo::DeviceId;

/// 4 MiB = 4 requests of the largest size, 1 MiB, on their way at once. With 2 ms a read one
/// reader got 112 MiB/s at the kernel's 128 KiB, 720 at 1 MiB (one request, then the next) and
/// 1,650 to 1,900 at 4 MiB. 16 MiB gave 2,400, but a player that seeks throws away up to the
/// whole window, and 8 readers would fill the default cache of 128 MiB with it.
const READ_AHEAD_KIB: u32 = 4 * 1024;

/// Best effort: it takes root. Without it the reader's own read-ahead does the work.
pub fn raise(device: DeviceId) {
    let path = PathBuf::from(format!(
        "/sys/class/bdi/{}:{}/read_ahead_kb",
        device.major, device.minor
    ));
    match std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        Ok(()) => log::debug!("kernel read-ahead: {READ_AHEAD_KIB} KiB"),
        Err(error) => log::debug!("kernel read-ahead stays as it is: {error}"),
    }
}
