//! A hash map in a heap.
//!
//! Open addressing: an entry lies at the place that its hash says, or in a row behind it. Removing closes the gap, so that
//! there are no marks of former entries. Hash, key and value lie together: a change dirties one page, or two.
//!
//! Invariants:
//! - `slots` is null while `capacity` is 0, else a block of `capacity` slots, a power of two;
//! - a slot is empty if its hash is 0, else its key and value are initialised;
//! - from the place that an entry's hash says up to the entry no slot is empty; at least one slot in eight is.

use core::borrow::Borrow;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::alloc::{Alloc, check_type};
use super::hash::{StableHash, StableHasher};
use super::persist::{Persist, Root, schema};
use crate::error::{Error, Result};

/// Slots of the smallest map that has any.
const CAPACITY_MIN: usize = 8;

/// What is set in the hash of every entry, so that none is 0.
const FULL: u32 = 1 << 31;

#[repr(C)]
struct Slot<K, V> {
    hash: u32,
    key: MaybeUninit<K>,
    value: MaybeUninit<V>,
}

/// `HashMap`, in a heap. What may run out of room returns an error; the map is as it was then.
///
/// Its hashes are fixed ([`StableHash`]), so whoever chooses the keys can make it slow: use [`PMap`](super::PMap) for
/// keys from strangers.
#[repr(C)]
pub struct PHashMap<'h, K: Persist<'h>, V: Persist<'h>> {
    alloc: Alloc<'h>,
    slots: *mut Slot<K, V>,
    capacity: usize,
    len: usize,
}

// SAFETY: `repr(C)` over words, and so are the slots; points into its own heap alone, as keys and values do.
unsafe impl<'h, K: Persist<'h>, V: Persist<'h>> Persist<'h> for PHashMap<'h, K, V> {
    const SCHEMA: u64 = schema("PHashMap", &[("", K::SCHEMA), ("", V::SCHEMA)]);

    fn empty_in(alloc: Alloc<'h>) -> Self {
        Self::new_in(alloc)
    }
}

impl<'any, K: Root + Persist<'any>, V: Root + Persist<'any>> Root for PHashMap<'any, K, V> {
    type In<'h> = PHashMap<'h, K::In<'h>, V::In<'h>>;
}

