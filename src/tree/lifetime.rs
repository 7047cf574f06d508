//! How long a file stays in memory: while its directory has it, a handle is open on it or the kernel
//! knows its number.

use super::{Held, Node, Tree, inode};

impl Tree {
    /// A free number for a new local file.
    pub fn free_ino(&self, identity: &str) -> u64 {
        let mut ino = inode::of_text(identity);
        while self.files.contains_key(&ino) {
            ino = inode::next(ino);
        }
        ino
    }

    /// Counts a number that is given to the kernel.
    pub fn remember(&mut self, ino: u64) {
        if let Some(held) = self.files.get_mut(&ino) {
            held.lookups += 1;
        }
    }

    /// The kernel forgot `count` of the times it was given this number. A file that stands nowhere
    /// and that nobody knows is gone from memory then.
    pub fn forget(&mut self, ino: u64, count: u64) {
        if let Some(held) = self.files.get_mut(&ino) {
            held.lookups = held.lookups.saturating_sub(count);
        }
        self.drop_if_unused(ino);
    }

    /// Counts a handle that is open on a number: while there is one, the number's size stays.
    pub fn opened(&mut self, ino: u64) {
        if let Some(held) = self.files.get_mut(&ino) {
            held.opens += 1;
        }
    }

    /// A handle that was counted is closed.
    pub fn closed(&mut self, ino: u64) {
        if let Some(held) = self.files.get_mut(&ino) {
            held.opens = held.opens.saturating_sub(1);
        }
        self.drop_if_unused(ino);
    }

    /// The files that went from memory since this was last asked, and did not come back: whoever
    /// keeps something by number lets go of it.
    pub fn take_dropped(&mut self) -> Vec<u64> {
        let mut dropped = std::mem::take(&mut self.dropped);
        dropped.retain(|ino| !self.files.contains_key(ino));
        dropped
    }

    pub(super) fn drop_if_unused(&mut self, ino: u64) {
        let unused = |held: &Held| held.lookups == 0 && held.opens == 0 && !held.linked;
        if !self.files.get(&ino).is_some_and(unused) {
            return;
        }
        if let Some(Held {
            node: Node::Asset(node),
            ..
        }) = self.files.remove(&ino)
        {
            let key = node.key();
            if self.ino_of(&key) == Some(ino) {
                self.by_asset.remove(&key);
            }
        }
        self.dropped.push(ino);
    }
}
