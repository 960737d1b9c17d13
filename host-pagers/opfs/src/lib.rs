//! A [`Disk`](vmsync_pager_file::disk::Disk) of synchronous access handles, so that the file store runs in a browser's
//! origin private file system, with the same bytes as in a folder.
//!
//! ```text
//!   FileStore (vmsync-pager-file) --> OpfsDisk --> pool of open files   each: a header with its name, then its bytes
//!                                                    '-- handle.rs      handles live in a table of the worker
//! ```
//!
//! Opening a file takes a promise there, and the store cannot wait for one in the middle of a guest's call. So files are
//! made and opened ahead, and *named* when the store asks for one. [`OpfsDisk::reserve`] makes more, between calls.
//!
//! Handles are exclusive: whoever holds the pool's files has the store, and a second tab is refused with
//! [`Busy`](vmsync_core::PagerErrorKind::Busy). They end with their worker, so a crash leaves none behind.
//!
//! Not promised: that a browser makes the *creation* of a file durable at once. A power cut within seconds after a pool
//! was made can lose it whole; what was synced to files that existed is as durable as the browser's `flush` makes it.
#![forbid(unsafe_code)]

pub mod handle;
mod header;
pub mod limits;
mod pool;

pub use pool::OpfsDisk;
