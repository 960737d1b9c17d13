//! [`Sums`]: the newest checksums of an object's pages, until a checkpoint writes them.
//!
//! A commit only appends; whoever needs them sorts them, which takes a fraction of what keeping them sorted would, and no
//! commit waits for it. How many there are is bounded by the journal, which has each of them in an entry.
//!
//! Invariant: of several sums of a page the last counts.

/// See the head of the file.
#[derive(Clone, Default)]
pub(crate) struct Sums(Vec<(u64, u64)>);

impl Sums {
    /// `page` has `sum` from now on.
    pub(crate) fn set(&mut self, page: u64, sum: u64) {
        match self.0.last_mut() {
            Some(last) if last.0 == page => last.1 = sum,
            _ => self.0.push((page, sum)),
        }
    }

    /// Sets all that is in `newer`.
    pub(crate) fn append(&mut self, newer: &mut Self) {
        self.0.append(&mut newer.0);
    }

    /// Pages with their sums, ascending.
    pub(crate) fn sorted(&mut self) -> &[(u64, u64)] {
        self.0.sort_by_key(|(page, _)| *page);
        // Of equal neighbours the first is kept, so it takes over what the later ones say.
        self.0.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = next.1;
            }
            same
        });
        &self.0
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vmsync_pager_conformance::random::Random;

    use super::*;

    #[test]
    fn the_last_sum_of_each_page_counts() {
        let mut random = Random::from_environment("sums");
        for _ in 0..200 {
            let (mut sums, mut model) = (Sums::default(), BTreeMap::new());
            for _ in 0..random.below(4) {
                let mut newer = Sums::default();
                for _ in 0..random.below(100) {
                    let (page, sum) = (random.below(20), random.below(1000));
                    newer.set(page, sum);
                    model.insert(page, sum);
                }
                if random.below(2) == 0 {
                    newer.sorted();
                }
                sums.append(&mut newer);
            }
            assert_eq!(sums.is_empty(), model.is_empty());
            assert!(sums.sorted().iter().copied().eq(model));
        }
    }
}
