use super::*;
use crate::provider::ProviderError;

const DEADLINE: Duration = Duration::from_secs(60);

/// A queue with a hand on its clock.
struct Bench {
    queue: Queue,
    now: Instant,
}

impl Bench {
    fn new(limit: usize) -> Self {
        Self {
            queue: Queue::new(limit, DEADLINE),
            now: Instant::now(),
        }
    }

    fn submit(&mut self, name: &str, waiting: Waiting) -> Uuid {
        let id = Uuid::new_v4();
        let key = (Library::RunwayVideo, name.to_string());
        self.queue.submit(id, key, waiting, self.now);
        assert!(self.queue.ready(id));
        id
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn next(&mut self) -> Pick {
        self.queue.next(self.now)
    }

    fn runs(&mut self) -> Option<Uuid> {
        match self.next() {
            Pick::Run { id, .. } => Some(id),
            _ => None,
        }
    }

    fn gives_up(&mut self) -> Option<Uuid> {
        match self.next() {
            Pick::GiveUp { id, .. } => Some(id),
            _ => None,
        }
    }

    /// How many seconds it would wait.
    fn waits(&mut self) -> Option<u64> {
        match self.next() {
            Pick::Wait(until) => until.map(|until| (until - self.now).as_secs()),
            pick => panic!("{pick:?}"),
        }
    }
}

fn error() -> UploadError {
    UploadError::Provider(ProviderError::NotFound)
}

#[test]
fn entries_run_in_their_order_up_to_the_limit() {
    let mut bench = Bench::new(2);
    let ids = ["a", "b", "c"].map(|name| bench.submit(name, Waiting::Nobody));
    assert_eq!(bench.runs(), Some(ids[0]));
    assert_eq!(bench.runs(), Some(ids[1]));
    assert_eq!(bench.waits(), None);
    assert!(!bench.queue.succeeded(ids[0], bench.now));
    assert_eq!(bench.runs(), Some(ids[2]));
}

#[test]
fn an_entry_that_is_not_journaled_holds_back_those_of_its_name_only() {
    let mut bench = Bench::new(4);
    let early = Uuid::new_v4();
    let key = (Library::RunwayVideo, "a".to_string());
    bench.queue.submit(early, key, Waiting::Nobody, bench.now);
    let late = bench.submit("a", Waiting::Nobody);
    let other = bench.submit("b", Waiting::Nobody);
    assert_eq!(bench.runs(), Some(other));
    assert_eq!(bench.waits(), None);
    bench.queue.ready(early);
    assert_eq!(bench.runs(), Some(early));
    assert_eq!(bench.waits(), None);
    bench.queue.leave(early);
    assert_eq!(bench.runs(), Some(late));
}

#[test]
fn waits_double_from_a_second_to_a_minute() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert_eq!(bench.runs(), Some(id));
        bench.queue.retry(id, error(), bench.now);
        assert_eq!(bench.waits(), Some(wait));
        bench.pass(wait);
    }
    assert_eq!(bench.runs(), Some(id));
}

#[test]
fn a_first_lost_answer_is_looked_for_at_once_and_the_looks_are_counted() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    assert_eq!(bench.runs(), Some(id));
    bench.queue.lost(id, error(), bench.now);
    for looks in 0..3 {
        let pick = bench.next();
        let Pick::Run { looks: counted, .. } = pick else {
            panic!("{pick:?}");
        };
        assert_eq!(counted, looks);
        bench
            .queue
            .look_again(id, Duration::from_secs(3), bench.now);
        assert_eq!(bench.waits(), Some(3));
        bench.pass(3);
    }
    assert_eq!(bench.runs(), Some(id));
    bench.queue.lost(id, error(), bench.now);
    assert_eq!(bench.waits(), Some(1));
}

#[test]
fn a_later_failure_does_not_shorten_a_pause() {
    let mut bench = Bench::new(2);
    let ids = ["a", "b"].map(|name| bench.submit(name, Waiting::Nobody));
    assert_eq!((bench.runs(), bench.runs()), (Some(ids[0]), Some(ids[1])));
    let minute = Some(Duration::from_secs(60));
    let (pause, news) = bench.queue.pause(ids[0], error(), minute, bench.now);
    assert_eq!((pause, news), (Duration::from_secs(60), true));
    bench.queue.pause(ids[1], error(), None, bench.now);
    assert_eq!(bench.waits(), Some(60));
    bench.pass(60);
    assert_eq!(bench.runs(), Some(ids[0]));
}

#[test]
fn an_absurd_rate_limit_is_an_hour_at_most() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    bench.runs();
    let year = Some(Duration::from_secs(365 * 86_400));
    bench.queue.pause(id, error(), year, bench.now);
    assert_eq!(bench.waits(), Some(3_600));
}

