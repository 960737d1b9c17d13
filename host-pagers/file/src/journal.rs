//! [`Journal`]: where records are appended.
//!
//! ```text
//!   live: generation 8, 9, ... (sealed)   active: the last one, has room   free: to be recycled
//! ```
//!
//! Invariants:
//! - a record is on stable storage before `append` answers with success; it is written as whole blocks (`tail.rs`);
//! - after a failure the place of the record is never used again: the next record goes to a fresh segment, whose
//!   header voids what may have arrived of the failed one;
//! - a fresh segment is durable, with its name and a snapshot of the catalog, and the superblock names it, before a call goes into
//!   it;
//! - what an opening read is durable before anything follows it: until then it may be in the cache only, left there by a
//!   process that was killed between a write and its sync;
//! - generations are used once, even for an activation that failed; after one nothing is appended to an older segment.

use std::sync::Arc;

use crate::{
    disk::{Access, Disk, Result},
    journal_file::{Plan, Segment},
    layout::{
        STORE_NAME, Seed,
        record::{HEADER_BYTES, RecordHeader, RecordKind, record_bytes},
        segment::SegmentHeader,
        superblock::Superblock,
    },
    limits::{
        BLOCK_BYTES, FILL_BYTES, RECORD_ALIGN, SEGMENT_HEADER_BYTES, SEGMENTS_FAILED_MAX, SEGMENTS_FREE_MAX,
    },
    scan::{Log, Record},
    tail::Tail,
};

/// A segment with records that count.
struct Live {
    segment: Segment,
    generation: u64,
    /// The number of its first call.
    sequence: u64,
    /// Behind its last good record.
    end: u64,
}

/// What an opening found.
pub(crate) struct Found {
    log: Log,
    has_calls: bool,
    /// The superblock that was read, unless all that was read is known to be durable.
    undurable: Option<Superblock>,
}

impl Found {
    /// `log`, of which `records` were taken, as the segments from the one that `superblock` names on.
    pub(crate) fn new(log: Log, records: &[Record], superblock: &Superblock) -> Self {
        let is_call = |record: &Record| record.header.kind == RecordKind::Calls;
        let durable = log.live.is_empty() || (superblock.closed && log.live.len() == 1);
        // One of an older format does not say.
        let last = log.live.last().map_or(0, |last| last.header.generation);
        let newest = superblock.newest.max(last);
        Self {
            log,
            has_calls: records.iter().any(is_call),
            undurable: (!durable).then_some(Superblock {
                newest,
                ..*superblock
            }),
        }
    }
}

/// The end of the log.
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    seed: Seed,
    segment_bytes: u64,
    live: Vec<Live>,
    /// The end of the active segment.
    tail: Tail,
    free: Vec<Segment>,
    /// The superblock that the live segments were read with, as long as they may be in the cache only.
    undurable: Option<Superblock>,
    /// Whether the last live segment takes records.
    active: bool,
    /// Whether it is there for that and only the superblock does not name it.
    unnamed: bool,
    /// Where calls begin in it.
    begun: u64,
    /// A record failed, and may have arrived: no fresh segment has voided it yet. Or one may have failed in an earlier
    /// process, and what voids it is in the cache only.
    doubtful: bool,
    /// Whether the last live segment, or any before the first activation, has calls.
    used: bool,
    /// A segment for the next roll-over was planned since the last one.
    planned: bool,
    sequence_next: u64,
    generation_next: u64,
    slot_next: u64,
    chain: u64,
}

/// What a checkpoint will free: segments before `generation`, whose first call is `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
}

