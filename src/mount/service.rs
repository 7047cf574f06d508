//! What systemd is told of a mount that it started (`Type=notify`, sd_notify(3)): that the mount
//! answers, a line on what it does, and that it needs time to stop. Where nobody set NOTIFY_SOCKET
//! nothing is sent. A message that can't be sent is a line in the log and no failure of the mount.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often the line on what runs is renewed, and more time is asked for.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// What is asked for each time: five intervals, for a machine that is busy.
const EXTENSION_USEC: u32 = 10_000_000;

/// The service manager that started this process, if one did and wants to know.
pub struct ServiceManager {
    listens: bool,
    /// The line that was sent last.
    line: String,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn of_environment() -> Self {
        Self {
            listens: std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| !name.is_empty()),
            line: String::new(),
        }
    }

    /// For a process that somebody else started: what the environment names waits for another.
    pub fn none() -> Self {
        Self {
            listens: false,
            line: String::new(),
        }
    }

    /// Whether it is worth telling it anything.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// The mount answers.
    pub fn ready(&mut self, line: &str) {
        self.line = line.to_string();
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(line))]);
    }

    /// What runs now; sent only when it is another line than before.
    pub fn status(&mut self, line: &str) {
        if self.line != line {
            self.line = line.to_string();
            self.send(&[NotifyState::Status(&one_line(line))]);
        }
    }

    /// The mount is ending and needs some seconds; to be said again every [`INTERVAL`].
    pub fn stopping(&mut self, line: &str) {
        self.line = line.to_string();
        self.send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(EXTENSION_USEC),
            NotifyState::Status(&one_line(line)),
        ]);
    }

    fn send(&mut self, state: &[NotifyState<'_>]) {
        if !self.listens {
            return;
        }
        if let Err(error) = sd_notify::notify(state) {
            log::warn!("systemd can't be told how the mount is doing: {error}");
            self.listens = false;
        }
    }
}

/// The protocol's messages end at a line break, and a file's name may hold one.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, "_")
}
