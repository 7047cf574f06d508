//! Open files and directories by their handle numbers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// A table of `T` by numbers that are never used again. Lookups share; only opening and closing
/// exclude.
pub struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: RwLock::new(HashMap::new()),
        }
    }
}

impl<T> Handles<T> {
    /// Keeps `handle` under a new number.
    pub fn insert(&self, handle: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.write().unwrap_or_else(|e| e.into_inner());
        open.insert(number, Arc::new(handle));
        number
    }

    /// What is open under `number`.
    pub fn get(&self, number: u64) -> Option<Arc<T>> {
        let open = self.open.read().unwrap_or_else(|e| e.into_inner());
        open.get(&number).cloned()
    }

    /// Ends `number`; who still has the handle goes on with it.
    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        let mut open = self.open.write().unwrap_or_else(|e| e.into_inner());
        open.remove(&number)
    }

    /// Whether any open handle is as `is` says.
    pub fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        let open = self.open.read().unwrap_or_else(|e| e.into_inner());
        open.values().any(|handle| is(handle))
    }

    /// Everything that is open now.
    pub fn all(&self) -> Vec<Arc<T>> {
        let open = self.open.read().unwrap_or_else(|e| e.into_inner());
        open.values().cloned().collect()
    }

    #[cfg(all(test, feature = "emulator"))]
    pub fn count(&self) -> usize {
        let open = self.open.read().unwrap_or_else(|e| e.into_inner());
        open.len()
    }
}
