//! One mount's life: mount, answer, serve, drain, detach.
//!
//! Everything that happens to a mount (it answered, someone asked it to stop, its session ended,
//! its uploads are done) arrives as an [`Event`] on one channel, and one loop decides. So nothing
//! here waits for the network or for the kernel without a limit, and no lock is needed.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{MountOption, Session, SessionACL};

use super::detach;
use super::error::MountError;
use super::mountinfo::{self, DeviceId, SOURCE_NAME};
use super::preflight::MountPoint;
use super::service::{self, ServiceManager};
use super::{Stack, readahead};
use crate::config::Config;

/// Loop threads of fuser. 8 even on two cores: a getattr falls from 52 us with one thread to 17,
/// since a thread is awake already; none of them ever waits for the network.
const LOOP_THREADS: usize = 8;

/// The root's attributes come from memory, so a mount that takes longer is broken.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// For the session's threads to see the detached mount end, and for a drain to report. A mount
/// with open files stays attached to its process until that exits, so this must not be long.
const GRACE: Duration = Duration::from_secs(2);

/// What happens to a mount.
enum Event {
    /// A signal came, or whoever holds a [`Stopper`] asked.
    Stop(&'static str),
    /// The mount point was looked at from outside.
    Answered(io::Result<DeviceId>),
    /// The kernel ended the session: unmounted from outside, or broken.
    Ended(io::Result<()>),
    /// The stack has shut down; these are the names of what remains to be done.
    Drained(Vec<String>),
}

/// The channel of one mount's events.
pub struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    manager: ServiceManager,
}

/// Asks a mount to stop.
#[derive(Clone)]
pub struct Stopper(Sender<Event>);

impl Events {
    pub fn new() -> Self {
        Self::watched_by(ServiceManager::none())
    }

    /// Of a mount that a service manager started.
    pub(super) fn watched_by(manager: ServiceManager) -> Self {
        let (sender, receiver) = channel();
        Self {
            sender,
            receiver,
            manager,
        }
    }

    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Stopper {
    /// The first call lets running uploads finish, the second does not. `why` is for the log.
    pub fn stop(&self, why: &'static str) {
        // An error means that the mount is gone, which is what was asked for.
        let _ = self.0.send(Event::Stop(why));
    }
}

/// Mounts `stack` and serves it until it is unmounted, here or from outside. Calls `ready` once,
/// when the mount answers. Returns when the mount is gone and the stack has shut down (or
/// [`Config::unmount_timeout`] has passed, or two stops came).
pub fn serve<S: Stack>(
    config: &Config,
    point: &MountPoint,
    mut stack: S,
    events: Events,
    ready: impl FnOnce(),
) -> Result<(), MountError> {
    let filesystem = stack.filesystem();
    let session = Session::new(filesystem, point.path(), &session_options(config))
        .map_err(|error| refused(point.path(), &error))?;
    stack.mounted(session.notifier());
    let ended = events.sender.clone();
    spawn("reelfs-session", move || {
        let _ = ended.send(Event::Ended(end_of(session.run())));
    })?;
    let answered = events.sender.clone();
    let path = point.path().to_path_buf();
    spawn("reelfs-answer", move || {
        let _ = answered.send(Event::Answered(look_from_outside(&path)));
    })?;
    let server = Server {
        path: point.path(),
        unmount_timeout: config.unmount_timeout,
        events,
        device: None,
        stops: 0,
        ended: None,
    };
    server.run(Arc::new(stack), ready)
}

fn session_options(config: &Config) -> fuser::Config {
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName(SOURCE_NAME.to_string()),
        MountOption::Subtype(SOURCE_NAME.to_string()),
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
    ];
    if config.read_only {
        options.mount_options.push(MountOption::RO);
    }
    if config.noexec {
        options.mount_options.push(MountOption::NoExec);
    }
    if config.allow_other {
        options.acl = SessionACL::All;
    }
    options.n_threads = Some(LOOP_THREADS);
    options
}

