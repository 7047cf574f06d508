//! Requests that wait. An operation answers through a [`Slot`]; what is not answered at once is
//! parked here with the number of the thread that asked, and ends in one of three ways: the
//! operation answers; the thread is being killed (fuser answers the kernel's INTERRUPT itself with
//! ENOSYS, so we look at the thread's pending signals); or the mount ends. A request whose waiting
//! holds up others brings a lesser answer, which it gets once its patience is over.
//!
//! Promise: each reply is sent exactly once. A later answer to a request that was ended is
//! dropped. Deadlines are the operations' own: every provider call and every read has one.
//!
//! Locks: `parked` and a slot's `reply` are leaves; no reply is sent under either.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use super::process;
use crate::fs::{Done, FsError};

/// How often the waiting threads are looked at: fast enough for a human's Ctrl-C, and at 200
/// waiting threads about 200 x 30 us of /proc reading ten times a second, 6 % of one core.
const TICK: Duration = Duration::from_millis(100);

/// How many looks a patient request waits for its full answer: half a second, which covers a
/// connect and a first byte on a slow link.
const PATIENCE: u32 = 5;

type Reply<T> = Box<dyn FnOnce(Result<T, FsError>) + Send>;

/// Gives an answer that is less than the one waited for, once there is one.
pub type Lesser<T> = Box<dyn Fn() -> Option<T> + Send + Sync>;

struct Slot<T> {
    reply: Mutex<Option<Reply<T>>>,
    lesser: OnceLock<Lesser<T>>,
}

impl<T> Slot<T> {
    /// The reply, for the first who asks.
    fn take(&self) -> Option<Reply<T>> {
        self.reply.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    fn is_answered(&self) -> bool {
        let reply = self.reply.lock().unwrap_or_else(|e| e.into_inner());
        reply.is_none()
    }
}

/// A parked request, whatever it answers with.
trait Waiting: Send + Sync {
    fn is_over(&self) -> bool;
    fn end(&self, error: FsError);
    /// Takes the lesser answer, where there is one.
    fn make_do(&self);
}

impl<T> Waiting for Slot<T> {
    fn is_over(&self) -> bool {
        self.is_answered()
    }

    fn end(&self, error: FsError) {
        if let Some(reply) = self.take() {
            reply(Err(error));
        }
    }

    fn make_do(&self) {
        let lesser = self.lesser.get().and_then(|lesser| lesser());
        if let Some(answer) = lesser
            && let Some(reply) = self.take()
        {
            reply(Ok(answer));
        }
    }
}

struct Parked {
    tid: u32,
    /// How often it was looked at.
    looks: u32,
    request: Arc<dyn Waiting>,
}

/// See the module's head.
pub struct ParkingLot {
    next: AtomicU64,
    parked: Mutex<HashMap<u64, Parked>>,
    /// Signalled when the lot stops being empty, so that an idle mount never wakes up.
    arrived: Condvar,
}

impl ParkingLot {
    /// A lot with its watching thread, which ends with the lot.
    pub fn start() -> std::io::Result<Arc<Self>> {
        let lot = Arc::new(Self {
            next: AtomicU64::new(0),
            parked: Mutex::new(HashMap::new()),
            arrived: Condvar::new(),
        });
        let watched = Arc::downgrade(&lot);
        std::thread::Builder::new()
            .name("parked".to_string())
            .spawn(move || watch(&watched))?;
        Ok(lot)
    }

    /// Runs an operation for the thread `tid` that answers through the closure it is given, and
    /// parks the request if it did not answer at once.
    pub fn run<T: 'static>(
        &self,
        tid: u32,
        reply: impl FnOnce(Result<T, FsError>) + Send + 'static,
        operation: impl FnOnce(Done<T>),
    ) {
        self.run_patiently(tid, reply, || None, operation);
    }

