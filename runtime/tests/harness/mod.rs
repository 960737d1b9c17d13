//! What the tests of the facade share: a guest that does what it is told, and the logs of the pagers behind it.
//!
//! ```text
//!   test --> Guest (generic32.wat or generic64.wat under Wasmtime) --> vmsync --> ScriptedPager (log) --> MemoryPager
//! ```
//!
//! Invariants:
//! - every test body runs once for each rung that works here, against a fixture of its own;
//! - where a rung may report more pages than were stored to, [`Rig::assert_log`] asks for at least the expected ones.

// Each test binary uses its own part.
#![allow(dead_code)]

pub mod guest;
pub mod own;
pub mod rig;
pub mod task;

use std::sync::OnceLock;

use vmsync::TrackerKind;

pub use guest::{Guest, Width};
pub use rig::{Rig, RigOptions};

/// The page of the VM, in bytes.
pub const P: u64 = 4096;

/// Where tests map their first region: page 256 of linear memory.
pub const BASE: u64 = 1 << 20;

/// Where drivers put names and out parameters; no test maps anything over it.
pub const SCRATCH: u64 = 1024;

/// The rungs that work here; the others are named with their reasons, once.
pub fn rungs() -> &'static [TrackerKind] {
    static RUNGS: OnceLock<Vec<TrackerKind>> = OnceLock::new();
    RUNGS.get_or_init(|| {
        let mut kinds = Vec::new();
        for rung in vmsync::probe() {
            match rung.available {
                Ok(()) => kinds.push(rung.kind),
                Err(why) => eprintln!("{}: not here: {why}", rung.kind),
            }
        }
        kinds
    })
}

/// Runs `body` under every rung.
pub fn each(body: impl Fn(&Rig)) {
    each_with(RigOptions::default(), body);
}

/// Runs `body` under every rung, with other pagers than usual; under the first rung also with guests that are called as tasks
/// call them.
pub fn each_with(options: RigOptions, body: impl Fn(&Rig)) {
    for kind in rungs() {
        println!("{kind}");
        body(&Rig::new(*kind, options));
    }
    println!("{}, tasks", rungs()[0]);
    task::with_tasks(|| body(&Rig::new(rungs()[0], options)));
}

/// Runs `body` under every rung for guests with a 32-bit memory, and for those with a 64-bit one where the width makes a
/// difference: instrumented, or not.
pub fn each_width(body: impl Fn(&Rig, Width)) {
    for (index, kind) in rungs().iter().enumerate() {
        println!("{kind}");
        body(&Rig::new(*kind, RigOptions::default()), Width::Bits32);
        if index == 0 || *kind == TrackerKind::Barrier {
            println!("{kind}, 64 bits");
            body(&Rig::new(*kind, RigOptions::default()), Width::Bits64);
        }
    }
}
