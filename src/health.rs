//! What went well and what went wrong lately, for whoever asks how a mount is doing.
//!
//! Promises: recording never blocks on anything but a lock held for moments, so any thread may do
//! it; memory is bounded ([`MOST_TROUBLES`] texts of [`MOST_TEXT_BYTES`]); every text passes the
//! filter that was given at the start, so that no secret is kept. It fails in no way: what does not
//! fit pushes the oldest out, while the counts go on.
//!
//! One lock, a leaf.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use crate::clock::Clock;

/// Errors kept, the newest of each kind: a screenful.
pub const MOST_TROUBLES: usize = 32;
/// The longest text kept of one error: the services' own messages are cut at less.
pub const MOST_TEXT_BYTES: usize = 1024;

/// When a service answered, and when and why it did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contact {
    pub last_success: Option<SystemTime>,
    pub last_failure: Option<(SystemTime, String)>,
    /// Of the two, the later; `None` before the first.
    pub reachable: Option<bool>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The last time.
    pub at: SystemTime,
    /// A file, a directory or a call, in words.
    pub place: String,
    pub text: String,
    /// How often this very thing happened in a row.
    pub times: u64,
}

/// Whose error it is and of what kind; both are labels of a metric, so there are few of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    pub service: &'static str,
    pub kind: &'static str,
}

/// Everything that was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub contacts: BTreeMap<&'static str, Contact>,
    pub counts: BTreeMap<Label, u64>,
    /// The newest first.
    pub troubles: Vec<Trouble>,
}

/// See the module's head.
pub struct Health {
    clock: Arc<dyn Clock>,
    filter: fn(&str) -> String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    contacts: BTreeMap<&'static str, Contact>,
    counts: BTreeMap<Label, u64>,
    /// The oldest first.
    troubles: VecDeque<Trouble>,
}

impl Health {
    /// Nothing happened yet. `filter` takes secrets out of every text that is kept.
    pub fn new(clock: Arc<dyn Clock>, filter: fn(&str) -> String) -> Arc<Self> {
        Arc::new(Self {
            clock,
            filter,
            state: Mutex::default(),
        })
    }

    /// The service answered as it should.
    pub fn answered(&self, service: &'static str) {
        let now = self.clock.now();
        let mut state = self.lock();
        let contact = state.contacts.entry(service).or_default();
        contact.last_success = Some(now);
        contact.reachable = Some(true);
    }

    /// The service could not be reached, or refused the account.
    pub fn unanswered(&self, service: &'static str, why: &impl fmt::Display) {
        let (now, text) = (self.clock.now(), self.kept(why));
        let mut state = self.lock();
        let contact = state.contacts.entry(service).or_default();
        contact.last_failure = Some((now, text));
        contact.reachable = Some(false);
    }

    /// Something went wrong at `place`.
    pub fn trouble(&self, label: Label, place: &impl fmt::Display, what: &impl fmt::Display) {
        let trouble = Trouble {
            at: self.clock.now(),
            place: self.kept(place),
            text: self.kept(what),
            times: 1,
        };
        let mut state = self.lock();
        *state.counts.entry(label).or_default() += 1;
        let last = state.troubles.back_mut();
        if let Some(last) = last.filter(|t| t.place == trouble.place && t.text == trouble.text) {
            last.at = trouble.at;
            last.times += 1;
            return;
        }
        if state.troubles.len() == MOST_TROUBLES {
            state.troubles.pop_front();
        }
        state.troubles.push_back(trouble);
    }

    /// Everything that was recorded until now.
    pub fn record(&self) -> Record {
        let state = self.lock();
        Record {
            contacts: state.contacts.clone(),
            counts: state.counts.clone(),
            troubles: state.troubles.iter().rev().cloned().collect(),
        }
    }

    /// A text as it may be shown.
    pub fn filtered(&self, text: &str) -> String {
        (self.filter)(text)
    }

    fn kept(&self, what: &impl fmt::Display) -> String {
        let mut text = self.filtered(&what.to_string());
        if text.len() > MOST_TEXT_BYTES {
            let end = (0..=MOST_TEXT_BYTES).rfind(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::time::Duration;

    const LABEL: Label = Label {
        service: "runway",
        kind: "unavailable",
    };

    fn health() -> (Arc<ManualClock>, Arc<Health>) {
        let clock = Arc::new(ManualClock::at(SystemTime::UNIX_EPOCH));
        let health = Health::new(Arc::clone(&clock) as Arc<_>, |text| {
            text.replace("s3cret", "[cut]")
        });
        (clock, health)
    }

    #[test]
    fn the_later_of_success_and_failure_says_whether_a_service_is_reachable() {
        let (clock, health) = health();
        assert!(health.record().contacts.is_empty());
        health.unanswered("runway", &"refused");
        clock.advance(Duration::from_secs(1));
        health.answered("runway");
        let contact = &health.record().contacts["runway"];
        assert_eq!(contact.reachable, Some(true));
        let failure = (SystemTime::UNIX_EPOCH, "refused".to_string());
        assert_eq!(contact.last_failure, Some(failure));
        health.unanswered("runway", &"refused");
        assert_eq!(health.record().contacts["runway"].reachable, Some(false));
    }

    #[test]
    fn troubles_are_bounded_and_counted_beyond_that() {
        let (_, health) = health();
        for n in 0..100 {
            health.trouble(LABEL, &format!("file {n}"), &"broken");
        }
        let record = health.record();
        assert_eq!(record.troubles.len(), MOST_TROUBLES);
        assert_eq!(record.troubles[0].place, "file 99", "the newest first");
        assert_eq!(record.counts[&LABEL], 100);
    }

    #[test]
    fn the_same_trouble_again_takes_no_second_place() {
        let (clock, health) = health();
        health.trouble(LABEL, &"a", &"broken");
        clock.advance(Duration::from_secs(9));
        health.trouble(LABEL, &"a", &"broken");
        let troubles = health.record().troubles;
        assert_eq!(troubles.len(), 1);
        assert_eq!(troubles[0].times, 2);
        assert_eq!(
            troubles[0].at,
            SystemTime::UNIX_EPOCH + Duration::from_secs(9)
        );
    }

    #[test]
    fn every_text_passes_the_filter_and_is_cut() {
        let (_, health) = health();
        health.trouble(LABEL, &"a s3cret file", &"ö".repeat(MOST_TEXT_BYTES));
        health.unanswered("ltx", &"the s3cret");
        let record = health.record();
        assert_eq!(record.troubles[0].place, "a [cut] file");
        assert!(record.troubles[0].text.len() <= MOST_TEXT_BYTES + '…'.len_utf8());
        let (_, why) = record.contacts["ltx"].last_failure.clone().unwrap();
        assert_eq!(why, "the [cut]");
    }
}
