//! An ordered map in a heap.
//!
//! A B-tree over `btree.rs`. One way down for every change: full nodes are split, and poor ones filled, before they
//! are entered, so that no way back up is needed. `pmap_iter.rs` walks it in order.
//!
//! Invariants: `root` is null while the map is empty, else a tree of `height` with `len` entries.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::ops::RangeBounds;

use super::alloc::{Alloc, check_type};
use super::btree::{self, CAPACITY, HEIGHT_MAX, MIN, Node, Place};
use super::persist::{Persist, Root, schema};
use super::pmap_iter::Iter;
use crate::error::Result;

/// `BTreeMap`, in a heap. What may run out of room returns an error; the map is as it was then.
#[repr(C)]
pub struct PMap<'h, K: Persist<'h>, V: Persist<'h>> {
    alloc: Alloc<'h>,
    root: Node<K, V>,
    height: usize,
    len: usize,
}

// SAFETY: `repr(C)` over words, and so are the nodes; points into its own heap alone, as keys and values do.
unsafe impl<'h, K: Persist<'h>, V: Persist<'h>> Persist<'h> for PMap<'h, K, V> {
    const SCHEMA: u64 = schema("PMap", &[("", K::SCHEMA), ("", V::SCHEMA)]);

    fn empty_in(alloc: Alloc<'h>) -> Self {
        Self::new_in(alloc)
    }
}

impl<'any, K: Root + Persist<'any>, V: Root + Persist<'any>> Root for PMap<'any, K, V> {
    type In<'h> = PMap<'h, K::In<'h>, V::In<'h>>;
}

impl<'h, K: Persist<'h>, V: Persist<'h>> PMap<'h, K, V> {
    /// An empty map; allocates nothing.
    pub fn new_in(alloc: Alloc<'h>) -> Self {
        const {
            check_type::<K>();
            check_type::<V>();
        }
        Self {
            alloc,
            root: core::ptr::null_mut(),
            height: 0,
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
    pub fn get<Q: Ord + ?Sized>(&self, wanted: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (node, index) = self.find(wanted)?;
        // SAFETY: an entry of this tree, borrowed as the map is.
        Some(unsafe { &*btree::value(node, index) })
    }

    /// The value of `wanted`, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, wanted: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (node, index) = self.find(wanted)?;
        // SAFETY: an entry of this tree, borrowed as the map is.
        Some(unsafe { &mut *btree::value(node, index) })
    }

    /// Whether `wanted` has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, wanted: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(wanted).is_some()
    }

