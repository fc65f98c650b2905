//! One file's bytes in two states: as they are seen, and as they are on the medium.

use std::{collections::BTreeSet, sync::Arc};

use rand::Rng;

pub(super) const BLOCK: usize = 4096;
const SECTOR: usize = 512;

type Block = Arc<[u8; BLOCK]>;
/// `None` reads as zeroes and takes no room.
type Blocks = Vec<Option<Block>>;

/// Blocks are shared between the two states until one of them is written.
#[derive(Default)]
pub(super) struct Content {
    len: u64,
    blocks: Blocks,
    /// Blocks that take room.
    allocated: usize,
    durable_len: u64,
    durable: Blocks,
    /// Blocks that differ, or may.
    dirty: BTreeSet<usize>,
}

fn blocks_of(len: u64) -> usize {
    len.div_ceil(BLOCK as u64) as usize
}

fn set(blocks: &mut Blocks, at: usize, block: Option<Block>) {
    if blocks.len() <= at {
        blocks.resize(at + 1, None);
    }
    blocks[at] = block;
}

fn get(blocks: &Blocks, at: usize) -> Option<&Block> {
    blocks.get(at)?.as_ref()
}

/// Cuts to a length: what is behind it reads as zeroes if the file grows again.
fn shorten(blocks: &mut Blocks, len: u64) {
    blocks.truncate(blocks_of(len));
    let rest = (len % BLOCK as u64) as usize;
    if rest > 0
        && blocks.len() == blocks_of(len)
        && let Some(Some(last)) = blocks.last_mut()
    {
        Arc::make_mut(last)[rest..].fill(0);
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that are allocated.
    pub(super) fn used(&self) -> u64 {
        (self.allocated * BLOCK) as u64
    }

    fn count(&mut self) {
        self.allocated = self.blocks.iter().flatten().count();
    }

    /// Bytes that a write may allocate.
    pub(super) fn would_use(&self, offset: u64, len: usize) -> u64 {
        let first = (offset / BLOCK as u64) as usize;
        let missing = (first..blocks_of(offset + len as u64)).filter(|at| get(&self.blocks, *at).is_none());
        (missing.count() * BLOCK) as u64
    }

    pub(super) fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = self.len.min(offset + size as u64);
        let mut bytes = vec![0u8; end.saturating_sub(offset) as usize];
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let (block, within) = (at / BLOCK, at % BLOCK);
            let step = (BLOCK - within).min(bytes.len() - done);
            if let Some(block) = get(&self.blocks, block) {
                bytes[done..done + step].copy_from_slice(&block[within..within + step]);
            }
            done += step;
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let (number, within) = (at / BLOCK, at % BLOCK);
            let step = (BLOCK - within).min(bytes.len() - done);
            if self.blocks.len() <= number {
                self.blocks.resize(number + 1, None);
            }
            let piece = &bytes[done..done + step];
            // Files that are filled with zeroes ahead take no memory.
            if self.blocks[number].is_some() || piece.iter().any(|byte| *byte != 0) {
                self.allocated += usize::from(self.blocks[number].is_none());
                let block = self.blocks[number].get_or_insert_with(|| Arc::new([0; BLOCK]));
                Arc::make_mut(block)[within..within + step].copy_from_slice(piece);
            }
            self.dirty.insert(number);
            done += step;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let before = self.blocks.len();
        if len < self.len {
            shorten(&mut self.blocks, len);
            self.dirty.extend(blocks_of(len).saturating_sub(1)..before);
            self.count();
        }
        self.len = len;
    }

    pub(super) fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            set(&mut self.durable, number, get(&self.blocks, number).cloned());
        }
        self.durable_len = self.len;
        self.durable.truncate(blocks_of(self.len));
    }

    /// After an error of a sync the kernel counts the pages as clean: they are seen, but never written.
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// The kernel may write any dirty page at any time; the length follows only with the journal.
    pub(super) fn write_back(&mut self, dice: &mut impl Rng) {
        let Some(number) = self
            .dirty
            .iter()
            .nth(dice.random_range(0..self.dirty.len().max(1)))
            .copied()
        else {
            return;
        };
        set(&mut self.durable, number, get(&self.blocks, number).cloned());
        self.dirty.remove(&number);
    }

    /// Power is gone: of each dirty block the old state or the new one is there, or some sectors of each.
    pub(super) fn cut(&mut self, dice: &mut impl Rng) {
        let (keep_none, keep_all) = (dice.random_ratio(1, 4), dice.random_ratio(1, 8));
        for number in std::mem::take(&mut self.dirty) {
            let (old, new) = (
                get(&self.durable, number).cloned(),
                get(&self.blocks, number).cloned(),
            );
            let kept = match dice.random_range(0..4) {
                _ if keep_none => old,
                _ if keep_all => new,
                0 => old,
                1 => new,
                _ => Some(torn(old, new, dice)),
            };
            set(&mut self.durable, number, kept);
        }
        if !keep_none && (keep_all || dice.random()) {
            self.durable_len = self.len;
        }
        shorten(&mut self.durable, self.durable_len);
        self.revert();
    }

    fn revert(&mut self) {
        self.len = self.durable_len;
        self.blocks = self.durable.clone();
        self.count();
    }
}

