//! The files that a member keeps by itself, such as its identity: real ones, which outlast its lives as a disk would
//! have it.
//!
//! The kernel forgets nothing that was written, so what a power cut leaves is made up: every sync tells
//! [`note_sync`] what it made durable, and [`Files::end_life`] forgets of the rest what chance wants forgotten. What
//! a life finds is laid out at its beginning, so it does not matter what the last one's destructors did meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::process::Slot;

/// What each process has made durable since its life began.
static SYNCED: Mutex<BTreeMap<Slot, Synced>> = Mutex::new(BTreeMap::new());

type Number = u64;

#[derive(Default)]
struct Synced {
    inodes: BTreeMap<Number, Inode>,
}

struct Inode {
    /// Held open, so that its number is given to no other.
    handle: File,
    durable: Durable,
}

/// What a file or a directory was when it was last synced.
enum Durable {
    Content(Vec<u8>),
    Names(BTreeMap<OsString, Number>),
}

/// Where a file that is open can be found, whatever became of its name.
fn path_of(open: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{open}"))
}

/// The process has had the kernel sync this file or directory.
pub fn note_sync(slot: Slot, open: RawFd) -> io::Result<()> {
    let path = path_of(open);
    let handle = File::open(&path)?;
    let metadata = handle.metadata()?;
    let mut all = SYNCED.lock();
    let synced = all.entry(slot).or_default();
    let durable = match metadata.is_dir() {
        true => Durable::Names(synced.note_names(&path)?),
        false => Durable::Content(fs::read(&path)?),
    };
    synced.inodes.insert(metadata.ino(), Inode { handle, durable });
    synced.let_go()
}

impl Synced {
    /// What has a durable name and was never synced is empty.
    fn note_names(&mut self, dir: &Path) -> io::Result<BTreeMap<OsString, Number>> {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let handle = File::open(entry.path())?;
            let metadata = handle.metadata()?;
            names.insert(entry.file_name(), metadata.ino());
            self.inodes.entry(metadata.ino()).or_insert_with(|| Inode {
                handle,
                durable: match metadata.is_dir() {
                    true => Durable::Names(BTreeMap::new()),
                    false => Durable::Content(Vec::new()),
                },
            });
        }
        Ok(names)
    }

    /// Forgets what is gone and would stay gone.
    fn let_go(&mut self) -> io::Result<()> {
        let mut kept = BTreeSet::new();
        for (number, inode) in &self.inodes {
            if let Durable::Names(names) = &inode.durable {
                kept.extend(names.values().copied());
            }
            if inode.handle.metadata()?.nlink() > 0 {
                kept.insert(*number);
            }
        }
        self.inodes.retain(|number, _| kept.contains(number));
        Ok(())
    }

    fn content(&self, number: Number) -> &[u8] {
        match self.inodes.get(&number).map(|inode| &inode.durable) {
            Some(Durable::Content(content)) => content,
            _ => &[],
        }
    }

    /// With the names of the last sync of each directory.
    fn durable_tree(&self, number: Number, rng: &mut StdRng) -> io::Result<Tree> {
        let Some(inode) = self.inodes.get(&number) else {
            return Ok(Tree::default());
        };
        let names = match &inode.durable {
            Durable::Names(names) => names,
            Durable::Content(durable) => {
                let now = fs::read(path_of(inode.handle.as_raw_fd()))?;
                return Ok(Tree::File(survives(durable, now, rng)));
            }
        };
        let mut dir = BTreeMap::new();
        for (name, number) in names {
            dir.insert(name.clone(), self.durable_tree(*number, rng)?);
        }
        Ok(Tree::Dir(dir))
    }
}

/// Of a file's content that was not synced all may be on the disk, nothing, or the beginning.
fn survives(durable: &[u8], now: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    if durable == now {
        return now;
    }
    match rng.random_range(0..3) {
        0 => durable.to_vec(),
        1 => now,
        _ => now[..rng.random_range(0..=now.len())].to_vec(),
    }
}

/// A directory as it was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    File(Vec<u8>),
    Dir(BTreeMap<OsString, Tree>),
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::Dir(BTreeMap::new())
    }
}

impl Tree {
    /// With the names of now, and of each file what `content` makes of it.
    fn of(path: &Path, content: &mut impl FnMut(Number, Vec<u8>) -> Vec<u8>) -> io::Result<Tree> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return Ok(Tree::File(content(metadata.ino(), fs::read(path)?)));
        }
        let names: io::Result<BTreeSet<OsString>> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect();
        let mut dir = BTreeMap::new();
        for name in names? {
            let below = Tree::of(&path.join(&name), content)?;
            dir.insert(name, below);
        }
        Ok(Tree::Dir(dir))
    }

    /// Durably.
    fn write(&self, path: &Path) -> io::Result<()> {
        match self {
            Tree::File(content) => fs::write(path, content)?,
            Tree::Dir(dir) => {
                fs::create_dir(path)?;
                dir.iter()
                    .try_for_each(|(name, below)| below.write(&path.join(name)))?;
            }
        }
        File::open(path)?.sync_all()
    }
}

/// What the next life finds; `None` while there is a life, and before the first.
#[derive(Clone, Default)]
pub struct Left(Arc<Mutex<Option<Tree>>>);

impl Left {
    /// In the turn of the process whose life begins.
    pub fn lay_out(&self, slot: Slot, dir: &Path) -> io::Result<()> {
        let Some(tree) = self.0.lock().take() else {
            return Ok(());
        };
        fs::remove_dir_all(dir)?;
        SYNCED.lock().remove(&slot);
        tree.write(dir)
    }
}

