//! From a checked [`Config`] to a running mount, and back.
//!
//! Promise: `reelfs mount` returns 0 only when the mount answers, and fails with one sentence
//! otherwise. SIGTERM, SIGINT, `reelfs unmount`, `umount` and `fusermount3 -u` all end the same
//! way: running uploads finish (at most [`Config::unmount_timeout`]), the mount point is free, the
//! process exits 0. What a crash leaves behind is cleared by the next `mount` or `unmount`.
//!
//! This module knows no web and no assets: it mounts any [`Stack`]. Only [`stack`], which `main`
//! passes in, knows which.

mod claim;
mod daemon;
mod detach;
mod error;
pub mod inquire;
mod limits;
mod mountinfo;
mod preflight;
mod readahead;
pub mod refresh;
mod retry;
mod serve;
mod service;
mod signals;
pub mod stack;
pub mod status;
mod unmount;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use claim::Claim;
pub use daemon::is_child;
pub use detach::{Urgency, fusermount};
pub use error::MountError;
pub use preflight::{MountPoint, check, device, others_may_be_allowed};
pub use retry::retry;
pub use serve::{Events, Stopper, serve};
use service::ServiceManager;
pub use signals::{Hangup, forward};
pub use unmount::unmount;

/// What is mounted.
pub trait Stack: Send + Sync + 'static {
    type Fs: fuser::Filesystem;

    /// The file system; called once, before mounting.
    fn filesystem(&mut self) -> Self::Fs;

    /// Called once when it is mounted, before `ready`; the notifier may be kept.
    fn mounted(&self, notifier: fuser::Notifier);

    /// What runs now, in a few words for who asks how the mount is doing; from memory, at once.
    fn activity(&self) -> String {
        String::new()
    }

    /// Finishes what runs, within `timeout`, and returns the names of what remains. Called once,
    /// while the mount may still be there and being used.
    fn shutdown(&self, timeout: Duration) -> Vec<String>;
}

/// Serves what `build` makes on `mountpoint`, in this process, until it is unmounted. `build` is
/// called with the mount point when nothing stands in the way of the mount.
pub fn run_in_foreground<S: Stack>(
    mountpoint: &Path,
    config: &Config,
    build: impl FnOnce(&Config, &Path) -> anyhow::Result<S>,
) -> anyhow::Result<()> {
    let shown = mountpoint.display();
    serve_here(mountpoint, config, Hangup::Stops, build, || {
        log::info!("mounted on {shown}; Ctrl-C unmounts");
    })
}

/// Serves `mountpoint` in a background process, and returns when the mount answers: the path of
/// that process's log.
pub fn run_in_background(mountpoint: &Path, config: &Config) -> Result<PathBuf, MountError> {
    daemon::launch(mountpoint, &config.state_dir)
}

/// What the background process does, as [`run_in_foreground`] for the rest.
pub fn run_as_child<S: Stack>(
    mountpoint: &Path,
    config: &Config,
    build: impl FnOnce(&Config, &Path) -> anyhow::Result<S>,
) -> anyhow::Result<()> {
    // Resolved against the caller's working directory, before it is left.
    let mountpoint = std::path::absolute(mountpoint)?;
    let mut readiness = Some(daemon::become_background()?);
    let served = serve_here(&mountpoint, config, Hangup::Ignored, build, || {
        log::info!("mounted on {}", mountpoint.display());
        if let Some(readiness) = readiness.take() {
            readiness.ready();
        }
    });
    if let (Err(error), Some(readiness)) = (&served, readiness) {
        readiness.failed(&format!("{error:#}"));
    }
    served
}

fn serve_here<S: Stack>(
    mountpoint: &Path,
    config: &Config,
    hangup: Hangup,
    build: impl FnOnce(&Config, &Path) -> anyhow::Result<S>,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    // In the background, systemd was told by whoever it started, or waits for another program.
    let manager = match hangup {
        Hangup::Stops => ServiceManager::of_environment(),
        Hangup::Ignored => ServiceManager::none(),
    };
    let events = Events::watched_by(manager);
    signals::forward(events.stopper(), hangup)?;
    limits::allow_open_files();
    let point = preflight::check(mountpoint, config)?;
    private_dir(&config.state_dir_for_mount())?;
    let _claim = Claim::take(&config.state_dir, point.path())?;
    let stack = build(config, point.path())?;
    serve(config, &point, stack, events, ready)?;
    Ok(())
}

/// Makes a directory that only its owner can look into, with the parents it needs.
fn private_dir(path: &Path) -> Result<(), MountError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| MountError::StateDir {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })
}
