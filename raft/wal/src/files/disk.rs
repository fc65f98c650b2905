//! A disk in memory that knows what of each file and each name is durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
};

/// Syncs of one file that can be taken back.
const KEPT_SYNCS: usize = 16;

/// Small, seeded, and the same on every machine.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `end` inclusive.
    pub(super) fn up_to(&mut self, end: usize) -> usize {
        (self.next() % (end as u64 + 1)) as usize
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// One file's content: as it is seen, as it is on the medium, and what leads from one to the other.
#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) seen: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    /// The last syncs that wrote anything, the newest at the end: a disk may take back what it had acknowledged.
    synced: VecDeque<Synced>,
}

/// What a sync wrote, and how to take it back.
#[derive(Clone)]
struct Synced {
    /// Where its first write began, and how long that was.
    span: (usize, usize),
    /// In the order in which they were overwritten: offset, and what was there.
    before: Vec<(usize, Vec<u8>)>,
    /// The file's length before.
    len: usize,
}

impl Inode {
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        put(&mut self.seen, bytes, offset);
        self.changes.push(Change::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.seen.resize(len, 0);
        self.changes.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        let (mut before, mut span, len) = (Vec::new(), None, self.durable.len());
        for change in self.changes.drain(..) {
            match change {
                Change::Write { offset, bytes } => {
                    let end = (offset + bytes.len()).min(self.durable.len());
                    before.push((offset, self.durable.get(offset..end).unwrap_or_default().to_vec()));
                    span.get_or_insert((offset, bytes.len()));
                    put(&mut self.durable, &bytes, offset);
                }
                Change::SetLen(len) => self.durable.resize(len, 0),
            }
        }
        let Some(span) = span else { return };
        self.synced.push_back(Synced { span, before, len });
        if self.synced.len() > KEPT_SYNCS {
            self.synced.pop_front();
        }
    }

    /// Where the last syncs wrote, the newest at the end: offset and length.
    pub(super) fn synced(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        self.synced.iter().map(|synced| synced.span)
    }

    /// Takes the last sync back, and whatever was not synced. No: none is remembered.
    pub(super) fn take_back(&mut self) -> bool {
        let Some(synced) = self.synced.pop_back() else {
            return false;
        };
        for (offset, bytes) in synced.before.iter().rev() {
            put(&mut self.durable, bytes, *offset);
        }
        self.durable.resize(synced.len, 0);
        self.changes.clear();
        self.seen.clone_from(&self.durable);
        true
    }

    /// What is seen is on the medium: a copy of the file.
    fn settled(&self) -> Inode {
        Inode {
            seen: self.seen.clone(),
            durable: self.seen.clone(),
            ..Inode::default()
        }
    }

    /// As Linux does it: after an error the pages count as clean, and nothing writes them any more.
    pub(super) fn fail_sync(&mut self) {
        self.changes.clear();
    }

    /// Loses what is not durable, but for what the dice keep: of each block one of its states in turn, the
    /// next one perhaps torn. Tells whether anything is lost.
    fn cut(&mut self, dice: &mut Dice) -> bool {
        let block = if dice.coin() { 512 } else { 4096 };
        let keep_all = dice.up_to(7) == 0;
        let keep_none = dice.up_to(7) == 0;
        let mut touched: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for change in &self.changes {
            match change {
                Change::SetLen(len) if dice.coin() => self.durable.resize(*len, 0),
                Change::SetLen(_) => {}
                Change::Write { offset, bytes } => split(&mut touched, block, *offset, bytes),
            }
        }
        for pieces in touched.values() {
            let kept = match (keep_all, keep_none) {
                (true, _) => pieces.len(),
                (_, true) => 0,
                _ => dice.up_to(pieces.len()),
            };
            pieces[..kept]
                .iter()
                .for_each(|(offset, bytes)| put(&mut self.durable, bytes, *offset));
            if let Some((offset, bytes)) = pieces.get(kept).filter(|_| !keep_none && dice.coin()) {
                put(&mut self.durable, &bytes[..dice.up_to(bytes.len())], *offset);
            }
        }
        self.changes.clear();
        // They say how to go back from what is there no more.
        self.synced.clear();
        let lost = self.seen != self.durable;
        self.seen.clone_from(&self.durable);
        lost
    }
}

fn put(content: &mut Vec<u8>, bytes: &[u8], offset: usize) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn split<'a>(
    touched: &mut BTreeMap<usize, Vec<(usize, &'a [u8])>>,
    block: usize,
    offset: usize,
    bytes: &'a [u8],
) {
    let mut at = offset;
    while at < offset + bytes.len() {
        let end = ((at / block + 1) * block).min(offset + bytes.len());
        touched
            .entry(at / block)
            .or_default()
            .push((at, &bytes[at - offset..end - offset]));
        at = end;
    }
}

enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

type Names = BTreeMap<PathBuf, u64>;

fn rename(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
    }
}

/// All files. A directory is durable as soon as it is made; names in it are durable once it is synced, and a cut
/// keeps some first part of the changes since, as a journal does.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) inodes: HashMap<u64, Inode>,
    pub(super) names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    pub(super) dirs: BTreeSet<PathBuf>,
    next_inode: u64,
}

impl Disk {
    /// The same files, all that is seen of them on the medium.
    pub(super) fn settled(&self) -> Disk {
        let inodes = self.inodes.iter();
        Disk {
            inodes: inodes.map(|(number, inode)| (*number, inode.settled())).collect(),
            names: self.names.clone(),
            durable_names: self.names.clone(),
            changes: Vec::new(),
            dirs: self.dirs.clone(),
            next_inode: self.next_inode,
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.change(NameChange::Link(path.into(), self.next_inode));
        self.next_inode
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        self.change(NameChange::Rename(from.into(), to.into()));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(NameChange::Unlink(path.into()));
    }

    fn change(&mut self, change: NameChange) {
        rename(&mut self.names, &change);
        self.changes.push(change);
    }

    /// The journal is one for all directories: syncing one makes what came before durable too.
    pub(super) fn sync_names(&mut self) {
        for change in self.changes.drain(..) {
            rename(&mut self.durable_names, &change);
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.seen.len() as u64)
            .sum()
    }

    /// The changes of content and of names that are not durable.
    pub(super) fn unsynced(&self) -> u64 {
        let of_content: usize = self.inodes.values().map(|inode| inode.changes.len()).sum();
        (of_content + self.changes.len()) as u64
    }

    /// How many files and names are no longer what they were.
    pub(super) fn cut(&mut self, dice: &mut Dice) -> u64 {
        let kept = dice.up_to(self.changes.len());
        let forgotten = self.changes.len() - kept;
        for change in self.changes.drain(..).take(kept) {
            rename(&mut self.durable_names, &change);
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
        let mut inodes: Vec<_> = self.inodes.iter_mut().collect();
        inodes.sort_by_key(|(inode, _)| **inode);
        let torn = inodes.into_iter().map(|(_, inode)| inode.cut(dice));
        let torn = torn.filter(|lost| *lost).count();
        (forgotten + torn) as u64
    }
}
