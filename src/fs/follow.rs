//! Which files a program is about to open: a pure policy, no I/O, no locks, no time.
//!
//! A copy opens the files of a directory one after the other, by name (`rsync`, a shell's `*`) or
//! by number (`cp -r`, which sorts by what is cheap on a disk). Whoever opened two in a row, and
//! read the first to its end, gets the next ones fetched ahead: 2, then 4, 8, up to [`MOST_FILES`],
//! growing with each file that is opened in its turn. A jump, or a file of which only a part was
//! read (a thumbnailer, `file`), ends it; a directory where that happened after files were fetched
//! in vain must show a longer run before it is trusted again.
//!
//! The arithmetic: with 40 ms a round trip, 32 files of 100 KB under way are 80 MB/s, as much as
//! the connections of one reader in order carry.

use std::collections::HashMap;
use std::sync::Arc;

use crate::range::ByteRange;
use crate::tree::DirEntry;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Larger files are worth a request of their own when they are opened.
pub const SMALL_FILE_BYTES: u64 = 4 * MIB;
/// Files fetched ahead at most.
pub const MOST_FILES: usize = 32;
const FIRST_FILES: usize = 2;
/// How far back an opening may lie and belong to the same walk: a copier with a few threads.
const NEAR: usize = 8;
/// Files to be opened in a row before anything is fetched. Numbers lie at random, so that two
/// neighbours among them may be chance.
const RUN_BY_NAME: u32 = 2;
const RUN_BY_NUMBER: u32 = 3;
/// The same where files were fetched in vain, at most.
const LONGEST_RUN: u32 = 16;

/// What a player needs of a video before its first picture: the end, where the index may lie, and
/// as much of the head as the kernel asks for in its first two reads (128 KiB, then 512). Less than
/// a megabyte together, since `file` touches the head, too.
const TAIL_BYTES: u64 = 256 * KIB;
const HEAD_BYTES: u64 = 640 * KIB;
const LARGE_VIDEO_BYTES: u64 = 4 * MIB;
/// Files that carry an index at either end.
const INDEXED: [&str; 5] = ["mp4", "mov", "m4v", "3gp", "m4a"];

/// The parts of a file to fetch at the first touch of its head.
pub fn ends_of(name: &str, size_bytes: u64) -> Option<[ByteRange; 2]> {
    let (_, extension) = name.rsplit_once('.')?;
    let indexed = INDEXED.iter().any(|it| extension.eq_ignore_ascii_case(it));
    let tail = size_bytes.saturating_sub(TAIL_BYTES);
    (indexed && size_bytes > LARGE_VIDEO_BYTES).then(|| {
        [
            ByteRange::new(0, HEAD_BYTES),
            ByteRange::new(tail, size_bytes),
        ]
    })
}

/// One order in which a directory may be walked.
#[derive(Debug)]
struct Walk {
    last: Option<usize>,
    /// Files opened in a row.
    run: u32,
    /// The run that is asked for before anything is fetched, at first and now.
    run_at_first: u32,
    needed: u32,
    /// Files to fetch ahead.
    window: usize,
    /// Everything before this place was fetched or need not be.
    planned: usize,
}

impl Walk {
    fn new(run_at_first: u32) -> Self {
        Self {
            last: None,
            run: 0,
            run_at_first,
            needed: run_at_first,
            window: 0,
            planned: 0,
        }
    }

    fn on_open(&mut self, at: usize) {
        let Some(last) = self.last else {
            return self.begin(at);
        };
        match at {
            _ if at == last + 1 => self.go_on(),
            _ if at <= last && last - at <= NEAR => return,
            // A few were left out, as `rsync` does with what did not change.
            _ if at > last && at - last <= self.window => self.window = self.window.div_ceil(2),
            _ => {
                self.stop();
                return self.begin(at);
            }
        }
        self.last = Some(at);
        self.planned = self.planned.max(at + 1);
    }

    fn begin(&mut self, at: usize) {
        self.last = Some(at);
        self.run = 1;
        self.planned = at + 1;
    }

    fn go_on(&mut self) {
        self.run = self.run.saturating_add(1);
        if self.run >= self.needed {
            self.window = (self.window * 2).clamp(FIRST_FILES, MOST_FILES);
        }
        if self.window == MOST_FILES {
            self.needed = self.run_at_first;
        }
    }

    fn stop(&mut self) {
        let next = self.last.map_or(0, |last| last + 1);
        if self.window > 0 && self.planned > next {
            self.needed = (self.needed * 2).min(LONGEST_RUN);
        }
        self.run = 0;
        self.window = 0;
    }
}

