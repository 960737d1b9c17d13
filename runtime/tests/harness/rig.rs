//! [`Rig`]: a sandbox with logged pagers behind its grants.
//!
//! Grants: `a` and `b` are objects of one pager, `c` is one of another. A log line is one request of the runtime, with
//! pages of the object:
//!
//! ```text
//!   a return 1..3 dirty kept      data_return of pages 1 and 2 (or: clean, dropped)
//!   a sync 0..4 now more          synchronize (or: later, for an asynchronous one; without "more": the last)
//!   a request 0..4                data_request
//!   abort | a unmap | a terminate
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use vmsync::{
    Grant, ObjectName, PagerError, PagerErrorKind, Sandbox, TrackerKind,
    pager::{MemoryObjectControl, ObjectId},
};
use vmsync_pager_conformance::{Event, ScriptedPager};
use vmsync_pager_memory::{MemoryPager, Options, Supply};

use super::{Guest, P, Width};

/// What a rig is made of.
#[derive(Clone, Copy, Debug)]
pub struct RigOptions {
    /// Whether supplied pages are precious.
    pub supply: Supply,
    /// How long calls wait for a pager.
    pub pager_time_out: Duration,
}

impl Default for RigOptions {
    fn default() -> Self {
        Self {
            supply: Supply::Copy,
            pager_time_out: Duration::from_secs(20),
        }
    }
}

/// Precious pages.
pub const PRECIOUS: RigOptions = RigOptions {
    supply: Supply::Move,
    pager_time_out: Duration::from_secs(20),
};

/// Calls give up soon.
pub const IMPATIENT: RigOptions = RigOptions {
    supply: Supply::Copy,
    pager_time_out: Duration::from_millis(50),
};

/// Calls never give up.
pub const PATIENT: RigOptions = RigOptions {
    supply: Supply::Copy,
    pager_time_out: Duration::MAX,
};

/// A sandbox with everything behind it.
pub struct Rig {
    /// The rung.
    pub kind: TrackerKind,
    /// What is committed.
    pub store: Arc<MemoryPager>,
    /// In front of `store`: `a` and `b`.
    pub pager: Arc<ScriptedPager>,
    /// In front of a store of its own: `c`.
    pub other: Arc<ScriptedPager>,
    /// With grants for all of them.
    pub sandbox: Sandbox,
    names: Mutex<HashMap<ObjectId, String>>,
}

/// The object's name; tests use good ones only.
pub fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("a good name")
}

/// An error of `kind`.
pub fn error(kind: PagerErrorKind) -> PagerError {
    PagerError::new(kind, format!("{kind:?}, as the test asked for"))
}

impl Rig {
    /// A rig for the rung `kind`.
    pub fn new(kind: TrackerKind, options: RigOptions) -> Self {
        let supply = Options {
            supply: options.supply,
        };
        Self::over(kind, options, Arc::new(MemoryPager::new(supply)))
    }

    /// Another sandbox over what `self` has committed, as after a restart.
    pub fn restarted(&self, options: RigOptions) -> Self {
        Self::over(self.kind, options, self.store.clone())
    }

    fn over(kind: TrackerKind, options: RigOptions, store: Arc<MemoryPager>) -> Self {
        let pager = Arc::new(ScriptedPager::new(store.clone()));
        let other = Arc::new(ScriptedPager::new(Arc::new(MemoryPager::default())));
        let mut builder = Sandbox::builder()
            .tracker(kind)
            .pager_time_out(options.pager_time_out);
        for object in ["a", "b"] {
            builder = builder.grant(object, Grant::new(pager.clone(), name(object)));
        }
        let sandbox = builder.grant("c", Grant::new(other.clone(), name("c"))).build();
        Self {
            kind,
            store,
            pager,
            other,
            sandbox: sandbox.expect("an engine can be made"),
            names: Mutex::default(),
        }
    }

    /// A guest with a 32-bit memory.
    pub fn guest(&self) -> Guest {
        Guest::new(&self.sandbox, Width::Bits32)
    }

    /// A guest with `a` mapped at [`super::BASE`], and the log empty.
    pub fn region(&self, pages: u64) -> Guest {
        self.region_of(Width::Bits32, pages)
    }

    /// The same for either width.
    pub fn region_of(&self, width: Width, pages: u64) -> Guest {
        let mut guest = Guest::new(&self.sandbox, width);
        guest.map_region("a", pages);
        self.log();
        guest
    }

