//! The directory tree in two states, and the journal of changes that leads from the durable one to the seen one.
//!
//! Two journals are modelled, since programs must be right on both. The ordered one is ext4's: a change is durable
//! only with all that came before it; but a sync commits no more than it must, up to the last change of the directory
//! synced (or of a name on the path to it), or up to the creation of the file synced. The loose one gives no more than
//! POSIX: a sync commits the changes of that directory (or the file's first name), the path to it, and what these
//! build on; all others come and go by themselves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ffi::{OsStr, OsString},
};

use rand::Rng;

pub(super) const ROOT: u64 = 1;

pub(super) type Directory = BTreeMap<OsString, u64>;
type Tree = HashMap<u64, Directory>;

#[derive(Debug, Clone)]
enum Change {
    Link {
        dir: u64,
        name: OsString,
        inode: u64,
    },
    Unlink {
        dir: u64,
        name: OsString,
    },
    Rename {
        from: (u64, OsString),
        to: (u64, OsString),
        inode: u64,
    },
}

impl Change {
    fn touches(&self, directory: u64) -> bool {
        match self {
            Change::Link { dir, .. } | Change::Unlink { dir, .. } => *dir == directory,
            Change::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
        }
    }

    fn places(&self, child: u64) -> bool {
        match self {
            Change::Link { inode, .. } | Change::Rename { inode, .. } => *inode == child,
            Change::Unlink { .. } => false,
        }
    }

    fn names(&self) -> [Option<(u64, &OsString)>; 2] {
        match self {
            Change::Link { dir, name, .. } | Change::Unlink { dir, name } => [Some((*dir, name)), None],
            Change::Rename { from, to, .. } => [Some((from.0, &from.1)), Some((to.0, &to.1))],
        }
    }

    fn inode(&self) -> Option<u64> {
        match self {
            Change::Link { inode, .. } | Change::Rename { inode, .. } => Some(*inode),
            Change::Unlink { .. } => None,
        }
    }

    /// `later` makes no sense without this one: a name, an inode or a directory of both.
    fn is_needed_by(&self, later: &Change) -> bool {
        let same_name = self
            .names()
            .iter()
            .flatten()
            .any(|name| later.names().contains(&Some(*name)));
        let inode = self.inode();
        same_name || inode.is_some_and(|inode| later.inode() == Some(inode) || later.touches(inode))
    }