/// Where a file stands in the directory's two orders.
type Places = [usize; 2];

/// The walks through one directory.
pub struct Follow {
    entries: Arc<[DirEntry]>,
    by_number: Vec<usize>,
    places: HashMap<u64, Places>,
    walks: [Walk; 2],
    last: Option<u64>,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            entries: Arc::from([]),
            by_number: Vec::new(),
            places: HashMap::new(),
            walks: [RUN_BY_NAME, RUN_BY_NUMBER].map(Walk::new),
            last: None,
        }
    }
}

/// A file that is about to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub ino: u64,
    /// Whether it was fetched already, and so only counts against the budget.
    pub planned: bool,
}

impl Follow {
    /// Takes note that `ino` was opened in the directory that now has `entries`, and tells which
    /// files come next, the nearest first; most often none.
    pub fn on_open(&mut self, entries: &Arc<[DirEntry]>, ino: u64) -> Vec<Candidate> {
        self.take(entries);
        let Some(places) = self.places.get(&ino).copied() else {
            return Vec::new();
        };
        self.last = Some(ino);
        for (walk, at) in self.walks.iter_mut().zip(places) {
            walk.on_open(at);
        }
        self.next()
    }

    /// A file was closed of which only a part was read.
    pub fn on_partial_read(&mut self) {
        for walk in &mut self.walks {
            walk.stop();
        }
    }

    /// Everything up to `ino` was fetched, or need not be.
    pub fn planned(&mut self, ino: u64) {
        let by = self.leading();
        if let Some(places) = self.places.get(&ino) {
            let walk = &mut self.walks[by];
            walk.planned = walk.planned.max(places[by] + 1);
        }
    }

    /// The order that explains more.
    fn leading(&self) -> usize {
        usize::from(self.walks[1].window > self.walks[0].window)
    }

    fn next(&self) -> Vec<Candidate> {
        let by = self.leading();
        let walk = &self.walks[by];
        let from = walk.last.map_or(0, |last| last + 1);
        let to = (from + walk.window).min(self.entries.len());
        let place = |at: usize| match by {
            0 => at,
            _ => self.by_number[at],
        };
        let candidate = |at| Candidate {
            ino: self.entries[place(at)].ino,
            planned: at < walk.planned,
        };
        (from..to).map(candidate).collect()
    }

    /// Finds its place again in a directory that changed.
    fn take(&mut self, entries: &Arc<[DirEntry]>) {
        if Arc::ptr_eq(&self.entries, entries) {
            return;
        }
        self.entries = Arc::clone(entries);
        self.by_number = (0..entries.len()).collect();
        self.by_number.sort_by_key(|at| entries[*at].ino);
        self.places = entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.ino, [at, 0]))
            .collect();
        for (at, by_name) in self.by_number.iter().enumerate() {
            if let Some(places) = self.places.get_mut(&entries[*by_name].ino) {
                places[1] = at;
            }
        }
        let last = self.last.and_then(|ino| self.places.get(&ino));
        for (by, walk) in self.walks.iter_mut().enumerate() {
            walk.last = last.map(|places| places[by]);
            walk.planned = walk.last.map_or(0, |last| last + 1);
        }
    }
}

