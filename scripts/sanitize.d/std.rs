//! Tells ThreadSanitizer what the standard library's own code does.
//!
//! The library is shipped without instrumentation. What of it is generic or inlined is compiled into
//! whoever uses it, and so is instrumented: the fast path of a mutex, the counts of an `Arc`, most of a
//! channel. What is not are the slow paths below, in which threads wait for each other unseen. The
//! linker (`--wrap`) puts these functions around them. Each says no more than what the real one
//! guarantees, and to the same address as the instrumented half.
//!
//! `scripts/sanitize` replaces each `@NAME@` with the symbol of this compiler's library, and
//! `proof.rs` shows that no false report is left, and that real races are still seen.

#![no_std]

unsafe extern "C" {
    fn __tsan_acquire(address: *const u8);
    fn __tsan_release(address: *const u8);
    #[link_name = "__real___tsan_atomic64_fetch_sub"]
    fn real_fetch_sub(at: *const u8, n: u64, order: i32) -> u64;
    #[link_name = "__real_syscall"]
    fn real_syscall(number: usize, arguments: ...) -> isize;
}

unsafe extern "Rust" {
    #[link_name = "__real_@mutex_lock@"]
    fn real_mutex_lock(mutex: *const u8);
    #[link_name = "__real_@rwlock_read@"]
    fn real_rwlock_read(lock: *const u8);
    #[link_name = "__real_@rwlock_write@"]
    fn real_rwlock_write(lock: *const u8);
    #[link_name = "__real_@condvar_wait@"]
    fn real_condvar_wait(condvar: *const u8, mutex: *const u8);
    #[link_name = "__real_@condvar_wait_timeout@"]
    fn real_condvar_wait_timeout(
        condvar: *const u8,
        mutex: *const u8,
        seconds: u64,
        nanoseconds: u32,
    ) -> bool;
    #[link_name = "__real_@once_call@"]
    fn real_once_call(once: *const u8, force: bool, f: &mut dyn FnMut(*const u8), caller: usize);
    #[link_name = "__real_@barrier_wait@"]
    fn real_barrier_wait(barrier: *const u8) -> bool;
    #[link_name = "__real_@scope_end@"]
    fn real_scope_end(scope: *const u8, panicked: bool);
}

/// The wait for a mutex that another thread has. Giving it back is inlined.
#[unsafe(export_name = "__wrap_@mutex_lock@")]
unsafe fn mutex_lock(mutex: *const u8) {
    unsafe {
        real_mutex_lock(mutex);
        __tsan_acquire(mutex);
    }
}

#[unsafe(export_name = "__wrap_@rwlock_read@")]
unsafe fn rwlock_read(lock: *const u8) {
    unsafe {
        real_rwlock_read(lock);
        __tsan_acquire(lock);
    }
}

#[unsafe(export_name = "__wrap_@rwlock_write@")]
unsafe fn rwlock_write(lock: *const u8) {
    unsafe {
        real_rwlock_write(lock);
        __tsan_acquire(lock);
    }
}

/// Gives the mutex back and takes it again.
#[unsafe(export_name = "__wrap_@condvar_wait@")]
unsafe fn condvar_wait(condvar: *const u8, mutex: *const u8) {
    unsafe {
        __tsan_release(mutex);
        real_condvar_wait(condvar, mutex);
        __tsan_acquire(mutex);
    }
}

#[unsafe(export_name = "__wrap_@condvar_wait_timeout@")]
unsafe fn condvar_wait_timeout(
    condvar: *const u8,
    mutex: *const u8,
    seconds: u64,
    nanoseconds: u32,
) -> bool {
    unsafe {
        __tsan_release(mutex);
        let notified = real_condvar_wait_timeout(condvar, mutex, seconds, nanoseconds);
        __tsan_acquire(mutex);
        notified
    }
}

/// `Once`, `OnceLock` and `LazyLock`: what was made is there for all who come later, whose look at the
/// state is inlined, and for those who waited here.
#[unsafe(export_name = "__wrap_@once_call@")]
unsafe fn once_call(once: *const u8, force: bool, f: &mut dyn FnMut(*const u8), caller: usize) {
    let mut f = |state: *const u8| {
        f(state);
        unsafe { __tsan_release(once) };
    };
    unsafe {
        real_once_call(once, force, &mut f, caller);
        __tsan_acquire(once);
    }
}

/// Whoever leaves has seen what all did before they came.
#[unsafe(export_name = "__wrap_@barrier_wait@")]
unsafe fn barrier_wait(barrier: *const u8) -> bool {
    unsafe {
        __tsan_release(barrier);
        let leads = real_barrier_wait(barrier);
        __tsan_acquire(barrier);
        leads
    }
}

/// The end of a scoped thread. Who waits for it reads the count of running ones, inlined; it is one of
/// the first two words.
#[unsafe(export_name = "__wrap_@scope_end@")]
unsafe fn scope_end(scope: *const u8, panicked: bool) {
    unsafe {
        __tsan_release(scope);
        __tsan_release(scope.add(size_of::<usize>()));
        real_scope_end(scope, panicked);
    }
}

const RELEASE: i32 = 3;
const ACQUIRE_AND_RELEASE: i32 = 4;

/// `Arc` counts down with `Release`, and whoever reaches zero has a fence instead of `Acquire`, because
/// that is cheaper. ThreadSanitizer knows no fences. (The library says the same where it is built for
/// ThreadSanitizer.)
#[unsafe(export_name = "__wrap___tsan_atomic64_fetch_sub")]
unsafe extern "C" fn fetch_sub(at: *const u8, n: u64, order: i32) -> u64 {
    let order = match order {
        RELEASE => ACQUIRE_AND_RELEASE,
        other => other,
    };
    unsafe { real_fetch_sub(at, n, order) }
}

const FUTEX: usize = 202;
const RT_SIGPROCMASK: usize = 14;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;

/// A signal that comes while a thread waits for a futex would wait with it: ThreadSanitizer, which hands
/// signals on, knows of the C library's waits alone. So it goes to another thread, as the kernel may
/// choose anyway. The numbers are those of x86-64.
#[unsafe(export_name = "__wrap_syscall")]
unsafe extern "C" fn syscall(
    number: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let (all, mut before) = (!0u64, 0u64);
    let size = size_of::<u64>();
    let waits = number == FUTEX;
    unsafe {
        if waits {
            real_syscall(
                RT_SIGPROCMASK,
                SIG_BLOCK,
                &raw const all,
                &raw mut before,
                size,
            );
        }
        let result = real_syscall(number, a, b, c, d, e, f);
        if waits {
            real_syscall(RT_SIGPROCMASK, SIG_SETMASK, &raw const before, 0usize, size);
        }
        result
    }
}