/// Of one member.
pub struct Files {
    slot: Slot,
    dir: PathBuf,
    rng: StdRng,
    pub left: Left,
}

impl Files {
    pub fn new(slot: Slot, dir: PathBuf, seed: u64) -> Files {
        Files {
            slot,
            dir,
            rng: StdRng::seed_from_u64(seed),
            left: Left::default(),
        }
    }

    /// What is there at this moment is what the next life finds; after a power cut, what had become durable.
    pub fn end_life(&mut self, power: bool) -> io::Result<()> {
        if self.left.0.lock().is_some() {
            return Ok(());
        }
        let tree = match power {
            true => self.after_power_cut()?,
            false => Tree::of(&self.dir, &mut |_, content| content)?,
        };
        *self.left.0.lock() = Some(tree);
        Ok(())
    }

    /// What the next life would find; `None`: a life goes on.
    pub fn copy(&self) -> Option<Tree> {
        self.left.0.lock().clone()
    }

    /// The next life finds this copy.
    pub fn put_back(&mut self, copy: Tree) {
        *self.left.0.lock() = Some(copy);
    }

    /// Either all changes of names have reached the disk, as a journal may have it, or those that were synced.
    fn after_power_cut(&mut self) -> io::Result<Tree> {
        let mut all = SYNCED.lock();
        let synced = all.entry(self.slot).or_default();
        let rng = &mut self.rng;
        match rng.random_bool(0.5) {
            true => synced.durable_tree(fs::metadata(&self.dir)?.ino(), rng),
            false => Tree::of(&self.dir, &mut |number, now| {
                survives(synced.content(number), now, rng)
            }),
        }
    }

    /// The next life finds nothing.
    pub fn wipe(&mut self) {
        *self.left.0.lock() = Some(Tree::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots of no other test.
    fn member(slot: Slot) -> (tempfile::TempDir, PathBuf, Files) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("m");
        fs::create_dir(&dir).unwrap();
        let files = Files::new(slot, dir.clone(), slot as u64);
        (root, dir, files)
    }

    fn sync(slot: Slot, path: &Path) {
        let open = File::open(path).unwrap();
        note_sync(slot, open.as_raw_fd()).unwrap();
    }

    /// What power cuts may leave, over many of them.
    fn outcomes(files: &mut Files) -> Vec<Tree> {
        let mut seen = Vec::new();
        for _ in 0..200 {
            files.end_life(true).unwrap();
            let tree = files.left.0.lock().take().unwrap();
            if !seen.contains(&tree) {
                seen.push(tree);
            }
        }
        seen
    }

    fn dir(names: &[(&str, &str)]) -> Tree {
        let file = |(name, content): &(&str, &str)| ((*name).into(), Tree::File((*content).into()));
        Tree::Dir(names.iter().map(file).collect())
    }

    #[test]
    fn what_was_synced_stays() {
        let (_root, path, mut files) = member(1001);
        fs::write(path.join("a"), "1").unwrap();
        sync(1001, &path.join("a"));
        sync(1001, &path);
        assert_eq!(outcomes(&mut files), [dir(&[("a", "1")])]);
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost_and_a_content_torn() {
        let (_root, path, mut files) = member(1002);
        fs::write(path.join("a"), "12").unwrap();
        let seen = outcomes(&mut files);
        for possible in [
            dir(&[]),
            dir(&[("a", "")]),
            dir(&[("a", "1")]),
            dir(&[("a", "12")]),
        ] {
            assert!(seen.contains(&possible), "{possible:?} is not among {seen:?}");
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_file_is_replaced_or_not() {
        let (_root, path, mut files) = member(1003);
        fs::write(path.join("a"), "old").unwrap();
        sync(1003, &path.join("a"));
        sync(1003, &path);
        fs::write(path.join("new"), "new").unwrap();
        sync(1003, &path.join("new"));
        fs::rename(path.join("new"), path.join("a")).unwrap();
        let seen = outcomes(&mut files);
        assert!(seen.contains(&dir(&[("a", "old")])) && seen.contains(&dir(&[("a", "new")])));
        assert_eq!(seen.len(), 2, "{seen:?}");
        sync(1003, &path);
        assert_eq!(outcomes(&mut files), [dir(&[("a", "new")])]);
    }

    #[test]
    fn what_was_removed_may_come_back() {
        let (_root, path, mut files) = member(1004);
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/a"), "1").unwrap();
        for below in ["d/a", "d", ""] {
            sync(1004, &path.join(below));
        }
        fs::remove_dir_all(path.join("d")).unwrap();
        let back = Tree::Dir([("d".into(), dir(&[("a", "1")]))].into());
        let seen = outcomes(&mut files);
        assert!(
            seen.contains(&back) && seen.contains(&dir(&[])) && seen.len() == 2,
            "{seen:?}"
        );
        sync(1004, &path);
        assert_eq!(outcomes(&mut files), [dir(&[])]);
    }

    #[test]
    fn a_killed_process_leaves_what_it_had_written() {
        let (_root, path, mut files) = member(1005);
        fs::write(path.join("a"), "1").unwrap();
        files.end_life(false).unwrap();
        // By a destructor.
        fs::remove_file(path.join("a")).unwrap();
        files.left.lay_out(1005, &path).unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    }
}
