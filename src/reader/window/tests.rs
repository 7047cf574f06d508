//! What a sequence of reads makes the windows ask for.

use super::*;

const SIZE: u64 = 1 << 30;

/// Plays reads with all the budget there is and tells what was asked for in total.
struct Reader {
    windows: Windows,
}

impl Reader {
    fn new() -> Self {
        Self {
            windows: Windows::default(),
        }
    }

    fn read(&mut self, start: u64, len: u64) -> Order {
        let order = self.windows.on_read(&ByteRange::at(start, len));
        if order == Order::Continues {
            self.windows.set_window(self.windows.wish());
        }
        while let Some(stripe) = self.windows.next_stripe(SIZE, 0) {
            self.windows.planned(&stripe);
        }
        order
    }

    fn latest(&self) -> &Cursor {
        self.windows.cursors.last().unwrap()
    }
}

#[test]
fn a_first_read_and_random_reads_want_nothing_ahead() {
    let mut reader = Reader::new();
    for start in [0, 500 * MIB, 20 * MIB, 900 * MIB, 100 * MIB] {
        assert_eq!(reader.read(start, 64 * KIB), Order::Jump);
        assert_eq!(reader.latest().window, 0);
        assert_eq!(reader.latest().planned, start + 64 * KIB);
    }
}

#[test]
fn the_window_grows_with_what_was_read_in_order() {
    let mut reader = Reader::new();
    let mut windows = Vec::new();
    for i in 0..14 {
        reader.read(i * MIB, MIB);
        windows.push(reader.latest().window / MIB);
    }
    assert_eq!(windows[..5], [0, 48, 72, 96, 96]);
    assert_eq!(windows[13], 96);
}

#[test]
fn looking_at_the_head_pulls_less_than_a_megabyte() {
    for (read, head) in [
        (64, 64),
        (64, 128),
        (64, 256),
        (128, 256),
        (16, 256),
        (4, 64),
    ] {
        let mut reader = Reader::new();
        for i in 0..head / read {
            reader.read(i * read * KIB, read * KIB);
        }
        let planned = reader.latest().planned;
        assert!(
            planned <= 768 * KIB,
            "{head} KiB by {read} KiB pulled {planned}"
        );
    }
}

#[test]
fn reads_that_the_kernel_reordered_stay_one_reader() {
    for order in [
        [0, 1, 2, 3, 4, 5],
        [0, 2, 1, 3, 5, 4],
        [1, 0, 2, 4, 3, 5],
        [0, 2, 1, 4, 3, 5],
    ] {
        let mut reader = Reader::new();
        for block in order {
            reader.read(block * MIB, MIB);
        }
        let live: Vec<_> = reader.windows.cursors.iter().collect();
        assert_eq!(live.len(), 1, "{order:?}: {live:?}");
        assert_eq!(live[0].pos, 6 * MIB);
        assert!(live[0].window >= 12 * MIB, "{order:?}");
    }
}

#[test]
fn eight_interleaved_readers_have_a_window_each() {
    let mut reader = Reader::new();
    for step in 0..20 {
        for place in 0..8 {
            let order = reader.read(place * 100 * MIB + step * 128 * KIB, 128 * KIB);
            assert_eq!(order == Order::Jump, step == 0);
        }
    }
    assert_eq!(reader.windows.cursors.len(), 8);
    assert!(reader.windows.cursors.iter().all(|c| c.window >= 2 * MIB));
}

#[test]
fn random_reads_do_not_push_a_reader_in_order_out() {
    let mut reader = Reader::new();
    for step in 0..40 {
        reader.read(step * MIB, MIB);
        reader.read((500 + step * 37 % 400) * MIB + 4 * KIB, 4 * KIB);
    }
    assert!(reader.windows.cursors.iter().any(|c| c.pos == 40 * MIB));
}

#[test]
fn a_place_that_was_left_is_no_longer_wanted() {
    let mut reader = Reader::new();
    for step in 0..8 {
        reader.read(step * MIB, MIB);
    }
    assert!(reader.windows.wants(&ByteRange::at(20 * MIB, MIB)));
    for step in 0..30 {
        reader.read(500 * MIB + step * MIB, MIB);
    }
    assert!(!reader.windows.wants(&ByteRange::at(20 * MIB, MIB)));
}