    /// What is committed of `object` in the middle of `page`.
    pub fn committed(&self, object: &str, page: u64) -> u64 {
        let contents = self.store.contents(&name(object)).unwrap_or_default();
        contents
            .get((page * P + 100) as usize)
            .map_or(0, |byte| u64::from(*byte))
    }

    /// The way of `object`'s pager back to the runtime.
    pub fn control(&self, object: &str) -> Arc<dyn MemoryObjectControl> {
        self.log();
        let names = self.names.lock().expect("no test panics with it");
        names
            .iter()
            .filter(|(_, other)| *other == object)
            .find_map(|(id, _)| self.pager.control(*id).or_else(|| self.other.control(*id)))
            .expect("the object is open")
    }

    /// What the first pager was sent since the last look.
    pub fn log(&self) -> Vec<String> {
        self.log_of(&self.pager)
    }

    /// What `pager` was sent since the last look.
    pub fn log_of(&self, pager: &ScriptedPager) -> Vec<String> {
        let mut names = self.names.lock().expect("no test panics with it");
        let events = pager.take_log();
        events
            .iter()
            .filter_map(|event| render(event, &mut names))
            .collect()
    }

    /// # Panics
    /// When the first pager was sent something else since the last look.
    #[track_caller]
    pub fn assert_log(&self, guest: &Guest, expected: &[&str]) {
        self.assert_log_of(&self.pager, guest, expected);
    }

    /// # Panics
    /// When `pager` was sent something else since the last look.
    #[track_caller]
    pub fn assert_log_of(&self, pager: &ScriptedPager, guest: &Guest, expected: &[&str]) {
        let found = self.log_of(pager);
        let expected: Vec<String> = expected.iter().map(|line| String::from(*line)).collect();
        if !guest.inner.vm().reports_superset() {
            assert_eq!(found, expected);
            return;
        }
        let (returned, rest) = split(&found);
        let (wanted, wanted_rest) = split(&expected);
        assert_eq!(rest, wanted_rest, "{found:?}");
        let missing: Vec<_> = wanted.difference(&returned).collect();
        assert!(missing.is_empty(), "{missing:?} missing in {found:?}");
        let untouched = wanted.is_empty() && !returned.is_empty();
        assert!(!untouched, "nothing was stored to: {found:?}");
    }
}

/// The line of `event`, if it has one.
fn render(event: &Event, names: &mut HashMap<ObjectId, String>) -> Option<String> {
    let pages = |range: &vmsync::ByteRange| {
        assert!(
            range.start.is_multiple_of(P) && range.end.is_multiple_of(P),
            "whole pages: {range}"
        );
        format!("{}..{}", range.start / P, range.end / P)
    };
    let line = match event {
        Event::Init { object, name } => {
            names.insert(*object, name.as_str().into());
            return None;
        }
        Event::Map { .. } => return None,
        Event::DataRequest { object, range } => format!("{} request {}", names[object], pages(range)),
        Event::DataReturn {
            object, range, flags, ..
        } => {
            let kind = if flags.dirty { "dirty" } else { "clean" };
            let copy = if flags.kernel_copy { "kept" } else { "dropped" };
            format!("{} return {} {kind} {copy}", names[object], pages(range))
        }
        Event::Synchronize {
            object, range, flags, ..
        } => {
            let when = if flags.synchronous { "now" } else { "later" };
            let more = if flags.more { " more" } else { "" };
            format!("{} sync {} {when}{more}", names[object], pages(range))
        }
        Event::Abort { .. } => "abort".into(),
        Event::LastUnmap { object } => format!("{} unmap", names[object]),
        Event::Terminate { object } => format!("{} terminate", names[object]),
    };
    Some(line)
}

/// The returned pages, each with its object and flags, and the other lines.
fn split(lines: &[String]) -> (BTreeSet<(String, u64)>, Vec<String>) {
    let mut returned = BTreeSet::new();
    let mut rest = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        if let [object, "return", range, kind, copy] = words[..] {
            let (start, end) = range.split_once("..").expect("a range");
            let [start, end] = [start, end].map(|page| page.parse::<u64>().expect("a page"));
            for page in start..end {
                returned.insert((format!("{object} {kind} {copy}"), page));
            }
        } else {
            rest.push(line.clone());
        }
    }
    (returned, rest)
}
