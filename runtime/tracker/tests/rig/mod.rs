//! The rig that every rung is tested in: a private mapping with a tracker on it, and the ways to write to it.
//!
//! Invariants: every write stores bytes that were never there before, so that a rung that compares sees it too.
#![allow(dead_code, unused_macros, reason = "each test binary uses its part")]

pub mod random;
pub mod swap;

use std::{
    fs::File,
    io::{IoSliceMut, PipeWriter, Write},
    os::{
        fd::AsFd,
        unix::{fs::FileExt, process::CommandExt},
    },
    process::Command,
    ptr,
    sync::atomic::{AtomicU8, Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags, madvise, mmap, mmap_anonymous, munmap, userfaultfd},
};
use vmsync_core::{
    ByteRange, PageRange, PageSet, PageSize,
    tracker::{Backing, Tracker, TrackerKind},
};
use vmsync_tracker::{Barrier, CardTable, LinearRange, new_tracker, probe};

/// Makes a module of tests for every rung: each case, on each backing.
macro_rules! rungs {
    ($($case:ident),* $(,)?) => {
        rungs!(@ uffd_async, Subject::Rung(TrackerKind::UffdAsync), [$($case)*]);
        rungs!(@ uffd_sync, Subject::Rung(TrackerKind::UffdSync), [$($case)*]);
        rungs!(@ mprotect, Subject::Rung(TrackerKind::Mprotect), [$($case)*]);
        rungs!(@ compare, Subject::Rung(TrackerKind::Compare), [$($case)*]);
        rungs!(@ barrier, Subject::Barrier, [$($case)*]);
    };
    (@ $rung:ident, $subject:expr, [$($case:ident)*]) => {
        mod $rung {
            use super::*;
            $(
                mod $case {
                    use super::*;
                    #[test]
                    fn anonymous() {
                        super::super::$case($subject, Backing::Anonymous);
                    }
                    #[test]
                    fn private_file() {
                        super::super::$case($subject, Backing::PrivateFile);
                    }
                }
            )*
        }
    };
}

/// Which tracker is in the rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A rung by its kind.
    Rung(TrackerKind),
    /// The barrier.
    Barrier,
}

/// By which call the kernel is made to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// `read(2)`
    Plain,
    /// `readv(2)`, to two places at once
    Vectored,
}

/// A mapping with a tracker.
pub struct Rig {
    pub subject: Subject,
    pub backing: Backing,
    pub page: PageSize,
    pub tracker: Option<Box<dyn Tracker>>,
    base: *mut u8,
    length: usize,
    file: File,
    cards: Vec<AtomicU8>,
    stamp: u64,
}

