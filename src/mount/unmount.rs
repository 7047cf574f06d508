//! `reelfs unmount`: detaches the mount, alive or dead, and waits until its process has ended,
//! because running uploads finish after the mount is gone from the tree.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::claim;
use super::detach::{self, Urgency};
use super::error::MountError;
use super::{mountinfo, preflight};

/// Whoever looks at a mount for a moment (a file manager, an indexer, `stat`) makes it busy for
/// that moment; only what lasts longer is worth an error.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// Unmounts what reelfs mounted at `mountpoint`. `explain` is called with one line now and then
/// while uploads are waited for.
pub fn unmount(
    mountpoint: &Path,
    urgency: Urgency,
    state_dir: &Path,
    explain: &mut dyn FnMut(String),
) -> Result<(), MountError> {
    let path = preflight::resolve(mountpoint)?;
    let found = mountinfo::mount_at(&path).map_err(|error| MountError::Unreachable {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    match found {
        None => return Err(MountError::NotMounted(path)),
        Some(mount) if !mount.is_reelfs() => {
            return Err(MountError::NotOurs {
                path,
                source_name: mount.source,
            });
        }
        // Nobody can close a file there; and nothing is lost with who can't answer.
        Some(_) if claim::holder_is_dying(state_dir, &path) => {
            detach::unmount(&path, Urgency::AtOnce)?;
        }
        Some(_) => detach(&path, urgency)?,
    }
    if urgency != Urgency::WhenIdle {
        // While a file is open, the kernel goes on asking its process, which so never learns that
        // it was detached.
        claim::stop_holder(state_dir, &path)?;
    }
    let waited = claim::await_release(state_dir, &path, &mut |pid| {
        explain(format!(
            "waiting for process {pid} to finish its uploads; Ctrl-C leaves it to go on alone"
        ));
    })?;
    if !waited {
        explain(format!(
            "nothing is known of its process in {}: uploads may still run",
            state_dir.display()
        ));
    }
    Ok(())
}

fn detach(path: &Path, urgency: Urgency) -> Result<(), MountError> {
    let limit = Instant::now() + BUSY_PATIENCE;
    loop {
        match detach::unmount(path, urgency) {
            Err(MountError::Busy { .. }) if Instant::now() < limit => thread::sleep(BUSY_RETRY),
            done => return done,
        }
    }
}