/// How a session ended. That the connection was aborted is what `umount -f` and an unmount while a
/// request was under way look like from here, and no failure of ours.
fn end_of(run: io::Result<()>) -> io::Result<()> {
    match run {
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
        other => other,
    }
}

fn refused(path: &Path, error: &io::Error) -> MountError {
    let path = path.to_path_buf();
    let reason = error.to_string();
    match error.kind() {
        // fuser falls back to fusermount3 where mount(2) is not permitted.
        io::ErrorKind::NotFound => MountError::NoFusermount,
        io::ErrorKind::PermissionDenied if reason.contains("user_allow_other") => {
            MountError::AllowOther
        }
        _ => MountError::Refused {
            path,
            reason: reason.trim().to_string(),
        },
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), MountError> {
    thread::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .map(drop)
        .map_err(|error| MountError::Spawn(error.to_string()))
}

/// Asks for the mount point's attributes from a process of its own, and makes sure that it was our
/// session that answered. Never from this process: a thread that waits for its own process can't be
/// killed, so that after a `kill -9` at that moment the process and the mount would both stay.
fn look_from_outside(path: &Path) -> io::Result<DeviceId> {
    let looked = Command::new("stat")
        .args(["-c", "%d", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run stat: {error}")))?;
    if !looked.status.success() {
        let said = String::from_utf8_lossy(&looked.stderr);
        return Err(io::Error::other(said.trim().to_string()));
    }
    let device = String::from_utf8_lossy(&looked.stdout).trim().parse();
    let device = DeviceId::of(device.map_err(io::Error::other)?);
    match mountinfo::mount_at(path)? {
        Some(mount) if mount.is_reelfs() && mount.device == device => Ok(device),
        _ => Err(io::Error::other("another file system answers there")),
    }
}

/// The loop of [`serve`] and what it knows.
struct Server<'a> {
    path: &'a Path,
    unmount_timeout: Duration,
    events: Events,
    /// Known once the mount answered.
    device: Option<DeviceId>,
    stops: u32,
    ended: Option<io::Result<()>>,
}

impl Server<'_> {
    fn run<S: Stack>(mut self, stack: Arc<S>, ready: impl FnOnce()) -> Result<(), MountError> {
        let answered = self.await_answer();
        match (&answered, self.device) {
            (Ok(()), Some(device)) => {
                readahead::raise(device);
                ready();
                let line = self.line(&*stack);
                self.events.manager.ready(&line);
                self.await_stop(&*stack);
            }
            (Ok(()), None) => {}
            // Uploads of an earlier mount may already run: drain as well.
            (Err(error), _) => log::error!("{error}"),
        }
        let asked = self.stops > 0;
        self.drain(Arc::clone(&stack));
        self.detach();
        drop(stack);
        answered?;
        match self.ended {
            Some(Err(error)) if !asked => Err(MountError::Session {
                path: self.path.to_path_buf(),
                reason: error.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Until the mount answers, or is over before it did.
    fn await_answer(&mut self) -> Result<(), MountError> {
        let mut limit = Instant::now() + ANSWER_LIMIT;
        let mut failure = None;
        while self.stops == 0 && self.ended.is_none() {
            match self.next_before(limit) {
                Some(Event::Answered(Ok(device))) => {
                    self.device = Some(device);
                    return Ok(());
                }
                Some(Event::Answered(Err(error))) => {
                    // Someone may have unmounted it already: then the session's end, which is
                    // no failure, comes right behind.
                    limit = Instant::now() + GRACE;
                    failure = Some(error);
                }
                Some(event) => self.note(event),
                None => return Err(self.no_answer(failure)),
            }
        }
        Ok(())
    }

    fn no_answer(&self, failure: Option<io::Error>) -> MountError {
        let path = self.path.to_path_buf();
        match failure {
            Some(error) => MountError::Session {
                path,
                reason: error.to_string(),
            },
            None => MountError::NoAnswer {
                path,
                waited: ANSWER_LIMIT,
            },
        }
    }

    /// Until someone asks to stop or the session ends.
    fn await_stop<S: Stack>(&mut self, stack: &S) {
        while self.stops == 0 && self.ended.is_none() {
            if self.events.manager.listens() {
                let line = self.line(stack);
                self.events.manager.status(&line);
                if let Some(event) = self.next_before(Instant::now() + service::INTERVAL) {
                    self.note(event);
                }
                continue;
            }
            match self.events.receiver.recv() {
                Ok(event) => self.note(event),
                Err(_) => return,
            }
        }
    }

    /// What the service manager shows.
    fn line<S: Stack>(&self, stack: &S) -> String {
        let (path, activity) = (self.path.display(), stack.activity());
        match activity.is_empty() {
            true => format!("mounted on {path}"),
            false => format!("mounted on {path}; {activity}"),
        }
    }

    /// Lets the stack finish what runs: within the timeout, and not after a second stop.
    fn drain<S: Stack>(&mut self, stack: Arc<S>) {
        let (timeout, drained) = (self.unmount_timeout, self.events.sender.clone());
        let observed = Arc::downgrade(&stack);
        let spawned = spawn("reelfs-drain", move || {
            let remaining = stack.shutdown(timeout);
            // The last to hold it is the caller, who ends after it: what the stack clears up when
            // it goes (the demo's directory) must not race with the end of the process.
            drop(stack);
            let _ = drained.send(Event::Drained(remaining));
        });
        if let Err(error) = spawned {
            log::error!("running uploads are left behind: {error}");
            return;
        }
        let limit = Instant::now() + timeout + GRACE;
        while self.stops < 2 {
            if let Some(stack) = observed.upgrade() {
                let line = format!("finishing: {}", stack.activity());
                self.events.manager.stopping(&line);
            }
            let slice = match self.events.manager.listens() {
                true => limit.min(Instant::now() + service::INTERVAL),
                false => limit,
            };
            match self.next_before(slice) {
                Some(Event::Drained(remaining)) => {
                    for name in remaining {
                        log::warn!("{name} is not uploaded yet; the next mount goes on with it");
                    }
                    return;
                }
                Some(event) => self.note(event),
                None if slice < limit => {}
                None => {
                    log::warn!("gave up waiting for running work; the next mount goes on with it");
                    return;
                }
            }
        }
        log::warn!("stopped without waiting for running uploads; the next mount goes on with them");
    }

    /// Takes the mount out of the tree and gives the session a moment to see it.
    fn detach(&mut self) {
        if self.ended.is_none() {
            let detached = match self.device.or_else(|| look_up(self.path)) {
                Some(device) => detach::detach_ours(self.path, device),
                None => Ok(()),
            };
            if let Err(error) = detached {
                log::error!("{error}");
            }
        }
        let limit = Instant::now() + GRACE;
        while self.ended.is_none() {
            match self.next_before(limit) {
                Some(event) => self.note(event),
                None => {
                    log::warn!("files are still open on {}", self.path.display());
                    return;
                }
            }
        }
        log::info!("unmounted {}", self.path.display());
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Stop(why) => {
                self.stops += 1;
                log::info!("{why}: stopping {}", self.path.display());
            }
            Event::Ended(result) => {
                match &result {
                    Ok(()) => log::info!("{} was unmounted", self.path.display()),
                    Err(error) => log::error!("the session ended: {error}"),
                }
                self.ended = Some(result);
            }
            // Late: the loop has gone on without it.
            Event::Answered(_) | Event::Drained(_) => {}
        }
    }

    fn next_before(&self, limit: Instant) -> Option<Event> {
        let left = limit.saturating_duration_since(Instant::now());
        self.events.receiver.recv_timeout(left).ok()
    }
}

/// Our mount's device where it never answered: what the kernel lists at the path, if it is ours.
fn look_up(path: &Path) -> Option<DeviceId> {
    let mount = mountinfo::mount_at(path).ok()??;
    mount.is_reelfs().then_some(mount.device)
}
