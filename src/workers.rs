//! A small pool of threads for calls that block on the network or on disk copies.
//!
//! Promise: `run` never blocks and never runs the job on the caller's thread, so a FUSE loop
//! thread may call it. Jobs start in the order given; at most `threads` run at once; threads are
//! made when first needed. A job that panics takes neither the pool nor its thread with it.
//! Dropping the pool lets queued jobs finish but does not wait for them; its threads end with them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(30);

/// See the module's head.
pub struct Workers {
    shared: Arc<Shared>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

struct Shared {
    name: &'static str,
    limit: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Nothing more will come.
    closed: bool,
}

impl Workers {
    /// A pool of at most `threads` threads (at least one) that carry `name`.
    pub fn new(name: &'static str, threads: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                limit: threads.max(1),
                state: Mutex::new(State::default()),
                wake: Condvar::new(),
            }),
        }
    }

    /// Queues `job` and returns at once.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        state.queue.push_back(Box::new(job));
        if state.idle >= state.queue.len() || state.threads >= self.shared.limit {
            self.shared.wake.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new()
            .name(self.shared.name.to_string())
            .spawn(move || shared.work());
        match spawned {
            Ok(_) => state.threads += 1,
            Err(error) => log::error!("cannot start a {} thread: {error}", self.shared.name),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("a {} job panicked", self.name);
                }
                state = self.lock();
                continue;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            let (next, timeout) = self
                .wake
                .wait_timeout(state, IDLE)
                .unwrap_or_else(|e| e.into_inner());
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_on_other_threads_and_a_panic_does_not_stop_the_pool() {
        let pool = Workers::new("test", 1);
        let (send, receive) = mpsc::channel();
        pool.run(|| panic!("on purpose"));
        let caller = thread::current().id();
        pool.run(move || send.send(thread::current().id() != caller).unwrap());
        assert!(receive.recv_timeout(Duration::from_secs(5)).unwrap());
    }

    #[test]
    fn no_more_jobs_run_at_once_than_the_limit() {
        let pool = Workers::new("test", 2);
        let (started, count) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..3 {
            let (started, gate) = (started.clone(), Arc::clone(&gate));
            pool.run(move || {
                started.send(()).unwrap();
                let _ = gate.lock().unwrap().recv();
            });
        }
        count.recv_timeout(Duration::from_secs(5)).unwrap();
        count.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(count.recv_timeout(Duration::from_millis(100)).is_err());
        release.send(()).unwrap();
        count.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(release);
    }

    #[test]
    fn threads_end_with_the_pool_and_finish_what_is_queued() {
        let pool = Workers::new("test", 1);
        let shared = Arc::clone(&pool.shared);
        let (done, outcome) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        pool.run(move || {
            let _ = gate.recv();
        });
        pool.run(move || done.send(()).unwrap());
        drop(pool);
        drop(release);
        outcome.recv_timeout(Duration::from_secs(5)).unwrap();
        let limit = std::time::Instant::now() + IDLE / 2;
        while shared.lock().threads > 0 {
            assert!(std::time::Instant::now() < limit, "a thread stays");
            thread::yield_now();
        }
    }
}
