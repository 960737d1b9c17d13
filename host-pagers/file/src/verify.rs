//! [`verify_on`]: reads all of a store and reports everything that contradicts itself. Changes nothing.
//!
//! ```text
//!   superblock slots -> segment headers -> records -> catalog -> each page: image, with the journal over it,
//!                                                                against its checksum (journal, else sums)
//! ```
//!
//! Invariants:
//! - every live byte is covered by a checksum that is compared here;
//! - a page without a checksum was never written, and is zero.

use std::collections::BTreeMap;

use vmsync_core::{PagerError, PagerErrorKind};

use crate::{
    checkpoint::SUM_BYTES,
    disk::{Access, Disk, DiskFile, Result, Sharing},
    layout::{
        STORE_NAME, Seed,
        catalog::CatalogEntry,
        entry::PageEntry,
        image_name,
        segment::Found,
        segment_name, sums_name,
        superblock::{Slot, Superblock},
    },
    limits::SLOT_BYTES,
    problem::{Problem, Trouble},
    replay::{Replayed, for_each_page, replay_catalog},
    scan::{newest, open_segments, read_slots, scan},
};

/// Pages that are read at a time.
const CHUNK_PAGES: u64 = 256;

/// What [`verify_on`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong; empty for a sound store.
    pub problems: Vec<Problem>,
    /// Objects that were read.
    pub objects: u64,
    /// Pages whose checksums were compared.
    pub pages: u64,
}

/// Checks the store on `disk`.
///
/// # Errors
/// [`PagerErrorKind::Busy`] while a program has the store open for writing, [`PagerErrorKind::NotFound`] where there is
/// none, and what reading fails with. Damage is no error: it is in the report.
pub fn verify_on(disk: &dyn Disk) -> Result<Report> {
    let _lock = disk.lock(Sharing::Shared)?;
    let mut report = Report::default();
    match check(disk, &mut report) {
        Ok(()) => {}
        Err(Trouble::Damage(problem)) => report.problems.push(problem),
        Err(Trouble::Disk(error)) => return Err(error),
    }
    Ok(report)
}

fn check(disk: &dyn Disk, report: &mut Report) -> std::result::Result<(), Trouble> {
    let Some(superblock) = check_slots(disk, report)? else {
        return Ok(());
    };
    let seed = Seed::of(superblock.nonce);
    for segment in open_segments(disk, Access::Read, seed)? {
        if segment.found == Found::Damaged {
            let what = "the segment's header has a wrong checksum";
            report
                .problems
                .push(Problem::new(segment_name(segment.slot), 0, what));
        }
    }
    let log = scan(disk, Access::Read, &superblock)?;
    let replayed = replay_catalog(&log.records, superblock.page_size)?;
    let mut journaled = Journaled::new();
    for_each_page(&log.records, superblock.page_size, u64::MAX, |entry| {
        journaled
            .entry((entry.object, entry.page))
            .or_default()
            .push(entry);
        Ok(())
    })?;
    for (id, entry) in replayed.catalog.objects() {
        report.objects += 1;
        let object = ObjectCheck {
            disk,
            superblock: &superblock,
            seed,
            replayed: &replayed,
            id,
            entry,
        };
        object.check(&journaled, report)?;
    }
    Ok(())
}

/// The journal's differences by object and page, oldest first.
type Journaled<'a> = BTreeMap<(u64, u64), Vec<PageEntry<'a>>>;

/// Reports slots that are not as they should be; the one that counts.
fn check_slots(disk: &dyn Disk, report: &mut Report) -> std::result::Result<Option<Superblock>, Trouble> {
    let slots = read_slots(disk).map_err(|trouble| match trouble {
        Trouble::Disk(error) if error.kind == PagerErrorKind::NotFound => Trouble::Disk(PagerError::new(
            error.kind,
            format!("there is no store in {}", disk.place()),
        )),
        other => other,
    })?;
    for (slot, offset) in slots.iter().zip([0, SLOT_BYTES as u64]) {
        let what = match slot {
            Slot::Valid(_) => continue,
            // A crash while the store was made may leave one slot, and nothing since has written the other.
            Slot::Blank if newest(&slots).is_some_and(|superblock| superblock.number < 2) => continue,
            Slot::Blank => "the slot is empty".into(),
            Slot::Version(version) => format!("the slot has format version {version}"),
            Slot::Foreign => "the slot does not begin with \"vmsync-S\"".into(),
            Slot::Damaged => "the slot has a wrong checksum".into(),
        };
        report.problems.push(Problem::new(STORE_NAME, offset, what));
    }
    Ok(newest(&slots))
}

