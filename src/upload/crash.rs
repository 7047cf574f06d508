//! Where the tests end the process. Outside the tests nothing happens here.

/// The points between the steps of the protocol in `upload.rs`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The bytes are on the disk, the journal doesn't know.
    Synced,
    /// The journal says that the file is queued.
    Journaled,
    /// The bytes are counted; no attempt is recorded.
    Hashed,
    /// The attempt is recorded; no byte went out.
    AttemptRecorded,
    /// The service's answer is here, and unrecorded.
    Answered,
    /// The journal calls it done; the file lies where it lay.
    Confirmed,
    /// The file is a kept copy; nobody was told.
    Kept,
}

#[cfg(not(test))]
pub(super) fn reached(_: Step) {}

#[cfg(test)]
pub(super) use on::{die_at, reached};

#[cfg(test)]
mod on {
    use super::Step;
    use std::sync::Mutex;

    static DEADLY: Mutex<Option<Step>> = Mutex::new(None);

    /// From now on, a thread that reaches `step` ends the process as `kill -9` would.
    pub(in crate::upload) fn die_at(step: Step) {
        *DEADLY.lock().unwrap() = Some(step);
    }

    pub(in crate::upload) fn reached(step: Step) {
        if *DEADLY.lock().unwrap() == Some(step) {
            kill_this_process();
        }
    }

    fn kill_this_process() {
        let pid = rustix::process::getpid();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