impl Journal {
    /// Goes on behind what was found, in a fresh segment.
    pub(crate) fn new(disk: Arc<dyn Disk>, seed: Seed, segment_bytes: u64, found: Found) -> Self {
        let Found {
            log,
            has_calls,
            undurable,
        } = found;
        let slots = log
            .live
            .iter()
            .map(|live| live.slot)
            .chain(log.free.iter().map(|free| free.slot));
        let slot_next = slots.max().map_or(0, |slot| slot + 1);
        let live = log.live.into_iter().map(|live| Live {
            segment: Segment {
                slot: live.slot,
                file: live.file,
                capacity: live.header.capacity,
                durable: undurable.is_none(),
                failed: false,
            },
            generation: live.header.generation,
            sequence: live.header.sequence,
            end: live.end,
        });
        let free = log.free.into_iter().map(|free| Segment {
            slot: free.slot,
            file: free.file,
            capacity: free.length,
            durable: false,
            failed: false,
        });
        Self {
            disk,
            seed,
            segment_bytes,
            live: live.collect(),
            tail: Tail::default(),
            free: free.collect(),
            doubtful: undurable.is_some(),
            undurable,
            active: false,
            unnamed: false,
            begun: 0,
            used: has_calls,
            planned: false,
            sequence_next: log.sequence_next,
            generation_next: log.generation_next,
            slot_next,
            chain: log.chain,
        }
    }

    /// The number of the next call.
    pub(crate) fn sequence_next(&self) -> u64 {
        self.sequence_next
    }

    /// Segments before the active one.
    fn sealed(&self) -> &[Live] {
        &self.live[..self.live.len() - usize::from(self.active)]
    }

