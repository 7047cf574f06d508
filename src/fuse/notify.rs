//! Tells the kernel what to forget, on a thread of its own: telling can wait for the lock of a
//! directory that an operation holds which we have not answered yet, so it must never happen on a
//! thread that answers.

use std::ffi::OsStr;
use std::sync::mpsc::{self, SendError, Sender};
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::fs::kernel::{Forget, KernelCache};

/// See the module's head. Its thread ends with it.
pub struct KernelNotifier {
    orders: Sender<Order>,
}

enum Order {
    Forget(Vec<Forget>),
    Then(Box<dyn FnOnce() + Send>),
}

impl KernelNotifier {
    /// Starts the thread that tells the kernel; it ends with the notifier.
    pub fn start(notifier: Notifier) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel();
        thread::Builder::new()
            .name("notify".to_string())
            .spawn(move || {
                for order in queue {
                    match order {
                        Order::Forget(items) => items.iter().for_each(|item| tell(&notifier, item)),
                        Order::Then(then) => then(),
                    }
                }
            })?;
        Ok(Self { orders })
    }
}

impl KernelCache for KernelNotifier {
    fn forget(&self, what: Vec<Forget>) {
        // The thread is gone only when the mount is.
        let _ = self.orders.send(Order::Forget(what));
    }

    fn after(&self, then: Box<dyn FnOnce() + Send>) {
        if let Err(SendError(Order::Then(then))) = self.orders.send(Order::Then(then)) {
            then();
        }
    }
}

/// The kernel answers ENOENT for what it doesn't know, which is as good as forgotten; any other
/// failure means that the mount is going away.
fn tell(notifier: &Notifier, item: &Forget) {
    let told = match item {
        Forget::Name { parent, name } => notifier.inval_entry(INodeNo(*parent), OsStr::new(name)),
        Forget::Data { ino } => notifier.inval_inode(INodeNo(*ino), 0, 0),
    };
    if let Err(error) = told
        && error.raw_os_error() != Some(libc::ENOENT)
    {
        log::debug!("the kernel was not told of {item:?}: {error}");
    }
}
