//! Who may have how much of the memory for windows. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The memory that all windows of all files share. Each holder gets an equal part at least; one
/// that did not read for [`Budget::IDLE`] gives its part back.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    holders: HashMap<u64, (u64, Instant)>,
}

impl Budget {
    /// After so long without a read, a holder's share is free for others.
    pub const IDLE: Duration = Duration::from_secs(5);

    pub fn new(total: u64) -> Self {
        Self {
            total,
            holders: HashMap::new(),
        }
    }

    /// What `holder` may have from now on if it wants `wish` bytes. Never makes the sum exceed
    /// the total.
    pub fn grant(&mut self, holder: u64, wish: u64, now: Instant) -> u64 {
        self.holders
            .retain(|id, (_, at)| *id == holder || now.duration_since(*at) < Self::IDLE);
        self.holders.entry(holder).or_insert((0, now));
        let share = self.total / self.holders.len() as u64;
        let others: u64 = self
            .holders
            .iter()
            .filter(|(id, _)| **id != holder)
            .map(|(_, (bytes, _))| *bytes)
            .sum();
        let granted = wish.min(share).min(self.total.saturating_sub(others));
        self.holders.insert(holder, (granted, now));
        granted
    }

    /// What `holder` has.
    #[cfg(test)]
    pub fn held(&self, holder: u64) -> u64 {
        self.holders.get(&holder).map_or(0, |(bytes, _)| *bytes)
    }

    /// Gives back all that `holder` has.
    pub fn release(&mut self, holder: u64) {
        self.holders.remove(&holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_shared_equally_and_never_exceeded() {
        let start = Instant::now();
        let mut budget = Budget::new(100);
        assert_eq!(budget.grant(1, 500, start), 100);
        assert_eq!(budget.grant(2, 500, start), 0);
        assert_eq!(budget.grant(1, 500, start), 50);
        assert_eq!(budget.grant(2, 30, start), 30);
        assert_eq!(budget.grant(3, 500, start), 20);
    }

    #[test]
    fn an_idle_or_closed_holder_gives_its_share_back() {
        let start = Instant::now();
        let mut budget = Budget::new(100);
        budget.grant(1, 500, start);
        budget.grant(2, 500, start);
        assert_eq!(budget.grant(2, 500, start + Budget::IDLE), 100);
        budget.release(2);
        assert_eq!(budget.grant(3, 500, start + Budget::IDLE), 100);
    }
}