    /// Bytes in segments before the active one.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.sealed().iter().map(|live| live.end).sum()
    }

    /// What these take of the disk. One that was made for a large call and has small ones counts as any other: the rest of it is taken
    /// as long as it is kept, in use or free.
    pub(crate) fn sealed_capacity(&self) -> u64 {
        let counts = |live: &Live| live.segment.capacity.min(live.end.max(self.segment_bytes));
        self.sealed().iter().map(counts).sum()
    }

    /// Whether a record with a body of `length` bytes should go into the active segment. One that was made for a large call takes
    /// no more of small ones than others do.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        let end = self.begun + self.segment_bytes;
        self.fits(length) && self.live.last().is_some_and(|last| last.end < end)
    }

    /// Whether it could.
    pub(crate) fn fits(&self, length: usize) -> bool {
        let active = self.live.last().filter(|_| self.active);
        active.is_some_and(|last| has_room(last, length))
    }

    /// Whether a replay would find no call.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.len() == 1 && !self.used
    }

    /// Whether there are calls that the superblock's images need not have; of a journal that was just opened.
    pub(crate) fn has_calls(&self) -> bool {
        self.used
    }

    /// Whether a record that failed could come back after a crash. No call may succeed before a fresh segment is begun, not
    /// even one without changes: it would be a success before the failure then.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether a fresh segment has to be activated before everything appended so far can be freed.
    pub(crate) fn must_roll(&self) -> bool {
        self.used || !self.active
    }

    /// Writes and syncs one record, whose body `pieces` make. There must be room.
    ///
    /// # Errors
    /// The disk's. What is on disk is then unknown, and no record goes behind it.
    pub(crate) fn append(&mut self, pieces: &[&[u8]], calls: u32) -> Result<()> {
        assert!(self.active && calls > 0);
        let last = self.live.last_mut().expect("an active segment is live");
        assert!(last.end.is_multiple_of(RECORD_ALIGN as u64));
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let end = last.end + record_bytes(length) as u64;
        assert!(end <= last.segment.capacity);
        let start = last.end - self.tail.used() as u64;
        let room = usize::try_from(last.segment.capacity - start).unwrap_or(usize::MAX);
        let record = self.tail.place(record_bytes(length), room);
        let mut behind = HEADER_BYTES;
        for piece in pieces {
            record[behind..behind + piece.len()].copy_from_slice(piece);
            behind += piece.len();
        }
        let header = RecordHeader {
            kind: RecordKind::Calls,
            calls,
            length: 0,
            generation: last.generation,
            sequence: self.sequence_next,
            chain: self.chain,
            body_sum: 0,
        };
        let chain = encode_record(self.seed, record, length, header);
        if let Err(error) = last.segment.file.write_durably(start, self.tail.blocks()) {
            (self.active, self.doubtful) = (false, true);
            return Err(error);
        }
        last.end = end;
        self.tail.advance();
        self.chain = chain;
        self.sequence_next += u64::from(calls);
        self.used = true;
        Ok(())
    }

    /// Makes a fresh segment, with `snapshot` as its first record and room for a body of `length` bytes behind it, or finds one
    /// that was not named; answers with its generation. When the superblock names it, it is to be begun.
    ///
    /// # Errors
    /// The disk's; then no segment may be active, and the next record needs a fresh one.
    pub(crate) fn activate(&mut self, snapshot: &[u8], length: usize) -> Result<u64> {
        self.make_durable()?;
        let unnamed = self.live.last().filter(|_| self.unnamed);
        if let Some(last) = unnamed.filter(|last| has_room(last, length)) {
            return Ok(last.generation);
        }
        let mut record = vec![0; record_bytes(snapshot.len())];
        record[HEADER_BYTES..HEADER_BYTES + snapshot.len()].copy_from_slice(snapshot);
        let generation = self.generation_next;
        let header = RecordHeader {
            kind: RecordKind::Snapshot,
            calls: 0,
            length: 0,
            generation,
            sequence: self.sequence_next,
            chain: self.chain,
            body_sum: 0,
        };
        let chain = encode_record(self.seed, &mut record, snapshot.len(), header);
        let end = (SEGMENT_HEADER_BYTES + record.len()) as u64;
        let mut segment = self.take_segment(end + record_bytes(length) as u64)?;
        self.generation_next += 1;
        let header = SegmentHeader {
            generation,
            sequence: self.sequence_next,
            chain: self.chain,
            capacity: segment.capacity,
        };
        let mut front = header.encode(self.seed);
        front.extend_from_slice(&record);
        if let Err(error) = segment
            .file
            .write_at(0, &front)
            .and_then(|()| segment.file.sync())
        {
            // The header may have arrived, and then voids whatever would be appended to the segment before it.
            (self.active, self.unnamed) = (false, false);
            self.keep_failed(segment);
            return Err(error);
        }
        segment.failed = false;
        self.begun = end;
        self.tail.begin(&front);
        self.live.push(Live {
            segment,
            generation,
            sequence: self.sequence_next,
            end,
        });
        (self.active, self.unnamed, self.used, self.chain) = (false, true, false, chain);
        self.planned = false;
        Ok(generation)
    }

    /// The superblock names the segment that was activated: it is the active one.
    pub(crate) fn begin(&mut self) {
        assert!(self.unnamed);
        (self.active, self.unnamed, self.doubtful) = (true, false, false);
    }

    /// Whether a segment takes records.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// Whether [`Journal::make_durable`] has something to do.
    pub(crate) fn is_undurable(&self) -> bool {
        self.undurable.is_some()
    }

    /// Puts what the opening read on stable storage. Written again, because after a failed sync the cache may count it
    /// as clean.
    ///
    /// # Errors
    /// The disk's; then nothing may be written that relies on it.
    pub(crate) fn make_durable(&mut self) -> Result<()> {
        let Some(superblock) = self.undurable else {
            return Ok(());
        };
        if let Some(last) = self.live.last_mut() {
            last.segment.make_length_durable()?;
            let mut bytes = vec![0; FILL_BYTES];
            for start in (0..last.end).step_by(FILL_BYTES) {
                let length =
                    usize::try_from(last.end - start).map_or(FILL_BYTES, |left| left.min(FILL_BYTES));
                let count = last.segment.file.read_at(start, &mut bytes[..length])?;
                last.segment.file.write_at(start, &bytes[..count])?;
            }
        }
        for live in &self.live {
            live.segment.file.sync()?;
        }
        let store_file = self.disk.open(STORE_NAME, Access::Write)?;
        store_file.write_at(superblock.slot_offset(), &superblock.encode())?;
        store_file.sync()?;
        self.disk.sync_names()?;
        for live in &mut self.live {
            live.segment.durable = true;
        }
        self.undurable = None;
        Ok(())
    }

    /// A file that failed is used again where nothing else can be. Of many there is no need: the disk may be bad where they are.
    fn keep_failed(&mut self, mut segment: Segment) {
        let failed = self.free.iter().filter(|segment| segment.failed).count();
        if failed >= SEGMENTS_FAILED_MAX {
            return segment.remove(self.disk.as_ref());
        }
        segment.failed = true;
        self.free.push(segment);
    }

    /// A segment of at least `needed` bytes, whose length and name are durable: a free one, else a new one, else one that failed.
    fn take_segment(&mut self, needed: u64) -> Result<Segment> {
        if let Some(free) = self.take_free(needed, false) {
            return Ok(free);
        }
        let made = self.plan(needed).make(self.disk.as_ref());
        made.or_else(|error| self.take_free(needed, true).ok_or(error))
    }

    /// A free one of at least `needed` bytes that can be used, of those that `failed` or of the others.
    fn take_free(&mut self, needed: u64, failed: bool) -> Option<Segment> {
        let disk = self.disk.as_ref();
        let mut free = self.free.iter_mut();
        let usable = free.position(|segment| {
            segment.capacity >= needed && segment.failed == failed && segment.make_usable(disk).is_ok()
        });
        usable.map(|index| self.free.remove(index))
    }

    /// A new segment of at least `needed` bytes.
    fn plan(&mut self, needed: u64) -> Plan {
        let slot = self.slot_next;
        self.slot_next += 1;
        Plan {
            slot,
            capacity: self
                .segment_bytes
                .max(needed)
                .next_multiple_of(BLOCK_BYTES as u64),
        }
    }

    /// Whether a segment should be made for the next roll-over: there is none, and the active one is half full.
    pub(crate) fn wants_spare(&self) -> bool {
        let end = self.begun + self.segment_bytes;
        let half_full = |last: &Live| last.end > last.segment.capacity.min(end) / 2;
        let is_spare = |segment: &Segment| segment.capacity >= self.segment_bytes && !segment.failed;
        self.active
            && !self.planned
            && !self.free.iter().any(is_spare)
            && self.live.last().is_some_and(half_full)
    }

    /// That segment, to be made while the journal is not locked.
    pub(crate) fn plan_spare(&mut self) -> Option<Plan> {
        if !self.wants_spare() {
            return None;
        }
        self.planned = true;
        Some(self.plan(0))
    }

    /// It is made.
    pub(crate) fn add_spare(&mut self, segment: Segment) {
        self.free.push(segment);
    }

    /// Where a checkpoint may advance to: the active segment, where there is one.
    pub(crate) fn seal(&self) -> Option<Seal> {
        let last = self.live.last().filter(|_| self.active)?;
        Some(Seal {
            generation: last.generation,
            sequence: last.sequence,
        })
    }

    /// Frees the segments before `generation`, after a superblock that does not need them is durable. Those that are too many
    /// are the caller's.
    pub(crate) fn release(&mut self, generation: u64) -> Vec<Segment> {
        let keep = self.live.partition_point(|live| live.generation < generation);
        assert!(keep < self.live.len(), "the checkpoint's segment stays");
        for live in self.live.drain(..keep) {
            self.free.push(live.segment);
        }
        // Those that failed first, then odd sizes: a large one was made for one large call.
        self.free
            .sort_by_key(|segment| (segment.failed, segment.capacity.abs_diff(self.segment_bytes)));
        self.free.split_off(self.free.len().min(SEGMENTS_FREE_MAX))
    }
}

/// Whether a record with a body of `length` bytes goes into `segment`.
fn has_room(segment: &Live, length: usize) -> bool {
    segment.end + record_bytes(length) as u64 <= segment.segment.capacity
}

/// Fills in the header of `record`, whose body has `length` bytes, and the padding; answers with its checksum.
fn encode_record(seed: Seed, record: &mut [u8], length: usize, header: RecordHeader) -> u64 {
    let (front, body) = record.split_at_mut(HEADER_BYTES);
    let (body, padding) = body.split_at_mut(length);
    let header = RecordHeader {
        length: u32::try_from(length).expect("records are limited"),
        body_sum: seed.checksum(body),
        ..header
    };
    let (bytes, chain) = header.encode(seed);
    front.copy_from_slice(&bytes);
    padding.fill(0);
    assert!(RecordHeader::decode(record, seed) == Some((header, chain)));
    chain
}
