//! The binary interface between a guest and its host: numbers, flags, results and wire structs of the import
//! module [`MODULE`].
//!
//! Host and guest SDK both depend on this crate and on nothing below it, so a number is written down once.
//! Names and values are Mach's (`vm_statistics.h`, `kern_return.h`, `vm_sync.h`), not Linux's: `MS_SYNC` is 4 on
//! Linux, which here is [`VmSync::INVALIDATE`]. A POSIX shim translates by name.
//!
//! Invariants:
//! - no dependencies, `no_std`;
//! - wire structs are `repr(C)`, little-endian, without padding, of the same layout for 32- and 64-bit memories.
#![no_std]

mod flags;
mod kern_return;
mod wire;

pub use flags::{Behavior, Inherit, OpenFlags, VmFlags, VmProt, VmSync};
pub use kern_return::KernReturn;
pub use wire::{ObjectInfo, ObjectInfoFlags, RegionInfo};

/// The import module; its digit is the version of this interface.
pub const MODULE: &str = "vmsync1";

/// The port of the calling task, as `mach_task_self` returns it.
pub const TASK_SELF: u32 = 1;

/// The null port: no task, or no memory object (anonymous memory).
pub const PORT_NULL: u32 = 0;

/// The longest name of a memory object, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
