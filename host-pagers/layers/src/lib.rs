//! Pagers over pagers: each changes one thing and passes everything else on. They stack in any order.
//!
//! ```
//! use std::sync::Arc;
//! use vmsync_core::PageSize;
//! use vmsync_pager_layers::{Compress, Counted, Encrypt, Key, Pages};
//! use vmsync_pager_memory::MemoryPager;
//!
//! let store = Arc::new(MemoryPager::default());
//! let sealed = Encrypt::over(store, Pages::new(PageSize::KIB_16, PageSize::KIB_4), vec![Key::new([7; 32])]);
//! let small = Compress::over(Arc::new(sealed), Pages::new(PageSize::KIB_64, PageSize::KIB_16));
//! let counted = Counted::over(Arc::new(small));
//! assert_eq!(counted.counts().synchronizes, 0);
//! ```
//!
//! ```text
//!   runtime --> Counted --> Recoding<Compress> --> Recoding<Encrypt> --> a store
//!                                |
//!                                '-- a page of 64 KiB becomes a slot of pages of the pager below
//! ```
//!
//! Invariants:
//! - what is durable, and when, is what the pager at the bottom says; [`Cache`] keeps copies, the others no page;
//! - a call stays one call, so it commits as a whole however many layers it passes;
//! - the page of one layer never depends on another page, so a failed call leaves the others readable.
//!
//! Non-goals: images to map (bytes differ from pages), hiding sizes and the times of changes.
#![forbid(unsafe_code)]

mod cache;
mod compress;
mod encrypt;
mod limits;
mod recode;
mod stats;

pub use cache::Cache;
pub use compress::Compress;
pub use encrypt::{Encrypt, Key};
pub use recode::{Codec, Pages, Recoding};
pub use stats::{Counted, Counts};
