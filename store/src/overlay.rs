//! What an apply has written so far, merged over the view that it started from.
//!
//! [`Overlay`] is itself a [`View`], so apply reads through the same code as readers do: a command sees the
//! ones before it, a txn its own puts and deletes. A command that may still be refused after it has written says so
//! ([`Overlay::remember`]) and is undone by [`Overlay::undo`]; others are spared the memory.
//! It writes nothing to the engine; [`Overlay::into_batch`] hands everything over at the end.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    StoreError,
    kv::{Batch, Bounds, Cursor, Family, View},
    planted,
};

/// `None` marks a deletion.
type Written = BTreeMap<Bytes, Option<Bytes>>;

/// What a row costs in memory beside its bytes, roughly.
const ROW_BYTES: usize = 200;

pub struct Overlay {
    base: Arc<dyn View>,
    written: [Written; Family::ALL.len()],
    undo: Vec<Undo>,
    remembers: bool,
    /// Something was written that is neither kept yet nor remembered.
    is_final: bool,
    bytes: usize,
}

struct Undo {
    family: Family,
    key: Bytes,
    /// What the overlay held before; the outer `None`: nothing.
    before: Option<Option<Bytes>>,
}

impl Overlay {
    pub fn new(base: Arc<dyn View>) -> Self {
        Self {
            base,
            written: Default::default(),
            undo: Vec::new(),
            remembers: false,
            is_final: false,
            bytes: 0,
        }
    }

    /// What was written, roughly and with what was overwritten since.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn put(&mut self, family: Family, key: Bytes, value: Bytes) {
        self.write(family, key, Some(value));
    }

    pub fn delete(&mut self, family: Family, key: Bytes) {
        self.write(family, key, None);
    }

    fn write(&mut self, family: Family, key: Bytes, value: Option<Bytes>) {
        self.bytes += ROW_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len);
        if !self.remembers {
            self.is_final = true;
            self.written[family.index()].insert(key, value);
            return;
        }
        let before = self.written[family.index()].insert(key.clone(), value);
        self.undo.push(Undo { family, key, before });
    }

    /// From here to the next [`Self::keep`] or [`Self::undo`] whatever is written can be undone.
    pub fn remember(&mut self) {
        self.remembers = true;
    }

    /// Nothing written so far can be undone any more.
    pub fn keep(&mut self) {
        self.undo.clear();
        self.remembers = false;
        self.is_final = false;
    }

    /// Forgets everything written since the last [`Self::keep`].
    ///
    /// # Panics
    /// When something was written before [`Self::remember`]: it would stay, and members would differ.
    pub fn undo(&mut self) {
        assert!(
            !self.is_final,
            "a refused command had written what cannot be undone"
        );
        self.remembers = false;
        while let Some(undo) = self.undo.pop() {
            let written = &mut self.written[undo.family.index()];
            match undo.before {
                Some(before) => written.insert(undo.key, before),
                None => written.remove(&undo.key),
            };
        }
    }

    pub fn into_batch(self) -> Batch {
        let mut batch = Batch::default();
        for (family, written) in Family::ALL.into_iter().zip(self.written) {
            batch
                .rows
                .extend(written.into_iter().map(|(key, value)| (family, key, value)));
        }
        batch
    }
}

impl View for Overlay {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if planted("batch-without-overlay") {
            return self.base.get(family, key);
        }
        match self.written[family.index()].get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(family, key),
        }
    }

    fn floor(&self, family: Family, start: &[u8], last: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if last < start {
            return Ok(None);
        }
        let range = (Bound::Included(start), Bound::Included(last));
        let mut written = self.written[family.index()]
            .range::<[u8], _>(range)
            .rev()
            .peekable();
        let mut below = self.base.floor(family, start, last)?;
        loop {
            let Some(&(key, value)) = written.peek() else {
                return Ok(below);
            };
            if below.as_ref().is_some_and(|(below, _)| below > key) {
                return Ok(below);
            }
            if let Some(value) = value {
                return Ok(Some((key.clone(), value.clone())));
            }
            if below.as_ref().is_some_and(|(below, _)| below == key) {
                below = self.base_below(family, start, key)?;
            }
            written.next();
        }
    }

    fn cursor<'a>(&'a self, family: Family, bounds: Bounds<'_>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        let written = &self.written[family.index()];
        let base = self.base.cursor(family, bounds)?;
        if written.is_empty() || bounds.is_empty() {
            return Ok(base);
        }
        let end = bounds.end.map_or(Bound::Unbounded, Bound::Excluded);
        let range = written.range::<[u8], _>((Bound::Included(bounds.start), end));
        let mut cursor = MergedCursor {
            base,
            written: range,
            over: None,
            at: At::End,
        };
        cursor.over = cursor.written.next();
        cursor.settle()?;
        Ok(Box::new(cursor))
    }
}