impl Rig {
    /// `pages` pages, none of them attached; `None`, with a word why, where the rung does not work here.
    pub fn new(subject: Subject, backing: Backing, page: PageSize, pages: u64) -> Option<Self> {
        if let Subject::Rung(kind) = subject {
            let rung = probe()
                .into_iter()
                .find(|rung| rung.kind == kind)
                .expect("every rung is probed");
            let works = match backing {
                Backing::Anonymous => rung.available,
                Backing::PrivateFile => rung.private_file,
            };
            if let Err(why) = works {
                eprintln!("skipped: {kind} on {backing:?}: {why}");
                return None;
            }
        }
        let length = (pages * page.bytes()) as usize;
        let file = pattern_file(length);
        let mut rig = Self {
            subject,
            backing,
            page,
            tracker: None,
            base: ptr::null_mut(),
            length,
            file,
            cards: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            stamp: 0x5a,
        };
        // SAFETY: a new reservation at an address of the kernel's choice.
        rig.base = unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), MapFlags::PRIVATE) }
            .expect("reserving")
            .cast();
        rig.remap(PageRange::new(0, pages));
        rig.tracker = Some(rig.new_tracker(subject));
        Some(rig)
    }

    /// Another tracker of the same memory.
    pub fn new_tracker(&self, subject: Subject) -> Box<dyn Tracker> {
        let memory = LinearRange {
            base: self.base,
            bytes_reserved: self.length as u64,
        };
        match subject {
            // SAFETY: the rig drops its tracker before it unmaps.
            Subject::Rung(kind) => unsafe { new_tracker(kind, memory, self.page) }.expect("it was probed"),
            Subject::Barrier => {
                let table = CardTable {
                    first: self.cards.as_ptr(),
                    cards: self.cards.len() as u64,
                };
                // SAFETY: the cards are atomics, and live as long as the rig.
                Box::new(unsafe { Barrier::new(table, memory, self.page) })
            }
        }
    }

    pub fn bytes(&self, pages: PageRange) -> ByteRange {
        self.page.byte_range(pages)
    }

    pub fn tracker(&mut self) -> &mut dyn Tracker {
        self.tracker
            .as_mut()
            .expect("it is there until the rig is dropped")
            .as_mut()
    }

    pub fn attach(&mut self, start: u64, end: u64) {
        let (range, backing) = (self.bytes(PageRange::new(start, end)), self.backing);
        self.tracker().attach(range, backing).expect("attach");
    }

    pub fn clear(&mut self, start: u64, end: u64) {
        let range = self.bytes(PageRange::new(start, end));
        self.tracker().clear(range).expect("clear");
    }

    pub fn collect(&mut self, start: u64, end: u64) -> PageSet {
        let range = self.bytes(PageRange::new(start, end));
        let mut dirty = PageSet::new();
        self.tracker().collect(range, &mut dirty).expect("collect");
        dirty
    }

    /// Collects `start..end` and checks that it is `expected`, or more where the tracker says so.
    pub fn expect(&mut self, start: u64, end: u64, expected: &[u64]) {
        let found = self.collect(start, end);
        let expected: PageSet = expected.iter().copied().collect();
        let mut missing = expected.clone();
        missing.subtract(&found);
        let first = missing.runs().first();
        assert!(
            missing.is_empty(),
            "{:?}: missed {} pages, first {first:?}",
            self.subject,
            missing.len()
        );
        if !self.tracker().reports_superset() {
            assert_eq!(
                found.runs(),
                expected.runs(),
                "{:?}: reported too much",
                self.subject
            );
        }
    }

    /// The address of byte `offset`.
    pub fn pointer(&self, offset: u64) -> *mut u8 {
        assert!(offset < self.length as u64);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    /// A guest's store of a new 8-byte value to byte `at` of `page`.
    pub fn store(&mut self, page: u64, at: u64) {
        let offset = page * self.page.bytes() + at;
        let value = self.next_stamp();
        // SAFETY: inside the mapping, which is writable.
        unsafe { self.pointer(offset).cast::<u64>().write_unaligned(value) };
        // As instrumented stores do: the page of the first byte.
        self.mark(offset, 1);
    }

    pub fn next_stamp(&mut self) -> u64 {
        self.stamp = self.stamp.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // No byte of a stamp is zero, so that any part of one changes what a page of zeros holds.
        self.stamp | 0x0101_0101_0101_0101
    }

    pub fn load(&self, page: u64) -> u8 {
        // SAFETY: inside the mapping, which is readable.
        unsafe { self.pointer(page * self.page.bytes()).read_volatile() }
    }

    /// Marks the pages that hold `length` bytes from `offset` on.
    pub fn mark(&self, offset: u64, length: u64) {
        for page in self.page.page_of(offset)..=self.page.page_of(offset + length - 1) {
            self.cards[page as usize].store(1, Ordering::Release);
        }
    }

    /// New bytes from a pipe to all of `pages`: the kernel writes.
    pub fn read_into(&mut self, pages: PageRange, call: Read) -> Result<(), Errno> {
        let range = self.bytes(pages);
        let stamp = self.next_stamp().to_ne_bytes();
        let data: Vec<u8> = stamp.iter().copied().cycle().take(range.len() as usize).collect();
        // SAFETY: inside the mapping, which is writable.
        let buffer = unsafe { std::slice::from_raw_parts_mut(self.pointer(range.start), data.len()) };
        let (reader, writer) = std::io::pipe().expect("pipe");
        feed(writer, data);
        let mut done = 0;
        while done < buffer.len() {
            let rest = &mut buffer[done..];
            done += match call {
                Read::Plain => rustix::io::read(reader.as_fd(), rest)?,
                Read::Vectored => {
                    let (first, second) = rest.split_at_mut(rest.len() / 3);
                    let vectors = &mut [IoSliceMut::new(first), IoSliceMut::new(second)];
                    rustix::io::readv(reader.as_fd(), vectors)?
                }
            };
        }
        self.mark(range.start, range.len());
        Ok(())
    }

    /// New bytes from a file to all of `pages`, past the page cache.
    pub fn read_directly(&mut self, pages: PageRange) -> Result<(), Errno> {
        let range = self.bytes(pages);
        let stamp = self.next_stamp().to_ne_bytes();
        let data: Vec<u8> = stamp.iter().copied().cycle().take(range.len() as usize).collect();
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&data).expect("writing");
        file.as_file().sync_all().expect("syncing");
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let direct = rustix::fs::open(file.path(), flags, Mode::empty())?;
        // SAFETY: inside the mapping, which is writable.
        let buffer = unsafe { std::slice::from_raw_parts_mut(self.pointer(range.start), data.len()) };
        assert_eq!(rustix::io::pread(&direct, &mut *buffer, 0)?, data.len());
        self.mark(range.start, range.len());
        Ok(())
    }

    /// `process_vm_writev(2)` of new bytes to the start of `page` of this very process.
    pub fn write_as_a_debugger(&mut self, page: u64) -> Result<(), Errno> {
        let data = self.next_stamp().to_ne_bytes();
        // SAFETY: asks for a number.
        let this = unsafe { libc::getpid() };
        self.write_to_process(this, page, &data)?;
        self.mark(page * self.page.bytes(), data.len() as u64);
        Ok(())
    }

    /// The same by a forked child, to this process.
    pub fn write_from_a_child(&mut self, page: u64) -> Result<(), Errno> {
        let data = self.next_stamp().to_ne_bytes();
        // SAFETY: asks for a number.
        let this = unsafe { libc::getpid() };
        // SAFETY: the child makes one system call and ends.
        let status = match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                let result = self.write_to_process(this, page, &data);
                let code = result.map_or_else(Errno::raw_os_error, |()| 0);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) }
            }
            child => wait_for(child),
        };
        assert!(libc::WIFEXITED(status), "status {status:#x}");
        match libc::WEXITSTATUS(status) {
            0 => {
                self.mark(page * self.page.bytes(), data.len() as u64);
                Ok(())
            }
            code => Err(Errno::from_raw_os_error(code)),
        }
    }

    fn write_to_process(&self, process: libc::pid_t, page: u64, data: &[u8]) -> Result<(), Errno> {
        let offset = page * self.page.bytes();
        let local = libc::iovec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        let remote = libc::iovec {
            iov_base: self.pointer(offset).cast(),
            iov_len: data.len(),
        };
        // SAFETY: both vectors name memory that is as long as they say, here and in the process with this rig.
        let written = unsafe { libc::process_vm_writev(process, &local, 1, &remote, 1, 0) };
        if written != data.len() as isize {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).expect("an errno"));
        }
        Ok(())
    }

    /// Puts a fresh mapping of the rig's backing over `pages`.
    pub fn remap(&mut self, pages: PageRange) {
        let range = self.bytes(pages);
        let start = self.pointer(range.start).cast();
        let (length, protection) = (range.len() as usize, ProtFlags::READ | ProtFlags::WRITE);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: over our own reservation.
        unsafe {
            match self.backing {
                Backing::Anonymous => mmap_anonymous(start, length, protection, flags),
                Backing::PrivateFile => mmap(start, length, protection, flags, &self.file, range.start),
            }
        }
        .expect("mapping");
    }

    /// Asks the kernel to page `pages` out; how many then have no entry that maps them. (`mincore` would count those
    /// that a slow disk has not taken yet.)
    pub fn page_out(&mut self, pages: PageRange) -> usize {
        const PRESENT: u64 = 1 << 63;
        let range = self.bytes(pages);
        let (start, length) = (self.pointer(range.start), range.len() as usize);
        // SAFETY: advice that changes no contents. A kernel older than 5.4 does not know it: then nothing goes.
        let _ = unsafe { madvise(start.cast(), length, Advice::LinuxPageOut) };
        let host_page = rustix::param::page_size();
        let mut entries = vec![0; length / host_page * size_of::<u64>()];
        let first = (start.addr() / host_page * size_of::<u64>()) as u64;
        let pagemap = File::open("/proc/self/pagemap").expect("the page map");
        pagemap
            .read_exact_at(&mut entries, first)
            .expect("an entry a page");
        let entries = entries
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_ne_bytes(*bytes));
        entries.filter(|entry| entry & PRESENT == 0).count()
    }

    /// Asks for huge pages in all of the mapping; a kernel without them refuses.
    pub fn prefer_huge_pages(&mut self) {
        // SAFETY: advice changes no contents.
        let _ = unsafe { madvise(self.base.cast(), self.length, Advice::LinuxHugepage) };
    }

    /// `MADV_DONTNEED` of `pages`.
    pub fn discard(&mut self, pages: PageRange) {
        let range = self.bytes(pages);
        // SAFETY: our own private mapping; nothing holds a reference into it.
        unsafe {
            madvise(
                self.pointer(range.start).cast(),
                range.len() as usize,
                Advice::LinuxDontNeed,
            )
        }
        .expect("madvise");
    }
}