impl<'h, K: Persist<'h>, V: Persist<'h>> PHashMap<'h, K, V> {
    /// An empty map; allocates nothing.
    pub fn new_in(alloc: Alloc<'h>) -> Self {
        const {
            check_type::<K>();
            check_type::<V>();
        }
        Self {
            alloc,
            slots: core::ptr::null_mut(),
            capacity: 0,
            len: 0,
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `wanted`.
    pub fn get<Q: StableHash + Eq + ?Sized>(&self, wanted: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let index = self.find(wanted, hash(wanted)).ok()?;
        // SAFETY: an entry of this map, borrowed as the map is.
        Some(unsafe { (*self.slots.add(index)).value.assume_init_ref() })
    }

    /// The value of `wanted`, to change it.
    pub fn get_mut<Q: StableHash + Eq + ?Sized>(&mut self, wanted: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let index = self.find(wanted, hash(wanted)).ok()?;
        // SAFETY: an entry of this map, borrowed as the map is.
        Some(unsafe { (*self.slots.add(index)).value.assume_init_mut() })
    }

    /// Whether `wanted` has a value.
    pub fn contains_key<Q: StableHash + Eq + ?Sized>(&self, wanted: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(wanted, hash(wanted)).is_ok()
    }

    /// The value of `wanted`, which `make` makes, with its key, if there is none.
    ///
    /// # Panics
    /// Where the key that `make` makes is not `wanted`.
    ///
    /// # Errors
    /// Those of `make`, and [`Error::HeapFull`].
    pub fn get_or_insert_with<Q: StableHash + Eq + ?Sized>(
        &mut self,
        wanted: &Q,
        make: impl FnOnce(Alloc<'h>) -> Result<(K, V)>,
    ) -> Result<&mut V>
    where
        K: Borrow<Q> + StableHash + Eq,
    {
        let hash = hash(wanted);
        let index = match self.find(wanted, hash) {
            Ok(index) => index,
            Err(_) => {
                let (key, value) = make(self.alloc)?;
                assert!(key.borrow() == wanted, "another key was made");
                self.insert_new(hash, key, value)?
            }
        };
        // SAFETY: an entry of this map, borrowed as the map is.
        Ok(unsafe { (*self.slots.add(index)).value.assume_init_mut() })
    }

    /// Sets the value of `key`; the value that it had.
    ///
    /// # Errors
    /// [`Error::HeapFull`]; `key` and `value` are dropped then.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>>
    where
        K: StableHash + Eq,
    {
        let hash = hash(&key);
        match self.find(&key, hash) {
            // SAFETY: an entry of this map.
            Ok(index) => Ok(Some(unsafe {
                core::mem::replace((*self.slots.add(index)).value.assume_init_mut(), value)
            })),
            Err(_) => self.insert_new(hash, key, value).map(|_| None),
        }
    }

    /// Takes the entry of `wanted`.
    pub fn remove<Q: StableHash + Eq + ?Sized>(&mut self, wanted: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_entry(wanted).map(|(_, value)| value)
    }

    /// Takes the entry of `wanted`, with its key.
    pub fn remove_entry<Q: StableHash + Eq + ?Sized>(&mut self, wanted: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let index = self.find(wanted, hash(wanted)).ok()?;
        // SAFETY: the entry is read out once; its slot is free then.
        let entry = unsafe {
            let slot = &*self.slots.add(index);
            (slot.key.assume_init_read(), slot.value.assume_init_read())
        };
        self.close_gap(index);
        self.len -= 1;
        Some(entry)
    }

    /// Makes room for `additional` more entries.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        let full = Error::HeapFull { wanted: usize::MAX };
        let wanted = self.len.checked_add(additional).ok_or(full)?;
        // Seven slots in eight may be taken.
        let slots = (wanted.checked_mul(8).ok_or(full)? / 7 + 1).checked_next_power_of_two();
        let slots = slots.ok_or(full)?.max(CAPACITY_MIN);
        if slots > self.capacity {
            self.grow(slots)?;
        }
        Ok(())
    }

    /// The entries in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let slots = NonNull::new(self.slots).unwrap_or(NonNull::dangling());
        // SAFETY: the block has `capacity` slots, whose hashes are initialised; borrowed as the map is.
        let slots = unsafe { core::slice::from_raw_parts(slots.as_ptr(), self.capacity) };
        let full = slots.iter().filter(|slot| slot.hash != 0);
        // SAFETY: a slot with a hash has an entry.
        full.map(|slot| unsafe { (slot.key.assume_init_ref(), slot.value.assume_init_ref()) })
    }

    /// Drops every entry; the room stays.
    pub fn clear(&mut self) {
        self.len = 0;
        for index in 0..self.capacity {
            // SAFETY: a slot of the block; its entry, if there is one, is dropped once, because the slot is empty then.
            unsafe {
                let slot = &mut *self.slots.add(index);
                if core::mem::take(&mut slot.hash) != 0 {
                    slot.key.assume_init_drop();
                    slot.value.assume_init_drop();
                }
            }
        }
    }

    /// The slot of `wanted`, or the empty one where it would be. Without slots: 0.
    fn find<Q: Eq + ?Sized>(&self, wanted: &Q, hash: u32) -> core::result::Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        if self.capacity == 0 {
            return Err(0);
        }
        let mask = self.capacity - 1;
        let mut index = hash as usize & mask;
        loop {
            // SAFETY: a slot of the block; one with a hash has an entry. There is an empty one.
            let slot = unsafe { &*self.slots.add(index) };
            if slot.hash == 0 {
                return Err(index);
            }
            // SAFETY: as above.
            if slot.hash == hash && unsafe { slot.key.assume_init_ref() }.borrow() == wanted {
                return Ok(index);
            }
            index = (index + 1) & mask;
        }
    }

