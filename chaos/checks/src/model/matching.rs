//! A largest matching between revisions and operations that may have made them.

use std::collections::{BTreeMap, BTreeSet};

/// For each left node the right nodes it may have. Left nodes are served in order: one that was matched stays matched,
/// though perhaps with another partner. The result is left → right.
pub(super) fn largest(candidates: &[Vec<usize>]) -> BTreeMap<usize, usize> {
    let mut partners: BTreeMap<usize, usize> = BTreeMap::new();
    for left in 0..candidates.len() {
        let mut tried = BTreeSet::new();
        augment(left, candidates, &mut partners, &mut tried);
    }
    partners.into_iter().map(|(right, left)| (left, right)).collect()
}

/// Finds a partner for `left`, moving others away from theirs where they have an alternative.
fn augment(
    left: usize,
    candidates: &[Vec<usize>],
    partners: &mut BTreeMap<usize, usize>,
    tried: &mut BTreeSet<usize>,
) -> bool {
    for &right in &candidates[left] {
        if !tried.insert(right) {
            continue;
        }
        let free = match partners.get(&right).copied() {
            None => true,
            Some(other) => augment(other, candidates, partners, tried),
        };
        if free {
            partners.insert(right, left);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::largest;

    #[test]
    fn partners_are_moved_to_make_room() {
        let matched = largest(&[vec![7], vec![7, 8], vec![8, 9], vec![]]);
        assert_eq!(matched.into_iter().collect::<Vec<_>>(), [(0, 7), (1, 8), (2, 9)]);
        assert_eq!(largest(&[vec![7, 8], vec![7]]).len(), 2);
        assert_eq!(largest(&[vec![7], vec![7]]).len(), 1);
    }
}
