//! Reading the journal: from a superblock to the records that count.
//!
//! ```text
//!   generation  7 (free)   8 = checkpoint        9 (empty)      10
//!               | stale |  | S | 41 | 42 | bad |  | S |          | S | 43 | 44 | end
//!                                          ^ void: segment 9 begins with call 43
//! ```
//!
//! Invariants, each of which is checked and reported as damage where it fails:
//! - the segments from the checkpoint's on follow each other without a gap in calls, and chain by checksum, and the newest that may
//!   have calls is among them;
//! - a record that does not check ends its segment; nothing of the same generation follows it;
//! - a segment whose activation was interrupted has no calls, and counts as free;
//! - the one that a closed store names has no calls, so that what lies behind its snapshot is not read.

use vmsync_core::PagerErrorKind;

use crate::{
    disk::{Access, Disk, DiskFile},
    layout::{
        FileKind, STORE_NAME, Seed, file_kind,
        record::{HEADER_BYTES, MAGIC, RecordHeader, RecordKind},
        segment::{ENCODED_BYTES, Found, SegmentHeader},
        segment_name,
        superblock::{Slot, Superblock},
    },
    limits::{FILL_BYTES, RECORD_ALIGN, SEGMENT_HEADER_BYTES, SLOT_BYTES},
    problem::{Problem, Trouble},
};

/// A journal file, whatever it holds.
pub(crate) struct SegmentFile {
    pub(crate) slot: u64,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) length: u64,
    pub(crate) found: Found,
}

/// A record that counts.
pub(crate) struct Record {
    pub(crate) slot: u64,
    pub(crate) offset: u64,
    pub(crate) header: RecordHeader,
    pub(crate) body: Vec<u8>,
}

/// A segment that counts.
pub(crate) struct LiveSegment {
    pub(crate) slot: u64,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
    /// Behind its last record.
    pub(crate) end: u64,
}

/// All that the journal says.
pub(crate) struct Log {
    pub(crate) live: Vec<LiveSegment>,
    pub(crate) free: Vec<SegmentFile>,
    pub(crate) records: Vec<Record>,
    pub(crate) sequence_next: u64,
    pub(crate) generation_next: u64,
    pub(crate) chain: u64,
}

/// Both slots of the superblock.
pub(crate) fn read_slots(disk: &dyn Disk) -> Result<[Slot; 2], Trouble> {
    let file = disk.open(STORE_NAME, Access::Read)?;
    let mut slots = [Slot::Blank; 2];
    for (slot, offset) in slots.iter_mut().zip([0, SLOT_BYTES as u64]) {
        let mut bytes = vec![0; SLOT_BYTES];
        let count = file.read_at(offset, &mut bytes)?;
        *slot = Superblock::decode(&bytes[..count]);
    }
    Ok(slots)
}

/// The slot that counts: the valid one with the higher number.
pub(crate) fn newest(slots: &[Slot; 2]) -> Option<Superblock> {
    let valid = slots.iter().filter_map(|slot| match slot {
        Slot::Valid(superblock) => Some(*superblock),
        _ => None,
    });
    valid.max_by_key(|superblock| superblock.number)
}

/// Opens every journal file.
pub(crate) fn open_segments(
    disk: &dyn Disk,
    access: Access,
    seed: Seed,
) -> Result<Vec<SegmentFile>, Trouble> {
    let mut segments = Vec::new();
    for name in disk.list()? {
        let Some(FileKind::Segment(slot)) = file_kind(&name) else {
            continue;
        };
        let file = match disk.open(&name, access) {
            // A spare that was being made, and found no room. One that counts is missed by those who need it.
            Err(error) if error.kind == PagerErrorKind::NotFound => continue,
            opened => opened?,
        };
        let mut bytes = [0; ENCODED_BYTES];
        let count = file.read_at(0, &mut bytes)?;
        let found = SegmentHeader::decode(&bytes[..count], seed);
        segments.push(SegmentFile {
            slot,
            length: file.length()?,
            file,
            found,
        });
    }
    segments.sort_by_key(|segment| segment.slot);
    Ok(segments)
}

/// Reads the journal from the segment on that `superblock` names.
pub(crate) fn scan(disk: &dyn Disk, access: Access, superblock: &Superblock) -> Result<Log, Trouble> {
    let seed = Seed::of(superblock.nonce);
    let mut log = Log {
        live: Vec::new(),
        free: Vec::new(),
        records: Vec::new(),
        sequence_next: superblock.sequence,
        generation_next: superblock.generation + 1,
        chain: 0,
    };
    let mut candidates = Vec::new();
    for segment in open_segments(disk, access, seed)? {
        let generation = match segment.found {
            Found::Valid(header) if header.generation >= superblock.generation => {
                candidates.push((header, segment));
                header.generation
            }
            Found::Valid(_) | Found::Blank | Found::Damaged => {
                let generation = lost_generation(&segment, superblock, seed)?;
                log.free.push(segment);
                generation
            }
        };
        log.generation_next = log.generation_next.max(generation + 1);
    }
    candidates.sort_by_key(|(header, _)| header.generation);
    check_order(superblock, &candidates)?;
    let limits: Vec<_> = candidates
        .iter()
        .skip(1)
        .map(|(header, _)| Some(*header))
        .chain([None])
        .collect();
    for ((header, segment), next) in candidates.into_iter().zip(limits) {
        scan_segment(&mut log, (seed, superblock), header, segment, next)?;
    }
    Ok(log)
}

