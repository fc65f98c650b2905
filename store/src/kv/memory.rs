//! An engine in memory that forgets what was not flushed when it crashes.
//!
//! [`MemoryEngine`] keeps one copy-on-write map per family; a view is a set of `Arc`s. The `Disk` behind it
//! holds what a flush made durable, and which database is the current one: [`MemoryEngine::crash`] opens that
//! again. For property tests and simulation, never for data that matters.

use std::{
    collections::BTreeMap,
    fs,
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Batch, Bounds, Cursor, Engine, EngineSizes, Family, View};
use crate::StoreError;

type Rows = BTreeMap<Bytes, Bytes>;
type Families = [Arc<Rows>; Family::ALL.len()];

/// Where a copy's rows are kept inside its directory.
const COPY_FILE: &str = "memory.rows";

#[derive(Default)]
struct Disk {
    /// What each database made durable, by number.
    durable: Mutex<BTreeMap<u64, Families>>,
    current: AtomicU64,
    next: AtomicU64,
    /// Counts the crashes: what a database of before the last one still does reaches no disk.
    boot: AtomicU64,
}

impl Disk {
    fn powered(&self, boot: u64) -> Result<(), StoreError> {
        match self.boot.load(Ordering::SeqCst) == boot {
            true => Ok(()),
            false => Err(std::io::Error::other("the power was cut").into()),
        }
    }
}

pub struct MemoryEngine {
    disk: Arc<Disk>,
    boot: u64,
    number: u64,
    families: Mutex<Families>,
}

impl MemoryEngine {
    /// An empty database on a disk of its own.
    pub fn new() -> Self {
        let engine = Self {
            disk: Arc::new(Disk::default()),
            boot: 0,
            number: 0,
            families: Mutex::default(),
        };
        engine.disk.next.store(1, Ordering::SeqCst);
        engine.disk.durable.lock().insert(0, Families::default());
        engine
    }

    /// What is found after a power cut at this moment: the current database as it was last flushed. This one and
    /// its like can make nothing durable any more.
    pub fn crash(&self) -> Self {
        let boot = self.disk.boot.fetch_add(1, Ordering::SeqCst) + 1;
        let number = self.disk.current.load(Ordering::SeqCst);
        let families = self.disk.durable.lock().get(&number).cloned().unwrap_or_default();
        Self {
            disk: Arc::clone(&self.disk),
            boot,
            number,
            families: Mutex::new(families),
        }
    }
}