    /// The value of `wanted`, which `make` makes, with its key, if there is none.
    ///
    /// # Panics
    /// Where the key that `make` makes is not `wanted`.
    ///
    /// # Errors
    /// Those of `make`, and [`Error::HeapFull`](crate::Error::HeapFull).
    pub fn get_or_insert_with<Q: Ord + ?Sized>(
        &mut self,
        wanted: &Q,
        make: impl FnOnce(Alloc<'h>) -> Result<(K, V)>,
    ) -> Result<&mut V>
    where
        K: Borrow<Q> + Ord,
    {
        let found = match self.find(wanted) {
            Some(found) => found,
            None => {
                let (key, value) = make(self.alloc)?;
                assert!(
                    wanted.cmp(key.borrow()) == Ordering::Equal,
                    "another key was made"
                );
                self.insert(key, value)?;
                self.find(wanted).expect("it was inserted")
            }
        };
        // SAFETY: an entry of this tree, borrowed as the map is.
        Ok(unsafe { &mut *btree::value(found.0, found.1) })
    }

    /// Sets the value of `key`; the value that it had.
    ///
    /// # Errors
    /// [`Error::HeapFull`](crate::Error::HeapFull); `key` and `value` are dropped then.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>>
    where
        K: Ord,
    {
        self.make_room_in_root()?;
        let (mut node, mut height) = (self.root, self.height);
        // SAFETY: from the root, which is not full, down: a child is split before it is entered if it is full.
        unsafe {
            loop {
                let mut index = match btree::search(node, &key) {
                    Place::Here(index) => {
                        return Ok(Some(core::mem::replace(&mut *btree::value(node, index), value)));
                    }
                    Place::Below(index) => index,
                };
                if height == 0 {
                    btree::insert_at(node, index, (key, value), None);
                    self.len += 1;
                    return Ok(None);
                }
                if btree::len(btree::edge(node, index).read()) == CAPACITY {
                    btree::split_child(self.alloc, node, index, height - 1)?;
                    match key.cmp(&*btree::key(node, index)) {
                        Ordering::Less => {}
                        Ordering::Greater => index += 1,
                        Ordering::Equal => continue,
                    }
                }
                node = btree::edge(node, index).read();
                height -= 1;
            }
        }
    }

    /// Makes a root if there is none, and a new one above it if it is full.
    fn make_room_in_root(&mut self) -> Result<()> {
        if self.root.is_null() {
            self.root = btree::new_node(self.alloc, 0)?;
            self.height = 0;
            return Ok(());
        }
        // SAFETY: the root is a node of `height`; the new one has room, and is freed if the split fails.
        unsafe {
            if btree::len(self.root) < CAPACITY {
                return Ok(());
            }
            assert!(
                self.height < HEIGHT_MAX,
                "a tree this high exceeds any address space"
            );
            let above: Node<K, V> = btree::new_node(self.alloc, self.height + 1)?;
            btree::edge(above, 0).write(self.root);
            if let Err(error) = btree::split_child(self.alloc, above, 0, self.height) {
                btree::free_node(self.alloc, above, self.height + 1);
                return Err(error);
            }
            self.root = above;
            self.height += 1;
        }
        Ok(())
    }

    /// Takes the entry of `wanted`.
    pub fn remove<Q: Ord + ?Sized>(&mut self, wanted: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_entry(wanted).map(|(_, value)| value)
    }

    /// Takes the entry of `wanted`, with its key.
    pub fn remove_entry<Q: Ord + ?Sized>(&mut self, wanted: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        if self.root.is_null() {
            return None;
        }
        // SAFETY: the root is a node of `height`.
        let removed = unsafe { self.remove_below(wanted) };
        self.len -= usize::from(removed.is_some());
        self.shrink_root();
        removed
    }

    /// # Safety
    /// The map is not empty.
    unsafe fn remove_below<Q: Ord + ?Sized>(&mut self, wanted: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let (mut node, mut height) = (self.root, self.height);
        // SAFETY: from the root down: a child is filled before it is entered, so that it can lose an entry.
        unsafe {
            loop {
                let index = match (btree::search(node, wanted), height) {
                    (Place::Here(index), 0) => return Some(btree::remove_at(node, index, 0)),
                    (Place::Below(_), 0) => return None,
                    (Place::Here(index), _) => {
                        let [left, right] = [index, index + 1].map(|index| btree::edge(node, index).read());
                        let neighbour = if btree::len(left) > MIN {
                            self.take_extreme(left, height - 1, End::Last)
                        } else if btree::len(right) > MIN {
                            self.take_extreme(right, height - 1, End::First)
                        } else {
                            btree::merge(self.alloc, node, index, height - 1);
                            node = left;
                            height -= 1;
                            continue;
                        };
                        let key = core::mem::replace(&mut *btree::key(node, index), neighbour.0);
                        let value = core::mem::replace(&mut *btree::value(node, index), neighbour.1);
                        return Some((key, value));
                    }
                    (Place::Below(index), _) => btree::strengthen(self.alloc, node, index, height - 1),
                };
                node = btree::edge(node, index).read();
                height -= 1;
            }
        }
    }

    /// Takes the first or last entry of the subtree at `node`.
    ///
    /// # Safety
    /// `node` is a node of this tree, of `height`, with more than [`MIN`] entries.
    unsafe fn take_extreme(&mut self, mut node: Node<K, V>, mut height: usize, end: End) -> (K, V) {
        // SAFETY: as for `remove_below`.
        unsafe {
            while height > 0 {
                let index = if end == End::First { 0 } else { btree::len(node) };
                let index = btree::strengthen(self.alloc, node, index, height - 1);
                node = btree::edge(node, index).read();
                height -= 1;
            }
            let index = if end == End::First {
                0
            } else {
                btree::len(node) - 1
            };
            btree::remove_at(node, index, 0)
        }
    }

    /// Removes a root without entries.
    fn shrink_root(&mut self) {
        // SAFETY: a root without entries has at most one child, which takes its place.
        unsafe {
            if btree::len(self.root) > 0 {
                return;
            }
            let old = (self.root, self.height);
            if self.height == 0 {
                self.root = core::ptr::null_mut();
            } else {
                self.root = btree::edge(self.root, 0).read();
                self.height -= 1;
            }
            btree::free_node(self.alloc, old.0, old.1);
        }
    }

    /// Takes the entry with the least key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        if self.root.is_null() {
            return None;
        }
        // SAFETY: the root is a node of `height`; it has entries, and children that can lose one once they are entered.
        let entry = unsafe { self.take_extreme(self.root, self.height, End::First) };
        self.len -= 1;
        self.shrink_root();
        Some(entry)
    }

    /// The entries in ascending order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter::all(self.root, self.height)
    }

    /// The entries of a range of keys, in ascending order.
    pub fn range<Q: Ord + ?Sized, R: RangeBounds<Q>>(&self, range: R) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        Iter::range(self.root, self.height, range)
    }

    /// Drops every entry.
    pub fn clear(&mut self) {
        let (root, height) = (self.root, self.height);
        self.root = core::ptr::null_mut();
        self.height = 0;
        self.len = 0;
        if !root.is_null() {
            // SAFETY: the tree is not the map's any more.
            unsafe { self.drop_below(root, height) };
        }
    }

    /// Drops the subtree at `node`. The recursion is as deep as the tree, at most [`HEIGHT_MAX`].
    ///
    /// # Safety
    /// `node` is a node of `height`, and nothing leads to it.
    unsafe fn drop_below(&self, node: Node<K, V>, height: usize) {
        // SAFETY: each entry is dropped once, each child belongs to this node alone.
        unsafe {
            let len = btree::len(node);
            for index in 0..=len {
                if height > 0 {
                    self.drop_below(btree::edge(node, index).read(), height - 1);
                }
                if index < len {
                    btree::key(node, index).drop_in_place();
                    btree::value(node, index).drop_in_place();
                }
            }
            btree::free_node(self.alloc, node, height);
        }
    }

    fn find<Q: Ord + ?Sized>(&self, wanted: &Q) -> Option<(Node<K, V>, usize)>
    where
        K: Borrow<Q>,
    {
        let (mut node, mut height) = (self.root, self.height);
        if node.is_null() {
            return None;
        }
        // SAFETY: from the root down, edges exist above height 0.
        unsafe {
            loop {
                match btree::search(node, wanted) {
                    Place::Here(index) => return Some((node, index)),
                    Place::Below(_) if height == 0 => return None,
                    Place::Below(index) => node = btree::edge(node, index).read(),
                }
                height -= 1;
            }
        }
    }

    /// Checks every invariant of the tree; for tests.
    #[cfg(test)]
    pub fn check(&self)
    where
        K: Ord,
    {
        assert_eq!(self.root.is_null(), self.len == 0);
        if !self.root.is_null() {
            // SAFETY: the root is a node of `height`.
            assert_eq!(unsafe { check_below(self.root, self.height, true) }, self.len);
        }
        let keys = || self.iter().map(|(key, _)| key);
        assert!(keys().zip(keys().skip(1)).all(|(left, right)| left < right));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// # Safety
/// `node` is a node of `height`.
#[cfg(test)]
unsafe fn check_below<K, V>(node: Node<K, V>, height: usize, is_root: bool) -> usize {
    // SAFETY: the contract.
    unsafe {
        let len = btree::len(node);
        assert!(len <= CAPACITY && len >= if is_root { 1 } else { MIN });
        let below = |index| check_below(btree::edge(node, index).read(), height - 1, false);
        len + if height == 0 {
            0
        } else {
            (0..=len).map(below).sum::<usize>()
        }
    }
}

impl<'h, K: Persist<'h>, V: Persist<'h>> Drop for PMap<'h, K, V> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<'a, 'h, K: Persist<'h>, V: Persist<'h>> IntoIterator for &'a PMap<'h, K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<'h, K: Persist<'h> + core::fmt::Debug, V: Persist<'h> + core::fmt::Debug> core::fmt::Debug
    for PMap<'h, K, V>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