/// The checkpoint's segment is there, and the newest that may have calls, and generations and sequences rise together.
fn check_order(superblock: &Superblock, candidates: &[(SegmentHeader, SegmentFile)]) -> Result<(), Trouble> {
    let first = candidates.first().map(|(header, _)| *header);
    let expected = (superblock.generation, superblock.sequence);
    if first.map(|header| (header.generation, header.sequence)) != Some(expected) {
        let what = format!(
            "replay begins with call {} in segment generation {}, and no journal file has it",
            superblock.sequence, superblock.generation
        );
        return Err(Problem::new(STORE_NAME, superblock.slot_offset(), what).into());
    }
    if !candidates
        .iter()
        .any(|(header, _)| header.generation == superblock.newest)
    {
        let what = format!(
            "the journal goes on in segment generation {}, and no journal file has it",
            superblock.newest
        );
        return Err(Problem::new(STORE_NAME, superblock.slot_offset(), what).into());
    }
    for pair in candidates.windows(2) {
        let ((before, _), (after, segment)) = (&pair[0], &pair[1]);
        if before.generation >= after.generation || before.sequence > after.sequence {
            let what = format!(
                "generation {} with call {} behind generation {} with call {}",
                after.generation, after.sequence, before.generation, before.sequence
            );
            return Err(Problem::new(segment_name(segment.slot), 0, what).into());
        }
    }
    Ok(())
}

/// The generation of the records in a segment whose header does not count, 0 where there are none. Calls from the checkpoint
/// on mean that another header was there once: it is broken, or one of an earlier life of the file was written over it.
fn lost_generation(segment: &SegmentFile, superblock: &Superblock, seed: Seed) -> Result<u64, Trouble> {
    let start = SEGMENT_HEADER_BYTES as u64;
    // The header says enough: every file that waits to be used again is looked at, and a catalog may be large.
    let Some((snapshot, _)) = read_record_header(segment.file.as_ref(), start, seed)? else {
        return Ok(0);
    };
    if snapshot.kind != RecordKind::Snapshot || snapshot.generation < superblock.generation {
        return Ok(snapshot.generation);
    }
    let behind = start + snapshot.record_bytes() as u64;
    let call = read_record(segment.file.as_ref(), behind, segment.length, seed)?;
    if call.is_some_and(|(header, _, _)| header.generation == snapshot.generation) {
        let what = format!(
            "the header of generation {} is broken or lost",
            snapshot.generation
        );
        return Err(Problem::new(segment_name(segment.slot), 0, what).into());
    }
    Ok(snapshot.generation)
}

/// The header at `offset` and its checksum; `None` where the bytes are not one.
fn read_record_header(
    file: &dyn DiskFile,
    offset: u64,
    seed: Seed,
) -> Result<Option<(RecordHeader, u64)>, Trouble> {
    let mut bytes = [0; HEADER_BYTES];
    let count = file.read_at(offset, &mut bytes)?;
    Ok(RecordHeader::decode(&bytes[..count], seed))
}

/// The record at `offset`: header, checksum, body; `None` where the bytes are not one.
fn read_record(
    file: &dyn DiskFile,
    offset: u64,
    capacity: u64,
    seed: Seed,
) -> Result<Option<(RecordHeader, u64, Vec<u8>)>, Trouble> {
    let Some((header, sum)) = read_record_header(file, offset, seed)? else {
        return Ok(None);
    };
    let length = header.length as usize;
    if offset + HEADER_BYTES as u64 + length as u64 > capacity {
        return Ok(None);
    }
    let mut body = vec![0; length];
    let count = file.read_at(offset + HEADER_BYTES as u64, &mut body)?;
    let whole = count == length && seed.checksum(&body) == header.body_sum;
    Ok(whole.then_some((header, sum, body)))
}

/// The segment is whole and goes on where the log ends.
fn check_place(log: &Log, header: SegmentHeader, segment: &SegmentFile) -> Result<(), Trouble> {
    let name = segment_name(segment.slot);
    if segment.length < header.capacity {
        let what = format!("the file has {} bytes of {}", segment.length, header.capacity);
        return Err(Problem::new(name, segment.length, what).into());
    }
    if (header.sequence, header.chain) != (log.sequence_next, log.chain) {
        let what = format!(
            "the segment begins with call {} behind a record with checksum {:#x}; found call {} and {:#x} before it",
            header.sequence, header.chain, log.sequence_next, log.chain
        );
        return Err(Problem::new(name, 0, what).into());
    }
    Ok(())
}

