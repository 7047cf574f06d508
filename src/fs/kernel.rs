//! What the kernel remembers of the tree, as far as the file system must make it forget.

/// Something the kernel may have cached that is no longer so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// A name in a directory.
    Name { parent: u64, name: String },
    /// A file's pages and attributes, or a directory's entries.
    Data { ino: u64 },
}

/// Tells the kernel. Never blocks the caller: telling can wait for a directory's lock that is held
/// by an operation we have not answered yet.
pub trait KernelCache: Send + Sync {
    /// Makes the kernel forget, in order, on another thread.
    fn forget(&self, what: Vec<Forget>);

    /// Calls `then`, on that thread, once all that was to be forgotten so far is forgotten. That
    /// waits for whoever holds a directory's lock, so only for what holds none.
    fn after(&self, then: Box<dyn FnOnce() + Send>);
}
