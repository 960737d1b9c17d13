//! [`Buffer`]: bytes of returned pages, recycled where they are a single page.
//!
//! A call may return thousands of pages one by one. Their memory is given back by another thread, much later, and in
//! another order, which is what general allocators are worst at.
//!
//! Invariants: a buffer that was recycled is not larger than a page, and [`Pool`] keeps a bounded number of them.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use crate::{limits::POOL_PAGES_MAX, store::lock};

/// Buffers that wait for their next use.
pub(crate) struct Pool {
    page_bytes: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

/// Immutable bytes.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A pool of buffers of `page_bytes` bytes.
    pub(crate) fn new(page_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            page_bytes,
            free: Mutex::default(),
        })
    }

    /// A copy of `bytes`.
    pub(crate) fn copy(self: &Arc<Self>, bytes: &[u8]) -> Arc<Buffer> {
        let recycled = if bytes.len() == self.page_bytes {
            lock(&self.free).pop()
        } else {
            None
        };
        let mut copy = recycled.unwrap_or_else(|| Vec::with_capacity(bytes.len()));
        copy.clear();
        copy.extend_from_slice(bytes);
        Arc::new(Buffer {
            bytes: copy,
            pool: self.clone(),
        })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == self.pool.page_bytes {
            let mut free = lock(&self.pool.free);
            if free.len() < POOL_PAGES_MAX {
                free.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_recycled_and_shows_its_new_bytes_only() {
        let pool = Pool::new(64);
        let first = pool.copy(&[1; 64]);
        let place = first.as_ptr();
        drop(first);
        let second = pool.copy(&[2; 64]);
        assert_eq!(second.as_ptr(), place);
        assert!(**second == [2; 64]);
        drop(pool.copy(&[3; 128]));
        assert!(lock(&pool.free).is_empty(), "runs of pages are not kept");
    }

    #[test]
    fn a_pool_keeps_a_bounded_number() {
        let pool = Pool::new(64);
        let all: Vec<_> = (0..POOL_PAGES_MAX + 10).map(|_| pool.copy(&[1; 64])).collect();
        drop(all);
        assert_eq!(lock(&pool.free).len(), POOL_PAGES_MAX);
    }
}
