//! The nodes of [`PMap`](super::PMap)'s B-tree and the moves between them.
//!
//! Sits below `pmap.rs`, which walks the tree; here is what touches one node, or a parent with two children.
//!
//! Invariants:
//! - a node has [`MIN`] to [`CAPACITY`] entries, the root at least one; its first `len` keys and values are
//!   initialised, and in an inner node the first `len + 1` edges;
//! - keys ascend within a node, and lie between their neighbours' subtrees;
//! - all leaves are at height 0; a node knows its height only from the way to it.
//!
//! Every function here is unsafe for the same reason: it takes nodes by pointer. Its contract is that they are live
//! nodes of one tree, of the height that is given or implied, with no reference into them, and with the entries that
//! the assertion at its head says.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::mem::MaybeUninit;
use core::ptr::{copy, copy_nonoverlapping};

use super::alloc::Alloc;
use crate::error::Result;

/// Entries of a full node: few enough to search in a row, enough that a tree of a million has five levels.
pub const CAPACITY: usize = 11;

/// Fewest entries of a node other than the root.
pub const MIN: usize = CAPACITY / 2;

/// Levels above the leaves that a tree can have: 6^24 entries exceed any address space.
pub const HEIGHT_MAX: usize = 24;

/// A node without edges.
#[repr(C)]
pub struct Leaf<K, V> {
    pub len: u32,
    pub keys: [MaybeUninit<K>; CAPACITY],
    pub values: [MaybeUninit<V>; CAPACITY],
}

/// A node with edges; begins as a [`Leaf`].
#[repr(C)]
struct Inner<K, V> {
    entries: Leaf<K, V>,
    edges: [Node<K, V>; CAPACITY + 1],
}

/// A node by its address; the height says of which kind it is.
pub type Node<K, V> = *mut Leaf<K, V>;

/// Where a key is in a node, or would be.
pub enum Place {
    /// At this entry.
    Here(usize),
    /// Below this edge.
    Below(usize),
}

const fn bytes<K, V>(height: usize) -> usize {
    if height == 0 {
        size_of::<Leaf<K, V>>()
    } else {
        size_of::<Inner<K, V>>()
    }
}

/// A new node without entries.
pub fn new_node<K, V>(alloc: Alloc<'_>, height: usize) -> Result<Node<K, V>> {
    let node: Node<K, V> = alloc.allocate(bytes::<K, V>(height))?.cast().as_ptr();
    // SAFETY: a block of the right size; the arrays need no initialisation.
    unsafe { (&raw mut (*node).len).write(0) };
    Ok(node)
}

/// Frees a node; its entries are dropped or moved already.
pub unsafe fn free_node<K, V>(alloc: Alloc<'_>, node: Node<K, V>, height: usize) {
    // SAFETY: the contract; `new_node` allocated it with this size.
    unsafe {
        alloc.free(
            core::ptr::NonNull::new_unchecked(node).cast(),
            bytes::<K, V>(height),
        )
    };
}

/// The number of entries.
pub unsafe fn len<K, V>(node: Node<K, V>) -> usize {
    // SAFETY: the contract.
    unsafe { (*node).len as usize }
}

unsafe fn set_len<K, V>(node: Node<K, V>, len: usize) {
    // SAFETY: the contract.
    unsafe { (*node).len = len as u32 };
}

pub unsafe fn key<K, V>(node: Node<K, V>, index: usize) -> *mut K {
    // SAFETY: the contract; the arrays are of `MaybeUninit`, which has the layout of its content.
    unsafe { (&raw mut (*node).keys).cast::<K>().add(index) }
}

pub unsafe fn value<K, V>(node: Node<K, V>, index: usize) -> *mut V {
    // SAFETY: as for `key`.
    unsafe { (&raw mut (*node).values).cast::<V>().add(index) }
}

