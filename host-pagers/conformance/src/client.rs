//! [`Client`]: one open object and the calls that a task would make on it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use vmsync_core::{
    ByteRange, PageSize, PagerError,
    abi::VmProt,
    pager::{
        Attributes, CallId, DataSupply, InitRequest, ObjectId, ObjectName, Pager, Run, SynchronizeFlags,
    },
};

use crate::{Fixture, Recorder, recorder::DIRTY};

/// Numbers for objects and calls: never used again in this process, as the protocol has it.
static NUMBER_NEXT: AtomicU64 = AtomicU64::new(1);

/// An object that a task has open.
pub struct Client {
    pager: Arc<dyn Pager>,
    /// Its number.
    pub object: ObjectId,
    /// What the pager said about it.
    pub recorder: Arc<Recorder>,
    /// What it was opened with.
    pub page_size: PageSize,
    /// What the pager answered to `init`.
    pub opened: Attributes,
}

impl Client {
    /// Opens `name` for writing, created where it is missing and at least `pages` pages large.
    ///
    /// # Panics
    /// When the pager refuses.
    #[track_caller]
    pub fn open(fixture: &Fixture, name: &str, pages: u64) -> Self {
        let request = InitRequest {
            page_size: fixture.page_size(),
            size_min: pages * fixture.page_size().bytes(),
            create: true,
            write: true,
        };
        Self::open_with(fixture.pager(), name, request).expect("the object opens")
    }

    /// Opens `name` as `request` says.
    ///
    /// # Errors
    /// The pager's.
    pub fn open_with(pager: Arc<dyn Pager>, name: &str, request: InitRequest) -> Result<Self, PagerError> {
        let (object, recorder) = (ObjectId(number()), Arc::new(Recorder::default()));
        let opened = pager.init(object, &ObjectName::new(name)?, request, recorder.clone())?;
        Ok(Self {
            pager,
            object,
            recorder,
            page_size: request.page_size,
            opened,
        })
    }

    /// A fresh number for a call.
    pub fn call() -> CallId {
        CallId(number())
    }

    /// The pager behind it.
    pub fn pager(&self) -> &dyn Pager {
        &*self.pager
    }

    /// The bytes of `count` pages from page `first` on.
    pub fn range(&self, first: u64, count: u64) -> ByteRange {
        let bytes = self.page_size.bytes();
        ByteRange::new(first * bytes, (first + count) * bytes)
    }

    /// Hands back `bytes` as page `page` and following.
    ///
    /// # Errors
    /// The pager's.
    pub fn give(&self, call: CallId, page: u64, bytes: &[u8]) -> Result<(), PagerError> {
        self.pager
            .data_return(call, self.object, page * self.page_size.bytes(), bytes, DIRTY)
    }

    /// Hands back several runs: their first pages, and bytes.
    ///
    /// # Errors
    /// The pager's.
    pub fn give_runs(&self, call: CallId, runs: &[(u64, &[u8])]) -> Result<(), PagerError> {
        let runs: Vec<Run<'_>> = runs
            .iter()
            .map(|(page, pages)| Run {
                offset: page * self.page_size.bytes(),
                pages,
                flags: DIRTY,
            })
            .collect();
        self.pager.data_return_runs(call, self.object, &runs)
    }

    /// Hands back one page full of `byte`.
    ///
    /// # Panics
    /// When the pager refuses.
    #[track_caller]
    pub fn give_full(&self, call: CallId, page: u64, byte: u8) {
        self.give(call, page, &self.page_of(byte))
            .expect("the page goes back");
    }

    /// Sends `synchronize` for `count` pages from `first` on.
    ///
    /// # Errors
    /// The pager's answer, without waiting for a completion.
    pub fn synchronize(
        &self,
        call: CallId,
        (first, count): (u64, u64),
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError> {
        self.recorder
            .synchronize(&*self.pager, call, self.object, self.range(first, count), flags)
    }

    /// Synchronizes pages and waits for the completion.
    ///
    /// # Errors
    /// The pager's answer or the completion's result.
    pub fn sync(&self, call: CallId, first: u64, count: u64) -> Result<(), PagerError> {
        self.synchronize(call, (first, count), SynchronizeFlags::SYNCHRONOUS)?;
        self.recorder.wait(self.range(first, count))
    }

    /// A whole synchronous call that sets page `page` to `byte`.
    ///
    /// # Errors
    /// The pager's.
    pub fn try_commit_full(&self, page: u64, byte: u8) -> Result<(), PagerError> {
        let call = Self::call();
        self.give(call, page, &self.page_of(byte))?;
        self.sync(call, page, 1)
    }

    /// The same where it has to succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn commit_full(&self, page: u64, byte: u8) {
        self.try_commit_full(page, byte).expect("the call commits");
    }

    /// Reads `count` pages from `first` on; what the pager does not have reads as zero.
    ///
    /// # Panics
    /// When the pager refuses.
    #[track_caller]
    pub fn read(&self, first: u64, count: u64) -> Vec<u8> {
        let range = self.range(first, count);
        let mut bytes = vec![0x5a; usize::try_from(range.len()).expect("a test's object")];
        match self
            .pager
            .data_request(self.object, range.start, VmProt::READ, &mut bytes)
        {
            Ok(DataSupply::Supplied { .. }) => {}
            Ok(DataSupply::Unavailable) => {
                assert!(
                    bytes.iter().all(|byte| *byte == 0x5a),
                    "Unavailable leaves the buffer alone"
                );
                bytes.fill(0);
            }
            Err(error) => panic!("data_request of {range}: {error}"),
        }
        bytes
    }

    /// Reads `count` pages from `first` on of the object's image, as whoever maps it sees them; `None` where it has none, or
    /// this system gives descriptors no names to open them by.
    ///
    /// # Panics
    /// When the image does not reach so far.
    #[track_caller]
    pub fn read_image(&self, first: u64, count: u64) -> Option<Vec<u8>> {
        let image = self.pager.image(self.object)?;
        if !cfg!(target_os = "linux") {
            return None;
        }
        let range = self.range(first, count);
        let mut bytes = vec![0; usize::try_from(range.len()).expect("a test's object")];
        let mut file = File::open(format!("/proc/self/fd/{}", image.descriptor)).expect("it is open");
        file.seek(SeekFrom::Start(image.offset + range.start))
            .expect("an image is a file");
        file.read_exact(&mut bytes).expect("it has every page");
        Some(bytes)
    }

    /// # Panics
    /// When page `page` is not full of `byte`.
    #[track_caller]
    pub fn assert_full(&self, page: u64, byte: u8) {
        let found = self.read(page, 1);
        let differs = found.iter().position(|other| *other != byte);
        assert_eq!(
            differs.map(|at| found[at]),
            None,
            "page {page} at byte {differs:?}: expected {byte}"
        );
    }

    /// The attributes now.
    ///
    /// # Panics
    /// When the pager refuses.
    #[track_caller]
    pub fn attributes(&self) -> Attributes {
        self.pager.attributes(self.object).expect("the object is open")
    }

    /// Closes the object, after checking that the pager answered everything exactly once.
    #[track_caller]
    pub fn close(self) {
        self.recorder.assert_exact();
        self.pager.terminate(self.object);
    }

    /// A page full of `byte`.
    pub fn page_of(&self, byte: u8) -> Vec<u8> {
        vec![byte; usize::try_from(self.page_size.bytes()).expect("a page fits")]
    }
}

fn number() -> u64 {
    NUMBER_NEXT.fetch_add(1, Ordering::Relaxed)
}
