//! How many live keys lie in a range, without walking it: order statistics over fences.
//!
//! [`Counts`] cuts the live keys into blocks of a few dozen; a count adds whole blocks up and walks keys only
//! in the two blocks at the range's ends. It is derived: built by a scan of the live keys when a state is
//! opened, kept by apply, shared copy-on-write with readers. It never looks at values.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{KeyRange, StoreError, kv::Bounds, live::Live};

/// Keys per block when blocks are made.
const BLOCK_KEYS: u64 = 64;
/// A block with more is split.
const CROWDED_KEYS: u64 = 2 * BLOCK_KEYS;
/// Blocks per chunk when chunks are made; one with twice as many is split.
const CHUNK_BLOCKS: usize = 128;

#[derive(Debug, Clone)]
pub struct Counts {
    /// Never empty; the first block's fence is the empty key.
    chunks: Vec<Arc<Chunk>>,
    live: u64,
    /// Fences of blocks to be split once their keys can be walked.
    crowded: BTreeSet<Bytes>,
}

/// Neighbouring blocks; the unit of copying on write.
#[derive(Debug, Clone)]
struct Chunk {
    /// Never empty.
    blocks: Vec<Block>,
    live: u64,
}

/// The live keys from `fence` up to the next block's fence.
#[derive(Debug, Clone)]
struct Block {
    fence: Bytes,
    live: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    chunk: usize,
    block: usize,
}

impl Chunk {
    fn new(blocks: Vec<Block>) -> Arc<Self> {
        let live = blocks.iter().map(|block| block.live).sum();
        Arc::new(Self { blocks, live })
    }
}

impl Counts {
    #[cfg(test)]
    pub fn empty() -> Self {
        Self::from_blocks(vec![Block {
            fence: Bytes::new(),
            live: 0,
        }])
    }

    /// Walks every live key once.
    pub fn build(live: Live<'_>) -> Result<Self, StoreError> {
        Ok(Self::from_blocks(cut(live, Bytes::new(), None)?))
    }

    fn from_blocks(blocks: Vec<Block>) -> Self {
        let live = blocks.iter().map(|block| block.live).sum();
        let chunks = blocks
            .chunks(CHUNK_BLOCKS)
            .map(|blocks| Chunk::new(blocks.to_vec()))
            .collect();
        Self {
            chunks,
            live,
            crowded: BTreeSet::new(),
        }
    }

    /// A block waits to be split.
    pub fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }

    pub fn live(&self) -> u64 {
        self.live
    }

    pub fn insert(&mut self, key: &[u8]) {
        let place = self.locate(key);
        self.live += 1;
        let chunk = Arc::make_mut(&mut self.chunks[place.chunk]);
        chunk.live += 1;
        let block = &mut chunk.blocks[place.block];
        block.live += 1;
        if block.live == CROWDED_KEYS + 1 {
            self.crowded.insert(block.fence.clone());
        }
    }

    pub fn remove(&mut self, key: &[u8]) {
        let place = self.locate(key);
        let chunk = Arc::make_mut(&mut self.chunks[place.chunk]);
        let block = &mut chunk.blocks[place.block];
        assert!(block.live > 0, "a key was removed from a block that counts none");
        block.live -= 1;
        chunk.live -= 1;
        self.live -= 1;
        let is_first = place == Place { chunk: 0, block: 0 };
        if block.live == 0 && !is_first {
            self.crowded.remove(&block.fence);
            chunk.blocks.remove(place.block);
            if chunk.blocks.is_empty() {
                self.chunks.remove(place.chunk);
            }
        }
    }

    /// Splits what has grown too large; `live` shows exactly the keys counted.
    pub fn rebalance(&mut self, live: Live<'_>) -> Result<(), StoreError> {
        for fence in std::mem::take(&mut self.crowded) {
            let place = self.locate(&fence);
            let block = &self.chunks[place.chunk].blocks[place.block];
            if block.fence != fence || block.live <= CROWDED_KEYS {
                continue;
            }
            let counted = block.live;
            let blocks = cut(live, fence, self.fence_after(place))?;
            let walked = blocks.iter().map(|block| block.live).sum::<u64>();
            assert_eq!(counted, walked, "the count of live keys differs from the keys");
            self.replace(place, blocks);
        }
        Ok(())
    }

    fn replace(&mut self, place: Place, blocks: Vec<Block>) {
        let chunk = Arc::make_mut(&mut self.chunks[place.chunk]);
        chunk.blocks.splice(place.block..=place.block, blocks);
        if chunk.blocks.len() > 2 * CHUNK_BLOCKS {
            let parts: Vec<_> = chunk
                .blocks
                .chunks(CHUNK_BLOCKS)
                .map(|part| Chunk::new(part.to_vec()))
                .collect();
            self.chunks.splice(place.chunk..=place.chunk, parts);
        }
    }

    /// Live keys in `range`; `live` shows exactly the keys counted.
    pub fn count(&self, live: Live<'_>, range: &KeyRange) -> Result<u64, StoreError> {
        let start = range.start.as_ref();
        let end = range.end.as_deref();
        if end.is_some_and(|end| end <= start) {
            return Ok(0);
        }
        let first = self.locate(start);
        let last = end.map(|end| self.locate(end));
        if last == Some(first) {
            return walk(live, start, end);
        }
        let head = match self.block(first) {
            block if block.fence == start => block.live,
            _ => walk(live, start, self.fence_after(first).as_deref())?,
        };
        let tail = match last {
            Some(last) => walk(live, &self.block(last).fence, end)?,
            None => 0,
        };
        Ok(head + self.between(first, last) + tail)
    }

    /// Live keys of the blocks after `first` and before `last` (`None`: to the end).
    fn between(&self, first: Place, last: Option<Place>) -> u64 {
        let sum = |blocks: &[Block]| blocks.iter().map(|block| block.live).sum::<u64>();
        let blocks = |chunk: usize| &self.chunks[chunk].blocks;
        match last {
            Some(last) if last.chunk == first.chunk => sum(&blocks(first.chunk)[first.block + 1..last.block]),
            _ => {
                let until = last.map_or(self.chunks.len(), |last| last.chunk);
                let whole = self.chunks[first.chunk + 1..until]
                    .iter()
                    .map(|chunk| chunk.live)
                    .sum::<u64>();
                let tail = last.map_or(0, |last| sum(&blocks(last.chunk)[..last.block]));
                sum(&blocks(first.chunk)[first.block + 1..]) + whole + tail
            }
        }
    }

    /// The block that covers `key`.
    fn locate(&self, key: &[u8]) -> Place {
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.blocks[0].fence.as_ref() <= key)
            - 1;
        let block = self.chunks[chunk]
            .blocks
            .partition_point(|block| block.fence.as_ref() <= key)
            - 1;
        Place { chunk, block }
    }

    fn block(&self, place: Place) -> &Block {
        &self.chunks[place.chunk].blocks[place.block]
    }

    fn fence_after(&self, place: Place) -> Option<Bytes> {
        let within = self.chunks[place.chunk].blocks.get(place.block + 1);
        let next = within.or_else(|| self.chunks.get(place.chunk + 1).map(|chunk| &chunk.blocks[0]));
        next.map(|block| block.fence.clone())
    }
}

