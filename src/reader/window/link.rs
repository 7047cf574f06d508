//! Plays one reader in order over a link in simulated time, a millisecond at a step: the windows
//! under test, the kernel's read-ahead, and connections with a delay and a rate. There is neither
//! clock nor network, so what it tells is the policy's and the same on every machine.

use super::*;

const RTT_MS: u64 = 40;
/// Two round trips: TCP and TLS.
const CONNECT_MS: u64 = 2 * RTT_MS;
/// 25 MB/s.
const BYTES_PER_MS: u64 = 25_000;

/// How the kernel asks.
#[derive(Clone, Copy)]
struct Kernel {
    read_bytes: u64,
    /// Reads that it sends ahead of its reader.
    ahead: u64,
}

/// Read-ahead of 4 MiB, which a mount by root gets.
const RAISED: Kernel = Kernel {
    read_bytes: MIB,
    ahead: 4,
};
/// Read-ahead of 128 KiB.
const DEFAULT: Kernel = Kernel {
    read_bytes: 128 * KIB,
    ahead: 1,
};

struct Stream {
    range: ByteRange,
    /// When its first byte comes.
    begins_ms: u64,
}

impl Stream {
    fn come(&self, now_ms: u64) -> ByteRange {
        let flowed = now_ms.saturating_sub(self.begins_ms) * BYTES_PER_MS;
        ByteRange::at(self.range.start, flowed.min(self.range.len()))
    }
}

struct Link {
    now_ms: u64,
    kernel: Kernel,
    windows: Windows,
    idle_connections: usize,
    connections: usize,
    streams: Vec<Stream>,
    ended: Vec<ByteRange>,
    size: u64,
}

struct Outcome {
    /// Until the first and until the last byte.
    first_ms: u64,
    ms: u64,
    connections: usize,
    most_buffered: u64,
}

impl Link {
    fn new(size: u64, kernel: Kernel, ready_connections: usize) -> Self {
        Self {
            now_ms: 0,
            kernel,
            windows: Windows::default(),
            idle_connections: ready_connections,
            connections: ready_connections,
            streams: Vec::new(),
            ended: Vec::new(),
            size,
        }
    }

    fn launch(&mut self, range: ByteRange) {
        let connect_ms = match self.idle_connections {
            0 => {
                self.connections += 1;
                CONNECT_MS
            }
            _ => {
                self.idle_connections -= 1;
                0
            }
        };
        self.streams.push(Stream {
            range,
            begins_ms: self.now_ms + connect_ms + RTT_MS,
        });
    }

    /// `range` without what came and, if asked, what is to come.
    fn missing(&self, range: ByteRange, of: impl Fn(&Stream) -> ByteRange) -> Vec<ByteRange> {
        let mut gaps = vec![range];
        for taken in self
            .ended
            .iter()
            .copied()
            .chain(self.streams.iter().map(of))
        {
            gaps = gaps.iter().flat_map(|gap| gap.minus(&taken)).collect();
        }
        gaps
    }

    fn uncovered(&self, range: ByteRange) -> Vec<ByteRange> {
        self.missing(range, |stream| stream.range)
    }

    fn under_way(&self) -> u64 {
        let left = |s: &Stream| s.range.len() - s.come(self.now_ms).len();
        self.streams.iter().map(left).sum()
    }

    /// As the engine does.
    fn top_up(&mut self) {
        while let Some(stripe) = self.windows.next_stripe(self.size, self.under_way()) {
            for gap in self.uncovered(stripe) {
                if self.streams.len() >= MAX_STREAMS {
                    let begun = ByteRange::new(stripe.start, gap.start);
                    return self.windows.planned(&begun);
                }
                self.launch(gap);
            }
            self.windows.planned(&stripe);
        }
    }

    /// As the engine does, with all the memory there is.
    fn read(&mut self, range: ByteRange) {
        let order = self.windows.on_read(&range);
        if order == Order::Continues {
            self.windows.set_window(self.windows.wish());
        }
        if !self.uncovered(range).is_empty() {
            let wanted = match order {
                Order::Continues => self.windows.extend(&range, self.size),
                Order::Near | Order::Jump => range,
            };
            for gap in self.uncovered(wanted) {
                self.launch(gap);
            }
        }
        self.top_up();
    }

