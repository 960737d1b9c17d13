//! The pager protocol: Mach's external memory management interface, its names kept.
//!
//! ```text
//!   runtime --init, data_request, data_return, synchronize, abort, map, last_unmap, terminate--> Pager
//!   runtime <--synchronize_completed, write_behind_failed, lock_request, change_attributes, destroy-- MemoryObjectControl
//! ```
//!
//! One [`Pager`] serves many objects (a file store, a bucket, a database). A call of `vm_msync` is named by its
//! [`CallId`] in everything that it sends, because a call commits as a whole:
//!
//! 1. any number of [`Pager::data_return`], for one or several objects of the pager ([`Pager::data_return_runs`]: many);
//! 2. one [`Pager::synchronize`] per range; all but the last carry [`SynchronizeFlags::more`] (as `MSG_MORE` of
//!    `send(2)`), so that the pager commits everything the call returned, atomically, when it sees the last;
//! 3. one [`MemoryObjectControl::synchronize_completed`] from the pager for each of them, with the same offset and
//!    length, from inside `synchronize` or later from any thread.
//!
//! [`Pager::abort`] instead of 2 drops what the call returned.
//!
//! Rules for pagers:
//! - `data_request` supplies what was last returned and accepted, durable or not;
//! - what a call returned becomes durable together or not at all;
//! - a completion with `Ok` for a synchronous request means stable storage; for an asynchronous one that it is
//!   queued, and a later failure is told with [`MemoryObjectControl::write_behind_failed`];
//! - calls under way at the same time return different pages of an object;
//! - after a failure nothing of the call shows in `data_request`;
//! - no method panics on bad input, and none waits without a bound.

use alloc::{string::String, sync::Arc};

use crate::{
    KernReturn, PagerError, PagerErrorKind,
    abi::{NAME_BYTES_MAX, VmProt},
    page::{ByteRange, PageSize},
};

/// A memory object in one process; numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u64);

/// One call of `vm_msync` (or of another origin of returns) in one process; numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// The name of an object in its store: 1 to 255 of `A-Z a-z 0-9 . _ -`, not beginning with a dot. So no store has
/// to escape it, and none can be led out of its folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`PagerErrorKind::Invalid`], saying which rule it breaks.
    pub fn new(name: &str) -> Result<Self, PagerError> {
        let refuse = |rule: &str| {
            let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
            Err(PagerError::new(
                PagerErrorKind::Invalid,
                alloc::format!("object name \"{shown}\" {rule}"),
            ))
        };
        if name.is_empty() {
            return refuse("is empty: give it at least one letter");
        }
        if name.len() > NAME_BYTES_MAX {
            return refuse("is longer than 255 bytes: choose a shorter one");
        }
        if name.starts_with('.') {
            return refuse("begins with a dot: begin with a letter or digit");
        }
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        {
            return refuse("has a character that is not a letter, a digit, '.', '_' or '-'");
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How an object is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitRequest {
    /// The page size of the VM. A pager that stored the object with another one refuses.
    pub page_size: PageSize,
    /// The least size in bytes, a multiple of the page size: a smaller object grows to it with zeroes. Objects never
    /// shrink here.
    pub size_min: u64,
    /// Create the object if the store does not have it.
    pub create: bool,
    /// The object will be written.
    pub write: bool,
}

/// What a pager says of an object when it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Size in bytes, a multiple of the page size.
    pub size: u64,
    /// Number of the last committed call that changed the object; 0: never. It only rises.
    pub version: u64,
    /// The pager wants clean pages back as well.
    pub precious: bool,
    /// Where it was last mapped, in bytes from the start of linear memory.
    pub address: Option<u64>,
}

impl Attributes {
    /// Whether an object can be so.
    ///
    /// # Errors
    /// [`PagerErrorKind::Invalid`]: it has not whole pages.
    pub fn check(&self, page_size: PageSize) -> Result<(), PagerError> {
        if page_size.is_aligned(self.size) {
            return Ok(());
        }
        let message = alloc::format!(
            "the pager opened an object of {} bytes, which are not whole pages of {}",
            self.size,
            page_size.bytes()
        );
        Err(PagerError::new(PagerErrorKind::Invalid, message))
    }
}

/// A file that holds the object's pages in place, which the host may map privately.
///
/// The descriptor stays open and the file keeps at least `offset + size` bytes until [`Pager::terminate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// A file descriptor that the pager owns.
    pub descriptor: i32,
    /// Where the object's first byte lies in the file; a multiple of the page size.
    pub offset: u64,
}

