//! The lock of everything that the reader shares. It never fails: what a panic left behind is used
//! on, since each change under a lock is whole before anything can panic.
//!
//! In a test that runs under a schedule explorer ([`super::schedule_tests`]) each lock is also a place
//! where the explorer may let another thread go on, and a deadlock is found, not waited for.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

/// A mutex without the `Result`.
#[derive(Default)]
pub(super) struct Lock<T> {
    value: Mutex<T>,
    #[cfg(test)]
    turn: super::schedule_tests::Turn,
}

/// Access to the value, until it is dropped.
pub(super) struct Guard<'a, T> {
    value: MutexGuard<'a, T>,
    /// Dropped after `value`.
    #[cfg(test)]
    _turn: super::schedule_tests::TurnGuard<'a>,
}

impl<T> Lock<T> {
    pub fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            #[cfg(test)]
            turn: Default::default(),
        }
    }

    /// Waits until nobody else has it.
    pub fn lock(&self) -> Guard<'_, T> {
        #[cfg(test)]
        let turn = self.turn.take();
        Guard {
            value: self.value.lock().unwrap_or_else(|e| e.into_inner()),
            #[cfg(test)]
            _turn: turn,
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
