//! [`Attached`]: the pages that a tracker watches, by what lies under them.
//!
//! Invariants: a page is in at most one of the two sets.

use vmsync_core::{PageRange, PageSet, tracker::Backing};

/// The watched pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached {
    files: PageSet,
    anonymous: PageSet,
}

impl Attached {
    /// Watches `pages`, over whatever was there before.
    pub fn insert(&mut self, pages: PageRange, backing: Backing) {
        self.remove(pages);
        match backing {
            Backing::PrivateFile => self.files.insert(pages),
            Backing::Anonymous => self.anonymous.insert(pages),
        }
    }

    /// Stops watching `pages`.
    pub fn remove(&mut self, pages: PageRange) {
        self.files.remove(pages);
        self.anonymous.remove(pages);
    }

    /// The watched runs inside `pages`, ascending, each with what lies under it.
    pub fn within(&self, pages: PageRange) -> Vec<(PageRange, Backing)> {
        let files = self.files.within(pages);
        let anonymous = self.anonymous.within(pages);
        let mut runs: Vec<_> = files
            .runs()
            .iter()
            .map(|run| (*run, Backing::PrivateFile))
            .collect();
        runs.extend(anonymous.runs().iter().map(|run| (*run, Backing::Anonymous)));
        runs.sort_unstable_by_key(|(run, _)| run.start);
        runs
    }

    /// Every watched run.
    pub fn all(&self) -> Vec<(PageRange, Backing)> {
        self.within(PageRange::new(0, u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_backing_of_a_page_counts() {
        let mut attached = Attached::default();
        attached.insert(PageRange::new(0, 8), Backing::PrivateFile);
        attached.insert(PageRange::new(2, 4), Backing::Anonymous);
        attached.remove(PageRange::new(6, 7));
        assert_eq!(
            attached.all(),
            [
                (PageRange::new(0, 2), Backing::PrivateFile),
                (PageRange::new(2, 4), Backing::Anonymous),
                (PageRange::new(4, 6), Backing::PrivateFile),
                (PageRange::new(7, 8), Backing::PrivateFile),
            ]
        );
        assert!(attached.within(PageRange::new(6, 7)).is_empty());
    }
}