#[test]
fn a_block_lets_one_probe_through_a_minute() {
    let mut bench = Bench::new(4);
    let ids = ["a", "b"].map(|name| bench.submit(name, Waiting::Nobody));
    assert_eq!(bench.runs(), Some(ids[0]));
    assert!(bench.queue.block(ids[0], error(), bench.now));
    assert!(bench.queue.stuck());
    assert_eq!(bench.waits(), Some(60));
    bench.pass(60);
    assert_eq!(bench.runs(), Some(ids[0]));
    assert_eq!(bench.waits(), None, "a second probe at once");
    bench.queue.retry(ids[0], error(), bench.now);
    assert_eq!(bench.waits(), Some(60), "no verdict, no hurry");
    bench.pass(60);
    assert_eq!(bench.runs(), Some(ids[0]));
    assert!(!bench.queue.block(ids[0], error(), bench.now), "no news");
    bench.pass(60);
    assert_eq!(bench.runs(), Some(ids[0]));
    assert!(bench.queue.succeeded(ids[0], bench.now));
    assert_eq!(bench.runs(), Some(ids[1]));
}

#[test]
fn nobody_waits_for_a_refused_account() {
    let mut bench = Bench::new(4);
    let first = bench.submit("a", Waiting::Somebody);
    assert_eq!(bench.runs(), Some(first));
    bench.queue.block(first, error(), bench.now);
    assert_eq!(bench.gives_up(), Some(first));
    let second = bench.submit("b", Waiting::Somebody);
    assert_eq!(bench.gives_up(), Some(second));
    bench.pass(60);
    let probe = bench.submit("c", Waiting::Somebody);
    assert_eq!(bench.runs(), Some(probe));
}

#[test]
fn who_waits_behind_a_long_upload_that_moves_goes_on_waiting() {
    let mut bench = Bench::new(1);
    let long = bench.submit("long", Waiting::Somebody);
    let behind = bench.submit("behind", Waiting::Somebody);
    assert_eq!(bench.runs(), Some(long));
    for _ in 0..5 {
        bench.pass(59);
        bench.queue.progressed(bench.now);
        assert_eq!(bench.waits(), Some(60));
    }
    bench.pass(60);
    assert_eq!(bench.gives_up(), Some(behind));
}

#[test]
fn an_entry_that_fails_for_the_deadline_is_given_up_although_others_succeed() {
    let mut bench = Bench::new(1);
    let failing = bench.submit("failing", Waiting::Somebody);
    assert_eq!(bench.runs(), Some(failing));
    bench.queue.retry(failing, error(), bench.now);
    bench.pass(59);
    let other = bench.submit("other", Waiting::Nobody);
    assert_eq!(bench.runs(), Some(failing));
    bench.queue.retry(failing, error(), bench.now);
    assert_eq!(bench.runs(), Some(other));
    bench.queue.succeeded(other, bench.now);
    assert_eq!(bench.waits(), Some(1));
    bench.pass(1);
    assert_eq!(bench.gives_up(), Some(failing));
}

#[test]
fn what_nobody_waits_for_is_never_given_up() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    for _ in 0..100 {
        assert_eq!(bench.runs(), Some(id));
        bench.queue.retry(id, error(), bench.now);
        bench.pass(600);
    }
}

#[test]
fn a_close_that_joins_an_upload_under_way_is_given_up_in_its_own_time() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    assert_eq!(bench.runs(), Some(id));
    bench.pass(500);
    let key = (Library::RunwayVideo, "a".to_string());
    bench.queue.submit(id, key, Waiting::Somebody, bench.now);
    bench.queue.retry(id, error(), bench.now);
    assert_eq!(bench.waits(), Some(1));
    bench.pass(60);
    assert_eq!(bench.gives_up(), Some(id));
}

#[test]
fn resuming_ends_every_wait() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    bench.runs();
    bench.queue.block(id, error(), bench.now);
    bench.queue.hold();
    bench.queue.resume(bench.now);
    assert_eq!(bench.runs(), Some(id));
    bench.queue.retry(id, error(), bench.now);
    bench.queue.resume(bench.now);
    assert_eq!(bench.runs(), Some(id));
}

#[test]
fn the_outlook_of_a_file_counts_its_failures_and_the_seconds_to_its_next_try() {
    let mut bench = Bench::new(1);
    let id = bench.submit("a", Waiting::Nobody);
    let outlook = |bench: &Bench| {
        let outlook = bench.queue.outlook(id, bench.now);
        (
            outlook.failures,
            outlook.next_try.map(|wait| wait.as_secs()),
        )
    };
    assert_eq!(outlook(&bench), (0, Some(0)));
    bench.runs().unwrap();
    assert_eq!(outlook(&bench), (0, None), "it is being sent");
    bench.queue.retry(id, error(), bench.now);
    assert_eq!(outlook(&bench), (1, Some(1)));
    bench.runs();
    bench.pass(1);
    bench.runs().unwrap();
    bench.queue.block(id, error(), bench.now);
    assert_eq!(outlook(&bench), (2, Some(PROBE.as_secs())));
    bench.queue.hold();
    assert_eq!(outlook(&bench), (2, None), "nothing starts");
    assert!(
        bench
            .queue
            .outlook(Uuid::new_v4(), bench.now)
            .next_try
            .is_none()
    );
}
