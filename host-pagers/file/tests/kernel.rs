//! A kernel that fails: system calls of the native disk are answered with errors by a filter (seccomp(2)), and writes stop at a
//! limit of the size of files. A filter belongs to the thread that installs it, and to those that it starts, so that a test's other
//! threads go on without it. Where the kernel refuses filters, the tests say so and pass.
#![cfg(target_os = "linux")]

mod common;

use std::{
    panic::resume_unwind,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicU64},
    thread,
};

use common::{Edit, Kept, NAMES, PAGES, client, copy_store, tiny};
use tempfile::TempDir;
use vmsync_core::{ByteRange, PagerError, PagerErrorKind};
use vmsync_pager_conformance::{
    Client,
    random::{Random, seeds},
};
use vmsync_pager_file::{
    FileStore,
    disk::{
        Access, Disk, DiskFile, DiskLock, Sharing,
        native::{Folder, NativeDisk},
    },
    verify,
};

type Result<T> = std::result::Result<T, PagerError>;

/// System calls that are answered with an error.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    calls: &'static [libc::c_long],
    errno: i32,
    /// Only those whose third argument has one of these bits.
    flags: Option<u32>,
}

const fn refuse(calls: &'static [libc::c_long], errno: i32) -> Refusal {
    Refusal {
        calls,
        errno,
        flags: None,
    }
}

/// Files are not opened for writes past the page cache.
const NO_DIRECT: Refusal = Refusal {
    calls: &[libc::SYS_openat],
    errno: libc::EINVAL,
    flags: Some(libc::O_DIRECT as u32),
};

const WRITES: &[libc::c_long] = &[libc::SYS_pwrite64];

impl Refusal {
    /// From now on this thread is answered so; whether the kernel has filters.
    fn install(self) -> bool {
        let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
        let refuse = libc::SECCOMP_RET_ERRNO | self.errno as u32;
        let refuse = statement(libc::BPF_RET | libc::BPF_K, refuse);
        let load = |at: usize| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32);
        let mut program = Vec::new();
        for call in self.calls {
            // Behind what belongs to this call the next one comes.
            program.push(load(std::mem::offset_of!(libc::seccomp_data, nr)));
            let others = if self.flags.is_some() { 4 } else { 1 };
            program.push(jump(libc::BPF_JEQ, *call as u32, (0, others)));
            if let Some(flags) = self.flags {
                let low = if cfg!(target_endian = "big") { 4 } else { 0 };
                program.push(load(std::mem::offset_of!(libc::seccomp_data, args) + 16 + low));
                program.push(jump(libc::BPF_JSET, flags, (1, 0)));
                program.push(allow);
            }
            program.push(refuse);
        }
        program.push(allow);
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the kernel copies the program, which `filter` points to; it changes this thread only.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
        }
    }

    /// Does `work` on a thread that is answered so.
    fn during<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let filtered = || {
            assert!(self.install(), "filters worked before");
            work()
        };
        let done = thread::scope(|scope| scope.spawn(filtered).join());
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// What the store makes of it.
    #[track_caller]
    fn assert_told(self, error: &PagerError) {
        let kind = match self.errno {
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => PagerErrorKind::NoSpace,
            _ => PagerErrorKind::Io,
        };
        assert_eq!(error.kind, kind, "{self:?}: {error}");
        let reason = std::io::Error::from_raw_os_error(self.errno).to_string();
        assert!(error.message.contains(&reason), "{self:?}: {error}");
    }
}

fn statement(code: u32, operand: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k: operand,
    }
}

/// Goes on so many statements further, where the comparison holds and where it does not.
fn jump(comparison: u32, operand: u32, (jt, jf): (u8, u8)) -> libc::sock_filter {
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    libc::sock_filter {
        jt,
        jf,
        ..statement(code, operand)
    }
}

/// Whether this kernel lets a thread have a filter; says so where not.
fn has_filters() -> bool {
    let works = thread::spawn(|| refuse(&[], libc::EIO).install()).join().unwrap();
    if !works {
        println!("SKIPPED: the kernel refuses seccomp filters");
    }
    works
}

/// What changes a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Open,
    Remove,
    SyncNames,
    Write,
    Sync,
    WriteDurably,
    SetLength,
    Preallocate,
}

impl Operation {
    /// How it is made to fail.
    fn refusals(self) -> Vec<Refusal> {
        let (full, quota, broken) = (libc::ENOSPC, libc::EDQUOT, libc::EIO);
        match self {
            Self::Open => vec![refuse(&[libc::SYS_openat], libc::EMFILE)],
            Self::Remove => vec![refuse(&[libc::SYS_unlinkat], broken)],
            Self::SyncNames => vec![refuse(&[libc::SYS_fsync], broken)],
            Self::Write => vec![refuse(WRITES, broken), refuse(WRITES, full)],
            Self::Sync => vec![refuse(&[libc::SYS_fdatasync], broken)],
            // Without a descriptor for it, or where the file system has no such writes, it takes two steps.
            Self::WriteDurably => vec![
                refuse(WRITES, broken),
                refuse(WRITES, quota),
                refuse(WRITES, libc::EINVAL),
                refuse(&[libc::SYS_fdatasync], broken),
                refuse(&[libc::SYS_openat], libc::EMFILE),
            ],
            Self::SetLength => vec![refuse(&[libc::SYS_ftruncate], full)],
            Self::Preallocate => vec![
                refuse(&[libc::SYS_fallocate], full),
                refuse(&[libc::SYS_fallocate], libc::EOPNOTSUPP),
                refuse(WRITES, quota),
                refuse(&[libc::SYS_fdatasync], broken),
            ],
        }
    }

