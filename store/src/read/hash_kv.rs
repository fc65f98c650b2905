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
const WINDOW_CHANGES: usize = 256;

struct Change {
    at: Version,
    op: LogOp,
    key: Bytes,
}

impl Keyspace<'_> {
    /// The hash, and the compact revision that it stands for.
    pub fn hash_kv(&self, revision: Revision) -> Result<(u32, Revision), ReadError> {
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
        let mut hash = crc32c::crc32c(BUCKET);
        let end = Version::first_of(upper + 1).to_bytes();
        let mut log = self.view.cursor(Family::Log, Bounds::new(&[], Some(&end)))?;
        let mut window = Vec::with_capacity(WINDOW_CHANGES);
        while let Some((row, value)) = log.row() {
            let (at, change) = (keys::split_log(row)?, LogRow::decode(value)?);
            window.push(Change {
                at,
                op: change.op,
                key: Bytes::copy_from_slice(change.key),
            });
            if window.len() == WINDOW_CHANGES {
                hash = self.absorb(hash, &window, live_at)?;
                window.clear();
            }
            log.advance()?;
        }
        hash = self.absorb(hash, &window, live_at)?;
        Ok((hash, Revision(self.compact_revision)))
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

    fn absorb(&self, mut hash: u32, window: &[Change], live_at: i64) -> Result<u32, StoreError> {
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
        Ok(hash)
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
