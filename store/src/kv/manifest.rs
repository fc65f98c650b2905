//! RocksDB's manifest, looked at before RocksDB opens it: whole, torn at its end, or damaged.
//!
//! RocksDB appends records to its manifest, and syncs. Of what it had not synced when the power went any sectors may be
//! there. It takes a record that the file's end cuts off for one that was not finished, but one with holes for damage,
//! and refuses to open the database; and it takes a length that was damaged for the file's end, and forgets in silence
//! what follows. So it is not asked. The rule is that of the Raft log: what was written later proves that what came
//! before had been synced. A break with a whole record behind it is damage, and nothing is changed. A break with none
//! is a torn end, or damage of the last record: these two look alike. It may go, as the state from before it is whole
//! and the Raft log has what followed (a log that was purged beyond that state is refused by its member). What is cut is
//! kept beside it as `MANIFEST-….torn`.
//!
//! One sync may cover several records: an atomic flush writes one for each family, as a group, and each says how many
//! of the group follow. With the records of one flush in sectors 1 to 3, and sector 1 lost:
//!
//! ```text
//! … | whole, 0 follow | ?? ?? ?? | whole, 2 follow | whole, 1 follows | whole, 0 follow |   one torn flush
//! … | whole, 0 follow | ?? ?? ?? | whole, 0 follow | whole, 3 follow  | …               |   damage: two flushes
//! ```
//!
//! The format is that of RocksDB's logs: blocks of 32 KiB with records in them, each with a masked CRC-32C, a length and
//! a type, and none across two blocks.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use super::Family;
use crate::StoreError;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// Of changes to the manifest there are never as many under way; what is broken before that is damage.
const LONGEST_TAIL: usize = BLOCK_BYTES;
/// RocksDB begins a new one long before.
const MOST_BYTES: u64 = 256 << 20;
/// Cut ends that are kept, of one manifest.
const MOST_KEPT: usize = 100;
/// How a record ends that is part of a group: this, and how many of the group follow, below 128 in one byte.
const IN_GROUP: [u8; 2] = [0xac, 0x02];
/// A flush writes one record for each family that has something to write, and one for RocksDB's default family.
const LARGEST_GROUP: usize = Family::ALL.len() + 1;

/// The manifest that a database's `CURRENT` names, every byte of it explained.
pub(super) struct Manifest {
    path: PathBuf,
    /// Up to where every record is whole; the rest is torn.
    whole: usize,
    bytes: Vec<u8>,
}

/// What may go, if RocksDB refuses it.
pub(super) struct TornEnd(Manifest);

/// A manifest that was cut, and the original.
pub(super) struct Cut {
    path: PathBuf,
    kept: PathBuf,
}

/// Whether the database in this directory has got as far as a manifest.
pub(super) fn is_named(dir: &Path) -> bool {
    dir.join("CURRENT").exists()
}

impl Manifest {
    /// Refuses one that is missing or damaged.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = named(dir)?;
        let failed =
            |error: io::Error| StoreError::DataDir(format!("cannot read {}: {error}", path.display()));
        if fs::metadata(&path).map_err(failed)?.len() > MOST_BYTES {
            return Err(damaged(format!("{} is too large", path.display())));
        }
        let bytes = fs::read(&path).map_err(failed)?;
        let records = Records::of(&bytes);
        let refused = |text: &str| {
            let at = records.broken_at;
            let text = format!(
                "{}: the record at {at} is unreadable, {text}: it is damaged, not torn at its end; nothing was changed: \
                 restore it",
                path.display()
            );
            Err(damaged(text))
        };
        if records.whole == 0 {
            return refused("and nothing before it");
        }
        if let Some(later) = records.later(&bytes) {
            return refused(&format!("but one written later is whole at {later}"));
        }
        let torn = bytes.len() - records.whole;
        if torn > LONGEST_TAIL {
            return refused(&format!("and {torn} bytes follow"));
        }
        Ok(Self {
            path,
            whole: records.whole,
            bytes,
        })
    }

    fn torn(&self) -> usize {
        self.bytes.len() - self.whole
    }

    pub fn is_whole(&self) -> bool {
        self.torn() == 0
    }

    /// For a copy, which has no torn end.
    pub fn whole(self) -> Result<Self, StoreError> {
        match self.torn() {
            0 => Ok(self),
            torn => Err(damaged(format!(
                "{}: its last {torn} bytes are unreadable",
                self.path.display()
            ))),
        }
    }

    pub fn into_torn_end(self) -> Option<TornEnd> {
        (!self.is_whole()).then(|| {
            tracing::warn!(
                manifest = %self.path.display(), whole = self.whole, unreadable = self.torn(),
                "the end of RocksDB's manifest is unreadable; the log must have what it lacks"
            );
            TornEnd(self)
        })
    }
}

impl TornEnd {
    /// Cuts it off. The manifest is replaced, not changed: whatever links to the old one keeps it.
    pub fn cut(self) -> Result<Cut, StoreError> {
        let Manifest { path, whole, bytes } = self.0;
        let failed =
            |error: io::Error| StoreError::DataDir(format!("cannot mend {}: {error}", path.display()));
        let kept = keep(&path, &bytes).map_err(failed)?;
        let new = path.with_extension("cut");
        File::create(&new)
            .and_then(|mut file| file.write_all(&bytes[..whole]).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| sync_dir_of(&path))
            .map_err(failed)?;
        tracing::warn!(
            manifest = %path.display(), whole, cut = bytes.len() - whole, original = %kept.display(),
            "the unreadable end of RocksDB's manifest is cut off; the original is kept"
        );
        Ok(Cut { path, kept })
    }
}