    /// Whether it has another way, or may not need the call at all.
    fn can_do_without(self, refusal: Refusal) -> bool {
        match self {
            Self::WriteDurably => refusal.calls != WRITES,
            Self::Preallocate => refusal.errno == libc::EOPNOTSUPP,
            _ => false,
        }
    }
}

/// The native disk, one of whose operations fails.
#[derive(Clone)]
struct FailingDisk(Arc<Failing>);

struct Failing {
    native: NativeDisk,
    trace: Mutex<Vec<Operation>>,
    fault: Option<(usize, Refusal)>,
}

struct FailingFile {
    native: Box<dyn DiskFile>,
    disk: FailingDisk,
}

impl FailingDisk {
    fn new(folder: &Path, fault: Option<(usize, Refusal)>) -> Self {
        Self(Arc::new(Failing {
            native: NativeDisk::new(folder, Folder::Created).unwrap(),
            trace: Mutex::default(),
            fault,
        }))
    }

    fn trace(&self) -> Vec<Operation> {
        self.0.trace.lock().unwrap().clone()
    }

    fn operations(&self) -> usize {
        self.0.trace.lock().unwrap().len()
    }

    fn run<T: Send>(&self, operation: Operation, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let number = {
            let mut trace = self.0.trace.lock().unwrap();
            trace.push(operation);
            trace.len() - 1
        };
        match self.0.fault {
            Some((which, refusal)) if which == number => {
                let outcome = refusal.during(work);
                let told = outcome.is_err() || operation.can_do_without(refusal);
                assert!(told, "{operation:?} hides {refusal:?}");
                outcome
            }
            _ => work(),
        }
    }

    /// Does `work`, which may only fail where an operation of this disk was made to.
    fn attempt<T>(&self, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let start = self.operations();
        let error = match work() {
            Ok(done) => return Some(done),
            Err(error) => error,
        };
        match self.0.fault {
            Some((which, refusal)) if (start..self.operations()).contains(&which) => {
                refusal.assert_told(&error);
                None
            }
            fault => panic!("{fault:?} is not why: {error}"),
        }
    }
}

impl Disk for FailingDisk {
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        let native = self.run(Operation::Open, || self.0.native.open(name, access))?;
        let disk = self.clone();
        Ok(Box::new(FailingFile { native, disk }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.run(Operation::Remove, || self.0.native.remove(name))
    }

    fn list(&self) -> Result<Vec<String>> {
        self.0.native.list()
    }

    fn sync_names(&self) -> Result<()> {
        self.run(Operation::SyncNames, || self.0.native.sync_names())
    }

    fn lock(&self, sharing: Sharing) -> Result<Box<dyn DiskLock>> {
        self.0.native.lock(sharing)
    }

    fn nonce(&self) -> u128 {
        self.0.native.nonce()
    }

    fn place(&self) -> String {
        self.0.native.place()
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.native.read_at(offset, buffer)
    }

    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        self.native.read_cached(offset, buffer)
    }

    fn show_cached(&self, ranges: &[ByteRange], look: &mut dyn FnMut(Option<&[AtomicU64]>)) {
        self.native.show_cached(ranges, look);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.disk
            .run(Operation::Write, || self.native.write_at(offset, bytes))
    }

    fn sync(&self) -> Result<()> {
        self.disk.run(Operation::Sync, || self.native.sync())
    }

    fn write_durably(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let write = || self.native.write_durably(offset, bytes);
        self.disk.run(Operation::WriteDurably, write)
    }

    fn length(&self) -> Result<u64> {
        self.native.length()
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.disk
            .run(Operation::SetLength, || self.native.set_len(length))
    }

    fn preallocate(&self, length: u64) -> Result<()> {
        self.disk
            .run(Operation::Preallocate, || self.native.preallocate(length))
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        self.native.next_data(offset)
    }

    fn descriptor(&self) -> Option<i32> {
        self.native.descriptor()
    }
}

