//! [`Mappings`]: a guest's share of the mappings that the kernel allows the process.
//!
//! Linux refuses a process more than `vm.max_map_count` mappings, the host's own among them. A region, a hole and a protection
//! each begin and end some, so that a few guests could take all, and memory of others no longer be mapped, nor grown.
//!
//! Invariants:
//! - what a guest takes is counted too high at most, up to what the kernel says when it is asked;
//! - an entry of its map counts as [`OF_ENTRY`], whatever the kernel says: it may be given up at any time, which has to work;
//! - [`MAPPINGS_MIN`] are a guest's own, whatever others have; what it takes beyond is also counted for all together.

use std::{
    fs::{File, read_to_string},
    io::{BufRead, BufReader, Result},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use vmsync_core::memory::MemoryError;

use crate::limits::{MAPPINGS_MIN, MAPPINGS_PART, MAPPINGS_PART_ALL};

/// The least that a call makes room for: it begins a mapping and ends one, each in the midst of another.
const OF_CALL: usize = 2;

/// An entry of the map and the hole behind it, where there may be one at once.
const OF_ENTRY: usize = 2;

/// How many mappings the kernel allows a process; `None`: any number.
static MAPPINGS_MAX: LazyLock<Option<usize>> = LazyLock::new(|| {
    let text = read_to_string("/proc/sys/vm/max_map_count").ok()?;
    text.trim().parse().ok()
});

/// What all guests of the process take beyond [`MAPPINGS_MIN`] each.
static BEYOND: AtomicUsize = AtomicUsize::new(0);

/// See the head of the file.
pub(crate) struct Mappings {
    addresses: Range<usize>,
    taken: usize,
    /// The kernel is asked before so many are taken.
    trusted: usize,
    /// `taken` is what the kernel said, and nothing has changed since: asking again is of no use, and takes long where the process
    /// has many mappings.
    known: bool,
}

impl Mappings {
    /// Those of the memory at `addresses`.
    pub fn new(addresses: Range<usize>) -> Self {
        Self {
            addresses,
            taken: 0,
            trusted: MAPPINGS_MIN,
            known: false,
        }
    }

    /// Makes room for a call that takes a few more, of a guest whose map has `entries`.
    ///
    /// # Errors
    /// The guest, or all together, have taken what they may.
    pub fn make_room(&mut self, entries: usize) -> std::result::Result<(), MemoryError> {
        let Some(max) = *MAPPINGS_MAX else { return Ok(()) };
        let least = OF_ENTRY * entries;
        let wanted = self.taken.max(least) + OF_CALL;
        let is_certain = self.known || !self.has_room(least + OF_CALL, max);
        if !is_certain && (wanted > self.trusted || !self.has_room(wanted, max)) {
            self.look(least);
        }
        let wanted = self.taken.max(least) + OF_CALL;
        if self.has_room(wanted, max) {
            self.take(wanted);
            self.known = false;
            return Ok(());
        }
        let message = format!(
            "{} mappings of {max} are taken (see vm.max_map_count): give regions up",
            wanted - OF_CALL
        );
        Err(MemoryError { message })
    }

    /// Some may have become one: the guest has given something up, or the tracker has.
    pub fn may_have_joined(&mut self) {
        self.known = false;
    }

    fn has_room(&self, wanted: usize, max: usize) -> bool {
        let others = BEYOND.load(Ordering::Relaxed).saturating_sub(beyond(self.taken));
        beyond(wanted) == 0
            || wanted <= max / MAPPINGS_PART && others + beyond(wanted) <= max / MAPPINGS_PART_ALL
    }

    /// Asks the kernel: neighbours that became alike are one mapping, and calls seldom take all that they may.
    fn look(&mut self, least: usize) {
        if let Ok(counted) = count(&self.addresses) {
            let taken = counted.max(least);
            self.take(taken);
            self.trusted = MAPPINGS_MIN.max(2 * taken);
            self.known = true;
        }
    }

    fn take(&mut self, taken: usize) {
        BEYOND.fetch_add(beyond(taken), Ordering::Relaxed);
        BEYOND.fetch_sub(beyond(self.taken), Ordering::Relaxed);
        self.taken = taken;
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        self.take(0);
    }
}

fn beyond(taken: usize) -> usize {
    taken.saturating_sub(MAPPINGS_MIN)
}

/// How many mappings reach into `addresses`.
fn count(addresses: &Range<usize>) -> Result<usize> {
    let mut found = 0;
    for line in BufReader::new(File::open("/proc/self/maps")?).lines() {
        let line = line?;
        let ends = line.split_once(' ').and_then(|(ends, _)| ends.split_once('-'));
        let ends =
            ends.map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)));
        // Of a line that says something else nothing is known: it counts.
        let (start, end) = match ends {
            Some((Ok(start), Ok(end))) => (start, end),
            _ => (addresses.start, addresses.end),
        };
        if start >= addresses.end {
            break;
        }
        found += usize::from(end > addresses.start);
    }
    Ok(found)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::ptr::null_mut;

    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

    use super::*;

    /// Pages of which every other one can be protected otherwise.
    struct Pages {
        base: *mut std::ffi::c_void,
        count: usize,
    }

    impl Pages {
        fn new(count: usize) -> Self {
            let bytes = count * rustix::param::page_size();
            // SAFETY: a new mapping at an address that the kernel chooses.
            let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::READ, MapFlags::PRIVATE) };
            let base = base.expect("address space");
            Self { base, count }
        }

        fn addresses(&self) -> Range<usize> {
            self.base.addr()..self.base.addr() + self.count * rustix::param::page_size()
        }

        fn protect_every_other(&self, flags: MprotectFlags) {
            let page = rustix::param::page_size();
            for index in (1..self.count).step_by(2) {
                // SAFETY: a page of the mapping, which nobody uses.
                unsafe { mprotect(self.base.byte_add(index * page), page, flags) }.expect("mappings enough");
            }
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the mapping is this value's own.
            unsafe { munmap(self.base, self.addresses().len()) }.expect("it is there");
        }
    }

    #[test]
    fn what_became_one_mapping_is_counted_as_one() {
        let pages = Pages::new(64);
        assert_eq!(count(&pages.addresses()).expect("Linux tells"), 1);
        pages.protect_every_other(MprotectFlags::empty());
        assert_eq!(count(&pages.addresses()).expect("Linux tells"), 64);
        pages.protect_every_other(MprotectFlags::READ);
        // As many calls as a guest likes, where they leave one mapping behind.
        let mut mappings = Mappings::new(pages.addresses());
        for _ in 0..100_000 {
            mappings.make_room(1).expect("one mapping");
        }
        assert!(mappings.taken <= MAPPINGS_MIN);
    }

    #[test]
    fn who_was_refused_gives_something_up_before_the_kernel_is_asked_again() {
        let Some(max) = *MAPPINGS_MAX else { return };
        let pages = Pages::new(max / MAPPINGS_PART + 2);
        pages.protect_every_other(MprotectFlags::empty());
        let mut mappings = Mappings::new(pages.addresses());
        while mappings.make_room(1).is_ok() {}
        pages.protect_every_other(MprotectFlags::READ);
        assert!(mappings.make_room(1).is_err(), "nobody has asked");
        mappings.may_have_joined();
        mappings.make_room(1).expect("one mapping");
        // Of what the kernel says nothing a guest is refused without asking, too.
        let refused = mappings.make_room(max).expect_err("too many entries");
        assert!(refused.message.contains("mappings"), "{}", refused.message);
        assert!(!mappings.known);
    }
}
