//! Signals become stops. The thread that turns them lives as long as the process.

use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::error::MountError;
use super::serve::Stopper;

/// What a closed terminal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// In the foreground: stop.
    Stops,
    /// In the background there is no terminal: nothing.
    Ignored,
}

/// From now on SIGTERM and SIGINT (and SIGHUP, as `hangup` says) call `stopper`. SIGXFSZ ends nothing any
/// more: a file that grows beyond `ulimit -f` is an error of who writes it.
pub fn forward(stopper: Stopper, hangup: Hangup) -> Result<(), MountError> {
    let failed = |error: std::io::Error| MountError::Signals(error.to_string());
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGXFSZ]).map_err(failed)?;
    thread::Builder::new()
        .name("reelfs-signals".to_string())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGTERM => stopper.stop("SIGTERM"),
                    SIGINT => stopper.stop("SIGINT"),
                    SIGXFSZ => log::debug!("a file has reached the limit of its size"),
                    _ if hangup == Hangup::Stops => stopper.stop("SIGHUP"),
                    _ => log::debug!("SIGHUP ignored"),
                }
            }
        })
        .map(drop)
        .map_err(failed)
}
