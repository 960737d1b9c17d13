//! A deterministic simulator of the file store: random tasks, failing disks, and a power cut before every single
//! change of the disk.
//!
//! ```text
//!   seed --> Shape: how large everything is   [shape]
//!        --> run --> Life: tasks take turns on a store on a SimDisk   [life, store, task, disk]
//!                     |      trace of the disk, history of what was promised and when   [history]
//!                     v
//!                   cut_everywhere: replays the trace onto a Platter, and before each change ...   [platter, cuts]
//!                     |-- each surviving image --> verify, open, read --> judged by the history
//!                     '-- now and then, damaged --> must be told   [damage]
//!                     next life on one of the images, three in a row
//!   canary: the same with a bug in the trace, which must be found   [canary]
//! ```
//!
//! # What is promised
//!
//! After any cut all objects together read as after one and the same step: the last one that was reported as durable,
//! or a later one that had begun. A call that failed counts as begun until something later is reported as durable, be it a call
//! that returned nothing. What it returned is committed when it is returned again.
//!
//! A read that fails is told, by opening and verifying too, and changes nothing: when reads work again, all is there.
//!
//! # The fault model
//!
//! To be survived, in any combination that a seed makes:
//!
//! | fault | here |
//! |---|---|
//! | power cut | before every write, length, sync, creation and removal, and after the last |
//! | lost, reordered unsynced writes | every subset of up to six pending changes, samples of more; names and lengths too |
//! | torn write | first, last or any sectors of 512 bytes of one write arrive; every fourth seed has catalogs, every 32nd checksums of several |
//! | killed process | at any operation, also of a recovery: its writes stay in the cache, unsynced; the next process goes on; then the power goes |
//! | `EIO`, `ENOSPC` | one to four operations in a row fail; of a write any sectors arrive |
//! | a bad file, a full disk | for 80 operations all that is done to one kind of file fails, or to one segment or object; or its writes fail while its syncs succeed, or the reverse; or all that makes a file longer fails |
//! | faults of an opening | the same, and failing reads, from before a life's first opening on; further attempts go on with what the failed one left |
//! | short write | the first half arrives, and an error |
//! | `EIO` of reads | one to four reads, lengths, lists or openings of files in a row fail, or for long those of one kind of file, while tasks run; one, while a disk is verified or opened |
//! | false alarm | everything is done, and an error |
//! | failed sync | some pending writes arrive, of some only sectors, the others never will; reads still see them all |
//! | cut during recovery | a life begins with a recovery, and is cut everywhere as well; so are three behind it, each of what a cut of the one before left |
//!
//! To be told, by opening or verifying, or to hit nothing that counts:
//!
//! | fault | here |
//! |---|---|
//! | bit rot | one bit of any file; of the header or a record of the newest segment |
//! | misdirected write | a sector or block of one file over one of the same or another |
//! | phantom write | a sector that reads as zeroes |
//! | truncation, loss | a file is cut, or missing |
//!
//! The journal's end is the exception: a damaged last record looks torn, and the state before it is accepted, or before the
//! first record that the same damage hit. The images may tell nevertheless, and mostly do; a mix is never accepted.
//! A store that has no image yet, or none whose name survived, and loses `STORE`, looks like an interrupted creation:
//! that is accepted as well.
//!
//! Neither: a sync that reports success and does nothing. No store on one disk survives it; here it is a canary, and what it
//! loses is damage to be told.
//!
//! Each fault has a bug that must be found ([`canary`]): a store that forgets a sync, ignores a failure, or is not verified. So does
//! each order of steps without which a power cut breaks the promise.
//!
//! # Invariants
//!
//! - the same seed is the same run, byte for byte;
//! - no clock, no thread and no operating system take part in a run;
//! - the disk and the model are the simulator's own: a bug in the store's test disk cannot hide one in the store.
//!
//! Non-goals: several processes on one store, real concurrency, a page cache that forgets what a failed sync lost.
#![forbid(unsafe_code)]

pub mod canary;
pub mod cuts;
pub mod damage;
pub mod disk;
pub mod history;
pub mod life;
pub mod limits;
pub mod platter;
pub mod random;
pub mod run;
pub mod shape;
pub mod store;
pub mod task;