impl Overlay {
    /// The base's last row at or above `start` and strictly below `key`.
    fn base_below(
        &self,
        family: Family,
        start: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let mut cursor = self.base.cursor(family, Bounds::new(start, Some(key)))?;
        let mut last = None;
        while let Some((key, value)) = cursor.row() {
            last = Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            cursor.advance()?;
        }
        Ok(last)
    }
}

enum At {
    Base,
    Over,
    End,
}

struct MergedCursor<'a> {
    base: Box<dyn Cursor + 'a>,
    written: btree_map::Range<'a, Bytes, Option<Bytes>>,
    over: Option<(&'a Bytes, &'a Option<Bytes>)>,
    at: At,
}

impl MergedCursor<'_> {
    /// Decides which side has the next row, passing over deleted ones.
    fn settle(&mut self) -> Result<(), StoreError> {
        loop {
            let base = self.base.row().map(|(key, _)| key);
            let Some((over, value)) = self.over else {
                self.at = if base.is_some() { At::Base } else { At::End };
                return Ok(());
            };
            if base.is_some_and(|base| base < over.as_ref()) {
                self.at = At::Base;
                return Ok(());
            }
            if base == Some(over.as_ref()) {
                self.base.advance()?;
            }
            if value.is_some() {
                self.at = At::Over;
                return Ok(());
            }
            self.over = self.written.next();
        }
    }
}

impl Cursor for MergedCursor<'_> {
    fn row(&self) -> Option<(&[u8], &[u8])> {
        match self.at {
            At::Base => self.base.row(),
            At::Over => self
                .over
                .and_then(|(key, value)| Some((key.as_ref(), value.as_deref()?))),
            At::End => None,
        }
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        match self.at {
            At::Base => self.base.advance()?,
            At::Over => self.over = self.written.next(),
            At::End => return Ok(()),
        }
        self.settle()
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if self.row().is_none_or(|(at, _)| at >= key) {
            return Ok(());
        }
        self.base.seek(key)?;
        while self.over.is_some_and(|(at, _)| at.as_ref() < key) {
            self.over = self.written.next();
        }
        self.settle()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::{Engine, memory::MemoryEngine};

    fn byte(key: u8) -> Bytes {
        Bytes::copy_from_slice(&[key])
    }

    proptest! {
        #[test]
        fn reads_as_if_written(
            base in prop::collection::btree_map(0u8..12, any::<u8>(), 0..8),
            writes in prop::collection::vec((0u8..12, any::<Option<u8>>()), 0..12),
            undone in prop::collection::vec((0u8..12, any::<Option<u8>>()), 0..4),
            (start, end, seek) in (0u8..12, 0u8..13, 0u8..12),
        ) {
            let engine = MemoryEngine::new();
            let mut batch = Batch::default();
            for (key, value) in &base {
                batch.put(Family::Cur, byte(*key), byte(*value));
            }
            engine.write(batch).unwrap();
            let mut overlay = Overlay::new(engine.view());
            let mut expected = base;
            for (key, value) in &writes {
                overlay.write(Family::Cur, byte(*key), value.map(byte));
                match value {
                    Some(value) => expected.insert(*key, *value),
                    None => expected.remove(key),
                };
            }
            overlay.keep();
            overlay.remember();
            for (key, value) in &undone {
                overlay.write(Family::Cur, byte(*key), value.map(byte));
            }
            overlay.undo();
            let rows = |from: u8| -> Vec<(u8, u8)> {
                expected.iter().map(|(k, v)| (*k, *v)).filter(|(k, _)| *k >= start && *k >= from && *k < end).collect()
            };
            let walk = |from: Option<u8>| {
                let mut cursor = overlay.cursor(Family::Cur, Bounds::new(&[start], Some(&[end]))).unwrap();
                if let Some(from) = from {
                    cursor.seek(&[from]).unwrap();
                }
                let mut found = Vec::new();
                while let Some((key, value)) = cursor.row() {
                    found.push((key[0], value[0]));
                    cursor.advance().unwrap();
                }
                found
            };
            prop_assert_eq!(walk(None), rows(0));
            prop_assert_eq!(walk(Some(seek)), rows(seek));
            let floor = overlay.floor(Family::Cur, &[start], &[end]).unwrap().map(|(k, v)| (k[0], v[0]));
            let expected_floor =
                expected.iter().map(|(k, v)| (*k, *v)).rfind(|(k, _)| *k >= start && *k <= end);
            prop_assert_eq!(floor, expected_floor);
            for key in 0..12 {
                let got = overlay.get(Family::Cur, &[key]).unwrap().map(|value| value[0]);
                prop_assert_eq!(got, expected.get(&key).copied());
            }
            let written = overlay.into_batch();
            engine.write(written).unwrap();
            for key in 0..12 {
                let got = engine.view().get(Family::Cur, &[key]).unwrap().map(|value| value[0]);
                prop_assert_eq!(got, expected.get(&key).copied());
            }
        }
    }
}