/// Cuts the live keys from `fence` up to `end` into blocks; at least one.
fn cut(live: Live<'_>, fence: Bytes, end: Option<Bytes>) -> Result<Vec<Block>, StoreError> {
    let mut cursor = live.cursor(Bounds::new(&fence, end.as_deref()))?;
    let mut blocks = Vec::new();
    let mut block = Block {
        fence: fence.clone(),
        live: 0,
    };
    while let Some((key, _)) = cursor.row() {
        if block.live == BLOCK_KEYS {
            let next = Block {
                fence: Bytes::copy_from_slice(key),
                live: 0,
            };
            blocks.push(std::mem::replace(&mut block, next));
        }
        block.live += 1;
        cursor.advance()?;
    }
    blocks.push(block);
    Ok(blocks)
}

fn walk(live: Live<'_>, start: &[u8], end: Option<&[u8]>) -> Result<u64, StoreError> {
    let mut cursor = live.cursor(Bounds::new(start, end))?;
    let mut keys = 0;
    while cursor.row().is_some() {
        keys += 1;
        cursor.advance()?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::{Batch, Engine, Family, memory::MemoryEngine};

    fn key(number: u16) -> Bytes {
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_set(
            rounds in prop::collection::vec((0u16..2000, 0u16..900, any::<bool>()), 1..12),
            ranges in prop::collection::vec((0u16..3000, prop::option::of(0u16..3000)), 1..12),
        ) {
            let engine = MemoryEngine::new();
            let mut counts = Counts::empty();
            let mut keys = BTreeSet::new();
            for (start, len, insert) in rounds {
                let mut batch = Batch::default();
                for number in start..start + len {
                    if insert && keys.insert(number) {
                        counts.insert(&key(number));
                        batch.put(Family::Cur, key(number), Bytes::new());
                    } else if !insert && keys.remove(&number) {
                        counts.remove(&key(number));
                        batch.delete(Family::Cur, key(number));
                    }
                }
                engine.write(batch).unwrap();
                let view = engine.view();
                let live = Live { view: &*view, any_ended: false };
                counts.rebalance(live).unwrap();
                let built = Counts::build(live).unwrap();
                for (from, to) in &ranges {
                    let range = KeyRange { start: key(*from), end: to.map(key) };
                    let expected = keys.iter().filter(|k| *k >= from && to.is_none_or(|to| **k < to)).count();
                    prop_assert_eq!(counts.count(live, &range).unwrap(), expected as u64);
                    prop_assert_eq!(built.count(live, &range).unwrap(), expected as u64);
                }
                prop_assert_eq!(counts.live(), keys.len() as u64);
                let crowded = |chunk: &Arc<Chunk>| chunk.blocks.iter().any(|block| block.live > CROWDED_KEYS);
                prop_assert!(!counts.chunks.iter().any(crowded));
            }
        }
    }
}
