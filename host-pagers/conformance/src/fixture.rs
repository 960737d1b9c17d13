//! [`Fixture`]: one store and how to open it.
//!
//! Invariant: at most one opening of the store is alive.

use std::sync::Arc;

use vmsync_core::{PageSize, pager::Pager};

/// One store under test.
pub struct Fixture {
    open: Option<Box<dyn FnMut() -> Arc<dyn Pager>>>,
    pager: Option<Arc<dyn Pager>>,
    page_size: PageSize,
}

impl Fixture {
    /// A store that outlives its pager: `open` opens the same store each time, after the last opening was dropped.
    pub fn durable(mut open: impl FnMut() -> Arc<dyn Pager> + 'static) -> Self {
        let pager = Some(open());
        Self {
            open: Some(Box::new(open)),
            pager,
            page_size: PageSize::KIB_4,
        }
    }

    /// A store that ends with its pager; what needs a second opening is not checked.
    pub fn ephemeral(pager: Arc<dyn Pager>) -> Self {
        Self {
            open: None,
            pager: Some(pager),
            page_size: PageSize::KIB_4,
        }
    }

    /// The same with another page size than 4 KiB.
    #[must_use]
    pub fn with_page_size(self, page_size: PageSize) -> Self {
        Self { page_size, ..self }
    }

    /// The pager of the current opening.
    pub fn pager(&self) -> Arc<dyn Pager> {
        self.pager.clone().expect("always open between calls")
    }

    /// The page size of the checks.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Whether [`Fixture::reopen`] does something.
    pub fn is_durable(&self) -> bool {
        self.open.is_some()
    }

    /// Drops the pager, without terminating its objects, and opens the store again. An ephemeral one stays.
    ///
    /// # Panics
    /// When the test holds on to the pager: then the store is still open.
    pub fn reopen(&mut self) {
        let Some(open) = &mut self.open else { return };
        let pager = self.pager.take().expect("always open between calls");
        assert_eq!(
            Arc::strong_count(&pager),
            1,
            "a test kept the pager over a reopening"
        );
        drop(pager);
        self.pager = Some(open());
    }
}