/// A folder in memory where there is one: thousands of syncs are made to fail or not, and none has to reach a drive.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A store's life on a disk that fails once; what it did.
fn live(seed: u64, fault: Option<(usize, Refusal)>) -> Vec<Operation> {
    let (folder, mut random) = (folder(), Random::new(seed));
    let path = folder.path();
    let disk = FailingDisk::new(path, fault);
    let again = || disk.attempt(|| FileStore::open_on(Arc::new(disk.clone()), &tiny()));
    let store = again().or_else(again).unwrap();
    let mut clients = Vec::new();
    for name in NAMES {
        let again = || disk.attempt(|| client(&store, name, PAGES));
        clients.push(again().or_else(again).unwrap());
    }
    let mut kept = Kept::zeroes();
    for step in 0..6 {
        let edit = Edit::of_something(&mut random, &kept.committed);
        disk.attempt(|| kept.run(&store, &clients, &edit));
        if step == 3 {
            disk.attempt(|| store.checkpoint());
        }
        if !kept.failed.is_empty() {
            kept.assert_left(path);
        }
    }
    if !kept.failed.is_empty() {
        let edit = Edit::of_something(&mut random, &kept.committed);
        kept.run(&store, &clients, &edit).expect("the next call works");
    }
    kept.assert_left(path);
    drop((store, clients));
    assert_eq!(verify(path).unwrap().problems, []);
    kept.assert_opened(path, &tiny());
    disk.trace()
}

fn fail_everywhere() {
    let seed = seeds(1)[0];
    println!("SEED={seed}");
    let trace = live(seed, None);
    for (number, operation) in trace.into_iter().enumerate() {
        for refusal in operation.refusals() {
            // It is printed where the test fails.
            println!("operation {number}, {operation:?}: {refusal:?}");
            live(seed, Some((number, refusal)));
        }
    }
}

/// Copies what a kill leaves of a store whose journal has calls to replay; what it holds.
fn leave_a_journal(copy: &Path) -> Kept {
    let (folder, mut random) = (folder(), Random::from_environment("kernel"));
    let store = FileStore::open(folder.path(), &tiny()).unwrap();
    let open = |name: &&str| client(&store, name, PAGES).unwrap();
    let clients: Vec<_> = NAMES.iter().map(open).collect();
    let mut kept = Kept::zeroes();
    for _ in 0..4 {
        let edit = Edit::of_something(&mut random, &kept.committed);
        kept.run(&store, &clients, &edit).unwrap();
    }
    copy_store(folder.path(), copy);
    kept
}

#[test]
fn every_operation_of_an_opening_that_the_kernel_refuses_loses_nothing() {
    if !has_filters() {
        return;
    }
    let left = tempfile::tempdir().unwrap();
    let kept = leave_a_journal(left.path());
    let open = |fault: Option<(usize, Refusal)>| {
        let folder = folder();
        copy_store(left.path(), folder.path());
        let disk = FailingDisk::new(folder.path(), fault);
        let opened = disk.attempt(|| {
            let store = FileStore::open_on(Arc::new(disk.clone()), &tiny())?;
            // A call makes what was read durable, and the images catch up.
            client(&store, NAMES[0], PAGES)?.sync(Client::call(), 0, PAGES)?;
            store.checkpoint()
        });
        assert!(fault.is_some() || opened.is_some());
        kept.assert_left(folder.path());
        kept.assert_opened(folder.path(), &tiny());
        disk.trace()
    };
    for (number, operation) in open(None).into_iter().enumerate() {
        for refusal in operation.refusals() {
            println!("operation {number}, {operation:?}: {refusal:?}");
            open(Some((number, refusal)));
        }
    }
}

/// A drive that takes nothing any more, until it does again.
#[test]
fn a_kernel_that_refuses_everything_for_a_while_loses_nothing() {
    if !has_filters() {
        return;
    }
    let (folder, mut random) = (folder(), Random::from_environment("kernel"));
    let store = FileStore::open(folder.path(), &tiny()).unwrap();
    let open = |name: &&str| client(&store, name, PAGES).unwrap();
    let clients: Vec<_> = NAMES.iter().map(open).collect();
    let mut kept = Kept::zeroes();
    let all = &[
        libc::SYS_pwrite64,
        libc::SYS_fdatasync,
        libc::SYS_fsync,
        libc::SYS_fallocate,
        libc::SYS_ftruncate,
    ];
    for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EFBIG, libc::EINVAL] {
        let refusal = refuse(all, errno);
        refusal.during(|| {
            for _ in 0..4 {
                let edit = Edit::of_something(&mut random, &kept.committed);
                let refused = kept.run(&store, &clients, &edit);
                refusal.assert_told(&refused.expect_err("nothing is written"));
            }
            let _ = store.checkpoint();
        });
        kept.assert_left(folder.path());
        for _ in 0..3 {
            let edit = Edit::of_something(&mut random, &kept.committed);
            kept.run(&store, &clients, &edit).expect("the kernel works again");
        }
    }
    refuse(all, libc::EIO).during(|| drop((store, clients)));
    kept.assert_opened(folder.path(), &tiny());
}

#[test]
fn every_operation_that_the_kernel_refuses_loses_nothing() {
    if has_filters() {
        fail_everywhere();
    }
}

#[test]
fn every_operation_through_the_page_cache_loses_nothing() {
    if has_filters() {
        NO_DIRECT.during(fail_everywhere);
    }
}
