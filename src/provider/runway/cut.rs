//! How a library is cut into pages, within what the API's page allows. Pure.

/// The page's largest `limit`.
pub(super) const PAGE: usize = 50;
/// The page's largest `offset`.
pub(super) const LAST_OFFSET: usize = 1000;

/// One way to cut it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Assets a page.
    pub(super) limit: usize,
}

impl Cut {
    /// Pages start one less than their length apart, so that each begins with the last asset of
    /// the one before.
    pub(super) fn step(self) -> usize {
        (self.limit - 1).max(1)
    }

    /// With 50 a page: 0, 49, ..., 980 are 21 pages, and 1000 is the last.
    pub(super) fn pages(self) -> usize {
        LAST_OFFSET.div_ceil(self.step()) + 1
    }

    pub(super) fn offset(self, number: usize) -> usize {
        (number * self.step()).min(LAST_OFFSET)
    }
}