pub unsafe fn edge<K, V>(node: Node<K, V>, index: usize) -> *mut Node<K, V> {
    // SAFETY: the contract: the node is an inner one.
    unsafe {
        (&raw mut (*node.cast::<Inner<K, V>>()).edges)
            .cast::<Node<K, V>>()
            .add(index)
    }
}

/// Where `wanted` is in `node`.
pub unsafe fn search<K: Borrow<Q>, V, Q: Ord + ?Sized>(node: Node<K, V>, wanted: &Q) -> Place {
    // SAFETY: the first `len` keys are initialised.
    unsafe {
        for index in 0..len(node) {
            match wanted.cmp((*key(node, index)).borrow()) {
                Ordering::Greater => {}
                Ordering::Equal => return Place::Here(index),
                Ordering::Less => return Place::Below(index),
            }
        }
        Place::Below(len(node))
    }
}

/// Inserts an entry at `index`, and in an inner node an edge after it.
pub unsafe fn insert_at<K, V>(node: Node<K, V>, index: usize, entry: (K, V), edge_after: Option<Node<K, V>>) {
    // SAFETY: the contract, and there is room, so that the moves stay within the arrays.
    unsafe {
        let len = len(node);
        assert!(len < CAPACITY && index <= len, "the node is full");
        copy(key(node, index), key(node, index + 1), len - index);
        copy(value(node, index), value(node, index + 1), len - index);
        key(node, index).write(entry.0);
        value(node, index).write(entry.1);
        if let Some(child) = edge_after {
            copy(edge(node, index + 1), edge(node, index + 2), len - index);
            edge(node, index + 1).write(child);
        }
        set_len(node, len + 1);
    }
}

/// Takes the entry at `index`, and in an inner node the edge after it.
pub unsafe fn remove_at<K, V>(node: Node<K, V>, index: usize, height: usize) -> (K, V) {
    // SAFETY: the contract; the entry is read out once, and those above it move over it.
    unsafe {
        let len = len(node);
        assert!(index < len, "no such entry");
        let entry = (key(node, index).read(), value(node, index).read());
        copy(key(node, index + 1), key(node, index), len - index - 1);
        copy(value(node, index + 1), value(node, index), len - index - 1);
        if height > 0 {
            copy(edge(node, index + 2), edge(node, index + 1), len - index - 1);
        }
        set_len(node, len - 1);
        entry
    }
}

/// Splits the full child below edge `index` of `parent`, which has room: its middle entry moves up. `height` is
/// the child's. Fails, with nothing changed, where the heap is full.
pub unsafe fn split_child<K, V>(
    alloc: Alloc<'_>,
    parent: Node<K, V>,
    index: usize,
    height: usize,
) -> Result<()> {
    let right = new_node::<K, V>(alloc, height)?;
    // SAFETY: the contract; the upper half moves into a node that is empty, the middle entry into the parent.
    unsafe {
        let left = edge(parent, index).read();
        assert!(len(left) == CAPACITY, "only full nodes are split");
        move_tail(left, right, MIN + 1, height);
        let middle = (key(left, MIN).read(), value(left, MIN).read());
        set_len(left, MIN);
        insert_at(parent, index, middle, Some(right));
    }
    Ok(())
}

/// Moves the entries of `from` from `start` on, and the edges from `start` on, to the end of `to`.
unsafe fn move_tail<K, V>(from: Node<K, V>, to: Node<K, V>, start: usize, height: usize) {
    // SAFETY: the contract: distinct nodes, and `to` has room.
    unsafe {
        let (count, end) = (len(from) - start, len(to));
        assert!(end + count <= CAPACITY, "the target has room");
        copy_nonoverlapping(key(from, start), key(to, end), count);
        copy_nonoverlapping(value(from, start), value(to, end), count);
        if height > 0 {
            copy_nonoverlapping(edge(from, start), edge(to, end), count + 1);
        }
        set_len(from, start);
        set_len(to, end + count);
    }
}

