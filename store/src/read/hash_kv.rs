//! etcd's HashKV, byte for byte, over what this store keeps.
//!
//! CRC-32C (Castagnoli) over the bucket's name `key`, then per retained change in revision order the bucket's
//! key (main revision big-endian in 8 bytes, `_`, sub-revision in 8 bytes, and `t` for a tombstone) and its
//! value, an encoded `mvccpb.KeyValue` (of a tombstone: the key alone). Retained are, for a hash at R with
//! compact revision C: every change after C and up to R; from C down, versions that are still live at R, and
//! when nothing at all is live at R, those that were live at C. A tombstone at C never counts.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{At, Keyspace};
use crate::{
    KeyRange, ReadError, Revision, StoreError,
    codec::{self, LogOp, LogRow, Record},
    keys::{self, Version},
    kv::{Bounds, Family},
};

const BUCKET: &[u8] = b"key";
/// Read at once; a version may have a megabyte and more.
const WINDOW_CHANGES: usize = 32;

struct Change {
    at: Version,
    op: LogOp,
    key: Bytes,
}

/// A hash under way. It is taken in steps, so that one over much data need not be taken in one go.
pub struct HashKv {
    hash: u32,
    live_at: i64,
    /// Rows of `log` that are left.
    from: Bytes,
    end: [u8; keys::VERSION_LEN],
    /// Bytes of rows read so far.
    pub bytes: u64,
}

impl HashKv {
    /// Once there is no step left.
    pub fn hash(&self) -> u32 {
        self.hash
    }
}

impl Keyspace<'_> {
    /// The hash, and the compact revision that it stands for.
    pub fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision), ReadError> {
        let mut steps = self.begin_hash_kv(revision)?;
        while self.step_hash_kv(&mut steps, u64::MAX)? {}
        Ok((steps.hash(), Revision(self.compact_revision)))
    }

    pub fn begin_hash_kv(&self, revision: Revision) -> Result<HashKv, ReadError> {
        let at = self.resolve(revision)?;
        let upper = if let At::Past(revision) = at {
            revision
        } else {
            self.revision
        };
        let live_at = if self.has_live_key(at)? {
            upper
        } else {
            self.compact_revision
        };
        Ok(HashKv {
            hash: crc32c::crc32c(BUCKET),
            live_at,
            from: Bytes::new(),
            end: Version::first_of(upper + 1).to_bytes(),
            bytes: 0,
        })
    }

    /// Reads about so many bytes more; `true` while something is left.
    pub fn step_hash_kv(&self, steps: &mut HashKv, bytes: u64) -> Result<bool, StoreError> {
        let enough = steps.bytes.saturating_add(bytes);
        let mut log = self
            .view
            .cursor(Family::Log, Bounds::new(&steps.from, Some(&steps.end)))?;
        let mut window = Vec::with_capacity(WINDOW_CHANGES);
        while let Some((row, value)) = log.row() {
            let (at, change) = (keys::split_log(row)?, LogRow::decode(value)?);
            window.push(Change {
                at,
                op: change.op,
                key: Bytes::copy_from_slice(change.key),
            });
            steps.bytes += (row.len() + value.len()) as u64;
            if window.len() == WINDOW_CHANGES {
                self.absorb(steps, &window)?;
                window.clear();
                if steps.bytes >= enough {
                    log.advance()?;
                    let next = log.row().map(|(row, _)| Bytes::copy_from_slice(row));
                    return Ok(next.map(|next| steps.from = next).is_some());
                }
            }
            log.advance()?;
        }
        self.absorb(steps, &window)?;
        Ok(false)
    }

    fn has_live_key(&self, at: At) -> Result<bool, StoreError> {
        let mut found = false;
        let everything = KeyRange {
            start: Bytes::new(),
            end: None,
        };
        self.scan(&everything, at, &mut |_, _| {
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn absorb(&self, steps: &mut HashKv, window: &[Change]) -> Result<(), StoreError> {
        let (mut hash, live_at) = (steps.hash, steps.live_at);
        let is_put = |change: &&Change| change.op == LogOp::Put;
        let puts: Vec<_> = window
            .iter()
            .filter(is_put)
            .map(|put| (put.key.clone(), put.at))
            .collect();
        let mut rows = self.versions_with_end(&puts)?.into_iter();
        for change in window {
            let compacted = change.at.main <= self.compact_revision;
            match change.op {
                LogOp::Delete if compacted => {}
                LogOp::Delete => {
                    let mut value = Vec::new();
                    push_bytes(&mut value, 1, &change.key);
                    hash = append(hash, change.at, true, &value);
                }
                LogOp::Put => {
                    let Some((row, end)) = rows.next().flatten() else {
                        continue;
                    };
                    steps.bytes += row.len() as u64;
                    if compacted && end.is_some_and(|end| end.main <= live_at) {
                        continue;
                    }
                    hash = append(
                        hash,
                        change.at,
                        false,
                        &wire_form(&change.key, &Record::decode(&row)?),
                    );
                }
            }
        }
        steps.hash = hash;
        Ok(())
    }

    /// The records of exact versions, and for superseded ones when they ended.
    #[allow(clippy::type_complexity)]
    fn versions_with_end(
        &self,
        wanted: &[(Bytes, Version)],
    ) -> Result<Vec<Option<(Bytes, Option<Version>)>>, StoreError> {
        let rows: Vec<Bytes> = wanted.iter().map(|(key, at)| keys::hist(key, *at)).collect();
        let mut found = Vec::with_capacity(wanted.len());
        for ((key, at), row) in wanted.iter().zip(self.view.multi_get(Family::Hist, &rows)?) {
            found.push(match row {
                Some(row) => {
                    let (end, record) = codec::split_hist(&row)?;
                    Some((row.slice_ref(record), Some(end)))
                }
                None => match self.view.get(Family::Cur, key)? {
                    Some(row) if Record::decode(&row)?.modified == *at => {
                        Some((row, self.live().end_of(key)?))
                    }
                    _ => None,
                },
            });
        }
        Ok(found)
    }
}

fn append(hash: u32, at: Version, tombstone: bool, value: &[u8]) -> u32 {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&at.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&i64::from(at.sub).to_be_bytes());
    if tombstone {
        key.push(b't');
    }
    crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), value)
}

/// `mvccpb.KeyValue` with its fields in order, and none that is zero.
fn wire_form(key: &[u8], record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + record.value.len() + 40);
    push_bytes(&mut out, 1, key);
    push_number(&mut out, 2, record.create);
    push_number(&mut out, 3, record.modified.main);
    push_number(&mut out, 4, record.version);
    push_bytes(&mut out, 5, record.value);
    push_number(&mut out, 6, record.lease.0);
    out
}

fn push_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn push_number(out: &mut Vec<u8>, tag: u32, number: i64) {
    if number == 0 {
        return;
    }
    encode_key(tag, WireType::Varint, out);
    encode_varint(number as u64, out);
}