    fn apply(&self, tree: &mut Tree) {
        match self {
            Change::Link { dir, name, inode } => {
                tree.entry(*dir).or_default().insert(name.clone(), *inode);
            }
            Change::Unlink { dir, name } => {
                tree.entry(*dir).or_default().remove(name);
            }
            Change::Rename { from, to, inode } => {
                tree.entry(from.0).or_default().remove(&from.1);
                tree.entry(to.0).or_default().insert(to.1.clone(), *inode);
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Names {
    seen: Tree,
    durable: Tree,
    journal: VecDeque<Change>,
    loose: bool,
    /// The directory and the name that an inode was last given.
    places: HashMap<u64, (u64, OsString)>,
}

impl Names {
    pub(super) fn new(loose: bool) -> Names {
        Names {
            loose,
            ..Names::default()
        }
    }

    pub(super) fn get(&self, dir: u64, name: &OsStr) -> Option<u64> {
        self.seen.get(&dir)?.get(name).copied()
    }

    pub(super) fn list(&self, dir: u64) -> impl Iterator<Item = (&OsString, u64)> {
        self.seen
            .get(&dir)
            .into_iter()
            .flatten()
            .map(|(name, inode)| (name, *inode))
    }

    pub(super) fn is_empty(&self, dir: u64) -> bool {
        self.seen.get(&dir).is_none_or(Directory::is_empty)
    }

    pub(super) fn parent(&self, dir: u64) -> u64 {
        self.places.get(&dir).map_or(ROOT, |place| place.0)
    }

    /// From the root, for those who look for a name in it.
    pub(super) fn path(&self, inode: u64) -> String {
        match self.places.get(&inode) {
            Some((dir, name)) => format!("{}/{}", self.path(*dir), name.to_string_lossy()),
            None => String::new(),
        }
    }

    pub(super) fn link(&mut self, dir: u64, name: &OsStr, inode: u64) {
        self.places.insert(inode, (dir, name.into()));
        self.change(Change::Link {
            dir,
            name: name.into(),
            inode,
        });
    }

    pub(super) fn unlink(&mut self, dir: u64, name: &OsStr) {
        self.change(Change::Unlink {
            dir,
            name: name.into(),
        });
    }

    pub(super) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), inode: u64) {
        self.places.insert(inode, (to.0, to.1.into()));
        self.change(Change::Rename {
            from: (from.0, from.1.into()),
            to: (to.0, to.1.into()),
            inode,
        });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.journal.push_back(change);
    }

    /// `dir` was synced.
    pub(super) fn sync_directory(&mut self, dir: u64) {
        let mut path = BTreeSet::from([dir]);
        let mut at = dir;
        while at != ROOT && path.insert(self.parent(at)) {
            at = self.parent(at);
        }
        let (journal, on_path) = (&self.journal, |change: &Change| {
            change.touches(dir) || path.iter().any(|step| *step != ROOT && change.places(*step))
        });
        let chosen: Vec<bool> = journal.iter().map(on_path).collect();
        self.commit(chosen);
    }

    /// A file was synced: if it is new, so is its first name durable.
    pub(super) fn sync_file(&mut self, inode: u64) {
        let is_named = self
            .durable
            .values()
            .any(|dir| dir.values().any(|named| *named == inode));
        let creation = self.journal.iter().position(|change| change.places(inode));
        if let Some(creation) = creation.filter(|_| !is_named) {
            self.commit((0..self.journal.len()).map(|number| number == creation).collect());
        }
    }

    /// Makes the chosen changes durable, and those that they need.
    fn commit(&mut self, mut chosen: Vec<bool>) {
        for number in (0..chosen.len()).rev() {
            let needed =
                |later: usize| !self.loose || self.journal[number].is_needed_by(&self.journal[later]);
            chosen[number] |= (number + 1..chosen.len()).any(|later| chosen[later] && needed(later));
        }
        let journal = std::mem::take(&mut self.journal);
        for (change, chosen) in journal.into_iter().zip(chosen) {
            if chosen {
                change.apply(&mut self.durable);
            } else {
                self.journal.push_back(change);
            }
        }
    }

    /// Inodes that a cut may bring back.
    pub(super) fn durably_named(&self) -> BTreeSet<u64> {
        let durable = self.durable.values().flat_map(|dir| dir.values().copied());
        let coming = self.journal.iter().filter_map(|change| match change {
            Change::Link { inode, .. } | Change::Rename { inode, .. } => Some(*inode),
            Change::Unlink { .. } => None,
        });
        durable.chain(coming).chain([ROOT]).collect()
    }

    /// Keeps some first part of the journal, and shows what is durable. Returns the inodes that have a name, with
    /// the number of their names.
    pub(super) fn cut(&mut self, dice: &mut impl Rng) -> HashMap<u64, u32> {
        let len = self.journal.len();
        let chosen = match dice.random_range(0..3) {
            0 => vec![false; len],
            1 => vec![true; len],
            _ if self.loose => (0..len).map(|_| dice.random()).collect(),
            _ => {
                let kept = dice.random_range(0..=len);
                (0..len).map(|number| number < kept).collect()
            }
        };
        self.commit(chosen);
        self.journal.clear();
        let mut named = HashMap::from([(ROOT, 1)]);
        let mut reachable = Tree::new();
        let mut left = vec![ROOT];
        self.places.clear();
        while let Some(dir) = left.pop() {
            let entries = self.durable.remove(&dir).unwrap_or_default();
            for (name, inode) in &entries {
                *named.entry(*inode).or_default() += 1;
                self.places.insert(*inode, (dir, name.clone()));
                if self.durable.contains_key(inode) {
                    left.push(*inode);
                }
            }
            reachable.insert(dir, entries);
        }
        self.seen = reachable.clone();
        self.durable = reachable;
        named
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn names_after(loose: bool, seed: u64, act: impl Fn(&mut Names)) -> Vec<String> {
        let mut names = Names::new(loose);
        act(&mut names);
        names.cut(&mut StdRng::seed_from_u64(seed));
        let mut found = Vec::new();
        let mut left = vec![(ROOT, String::new())];
        while let Some((dir, path)) = left.pop() {
            for (name, inode) in names.list(dir) {
                let path = format!("{path}/{}", name.to_string_lossy());
                found.push(path.clone());
                left.push((inode, path));
            }
        }
        found.sort();
        found
    }

    /// All outcomes over many seeds.
    fn outcomes(loose: bool, act: impl Fn(&mut Names)) -> BTreeSet<Vec<String>> {
        (0..60).map(|seed| names_after(loose, seed, &act)).collect()
    }

    fn sets(expected: &[&[&str]]) -> BTreeSet<Vec<String>> {
        expected
            .iter()
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
            .collect()
    }

    #[test]
    fn without_a_sync_any_first_part_survives() {
        let found = outcomes(false, |names| {
            names.link(ROOT, "a".as_ref(), 2);
            names.rename((ROOT, "a".as_ref()), (ROOT, "b".as_ref()), 2);
        });
        assert_eq!(found, sets(&[&[], &["/a"], &["/b"]]));
    }

    #[test]
    fn a_synced_file_keeps_its_first_name_and_perhaps_the_second() {
        let found = outcomes(false, |names| {
            names.link(ROOT, "a".as_ref(), 2);
            names.rename((ROOT, "a".as_ref()), (ROOT, "b".as_ref()), 2);
            names.sync_file(2);
        });
        assert_eq!(found, sets(&[&["/a"], &["/b"]]));
    }

    #[test]
    fn a_loose_journal_loses_the_earlier_of_two_changes() {
        let act = |names: &mut Names| {
            names.link(ROOT, "a".as_ref(), 2);
            names.link(ROOT, "b".as_ref(), 3);
            names.sync_file(3);
        };
        assert_eq!(outcomes(false, act), sets(&[&["/a", "/b"]]));
        assert_eq!(outcomes(true, act), sets(&[&["/b"], &["/a", "/b"]]));
    }

    #[test]
    fn a_loose_journal_keeps_what_a_change_needs() {
        let found = outcomes(true, |names| {
            names.link(ROOT, "d".as_ref(), 2);
            names.link(ROOT, "other".as_ref(), 5);
            names.link(2, "f".as_ref(), 3);
            names.rename((2, "f".as_ref()), (2, "g".as_ref()), 3);
            names.sync_directory(2);
        });
        assert_eq!(found, sets(&[&["/d", "/d/g"], &["/d", "/d/g", "/other"]]));
    }

    #[test]
    fn a_synced_directory_is_reachable() {
        let found = outcomes(false, |names| {
            names.link(ROOT, "d".as_ref(), 2);
            names.link(2, "e".as_ref(), 3);
            names.link(3, "f".as_ref(), 4);
            names.rename((ROOT, "d".as_ref()), (ROOT, "x".as_ref()), 2);
            names.sync_directory(3);
            names.unlink(3, "f".as_ref());
        });
        assert_eq!(found, sets(&[&["/x", "/x/e"], &["/x", "/x/e", "/x/e/f"]]));
    }

    #[test]
    fn hard_links_are_counted() {
        let mut names = Names::default();
        names.link(ROOT, "a".as_ref(), 2);
        names.link(ROOT, "b".as_ref(), 2);
        names.sync_directory(ROOT);
        assert_eq!(
            names.cut(&mut StdRng::seed_from_u64(0)),
            HashMap::from([(ROOT, 1), (2, 2)])
        );
    }
}