/// Makes sure that the child below edge `index` of `parent`, which has more than [`MIN`] entries or is the root, can
/// lose an entry: it takes one from a sibling, or merges with it. The edge where the child is then. `height` is the
/// child's.
pub unsafe fn strengthen<K, V>(alloc: Alloc<'_>, parent: Node<K, V>, index: usize, height: usize) -> usize {
    // SAFETY: the contract; edges from 0 to `len` exist.
    unsafe {
        if len(edge(parent, index).read()) > MIN {
            return index;
        }
        if index > 0 && len(edge(parent, index - 1).read()) > MIN {
            take_from_left(parent, index, height);
            return index;
        }
        if index < len(parent) {
            if len(edge(parent, index + 1).read()) > MIN {
                take_from_right(parent, index, height);
            } else {
                merge(alloc, parent, index, height);
            }
            return index;
        }
        merge(alloc, parent, index - 1, height);
        index - 1
    }
}

/// The last entry of the left sibling goes up, the parent's goes down to the front of the child.
unsafe fn take_from_left<K, V>(parent: Node<K, V>, index: usize, height: usize) {
    // SAFETY: the contract; the child has room, and the sibling an entry too many.
    unsafe {
        let (left, child) = (edge(parent, index - 1).read(), edge(parent, index).read());
        let (last, count) = (len(left) - 1, len(child));
        copy(key(child, 0), key(child, 1), count);
        copy(value(child, 0), value(child, 1), count);
        copy_nonoverlapping(key(parent, index - 1), key(child, 0), 1);
        copy_nonoverlapping(value(parent, index - 1), value(child, 0), 1);
        copy_nonoverlapping(key(left, last), key(parent, index - 1), 1);
        copy_nonoverlapping(value(left, last), value(parent, index - 1), 1);
        if height > 0 {
            copy(edge(child, 0), edge(child, 1), count + 1);
            edge(child, 0).write(edge(left, last + 1).read());
        }
        set_len(left, last);
        set_len(child, count + 1);
    }
}

/// The parent's entry goes down to the end of the child, the first one of the right sibling goes up.
unsafe fn take_from_right<K, V>(parent: Node<K, V>, index: usize, height: usize) {
    // SAFETY: as for `take_from_left`.
    unsafe {
        let (child, right) = (edge(parent, index).read(), edge(parent, index + 1).read());
        let (count, right_len) = (len(child), len(right));
        copy_nonoverlapping(key(parent, index), key(child, count), 1);
        copy_nonoverlapping(value(parent, index), value(child, count), 1);
        copy_nonoverlapping(key(right, 0), key(parent, index), 1);
        copy_nonoverlapping(value(right, 0), value(parent, index), 1);
        copy(key(right, 1), key(right, 0), right_len - 1);
        copy(value(right, 1), value(right, 0), right_len - 1);
        if height > 0 {
            edge(child, count + 1).write(edge(right, 0).read());
            copy(edge(right, 1), edge(right, 0), right_len);
        }
        set_len(child, count + 1);
        set_len(right, right_len - 1);
    }
}

/// Merges the children beside entry `index` of `parent`, both of [`MIN`] entries, and that entry, into the left one.
pub unsafe fn merge<K, V>(alloc: Alloc<'_>, parent: Node<K, V>, index: usize, height: usize) {
    // SAFETY: the contract; 2 × MIN + 1 entries fit a node, and the right node is empty when it is freed.
    unsafe {
        let (left, right) = (edge(parent, index).read(), edge(parent, index + 1).read());
        let count = len(left);
        assert!(count + len(right) < CAPACITY, "two nodes and an entry fit one");
        let (separator, separated) = remove_at(parent, index, height + 1);
        key(left, count).write(separator);
        value(left, count).write(separated);
        set_len(left, count + 1);
        move_tail(right, left, 0, height);
        free_node(alloc, right, height);
    }
}