/// Adds the records of one segment to the log.
fn scan_segment(
    log: &mut Log,
    (seed, superblock): (Seed, &Superblock),
    header: SegmentHeader,
    segment: SegmentFile,
    next: Option<SegmentHeader>,
) -> Result<(), Trouble> {
    let name = segment_name(segment.slot);
    // The one that a closed store names has no calls.
    let closed = superblock.closed && header.generation == superblock.generation;
    let first = log.live.is_empty();
    if first {
        log.chain = header.chain;
    }
    check_place(log, header, &segment)?;
    // An activation that was reported as failed, and arrived: the next one began at the same place.
    let repeated = next.is_some_and(|next| (next.sequence, next.chain) == (header.sequence, header.chain));
    if repeated && !first {
        log.free.push(segment);
        return Ok(());
    }
    let mut walk = Walk {
        seed,
        header,
        offset: SEGMENT_HEADER_BYTES as u64,
        chain: header.chain,
    };
    let Some(snapshot) = walk.next(&segment, header.sequence, RecordKind::Snapshot)? else {
        if first || next.is_some() || header.generation <= superblock.newest {
            let what = format!("the snapshot of generation {} is broken", header.generation);
            return Err(Problem::new(name, walk.offset, what).into());
        }
        walk.check_end(&segment, header.sequence)?;
        log.free.push(segment);
        return Ok(());
    };
    log.records.push(snapshot);
    let void = next.map_or(u64::MAX, |next| next.sequence);
    while !closed && log.sequence_next < void {
        let Some(record) = walk.next(&segment, log.sequence_next, RecordKind::Calls)? else {
            break;
        };
        log.sequence_next += u64::from(record.header.calls);
        log.records.push(record);
    }
    log.chain = walk.chain;
    match next {
        None if closed => {}
        None => walk.check_end(&segment, log.sequence_next)?,
        Some(next) if next.sequence == log.sequence_next => {}
        Some(next) => {
            let what = format!(
                "record of call {} is broken, and the next segment goes on with call {}",
                log.sequence_next, next.sequence
            );
            return Err(Problem::new(name, walk.offset, what).into());
        }
    }
    log.live.push(LiveSegment {
        slot: segment.slot,
        file: segment.file,
        header,
        end: walk.offset,
    });
    Ok(())
}

/// A place in a segment.
struct Walk {
    seed: Seed,
    header: SegmentHeader,
    offset: u64,
    chain: u64,
}

impl Walk {
    /// The record here, if it is the one that follows.
    fn next(
        &mut self,
        segment: &SegmentFile,
        sequence: u64,
        kind: RecordKind,
    ) -> Result<Option<Record>, Trouble> {
        let capacity = self.header.capacity;
        let found = read_record(segment.file.as_ref(), self.offset, capacity, self.seed)?;
        let Some((header, sum, body)) = found else {
            return Ok(None);
        };
        let follows = header.kind == kind
            && header.generation == self.header.generation
            && header.sequence == sequence
            && header.chain == self.chain
            && (header.calls > 0) == (kind == RecordKind::Calls);
        if !follows {
            return Ok(None);
        }
        let record = Record {
            slot: segment.slot,
            offset: self.offset,
            header,
            body,
        };
        self.chain = sum;
        self.offset += header.record_bytes() as u64;
        Ok(Some(record))
    }

    /// Behind the last record no other of this generation and from `sequence` on may follow: it would have been
    /// written after the broken one was durable. The broken one itself may have a whole header.
    fn check_end(&self, segment: &SegmentFile, sequence: u64) -> Result<(), Trouble> {
        let capacity = self.header.capacity;
        let overlap = HEADER_BYTES - RECORD_ALIGN;
        let mut bytes = vec![0; FILL_BYTES + overlap];
        let mut start = self.offset;
        while start + (HEADER_BYTES as u64) <= capacity {
            let count = segment.file.read_at(start, &mut bytes)?;
            for (index, window) in bytes[..count]
                .windows(HEADER_BYTES)
                .enumerate()
                .step_by(RECORD_ALIGN)
            {
                if window[..4] != MAGIC.to_le_bytes() {
                    continue;
                }
                let Some((header, _)) = RecordHeader::decode(window, self.seed) else {
                    continue;
                };
                let at = start + index as u64;
                let later = header.generation == self.header.generation && header.sequence >= sequence;
                let broken = at == self.offset && header.sequence == sequence && header.chain == self.chain;
                if later && !broken {
                    let what = format!(
                        "record of call {sequence} is broken, and the one of call {} follows at byte {at}",
                        header.sequence
                    );
                    return Err(Problem::new(segment_name(segment.slot), self.offset, what).into());
                }
            }
            start += FILL_BYTES as u64;
        }
        Ok(())
    }
}
