//! Values by key range, found by a key inside: a treap ordered by range, each node knowing how far its
//! subtree reaches. Insert, remove and lookup cost the logarithm of the number of distinct ranges, and a
//! lookup besides what it finds. Never balances by the clock or by outside randomness.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::KeyRange;

pub(super) struct RangeTree<V> {
    root: Link<V>,
    inserted: u64,
}

type Link<V> = Option<Box<Node<V>>>;

struct Node<V> {
    start: Bytes,
    end: Upper,
    /// The largest `end` in this subtree.
    reach: Upper,
    /// Higher than the children's.
    priority: u64,
    value: V,
    left: Link<V>,
    right: Link<V>,
}

/// A range's exclusive end; unbounded sorts last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Upper {
    Key(Bytes),
    Unbounded,
}

impl Upper {
    fn of(range: &KeyRange) -> Self {
        range.end.clone().map_or(Upper::Unbounded, Upper::Key)
    }

    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            Upper::Key(end) => key < end.as_ref(),
            Upper::Unbounded => true,
        }
    }
}

impl<V> RangeTree<V> {
    pub fn new() -> Self {
        Self {
            root: None,
            inserted: 0,
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    pub fn get_mut(&mut self, range: &KeyRange) -> Option<&mut V> {
        let mut link = self.root.as_mut();
        while let Some(node) = link {
            link = match order(range, node) {
                Ordering::Equal => return Some(&mut node.value),
                Ordering::Less => node.left.as_mut(),
                Ordering::Greater => node.right.as_mut(),
            };
        }
        None
    }

    /// The range must not be there yet.
    pub fn insert(&mut self, range: &KeyRange, value: V) {
        self.inserted += 1;
        let end = Upper::of(range);
        let node = Box::new(Node {
            start: range.start.clone(),
            reach: end.clone(),
            end,
            priority: scatter(self.inserted),
            value,
            left: None,
            right: None,
        });
        self.root = Some(insert(self.root.take(), node, range));
    }

    pub fn remove(&mut self, range: &KeyRange) {
        self.root = remove(self.root.take(), range);
    }

    /// The values of all ranges that contain `key`.
    pub fn visit<'a>(&'a self, key: &[u8], found: &mut dyn FnMut(&'a V)) {
        visit(&self.root, key, found);
    }
}

impl<V> Node<V> {
    fn update_reach(&mut self) {
        let children = [&self.left, &self.right]
            .into_iter()
            .flatten()
            .map(|child| &child.reach);
        self.reach = children.fold(&self.end, Ord::max).clone();
    }
}

fn order<V>(range: &KeyRange, node: &Node<V>) -> Ordering {
    range
        .start
        .cmp(&node.start)
        .then_with(|| match (&range.end, &node.end) {
            (Some(end), Upper::Key(other)) => end.cmp(other),
            (Some(_), Upper::Unbounded) => Ordering::Less,
            (None, Upper::Key(_)) => Ordering::Greater,
            (None, Upper::Unbounded) => Ordering::Equal,
        })
}

fn insert<V>(link: Link<V>, mut new: Box<Node<V>>, range: &KeyRange) -> Box<Node<V>> {
    let Some(mut node) = link else { return new };
    if new.priority > node.priority {
        (new.left, new.right) = split(Some(node), range);
        new.update_reach();
        return new;
    }
    let side = if order(range, &node).is_lt() {
        &mut node.left
    } else {
        &mut node.right
    };
    *side = Some(insert(side.take(), new, range));
    node.update_reach();
    node
}

fn remove<V>(link: Link<V>, range: &KeyRange) -> Link<V> {
    let mut node = link?;
    match order(range, &node) {
        Ordering::Equal => return merge(node.left.take(), node.right.take()),
        Ordering::Less => node.left = remove(node.left.take(), range),
        Ordering::Greater => node.right = remove(node.right.take(), range),
    }
    node.update_reach();
    Some(node)
}

/// Parts what sorts below `range` from what sorts above it.
fn split<V>(link: Link<V>, range: &KeyRange) -> (Link<V>, Link<V>) {
    let Some(mut node) = link else { return (None, None) };
    if order(range, &node).is_lt() {
        let (below, above) = split(node.left.take(), range);
        node.left = above;
        node.update_reach();
        (below, Some(node))
    } else {
        let (below, above) = split(node.right.take(), range);
        node.right = below;
        node.update_reach();
        (Some(node), above)
    }
}

/// Joins two trees of which the left one sorts below the right one.
fn merge<V>(left: Link<V>, right: Link<V>) -> Link<V> {
    match (left, right) {
        (None, one) | (one, None) => one,
        (Some(mut left), Some(right)) if left.priority > right.priority => {
            left.right = merge(left.right.take(), Some(right));
            left.update_reach();
            Some(left)
        }
        (left, Some(mut right)) => {
            right.left = merge(left, right.left.take());
            right.update_reach();
            Some(right)
        }
    }
}

fn visit<'a, V>(link: &'a Link<V>, key: &[u8], found: &mut dyn FnMut(&'a V)) {
    let Some(node) = link else { return };
    if !node.reach.is_above(key) {
        return;
    }
    visit(&node.left, key, found);
    if node.start.as_ref() <= key {
        if node.end.is_above(key) {
            found(&node.value);
        }
        visit(&node.right, key, found);
    }
}

/// Spreads a counter over 64 bits (the finalizer of SplitMix64).
fn scatter(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn depth<V>(link: &Link<V>) -> usize {
        link.as_ref()
            .map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn range(start: u8, end: Option<u8>) -> KeyRange {
        KeyRange {
            start: vec![start].into(),
            end: end.map(|end| vec![end].into()),
        }
    }

    #[test]
    fn stays_shallow_when_ranges_come_sorted() {
        let mut tree = RangeTree::new();
        for i in 0..10_000u32 {
            let start = Bytes::copy_from_slice(&i.to_be_bytes());
            tree.insert(&KeyRange::single(start), i);
        }
        assert!(depth(&tree.root) < 60, "depth {}", depth(&tree.root));
        let mut found = vec![];
        tree.visit(&77u32.to_be_bytes(), &mut |&value| found.push(value));
        assert_eq!(found, [77]);
    }

    proptest! {
        #[test]
        fn finds_what_a_list_finds(
            steps in prop::collection::vec((any::<bool>(), 0u8..12, prop::option::of(0u8..12)), 1..120),
        ) {
            let mut tree = RangeTree::new();
            let mut model = BTreeMap::new();
            for (serial, (put, start, end)) in steps.into_iter().enumerate() {
                let range = range(start, end);
                if put && tree.get_mut(&range).is_none() {
                    tree.insert(&range, serial);
                    model.insert((start, end), serial);
                } else if !put {
                    tree.remove(&range);
                    model.remove(&(start, end));
                }
                for key in 0u8..13 {
                    let mut found = vec![];
                    tree.visit(&[key], &mut |&value| found.push(value));
                    found.sort_unstable();
                    let mut expected: Vec<usize> = model
                        .iter()
                        .filter(|((start, end), _)| *start <= key && end.is_none_or(|end| key < end))
                        .map(|(_, serial)| *serial)
                        .collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(tree.is_empty(), model.is_empty());
        }
    }
}
