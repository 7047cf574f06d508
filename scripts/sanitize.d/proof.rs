//! What a sanitizer must say of threads and memory, so that its silence about reelfs means something:
//! `proof NAME` does one thing. ThreadSanitizer must report what begins with `race`, AddressSanitizer what
//! begins with `memory`, and nothing else may be reported.
//!
//! The right ones wait for each other in every way that reelfs and its libraries use, often enough to
//! take the slow paths too; the wrong ones leave out one thing each.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::Duration;

const THREADS: u64 = 4;
const ROUNDS: u64 = 5_000;

/// A number that any thread may write without being told not to.
#[derive(Default)]
struct Bare(UnsafeCell<u64>);

unsafe impl Sync for Bare {}

impl Bare {
    fn add(&self) {
        unsafe { *self.0.get() += 1 }
    }

    fn get(&self) -> u64 {
        unsafe { *self.0.get() }
    }
}

/// Runs `act` on each of the threads, over one `T`.
fn all<T: Default + Send + Sync + 'static>(act: impl Fn(&T, u64) + Send + Sync + Copy + 'static) {
    let shared = Arc::new(T::default());
    let threads: Vec<_> = (0..THREADS)
        .map(|me| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || act(&shared, me))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

fn channel(
    send: impl Fn(Box<u64>) + Send + Sync + 'static,
    receive: impl Fn() -> Option<Box<u64>>,
) {
    let send = Arc::new(send);
    for me in 0..THREADS {
        let send = Arc::clone(&send);
        thread::spawn(move || (0..ROUNDS / 10).for_each(|n| send(Box::new(n * me))));
    }
    drop(send);
    let mut sum = 0;
    while let Some(n) = receive() {
        sum += *n;
    }
    black_box(sum);
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("mutex") => all::<(Mutex<()>, Bare)>(|(mutex, bare), _| {
            for _ in 0..ROUNDS {
                let _guard = mutex.lock().unwrap();
                bare.add();
            }
        }),
        Some("rwlock") => all::<(RwLock<()>, Bare)>(|(lock, bare), me| {
            for round in 0..ROUNDS {
                if (round + me) % 3 == 0 {
                    let _guard = lock.write().unwrap();
                    bare.add();
                } else {
                    let _guard = lock.read().unwrap();
                    black_box(bare.get());
                }
            }
        }),
        Some("condvar") => all::<(Mutex<u64>, Condvar, Bare)>(|(mutex, turn, bare), me| {
            for round in 0..ROUNDS / 10 {
                let mut whose = mutex.lock().unwrap();
                while *whose % THREADS != me {
                    whose = match round % 2 {
                        0 => turn.wait(whose).unwrap(),
                        _ => turn.wait_timeout(whose, Duration::from_secs(60)).unwrap().0,
                    };
                }
                bare.add();
                *whose += 1;
                turn.notify_all();
            }
        }),
        Some("once") => {
            for _ in 0..ROUNDS / 20 {
                all::<OnceLock<Vec<u64>>>(|once, me| {
                    black_box(once.get_or_init(|| vec![me; 9]).iter().sum::<u64>());
                });
            }
        }
        Some("arc") => {
            for _ in 0..ROUNDS / 10 {
                let bare = Arc::new(Box::new(Bare::default()));
                let other = Arc::clone(&bare);
                let thread = thread::spawn(move || black_box(other.get()));
                black_box(bare.get());
                drop(bare);
                thread.join().unwrap();
            }
        }
        Some("scope") => {
            for _ in 0..ROUNDS / 20 {
                let mut numbers = [0; THREADS as usize];
                thread::scope(|scope| {
                    for number in &mut numbers {
                        scope.spawn(|| *number += 1);
                    }
                });
                assert_eq!(numbers, [1; THREADS as usize]);
            }
        }
        Some("mpsc") => {
            let (send, receive) = mpsc::channel();
            channel(move |n| send.send(n).unwrap(), || receive.recv().ok());
        }
        Some("sync_channel") => {
            for bound in [0, 1, 3] {
                let (send, receive) = mpsc::sync_channel(bound);
                channel(move |n| send.send(n).unwrap(), || receive.recv().ok());
            }
        }
        Some("barrier") => all::<(OnceLock<Barrier>, Bare)>(|(barrier, bare), me| {
            let barrier = barrier.get_or_init(|| Barrier::new(THREADS as usize));
            for round in 0..ROUNDS / 10 {
                if round % THREADS == me {
                    bare.add();
                }
                barrier.wait();
            }
        }),
        Some("stderr") => all::<()>(|_, me| {
            for round in 0..ROUNDS / 50 {
                let line = format!("{me}: {round}\n");
                std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
            }
        }),
        Some("race_without_a_lock") => all::<Bare>(|bare, _| bare.add()),
        Some("race_after_the_lock") => all::<(Mutex<()>, Bare)>(|(mutex, bare), _| {
            for _ in 0..ROUNDS {
                drop(mutex.lock().unwrap());
                bare.add();
            }
        }),
        Some("race_with_two_locks") => all::<([Mutex<()>; 2], Bare)>(|(mutexes, bare), me| {
            for _ in 0..ROUNDS {
                let _guard = mutexes[me as usize % 2].lock().unwrap();
                bare.add();
            }
        }),
        Some("race_under_a_read_lock") => {
            all::<(RwLock<()>, AtomicU64, Bare)>(|(lock, inside, bare), _| {
                let _guard = lock.read().unwrap();
                inside.fetch_add(1, Ordering::Relaxed);
                while inside.load(Ordering::Relaxed) < THREADS {
                    thread::yield_now();
                }
                bare.add();
            })
        }
        Some("race_around_a_condvar") => {
            all::<(Mutex<u64>, Condvar, Bare)>(|(mutex, changed, bare), me| {
                let mut arrived = mutex.lock().unwrap();
                *arrived += 1;
                changed.notify_all();
                while *arrived < THREADS {
                    arrived = changed.wait(arrived).unwrap();
                }
                drop(arrived);
                black_box(me);
                bare.add();
            })
        }
        Some("race_after_a_once") => all::<(OnceLock<u64>, Bare)>(|(once, bare), me| {
            once.get_or_init(|| me);
            bare.add();
        }),
        Some("race_flag_that_is_relaxed") => all::<(AtomicBool, Bare)>(|(done, bare), me| {
            if me == 0 {
                bare.add();
                done.store(true, Ordering::Relaxed);
            } else {
                while !done.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                black_box(bare.get());
            }
        }),
        Some("race_count_that_is_relaxed") => all::<(AtomicU64, Bare)>(|(count, bare), _| {
            bare.add();
            if count.fetch_add(1, Ordering::Relaxed) == THREADS - 1 {
                black_box(bare.get());
            }
        }),
        Some("memory_read_of_what_was_freed") => {
            let number = Box::into_raw(Box::new(7u64));
            drop(unsafe { Box::from_raw(number) });
            black_box(unsafe { *number });
        }
        Some("memory_read_beyond_the_end") => {
            let bytes = black_box(vec![1u8; 10]);
            black_box(unsafe { *bytes.as_ptr().add(black_box(10)) });
        }
        Some("memory_leaked") => {
            black_box(Box::leak(Box::new([7u64; 99])).as_ptr());
        }
        other => panic!("what is {other:?}?"),
    }
}
