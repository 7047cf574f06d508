//! What the shell or the service manager that starts a mount limits it to.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Enough for every file that one program may have open, and for the connections.
const WANTED_FILES: u64 = 65_536;

/// Lets the process open as many files as it may, up to [`WANTED_FILES`]: each file that is being
/// written takes one, each connection another, and the usual 1,024 are for programs that select(2).
pub fn allow_open_files() {
    let mut files = getrlimit(Resource::Nofile);
    let most = files.maximum.unwrap_or(WANTED_FILES).min(WANTED_FILES);
    if files.current.is_none_or(|current| current >= most) {
        return;
    }
    files.current = Some(most);
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        log::debug!("the limit of open files stays: {error}");
    }
}
