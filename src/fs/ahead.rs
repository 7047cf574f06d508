//! Fetching what will be opened or read next: the small files after the one that was opened, and
//! both ends of a video. What to fetch is [`super::follow`]'s to say; here it is done.
//!
//! Nothing here waits, and nothing here fails: what can't be fetched ahead is fetched when it is
//! read. A file that is fetched ahead gets the revision that its opening would have given it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::follow::{self, Candidate};
use super::read::FileHandle;
use super::revision::Found;
use super::{LibraryFs, lock};
use crate::provider::Library;
use crate::range::ByteRange;
use crate::reader::Prefetch;
use crate::tree::Node;

/// Entries that are looked at for one with a URL; most often the first has one.
const ENTRIES_WITH_URL: usize = 16;

/// How much of an open file was read, and what is to be fetched at the first touch of its head.
#[derive(Default)]
pub(super) struct Progress {
    read_bytes: AtomicU64,
    ends: Option<[ByteRange; 2]>,
    ends_asked: AtomicBool,
}

impl Progress {
    /// Of a file that was just opened.
    pub fn new(ends: Option<[ByteRange; 2]>) -> Self {
        Self {
            ends,
            ..Self::default()
        }
    }

    /// Takes note of a read, and answers what to fetch before it.
    pub fn on_read(&self, offset: u64, len: u32) -> Option<[ByteRange; 2]> {
        self.read_bytes.fetch_add(len.into(), Ordering::Relaxed);
        let ends = self.ends.filter(|_| offset == 0)?;
        let first = !self.ends_asked.swap(true, Ordering::Relaxed);
        first.then_some(ends)
    }

    /// Whether something of `size_bytes` was read, and less than a half. (Nothing at all may mean
    /// that the kernel had all of it.)
    fn is_partial(&self, size_bytes: u64) -> bool {
        let read = self.read_bytes.load(Ordering::Relaxed);
        read > 0 && read < size_bytes / 2
    }
}

impl LibraryFs {
    /// A file was opened for reading: fetches those that come next.
    pub(super) fn fetch_next_files(&self, ino: u64) {
        let Some((library, entries)) = ({
            let state = self.catalog.lock();
            let library = state.tree.node(ino).map(Node::library);
            library.map(|library| (library, state.tree.entries(library)))
        }) else {
            return;
        };
        let next = {
            let mut follows = lock(&self.follows);
            follows.entry(library).or_default().on_open(&entries, ino)
        };
        for ino in self.affordable(&next) {
            match self.fetch_whole(ino) {
                Prefetch::Refused => return,
                Prefetch::Taken => self.planned(library, ino),
            }
        }
    }

    /// A directory was listed: its files may be opened next, so their host's connections are made.
    /// Once for each listing that the service gave, or a file manager that looks again and again
    /// would keep them open for ever.
    pub(super) fn prepare_connections(&self, library: Library) {
        let url = {
            let state = self.catalog.lock();
            let listed_at = state.tree.listed_at(library);
            if lock(&self.prepared).insert(library, listed_at) == Some(listed_at) {
                return;
            }
            let entries = state.tree.entries(library);
            let some = entries.iter().take(ENTRIES_WITH_URL);
            let mut urls = some.filter_map(|entry| state.tree.asset(entry.ino)?.asset.url.clone());
            urls.next()
        };
        if let Some(url) = url {
            self.reader.prepare(&url);
        }
    }

    /// A handle of a file was closed.
    pub(super) fn note_close(&self, ino: u64, size_bytes: u64, progress: &Progress) {
        if !progress.is_partial(size_bytes) {
            return;
        }
        let library = self.catalog.lock().tree.node(ino).map(Node::library);
        if let Some(library) = library
            && let Some(follow) = lock(&self.follows).get_mut(&library)
        {
            follow.on_partial_read();
        }
    }

    fn ends_of(&self, ino: u64, size_bytes: u64) -> Option<[ByteRange; 2]> {
        if size_bytes <= follow::SMALL_FILE_BYTES {
            return None;
        }
        let state = self.catalog.lock();
        follow::ends_of(state.tree.name_of(ino)?, size_bytes)
    }

    fn affordable(&self, next: &[Candidate]) -> Vec<u64> {
        if next.iter().all(|candidate| candidate.planned) {
            return Vec::new();
        }
        let state = self.catalog.lock();
        let size_of = |ino| state.tree.asset(ino)?.size_bytes();
        follow::affordable(next, self.reader.cache_bytes() / 4, size_of)
    }

    fn planned(&self, library: Library, ino: u64) {
        if let Some(follow) = lock(&self.follows).get_mut(&library) {
            follow.planned(ino);
        }
    }

    fn fetch_whole(&self, ino: u64) -> Prefetch {
        if self.local_bytes(ino).is_some() {
            return Prefetch::Taken;
        }
        let Some((key, claim)) = self.claim(ino) else {
            return Prefetch::Taken;
        };
        let revision = match self.revisions.find(ino, claim) {
            Found::Current(revision) => revision,
            Found::Unknown => self.new_revision(ino, key, claim),
            // Its opening asks the host first.
            Found::Suspect(_) => return Prefetch::Taken,
        };
        let whole = ByteRange::new(0, revision.file.size_bytes());
        self.reader.prefetch(&revision.file, whole)
    }
}

impl FileHandle {
    /// A handle of an asset's revision that was just opened.
    pub(super) fn of_asset(
        fs: &LibraryFs,
        ino: u64,
        revision: Arc<super::revision::Revision>,
    ) -> Self {
        let progress = Progress::new(fs.ends_of(ino, revision.file.size_bytes()));
        FileHandle::Asset {
            ino,
            revision,
            progress,
        }
    }
}
