//! The log of this process, kept to be looked at.

use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Kept;

impl Log for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        target.starts_with("reelfs") && !target.starts_with("reelfs::emulator")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = (record.level(), record.args().to_string());
            LINES.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

/// Keeps the lines of this process from now on.
pub fn keep() {
    static LOGGER: Kept = Kept;
    log::set_logger(&LOGGER).expect("the only logger");
    log::set_max_level(LevelFilter::Debug);
}

/// What was logged since the last call.
pub fn take() -> Vec<(Level, String)> {
    std::mem::take(&mut *LINES.lock().unwrap())
}
