//! What holds at every step of a play, and what is left when all was answered.

use std::collections::HashMap;

use super::*;

impl Stage {
    /// What the head of `state` promises, and the memory's bound.
    pub(super) fn check(&self, number: usize) {
        let file = &self.files[number];
        let state = file.lock();
        let streams = &state.streams;
        for (index, stream) in streams.iter().enumerate() {
            for other in &streams[..index] {
                let both = stream.covers().intersect(&other.covers());
                assert!(both.is_empty(), "{both} is asked for twice");
            }
        }
        for waiter in &state.waiters {
            let mut left = waiter.missing().to_vec();
            for stream in streams {
                match stream.source {
                    Source::Whole => left.clear(),
                    // What is buffered of a block is handed over with its rest.
                    Source::Range => left = subtract(&left, &stream.covers()),
                }
            }
            assert!(left.is_empty(), "nothing brings {left:?}");
        }
        if state.windows.is_empty() && state.promised.is_empty() {
            let long = streams.iter().find(|s| s.remaining().len() > 64 * KIB);
            let unwanted = long.filter(|_| state.waiters.is_empty());
            let unwanted = unwanted.map(|s| (s.id, s.covers()));
            assert!(unwanted.is_none(), "nobody wants {unwanted:?}");
        }
        let cache = self.engine.shelf(file).cache.lock();
        let held = cache.entry_bytes() + cache.reserved_bytes();
        assert!(
            held <= CACHE_BYTES || cache.entry_bytes() == 0,
            "{held} bytes held"
        );
    }

    /// Nothing is under way and nothing is kept but what open files may.
    pub(super) fn expect_at_rest(&self, runtime: &tokio::runtime::Runtime) {
        let (mut streams, mut blocks) = (0, 0);
        let calls = *self.calls.lock().unwrap();
        for (file, calls) in self.files.iter().zip(calls) {
            let state = file.lock();
            assert!(state.waiters.is_empty(), "a read still waits");
            let left: HashMap<_, _> = state.streams.iter().map(|s| (s.id, s.covers())).collect();
            if calls.is_closed() {
                assert!(left.is_empty(), "streams of a closed file: {left:?}");
                assert!(state.windows.is_empty() && state.promised.is_empty());
                drop(state);
                assert_eq!(self.engine.window_bytes(file), 0, "a closed file's window");
                continue;
            }
            let mut sources = state.streams.iter().map(|s| s.source);
            assert!(
                sources.all(|s| s == Source::Whole),
                "streams that go on: {left:?}"
            );
            streams += left.len();
            blocks += state.streams.iter().map(|s| s.block_len).sum::<u64>();
        }
        let reserved = self.engine.shelf(&self.files[0]).cache.lock();
        assert_eq!(
            reserved.reserved_bytes(),
            blocks,
            "memory is still promised"
        );
        drop(reserved);
        // Fits only where nothing else is admitted.
        match self.admit(u64::MAX) {
            Admission::Admitted(_) => assert!(!self.play.ends),
            Admission::Closed(_) => assert!(self.play.ends),
            Admission::Queued { .. } => panic!("the lane is still taken"),
        }
        self.engine.lane(SERVICE).release(u64::MAX);
        // Drops the tasks of the streams that were dropped.
        for _ in 0..100 {
            runtime.block_on(tokio::task::yield_now());
        }
        assert_eq!(self.engine.stats().active_streams, streams as u64);
        if streams == 0 {
            assert_eq!(permits(&self.engine), self.permits, "permits are kept");
        }
    }
}
