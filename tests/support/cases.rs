//! Random cases that can be repeated, shrunk and kept.
//!
//! A case is a seed and the numbers of its steps. Each step draws from its own dice, so that a case
//! that fails is made smaller by leaving steps out. What is left is printed as one line, which
//! `REELFS_CASE` repeats and which, in the test's file of kept cases, is repeated in every run.
//! `REELFS_SEED` chooses the seed, `REELFS_STEPS` the length.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a failing case is made smaller.
const SHRINKING: Duration = Duration::from_secs(90);
const LAST_NOTES: usize = 60;

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// The dice of one step of a case.
    pub fn of(seed: u64, step: u64) -> Self {
        let mut dice = Self(seed ^ step.wrapping_mul(0xa076_1d64_78bd_642f));
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn among<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }
}

/// See the module's head.
#[derive(Clone)]
pub struct Case {
    pub seed: u64,
    pub steps: Vec<u64>,
}

impl Case {
    /// `17: 1 4 9`, or `17: 0..400`.
    fn read(line: &str) -> Self {
        let (seed, steps) = line.split_once(':').expect("a seed and steps");
        let number = |text: &str| text.trim().parse::<u64>().expect("a number");
        let steps = match steps.split_once("..") {
            Some((first, end)) => (number(first)..number(end)).collect(),
            None => steps.split_whitespace().map(number).collect(),
        };
        let seed = number(seed);
        Self { seed, steps }
    }

    fn without(&self, from: usize, count: usize) -> Self {
        let mut steps = self.steps.clone();
        steps.drain(from..(from + count).min(steps.len()));
        let seed = self.seed;
        Self { seed, steps }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.steps.first(), self.steps.last());
        if let (Some(first), Some(last)) = (first, last)
            && self.steps.len() > 1
            && last - first + 1 == self.steps.len() as u64
        {
            return write!(f, "{}: {first}..{}", self.seed, last + 1);
        }
        write!(f, "{}:", self.seed)?;
        self.steps.iter().try_for_each(|step| write!(f, " {step}"))
    }
}

/// What a run did, in words.
#[derive(Default)]
pub struct Story(Mutex<Vec<String>>);

impl Story {
    pub fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn end(&self) -> String {
        let notes = self.0.lock().unwrap();
        let from = notes.len().saturating_sub(LAST_NOTES);
        notes[from..].join("\n  ")
    }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

fn chosen(steps: u64) -> Case {
    if let Ok(line) = std::env::var("REELFS_CASE") {
        return Case::read(&line);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number_from("REELFS_SEED").unwrap_or(now.as_nanos() as u64 % 1_000_000_007);
    let steps = number_from("REELFS_STEPS").unwrap_or(steps);
    let steps = (0..steps).collect();
    Case { seed, steps }
}

/// What went wrong, and what had been done.
fn failure(case: &Case, run: &impl Fn(&Case, &Story)) -> Option<String> {
    let story = Story::default();
    let panicked = catch_unwind(AssertUnwindSafe(|| run(case, &story))).err()?;
    let text = panicked.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panicked.downcast_ref::<&str>().map(|text| text.to_string()));
    let text = text.unwrap_or_default();
    Some(format!("{text}\n  {}", story.end()))
}

/// The smallest case found that still fails: halves, quarters and so on are left out in turn.
pub fn shrunk(case: Case, patience: Duration, fails: impl Fn(&Case) -> bool) -> Case {
    let gives_up = Instant::now() + patience;
    let mut smallest = case;
    let mut piece = smallest.steps.len() / 2;
    while piece > 0 {
        let mut from = 0;
        while from < smallest.steps.len() {
            if Instant::now() > gives_up {
                return smallest;
            }
            let smaller = smallest.without(from, piece);
            if fails(&smaller) {
                smallest = smaller;
            } else {
                from += piece;
            }
        }
        piece /= 2;
    }
    smallest
}

/// Runs the kept cases, one a line, then one of `steps` steps, or the one that the environment
/// chooses. A failing one is shrunk and printed.
pub fn check(kept: &str, steps: u64, run: impl Fn(&Case, &Story)) {
    let lines = kept.lines().map(str::trim);
    let kept = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    for case in kept.map(Case::read).chain([chosen(steps)]) {
        println!("REELFS_CASE=\"{case}\"");
        let Some(first) = failure(&case, &run) else {
            continue;
        };
        let smallest = shrunk(case, SHRINKING, |case| failure(case, &run).is_some());
        // One that fails by chance may pass when it is repeated.
        let what = failure(&smallest, &run).unwrap_or(first);
        panic!("REELFS_CASE=\"{smallest}\"\n{what}");
    }
}

#[test]
fn a_failing_case_is_shrunk_to_the_steps_that_matter() {
    let case = Case::read("1: 0..100");
    let fails = |case: &Case| case.steps.contains(&17) && case.steps.contains(&80);
    let small = shrunk(case, SHRINKING, fails);
    assert_eq!(small.to_string(), "1: 17 80");
    assert_eq!(Case::read("1: 17 80").steps, [17, 80]);
}