fn torn(old: Option<Block>, new: Option<Block>, dice: &mut impl Rng) -> Block {
    let zeroes = || Arc::new([0; BLOCK]);
    let (mut block, new) = (old.unwrap_or_else(zeroes), new.unwrap_or_else(zeroes));
    let bytes = Arc::make_mut(&mut block);
    // Half the time a first part, as a write that was under way leaves; else any sectors.
    let first = dice.random_range(0..=BLOCK / SECTOR);
    let prefix = dice.random();
    for sector in 0..BLOCK / SECTOR {
        let is_new = if prefix { sector < first } else { dice.random() };
        if is_new {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            bytes[range.clone()].copy_from_slice(&new[range]);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn what_was_synced_stays_whatever_the_dice_say() {
        for seed in 0..200 {
            let mut dice = StdRng::seed_from_u64(seed);
            let mut content = Content::default();
            content.write(100, &[1; 10_000]);
            content.sync();
            content.write(10_100, &[2; 9_000]);
            content.write_back(&mut dice);
            content.cut(&mut dice);
            let read = content.read(0, 20_000);
            assert!(read.len() == 10_100 || read.len() == 19_100, "{}", read.len());
            assert!(read[..100].iter().all(|byte| *byte == 0));
            assert!(read[100..10_100].iter().all(|byte| *byte == 1), "seed {seed}");
            assert!(read[10_100..].iter().all(|byte| [0, 2].contains(byte)));
        }
    }

    #[test]
    fn an_unsynced_overwrite_may_be_mixed_but_only_by_sectors() {
        let mut mixed = 0;
        for seed in 0..200 {
            let mut dice = StdRng::seed_from_u64(seed);
            let mut content = Content::default();
            content.write(0, &[1; BLOCK]);
            content.sync();
            content.write(0, &[2; BLOCK]);
            content.cut(&mut dice);
            let read = content.read(0, BLOCK);
            assert!(
                read.chunks(SECTOR)
                    .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
            );
            mixed += u32::from(read.contains(&1) && read.contains(&2));
        }
        assert!(mixed > 20, "{mixed} of 200 were torn");
    }

    #[test]
    fn lengths() {
        let mut content = Content::default();
        content.write(0, &[7; 5000]);
        content.set_len(4500);
        content.set_len(9000);
        let read = content.read(4400, 10_000);
        assert_eq!(read.len(), 4600);
        assert_eq!(read.iter().filter(|byte| **byte == 7).count(), 100);
        assert_eq!(content.used(), 2 * BLOCK as u64);
        assert_eq!(content.would_use(8000, 1000), BLOCK as u64);
        content.sync();
        content.set_len(0);
        content.cut(&mut StdRng::seed_from_u64(1));
        assert!([0, 9000].contains(&content.len()));
    }

    #[test]
    fn a_failed_sync_never_becomes_durable() {
        let mut content = Content::default();
        content.write(0, &[1; 100]);
        content.sync();
        content.write(0, &[2; 100]);
        content.fail_sync();
        content.sync();
        assert_eq!(content.read(0, 1), [2]);
        content.cut(&mut StdRng::seed_from_u64(1));
        assert_eq!(content.read(0, 100), [1; 100]);
    }
}