/// The answer to a `data_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSupply {
    /// The buffer holds the pages.
    Supplied {
        /// The pager keeps no copy: the page goes back even when it is clean.
        precious: bool,
    },
    /// The pager has no data for the range, it reads as zero. The buffer was left alone.
    Unavailable,
}

/// How pages are handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnFlags {
    /// The pages differ, or may differ, from what was supplied.
    pub dirty: bool,
    /// The VM keeps the pages resident.
    pub kernel_copy: bool,
}

/// A run of pages that goes back, as the arguments of [`Pager::data_return`].
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where in the object, in bytes.
    pub offset: u64,
    /// The pages.
    pub pages: &'a [u8],
    /// How they are handed back.
    pub flags: ReturnFlags,
}

/// What kind of durability a `synchronize` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynchronizeFlags {
    /// Complete only when everything returned before is on stable storage; else when it is queued.
    pub synchronous: bool,
    /// Another `synchronize` of the same call to this pager follows: do not commit yet.
    pub more: bool,
    /// The calling thread has other work: where the pager would wait for its storage, a thread of its own does, as far as it
    /// has one that is free. [`Pager::synchronize`] then returns before the completion.
    pub nowait: bool,
}

impl SynchronizeFlags {
    /// The last request of a call that is to be durable.
    pub const SYNCHRONOUS: Self = Self {
        synchronous: true,
        more: false,
        nowait: false,
    };

    /// The last request of a call that is to be queued.
    pub const ASYNCHRONOUS: Self = Self {
        synchronous: false,
        ..Self::SYNCHRONOUS
    };
}

/// What a `lock_request` asks to have returned (`memory_object_return_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnPages {
    /// Nothing.
    None,
    /// Dirty pages.
    Dirty,
    /// Dirty and precious pages.
    All,
    /// Every resident page.
    Anything,
}

/// A request of a pager to clean, flush or restrict resident pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The range in the object, in bytes.
    pub range: ByteRange,
    /// What to return.
    pub should_return: ReturnPages,
    /// Drop the pages afterwards.
    pub flush: bool,
    /// Accesses to forbid; `None` leaves the protection alone.
    pub prohibit: Option<VmProt>,
}

/// A store of memory objects.
pub trait Pager: Send + Sync {
    /// Opens `object` under `name`; nothing else is sent for it before this succeeds. The pager keeps `control` to
    /// answer with.
    fn init(
        &self,
        object: ObjectId,
        name: &ObjectName,
        request: InitRequest,
        control: Arc<dyn MemoryObjectControl>,
    ) -> Result<Attributes, PagerError>;

    /// Fills `pages` with the object's bytes from `offset` on. Both are multiples of the page size and inside the
    /// object. With `access` READ the pages are for a mapping that never returns any: none of them may be precious.
    fn data_request(
        &self,
        object: ObjectId,
        offset: u64,
        access: VmProt,
        pages: &mut [u8],
    ) -> Result<DataSupply, PagerError>;

    /// The object's file image, where it has one.
    fn image(&self, object: ObjectId) -> Option<Image> {
        let _ = object;
        None
    }

    /// Makes the image show in `range` what `data_request` would supply.
    fn settle_image(&self, object: ObjectId, range: ByteRange) -> Result<(), PagerError> {
        let _ = (object, range);
        Ok(())
    }