/// Picks the files to fetch now: small ones of known size, as far as `budget_bytes` goes for them
/// and for those that were fetched and not opened yet.
pub fn affordable(
    candidates: &[Candidate],
    budget_bytes: u64,
    size_of: impl Fn(u64) -> Option<u64>,
) -> Vec<u64> {
    let mut spent = 0;
    let mut chosen = Vec::new();
    for candidate in candidates {
        let size = size_of(candidate.ino).filter(|size| *size <= SMALL_FILE_BYTES);
        spent += size.unwrap_or(0);
        if spent > budget_bytes {
            break;
        }
        if size.is_some_and(|size| size > 0) && !candidate.planned {
            chosen.push(candidate.ino);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory whose numbers run against its names: file `n` of `count` has number
    /// `1000 - n`.
    fn directory(count: u64) -> Arc<[DirEntry]> {
        (0..count)
            .map(|n| DirEntry {
                ino: 1000 - n,
                name: format!("{n:04}").into(),
            })
            .collect()
    }

    struct Program {
        entries: Arc<[DirEntry]>,
        follow: Follow,
    }

    impl Program {
        fn in_directory(count: u64) -> Self {
            Self {
                entries: directory(count),
                follow: Follow::default(),
            }
        }

        /// Opens file `n` and tells which are fetched for it.
        fn opens(&mut self, n: u64) -> Vec<u64> {
            let next = self.follow.on_open(&self.entries, 1000 - n);
            let chosen = affordable(&next, u64::MAX, |_| Some(KIB));
            for ino in &chosen {
                self.follow.planned(*ino);
            }
            chosen.into_iter().map(|ino| 1000 - ino).collect()
        }
    }

    #[test]
    fn two_files_in_a_row_fetch_two_and_each_further_one_twice_as_many() {
        let mut program = Program::in_directory(300);
        assert_eq!(program.opens(0), [0; 0]);
        assert_eq!(program.opens(1), [2, 3]);
        assert_eq!(program.opens(2), [4, 5, 6]);
        assert_eq!(program.opens(3), [7, 8, 9, 10, 11]);
        let ahead = (4..300).filter_map(|n| Some(program.opens(n).last()? - n));
        assert_eq!(ahead.max(), Some(MOST_FILES as u64));
    }

    #[test]
    fn every_file_of_a_walk_is_fetched_once() {
        let mut program = Program::in_directory(100);
        let fetched: Vec<u64> = (0..100).flat_map(|n| program.opens(n)).collect();
        assert_eq!(fetched, (2..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_walk_by_number_is_followed_too() {
        let mut program = Program::in_directory(100);
        let fetched: Vec<u64> = (0..100).rev().flat_map(|n| program.opens(n)).collect();
        assert_eq!(fetched, (0..97).rev().collect::<Vec<_>>());
    }

    #[test]
    fn files_opened_at_random_fetch_nothing() {
        let mut program = Program::in_directory(1000);
        for n in [500, 3, 777, 40, 41 + 100, 900, 20, 600] {
            assert_eq!(program.opens(n), [0; 0]);
        }
    }

    #[test]
    fn a_jump_ends_the_walk_and_what_was_in_vain_is_remembered() {
        let mut program = Program::in_directory(1000);
        program.opens(0);
        assert_eq!(program.opens(1), [2, 3]);
        assert_eq!(program.opens(500), [0; 0]);
        assert_eq!(
            program.opens(501),
            [0; 0],
            "two in a row are no longer enough"
        );
        assert_eq!(program.opens(502), [0; 0]);
        assert_eq!(program.opens(503), [504, 505]);
    }

    #[test]
    fn a_program_that_looks_at_heads_only_fetches_nothing() {
        let mut program = Program::in_directory(100);
        for n in 0..100 {
            assert_eq!(program.opens(n), [0; 0]);
            program.follow.on_partial_read();
        }
    }

    #[test]
    fn a_copier_that_leaves_a_few_out_or_has_threads_is_followed() {
        let mut program = Program::in_directory(100);
        for n in 0..4 {
            program.opens(n);
        }
        assert_eq!(program.opens(6), [0; 0], "they are there");
        assert_eq!(program.opens(5), [0; 0]);
        assert_eq!(program.opens(7), [12, 13, 14, 15]);
    }

    #[test]
    fn a_directory_that_changes_does_not_lose_the_walk() {
        let mut program = Program::in_directory(100);
        for n in 0..5 {
            program.opens(n);
        }
        program.entries = directory(80);
        let fetched = program.opens(5);
        assert_eq!(fetched.first(), Some(&6), "asked for again, which is free");
        assert_eq!(fetched.len(), 32);
    }

    #[test]
    fn the_budget_counts_what_was_fetched_and_not_opened_yet() {
        let candidate = |ino, planned| Candidate { ino, planned };
        let next = [
            candidate(1, true),
            candidate(2, false),
            candidate(3, false),
            candidate(4, false),
            candidate(5, false),
        ];
        let size_of = |ino| match ino {
            3 => Some(SMALL_FILE_BYTES + 1),
            _ => Some(MIB),
        };
        assert_eq!(affordable(&next, 3 * MIB, size_of), [2, 4]);
        assert_eq!(affordable(&next, MIB, size_of), [0; 0]);
        assert_eq!(affordable(&next, 9 * MIB, |_| None), [0; 0]);
    }

    #[test]
    fn both_ends_of_a_large_video_are_fetched_and_less_than_a_megabyte() {
        let size = 90 * MIB;
        let ends = ends_of("clip.mp4", size).unwrap();
        assert_eq!((ends[0].start, ends[1].end), (0, size));
        assert!(ends[0].len() + ends[1].len() < MIB);
        assert_eq!(ends_of("Clip.MOV", size), Some(ends));
        assert_eq!(ends_of("clip.mp4", 4 * MIB), None);
        assert_eq!(ends_of("clip.mkv", size), None);
        assert_eq!(ends_of("mp4", size), None);
    }
}