/// Hands data to the pipe from a thread, as a pipe holds little.
fn feed(mut writer: PipeWriter, data: Vec<u8>) {
    std::thread::spawn(move || {
        // The reader may have given up: then there is nobody to feed.
        let _ = writer.write_all(&data);
    });
}

/// A file of `length` bytes, none of them zero.
fn pattern_file(length: usize) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let block: Vec<u8> = (0..1 << 16).map(|at| (at % 251) as u8 + 1).collect();
    for start in (0..length).step_by(block.len()) {
        file.write_all(&block[..block.len().min(length - start)])
            .expect("writing the file");
    }
    file
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tracker = None;
        // SAFETY: our own mapping; the tracker is gone.
        let _ = unsafe { munmap(self.base.cast(), self.length) };
    }
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process may answer the kernel's own faults: rights or `vm.unprivileged_userfaultfd` decide, and a sandbox may
/// keep it even from root.
pub fn answers_kernel_faults() -> bool {
    // SAFETY: nothing is registered.
    unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.is_ok()
}

/// Runs this test program again as a user without rights, but for the test `caller`, which is the one that asks.
pub fn without_rights(caller: &str) {
    if !is_root() {
        eprintln!("skipped: only root can give its rights up, and this is not root");
        return;
    }
    let setting = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    eprintln!("vm.unprivileged_userfaultfd is {}", setting.trim());
    let this = std::env::current_exe().expect("this test's program");
    let run = Command::new(&this)
        .args(["--skip", caller])
        .uid(65534)
        .gid(65534)
        .output();
    match run {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(error) => eprintln!(
            "skipped: {} cannot be run as another user: {error}",
            this.display()
        ),
    }
}

/// Runs `body` in a forked child and fails where it fails.
pub fn in_a_child(body: impl FnOnce()) {
    // SAFETY: the child runs `body` alone and ends without running anything that belongs to the parent's threads.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 1 }) }
        }
        child => assert_eq!(wait_for(child), 0, "the child failed"),
    }
}

/// The wait status of `child`.
pub fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status
}