    /// As [`Self::run`], but the request waits for [`PATIENCE`] only if `lesser`, which is called
    /// when it is parked, makes something that has an answer by then.
    pub fn run_patiently<T: 'static>(
        &self,
        tid: u32,
        reply: impl FnOnce(Result<T, FsError>) + Send + 'static,
        lesser: impl FnOnce() -> Option<Lesser<T>>,
        operation: impl FnOnce(Done<T>),
    ) {
        let slot = Arc::new(Slot {
            reply: Mutex::new(Some(Box::new(reply) as Reply<T>)),
            lesser: OnceLock::new(),
        });
        let answering = Arc::clone(&slot);
        operation(Box::new(move |outcome| {
            if let Some(reply) = answering.take() {
                reply(outcome);
            }
        }));
        if !slot.is_answered() {
            if let Some(lesser) = lesser() {
                let _ = slot.lesser.set(lesser);
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let parked = Parked {
                tid,
                looks: 0,
                request: slot,
            };
            self.lock().insert(number, parked);
            self.arrived.notify_one();
        }
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        let parked = self.lock();
        parked.values().filter(|p| !p.request.is_over()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Parked>> {
        self.parked.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Drops what is over, ends what nobody lives to hear, and lets what waited long make do.
    fn sweep(&self, is_being_killed: impl Fn(u32) -> bool) {
        let mut impatient = Vec::new();
        let waiting: Vec<(u64, u32)> = {
            let mut parked = self.lock();
            parked.retain(|_, p| !p.request.is_over());
            for p in parked.values_mut() {
                p.looks += 1;
                if p.looks > PATIENCE {
                    impatient.push(Arc::clone(&p.request));
                }
            }
            parked.iter().map(|(number, p)| (*number, p.tid)).collect()
        };
        for request in impatient {
            request.make_do();
        }
        for (number, tid) in waiting {
            if tid != 0 && is_being_killed(tid) {
                let ended = self.lock().remove(&number);
                if let Some(ended) = ended {
                    ended.request.end(FsError::Interrupted);
                }
            }
        }
    }
}

fn watch(lot: &Weak<ParkingLot>) {
    loop {
        let Some(lot) = lot.upgrade() else {
            return;
        };
        let parked = lot.lock();
        let (parked, _) = lot
            .arrived
            .wait_timeout_while(parked, Duration::from_secs(5), |parked| parked.is_empty())
            .unwrap_or_else(|e| e.into_inner());
        let idle = parked.is_empty();
        drop(parked);
        if idle {
            continue;
        }
        lot.sweep(process::is_being_killed);
        drop(lot);
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    fn lot() -> ParkingLot {
        ParkingLot {
            next: AtomicU64::new(0),
            parked: Mutex::new(HashMap::new()),
            arrived: Condvar::new(),
        }
    }

    #[test]
    fn an_answer_at_once_parks_nothing() {
        let lot = lot();
        let (send, receive) = mpsc::channel();
        let reply = move |outcome| send.send(outcome).unwrap();
        lot.run(1, reply, |done| done(Ok(7)));
        assert_eq!(receive.recv().unwrap(), Ok(7));
        assert_eq!(lot.waiting(), 0);
    }

    #[test]
    fn a_killed_thread_is_let_go_and_the_late_answer_is_dropped() {
        let lot = lot();
        let (send, receive) = mpsc::channel();
        let mut late = None;
        let reply = move |outcome: Result<u32, FsError>| send.send(outcome).unwrap();
        lot.run(42, reply, |done| late = Some(done));
        lot.sweep(|_| false);
        assert_eq!(lot.waiting(), 1);
        lot.sweep(|tid| tid == 42);
        assert_eq!(receive.recv().unwrap(), Err(FsError::Interrupted));
        late.unwrap()(Ok(1));
        assert!(receive.recv().is_err(), "one reply and no more");
    }

    #[test]
    fn a_patient_request_makes_do_with_less_once_there_is_some() {
        let lot = lot();
        let (send, receive) = mpsc::channel();
        let mut late = None;
        let there_is_some = Arc::new(AtomicBool::new(false));
        let some = Arc::clone(&there_is_some);
        lot.run_patiently(
            1,
            move |outcome: Result<u32, FsError>| send.send(outcome).unwrap(),
            || Some(Box::new(move || some.load(Ordering::Relaxed).then_some(2))),
            |done| late = Some(done),
        );
        for _ in 0..=PATIENCE {
            lot.sweep(|_| false);
        }
        assert!(receive.try_recv().is_err(), "there is no answer yet");
        there_is_some.store(true, Ordering::Relaxed);
        lot.sweep(|_| false);
        assert_eq!(receive.recv().unwrap(), Ok(2));
        late.unwrap()(Ok(1));
        assert!(receive.recv().is_err(), "one reply and no more");
    }

    #[test]
    fn nothing_lesser_is_taken_before_patience_is_over() {
        let lot = lot();
        let (send, receive) = mpsc::channel();
        let mut late = None;
        lot.run_patiently(
            1,
            move |outcome: Result<u32, FsError>| send.send(outcome).unwrap(),
            || Some(Box::new(|| Some(2))),
            |done| late = Some(done),
        );
        for _ in 0..PATIENCE {
            lot.sweep(|_| false);
        }
        late.unwrap()(Ok(1));
        assert_eq!(receive.recv().unwrap(), Ok(1));
    }

    #[test]
    fn an_answered_request_leaves_the_lot() {
        let lot = lot();
        let (send, receive) = mpsc::channel();
        let mut later = None;
        let reply = move |outcome: Result<u32, FsError>| send.send(outcome).unwrap();
        lot.run(42, reply, |done| later = Some(done));
        later.unwrap()(Ok(3));
        assert_eq!(receive.recv().unwrap(), Ok(3));
        lot.sweep(|_| true);
        assert_eq!(lot.waiting(), 0);
        assert!(receive.recv().is_err());
    }
}