#[test]
fn a_large_window_is_cut_into_aligned_stripes_for_all_connections() {
    let mut windows = Windows::default();
    windows.on_read(&ByteRange::at(0, 12 * MIB));
    windows.on_read(&ByteRange::at(12 * MIB, 100 * KIB));
    windows.set_window(windows.wish());
    let mut stripes = Vec::new();
    while let Some(stripe) = windows.next_stripe(SIZE, 0) {
        windows.planned(&stripe);
        stripes.push(stripe);
    }
    assert_eq!(stripes[0].start, 12 * MIB + 100 * KIB);
    assert_eq!(stripes[0].end, 18 * MIB);
    assert!(stripes.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert!(stripes[1..].iter().all(|s| s.len() == 6 * MIB));
    let planned: u64 = stripes.iter().map(ByteRange::len).sum();
    assert!(planned <= MAX_WINDOW_BYTES);
}

#[test]
fn the_window_ends_with_the_file() {
    let mut windows = Windows::default();
    windows.on_read(&ByteRange::at(0, 8 * MIB));
    windows.on_read(&ByteRange::at(8 * MIB, MIB));
    windows.set_window(windows.wish());
    let size = 9 * MIB + 5;
    let stripe = windows.next_stripe(size, 0).unwrap();
    assert_eq!(stripe, ByteRange::new(9 * MIB, size));
    windows.planned(&stripe);
    assert_eq!(windows.next_stripe(size, 0), None);
}

#[test]
fn the_last_stripes_are_equal_so_that_no_connection_is_left_alone() {
    let mut windows = Windows::default();
    windows.on_read(&ByteRange::at(0, 12 * MIB));
    windows.on_read(&ByteRange::at(12 * MIB, 4 * MIB));
    windows.set_window(windows.wish());
    let mut lengths: Vec<u64> = Vec::new();
    while let Some(stripe) = windows.next_stripe(48 * MIB, lengths.iter().sum()) {
        windows.planned(&stripe);
        lengths.push(stripe.len());
    }
    assert_eq!(lengths, [2 * MIB; 16]);
}

#[test]
fn the_last_stripes_employ_all_connections_also_where_they_are_no_whole_blocks() {
    let mut windows = Windows::default();
    windows.on_read(&ByteRange::at(0, 12 * MIB));
    windows.on_read(&ByteRange::at(12 * MIB, MIB));
    windows.set_window(windows.wish());
    let mut lengths: Vec<u64> = Vec::new();
    while let Some(stripe) = windows.next_stripe(80 * MIB, lengths.iter().sum()) {
        windows.planned(&stripe);
        lengths.push(stripe.len());
    }
    assert_eq!(lengths.len(), MAX_STREAMS, "{lengths:?}");
    assert!(lengths.iter().all(|length| *length <= 4352 * KIB));
}

#[test]
fn a_reader_that_found_no_memory_gets_its_part_from_those_that_have_all() {
    let mut windows = Windows::default();
    let granted = 16 * MIB;
    let mut read = |place: u64, step: u64| {
        if windows.on_read(&ByteRange::at(place + step * MIB, MIB)) == Order::Continues {
            windows.set_window(windows.part_of(granted));
        }
        windows.cursors.last().unwrap().window
    };
    (0..4).for_each(|step| assert!(read(0, step) <= granted));
    read(500 * MIB, 0);
    assert_eq!(read(500 * MIB, 1), 0, "the first has all of it");
    assert_eq!(read(0, 4), 8 * MIB);
    assert_eq!(read(500 * MIB, 2), 8 * MIB);
}

#[test]
fn a_miss_in_a_small_window_takes_the_window_along() {
    let mut windows = Windows::default();
    windows.on_read(&ByteRange::at(0, 128 * KIB));
    let second = ByteRange::at(128 * KIB, 128 * KIB);
    assert_eq!(windows.on_read(&second), Order::Continues);
    windows.set_window(windows.wish());
    let whole = windows.extend(&second, SIZE);
    assert_eq!(whole, ByteRange::new(128 * KIB, (256 + 256) * KIB));
    assert_eq!(windows.next_stripe(SIZE, 0), None);
}

#[test]
fn the_cursors_of_one_file_share_what_it_was_granted() {
    let mut windows = Windows::default();
    let (granted, mut parts) = (16 * MIB, Vec::new());
    for step in 0..12 {
        for place in [0, 500 * MIB] {
            let order = windows.on_read(&ByteRange::at(place + step * MIB, MIB));
            if order == Order::Continues {
                let part = windows.part_of(granted.min(windows.others() + windows.wish()));
                windows.set_window(part);
                parts.push(part);
            }
        }
    }
    assert!(
        parts.iter().rev().take(4).all(|part| *part == 8 * MIB),
        "{parts:?}"
    );
}
