//! A disk that fails: what was reported as durable stays, what failed is not supplied and never comes back after a later success,
//! and a healed disk is used again.

#[path = "../common/mod.rs"]
mod common;

mod everywhere;
mod full;
mod images;
mod queued;
mod records;
mod segments;