    /// Puts an entry in that is not there; its slot.
    fn insert_new(&mut self, hash: u32, key: K, value: V) -> Result<usize> {
        self.reserve(1)?;
        let index = free_slot(self.slots, self.capacity, hash);
        // SAFETY: an empty slot of the block.
        unsafe {
            self.slots.add(index).write(Slot {
                hash,
                key: MaybeUninit::new(key),
                value: MaybeUninit::new(value),
            });
        }
        self.len += 1;
        Ok(index)
    }

    /// Moves everything into a block of `capacity` slots.
    fn grow(&mut self, capacity: usize) -> Result<()> {
        let full = Error::HeapFull { wanted: usize::MAX };
        let bytes = capacity
            .checked_mul(size_of::<Slot<K, V>>())
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(full)?;
        let slots: *mut Slot<K, V> = self.alloc.allocate(bytes)?.cast().as_ptr();
        // SAFETY: two distinct blocks; each entry is moved once, into an empty slot, and the old block is given up.
        unsafe {
            for index in 0..capacity {
                (&raw mut (*slots.add(index)).hash).write(0);
            }
            for index in 0..self.capacity {
                let old = self.slots.add(index);
                if (*old).hash != 0 {
                    let new = slots.add(free_slot(slots, capacity, (*old).hash));
                    new.copy_from_nonoverlapping(old, 1);
                }
            }
        }
        self.free_slots();
        self.slots = slots;
        self.capacity = capacity;
        Ok(())
    }

    /// Moves entries down into the empty slot at `gap` until none behind it can be missed.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.capacity - 1;
        let mut index = gap;
        // SAFETY: slots of the block; an entry is moved into a slot whose own entry is gone. An empty slot ends it.
        unsafe {
            loop {
                index = (index + 1) & mask;
                let hash = (*self.slots.add(index)).hash;
                if hash == 0 {
                    break;
                }
                let home = hash as usize & mask;
                // How far the entry is from its home, and how far the gap is from the entry.
                if (index.wrapping_sub(home) & mask) >= (index.wrapping_sub(gap) & mask) {
                    self.slots
                        .add(gap)
                        .copy_from_nonoverlapping(self.slots.add(index), 1);
                    gap = index;
                }
            }
            (*self.slots.add(gap)).hash = 0;
        }
    }

    fn free_slots(&mut self) {
        if let Some(slots) = NonNull::new(self.slots) {
            // SAFETY: the block was allocated with these bytes, and its entries are moved or dropped.
            unsafe {
                self.alloc
                    .free(slots.cast(), self.capacity * size_of::<Slot<K, V>>())
            };
        }
    }
}

fn hash<Q: StableHash + ?Sized>(wanted: &Q) -> u32 {
    let mut hasher = StableHasher::default();
    wanted.hash_stably(&mut hasher);
    hasher.finish() as u32 | FULL
}

/// The first empty slot from the place that `hash` says on. There is one.
fn free_slot<K, V>(slots: *mut Slot<K, V>, capacity: usize, hash: u32) -> usize {
    let mask = capacity - 1;
    let mut index = hash as usize & mask;
    // SAFETY: slots of the block, whose hashes are initialised.
    while unsafe { (*slots.add(index)).hash } != 0 {
        index = (index + 1) & mask;
    }
    index
}

impl<'h, K: Persist<'h>, V: Persist<'h>> Drop for PHashMap<'h, K, V> {
    fn drop(&mut self) {
        self.clear();
        self.free_slots();
    }
}

impl<'h, K: Persist<'h> + core::fmt::Debug, V: Persist<'h> + core::fmt::Debug> core::fmt::Debug
    for PHashMap<'h, K, V>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