/// One object under examination.
struct ObjectCheck<'a> {
    disk: &'a dyn Disk,
    superblock: &'a Superblock,
    seed: Seed,
    replayed: &'a Replayed,
    id: u64,
    entry: &'a CatalogEntry,
}

impl ObjectCheck<'_> {
    fn check(&self, journaled: &Journaled<'_>, report: &mut Report) -> std::result::Result<(), Trouble> {
        let durable = self
            .replayed
            .checkpoint
            .get(self.id)
            .map_or(0, |entry| entry.size);
        let image = self.open(&image_name(self.id))?;
        let length = image.as_ref().map_or(Ok(0), |image| image.length())?;
        if length < durable || (image.is_none() && self.replayed.checkpoint.get(self.id).is_some()) {
            let what = format!(
                "the image of \"{}\" has {length} bytes of {durable}",
                self.entry.name
            );
            report
                .problems
                .push(Problem::new(image_name(self.id), length, what));
        }
        let sums = self.open(&sums_name(self.id))?;
        let page_size = self.superblock.page_size;
        let pages = page_size.page_of(self.entry.size);
        let mut first = 0;
        while first < pages {
            let next = self.next_page(first, image.as_deref(), sums.as_deref(), journaled)?;
            // Pages that were never written, and are zero as they should be.
            report.pages += next.min(pages) - first;
            first = next;
            if first >= pages {
                break;
            }
            let count = CHUNK_PAGES.min(pages - first);
            let bytes = read(
                image.as_deref(),
                first * page_size.bytes(),
                count * page_size.bytes(),
            )?;
            let expected = read(sums.as_deref(), first * SUM_BYTES, count * SUM_BYTES)?;
            let expected = expected.chunks_exact(SUM_BYTES as usize);
            let chunks = bytes.chunks_exact(page_size.bytes() as usize);
            for ((page, bytes), sum) in (first..).zip(chunks).zip(expected) {
                let sum = u64::from_le_bytes(sum.try_into().expect("eight bytes"));
                let entries = journaled.get(&(self.id, page)).map_or(&[][..], Vec::as_slice);
                report.problems.extend(self.check_page(page, bytes, sum, entries));
                report.pages += 1;
            }
            first += count;
        }
        Ok(())
    }

    /// The first page from `first` on that anything is known of: bytes, a checksum, or a difference in the journal.
    fn next_page(
        &self,
        first: u64,
        image: Option<&dyn DiskFile>,
        sums: Option<&dyn DiskFile>,
        journaled: &Journaled<'_>,
    ) -> Result<u64> {
        let page_bytes = self.superblock.page_size.bytes();
        let find = |file: Option<&dyn DiskFile>, bytes: u64| -> Result<u64> {
            let found = file.map_or(Ok(None), |file| file.next_data(first * bytes))?;
            Ok(found.map_or(u64::MAX, |offset| offset / bytes))
        };
        let journal = journaled
            .range((self.id, first)..=(self.id, u64::MAX))
            .next()
            .map_or(u64::MAX, |((_, page), _)| *page);
        Ok(find(image, page_bytes)?.min(find(sums, SUM_BYTES)?).min(journal))
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn DiskFile>>> {
        match self.disk.open(name, Access::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind == PagerErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check_page(&self, page: u64, bytes: &[u8], sum: u64, entries: &[PageEntry<'_>]) -> Option<Problem> {
        if entries.is_empty() && expected_zero(sum, bytes) {
            return None;
        }
        let mut bytes = bytes.to_vec();
        entries.iter().for_each(|entry| entry.apply(&mut bytes));
        let (expected, from) = entries.last().map_or((sum, "sums"), |last| (last.sum, "journal"));
        if expected_zero(expected, &bytes) {
            return None;
        }
        let found = self.seed.page_sum(self.id, page, &bytes);
        let offset = page * self.superblock.page_size.bytes();
        let name = &self.entry.name;
        (found != expected).then(|| {
            let what = format!(
                "page {page} of \"{name}\" has checksum {found:#x}, the {from} say {expected:#x} (0: never written)"
            );
            Problem::new(image_name(self.id), offset, what)
        })
    }
}

/// Whether a page was never written, by its sum and by its bytes.
fn expected_zero(sum: u64, bytes: &[u8]) -> bool {
    // A word at a time: most of a store may be such pages.
    sum == 0 && bytes.chunks(8).all(|word| word == [0; 8])
}

/// `length` bytes from `offset` on; what the file does not have is zero.
fn read(file: Option<&dyn DiskFile>, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).expect("a chunk of pages")];
    if let Some(file) = file {
        let count = file.read_at(offset, &mut bytes)?;
        bytes[count..].fill(0);
    }
    Ok(bytes)
}