    /// Hands a run of pages back; the pager copies what it needs before it returns.
    fn data_return(
        &self,
        call: CallId,
        object: ObjectId,
        offset: u64,
        pages: &[u8],
        flags: ReturnFlags,
    ) -> Result<(), PagerError>;

    /// Hands back `runs`, which ascend and do not touch: [`Pager::data_return`] of each, also behind one that fails, and the
    /// first error. For pagers that do better with many at once.
    fn data_return_runs(&self, call: CallId, object: ObjectId, runs: &[Run<'_>]) -> Result<(), PagerError> {
        let mut outcome = Ok(());
        for run in runs {
            outcome = outcome.and(self.data_return(call, object, run.offset, run.pages, run.flags));
        }
        outcome
    }

    /// Asks for everything that was returned so far to be committed. Answered by `synchronize_completed`, or by an
    /// error here and then by no completion. Of an object that was opened for reading, too: others may have queued something of it,
    /// and who asked synchronously takes that for durable.
    fn synchronize(
        &self,
        call: CallId,
        object: ObjectId,
        range: ByteRange,
        flags: SynchronizeFlags,
    ) -> Result<(), PagerError>;

    /// Drops what `call` has returned and not yet synchronized, and every `synchronize` it still holds for more. Also called
    /// while a panic of this pager unwinds: one more would end the process, so a lock that is poisoned is no reason for it.
    fn abort(&self, call: CallId);

    /// The object was mapped by who may write it, at `address`, in bytes from the start of linear memory. A pager that keeps
    /// attributes remembers it with the next commit of the object.
    fn map(&self, object: ObjectId, address: u64, access: VmProt) {
        let _ = (object, address, access);
    }

    /// The last mapping of the object is gone, and the last port: `terminate` follows.
    fn last_unmap(&self, object: ObjectId) {
        let _ = object;
    }

    /// The VM is done with the object; its id is not used again. What was queued is still written.
    fn terminate(&self, object: ObjectId);

    /// Makes an open object at least `size` bytes large, a multiple of the page size: what is new reads as zero.
    /// Mappings, and what calls have returned, stay as they are.
    fn grow(&self, object: ObjectId, size: u64) -> Result<Attributes, PagerError> {
        let message = alloc::format!(
            "object {} is open, and cannot grow to {size} bytes meanwhile: close it first",
            object.0
        );
        Err(PagerError::new(PagerErrorKind::Unsupported, message))
    }

    /// The attributes as they are now.
    fn attributes(&self, object: ObjectId) -> Result<Attributes, PagerError>;
}

/// What a pager can tell the runtime about one object.
pub trait MemoryObjectControl: Send + Sync {
    /// Answers one `synchronize` with exactly its offset and length.
    ///
    /// # Errors
    /// [`KernReturn::InvalidArgument`] when no such request is outstanding; the client goes on waiting.
    fn synchronize_completed(
        &self,
        range: ByteRange,
        result: Result<(), PagerError>,
    ) -> Result<(), KernReturn>;

    /// Pages could not be made durable: of an asynchronous call that was reported as queued, or of another's call that may
    /// have been supplied here while it was on its way. They are dirty again, and each task that maps the object is told once.
    fn write_behind_failed(&self, range: ByteRange, error: PagerError);

    /// Asks the VM to return, flush or restrict resident pages; carried out at the next `vm_msync` of a task that writes some of
    /// them, before it does anything else. Where several tasks write parts of the range, each does it for its own. A durable instance
    /// does it behind its next commit, as no part of a call is committed alone. The browser's host carries out none.
    fn lock_request(&self, request: LockRequest) -> Result<(), KernReturn>;

    /// The object's attributes changed.
    fn change_attributes(&self, attributes: Attributes);

    /// The object is gone: waiting and later calls get `MEMORY_FAILURE`.
    fn destroy(&self, reason: PagerError);
}