    fn step(&mut self) {
        self.now_ms += 1;
        let (now, before) = (self.now_ms, self.streams.len());
        let ended = &mut self.ended;
        self.streams.retain(|stream| {
            let over = stream.come(now) == stream.range;
            ended.extend(over.then_some(stream.range));
            !over
        });
        self.idle_connections += before - self.streams.len();
        self.top_up();
    }

    fn buffered(&self, answered: u64) -> u64 {
        let flowed = self.streams.iter().map(|s| s.come(self.now_ms).len());
        let ended = self.ended.iter().map(ByteRange::len);
        (ended.sum::<u64>() + flowed.sum::<u64>()).saturating_sub(answered)
    }

    fn read_in_order(mut self) -> Outcome {
        let Kernel { read_bytes, ahead } = self.kernel;
        let (mut asked, mut answered, mut first_ms, mut most_buffered) = (0, 0, 0, 0);
        while answered < self.size {
            // The first read-ahead is one read, later ones go as far as they may.
            let reads = if answered == 0 { 2 } else { 1 + ahead };
            while asked < self.size && asked < answered + reads * read_bytes {
                let range = ByteRange::at(asked, read_bytes).clamp_to(self.size);
                self.read(range);
                asked = range.end;
            }
            let next = ByteRange::at(answered, read_bytes).clamp_to(self.size);
            let now = self.now_ms;
            if self.missing(next, |stream| stream.come(now)).is_empty() {
                if answered == 0 {
                    first_ms = now;
                }
                answered = next.end;
            } else {
                most_buffered = most_buffered.max(self.buffered(answered));
                self.step();
            }
        }
        Outcome {
            first_ms,
            ms: self.now_ms,
            connections: self.connections,
            most_buffered,
        }
    }
}

/// How long so many new connections take that carry an equal part of the file each: what is to be
/// had without a policy by whoever wants the whole file and has memory for it.
fn bare_ms(size: u64, connections: u64) -> u64 {
    CONNECT_MS + RTT_MS + size.div_ceil(connections).div_ceil(BYTES_PER_MS)
}

/// Hundredths of what the bare connections carry.
fn share_of_bare(size: u64, outcome: &Outcome) -> u64 {
    bare_ms(size, MAX_STREAMS as u64) * 100 / outcome.ms
}

#[test]
fn reading_in_order_carries_nearly_what_its_connections_can() {
    for (size, ready, least) in [(128, 4, 91), (512, 4, 87), (128, 0, 89), (512, 0, 87)] {
        let outcome = Link::new(size * MIB, RAISED, ready).read_in_order();
        let share = share_of_bare(size * MIB, &outcome);
        let Outcome {
            ms, connections, ..
        } = outcome;
        println!("{size} MiB, {ready} ready: {ms} ms, {share} %, {connections} connections");
        assert!(share >= least, "{size} MiB with {ready} ready: {share} %");
        assert!(connections <= MAX_STREAMS);
    }
}

#[test]
fn without_the_kernels_read_ahead_the_windows_do_its_work() {
    let size = 128 * MIB;
    let outcome = Link::new(size, DEFAULT, 4).read_in_order();
    let share = share_of_bare(size, &outcome);
    println!("{} ms, {share} %", outcome.ms);
    assert!(share >= 71, "{share} %");
}

#[test]
fn what_comes_ahead_of_the_reader_stays_within_its_window() {
    for kernel in [RAISED, DEFAULT] {
        let outcome = Link::new(512 * MIB, kernel, 14).read_in_order();
        assert!(outcome.most_buffered <= MAX_WINDOW_BYTES + RAISED.read_bytes);
    }
}

#[test]
fn a_connection_that_is_ready_saves_the_first_byte_two_round_trips() {
    let first_ms = |ready| Link::new(MIB, DEFAULT, ready).read_in_order().first_ms;
    assert_eq!(first_ms(0), first_ms(1) + CONNECT_MS);
    let transfer_ms = DEFAULT.read_bytes.div_ceil(BYTES_PER_MS);
    assert_eq!(first_ms(1), RTT_MS + transfer_ms);
}
