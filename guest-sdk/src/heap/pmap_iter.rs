//! The entries of a [`PMap`](super::PMap) in order.
//!
//! Invariants: `stack[..depth]` is the way from the root to the next entry: the last frame names it, those before
//! name the entry that follows when the frames above them are done; no frame but `end` points past its node.

use core::borrow::Borrow;
use core::marker::PhantomData;
use core::ops::{Bound, RangeBounds};

use super::btree::{self, HEIGHT_MAX, Node, Place};

type Frame<K, V> = (Node<K, V>, usize);

/// An iterator over entries, ascending by key. Made by [`PMap::iter`](super::PMap::iter) and
/// [`PMap::range`](super::PMap::range).
pub struct Iter<'a, K, V> {
    stack: [Frame<K, V>; HEIGHT_MAX + 1],
    depth: usize,
    height: usize,
    end: Option<Frame<K, V>>,
    map: PhantomData<(&'a K, &'a V)>,
}

impl<K, V> Iter<'_, K, V> {
    /// The entries of the tree of `height` at `root`, which is borrowed for the iterator's life.
    pub(super) fn all(root: Node<K, V>, height: usize) -> Self {
        let stack = [(core::ptr::null_mut(), 0); HEIGHT_MAX + 1];
        let mut iter = Self {
            stack,
            depth: 0,
            height,
            end: None,
            map: PhantomData,
        };
        if !root.is_null() {
            iter.seek(root, |_| Place::Below(0), Side::Before);
        }
        iter
    }

    /// Those of `range`.
    pub(super) fn range<Q: Ord + ?Sized, R: RangeBounds<Q>>(root: Node<K, V>, height: usize, range: R) -> Self
    where
        K: Borrow<Q>,
    {
        let mut iter = Self::all(root, height);
        let (start, end) = (range.start_bound(), range.end_bound());
        let is_empty = match (start, end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
        };
        if is_empty || root.is_null() {
            iter.depth = 0;
            return iter;
        }
        match end {
            Bound::Unbounded => iter.depth = 0,
            Bound::Included(key) => iter.seek(root, place_of(key), Side::After),
            Bound::Excluded(key) => iter.seek(root, place_of(key), Side::Before),
        }
        iter.end = iter.depth.checked_sub(1).map(|last| iter.stack[last]);
        match start {
            Bound::Unbounded => iter.seek(root, |_| Place::Below(0), Side::Before),
            Bound::Included(key) => iter.seek(root, place_of(key), Side::Before),
            Bound::Excluded(key) => iter.seek(root, place_of(key), Side::After),
        }
        iter
    }

    /// Goes down to where `find` finds its key, or to the first entry after it.
    fn seek(&mut self, root: Node<K, V>, find: impl Fn(Node<K, V>) -> Place, side: Side) {
        self.depth = 0;
        let (mut node, mut height) = (root, self.height);
        loop {
            let index = match (find(node), side) {
                (Place::Here(index), Side::Before) => return self.push((node, index)),
                (Place::Here(index), Side::After) => index + 1,
                (Place::Below(index), _) => index,
            };
            self.push((node, index));
            if height == 0 {
                return self.leave_finished_nodes();
            }
            // SAFETY: from the root of a live tree down; edges exist above height 0.
            node = unsafe { btree::edge(node, index).read() };
            height -= 1;
        }
    }

    fn push(&mut self, frame: Frame<K, V>) {
        self.stack[self.depth] = frame;
        self.depth += 1;
    }

    /// Pops frames that point past their node's last entry.
    fn leave_finished_nodes(&mut self) {
        while let Some(last) = self.depth.checked_sub(1) {
            let (node, index) = self.stack[last];
            // SAFETY: a live node of the tree.
            if index < unsafe { btree::len(node) } {
                return;
            }
            self.depth = last;
        }
    }
}

/// Finds `key` in a node. For [`Iter::seek`], which gives it live nodes.
fn place_of<K: Borrow<Q>, V, Q: Ord + ?Sized>(key: &Q) -> impl Fn(Node<K, V>) -> Place {
    // SAFETY: a live node.
    move |node| unsafe { btree::search(node, key) }
}

#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let last = self.depth.checked_sub(1)?;
        let (node, index) = self.stack[last];
        if self.end == Some((node, index)) {
            self.depth = 0;
            return None;
        }
        self.stack[last].1 = index + 1;
        // A frame's depth gives its height: the root's frame is the first.
        let mut height = self.height - last;
        let mut below = (node, index + 1);
        while height > 0 {
            // SAFETY: a node above height 0 of a live tree; the edge after an entry exists.
            below = (unsafe { btree::edge(below.0, below.1).read() }, 0);
            self.push(below);
            height -= 1;
        }
        self.leave_finished_nodes();
        // SAFETY: an entry of a tree that is borrowed for `'a`.
        Some(unsafe { (&*btree::key(node, index), &*btree::value(node, index)) })
    }
}