impl Cut {
    /// It did not help: the original is put back. Returns the error that is told.
    pub fn undone_for(self, error: StoreError) -> StoreError {
        let undone = fs::rename(&self.kept, &self.path).and_then(|()| sync_dir_of(&self.path));
        if let Err(error) = undone {
            tracing::warn!(%error, kept = %self.kept.display(), "the original manifest could not be put back");
        }
        error
    }
}

/// Writes the original beside it under a name that nothing has, durably.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 1..=MOST_KEPT {
        let kept = path.with_file_name(match number {
            1 => format!("{name}.torn"),
            _ => format!("{name}.torn-{number}"),
        });
        match File::create_new(&kept) {
            Ok(mut file) => {
                file.write_all(bytes)?;
                file.sync_all()?;
                sync_dir_of(path)?;
                return Ok(kept);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "{MOST_KEPT} torn ends of it are kept already"
    )))
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The manifest that `CURRENT` names, which must be there.
fn named(dir: &Path) -> Result<PathBuf, StoreError> {
    let current = dir.join("CURRENT");
    let refuse = |what: &str| {
        let manifests = manifests(dir);
        let mend = match manifests.last() {
            Some(name) => format!("`echo {name} > {}` names it again", current.display()),
            None => "restore the directory".to_owned(),
        };
        Err(damaged(format!(
            "{} {what}; found: {}; nothing was changed: {mend}",
            current.display(),
            match manifests.is_empty() {
                true => "no manifest".to_owned(),
                false => manifests.join(", "),
            }
        )))
    };
    let bytes = match fs::read(&current) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return refuse("is missing"),
        Err(error) => {
            let text = format!("cannot read {}: {error}", current.display());
            return Err(StoreError::DataDir(text));
        }
    };
    let name = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|name| name.strip_suffix('\n'));
    match name.filter(|name| is_manifest(name)) {
        Some(name) if dir.join(name).is_file() => Ok(dir.join(name)),
        Some(name) => refuse(&format!("names {name}, which is missing")),
        None => refuse("does not name a manifest"),
    }
}

fn is_manifest(name: &str) -> bool {
    let number = name.strip_prefix("MANIFEST-").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// The names of all that are there, oldest first.
fn manifests(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| is_manifest(name)).collect();
    names.sort();
    names
}

fn damaged(detail: String) -> StoreError {
    StoreError::Corrupt {
        what: "database",
        detail,
    }
}

/// What can be read from the start on.
struct Records {
    /// Up to where every record is whole.
    whole: usize,
    /// Where the first unreadable byte is: behind `whole` when a record's first blocks can be read.
    broken_at: usize,
    /// How many of its group follow the last whole record, if it belongs to one.
    follow: usize,
}

impl Records {
    fn of(manifest: &[u8]) -> Self {
        let mut records = Records {
            whole: 0,
            broken_at: 0,
            follow: 0,
        };
        while let Some(fragment) = Fragment::next(manifest, records.broken_at) {
            records.broken_at = fragment.end;
            if fragment.ends_a_record {
                records.whole = fragment.end;
                records.follow = fragment.follow.unwrap_or(0);
            }
        }
        records
    }

    /// Where a whole record begins that was written when what lies at the break was durable.
    fn later(&self, manifest: &[u8]) -> Option<usize> {
        // Of the group that is broken at least one is lost.
        let mut fewer_than = match self.follow {
            0 => LARGEST_GROUP - 1,
            follow => follow - 1,
        };
        let (mut at, mut begun) = (self.broken_at + 1, None);
        // A tail that is longer is damage in any case.
        let end = manifest.len().min(self.whole + LONGEST_TAIL);
        while at < end {
            let Some(fragment) = Fragment::at(manifest, at) else {
                at += 1;
                continue;
            };
            match fragment.follow {
                _ if !fragment.ends_a_record => begun = begun.or(Some(at)),
                Some(follow) if follow < fewer_than => (fewer_than, begun) = (follow, None),
                _ => return Some(at),
            }
            at = fragment.end;
        }
        begun
    }
}

/// A record, or what of one lies in a block.
struct Fragment {
    end: usize,
    ends_a_record: bool,
    /// How many of its group follow, if it is in one.
    follow: Option<usize>,
}

impl Fragment {
    /// The next one from here; `None`: there is none, or it is broken.
    fn next(manifest: &[u8], at: usize) -> Option<Fragment> {
        let left_in_block = BLOCK_BYTES - at % BLOCK_BYTES;
        match left_in_block < HEADER_BYTES {
            true => Self::at(manifest, at + left_in_block),
            false => Self::at(manifest, at),
        }
    }

    /// The one that begins here.
    fn at(manifest: &[u8], start: usize) -> Option<Fragment> {
        let header = manifest.get(start..start + HEADER_BYTES)?;
        // One that is whole, or the first, a middle or the last fragment.
        let ends_a_record = match header[6] {
            1 | 4 => true,
            2 | 3 => false,
            _ => return None,
        };
        let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let end = start + HEADER_BYTES + len;
        if start % BLOCK_BYTES + HEADER_BYTES + len > BLOCK_BYTES {
            return None;
        }
        // Type and payload.
        let covered = manifest.get(start + HEADER_BYTES - 1..end)?;
        let fragment = Fragment {
            end,
            ends_a_record,
            follow: followers(&covered[1..]),
        };
        (masked(crc32c::crc32c(covered)) == checksum).then_some(fragment)
    }
}

fn followers(payload: &[u8]) -> Option<usize> {
    let (before, number) = payload.split_last_chunk::<1>()?;
    before.ends_with(&IN_GROUP).then(|| usize::from(number[0]))
}

fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