impl MemoryEngine {
    /// As somebody copies the directory of a database that is closed: a disk of its own with what is durable on this
    /// one, to be opened with [`MemoryEngine::crash`].
    pub fn copy(&self) -> Self {
        let disk = Disk {
            durable: Mutex::new(self.disk.durable.lock().clone()),
            current: AtomicU64::new(self.disk.current.load(Ordering::SeqCst)),
            next: AtomicU64::new(self.disk.next.load(Ordering::SeqCst)),
            boot: AtomicU64::default(),
        };
        Self {
            disk: Arc::new(disk),
            boot: 0,
            number: self.number,
            families: Mutex::default(),
        }
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut families = self.families.lock();
        for (family, key, value) in batch.rows {
            let rows = Arc::make_mut(&mut families[family.index()]);
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(MemoryView {
            families: self.families.lock().clone(),
        })
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.disk.powered(self.boot)?;
        let families = self.families.lock().clone();
        self.disk.durable.lock().insert(self.number, families);
        Ok(())
    }

    /// Nothing is kept of what is gone.
    fn defragment(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        self.flush()?;
        fs::create_dir(dir)?;
        let mut bytes = Vec::new();
        for rows in self.families.lock().iter() {
            put_len(&mut bytes, rows.len());
            for part in rows.iter().flat_map(|(key, value)| [key, value]) {
                put_len(&mut bytes, part.len());
                bytes.extend_from_slice(part);
            }
        }
        fs::write(dir.join(COPY_FILE), bytes)?;
        Ok(())
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Arc<dyn View>, StoreError> {
        Ok(Arc::new(MemoryView {
            families: read_copy(dir)?,
        }))
    }

    fn stage(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        self.disk.powered(self.boot)?;
        let families = read_copy(dir)?;
        fs::remove_dir_all(dir)?;
        let number = self.disk.next.fetch_add(1, Ordering::SeqCst);
        self.disk.durable.lock().insert(number, families.clone());
        Ok(Arc::new(Self {
            disk: Arc::clone(&self.disk),
            boot: self.boot,
            number,
            families: Mutex::new(families),
        }))
    }

    fn make_current(&self) -> Result<(), StoreError> {
        self.disk.powered(self.boot)?;
        self.disk.current.store(self.number, Ordering::SeqCst);
        Ok(())
    }

    fn retire(&self) {
        if self.disk.powered(self.boot).is_ok() {
            self.disk.durable.lock().remove(&self.number);
        }
    }

    fn sizes(&self) -> EngineSizes {
        let bytes = |rows: &Arc<Rows>| {
            rows.iter()
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>()
        };
        let total = self.families.lock().iter().map(bytes).sum::<usize>() as u64;
        EngineSizes {
            total_bytes: total,
            live_bytes: total,
        }
    }
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&(len as u64).to_be_bytes());
}

fn read_copy(dir: &Path) -> Result<Families, StoreError> {
    let mut bytes = Bytes::from(fs::read(dir.join(COPY_FILE))?);
    let mut families = Families::default();
    for family in &mut families {
        let rows = Arc::make_mut(family);
        for _ in 0..take_len(&mut bytes)? {
            let key = take_part(&mut bytes)?;
            let value = take_part(&mut bytes)?;
            rows.insert(key, value);
        }
    }
    Ok(families)
}

fn take_len(bytes: &mut Bytes) -> Result<usize, StoreError> {
    let (len, _) = bytes.split_first_chunk::<8>().ok_or_else(cut_short)?;
    let len = u64::from_be_bytes(*len) as usize;
    bytes::Buf::advance(bytes, 8);
    Ok(len)
}

fn take_part(bytes: &mut Bytes) -> Result<Bytes, StoreError> {
    let len = take_len(bytes)?;
    if len > bytes.len() {
        return Err(cut_short());
    }
    Ok(bytes.split_to(len))
}

fn cut_short() -> StoreError {
    StoreError::Corrupt {
        what: "copy",
        detail: format!("{COPY_FILE} ends too early"),
    }
}

struct MemoryView {
    families: Families,
}

impl MemoryView {
    fn rows(&self, family: Family) -> &Rows {
        &self.families[family.index()]
    }
}

impl View for MemoryView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows(family).get(key).cloned())
    }

    fn floor(&self, family: Family, start: &[u8], last: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if last < start {
            return Ok(None);
        }
        let range = (Bound::Included(start), Bound::Included(last));
        let row = self.rows(family).range::<[u8], _>(range).next_back();
        Ok(row.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn cursor<'a>(&'a self, family: Family, bounds: Bounds<'_>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        let rows = self.rows(family);
        let mut cursor = MemoryCursor {
            rows,
            end: bounds.end.map(Bytes::copy_from_slice),
            row: None,
        };
        cursor.row = cursor.first(Bound::Included(bounds.start));
        Ok(Box::new(cursor))
    }
}

struct MemoryCursor<'a> {
    rows: &'a Rows,
    end: Option<Bytes>,
    row: Option<(&'a Bytes, &'a Bytes)>,
}

impl<'a> MemoryCursor<'a> {
    fn first(&self, from: Bound<&[u8]>) -> Option<(&'a Bytes, &'a Bytes)> {
        let row = self.rows.range::<[u8], _>((from, Bound::Unbounded)).next()?;
        let inside = self.end.as_ref().is_none_or(|end| row.0 < end);
        inside.then_some(row)
    }
}

impl Cursor for MemoryCursor<'_> {
    fn row(&self) -> Option<(&[u8], &[u8])> {
        self.row.map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        if let Some((key, _)) = self.row {
            self.row = self.first(Bound::Excluded(key));
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if self.row.is_some_and(|(at, _)| at.as_ref() < key) {
            self.row = self.first(Bound::Included(key));
        }
        Ok(())
    }
}
